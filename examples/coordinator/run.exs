# The services of a cluster: those of the Rust nodes of main.rs, and one here.

defmodule Coordinator do
  # All services are members of one group, with what they tell about themselves. SWIM says which nodes are alive.
  @group "services"

  @doc "Registers the calling process as a service, until it ends."
  def register(cluster, name, tags),
    do: Tiebeam.Group.join(cluster, @group, self(), %{name: name, tags: tags})

  @doc "The services whose node is alive, by their names. Reads local tables, never waits."
  def services(cluster, tag) do
    for {pid, %{name: name, tags: tags}} <- Tiebeam.Group.lookup(cluster, @group),
        tag in tags,
        %{status: :alive} <- [Tiebeam.member(cluster, node(pid))],
        into: %{},
        do: {name, pid}
  end

  @doc "The services as soon as they meet a condition."
  def await(cluster, tag, condition) do
    # Whoever subscribes first and looks then misses nothing.
    :ok = Tiebeam.subscribe(cluster)
    :ok = Tiebeam.Registry.subscribe(cluster)
    wait(cluster, tag, condition)
  end

  defp wait(cluster, tag, condition) do
    services = services(cluster, tag)

    if condition.(services) do
      services
    else
      receive do: ({:tiebeam, ^cluster, _event} -> wait(cluster, tag, condition))
    end
  end
end

defmodule Web do
  use GenServer

  def start_link(cluster), do: GenServer.start_link(__MODULE__, cluster)

  # Registered before its supervisor goes on, and again after each restart.
  @impl true
  def init(cluster) do
    :ok = Coordinator.register(cluster, "web", ["http"])
    {:ok, cluster}
  end
end

children = [{Tiebeam, name: Shop, join: [:"api@127.0.0.1", :"db@127.0.0.1"]}, {Web, Shop}]
{:ok, _} = Supervisor.start_link(children, strategy: :rest_for_one)

http = Coordinator.await(Shop, "http", &(map_size(&1) == 2))
json = Coordinator.await(Shop, "json", &(map_size(&1) == 2))
IO.puts("http: #{inspect(Map.keys(http))}, json: #{inspect(Map.keys(json))}")

# The same table, in Rust.
defmodule Wait do
  def until(fun), do: fun.() || (Process.sleep(10) && until(fun))
end

Wait.until(fn -> GenServer.call(http["api"], {:services, "http"}) == Map.keys(http) end)
IO.puts("http: #{inspect(Map.keys(http))}, says api")

# A service that crashes is removed; its supervisor starts it again, and it registers.
Process.exit(http["web"], :kill)
again = Coordinator.await(Shop, "http", &(map_size(&1) == 2 and &1["web"] != http["web"]))
IO.puts("http: #{inspect(Map.keys(again))}, web by another process")

# The services of a node that dies are removed with it.
node = node(json["db"])
send({:crash, node}, :now)
left = Coordinator.await(Shop, "json", &(map_size(&1) == 1 and Tiebeam.member(Shop, node).status == :dead))
IO.puts("json: #{inspect(Map.keys(left))}, the node of db is dead")
