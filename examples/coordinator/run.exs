# The services of a cluster: those of the Rust nodes of main.rs, and one here.

alias Tiebeam.Services

defmodule Coordinator do
  @doc "The services that pass a filter, by their names, as soon as they meet a condition."
  def await(filter, condition) do
    {:ok, watch, _services} = Services.watch(Shop, filter)
    services = wait(watch, filter, condition)
    Services.unwatch(Shop, watch)
    services
  end

  # A local read, after each change that this process is told of.
  defp wait(watch, filter, condition) do
    services = for service <- Services.list(Shop, filter), into: %{}, do: {service.name, service.pid}

    if condition.(services) do
      services
    else
      receive do: ({:tiebeam, Shop, {:service, ^watch, _change, _service}} -> wait(watch, filter, condition))
    end
  end
end

children = [
  {Tiebeam, name: Shop, join: [:"api@127.0.0.1", :"db@127.0.0.1"]},
  # Registered before the supervisor goes on, and again after each restart.
  {Services, cluster: Shop, name: "web", tags: ["http"], child: {Agent, fn -> :pages end}}
]

{:ok, _} = Supervisor.start_link(children, strategy: :rest_for_one)

http = Coordinator.await([tag: "http"], &(map_size(&1) == 2))
json = Coordinator.await([tag: "json"], &(map_size(&1) == 2))
IO.puts("http: #{inspect(Map.keys(http))}, json: #{inspect(Map.keys(json))}")

# The same table, in Rust.
defmodule Wait do
  def until(fun), do: fun.() || (Process.sleep(10) && until(fun))
end

Wait.until(fn -> GenServer.call(http["api"], {:services, "http"}) == Map.keys(http) end)
IO.puts("http: #{inspect(Map.keys(http))}, says api")

# A service that crashes is removed; its supervisor starts it again, and it is there by another process.
Process.exit(http["web"], :kill)
again = Coordinator.await([tag: "http"], &(map_size(&1) == 2 and &1["web"] != http["web"]))
IO.puts("http: #{inspect(Map.keys(again))}, web by another process")

# A node that crashes is suspected first, and its services are hidden from who wants those alive; they go when it is dead.
node = node(json["db"])
send({:crash, node}, :now)
left = Coordinator.await([tag: "json", status: :any], &(map_size(&1) == 1))
Wait.until(fn -> Tiebeam.member(Shop, node).status == :dead end)
IO.puts("json: #{inspect(Map.keys(left))}, the node of db is dead")
