defmodule Tiebeam.Placement.Manager do
  @moduledoc false
  # The process of a ring or a pool on one node: it is the node's member of the group of all that take part, holds the claims of
  # this node's slots, and is the parent of a *runner* for each of them, the process that does the work.
  #
  # | name of | |
  # |---|---|
  # | the group, in the scope `:default` | `{:tiebeam, kind, name}`; metadata is a map: see `Tiebeam.Placement.Participant` |
  # | the claim of a slot, a singleton | `{kind, name, slot}`; its value is `{manager, %{}}` |
  # | the task, for `Tiebeam.Placement.View` | `{kind, name}` |
  #
  # It looks at the tables when it is told by whoever writes them, `:changed`, and when there is something to wait for. When what it sees has not changed for `settle`, and there is a leader, it does what the plan
  # `turn` says; the next one waits until that is done. A slot is claimed before its runner starts, and given back after it ended.
  #
  # A runner is linked to this process and gets `{:release, reason}` when it must end, in any way. It is killed, and what it started,
  # if it takes longer than it may. A runner that ends by itself is started again, under the claim that it had.
  #
  # What an operator asks for are calls from any node, in both languages: `:rebalance`, `:cordon`, `:uncordon`, `:drain`, `{:pin, slot}`,
  # `{:unpin, slot}`, `{:weight, n}` and `{:labels, map}`; the answer is `:ok` or `{:error, reason}`. But for the first they change what this
  # node says of itself, which is forgotten when this process ends.

  use GenServer

  require Logger

  alias Tiebeam.{Group, Leadership, Native, Registry, Table}
  alias Tiebeam.Placement.{Participant, Policy, View}
  alias Tiebeam.Registry.Name
  alias Tiebeam.Ring.Follower

  # How long it waits for more news before it looks, in milliseconds: a node that goes is news of each of its slots.
  @soon 10

  # How often it looks while the others could not be told of it, or the server is gone.
  @retry 100

  # How often it looks if there is no news: nothing is known to be missed, and a few reads of tables are cheap.
  @seldom 5_000

  # How long a question for a claim waits, and how long it is paused when there was no majority.
  @wait 5_000
  @pause 1_000

  # Questions under way at a time; a node may have some thousand slots.
  @in_flight 256

  # How long the end waits, behind the last runner, for the claims to be given back; the end of the process gives them back as well.
  @farewell 2_000

  @enforce_keys [:cluster, :kind, :name, :slots, :most, :start, :settle, :start_timeout, :release_timeout] ++
                  [:lost_timeout, :max_restarts, :max_seconds, :metadata, :policy, :says]
  defstruct @enforce_keys ++ [followers: 0, follower: nil]

  @typedoc """
  What it manages. `slots` is their number, or `:local` for one that needs no claim; `start` starts the runner of a slot under a
  token, linked to the caller, and does not wait for code of the user: the runner tells `{:started, self()}` when that is through. `says` is what
  the node says of itself at first, `metadata` what it says besides. `follower` starts a `Tiebeam.Ring.Follower`, if slots have `followers`.
  """
  @type t :: %__MODULE__{
          cluster: Tiebeam.name(),
          kind: :ring | :pool,
          name: Registry.name(),
          slots: pos_integer | :local,
          most: pos_integer,
          start: (slot :: non_neg_integer, token :: pos_integer | nil -> pid),
          settle: non_neg_integer,
          start_timeout: timeout,
          release_timeout: non_neg_integer,
          lost_timeout: non_neg_integer,
          max_restarts: non_neg_integer,
          max_seconds: pos_integer,
          metadata: map,
          policy: Policy.t(),
          says: Participant.t(),
          followers: non_neg_integer,
          follower: (() -> pid) | nil
        }

  defmodule State do
    @moduledoc false
    # `slots` are `%{runner, token, part, timer}` by number, `runners` the reverse; `part` is `:starting`, `:running`, `:failing`,
    # `{:releasing, reason}` or `:returning`. `asked` is what was asked of the group, by reference, `queue` what is not yet asked. `seen` is the last look and
    # `since` its time, `planned` the look that the last turn was for, `again` when there is another one though nothing changed, and `moves` what
    # turns remember; `origin` is the zero of their time. `workers` are told by runners and belong into a group. `says` is what this node says of
    # itself, `joined` what others have been told. `follower` is told what is followed, of which `followed` was the look. `look` is the
    # timer of the next look, and when that is.
    @enforce_keys [:manager, :says, :origin]
    defstruct @enforce_keys ++
                [:monitor, :seen, :planned, since: 0, asked: %{}, queue: []] ++
                [slots: %{}, runners: %{}, restarts: [], workers: %{}, joined: nil, hurry?: false] ++
                [draining: false, drainers: [], complained?: false, pause_until: nil] ++
                [again: nil, moves: {nil, [], false}, follower: nil, followed: nil, look: nil]
  end

  @doc "Starts it, linked to the caller; another one of the same kind and name on this node is `{:already_started, pid}`."
  @spec start_link(t) :: GenServer.on_start()
  def start_link(%__MODULE__{} = manager) do
    case of_this_node(manager.cluster, manager.kind, manager.name) do
      nil -> GenServer.start_link(__MODULE__, manager)
      pid -> {:error, {:already_started, pid}}
    end
  end

  # What the tables say; these never wait.

  @doc "The manager of this node, or `nil`."
  @spec of_this_node(Tiebeam.name(), :ring | :pool, Registry.name()) :: pid | nil
  def of_this_node(cluster, kind, name) do
    case Table.manager(cluster, kind, name) do
      {pid, _policy} -> if Process.alive?(pid), do: pid
      nil -> nil
    end
  end

  @doc "Where this node's own manager says that slots may be; where there is none, anywhere."
  @spec policy(Tiebeam.name(), :ring | :pool, Registry.name()) :: Policy.t()
  def policy(cluster, kind, name) do
    case Table.manager(cluster, kind, name) do
      {_pid, policy} -> policy
      nil -> %Policy{}
    end
  end

  @doc "The managers of all nodes with their metadata. What is no map says nothing."
  @spec all(Tiebeam.name(), :ring | :pool, Registry.name()) :: [{pid, map}]
  def all(cluster, kind, name) do
    for {pid, meta} <- Group.lookup(cluster, group(kind, name)), is_map(meta), do: {pid, meta}
  end

  @doc "The nodes that can take slots, in order."
  @spec nodes(Tiebeam.name(), :ring | :pool, Registry.name()) :: [node]
  def nodes(cluster, kind, name) do
    for({pid, meta} <- all(cluster, kind, name), meta[:draining] != true, do: node(pid))
    |> Enum.sort()
    |> Enum.dedup()
  end

  @doc "Who holds a slot, and under which token."
  @spec holder(Tiebeam.name(), :ring | :pool, Registry.name(), non_neg_integer) :: {pid, pos_integer} | nil
  def holder(cluster, kind, name, slot) do
    case :ets.lookup(Table.agreed_of(cluster), {:singleton, {kind, name, slot}}) do
      [{_key, token, pid, _meta}] when is_pid(pid) -> {pid, token}
      _ -> nil
    end
  end

  @doc "All slots that somebody holds, by number."
  @spec holders(Tiebeam.name(), :ring | :pool, Registry.name()) :: %{non_neg_integer => pid}
  def holders(cluster, kind, name) do
    # A name may have atoms that a pattern takes for variables.
    spec = [
      {{{:singleton, {kind, :"$1", :"$2"}}, :_, :"$3", :_},
       [{:"=:=", :"$1", {:const, name}}, {:is_integer, :"$2"}, {:is_pid, :"$3"}], [{{:"$2", :"$3"}}]}
    ]

    cluster |> Table.agreed_of() |> :ets.select(spec) |> Map.new()
  end

  @doc "The group of those that take part."
  def group(kind, name), do: {:tiebeam, kind, name}

  @doc "The group of a pool's workers."
  def workers(name), do: {:tiebeam, :workers, name}

  @doc "The nodes that have a worker of the pool that this policy keeps away from."
  @spec avoided(Tiebeam.name(), Policy.t()) :: [node]
  def avoided(_cluster, %{away_from: nil}), do: []
  def avoided(cluster, %{away_from: pool}), do: cluster |> Group.members(workers(pool)) |> Enum.map(&node/1)

  @doc "Has the manager of this node give up everything; see `Tiebeam.Ring.drain/2`."
  @spec drain(Tiebeam.name(), :ring | :pool, Registry.name(), timeout) :: :ok | {:error, :not_started}
  def drain(cluster, kind, name, timeout) do
    case of_this_node(cluster, kind, name) do
      nil -> {:error, :not_started}
      pid -> GenServer.call(pid, :drain, timeout)
    end
  end

  @doc """
  A call to a process of a pool or a ring, whose failure is a value. Waits so many milliseconds at most. `{:bad_request, why}`: the process, such as
  a Rust node's, does not take such a request, and did nothing.
  """
  @spec ask(pid, request :: term, timeout :: non_neg_integer) ::
          {:ok, reply :: term}
          | {:error, :timeout | :noproc | {:down, reason :: term} | {:bad_request, why :: term}}
  def ask(pid, request, timeout) do
    case GenServer.call(pid, request, timeout) do
      {:error, {:bad_request, why}} -> {:error, {:bad_request, why}}
      reply -> {:ok, reply}
    end
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, {:noproc, _call} -> {:error, :noproc}
    :exit, {reason, _call} -> {:error, {:down, reason}}
  end

  # The process.

  @impl true
  def init(manager) do
    # It must have its turn before what it guards against, and sees how its runners end.
    Process.flag(:priority, :high)
    Process.flag(:trap_exit, true)

    # One at a time: what is in the group may not be in the table yet.
    with :ok <- Table.put_new_manager(manager.cluster, manager.kind, manager.name, {self(), manager.policy}),
         true <- takes_part?(manager) do
      {:ok, start_follower(%State{manager: manager, says: manager.says, origin: now()}), {:continue, :begin}}
    else
      false -> {:stop, {:no_group, "start the cluster on this node with voters: or expect:"}}
      {:error, pid} -> {:stop, {:already_started, pid}}
    end
  end

  defp takes_part?(%{slots: :local}), do: true

  defp takes_part?(manager) do
    {:ok, bytes} = Name.encode({manager.kind, manager.name, 0})
    Leadership.ask(manager.cluster, {:holder, :singleton, bytes, :local}, @wait) != {:error, :no_group}
  end

  @impl true
  def handle_continue(:begin, state), do: {:noreply, look(state)}

  @impl true
  def handle_call({:ring_call, slot, _key, _request} = request, from, state) do
    case state.slots do
      %{^slot => %{part: part, runner: runner}} when part in [:starting, :running] ->
        send(runner, {:"$gen_call", from, request})
        {:noreply, state}

      _ ->
        {:reply, {:error, {:not_owner, other(state, slot)}}, state}
    end
  end

  def handle_call(:drain, from, state) do
    state = %{state | draining: true, drainers: [from | state.drainers], queue: []}
    {:noreply, state |> join() |> release_all(:drain) |> drained() |> soon()}
  end

  def handle_call(:rebalance, _from, state), do: {:reply, :ok, hurry(state)}
  def handle_call(:cordon, _from, state), do: {:reply, :ok, say(state, :cordoned, true)}
  def handle_call(:uncordon, _from, state), do: {:reply, :ok, say(state, :cordoned, false)}
  def handle_call({:pin, slot}, _from, state) when is_integer(slot), do: pin(state, slot)

  def handle_call({:unpin, slot}, _from, state) when is_integer(slot),
    do: {:reply, :ok, say(state, :pinned, List.delete(state.says.pinned, slot))}

  def handle_call({:weight, weight} = request, _from, state) do
    if Participant.weight?(weight),
      do: {:reply, :ok, say(state, :weight, weight)},
      else: {:reply, {:error, {:bad_request, request}}, state}
  end

  def handle_call({:labels, labels} = request, _from, state) do
    if Participant.labels?(labels),
      do: {:reply, :ok, say(state, :labels, labels)},
      else: {:reply, {:error, {:bad_request, request}}, state}
  end

  def handle_call(request, _from, state), do: {:reply, {:error, {:bad_request, request}}, state}

  @impl true
  def handle_cast({:ring_cast, slot, _key, _request} = request, state) do
    with %{^slot => %{part: part, runner: runner}} when part in [:starting, :running] <- state.slots,
         do: send(runner, {:"$gen_cast", request})

    {:noreply, state}
  end

  def handle_cast(:rebalance, state), do: {:noreply, hurry(state)}
  def handle_cast(_request, state), do: {:noreply, state}

  @impl true
  def handle_info({:timeout, look, :look}, %{look: {look, _due}} = state),
    do: {:noreply, look(%{state | look: nil})}

  # One that was put forward.
  def handle_info({:timeout, _look, :look}, state), do: {:noreply, state}
  def handle_info(:changed, state), do: {:noreply, soon(state)}

  def handle_info({asked, answer}, %{asked: questions} = state) when is_map_key(questions, asked) do
    {question, questions} = Map.pop!(questions, asked)
    {:noreply, %{state | asked: questions} |> answered(question, answer) |> ask_next() |> drained() |> soon()}
  end

  def handle_info({:started, runner}, state) do
    with {:ok, slot} <- Map.fetch(state.runners, runner),
         %{part: :starting} = row <- state.slots[slot] do
      {:noreply, state |> put_slot(slot, %{cancel(row) | part: :running}) |> soon()}
    else
      _ -> {:noreply, state}
    end
  end

  # It is about to end by itself, and takes no calls any more.
  def handle_info({:failing, runner}, state) do
    send(runner, {:failing, :noted})

    with {:ok, slot} <- Map.fetch(state.runners, runner),
         %{part: part} = row when part in [:starting, :running] <- state.slots[slot] do
      {:noreply, put_slot(state, slot, %{row | part: :failing})}
    else
      _ -> {:noreply, state}
    end
  end

  def handle_info({:worker, worker, metadata}, state) do
    workers =
      state.workers
      |> Map.filter(fn {pid, _} -> Process.alive?(pid) end)
      |> Map.put(worker, {:to_join, metadata})

    {:noreply, %{state | workers: workers} |> join_workers() |> soon()}
  end

  def handle_info({:timeout, timer, {:kill, slot}}, state) do
    with %{^slot => %{timer: ^timer, runner: runner} = row} when is_pid(runner) <- state.slots do
      log(state, "#{describe(state, slot)} was killed: it was #{doing(row.part)} for longer than it may")
      kill(runner)
    end

    {:noreply, state}
  end

  # Somebody else may have it in a moment.
  def handle_info({:tiebeam, _cluster, {:lost, :singleton, {_kind, _name, slot}, token}}, state) do
    case state.slots do
      %{^slot => %{token: ^token}} -> {:noreply, state |> lose(slot) |> soon()}
      _ -> {:noreply, state}
    end
  end

  # Nobody would say what is lost. The next core of this node knows nothing of it.
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state) do
    # The next one may know nothing of the groups either.
    workers = Map.new(state.workers, fn {worker, {_joined, metadata}} -> {worker, {:to_join, metadata}} end)
    state = %{state | monitor: nil, asked: %{}, queue: [], joined: nil, planned: nil, workers: workers}
    held = if state.manager.slots == :local, do: [], else: Map.keys(state.slots)
    {:noreply, held |> Enum.reduce(state, &lose(&2, &1)) |> drained() |> soon()}
  end

  def handle_info({:EXIT, pid, reason}, state) do
    case Map.pop(state.runners, pid) do
      {nil, _runners} when pid == state.follower -> follower_ended(%{state | follower: nil}, reason)
      {nil, _runners} -> {:noreply, state}
      {slot, runners} -> ended(soon(%{state | runners: runners}), slot, state.slots[slot], reason)
    end
  end

  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    state = %{state | draining: true, queue: []}
    state = state |> join() |> release_all(:shutdown)
    deadline = now() + state.manager.release_timeout + @farewell
    farewell(state, deadline)
    stop_follower(state)
    leave(state)
  end

  # Until all runners have ended and all claims are given back.
  defp farewell(state, deadline) do
    left = deadline - now()

    if (state.slots == %{} and state.asked == %{}) or left <= 0 do
      # They must not outlive the claims.
      for {runner, _slot} <- state.runners, do: kill(runner)
      :ok
    else
      receive do
        {:"$gen_call", from, request} -> from |> late_call(request, state) |> farewell(deadline)
        message when is_tuple(message) -> message |> handle_info(state) |> elem_state() |> farewell(deadline)
      after
        left -> farewell(state, deadline)
      end
    end
  end

  defp late_call(from, request, state) do
    case handle_call(request, from, state) do
      {:reply, reply, state} ->
        GenServer.reply(from, reply)
        state

      {:noreply, state} ->
        state
    end
  end

  defp elem_state({:noreply, state}), do: state
  defp elem_state({:stop, _reason, state}), do: state

  # Looking.

  defp look(state) do
    state = state |> watch_server() |> join() |> join_workers()

    state =
      cond do
        state.monitor == nil -> state
        state.draining -> follow_nothing(state)
        state.manager.slots == :local -> start_local(state)
        true -> state |> see() |> plan() |> follow()
      end

    look_in(state, pause_before_look(state))
  end

  defp soon(state), do: look_in(state, @soon)

  # At the latest in so many milliseconds.
  defp look_in(state, time) do
    due = now() + time

    case state.look do
      {_look, earlier} when earlier <= due ->
        state

      look ->
        with {timer, _due} <- look, do: :erlang.cancel_timer(timer, async: true, info: false)
        %{state | look: {:erlang.start_timer(time, self(), :look), due}}
    end
  end

  defp pause_before_look(state) do
    if state.monitor == nil or not told?(state) do
      @retry
    else
      # What is over is no reason: it was looked at.
      waits =
        for until <- [state.since + state.manager.settle, state.pause_until, state.again],
            until != nil,
            do: until - now()

      waits |> Enum.filter(&(&1 > 0)) |> Enum.min(fn -> @seldom end) |> min(@seldom)
    end
  end

  defp told?(state),
    do:
      state.joined == metadata(state) and
        Enum.all?(state.workers, &match?({_worker, {:joined, _metadata}}, &1))

  defp start_local(%{says: %{cordoned: true}} = state), do: state
  defp start_local(%{slots: slots} = state) when slots == %{}, do: start_runner(state, 0, nil)
  defp start_local(state), do: state

  defp watch_server(%{monitor: nil} = state) do
    case Process.whereis(Table.process(state.manager.cluster)) do
      nil ->
        state

      pid ->
        # The table may be another one than that of the beginning.
        %{cluster: cluster, kind: kind, name: name, policy: policy} = state.manager
        Table.put_new_manager(cluster, kind, name, {self(), policy})
        %{state | monitor: Process.monitor(pid)}
    end
  rescue
    # The cluster ended as well.
    ArgumentError -> state
  end

  defp watch_server(state), do: state

  # With what it has to say about itself; the server may end at any moment.
  defp join(state) do
    %{cluster: cluster, kind: kind, name: name} = state.manager
    metadata = metadata(state)

    with true <- state.joined != metadata,
         :ok <- Group.join(cluster, group(kind, name), self(), metadata) do
      %{state | joined: metadata}
    else
      _left -> state
    end
  rescue
    ArgumentError -> state
  catch
    :exit, _reason -> state
  end

  defp metadata(state), do: Map.merge(state.manager.metadata, Participant.metadata(says(state)))
  defp says(state), do: %{state.says | draining: state.draining}

  defp say(state, key, value), do: %{state | says: Map.put(state.says, key, value)} |> join() |> soon()

  defp hurry(state), do: soon(%{state | hurry?: true, planned: nil})

  defp pin(%{says: %{pinned: pinned}} = state, slot) do
    %{slots: slots, most: most} = state.manager

    cond do
      slots == :local or slot not in 0..(slots - 1) -> {:reply, {:error, :no_such_slot}, state}
      slot in pinned -> {:reply, :ok, state}
      state.draining -> {:reply, {:error, :draining}, state}
      state.says.cordoned -> {:reply, {:error, :cordoned}, state}
      length(pinned) >= min(most, Participant.max_pins()) -> {:reply, {:error, :too_many_pins}, state}
      not eligible?(state) -> {:reply, {:error, :not_eligible}, state}
      true -> {:reply, :ok, say(state, :pinned, Enum.sort([slot | pinned]))}
    end
  end

  # As far as was seen; before that nobody is waited for.
  defp eligible?(%{seen: nil}), do: true
  defp eligible?(state), do: node() in Native.eligible(view(state))

  defp leave(state) do
    %{cluster: cluster, kind: kind, name: name} = state.manager
    Table.delete_manager(cluster, kind, name, self())
    Group.leave(cluster, group(kind, name), self())
  rescue
    ArgumentError -> :ok
  catch
    # It is out of it anyhow.
    :exit, _reason -> :ok
  end

  defp join_workers(state) do
    %{cluster: cluster, name: name} = state.manager

    workers =
      for {worker, {:to_join, metadata}} <- state.workers, into: state.workers do
        case Group.join(cluster, workers(name), worker, metadata) do
          :ok -> {worker, {:joined, metadata}}
          _ -> {worker, {:to_join, metadata}}
        end
      end

    %{state | workers: workers}
  rescue
    ArgumentError -> state
  catch
    :exit, _reason -> state
  end

  defp see(state) do
    %{cluster: cluster, kind: kind, name: name, policy: policy} = state.manager
    members = all(cluster, kind, name)

    participants = members |> View.participants() |> Map.drop(avoided(cluster, policy))
    # The table may be behind what this process says.
    participants = Map.replace(participants, node(), says(state))

    held = for {slot, pid} <- holders(cluster, kind, name), into: %{}, do: {slot, node(pid)}
    # This node's table may be behind what this process was answered.
    held = for {slot, _row} <- state.slots, into: held, do: {slot, node()}
    {leader, _term} = Table.leader(cluster)
    may = if leader == nil, do: :no_leader, else: if(alike?(members, state), do: :plan, else: :unlike)
    view = {participants, held, may}
    if view == state.seen, do: state, else: %{state | seen: view, since: now()}
  rescue
    ArgumentError -> state
  end

  defp view(%{seen: {participants, held, _may}, manager: manager}) do
    %{kind: kind, name: name, slots: slots, most: most, policy: policy} = manager
    View.new({kind, name}, slots, most, policy, held, participants)
  end

  # Nodes that count differently would give each key to different owners.
  defp alike?(participants, %{manager: %{metadata: %{partitions: partitions}}}),
    do: Enum.all?(participants, fn {_pid, meta} -> Map.get(meta, :partitions, partitions) == partitions end)

  defp alike?(_participants, _state), do: true

  # Planning.

  defp plan(%{seen: {_participants, _held, :unlike}, complained?: false} = state) do
    log(state, "other nodes have another number of partitions: nothing is moved until that is over")
    %{state | complained?: true}
  end

  defp plan(state) do
    if (state.hurry? or quiet?(state)) and may_plan?(state) and idle?(state) and not pausing?(state) do
      {release, acquire, again, moves} =
        Native.turn(view(state), node(), now() - state.origin, state.moves, state.hurry?)

      state = %{state | planned: state.seen, hurry?: false, complained?: false, pause_until: nil}
      state = %{state | again: again && again + state.origin, moves: moves}
      # Others wait for what is released; what is acquired is nobody's.
      state = Enum.reduce(release, state, &release(&2, &1, :rebalance))
      ask_next(%{state | queue: Enum.map(acquire, &{:acquire, &1})})
    else
      state
    end
  end

  defp quiet?(state), do: now() - state.since >= state.manager.settle

  defp may_plan?(%{seen: {_participants, _held, :plan} = seen, planned: planned, again: again}),
    do: seen != planned or (again != nil and now() >= again)

  defp may_plan?(_state), do: false

  defp idle?(state) do
    state.asked == %{} and state.queue == [] and
      Enum.all?(state.slots, fn {_slot, %{part: part}} -> part in [:starting, :running] end)
  end

  defp pausing?(%{pause_until: until}), do: until != nil and now() < until

  # It is tried again, but not at once.
  defp pause(state), do: %{state | planned: nil, pause_until: now() + @pause}

  # Followers.

  defp start_follower(%{manager: %{follower: nil}} = state), do: state
  defp start_follower(state), do: %{state | follower: state.manager.follower.(), followed: nil}

  # It has no claim, and needs no leader.
  defp follow(%{follower: follower, seen: {_participants, _held, may} = seen} = state)
       when follower != nil and may != :unlike do
    if seen != state.followed and quiet?(state) do
      Follower.follow(follower, Native.followed(view(state), node(), state.manager.followers))
      %{state | followed: seen}
    else
      state
    end
  end

  defp follow(state), do: state

  defp follow_nothing(%{follower: follower, followed: followed} = state)
       when follower != nil and followed != :nothing do
    Follower.follow(follower, [])
    %{state | followed: :nothing}
  end

  defp follow_nothing(state), do: state

  defp follower_ended(state, reason) do
    log(
      state,
      "the follower of the ring #{inspect(state.manager.name)} ended: #{Exception.format_exit(reason)}"
    )

    case restart(state) do
      {:ok, state} -> {:noreply, state |> start_follower() |> soon()}
      :too_often -> {:stop, {:shutdown, {:follower_ended, reason}}, state}
    end
  end

  defp stop_follower(%{follower: nil}), do: :ok

  defp stop_follower(%{follower: follower} = state) do
    GenServer.stop(follower, :shutdown, state.manager.release_timeout)
  catch
    :exit, _reason -> Process.exit(follower, :kill)
  end

  # Claims.

  defp ask_next(%{queue: [question | rest]} = state) when map_size(state.asked) < @in_flight do
    ask_next(ask(%{state | queue: rest}, question))
  end

  defp ask_next(state), do: state

  defp ask(state, question) do
    cluster = state.manager.cluster

    asked =
      case question do
        {:acquire, slot} ->
          value = Leadership.holder(self(), %{})
          command = {:acquire, :singleton, claim(state, slot), value, nil, Name.encode_pid(self()), false}
          Leadership.ask_async(cluster, command, @wait, self())

        {:return, slot, token} ->
          Leadership.ask_async(cluster, {:release, :singleton, claim(state, slot), token}, @wait)
      end

    %{state | asked: Map.put(state.asked, asked, question)}
  rescue
    # The server ended; what was held is lost, which is told by its monitor.
    ArgumentError ->
      case question do
        {:return, slot, token} -> forget(state, slot, token)
        {:acquire, _slot} -> pause(state)
      end
  end

  defp claim(state, slot) do
    {:ok, bytes} = Name.encode({state.manager.kind, state.manager.name, slot})
    bytes
  end

  defp answered(%{draining: true} = state, {:acquire, slot}, {:done, token}) do
    row = %{runner: nil, token: token, part: :returning, timer: nil}
    state |> put_slot(slot, row) |> ask({:return, slot, token})
  end

  defp answered(state, {:acquire, slot}, {:done, token}) do
    case state.slots do
      # It was this process's already.
      %{^slot => %{token: ^token}} -> state
      _ -> start_runner(state, slot, token)
    end
  end

  # Whoever has it is in the table in a moment.
  defp answered(state, {:acquire, _slot}, {:held, _value, _token}), do: pause(state)

  # It is asked for again. What is granted after all is given back by the core.
  defp answered(state, {:acquire, _slot}, answer) when answer in [:no_leader, :unknown, :stopped],
    do: pause(%{state | queue: []})

  defp answered(state, {:acquire, slot}, answer) do
    log(state, "#{describe(state, slot)} cannot be claimed: #{inspect(answer)}")
    pause(state)
  end

  # Without a majority it is this node's until its session ends, as far as others know. Nothing runs, so that is no harm.
  defp answered(%{draining: false} = state, {:return, slot, token}, answer)
       when answer in [:no_leader, :unknown] do
    case state.slots do
      %{^slot => %{token: ^token}} -> ask(state, {:return, slot, token})
      _ -> state
    end
  end

  defp answered(state, {:return, slot, token}, _answer), do: forget(state, slot, token)

  defp forget(state, slot, token) do
    case state.slots do
      %{^slot => %{token: ^token, runner: nil}} -> %{state | slots: Map.delete(state.slots, slot)}
      _ -> state
    end
  end

  # Runners.

  defp start_runner(state, slot, token) do
    runner = state.manager.start.(slot, token)
    row = %{runner: runner, token: token, part: :starting, timer: timer(slot, state.manager.start_timeout)}
    %{put_slot(state, slot, row) | runners: Map.put(state.runners, runner, slot)}
  end

  defp release_all(state, reason),
    do: Enum.reduce(Map.keys(state.slots), state, &release(&2, &1, reason))

  defp release(state, slot, reason) do
    case state.slots do
      %{^slot => %{part: part, runner: runner} = row} when part in [:starting, :running, :failing] ->
        state = withdraw(state)
        send(runner, {:release, reason})
        timer = timer(slot, state.manager.release_timeout)
        put_slot(state, slot, %{cancel(row) | part: {:releasing, reason}, timer: timer})

      # The claim of an earlier process of this node: it goes by itself.
      _ ->
        state
    end
  end

  # Nobody should find a worker that is about to stop. A node has one at most.
  defp withdraw(%{workers: workers} = state) when workers == %{}, do: state

  defp withdraw(state) do
    for {worker, {:joined, _metadata}} <- state.workers,
        do: Group.leave(state.manager.cluster, workers(state.manager.name), worker)

    %{state | workers: %{}}
  rescue
    ArgumentError -> state
  catch
    :exit, _reason -> state
  end

  defp lose(state, slot) do
    case state.slots do
      %{^slot => %{runner: nil}} ->
        %{state | slots: Map.delete(state.slots, slot), planned: nil}

      %{^slot => %{runner: runner} = row} ->
        send(runner, {:release, :lost})

        row = %{
          cancel(row)
          | token: nil,
            part: {:releasing, :lost},
            timer: timer(slot, state.manager.lost_timeout)
        }

        %{put_slot(state, slot, row) | planned: nil}

      _ ->
        state
    end
  end

  # The end of the runner of a slot.
  defp ended(state, slot, %{part: {:releasing, _reason}, token: nil} = row, _reason_of_end) do
    cancel(row)
    {:noreply, drained(%{state | slots: Map.delete(state.slots, slot), planned: nil})}
  end

  defp ended(state, slot, %{part: {:releasing, _why}} = row, reason) do
    unless reason in [:shutdown, :normal, :killed], do: report(state, slot, reason)
    row = %{cancel(row) | runner: nil, part: :returning}
    {:noreply, state |> put_slot(slot, row) |> ask({:return, slot, row.token}) |> drained()}
  end

  defp ended(state, slot, row, reason) do
    cancel(row)
    report(state, slot, reason)

    case restart(state) do
      {:ok, state} ->
        {:noreply, start_runner(state, slot, row.token)}

      :too_often ->
        {:stop, {:shutdown, {:runner_ended, slot, reason}}, %{state | slots: Map.delete(state.slots, slot)}}
    end
  end

  defp restart(%{manager: %{max_restarts: most, max_seconds: seconds}} = state) do
    restarts = Enum.take_while([now() | state.restarts], &(&1 > now() - 1000 * seconds))
    if length(restarts) > most, do: :too_often, else: {:ok, %{state | restarts: restarts}}
  end

  defp drained(%{draining: true, drainers: [_ | _], slots: slots, asked: asked} = state)
       when slots == %{} and asked == %{} do
    for from <- state.drainers, do: GenServer.reply(from, :ok)
    %{state | drainers: []}
  end

  defp drained(state), do: state

  defp put_slot(state, slot, row), do: %{state | slots: Map.put(state.slots, slot, row)}

  defp other(state, slot) do
    case holder(state.manager.cluster, state.manager.kind, state.manager.name, slot) do
      {pid, _token} when node(pid) != node() -> node(pid)
      _ -> nil
    end
  rescue
    ArgumentError -> nil
  end

  defp timer(_slot, :infinity), do: nil
  defp timer(slot, timeout), do: :erlang.start_timer(timeout, self(), {:kill, slot})

  defp cancel(%{timer: nil} = row), do: row

  defp cancel(%{timer: timer} = row) do
    :erlang.cancel_timer(timer, async: true, info: false)
    %{row | timer: nil}
  end

  # The runner, its supervisor and their children: those that it started, and no other that somebody linked to them.
  defp kill(runner) do
    for pid <- started_by(runner, runner, 2), do: Process.exit(pid, :kill)
  end

  defp started_by(pid, runner, depth) do
    below =
      with true <- depth > 0, {:links, links} <- Process.info(pid, :links) do
        for link <- links, is_pid(link), link != self(), runner in ancestors(link), do: link
      else
        _ -> []
      end

    # Supervisors first, or they would start their children anew.
    [pid | Enum.flat_map(below, &started_by(&1, runner, depth - 1))]
  end

  defp ancestors(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         {:"$ancestors", ancestors} <- List.keyfind(dictionary, :"$ancestors", 0),
         do: Enum.take(ancestors, 2),
         else: (_ -> [])
  end

  defp report(state, slot, reason),
    do: log(state, "#{describe(state, slot)} ended: #{Exception.format_exit(reason)}")

  defp log(state, text), do: Logger.warning("#{inspect(state.manager.cluster)}: #{text}")

  defp describe(%{manager: %{kind: :ring} = manager}, slot),
    do: "partition #{slot} of the ring #{inspect(manager.name)}"

  defp describe(%{manager: manager}, slot), do: "worker #{slot} of the pool #{inspect(manager.name)}"

  defp doing(part) when part in [:starting, :failing], do: "starting"
  defp doing({:releasing, _reason}), do: "ending"

  defp now, do: System.monotonic_time(:millisecond)
end
