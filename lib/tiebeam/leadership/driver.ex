defmodule Tiebeam.Leadership.Driver do
  @moduledoc false
  # Leadership's part of `Tiebeam.Server`: rows into tables, word to processes, writes to the process that has the disk.
  # Runs in the server's process.
  #
  # Keys and values stay bytes, which readers decode. The names and holders of claims are decoded here, once.

  alias Tiebeam.{Error, Options, Reporter, Table}
  alias Tiebeam.Leadership.{Question, Store}
  alias Tiebeam.Registry.Name

  # Subscribers on other nodes, as for members: a few tools and plain nodes follow the leader.
  @max_remote_subscribers 256

  # When a subscriber whose link was busy is told again, in milliseconds. It is told the latest, so nothing piles up.
  @retry 100

  # `store` is the process that has the disk, `life` what it calls the present core. `subscribers` are told who leads; the
  # value is whether a retry is under way. `guards` stop what runs under a lease. `watches` are pids and prefixes by the
  # core's number, `ids` the reverse. `monitors` say what a process that ended was, `waiting` counts what others ask.
  # `given_up` are tokens of claims whose holders know already, `changed` is what happened to names since the registry's subscribers were told.
  @enforce_keys [:cluster, :identity, :agreed, :members, :reporter, :store, :waiting]
  defstruct @enforce_keys ++
              [
                :life,
                origin: 0,
                takes_part?: false,
                stopped?: false,
                given_up: MapSet.new(),
                subscribers: %{},
                guards: %{},
                changed: []
              ] ++
              [watches: %{}, ids: %{}, next_watch: 0, monitors: %{}]

  @typedoc "What the log and telemetry are told."
  @type notice ::
          {:leader, node | nil, term :: non_neg_integer}
          | {:foreign_group, node}
          | {:group_stopped, String.t()}
          | {:group, Tiebeam.group_condition(), String.t()}

  @spec new(Options.t(), struct) :: struct
  def new(options, reporter) do
    members = Table.members_of(options.name)

    state = %__MODULE__{
      cluster: options.name,
      identity: options.cluster,
      agreed: Table.agreed_of(options.name),
      members: members,
      reporter: reporter,
      store: if(options.data_dir != :memory, do: Store.process(options.name)),
      waiting: Question.waiting(),
      takes_part?: Options.leadership?(options)
    }

    # Those of a server that crashed.
    for pid <- :ets.select(members, [{{{:leader_subscriber, :"$1"}}, [], [:"$1"]}]), reduce: state do
      state -> add_subscriber(state, pid)
    end
  end

  @doc """
  Begins anew with a core that is about to be made at `origin`, in microseconds of monotonic time. What an earlier one granted
  is taken back first: its sessions are not prolonged any more, and last longer than this takes.

  Raises `Tiebeam.Error` if there is a disk that cannot be read.
  """
  def restart(state, settings, origin) do
    state = %{give_up(state) | origin: origin, life: nil, stopped?: false, given_up: MapSet.new()}
    state = end_watches(state)
    :ets.delete_all_objects(state.agreed)

    state = led(state, nil, 0)
    if state.takes_part? and state.store != nil, do: load(state, settings), else: {settings, state}
  end

  defp load(state, settings) do
    case Store.load(state.store, settings.node, settings.cluster, Options.fresh_member()) do
      {:ok, life, loaded} -> {put_in(settings.leadership.stored, loaded), %{state | life: life}}
      {:error, why} -> raise Error, reason: {:store, why}
    end
  end

  @doc "Whether the core's part in the group is over."
  def stopped?(state), do: not state.takes_part? or state.stopped?

  @doc """
  The server ends, or this node is about to leave: its processes hold nothing any more. They are told before the group is, which
  may grant it to others at once.
  """
  def give_up(state) do
    claims = claims_here(state)

    for {{kind, name}, token, pid, _meta} <- claims, do: lost(state, pid, kind, name, token)

    state =
      for {{kind, name}, token, _pid, _meta} <- claims, reduce: state do
        state -> freed(state, kind, name, token)
      end

    tokens = for {_key, token, _pid, _meta} <- claims, into: state.given_up, do: token
    end_lease(%{state | given_up: tokens})
  end

  defp claims_here(state) do
    for kind <- [:lock, :singleton, :name],
        {_key, _token, pid, _meta} = row <-
          :ets.select(state.agreed, [{{{kind, :_}, :_, :_, :_}, [], [:"$_"]}]),
        is_pid(pid) and node(pid) == node(),
        do: row
  end

  # What callers ask of the core.

  @doc "The command in the core's words; a watch gets its number, and its process a monitor."
  def asked(state, {:watch, prefix}, pid) do
    case state.ids do
      %{{^pid, ^prefix} => id} ->
        {{:watch, id, prefix}, state}

      _ ->
        id = state.next_watch
        monitor = Process.monitor(pid)
        :ets.insert(state.members, {{:key_watcher, pid, prefix}})

        {{:watch, id, prefix},
         %{
           state
           | watches: Map.put(state.watches, id, {pid, prefix, monitor}),
             ids: Map.put(state.ids, {pid, prefix}, id),
             monitors: Map.put(state.monitors, monitor, {:watch, id}),
             next_watch: id + 1
         }}
    end
  end

  def asked(state, {:unwatch, prefix}, pid) do
    case state.ids do
      %{{^pid, ^prefix} => id} -> {{:unwatch, id}, unwatched(state, id)}
      # The core has nothing under this number, and says that it is done.
      _ -> {{:unwatch, state.next_watch}, state}
    end
  end

  def asked(state, command, _pid), do: {command, state}

  @doc "The core's answer. A watch that it does not keep is none."
  def answered(state, {:watch, _id, _prefix}, {:leadership, {:done, _entry}}), do: state
  def answered(state, {:watch, id, _prefix}, _refused), do: unwatched(state, id)
  def answered(state, _command, _answer), do: state

  defp unwatched(state, id) do
    case Map.pop(state.watches, id) do
      {nil, _watches} ->
        state

      {{pid, prefix, monitor}, watches} ->
        Process.demonitor(monitor, [:flush])
        :ets.delete(state.members, {:key_watcher, pid, prefix})
        ids = Map.delete(state.ids, {pid, prefix})
        %{state | watches: watches, ids: ids, monitors: Map.delete(state.monitors, monitor)}
    end
  end

  # The next core knows nothing of them; those of a server that crashed are in the table alone.
  defp end_watches(state) do
    for {{:key_watcher, pid, prefix}} <- :ets.match_object(state.members, {{:key_watcher, :_, :_}}) do
      :ets.delete(state.members, {:key_watcher, pid, prefix})
      send(pid, {:tiebeam, state.cluster, {:kv, :unwatched, prefix}})
    end

    Enum.reduce(Map.keys(state.watches), state, &unwatched(&2, &1))
  end

  # What the core wants done.

  @doc "Hands a write to the disk's process; `:done` if there is no disk."
  def persist(%{store: nil}, _token, _pending), do: :done
  def persist(state, token, pending), do: Store.write(state.store, state.life, token, pending)

  @doc "Carries out what the group wants."
  def act(state, {:row, {:put, key, revision, value}}) do
    :ets.insert(state.agreed, {{:key, key}, revision, value})
    state
  end

  def act(state, {:row, {:deleted, key}}) do
    :ets.delete(state.agreed, {:key, key})
    state
  end

  def act(state, {:row, {:claimed, kind, name, token, value}}) do
    with {:ok, name} <- Name.decode(name) do
      {pid, meta} = holder(value)

      what =
        case :ets.lookup(state.agreed, {kind, name}) do
          [{_key, ^token, _pid, _meta}] -> :updated
          _ -> :registered
        end

      :ets.insert(state.agreed, {{kind, name}, token, pid, meta})
      changed(state, kind, name, {what, pid, meta})
    else
      _ -> state
    end
  end

  def act(state, {:row, {:freed, kind, name, token}}) do
    # Another one may have it already.
    case Name.decode(name) do
      {:ok, name} -> freed(state, kind, name, token)
      :error -> state
    end
  end

  def act(state, {:led, term, leader}), do: led(state, leader, term)
  def act(state, {:lease, _term, nil}), do: end_lease(state)

  def act(state, {:lease, term, until}) do
    state =
      case Table.lease(state.cluster) do
        {other, _until} when other != term -> end_lease(state)
        _ -> state
      end

    :ets.insert(state.cluster, {:lease, term, until + state.origin})
    state
  end

  def act(state, {:lost, pid, kind, name, token}) do
    with {:ok, pid} <- Name.decode(pid), {:ok, name} <- Name.decode(name) do
      unless token in state.given_up, do: lost(state, pid, kind, name, token)
      freed(state, kind, name, token)
    else
      :error -> state
    end
  end

  def act(state, {:watched, id, key, value, revision}) do
    with {pid, _prefix, _monitor} <- state.watches[id], {:ok, event} <- change(key, value, revision) do
      send(pid, {:tiebeam, state.cluster, event})
    end

    state
  end

  def act(state, {:members, voters, learners}) do
    :ets.insert(state.cluster, {:voters, voters, learners})
    state
  end

  def act(state, {:foreign, node}) do
    Reporter.publish(state.reporter, {:foreign_group, node})
    state
  end

  def act(state, {:stopped, why, text}) do
    if why != :left, do: Reporter.publish(state.reporter, {:group_stopped, text})
    state = end_lease(%{state | stopped?: true})
    for {pid, _} <- state.subscribers, local?(pid), do: send(pid, {:tiebeam, state.cluster, {:stopped, why}})
    {_leader, term} = Table.leader(state.cluster)
    led(state, nil, term)
  end

  @doc "What happened to names since this was asked last, the first first."
  @spec changed(struct) :: {[{:registered | :updated | :unregistered, term, pid, term}], struct}
  def changed(%{changed: []} = state), do: {[], state}
  def changed(state), do: {Enum.reverse(state.changed), %{state | changed: []}}

  defp freed(state, kind, name, token) do
    case :ets.lookup(state.agreed, {kind, name}) do
      [{key, ^token, pid, meta}] ->
        :ets.delete(state.agreed, key)
        changed(state, kind, name, {:unregistered, pid, meta})

      _ ->
        state
    end
  end

  defp changed(state, kind, name, {what, pid, meta}) do
    tell_manager(state, name)

    if kind == :name and is_pid(pid),
      do: %{state | changed: [{what, name, pid, meta} | state.changed]},
      else: state
  end

  defp holder(value) do
    case Name.decode(value) do
      {:ok, {pid, meta}} when is_pid(pid) -> {pid, meta}
      _ -> {nil, nil}
    end
  end

  defp change(key, nil, revision), do: {:ok, {:kv, :delete, key, revision}}

  defp change(key, value, revision) do
    with {:ok, value} <- Name.decode(value), do: {:ok, {:kv, :put, key, value, revision}}
  end

  defp lost(state, pid, kind, name, token),
    do: send(pid, {:tiebeam, state.cluster, {:lost, kind, name, token}})

  # The claim of a slot of a ring or a pool.
  defp tell_manager(state, {kind, task, slot}) when kind in [:ring, :pool] and is_integer(slot),
    do: Table.tell_manager(state.members, kind, task)

  defp tell_manager(_state, _name), do: :ok

  # Who leads.

  defp led(state, leader, term) do
    case Table.leader(state.cluster) do
      {^leader, ^term} ->
        state

      {nil, _term} when leader == nil and term == 0 ->
        state

      _ ->
        :ets.insert(state.cluster, {:leader, leader, term})
        Table.tell_managers(state.members)
        Reporter.publish(state.reporter, {:leader, leader, term})
        Enum.reduce(Map.keys(state.subscribers), state, &tell(&2, &1))
    end
  end

  @doc "A process is told who leads, at once and whenever it changes."
  def subscribe(%{takes_part?: false} = state, _pid), do: {{:error, :no_group}, state}
  def subscribe(state, pid) when is_map_key(state.subscribers, pid), do: {:ok, tell(state, pid)}

  def subscribe(state, pid) do
    cond do
      # A monitor would dial: nobody makes this node call on others by naming a pid.
      not local?(pid) and node(pid) not in Node.list(:connected) ->
        {{:error, :noconnection}, state}

      not local?(pid) and
          Enum.count(state.subscribers, fn {pid, _} -> not local?(pid) end) >= @max_remote_subscribers ->
        {{:error, {:too_many_subscribers, @max_remote_subscribers}}, state}

      true ->
        :ets.insert(state.members, {{:leader_subscriber, pid}})
        {:ok, state |> add_subscriber(pid) |> tell(pid)}
    end
  end

  def unsubscribe(state, pid) do
    case Enum.find(state.monitors, &match?({_monitor, {:subscriber, ^pid}}, &1)) do
      {monitor, _what} ->
        Process.demonitor(monitor, [:flush])
        forget_subscriber(state, monitor, pid)

      nil ->
        state
    end
  end

  defp add_subscriber(state, pid) do
    monitors = Map.put(state.monitors, Process.monitor(pid), {:subscriber, pid})
    %{state | subscribers: Map.put(state.subscribers, pid, false), monitors: monitors}
  end

  defp forget_subscriber(state, monitor, pid) do
    :ets.delete(state.members, {:leader_subscriber, pid})
    subscribers = Map.delete(state.subscribers, pid)
    %{state | subscribers: subscribers, monitors: Map.delete(state.monitors, monitor)}
  end

  defp tell(state, pid) do
    {leader, term} = Table.leader(state.cluster)
    # It cannot be told apart from the others of its node by a local name.
    name = if local?(pid), do: state.cluster, else: state.identity
    retry? = Map.fetch!(state.subscribers, pid)

    case :erlang.send(pid, {:tiebeam, name, {:leader, leader, term}}, [:noconnect, :nosuspend]) do
      :nosuspend when not retry? ->
        Process.send_after(self(), {:tell_leader, pid}, @retry)
        %{state | subscribers: %{state.subscribers | pid => true}}

      # Without a connection nothing is missed: the monitor is about to say so.
      _ ->
        state
    end
  end

  @doc "A subscriber whose link was busy is told again."
  def tell_again(state, pid) when is_map_key(state.subscribers, pid),
    do: tell(%{state | subscribers: %{state.subscribers | pid => false}}, pid)

  def tell_again(state, _pid), do: state

  @doc "A process wants to be told when the lease of `term` is over, by `{:tiebeam_guard, :lost}`; `:lost` if it is."
  def guard(state, pid, term) do
    with {^term, until} <- Table.lease(state.cluster), true <- System.monotonic_time(:microsecond) < until do
      monitor = Process.monitor(pid)
      guards = Map.put(state.guards, pid, monitor)
      {:ok, %{state | guards: guards, monitors: Map.put(state.monitors, monitor, {:guard, pid})}}
    else
      _ -> {:lost, state}
    end
  end

  defp end_lease(state) do
    :ets.delete(state.cluster, :lease)

    for {pid, monitor} <- state.guards do
      send(pid, {:tiebeam_guard, :lost})
      Process.demonitor(monitor, [:flush])
    end

    %{state | guards: %{}, monitors: Map.drop(state.monitors, Map.values(state.guards))}
  end

  @doc "A process that was monitored ended. Answers what the core must be asked."
  def down(state, monitor) do
    case Map.fetch!(state.monitors, monitor) do
      {:subscriber, pid} ->
        {nil, forget_subscriber(state, monitor, pid)}

      {:guard, pid} ->
        {nil, %{state | guards: Map.delete(state.guards, pid), monitors: Map.delete(state.monitors, monitor)}}

      {:watch, id} ->
        {{:unwatch, id}, unwatched(state, id)}
    end
  end

  defp local?(pid), do: node(pid) == node()
end
