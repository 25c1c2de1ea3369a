defmodule Tiebeam.Server do
  @moduledoc false
  # The BEAM's driver of the core: events in, actions out, nothing decided here.
  #
  # The driver's contract: this process alone steps the core; `now` never goes back; actions are carried out in order;
  # a send is best effort; it wakes at the deadline. What waits in the mailbox is taken first, and only then the clock is
  # read: it is told before a late timer is, and the core sees how late that is.
  #
  # Members judge the node by how soon this process answers. So it never waits for another one: sends neither dial nor
  # suspend, whatever may block runs in a task, and the handlers of logs and telemetry run in `Tiebeam.Reporter`.
  #
  # Also answers any node, with or without the package: `GenServer.call({:tiebeam, node}, request)`.
  #
  # | request | reply |
  # |---|---|
  # | `:members` | `[%Tiebeam.Member{}]` |
  # | `:health` | `t:Tiebeam.health/0` |
  # | `:metrics` | `t:Tiebeam.metrics/0` |
  # | `{:subscribe, pid}` | `:ok`, `{:error, :noconnection}`, `{:error, {:too_many_subscribers, limit}}` |
  # | `{:unsubscribe, pid}` | `:ok` |

  use GenServer

  alias Tiebeam.{Connection, Error, Event, Member, Native, Options, Reporter, Table}

  # Messages taken at once. Keeps the turn at a few hundred microseconds in a cluster of a hundred nodes.
  @max_batch 64

  # Dials under way at a time. A dial to a host that does not answer takes seconds and holds a process; nodes beyond
  # the limit are dialled at their next greeting.
  @max_dials 16

  # Disconnections under way at a time, each a process. They take microseconds unless the VM is in trouble; a member
  # beyond the limit waits for OTP's net ticks.
  @max_evictions 256

  # Questions to plain nodes whose answer may still come. The core asks a few per period, so the oldest of these is
  # minutes old; an answer that comes after it was forgotten is dropped.
  @max_observations 1024

  # Subscribers on other nodes: a few tools watch. Those of this node are bounded by its own processes.
  @max_remote_subscribers 256

  # How old the round trips, health and metrics in the table may become, in microseconds; all else is written when it
  # changes.
  @refresh 1_000_000

  # The core was made for the name `node`; its time is in microseconds since `origin`. `timer` is a pair of the deadline
  # and its timer. `calls` wait for an answer of the core, `subscribers` have a monitor and the number of events they
  # missed, `tasks` are `{:dial | :evict, node}`, `observations` are `{probe, node}`. `sampled` are the answers
  # to what the present event asked for.
  @enforce_keys [:options, :reporter, :subscribers]
  defstruct @enforce_keys ++
              [:node, :core, :origin, :timer, refreshed: 0, calls: %{}, next_call: 0] ++
              [tasks: %{}, observations: %{}, sampled: []]

  @spec start_link({Options.t(), struct}) :: {:ok, pid} | {:error, Error.t() | term}
  def start_link({options, _reporter} = argument) do
    with {:error, {:already_started, pid}} <-
           GenServer.start_link(__MODULE__, argument, name: options.process) do
      {:error, %Error{reason: {:process_taken, options.process, pid}}}
    end
  end

  @impl true
  def init({options, reporter}) do
    # For the farewell in `terminate/2`, and because tasks are linked: they end with this process.
    Process.flag(:trap_exit, true)

    # Members judge the node by this process: it must not queue behind the work of others. `:max` is the VM's own.
    Process.flag(:priority, :high)

    # Hidden nodes too: a Rust node may be one. Before the first look at who is connected, so that nothing is missed.
    :ok = :net_kernel.monitor_nodes(true, node_type: :all)
    # Those of a server that crashed.
    subscribers = Map.new(Table.subscribers(options.name), &{&1, {Process.monitor(&1), 0}})
    {:ok, start_core(%__MODULE__{options: options, reporter: reporter, subscribers: subscribers})}
  end

  @impl true
  def handle_call(:members, _from, state), do: {:reply, Table.members(state.options.name), state}
  def handle_call(:health, _from, state), do: {:reply, Native.health(state.core), state}
  def handle_call(:metrics, _from, state), do: {:reply, Native.metrics(state.core), state}

  def handle_call(:leave, from, state), do: ask(state, from, :leave)

  def handle_call({command, bytes} = asked, from, state)
      when command in [:set_metadata, :broadcast] and is_binary(bytes),
      do: ask(state, from, asked)

  def handle_call({:subscribe, pid}, _from, state) when is_pid(pid) do
    {reply, state} = subscribe(state, pid)
    {:reply, reply, state}
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
  def handle_info({:timeout, timer, :wake}, %{timer: {_deadline, timer}} = state) do
    batch(%{state | timer: nil}, [])
  end

  # A task ended. If it dialled and succeeded, `:nodeup` says so as well.
  def handle_info({task, _result}, state) when is_map_key(state.tasks, task) do
    Process.demonitor(task, [:flush])
    {:noreply, %{state | tasks: Map.delete(state.tasks, task)}}
  end

  def handle_info({:DOWN, task, :process, _pid, _reason}, state) when is_map_key(state.tasks, task) do
    {:noreply, %{state | tasks: Map.delete(state.tasks, task)}}
  end

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state), do: {:noreply, unsubscribe(state, pid)}

  def handle_info(message, state), do: batch(state, [message])

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

    state =
      for member <- Table.members(name), reduce: state do
        state ->
          Table.delete(name, member)
          gone? = member.status in [:alive, :suspect]
          if gone?, do: publish(state, {:down, %{member | status: :dead}}), else: state
      end

    settings = Options.settings(%{state.options | metadata: Table.metadata(name)})
    {:ok, core} = Native.new(settings)
    state = wake_at(state, nil)
    state = %{state | node: settings.node, core: core, origin: monotonic(), refreshed: 0, observations: %{}}

    connected =
      for {type, visible} <- [visible: true, hidden: false], node <- Node.list(type), do: {node, visible}

    state |> step([:woke | for({node, visible} <- connected, do: {:connected, node, visible})]) |> refresh()
  end

  defp ask(state, from, command) do
    call = state.next_call
    state = %{state | calls: Map.put(state.calls, call, {from, command}), next_call: call + 1}
    {:noreply, step(state, [{:asked, call, command}])}
  end

  defp batch(state, messages) do
    messages = messages |> drain(@max_batch - length(messages), state.observations) |> Enum.reverse()

    # Distribution of this node itself started or stopped: `:nodeup` or `:nodedown` of its own name says so.
    if node() != state.node do
      {:noreply, start_core(state)}
    else
      {events, state} = Enum.flat_map_reduce(messages, state, &event/2)
      if events == [] and messages != [], do: {:noreply, state}, else: {:noreply, step(state, events)}
    end
  end

  # Newest first. Takes only what the core wants to know: calls and system messages wait their turn.
  defp drain(messages, 0, _observations), do: messages

  defp drain(messages, left, observations) do
    receive do
      {:"$tiebeam", _node, _bytes} = message ->
        drain([message | messages], left - 1, observations)

      {:nodeup, _node, _info} = message ->
        drain([message | messages], left - 1, observations)

      {:nodedown, _node, _info} = message ->
        drain([message | messages], left - 1, observations)

      {asked, _} = message when is_map_key(observations, asked) ->
        drain([message | messages], left - 1, observations)
    after
      0 -> messages
    end
  end

  # What a message is to the core; nothing if it is none of its business.
  defp event({:"$tiebeam", node, bytes}, state) when is_atom(node) and is_binary(bytes) do
    {[{:received, node, bytes}], state}
  end

  defp event({:nodeup, node, info}, state) do
    {[{:connected, node, List.keyfind(info, :node_type, 0) == {:node_type, :visible}}], state}
  end

  defp event({:nodedown, node, _info}, state) do
    # Its answers went with the connection.
    observations = Map.reject(state.observations, fn {_asked, {_probe, asked}} -> asked == node end)
    {[{:disconnected, node}], %{state | observations: observations}}
  end

  defp event({asked, _reply}, state) when is_map_key(state.observations, asked) do
    {{probe, node}, observations} = Map.pop!(state.observations, asked)
    {[{:observed, node, probe}], %{state | observations: observations}}
  end

  defp event(_message, state), do: {[], state}

  defp step(state, events), do: step(state, monotonic() - state.origin, events)

  # Without events, it is a wake-up.
  defp step(state, now, []), do: step(state, now, [:woke])

  defp step(state, now, events) do
    {state, deadline} =
      Enum.reduce(events, {state, nil}, fn event, {state, _} -> step_one(state, now, event) end)

    state |> wake_at(deadline) |> refresh(now)
  end

  # One at a time, because a sample is answered before anything else is stepped.
  defp step_one(state, now, event) do
    {actions, deadline} = Native.step(state.core, now, [event])
    state = Enum.reduce(actions, state, &act/2)

    Enum.reduce(state.sampled, {%{state | sampled: []}, deadline}, fn sampled, {state, _} ->
      step_one(state, now, sampled)
    end)
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

  defp act({:observe, node, probe}, state) do
    observations = Map.put(state.observations, Connection.ask(node), {probe, node})
    %{state | observations: forget_oldest(observations)}
  end

  defp act({:sample, node}, state) do
    %{state | sampled: [{:sampled, node, Connection.received(node)} | state.sampled]}
  end

  defp act({:evict, node}, state), do: evict(state, node, {:erlang, :disconnect_node, [node]})
  defp act({:evict_at, at, node}, state), do: evict(state, node, {Connection, :disconnect_at, [at, node]})

  defp act({:answer, call, answer}, state) do
    {{from, command}, calls} = Map.pop(state.calls, call, {nil, nil})

    # A server that takes over after a crash starts with it.
    with {:done, {:set_metadata, metadata}} <- {answer, command} do
      Table.put_metadata(state.options.name, metadata)
    end

    if from, do: GenServer.reply(from, reply(command, answer))
    %{state | calls: calls}
  end

  defp act({:notify, notice}, state) do
    record(notice, state.options.name)
    publish(state, notice)
  end

  defp reply(:leave, :left), do: :ok
  defp reply(_command, :done), do: :ok
  defp reply(_command, answer), do: {:error, answer}

  defp forget_oldest(observations) when map_size(observations) <= @max_observations, do: observations

  defp forget_oldest(observations) do
    # The core numbers its probes upwards.
    {asked, _} = Enum.min_by(observations, fn {_asked, {probe, _node}} -> probe end)
    Map.delete(observations, asked)
  end

  # Connecting may block for seconds: one dial per node at a time. The core greets again.
  defp dial(state, node) do
    dials = for {_task, {:dial, dialled}} <- state.tasks, do: dialled

    if Node.alive?() and length(dials) < @max_dials and node not in dials,
      do: start_task(state, {:dial, node}, {Node, :connect, [node]}),
      else: state
  end

  # `net_kernel` does it for whoever asks, and it may be busy.
  defp evict(state, node, what) do
    evictions = Enum.count(state.tasks, &match?({_task, {:evict, _node}}, &1))
    if evictions < @max_evictions, do: start_task(state, {:evict, node}, what), else: state
  end

  defp start_task(state, purpose, {module, function, arguments}) do
    task = Task.async(module, function, arguments)
    %{state | tasks: Map.put(state.tasks, task.ref, purpose)}
  end

  defp subscribe(state, pid) do
    cond do
      is_map_key(state.subscribers, pid) ->
        {:ok, state}

      # A monitor would dial: nobody makes this node call on others by naming a pid.
      not local?(pid) and node(pid) not in Node.list(:connected) ->
        {{:error, :noconnection}, state}

      not local?(pid) and Enum.count(state.subscribers, &remote?/1) >= @max_remote_subscribers ->
        {{:error, {:too_many_subscribers, @max_remote_subscribers}}, state}

      true ->
        Table.subscribe(state.options.name, pid)
        {:ok, %{state | subscribers: Map.put(state.subscribers, pid, {Process.monitor(pid), 0})}}
    end
  end

  defp unsubscribe(state, pid) do
    {subscriber, subscribers} = Map.pop(state.subscribers, pid)
    with {monitor, _missed} <- subscriber, do: Process.demonitor(monitor, [:flush])
    Table.unsubscribe(state.options.name, pid)
    %{state | subscribers: subscribers}
  end

  defp local?(pid), do: node(pid) == node()
  defp remote?({pid, _subscriber}), do: not local?(pid)

  # Tells subscribers, the log and telemetry.
  defp publish(state, notice) do
    Reporter.publish(state.reporter, notice)

    case Event.from_notice(notice) do
      nil -> state
      event -> %{state | subscribers: Map.new(state.subscribers, &tell(&1, event, state.options))}
    end
  end

  defp tell({pid, {monitor, missed}}, event, options) do
    if local?(pid) do
      send(pid, {:tiebeam, options.name, event})
      {pid, {monitor, 0}}
    else
      # It cannot be told apart from the others of its node by a local name.
      missed =
        if missed > 0 and sent?(pid, {:tiebeam, options.cluster, {:missed, missed}}), do: 0, else: missed

      told? = missed == 0 and sent?(pid, {:tiebeam, options.cluster, event})
      {pid, {monitor, if(told?, do: 0, else: missed + 1)}}
    end
  end

  # Without a connection nothing is missed: the monitor is about to say so.
  defp sent?(pid, message), do: :erlang.send(pid, message, [:noconnect, :nosuspend]) != :nosuspend

  defp record({:forgotten, member}, name), do: Table.delete(name, member)
  defp record({:contested, member, _reason}, name), do: Table.put(name, member)
  defp record({_change, %Member{} = member}, name), do: Table.put(name, member)
  defp record(_notice, _name), do: true

  defp refresh(state, now) do
    if now - state.refreshed >= @refresh, do: %{refresh(state) | refreshed: now}, else: state
  end

  defp refresh(state) do
    %{core: core, options: %{name: name}} = state
    Table.refresh(name, Native.view(core), Native.health(core), Native.metrics(core))
    state
  end

  # The timers of this process are whole milliseconds, and fire in the first one that has passed.
  defp wake_at(%{timer: {deadline, _timer}} = state, deadline), do: state

  defp wake_at(state, deadline) do
    with {_deadline, timer} <- state.timer, do: :erlang.cancel_timer(timer, async: true, info: false)

    if deadline do
      at = -Integer.floor_div(-(state.origin + deadline), 1000)
      %{state | timer: {deadline, :erlang.start_timer(at, self(), :wake, abs: true)}}
    else
      %{state | timer: nil}
    end
  end

  defp monotonic, do: System.monotonic_time(:microsecond)
end
