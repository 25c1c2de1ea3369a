# A BEAM node that looks at its cluster now and then, configured by variables of the environment.

defmodule Monitor do
  # The children of an application are stopped in good order when the VM gets SIGTERM: so the cluster's child leaves.
  use Application

  @impl true
  def start(_type, settings) do
    children = [{Tiebeam, name: App, join: settings.seeds}, {Monitor.Looks, settings}]
    Supervisor.start_link(children, strategy: :one_for_one)
  end

  @impl true
  def prep_stop(_state), do: IO.puts("SIGTERM: leaves")

  @impl true
  def stop(_state), do: IO.puts("left")
end

defmodule Monitor.Looks do
  use GenServer

  def start_link(settings), do: GenServer.start_link(__MODULE__, settings)

  @impl true
  def init(settings), do: {:ok, Map.put(settings, :seen, []), settings.interval}

  @impl true
  def handle_info(:timeout, %{seeds: seeds, seen: seen} = state) do
    alive = for %{status: :alive, node: node} <- Tiebeam.members(App), do: node
    # Not to tell of each node that comes at the start.
    complete? = seen != [] or seeds -- alive == []
    if complete? and alive != seen, do: IO.puts("alive: #{Enum.join(alive, ", ")}")

    health = Tiebeam.health(App)
    if health.minority, do: IO.puts("this node is not well: #{inspect(health)}")

    state = if complete?, do: looked(%{state | seen: alive}), else: state
    {:noreply, state, state.interval}
  end

  defp looked(%{rounds: 1} = state) do
    System.cmd("kill", ["-TERM", System.pid()])
    looked(%{state | rounds: 0})
  end

  defp looked(state), do: %{state | rounds: state.rounds - 1}
end

names = fn text ->
  for name <- String.split(text, ",", trim: true), do: name |> String.trim() |> String.to_atom()
end

[name] = names.(System.fetch_env!("NODE_NAME"))
seeds = names.(System.get_env("SEED_NODES", ""))
interval = String.to_integer(System.get_env("INTERVAL", "5000"))
# For a demonstration that ends: it sends SIGTERM to itself after so many looks at all of its seeds.
rounds = String.to_integer(System.get_env("ROUNDS", "0"))

# The VM tells the log that it got SIGTERM.
Logger.configure(level: :warning)
{:ok, _} = Node.start(name, :longnames)
Node.set_cookie(:example)

IO.puts("#{name} looks for #{Enum.join(seeds, ", ")} every #{interval} ms")

# As `mix new --sup` makes one.
settings = %{interval: interval, seeds: seeds, rounds: rounds}

:ok =
  :application.load(
    {:application, :monitor, mod: {Monitor, settings}, applications: [:tiebeam], modules: [], registered: []}
  )

{:ok, _} = Application.ensure_all_started(:monitor)
Process.sleep(:infinity)
