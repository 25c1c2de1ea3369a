defmodule Tiebeam.Ring do
  @moduledoc """
  Partitions, each owned by one node of the cluster, spread evenly; calls go to the owner of a key.

      defmodule MyApp.Cache do
        use Tiebeam.Ring

        @impl true
        def on_own(_partition, _token, _argument), do: {:ok, %{}}

        @impl true
        def handle_call(_partition, key, :get, cache), do: {:reply, cache[key], cache}
        def handle_call(_partition, key, {:put, value}, cache), do: {:reply, :ok, Map.put(cache, key, value)}
      end

      children = [
        {Tiebeam, name: MyApp.Cluster, voters: [:"a@h1", :"b@h2", :"c@h3"]},
        {Tiebeam.Ring, cluster: MyApp.Cluster, name: "cache", partitions: 256, handler: MyApp.Cache}
      ]

      {:ok, :ok} = Tiebeam.Ring.call({MyApp.Cluster, "cache"}, "user:1", {:put, "Alice"})
      {:ok, "Alice"} = Tiebeam.Ring.call({MyApp.Cluster, "cache"}, "user:1", :get)

  Put it on each node that may own partitions, with the same number of them; Rust nodes take part as well. Every node of the
  cluster can call. Each partition has a process of its own, in which the callbacks run.

  ## What moves

  When nodes come or go, and nothing changed for the time `:settle`, each node has its even share: twelve partitions over three
  nodes are four each, and when one of these leaves, six each. Only the partitions that must move do: the others keep their owner.
  A partition is released by its old owner before the new one has it.

  Nodes with a greater `:weight` have more, `:placement` says which nodes may have any, and `:rebalance` how fast they move. An operator moves
  partitions, cordons nodes and drains them with `Tiebeam.Placement`.

  ## Followers

  With `followers: r`, `r` nodes follow each partition: those that are most meant for it, of the nodes that may have it and do not own it.
  `c:on_follow/2` and `c:on_unfollow/2` tell a node, in a process of their own; what it does with that, such as to keep a copy, is the handler's. Nothing is agreed
  upon: nodes that see the same members say the same, on each side of a split others may follow, and for a moment more or fewer than `r` nodes may. The owner
  asks for them with `followers/2`. When an owner is lost, a follower often becomes the next one, but an even spread comes first.

  ## What is promised

  Of two nodes whose clocks run alike at most one owns a partition: an owner has a claim of the cluster's group, as the active
  node of a `Tiebeam.Singleton` has. On a side of a split without a majority of the voters nobody gains a partition, and the
  owners there lose theirs when their session ends, before the other side can grant them anew: `on_release(partition, :lost, state)` is
  called at once, and the process is killed if that takes longer than the option `:lost_timeout`. Calls then go nowhere until there is a majority. The token
  grows with each owner; what a partition acts upon should refuse those that are less than the greatest it has seen. The state of a
  partition does not move with it: what must not be lost is kept elsewhere.

  ## Options

  - `:cluster`, `:name` - a name as in `Tiebeam.Registry`. Required.
  - `:partitions` - how many, at most 4,096. The same on all nodes: while it differs nothing is moved. Several times the number of nodes,
    and not changed later, for that gives keys other partitions. Required.
  - `:handler` - a module with the callbacks, or `{module, argument}`. Required.
  - `:followers` - how many nodes follow each partition. The same on all nodes. Default: 0.
  - `:settle` - for how many milliseconds nothing must have changed before partitions move. Default: 500.
  - `:weight`, `:labels`, `:placement`, `:rebalance` - see `Tiebeam.Placement`.
  - `:own_timeout` - how long `c:on_own/3` may take, in milliseconds or `:infinity`. Default: 30,000.
  - `:release_timeout` - how long `c:on_release/3` may take, with the calls before it. Default: 5,000.
  - `:lost_timeout` - how long it may take when the claim is lost. Less than an eighth of the cluster's `:session_ttl`: the owner knows a
    quarter of it before another one can own the partition, and half of that is left for clocks that run at different rates. Default: 50, right for
    every session.
  - `:max_restarts`, `:max_seconds` - a partition whose process ends by itself is started again under the same token; if that happens on this
    node more often than so many times in so many seconds, the ring on this node ends, and its supervisor decides. Default: 3 in 5.
  """

  alias Tiebeam.{Leader, Leadership, Native, Placement, Registry}
  alias Tiebeam.Placement.{Manager, View}
  alias Tiebeam.Registry.Name
  alias Tiebeam.Ring.{Follower, Partition}

  @typedoc "A ring: the local name of its cluster, and its own."
  @type t :: {Tiebeam.name(), Registry.name()}

  @typedoc "A partition, from 0."
  @type partition :: non_neg_integer

  @typedoc """
  Why a call has no reply.

  - `:no_owner` - nobody owned the partition for so long; nothing was done.
  - `:timeout` - the owner did not reply; it may be done.
  - `{:down, reason}` - the owner went away; it may be done.
  - `{:failed, text}` - the handler failed.
  - `{:bad_request, why}` - the owner does not take such a request, as a Rust node says of one of another type; nothing was done. A handler that
    replies `{:error, {:bad_request, why}}` says the same.
  """
  @type error :: :no_owner | :timeout | {:down, term} | {:failed, String.t()} | {:bad_request, why :: term}

  @typedoc """
  Why a partition is released: it goes to another node, `drain/1` was called, the ring stops on this node, or the claim is over and
  others may own it in a moment.
  """
  @type reason :: :rebalance | :drain | :shutdown | :lost

  @doc """
  This node owns the partition. `state` is the argument of the option `:handler`. Calls wait until it returns. By default the argument becomes the state.
  """
  @callback on_own(partition, Leader.token(), argument :: term) :: {:ok, state :: term}

  @doc "The partition is given up; what is returned does not matter. By default nothing is done."
  @callback on_release(partition, reason, state :: term) :: term

  @doc "A call for a key. By default it fails."
  @callback handle_call(partition, key :: Registry.name(), request :: term, state :: term) ::
              {:reply, reply :: term, state :: term}

  @doc "A cast for a key. By default it is dropped."
  @callback handle_cast(partition, key :: Registry.name(), request :: term, state :: term) ::
              {:noreply, state :: term}

  @doc "Any other message to the process of a partition. By default it is dropped."
  @callback handle_info(partition, message :: term, state :: term) :: {:noreply, state :: term}

  @doc "This node follows the partition from now on. Needs the option `:followers`. By default nothing is done; nor by `c:on_unfollow/2`."
  @callback on_follow(partition, argument :: term) :: term

  @doc "This node does not follow the partition any more; maybe it owns it."
  @callback on_unfollow(partition, argument :: term) :: term

  @doc false
  defmacro __using__(_options) do
    quote do
      @behaviour Tiebeam.Ring

      @impl Tiebeam.Ring
      def on_own(_partition, _token, argument), do: {:ok, argument}

      @impl Tiebeam.Ring
      def on_release(_partition, _reason, _state), do: :ok

      @impl Tiebeam.Ring
      def handle_call(_partition, _key, request, _state) do
        raise ArgumentError, "#{inspect(__MODULE__)} has no handle_call/4 for #{inspect(request)}"
      end

      @impl Tiebeam.Ring
      def handle_cast(_partition, _key, _request, state), do: {:noreply, state}

      @impl Tiebeam.Ring
      def handle_info(_partition, _message, state), do: {:noreply, state}

      @impl Tiebeam.Ring
      def on_follow(_partition, _argument), do: :ok

      @impl Tiebeam.Ring
      def on_unfollow(_partition, _argument), do: :ok

      defoverridable Tiebeam.Ring
    end
  end

  @defaults [
    cluster: nil,
    name: nil,
    partitions: nil,
    handler: nil,
    followers: 0,
    weight: 100,
    labels: %{},
    placement: [],
    rebalance: [],
    settle: 500,
    own_timeout: 30_000,
    release_timeout: 5_000,
    lost_timeout: 50,
    max_restarts: 3,
    max_seconds: 5
  ]

  # The pause between two looks for an owner, in milliseconds.
  @look 20

  @doc """
  Starts the part of this node, linked to the caller. The options are listed [above](#module-options). `{:error, {:already_started, pid}}` if the ring is here
  already, `{:error, {:no_group, text}}` if this node takes no part in a group.
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    options = Leadership.options!(options, @defaults)
    Placement.check!(options, [:settle, :release_timeout, :lost_timeout], [:own_timeout])
    {module, argument} = handler!(options.handler)
    partitions = options.partitions

    unless is_integer(partitions) and partitions in 1..Placement.max_slots() do
      raise ArgumentError,
            "the option :partitions must be a number from 1 to #{Placement.max_slots()}, got: #{inspect(partitions)}"
    end

    followers = options.followers

    unless is_integer(followers) and followers in 0..Placement.max_slots() do
      raise ArgumentError, "the option :followers must be a number, got: #{inspect(followers)}"
    end

    Manager.start_link(%Manager{
      cluster: options.cluster,
      kind: :ring,
      name: options.name,
      slots: partitions,
      most: partitions,
      start: &Partition.start_link(module, argument, &1, &2),
      settle: options.settle,
      start_timeout: options.own_timeout,
      release_timeout: options.release_timeout,
      lost_timeout: options.lost_timeout,
      max_restarts: options.max_restarts,
      max_seconds: options.max_seconds,
      metadata:
        Map.merge(%{partitions: partitions}, if(followers > 0, do: %{followers: followers}, else: %{})),
      policy: Placement.policy!(options),
      says: Placement.says!(options),
      followers: followers,
      follower: if(followers > 0, do: fn -> Follower.start_link(module, argument) end)
    })
  end

  defp handler!({module, argument}) when is_atom(module) and module != nil, do: {loaded!(module), argument}
  defp handler!(module) when is_atom(module) and module != nil, do: {loaded!(module), nil}

  defp handler!(other) do
    raise ArgumentError, "the option :handler must be a module or {module, argument}, got: #{inspect(other)}"
  end

  defp loaded!(module) do
    if Code.ensure_loaded?(module) and function_exported?(module, :on_own, 3),
      do: module,
      else: raise(ArgumentError, "#{inspect(module)} does not `use Tiebeam.Ring`")
  end

  @doc "The child specification. It stops in good order, in about the time of `:release_timeout`."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: {__MODULE__, options[:cluster], options[:name]},
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor,
      shutdown: :infinity
    }
  end

  @doc """
  Asks the owner of `key`, wherever it is, and answers what its `c:handle_call/4` replied. Blocks for at most `timeout` milliseconds; while the
  partition moves it waits for the new owner.
  """
  @spec call(t, Registry.name(), request :: term, timeout :: pos_integer) ::
          {:ok, reply :: term} | {:error, error}
  def call(ring, key, request, timeout \\ 5_000) when is_integer(timeout) do
    check_key!(key)
    call_owner(ring, key, request, now() + timeout)
  end

  defp call_owner(ring, key, request, deadline) do
    left = max(deadline - now(), 0)

    with partition when partition != nil <- find_partition(ring, key),
         {pid, _token} <- holder(ring, partition),
         {:ok, reply} <- Manager.ask(pid, {:ring_call, partition, key, request}, left) do
      case reply do
        {:error, {:not_owner, _hint}} -> look_again(ring, key, request, deadline)
        {:error, {:failed, text}} when is_binary(text) -> {:error, {:failed, text}}
        reply -> {:ok, reply}
      end
    else
      {:error, :noproc} -> look_again(ring, key, request, deadline)
      {:error, reason} -> {:error, reason}
      nil -> look_again(ring, key, request, deadline)
    end
  end

  defp look_again(ring, key, request, deadline) do
    case deadline - now() do
      left when left <= 0 ->
        {:error, :no_owner}

      left ->
        Process.sleep(min(left, @look))
        call_owner(ring, key, request, deadline)
    end
  end

  @doc "Tells the owner of `key` something, if there is one. Never waits, and does not say whether it arrived."
  @spec cast(t, Registry.name(), request :: term) :: :ok | {:error, :no_owner}
  def cast(ring, key, request) do
    check_key!(key)

    with partition when partition != nil <- find_partition(ring, key),
         {pid, _token} <- holder(ring, partition) do
      GenServer.cast(pid, {:ring_cast, partition, key, request})
    else
      nil -> {:error, :no_owner}
    end
  end

  @doc """
  The partition of a key. All nodes agree on it, in both languages: see `Tiebeam.Placement`. Raises if this node knows of none that takes part in
  the ring, for then it does not know how many partitions there are.
  """
  @spec partition_for(t, Registry.name()) :: partition
  def partition_for({cluster, name} = ring, key) do
    check_key!(key)

    find_partition(ring, key) ||
      raise ArgumentError,
            "no node of #{inspect(cluster)} takes part in the ring #{inspect(name)}, as far as this one knows"
  end

  defp find_partition(ring, key) do
    with count when count != nil <- count(ring), do: Placement.partition(key, count)
  end

  defp count(ring), do: told(ring, :partitions)

  defp told({cluster, name}, key) do
    Enum.find_value(Manager.all(cluster, :ring, name), fn {_pid, meta} ->
      number = meta[key]
      if is_integer(number) and number in 1..Placement.max_slots(), do: number
    end)
  end

  @doc """
  Which node owns a key; `nil` if none does. As far as this node knows, as all that follows: tables are read, and nobody waits.
  """
  @spec node_for(t, Registry.name()) :: node | nil
  def node_for(ring, key) do
    with {node, _token} <- owner(ring, partition_for(ring, key)), do: node
  end

  @doc "The owner of a partition and its token, or `nil`."
  @spec owner(t, partition) :: {node, Leader.token()} | nil
  def owner(ring, partition) do
    with {pid, token} <- holder(ring, partition), do: {node(pid), token}
  end

  defp holder({cluster, name}, partition), do: Manager.holder(cluster, :ring, name, partition)

  @doc "Whether this node owns a key."
  @spec owns?(t, Registry.name()) :: boolean
  def owns?(ring, key), do: node_for(ring, key) == node()

  @doc "The partitions that this node owns, in order."
  @spec owned(t) :: [partition]
  def owned(ring), do: partitions(ring, node())

  @doc "The partitions that a node owns, in order."
  @spec partitions(t, node) :: [partition]
  def partitions({cluster, name}, node) do
    Enum.sort(for {partition, pid} <- Manager.holders(cluster, :ring, name), node(pid) == node, do: partition)
  end

  @doc "The nodes that take part and do not drain, in order."
  @spec members(t) :: [node]
  def members({cluster, name}), do: Manager.nodes(cluster, :ring, name)

  @doc """
  The nodes that follow a partition, the one that is most meant for it first: see [above](#module-followers). Empty if it has none.
  """
  @spec followers(t, partition) :: [node]
  def followers(ring, partition) when is_integer(partition) and partition >= 0 do
    case {count(ring), told(ring, :followers)} do
      {count, followers} when count == nil or followers == nil or partition >= count -> []
      {count, followers} -> Native.followers(view(ring, count), partition, followers)
    end
  end

  @doc """
  Whether a partition has no owner, or one that may not have it, or has been moved and is not there yet, or some nodes have more than their
  share. By the options of the ring on this node; where it does not take part, by the default ones.
  """
  @spec rebalancing?(t) :: boolean
  def rebalancing?(ring) do
    with count when count != nil <- count(ring),
         do: Native.unsettled(view(ring, count)) > 0,
         else: (nil -> false)
  end

  defp view({cluster, name}, count) do
    members = Manager.all(cluster, :ring, name)
    held = for {slot, pid} <- Manager.holders(cluster, :ring, name), into: %{}, do: {slot, node(pid)}
    policy = Manager.policy(cluster, :ring, name)
    participants = members |> View.participants() |> Map.drop(Manager.avoided(cluster, policy))
    View.new({:ring, name}, count, count, policy, held, participants)
  end

  @doc """
  Has all nodes of the ring move partitions until it is even, at once, as `Tiebeam.Placement.rebalance/1` does. They do so by themselves otherwise. Does not wait
  until it is done: see `rebalancing?/1`.
  """
  @spec rebalance(t) :: :ok | {:error, Placement.error()}
  def rebalance({cluster, name}), do: Placement.rebalance({cluster, {:ring, name}})

  @doc """
  Gives up all partitions of this node, in good order, and takes none any more until it is started again. Answers when they are given back; blocks
  for as long as the handlers take, at most `timeout` milliseconds, then exits like `GenServer.call/3`.
  """
  @spec drain(t, timeout) :: :ok | {:error, :not_started}
  def drain({cluster, name}, timeout \\ 30_000), do: Manager.drain(cluster, :ring, name, timeout)

  defp check_key!(key) do
    with {:error, reason} <- Name.encode(key), do: raise(ArgumentError, Registry.describe(reason))
  end

  defp now, do: System.monotonic_time(:millisecond)
end
