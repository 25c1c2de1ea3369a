defmodule Tiebeam.Server do
  @moduledoc false
  # The BEAM's driver of the core: events in, actions out, nothing decided here.
  #
  # The driver's contract: this process alone steps the core; `now` never goes back; actions are carried out in order;
  # a send is best effort; it wakes at the deadline. Messages that wait in the mailbox become one step.
  #
  # Also answers any node, with or without the package: `GenServer.call({:tiebeam, node}, :members)`.

  use GenServer

  require Logger

  alias Tiebeam.{Error, Event, Native, Options, Table}
  alias Tiebeam.Supervisor, as: Cluster

  # Events of one step. Keeps its time on a scheduler at a few hundred microseconds in a cluster of a hundred nodes.
  @max_batch 64

  # Dials under way at a time. A dial to a host that does not answer takes seconds and holds a process; nodes beyond
  # the limit are dialled at their next greeting.
  @max_dials 16

  # The core was made for the name `node`; its time is in milliseconds since `origin`. `calls` wait for an answer of
  # the core, `subscribers` are pids with the monitors on them, `dials` are tasks with their nodes.
  defstruct [:options, :node, :core, :origin, :timer, calls: %{}, next_call: 0, subscribers: %{}, dials: %{}]

  @spec start_link(Options.t()) :: {:ok, pid} | {:error, Error.t() | term}
  def start_link(options) do
    with {:error, {:already_started, pid}} <- GenServer.start_link(__MODULE__, options, name: options.process) do
      {:error, %Error{reason: {:process_taken, options.process, pid}}}
    end
  end

  @impl true
  def init(options) do
    # For the farewell in `terminate/2`.
    Process.flag(:trap_exit, true)
    # Members judge the node by this process: it must not queue behind the work of others.
    Process.flag(:priority, :high)

    # Hidden nodes too: a Rust node may be one. Before the first look at who is connected, so that nothing is missed.
    :ok = :net_kernel.monitor_nodes(true, node_type: :all)
    # Those of a server that crashed.
    subscribers = Map.new(Table.subscribers(options.name), &{&1, Process.monitor(&1)})
    {:ok, start_core(%__MODULE__{options: options, subscribers: subscribers})}
  end

  @impl true
  def handle_call(:members, _from, state) do
    {:reply, Table.members(state.options.name), state}
  end

  def handle_call(:leave, from, state) do
    call = state.next_call
    state = %{state | calls: Map.put(state.calls, call, from), next_call: call + 1}
    {:noreply, step(state, [{:asked, call, :leave}])}
  end

  def handle_call({:subscribe, pid}, _from, state) when is_pid(pid) do
    Table.subscribe(state.options.name, pid)
    subscribers = Map.put_new_lazy(state.subscribers, pid, fn -> Process.monitor(pid) end)
    {:reply, :ok, %{state | subscribers: subscribers}}
  end

  def handle_call({:unsubscribe, pid}, _from, state) when is_pid(pid) do
    {:reply, :ok, unsubscribe(state, pid)}
  end

  # From any node: a request of a newer release must not bring the server down.
  def handle_call(_request, _from, state) do
    {:reply, {:error, :unknown_request}, state}
  end

  @impl true
  def handle_cast(_request, state), do: {:noreply, state}

  @impl true
  def handle_info({:"$tiebeam", node, bytes}, state) when is_atom(node) and is_binary(bytes) do
    batch(state, [{:received, node, bytes}])
  end

  def handle_info({change, node, _info}, state) when change in [:nodeup, :nodedown] do
    batch(state, [connection(change, node)])
  end

  def handle_info(:wake, state), do: batch(state, [:woke])

  # A dial ended. If it succeeded, `:nodeup` says so as well.
  def handle_info({dial, _connected}, state) when is_map_key(state.dials, dial) do
    Process.demonitor(dial, [:flush])
    {:noreply, %{state | dials: Map.delete(state.dials, dial)}}
  end

  def handle_info({:DOWN, dial, :process, _pid, _reason}, state) when is_map_key(state.dials, dial) do
    {:noreply, %{state | dials: Map.delete(state.dials, dial)}}
  end

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state), do: {:noreply, unsubscribe(state, pid)}

  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(reason, state) do
    # After a crash there is no farewell: a new core is about to take over.
    if orderly?(reason), do: step(state, [{:asked, state.next_call, :leave}])
    :ok
  end

  defp orderly?(:normal), do: true
  defp orderly?(:shutdown), do: true
  defp orderly?({:shutdown, _}), do: true
  defp orderly?(_reason), do: false

  # A fresh core under the node's present name. What an earlier one believed is taken back first, so that subscribers
  # who count ups and downs stay right.
  defp start_core(state) do
    name = state.options.name

    for member <- Table.members(name) do
      Table.delete(name, member)
      if member.status in [:alive, :suspect], do: publish({:member, :down, %{member | status: :dead}}, name)
    end

    settings = Options.settings(state.options)
    {:ok, core} = Native.new(settings)
    state = %{state | node: settings.node, core: core, origin: monotonic()}
    step(state, [:woke | for(node <- Node.list(:connected), do: {:connected, node})])
  end

  defp batch(state, events) do
    events = drain(events, @max_batch - 1)

    # Distribution of this node itself started or stopped: `:nodeup` or `:nodedown` of its own name says so.
    if node() != state.node do
      {:noreply, start_core(state)}
    else
      {:noreply, step(state, Enum.reverse(events))}
    end
  end

  # Newest first. Takes only what the core wants to know: calls and system messages wait their turn.
  defp drain(events, 0), do: events

  defp drain(events, left) do
    receive do
      {:"$tiebeam", node, bytes} when is_atom(node) and is_binary(bytes) ->
        drain([{:received, node, bytes} | events], left - 1)

      {change, node, _info} when change in [:nodeup, :nodedown] ->
        drain([connection(change, node) | events], left - 1)
    after
      0 -> events
    end
  end

  defp connection(:nodeup, node), do: {:connected, node}
  defp connection(:nodedown, node), do: {:disconnected, node}

  defp step(state, events) do
    {actions, deadline} = Native.step(state.core, monotonic() - state.origin, events)
    actions |> Enum.reduce(state, &act/2) |> wake_at(deadline)
  end

  defp act({:send, node, bytes}, state) do
    message = {:"$tiebeam", node(), bytes}

    case :erlang.send({state.options.process, node}, message, [:noconnect, :nosuspend]) do
      :ok -> state
      # The link is busy with other traffic: the message counts as lost.
      :nosuspend -> state
      :noconnect -> dial(state, node)
    end
  end

  defp act({:answer, call, :left}, state) do
    {from, calls} = Map.pop(state.calls, call)
    if from, do: GenServer.reply(from, :ok)
    %{state | calls: calls}
  end

  defp act({:notify, notice}, state) do
    name = state.options.name
    record(notice, name)
    if event = Event.from_notice(notice), do: publish(event, name)
    state
  end

  # Connecting may block for seconds, so another process does it: one per node at a time. The core greets again.
  defp dial(state, node) do
    if Node.alive?() and map_size(state.dials) < @max_dials and node not in Map.values(state.dials) do
      task = Task.Supervisor.async_nolink(Cluster.dials(state.options.name), Node, :connect, [node])
      %{state | dials: Map.put(state.dials, task.ref, node)}
    else
      state
    end
  end

  defp unsubscribe(state, pid) do
    {monitor, subscribers} = Map.pop(state.subscribers, pid)
    if monitor, do: Process.demonitor(monitor, [:flush])
    Table.unsubscribe(state.options.name, pid)
    %{state | subscribers: subscribers}
  end

  defp publish(event, name) do
    for pid <- Table.subscribers(name), do: send(pid, {:tiebeam, name, event})
  end

  defp record({:forgotten, member}, name), do: Table.delete(name, member)

  defp record({change, member}, name) when change in [:up, :down, :left, :refreshed] do
    Table.put(name, member)
  end

  defp record({:refused, node, cluster}, name) do
    Logger.warning(
      "#{inspect(name)}: #{node} is connected but in another cluster (#{inspect(cluster)}); " <>
        "neither takes the other for a member. If it should be one, give both the same `cluster:`"
    )
  end

  defp record({:ignored, node, why}, name) do
    Logger.warning("#{inspect(name)}: ignored a message of #{node}: #{why}")
  end

  defp wake_at(state, deadline) do
    if state.timer, do: Process.cancel_timer(state.timer, async: true, info: false)
    timer = if deadline, do: Process.send_after(self(), :wake, state.origin + deadline, abs: true)
    %{state | timer: timer}
  end

  defp monotonic, do: System.monotonic_time(:millisecond)
end
