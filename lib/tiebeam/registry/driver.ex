defmodule Tiebeam.Registry.Driver do
  @moduledoc false
  # The registry's part of `Tiebeam.Server`: rows into tables, word to processes and subscribers. Runs in that process.
  #
  # A name is bytes for the core and a term for callers: it is encoded by who asks, and decoded once, by the NIF, when it
  # comes from another node.

  alias Tiebeam.Registry.{Claim, Name, Strong, Watcher}
  alias Tiebeam.Services.Watches
  alias Tiebeam.Table

  # Callers of `await` at a time. Each is a process of this node that does nothing else.
  @max_waiters 65_536

  # Processes of other nodes that this node answers for, each of which it monitors: a few services of nodes that have
  # no registry of their own.
  @max_guests 4096

  # Verdicts of users under way at a time, each a process. For more conflicts the older registration is kept.
  @max_verdicts 10_000

  # How long one may take, in milliseconds; as in the core, which does not wait longer.
  @verdict_timeout 5_000

  # `watcher` watches the processes of this node that have or had entries; `unwatched` are those that it is to be told of.
  # `guests` are such processes of other nodes, with their monitors.
  # `awaited` are callers that wait for a name, by name and by monitor; `waiters` are the names, by monitor.
  # `subscribers` have a monitor. `services` are those that watch groups as services. `purges` are for telemetry. `counts` are names per scope, `counted` those whose row is old.
  # `placed?` says that managers of rings and pools are to be told.
  @enforce_keys [:cluster, :process, :members, :groups, :subscribers, :services, :watcher, :claims]
  defstruct @enforce_keys ++
              [unwatched: [], guests: %{}, awaited: %{}, waiters: %{}, verdicts: %{}] ++
              [counts: %{}, counted: [], purges: [], placed?: false]

  @spec new(cluster :: atom) :: struct
  def new(cluster) do
    members = Table.members_of(cluster)
    # Those of a server that crashed.
    subscribers = :ets.select(members, [{{{:watcher, :"$1"}}, [], [:"$1"]}])

    %__MODULE__{
      cluster: cluster,
      process: Table.process(cluster),
      members: members,
      groups: Table.groups_of(cluster),
      subscribers: Map.new(subscribers, &{&1, Process.monitor(&1)}),
      services: Watches.new(cluster),
      watcher: Watcher.start_link(),
      claims: Claim.new(cluster),
      counts: Map.new(:ets.select(cluster, [{{{:"$1"}, :"$2"}, [], [{{:"$1", :"$2"}}]}]))
    }
  end

  @doc """
  Empties the tables for a new core, and answers what it must be told: the registrations of this node, as what `lost/3` needs,
  the process, the command, and the row of a name.
  """
  def restart(%{cluster: cluster, groups: groups, members: members} = state) do
    state = %{state | claims: state.claims |> Claim.close() |> Claim.flush()}
    rows = :ets.select(cluster, [{{{:_, :_}, :_, :_, :_}, [], [:"$_"]}])
    memberships = :ets.tab2list(groups)

    state =
      for {{scope, name} = key, pid, _meta, owner} <- rows, reduce: state do
        state ->
          :ets.delete(cluster, key)

          # Claims were not counted, and nobody was told of them.
          if is_tuple(owner),
            do: state,
            else: state |> count(scope, -1) |> tell({:unregistered, scope, name, pid, :restarted})
      end

    state =
      for {{scope, group, pid}, _meta, _node} <- memberships, reduce: state do
        state -> tell(state, {:left, scope, group, pid, :restarted})
      end

    :ets.delete_all_objects(groups)
    state = look(state)
    own? = fn pid, owner -> owner == node() or node(pid) == node() end

    names =
      for {{scope, name}, pid, meta, owner} <- rows, own?.(pid, owner) do
        {on_conflict, resolve} = choice(members, pid, scope, name)
        {:ok, name_bytes} = Name.encode(name)
        {:ok, meta_bytes} = Name.encode_meta(meta)

        command =
          {:register, scope, name_bytes, Name.encode_pid(pid), meta_bytes, on_conflict, resolve != nil}

        {{scope, name, pid, on_conflict}, pid, command, {{scope, name}, pid, meta, node()}}
      end

    groups =
      for {{scope, group, pid}, meta, owner} <- memberships, own?.(pid, owner) do
        {:ok, group_bytes} = Name.encode(group)
        {:ok, meta_bytes} = Name.encode_meta(meta)
        {nil, pid, {:join, scope, group_bytes, Name.encode_pid(pid), meta_bytes}, nil}
      end

    {names ++ groups, write_counts(state)}
  end

  @doc "Notes what a caller wants to do, and watches the process that it is about."
  def asked(state, pid, choice) do
    with {:ok, state} <- watch(state, pid) do
      with {scope, name, on_conflict, resolve} <- choice do
        :ets.insert(state.members, {{:choice, pid, scope, name}, on_conflict, resolve})
      end

      {:ok, state}
    end
  end

  defp watch(state, nil), do: {:ok, state}
  defp watch(state, pid) when node(pid) == node(), do: {:ok, %{state | unwatched: [pid | state.unwatched]}}
  defp watch(%{guests: guests} = state, pid) when is_map_key(guests, pid), do: {:ok, state}

  defp watch(state, pid) do
    cond do
      # A monitor would dial: nobody makes this node call on others by naming a pid.
      node(pid) not in Node.list(:connected) ->
        {:error, {:noconnection, node(pid)}}

      map_size(state.guests) >= @max_guests ->
        {:error, {:too_many_guests, @max_guests}}

      true ->
        {:ok, %{state | guests: Map.put(state.guests, pid, Process.monitor(pid))}}
    end
  end

  @doc "The core was told of all that was asked: their processes are watched from now on."
  def watch_asked(%{unwatched: []} = state), do: state

  def watch_asked(state) do
    Watcher.watch(state.watcher, state.unwatched)
    %{state | unwatched: []}
  end

  @doc "Whether a process that this node answers for still runs."
  def alive?(_state, pid) when node(pid) == node(), do: Process.alive?(pid)
  def alive?(state, pid), do: is_map_key(state.guests, pid)

  @doc "A process that was watched ended."
  def down(state, pid) do
    :ets.match_delete(state.members, {{:choice, pid, :_, :_}, :_, :_})
    %{state | guests: Map.delete(state.guests, pid)}
  end

  @doc "Carries out changes of the table, in order."
  def change(state, changes), do: changes |> change([], [], state) |> tell_managers()

  # Rows wait in `names` and `groups`, so that many are written at once. Whoever hears of one finds it there.
  defp change([], names, groups, state), do: state |> write(names, groups) |> write_counts()

  defp change([{what, entry} | rest], names, groups, state) when what in [:registered, :updated] do
    case row(entry) do
      {{scope, name} = key, pid, meta, _node} = row ->
        state = if what == :registered, do: count(state, scope, 1), else: state

        if state.subscribers == %{} and not is_map_key(state.awaited, key) do
          change(rest, [row | names], groups, state)
        else
          state = write(state, [row | names], groups)
          change(rest, [], [], state |> found(key, pid, meta) |> tell({what, scope, name, pid, meta}))
        end

      :error ->
        change(rest, names, groups, state)
    end
  end

  defp change([{:replaced, entry, was} | rest], names, groups, state) do
    with {{scope, name}, pid, meta, _node} = row <- row(entry), {:ok, was} <- Name.decode(was) do
      state = write(state, [row | names], groups)
      change(rest, [], [], tell(state, {:replaced, scope, name, pid, meta, was}))
    else
      :error -> change(rest, names, groups, state)
    end
  end

  defp change([{what, entry} | rest], names, groups, state) when what in [:joined, :rejoined] do
    case row(entry) do
      {{scope, group}, pid, meta, node} ->
        row = {{scope, group, pid}, meta, node}
        state = placed(state, group)

        if state.subscribers == %{} and not is_map_key(state.services.known, scope) do
          change(rest, names, [row | groups], state)
        else
          state = state |> write(names, [row | groups]) |> membership({scope, group, pid})
          change(rest, [], [], tell(state, {what, scope, group, pid, meta}))
        end

      :error ->
        change(rest, names, groups, state)
    end
  end

  defp change([{:unregistered, {scope, name}, pid, why} | rest], names, groups, state) do
    state = write(state, names, groups)

    with {:ok, name} <- Name.decode(name), {:ok, pid} <- Name.decode(pid) do
      :ets.delete(state.cluster, {scope, name})
      # A process that lost its name may wait for it.
      if why != :lost, do: :ets.delete(state.members, {:choice, pid, scope, name})
      change(rest, [], [], state |> count(scope, -1) |> tell({:unregistered, scope, name, pid, why}))
    else
      :error -> change(rest, [], [], state)
    end
  end

  defp change([{:left, {scope, group}, pid, why} | rest], names, groups, state) do
    state = write(state, names, groups)

    with {:ok, group} <- Name.decode(group), {:ok, pid} <- Name.decode(pid) do
      :ets.delete(state.groups, {scope, group, pid})
      state = state |> membership({scope, group, pid}) |> placed(group)
      change(rest, [], [], tell(state, {:left, scope, group, pid, why}))
    else
      :error -> change(rest, [], [], state)
    end
  end

  defp change([{:purged, node, _creation, why, keys, memberships} | rest], names, groups, state) do
    change(rest, [], [], state |> write(names, groups) |> purge(node, why, keys, memberships))
  end

  # What the NIF could decode, and what it left to be decoded.
  defp row({{_scope, _name}, _pid, _meta, _node} = row), do: row

  defp row({scope, name, pid, meta, node}) do
    with {:ok, name} <- Name.decode(name),
         {:ok, pid} when is_pid(pid) <- Name.decode(pid),
         {:ok, meta} <- Name.decode(meta) do
      {{scope, name}, pid, meta, node}
    else
      _ -> :error
    end
  end

  defp write(state, names, groups) do
    # Newest first: of two rows of one name the later one stays.
    if names != [], do: :ets.insert(state.cluster, Enum.reverse(names))
    if groups != [], do: :ets.insert(state.groups, Enum.reverse(groups))
    state
  end

  # The core knows what its owner had, so that nobody looks through the whole table. Rows of other owners stay.
  defp purge(state, node, why, names, memberships) do
    began = System.monotonic_time()

    names =
      for {scope, name} = key <- names, [{_key, pid, _meta, ^node}] <- [:ets.lookup(state.cluster, key)] do
        :ets.delete(state.cluster, key)
        {scope, name, pid}
      end

    groups =
      for key <- memberships, [{_key, _meta, ^node}] <- [:ets.lookup(state.groups, key)] do
        :ets.delete(state.groups, key)
        key
      end

    state =
      Enum.reduce(names, state, fn {scope, name, pid}, state ->
        state |> count(scope, -1) |> tell({:unregistered, scope, name, pid, why})
      end)

    state =
      Enum.reduce(groups, state, fn {scope, group, pid} = key, state ->
        state |> membership(key) |> placed(group) |> tell({:left, scope, group, pid, why})
      end)

    duration = System.monotonic_time() - began
    measurements = %{names: length(names), memberships: length(groups), duration: duration}
    %{state | purges: [{measurements, %{node: node, reason: why}} | state.purges]}
  end

  # Who takes part in a ring or a pool; their managers look when the rows are written.
  defp placed(state, {:tiebeam, _kind, _name}), do: %{state | placed?: true}
  defp placed(state, _group), do: state

  defp tell_managers(%{placed?: false} = state), do: state

  defp tell_managers(state) do
    Table.tell_managers(state.members)
    %{state | placed?: false}
  end

  defp count(state, scope, by) do
    counts = Map.update(state.counts, scope, by, &(&1 + by))
    counted = if scope in state.counted, do: state.counted, else: [scope | state.counted]
    %{state | counts: counts, counted: counted}
  end

  defp write_counts(%{counted: []} = state), do: state

  defp write_counts(state) do
    :ets.insert(state.cluster, for(scope <- state.counted, do: {{scope}, Map.fetch!(state.counts, scope)}))
    %{state | counted: []}
  end

  # Awaiting a name.

  @doc "A caller waits for a name, at most so long; it is answered when the name is there."
  def await(state, {caller, _tag} = from, key, timeout) do
    case present(state, key) do
      {pid, meta} ->
        GenServer.reply(from, {:ok, pid, meta})
        state

      nil when map_size(state.waiters) >= @max_waiters ->
        GenServer.reply(from, {:error, {:too_many_waiters, @max_waiters}})
        state

      nil ->
        monitor = Process.monitor(caller)
        timer = if timeout != :infinity, do: :erlang.start_timer(timeout, self(), {:await, monitor})

        awaited =
          Map.update(state.awaited, key, %{monitor => {from, timer}}, &Map.put(&1, monitor, {from, timer}))

        %{state | awaited: awaited, waiters: Map.put(state.waiters, monitor, key)}
    end
  end

  defp present(state, {:strong, name}) do
    with {pid, meta, _token} <- Strong.row(state.cluster, name), do: {pid, meta}
  end

  defp present(state, key) do
    with [{_key, pid, meta, _node}] <- :ets.lookup(state.cluster, key), do: {pid, meta}, else: ([] -> nil)
  end

  @doc "A caller has waited long enough, or ended."
  def give_up(state, monitor) do
    case Map.pop(state.waiters, monitor) do
      {nil, _waiters} ->
        state

      {key, waiters} ->
        {{from, timer}, others} = Map.pop!(Map.fetch!(state.awaited, key), monitor)
        if timer, do: :erlang.cancel_timer(timer, async: true, info: false)
        Process.demonitor(monitor, [:flush])
        GenServer.reply(from, {:error, :timeout})
        awaited = if others == %{}, do: Map.delete(state.awaited, key), else: %{state.awaited | key => others}
        %{state | awaited: awaited, waiters: waiters}
    end
  end

  defp found(%{awaited: awaited} = state, key, pid, meta) when is_map_key(awaited, key) do
    {waiting, awaited} = Map.pop!(awaited, key)

    for {monitor, {from, timer}} <- waiting do
      if timer, do: :erlang.cancel_timer(timer, async: true, info: false)
      Process.demonitor(monitor, [:flush])
      GenServer.reply(from, {:ok, pid, meta})
    end

    %{state | awaited: awaited, waiters: Map.drop(state.waiters, Map.keys(waiting))}
  end

  defp found(state, _key, _pid, _meta), do: state

  @doc "What a group agreed on about names of the scope `:strong`."
  def agreed(state, changed) do
    Enum.reduce(changed, state, fn
      {:unregistered, name, pid, _meta}, state ->
        tell(state, {:unregistered, :strong, name, pid, :freed})

      {what, name, pid, meta}, state ->
        state |> found({:strong, name}, pid, meta) |> tell({what, :strong, name, pid, meta})
    end)
  end

  # Subscribers.

  def subscribe(state, pid) when is_map_key(state.subscribers, pid), do: state

  def subscribe(state, pid) do
    :ets.insert(state.members, {{:watcher, pid}})
    %{state | subscribers: Map.put(state.subscribers, pid, Process.monitor(pid))}
  end

  def unsubscribe(state, pid) do
    {monitor, subscribers} = Map.pop(state.subscribers, pid)
    if monitor, do: Process.demonitor(monitor, [:flush])
    :ets.delete(state.members, {:watcher, pid})
    %{state | subscribers: subscribers}
  end

  defp tell(state, event) do
    for {pid, _monitor} <- state.subscribers, do: send(pid, {:tiebeam, state.cluster, event})
    state
  end

  # Services.

  @doc "Those that watch services are told what differs from what they know."
  def look(state), do: %{state | services: Watches.look(state.services)}

  defp membership(state, key), do: %{state | services: Watches.changed(state.services, key)}

  # Conflicts.

  @doc "A process lost its name; `kept` is who has it."
  def lost(state, {scope, name, pid, on_conflict}, kept) do
    if on_conflict == :exit do
      stop(pid, {:name_conflict, name, kept})
    else
      notify(state, pid, {:lost, scope, name, kept})
    end
  end

  @doc "A process that waited for its name has it."
  def promoted(state, scope, name, pid), do: notify(state, pid, {:promoted, scope, name})

  defp notify(state, pid, event) do
    :erlang.send(pid, {:tiebeam, state.cluster, event}, [:noconnect, :nosuspend])
    :ok
  end

  defp stop(pid, reason) when node(pid) == node(), do: Process.exit(pid, reason)
  # May suspend while the link is busy.
  defp stop(pid, reason), do: spawn(Process, :exit, [pid, reason])

  @doc "Asks the user whose a name shall be, in a process of its own; `:resolved` comes as a message of that task."
  def resolve(state, id, {scope, name, older, older_meta, _}, {_, _, younger, younger_meta, _}) do
    with true <- map_size(state.verdicts) < @max_verdicts,
         {:ok, name} <- Name.decode(name),
         {:ok, older} <- Name.decode(older),
         {:ok, younger} <- Name.decode(younger),
         {:ok, older_meta} <- Name.decode(older_meta),
         {:ok, younger_meta} <- Name.decode(younger_meta),
         {_on_conflict, {module, function}} <- choice(state.members, older, scope, name) do
      server = self()
      candidates = [{older, older_meta}, {younger, younger_meta}]

      {task, monitor} =
        spawn_monitor(fn ->
          kept = apply(module, function, [scope, name | candidates])
          keep = Map.get(%{older => :older, younger => :younger, nil => :neither}, kept, :older)
          send(server, {:resolved, id, keep})
        end)

      timer = :erlang.start_timer(@verdict_timeout, self(), {:verdict, monitor})
      %{state | verdicts: Map.put(state.verdicts, monitor, {task, timer})}
    else
      _ -> state
    end
  end

  @doc "A verdict took too long."
  def expire(state, monitor) do
    with {task, _timer} <- state.verdicts[monitor], do: Process.exit(task, :kill)
    state
  end

  @doc "The process of a verdict ended."
  def verdict_ended(state, monitor) do
    {{_task, timer}, verdicts} = Map.pop!(state.verdicts, monitor)
    :erlang.cancel_timer(timer, async: true, info: false)
    %{state | verdicts: verdicts}
  end

  defp choice(members, pid, scope, name) do
    case :ets.lookup(members, {:choice, pid, scope, name}) do
      [{_key, on_conflict, resolve}] -> {on_conflict, resolve}
      [] -> {:notify, nil}
    end
  end
end
