defmodule Tiebeam.Discovery.Connector do
  @moduledoc false
  # Carries out one discovery: a linked process looks, and tells this one, which connects and disconnects. What it decides
  # it decides in `Candidates` and `Pace`. Nothing here blocks: connecting and disconnecting run in tasks.
  #
  # A discovery that raises costs its own process, which begins again after a pause: a fault in the user's code never
  # reaches the supervisor of the cluster.

  use GenServer

  require Logger

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.{Candidates, Name, Pace}

  # It is no dependency: whoever has it gets the events.
  @compile {:no_warn_undefined, :telemetry}

  # Tasks under way at a time. A dial to a host that does not answer takes seconds and holds a process; nodes beyond the
  # limit are dialled when they are found again.
  @max_tasks 16

  # Names that this VM has no atom for, and that this process makes one of: atoms are never freed, and a VM has a million of
  # them. A cluster whose nodes have new names with each of ten deployments a day lives for years on it.
  @max_atoms 65_536

  # `tasks` are `{:dial | :disconnect, name, node, started}` by reference. `told` are what the log says already. `crashes` are those of
  # the process that looks, in succession.
  @enforce_keys [:cluster, :discovery, :telemetry?]
  defstruct @enforce_keys ++
              [:search, candidates: %Candidates{}, tasks: %{}, atoms: @max_atoms, told: nil, crashes: 0]

  @spec child_spec({cluster :: atom, index :: non_neg_integer, Discovery.t()}) :: Supervisor.child_spec()
  def child_spec({cluster, index, discovery}) do
    %{id: {__MODULE__, index}, start: {__MODULE__, :start_link, [{cluster, discovery}]}}
  end

  @spec start_link({cluster :: atom, Discovery.t()}) :: GenServer.on_start()
  def start_link(argument), do: GenServer.start_link(__MODULE__, argument)

  @impl true
  def init({cluster, discovery}) do
    Process.flag(:trap_exit, true)
    telemetry? = Code.ensure_loaded?(:telemetry)
    {:ok, search(%__MODULE__{cluster: cluster, discovery: discovery, telemetry?: telemetry?})}
  end

  @impl true
  def handle_call({:found, names, complete?}, _from, state) do
    {:reply, :ok, take(%{state | told: nil, crashes: 0}, names, complete?)}
  end

  def handle_call({:failed, reason}, _from, state) do
    execute(state, [:discovery, :error], %{count: 1}, %{reason: reason})

    if state.told != reason do
      Logger.warning(
        "#{inspect(state.cluster)}: #{inspect(state.discovery.module)} cannot look for nodes, trying again: " <>
          inspect(reason)
      )
    end

    {:reply, :ok, %{state | told: reason, crashes: 0}}
  end

  @impl true
  def handle_info({task, result}, %{tasks: tasks} = state) when is_map_key(tasks, task) do
    Process.demonitor(task, [:flush])
    {:noreply, ended(state, task, result)}
  end

  def handle_info({:DOWN, task, :process, _pid, reason}, %{tasks: tasks} = state)
      when is_map_key(tasks, task) do
    {:noreply, ended(state, task, {:exit, reason})}
  end

  # The log has its stack.
  def handle_info({:EXIT, pid, reason}, %{search: pid} = state) do
    execute(state, [:discovery, :error], %{count: 1}, %{reason: reason})
    crashes = state.crashes + 1
    Process.send_after(self(), :search, Pace.pause(state.discovery.interval, crashes, :rand.uniform()))
    {:noreply, %{state | search: nil, crashes: crashes}}
  end

  def handle_info(:search, state), do: {:noreply, search(state)}
  # The ends of tasks, which their results or monitors told.
  def handle_info(_message, state), do: {:noreply, state}

  # ---- the process that looks

  defp search(%{discovery: discovery} = state) do
    connector = self()
    {:ok, pid} = Task.start_link(fn -> look(connector, discovery, discovery.state, 0) end)
    %{state | search: pid}
  end

  defp look(connector, %Discovery{module: module, interval: interval} = discovery, state, failures) do
    {told, state, failures} =
      case module.find(state) do
        {:ok, names, state} -> {{:found, names, true}, state, 0}
        {:some, names, state} -> {{:found, names, false}, state, 0}
        {:error, reason, state} -> {{:failed, reason}, state, failures + 1}
      end

    :ok = GenServer.call(connector, told, :infinity)
    Process.sleep(Pace.pause(interval, failures, :rand.uniform()))
    look(connector, discovery, state, failures)
  end

  # ---- what was found

  defp take(state, names, complete?) do
    own = Atom.to_string(node())
    names = for name <- names, {:ok, name} <- [Name.parse(name)], name != own, uniq: true, do: name
    {vanished, candidates} = Candidates.found(state.candidates, names, complete?)
    state = disconnect(%{state | candidates: candidates}, vanished)

    # A node that has no name yet connects to nobody.
    if Node.alive?(), do: dial(state), else: state
  end

  defp disconnect(%{discovery: %{disconnect_vanished: false}} = state, _vanished), do: state

  defp disconnect(state, vanished) do
    connected = connected()

    for name <- vanished, node = connected[name], reduce: state do
      state -> start_task(state, {:disconnect, name, node}, {:erlang, :disconnect_node, [node]})
    end
  end

  defp dial(state) do
    connected = connected()
    room = max(@max_tasks - map_size(state.tasks), 0)

    {names, candidates} = Candidates.next_dials(state.candidates, now(), room, &is_map_key(connected, &1))

    for name <- names, reduce: %{state | candidates: candidates} do
      state ->
        {module, function, arguments} = state.discovery.connect

        case to_atom(state, name) do
          {:ok, node, state} ->
            start_task(state, {:dial, name, node}, {module, function, arguments ++ [node]})

          :error ->
            {_failures, candidates} = Candidates.failed(state.candidates, name, now(), &Pace.redial(&1, 0.5))
            %{state | candidates: candidates}
        end
    end
  end

  defp to_atom(state, name) do
    {:ok, String.to_existing_atom(name), state}
  rescue
    ArgumentError ->
      if state.atoms == 1 do
        Logger.error(
          "#{inspect(state.cluster)}: #{inspect(state.discovery.module)} found #{@max_atoms} names of nodes that were " <>
            "new here; no more are made atoms of. If they are not made up, restart the node"
        )
      end

      if state.atoms > 0,
        do: {:ok, String.to_atom(name), %{state | atoms: state.atoms - 1}},
        else: :error
  end

  # Hidden ones too.
  defp connected, do: Map.new(Node.list(:connected), &{Atom.to_string(&1), &1})

  defp start_task(state, {verb, name, node}, {module, function, arguments}) do
    task = Task.async(module, function, arguments)
    started = System.monotonic_time()
    %{state | tasks: Map.put(state.tasks, task.ref, {verb, name, node, started})}
  end

  defp ended(state, task, result) do
    {{verb, name, node, started}, tasks} = Map.pop!(state.tasks, task)
    duration = System.monotonic_time() - started
    ended(%{state | tasks: tasks}, verb, name, node, duration, result)
  end

  defp ended(state, :disconnect, _name, node, _duration, _result) do
    Logger.info(
      "#{inspect(state.cluster)}: #{node} vanished from #{inspect(state.discovery.module)}, disconnected"
    )

    execute(state, [:disconnect_node, :ok], %{count: 1}, %{node: node})
    state
  end

  defp ended(state, :dial, name, node, duration, true) do
    Logger.info(
      "#{inspect(state.cluster)}: connected to #{node}, found by #{inspect(state.discovery.module)}"
    )

    execute(state, [:connect_node, :ok], %{duration: duration}, %{node: node})
    %{state | candidates: Candidates.reached(state.candidates, name)}
  end

  defp ended(state, :dial, name, node, duration, result) do
    reason = reason(result)
    execute(state, [:connect_node, :error], %{duration: duration}, %{node: node, reason: reason})
    pause = &Pace.redial(&1, :rand.uniform())
    {failures, candidates} = Candidates.failed(state.candidates, name, now(), pause)

    if failures == 1 do
      Logger.warning(
        "#{inspect(state.cluster)}: cannot connect to #{node}, found by #{inspect(state.discovery.module)} " <>
          "(#{inspect(reason)}); trying again"
      )
    end

    %{state | candidates: candidates}
  end

  # As `:net_kernel.connect_node/1` answers.
  defp reason(false), do: :unreachable
  defp reason(:ignored), do: :not_alive
  defp reason(other), do: other

  defp execute(%{telemetry?: false}, _event, _measurements, _metadata), do: :ok

  defp execute(state, event, measurements, metadata) do
    metadata = Map.merge(metadata, %{cluster: state.cluster, discovery: state.discovery.module})
    :telemetry.execute([:tiebeam | event], measurements, metadata)
  end

  defp now, do: System.monotonic_time(:millisecond)
end
