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
  # | `{:whereis, scope, name}` | `pid`, `nil` |
  # | `{:lookup, scope, name}` | `{pid, meta}`, `nil` |
  # | `{:register, scope, name, pid}`, and with `meta` | `:ok`, `{:error, {:taken, pid}}`, `{:error, {:invalid, text}}` |
  # | `{:unregister, scope, name}`, of a process of the node that asks | `:ok`, `{:error, :unknown}`, `{:error, {:taken, pid}}`, `{:error, {:invalid, text}}` |
  # | `{:members, scope, group}` | `[pid]` |
  # | `{:join, scope, group, pid}`, and with `meta`; `{:leave, scope, group, pid}` | as for names |
  # | `{:names, scope}` | `[{name, pid, meta}]` |
  # | `{:groups, scope}` | `[{group, [{pid, meta}]}]` |
  #
  # What is asked about the leader, keys and locks is in `Tiebeam.Leadership.Question`.

  use GenServer

  alias Tiebeam.{Connection, Error, Event, Leadership, Member, Native, Options, Registry, Reporter, Table}
  alias Tiebeam.Registry.{Claim, Driver, Question}
  alias Tiebeam.Services.Watches

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

  # What was registered is told to the others at once, and then after so many microseconds again: a message costs them and
  # this node as much as a few registrations do.
  @gather 1_000

  # How long a server that stops waits for its group at most, in microseconds; the core does not take longer than an election
  # timeout.
  @farewell 2_000_000

  # How old the round trips, health and metrics in the table may become, in microseconds; all else is written when it
  # changes.
  @refresh 1_000_000

  # The core was made for the name `node`; its time is in microseconds since `origin`; it was woken at `flushed`. `timer` is a pair of the deadline
  # and its timer. `calls` wait for an answer of the core, `subscribers` have a monitor and the number of events they
  # missed, `tasks` are `{:dial | :evict, node}`, `observations` are `{probe, node}`. `answered` are the answers
  # to what the present event asked for. `names` is the state of `Tiebeam.Registry.Driver`, `group` that of
  # `Tiebeam.Leadership.Driver`.
  @enforce_keys [:options, :reporter, :subscribers, :names, :group]
  defstruct @enforce_keys ++
              [:node, :core, :origin, :timer, refreshed: 0, flushed: 0, calls: %{}, next_call: 0] ++
              [tasks: %{}, observations: %{}, answered: []]

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
    names = Driver.new(options.name)

    group = Leadership.Driver.new(options, reporter)

    state = %__MODULE__{
      options: options,
      reporter: reporter,
      subscribers: subscribers,
      names: names,
      group: group
    }

    {:ok, start_core(state)}
  rescue
    # The disk cannot be read.
    error in Error -> {:stop, error}
  end

  @impl true
  def handle_call(:members, _from, state), do: {:reply, Table.members(state.options.name), state}
  def handle_call(:health, _from, state), do: {:reply, Native.health(state.core), state}
  def handle_call(:metrics, _from, state), do: {:reply, Native.metrics(state.core), state}

  def handle_call(:leave, from, state) do
    ask(tell_names(%{state | group: Leadership.Driver.give_up(state.group)}), from, :leave)
  end

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

  # Of this node only: what is asked for, with what the tables need to know of it.
  def handle_call({:registry, _command, _pid, _choice, _entry} = request, from, state) do
    batch(state, [{:"$gen_call", from, request}])
  end

  def handle_call({:await, key, timeout}, {caller, _tag} = from, state) when node(caller) == node() do
    {:noreply, %{state | names: Driver.await(state.names, from, key, timeout)}}
  end

  # Whatever was claimed before has been taken out of the mailbox before.
  def handle_call(:settle, {caller, _tag}, state) when node(caller) == node(), do: {:reply, :ok, state}

  def handle_call(:subscribe_names, {caller, _tag}, state) when node(caller) == node() do
    {:reply, :ok, %{state | names: Driver.subscribe(state.names, caller)}}
  end

  def handle_call(:unsubscribe_names, {caller, _tag}, state) do
    {:reply, :ok, %{state | names: Driver.unsubscribe(state.names, caller)}}
  end

  def handle_call({:watch_services, filter}, {caller, _tag}, state) when node(caller) == node() do
    {reply, services} = Watches.watch(state.names.services, caller, filter)
    {:reply, reply, services(state, services)}
  end

  def handle_call({:unwatch_services, watch}, {caller, _tag}, state) do
    {:reply, :ok, services(state, Watches.unwatch(state.names.services, caller, watch))}
  end

  # Of this node only: a process that the command is about is watched.
  def handle_call({:leadership, _command, _timeout, _pid} = request, {caller, _tag} = from, state)
      when node(caller) == node(),
      do: batch(state, [{:"$gen_call", from, request}])

  def handle_call({:guard_lease, term}, {caller, _tag}, state) when node(caller) == node() do
    {reply, group} = Leadership.Driver.guard(state.group, caller, term)
    {:reply, reply, %{state | group: group}}
  end

  def handle_call({:subscribe_leader, pid}, _from, state) when is_pid(pid) do
    {reply, group} = Leadership.Driver.subscribe(state.group, pid)
    {:reply, reply, %{state | group: group}}
  end

  def handle_call({:unsubscribe_leader, pid}, _from, state) when is_pid(pid) do
    {:reply, :ok, %{state | group: Leadership.Driver.unsubscribe(state.group, pid)}}
  end

  # From any node: a request of a newer release must not bring the server down.
  def handle_call(request, from, state) do
    case Question.parse(request) do
      {:read, read} ->
        {:reply, read.(state.options.name), state}

      {:long_read, read} ->
        cluster = state.options.name
        spawn(fn -> GenServer.reply(from, read.(cluster)) end)
        {:noreply, state}

      {:change, verb, scope, name, pid, meta} ->
        with {:ok, pid} <- answerable(state, verb, {scope, name}, pid, from),
             {:ok, request} <- Registry.request(verb, scope, name, pid, meta) do
          batch(state, [{:checked, from, request}])
        else
          {:error, reason} -> {:reply, {:error, {:invalid, Registry.describe(reason)}}, state}
        end

      {:error, reason} ->
        {:reply, {:error, {:invalid, Registry.describe(reason)}}, state}

      nil ->
        answer = Leadership.Question.answer(request, from, state.options.name, state.group.waiting)
        with {:reply, reply} <- answer, do: {:reply, reply, state}, else: (:later -> {:noreply, state})
    end
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

  # Without it nobody would know of processes that end.
  def handle_info({:EXIT, watcher, reason}, %{names: %{watcher: watcher}} = state), do: {:stop, reason, state}

  def handle_info({:DOWN, task, :process, _pid, _reason}, state) when is_map_key(state.tasks, task) do
    {:noreply, %{state | tasks: Map.delete(state.tasks, task)}}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state)
      when is_map_key(state.names.verdicts, monitor) do
    {:noreply, %{state | names: Driver.verdict_ended(state.names, monitor)}}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state)
      when is_map_key(state.names.waiters, monitor) do
    {:noreply, %{state | names: Driver.give_up(state.names, monitor)}}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state)
      when is_map_key(state.names.services.watches, monitor) do
    {:noreply, services(state, Watches.ended(state.names.services, monitor))}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state)
      when is_map_key(state.group.monitors, monitor) do
    {command, group} = Leadership.Driver.down(state.group, monitor)
    state = %{state | group: group}
    if command, do: ask(state, nil, {:leadership, command, 0}), else: {:noreply, state}
  end

  def handle_info({:tell_leader, pid}, state) do
    {:noreply, %{state | group: Leadership.Driver.tell_again(state.group, pid)}}
  end

  def handle_info({:DOWN, monitor, :process, pid, _reason} = message, state) do
    cond do
      state.names.guests[pid] == monitor ->
        batch(state, [message])

      state.names.subscribers[pid] == monitor ->
        {:noreply, %{state | names: Driver.unsubscribe(state.names, pid)}}

      true ->
        {:noreply, unsubscribe(state, pid)}
    end
  end

  def handle_info({:timeout, _timer, {:await, monitor}}, state) do
    {:noreply, %{state | names: Driver.give_up(state.names, monitor)}}
  end

  def handle_info({:timeout, _timer, {:verdict, monitor}}, state) do
    {:noreply, %{state | names: Driver.expire(state.names, monitor)}}
  end

  def handle_info(message, state), do: batch(state, [message])

  @impl true
  def terminate(reason, state) do
    # After a crash there is no farewell: a new core is about to take over.
    state = if orderly?(reason), do: leave(state), else: state
    Leadership.Driver.give_up(state.group)
    :ok
  end

  # Until the group has handed over what this node led and held.
  defp leave(state) do
    state = %{state | group: Leadership.Driver.give_up(state.group)}
    state |> step([{:asked, state.next_call, :leave}]) |> hand_over(monotonic() + @farewell)
  end

  defp hand_over(state, deadline) do
    left = div(deadline - monotonic(), 1000)

    if Leadership.Driver.stopped?(state.group) or left <= 0 do
      state
    else
      receive do
        {:timeout, timer, :wake} when timer == :erlang.element(2, :erlang.map_get(:timer, state)) ->
          step(%{state | timer: nil}, [])

        message ->
          message |> event(state) |> then(fn {events, state} -> step(state, events) end)
      after
        left -> state
      end
      |> hand_over(deadline)
    end
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
    origin = monotonic()
    {settings, group} = Leadership.Driver.restart(state.group, settings, origin)
    {:ok, core} = Native.new(settings)
    state = cancel_timer(state)
    {registrations, names} = Driver.restart(state.names)
    # A registration that waits for its answer is told again; the caller hears of the new one.
    state = %{
      state
      | node: settings.node,
        core: core,
        origin: origin,
        group: group,
        refreshed: 0,
        flushed: -@gather,
        observations: %{}
    }

    state = %{state | names: names}

    connected =
      for {type, visible} <- [visible: true, hidden: false], node <- Node.list(type), do: {node, visible}

    {asked, state} = Enum.flat_map_reduce(registrations, state, &ask_again/2)
    connected = for {node, visible} <- connected, do: {:connected, node, visible}
    state |> step([:woke | connected ++ asked]) |> refresh()
  end

  # What an earlier core knew of this node's processes.
  defp ask_again({lost, pid, command, row}, state) do
    case Driver.asked(state.names, pid, nil) do
      {:ok, names} ->
        {call, state} = await_answer(%{state | names: names}, {:again, lost, row})
        {[{:asked, call, command}], state}

      {:error, _reason} ->
        {[], state}
    end
  end

  defp ask(state, from, command) do
    {call, state} = await_answer(state, {from, command})
    {:noreply, step(state, [{:asked, call, command}])}
  end

  defp await_answer(%{next_call: call} = state, asked) do
    {call, %{state | calls: Map.put(state.calls, call, asked), next_call: call + 1}}
  end

  defp batch(state, messages) do
    messages = messages |> drain(@max_batch - length(messages), state) |> Enum.reverse()

    # Distribution of this node itself started or stopped: `:nodeup` or `:nodedown` of its own name says so.
    if node() != state.node do
      {:noreply, start_core(state)}
    else
      {events, state} = Enum.flat_map_reduce(messages, state, &event/2)
      state = if events == [] and state.timer != nil, do: state, else: step(state, events)
      claims = Claim.turn_ended(state.names.claims, state.core, length(messages))
      {:noreply, %{state | names: %{state.names | claims: claims}}}
    end
  end

  # Newest first. Takes only what the core wants to know: other calls and system messages wait their turn.
  defp drain(messages, 0, _state), do: messages

  defp drain(messages, left, %{observations: observations, names: names} = state) do
    %{guests: guests, watcher: watcher, claims: %{counter: counter}} = names

    receive do
      {:claim, ^counter, _row, _command} = message ->
        drain([message | messages], left - 1, state)

      {:put_off, ^counter, _dead?, _request} = message ->
        drain([message | messages], left - 1, state)

      {:"$gen_call", _from, {:registry, _command, _pid, _choice, _entry}} = message ->
        drain([message | messages], left - 1, state)

      {:"$gen_call", _from, {:leadership, _command, _timeout, _pid}} = message ->
        drain([message | messages], left - 1, state)

      {:tiebeam_store, _life, _what} = message ->
        drain([message | messages], left - 1, state)

      {:"$tiebeam", _node, _bytes} = message ->
        drain([message | messages], left - 1, state)

      {:nodeup, _node, _info} = message ->
        drain([message | messages], left - 1, state)

      {:nodedown, _node, _info} = message ->
        drain([message | messages], left - 1, state)

      {asked, _} = message when is_map_key(observations, asked) ->
        drain([message | messages], left - 1, state)

      {:exited, ^watcher, _pids} = message ->
        drain([message | messages], left - 1, state)

      {:DOWN, monitor, :process, pid, _reason} = message when :erlang.map_get(pid, guests) == monitor ->
        drain([message | messages], left - 1, state)
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

  defp event({:"$gen_call", {caller, _tag} = from, request}, state) do
    # Others have not checked what they ask for.
    if node(caller) == node() do
      event({:checked, from, request}, state)
    else
      GenServer.reply(from, {:error, :unknown_request})
      {[], state}
    end
  end

  defp event({:checked, _from, {:registry, _command, _pid, _choice, entry}} = request, state) do
    case under_way(state, entry) do
      nil ->
        ask_core(request, state)

      {:claimed_by, caller} ->
        Claim.put_off(state.names.claims, request, caller)
        {[], state}
    end
  end

  defp event({:checked, {caller, _tag} = from, {:leadership, command, timeout, pid}}, state) do
    # Whoever holds something is watched, as for names.
    case Driver.asked(state.names, pid, nil) do
      {:ok, names} ->
        {command, group} = Leadership.Driver.asked(state.group, command, caller)
        asked = {:leadership, command, timeout}
        {call, state} = await_answer(%{state | names: names, group: group}, {from, asked})
        {[{:asked, call, asked}], state}

      error ->
        GenServer.reply(from, error)
        {[], state}
    end
  end

  # Of the present core.
  defp event({:tiebeam_store, life, what}, %{group: %{life: life}} = state), do: {[what], state}

  defp event({:put_off, counter, dead?, request}, %{names: %{claims: %{counter: counter}}} = state) do
    {:checked, _from, {:registry, _command, _pid, _choice, entry}} = request
    if dead? and under_way(state, entry) != nil, do: Claim.drop(state.names.claims, elem(entry, 0))
    event(request, state)
  end

  defp event({:claim, counter, row, command}, %{names: %{claims: %{counter: counter}}} = state) do
    {:ok, names} = Driver.asked(state.names, elem(row, 1), nil)
    names = %{names | claims: %{names.claims | taken: names.claims.taken + 1}}
    {call, state} = await_answer(%{state | names: names}, {:claim, row})
    {[{:asked, call, command}], state}
  end

  defp event({:exited, watcher, pids}, %{names: %{watcher: watcher}} = state) do
    Enum.map_reduce(pids, state, &exited/2)
  end

  defp event({:DOWN, _monitor, :process, pid, _reason}, state) do
    {event, state} = exited(pid, state)
    {[event], state}
  end

  defp event({:resolved, id, keep}, state) when is_integer(id) and keep in [:older, :younger, :neither] do
    {[{:resolved, id, keep}], state}
  end

  defp event(_message, state), do: {[], state}

  # A claim of this name that the core is about to hear of.
  defp under_way(_state, nil), do: nil

  defp under_way(state, entry) do
    key = elem(entry, 0)

    with {:claimed_by, caller} <- Claim.under_way(state.names.claims, key) do
      in_this_turn? = Enum.any?(state.calls, &match?({_call, {:claim, {^key, _, _, _}}}, &1))
      if in_this_turn?, do: nil, else: {:claimed_by, caller}
    end
  end

  defp ask_core({:checked, from, {:registry, command, pid, choice, entry}}, state) do
    case Driver.asked(state.names, pid, choice) do
      {:ok, names} ->
        {call, state} = await_answer(%{state | names: names}, {from, :registry, entry})
        {[{:asked, call, command}], state}

      error ->
        GenServer.reply(from, error)
        {[], state}
    end
  end

  defp exited(pid, state) do
    {{:exited, Registry.Name.encode_pid(pid)}, %{state | names: Driver.down(state.names, pid)}}
  end

  defp step(state, events), do: step(state, monotonic() - state.origin, events)

  defp step(state, now, events) do
    # While there is much to do, what the registry has to say leaves in few messages.
    gather? = now - state.flushed < @gather and Enum.any?(events, &registry?/1)
    {events, state} = if gather?, do: {events, state}, else: {events ++ [:woke], %{state | flushed: now}}

    {state, deadline} =
      events
      |> together()
      |> Enum.reduce({state, nil}, fn events, {state, _} -> step_all(state, now, events) end)

    cond do
      deadline == nil or deadline > now -> wake_at(state, deadline)
      gather? -> wake_at(state, state.flushed + @gather)
      # There is more to do, but others wait as well.
      true -> wake_at(state, now)
    end
    |> refresh(now)
  end

  # One at a time, because a sample is answered before anything else is stepped; the registry asks for none.
  defp together([]), do: []

  defp together([event | rest] = events) do
    case Enum.split_while(events, &registry?/1) do
      {[], _events} -> [[event] | together(rest)]
      {of_registry, [:woke]} -> [of_registry ++ [:woke]]
      {of_registry, rest} -> [of_registry | together(rest)]
    end
  end

  defp registry?({:asked, _call, command}) when is_tuple(command),
    do: elem(command, 0) not in [:set_metadata, :broadcast]

  defp registry?({:exited, _pid}), do: true
  defp registry?(_event), do: false

  defp step_all(state, now, events) do
    {actions, deadline} = Native.step(state.core, now, events)
    {changes, actions, calls} = sort(actions, [], [], state.calls)
    # The table first of all, because whoever is answered or told looks there.
    names = if changes == [], do: state.names, else: change(state, changes)
    state = Enum.reduce(actions, %{state | names: Driver.watch_asked(names), calls: calls}, &act/2)

    Enum.reduce(Enum.reverse(state.answered), {%{state | answered: []}, deadline}, fn answer, {state, _} ->
      step_all(state, now, [answer])
    end)
  end

  defp change(%{reporter: %{telemetry?: false}} = state, changes),
    do: %{Driver.change(state.names, changes) | purges: []}

  defp change(%{reporter: reporter} = state, changes) do
    names = Driver.change(state.names, changes)

    for {change, count} <- Enum.frequencies_by(changes, &elem(&1, 0)),
        change in [:registered, :updated, :unregistered, :joined, :left],
        do: Reporter.measure(reporter, [:registry, change], %{count: count}, %{})

    for {measurements, metadata} <- names.purges,
        do: Reporter.measure(reporter, [:registry, :purge], measurements, metadata)

    %{names | purges: []}
  end

  # What is for the table, and everything else.
  defp sort([{:table, change} | rest], changes, others, calls),
    do: sort(rest, [change | changes], others, calls)

  # A call was answered with `:done`, and the row is the one that it asked for.
  defp sort([{:registered, call} | rest], changes, others, calls) do
    {asked, calls} = Map.pop!(calls, call)

    {row, others} =
      case asked do
        {:claim, row} -> {row, others}
        {from, :registry, row} -> {row, [{:reply, from, :ok} | others]}
        {:again, _lost, row} -> {row, others}
      end

    sort(rest, [{:registered, row} | changes], others, calls)
  end

  defp sort([action | rest], changes, others, calls), do: sort(rest, changes, [action | others], calls)
  defp sort([], changes, others, calls), do: {Enum.reverse(changes), Enum.reverse(others), calls}

  defp act({:reply, from, reply}, state) do
    GenServer.reply(from, reply)
    state
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
    %{state | answered: [{:sampled, node, Connection.received(node)} | state.answered]}
  end

  defp act({:check, id, pid}, state) do
    alive? = with {:ok, pid} <- Registry.Name.decode(pid), do: Driver.alive?(state.names, pid)
    %{state | answered: [{:checked, id, alive? == true} | state.answered]}
  end

  defp act({:lost, {scope, name}, pid, kept, on_conflict}, state) do
    with {:ok, name} <- Registry.Name.decode(name), {:ok, pid} <- Registry.Name.decode(pid) do
      lost(state, {scope, name, pid, on_conflict}, kept && decode_pid(kept))
    end

    state
  end

  defp act({:promoted, {scope, name}, pid}, state) do
    with {:ok, name} <- Registry.Name.decode(name), {:ok, pid} <- Registry.Name.decode(pid) do
      Driver.promoted(state.names, scope, name, pid)
    end

    state
  end

  defp act({:resolve, id, older, younger}, state) do
    %{state | names: Driver.resolve(state.names, id, older, younger)}
  end

  defp act({:evict, node}, state), do: evict(state, node, {:erlang, :disconnect_node, [node]})
  defp act({:evict_at, at, node}, state), do: evict(state, node, {Connection, :disconnect_at, [at, node]})

  defp act({:persist, token, pending}, state) do
    case Leadership.Driver.persist(state.group, token, pending) do
      :done -> %{state | answered: [{:persisted, token} | state.answered]}
      :later -> state
    end
  end

  defp act({:leadership, {:condition, condition, text}}, state), do: publish(state, {:group, condition, text})

  defp act({:leadership, output}, state) do
    tell_names(%{state | group: Leadership.Driver.act(state.group, output)})
  end

  defp act({:answer, call, answer}, state) do
    {asked, calls} = Map.pop(state.calls, call)
    state = %{state | calls: calls}

    state =
      with {_from, {:leadership, command, _timeout}} <- asked,
           do: %{state | group: Leadership.Driver.answered(state.group, command, answer)},
           else: (_ -> state)

    case asked do
      {:again, lost, _row} ->
        # Another process got the name while this node had none to show.
        if lost != nil and answer != :done, do: lost(state, lost, kept(answer))

      # There was a conflict, if anything, and its loser was told.
      {:claim, _row} when answer == :done ->
        :ok

      {:claim, {{scope, name}, pid, _meta, _node} = row} ->
        Claim.refuse(state.names.claims, row)
        lost(state, {scope, name, pid, :notify}, kept(answer))

      # Of a process that ended.
      {nil, _command} ->
        :ok

      {from, :registry, _row} ->
        GenServer.reply(from, reply(:registry, answer))

      {from, command} ->
        # A server that takes over after a crash starts with it.
        with {:done, {:set_metadata, metadata}} <- {answer, command} do
          Table.put_metadata(state.options.name, metadata)
        end

        # The answers of a node that left are all the same.
        if command == :leave, do: Claim.close(state.names.claims)

        GenServer.reply(from, reply(command, answer))

      # The farewell of `terminate/2`.
      nil ->
        :ok
    end

    state
  end

  defp act({:notify, notice}, state) do
    record(notice, state.options.name)
    publish(look(state, notice), notice)
  end

  # Services are as their nodes are.
  defp look(state, {change, %Member{}}) when change != :updated,
    do: %{state | names: Driver.look(state.names)}

  defp look(state, _notice), do: state

  defp lost(state, {scope, name, pid, _on_conflict} = lost, kept) do
    Driver.lost(state.names, lost, kept)
    metadata = %{scope: scope, name: name, pid: pid, kept: kept}
    Reporter.measure(state.reporter, [:registry, :conflict], %{count: 1}, metadata)
  end

  # What the group agreed on about names is told as what the registry does itself.
  defp tell_names(state) do
    case Leadership.Driver.changed(state.group) do
      {[], _group} -> state
      {changed, group} -> %{state | group: group, names: Driver.agreed(state.names, changed)}
    end
  end

  defp reply(:leave, :left), do: :ok

  # Whoever stands by waits for the group to be founded as it does for a majority.
  defp reply({:leadership, command, _timeout}, {:leadership, {:not_founded, _missing}})
       when elem(command, 0) == :acquire and elem(command, 1) == :singleton,
       do: :no_leader

  defp reply({:leadership, _command, _timeout}, {:leadership, answer}), do: answer
  defp reply(_command, :done), do: :ok
  defp reply(:registry, {:taken, pid, _node}), do: {:error, {:taken, decode_pid(pid)}}
  defp reply(:registry, :exited), do: {:error, :noproc}

  defp reply(:registry, {:refused, {:length, part, bytes, limit}}),
    do: {:error, {:too_long, part, bytes, limit}}

  defp reply(:registry, {:refused, refusal}), do: {:error, refusal}
  defp reply(_command, answer), do: {:error, answer}

  defp kept({:taken, pid, _node}), do: decode_pid(pid)
  defp kept(_answer), do: nil

  # What this node has registered, or shows in its table.
  defp decode_pid(bytes) do
    {:ok, pid} = Registry.Name.decode(bytes)
    pid
  end

  # A name goes from its present process, which must be one of the node that asks, unless that is this one.
  defp answerable(state, :unregister, key, nil, {caller, _tag}) do
    case :ets.lookup(state.options.name, key) do
      [{_key, pid, _meta, owner}]
      when node(caller) != node() and node(pid) != node(caller) and (owner == node() or is_tuple(owner)) ->
        {:error, {:not_theirs, pid, node(pid)}}

      [{_key, pid, _meta, _owner}] ->
        {:ok, pid}

      [] ->
        {:ok, nil}
    end
  end

  defp answerable(_state, :leave, _key, pid, {caller, _tag})
       when node(caller) != node() and node(pid) != node(caller),
       do: {:error, {:not_theirs, pid, node(pid)}}

  # Processes of this node, and of the node that asks if it has no registry of its own.
  defp answerable(_state, _verb, _key, pid, _from) when node(pid) == node(), do: {:ok, pid}

  defp answerable(state, _verb, _key, pid, {caller, _tag}) when node(pid) == node(caller) do
    case Table.member(state.options.name, node(pid)) do
      %Member{kind: kind, status: status} when kind != :plain and status in [:alive, :suspect] ->
        {:error, {:not_local, pid, node(pid)}}

      _ ->
        {:ok, pid}
    end
  end

  defp answerable(_state, _verb, _key, pid, _from), do: {:error, {:not_local, pid, node(pid)}}

  defp services(state, services), do: %{state | names: %{state.names | services: services}}

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
    %{state | names: %{state.names | claims: Claim.refresh(state.names.claims, core)}}
  end

  # The timers of this process are whole milliseconds, and fire in the first one that has passed. One that is early is
  # kept: deadlines are often put off.
  defp wake_at(%{timer: {early, _timer}} = state, deadline) when is_integer(deadline) and early <= deadline,
    do: state

  defp wake_at(state, nil), do: cancel_timer(state)

  defp wake_at(state, deadline) do
    at = -Integer.floor_div(-(state.origin + deadline), 1000)
    %{cancel_timer(state) | timer: {deadline, :erlang.start_timer(at, self(), :wake, abs: true)}}
  end

  defp cancel_timer(state) do
    with {_deadline, timer} <- state.timer, do: :erlang.cancel_timer(timer, async: true, info: false)
    %{state | timer: nil}
  end

  defp monotonic, do: System.monotonic_time(:microsecond)
end
