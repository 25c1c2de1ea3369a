defmodule Tiebeam.Pool do
  @moduledoc """
  Workers on the nodes of a cluster, and calls to one of them or all.

      children = [
        {Tiebeam, name: MyApp.Cluster},
        {Tiebeam.Pool, cluster: MyApp.Cluster, name: "api", child: {MyApp.Api, []}}
      ]

      {:ok, reply} = Tiebeam.Pool.call({MyApp.Cluster, "api"}, {:quote, 20})
      {:ok, reply} = Tiebeam.Pool.call({MyApp.Cluster, "api"}, {:quote, 20}, route: {:key, "customer:7"})

  Put it on each node that may run a worker; Rust nodes take part as well. Every node of the cluster can call. A worker is a
  `GenServer`, or whatever answers `GenServer.call/3`.

  ## Modes

  - `mode: :spread` - each node that starts the pool runs a worker, whatever the others do. Needs no leader.
  - `replicas: n` - `n` nodes of those that start the pool run a worker. Each of the `n` places is a claim of the cluster's
    group, so the cluster needs the option `:voters` or `:expect`. When nothing changed for the time `:settle`, places that are free go to the
    nodes that are most meant for them; a worker whose node is here does not move.

  ## What is promised

  With `replicas: n`, of nodes whose clocks run alike at most `n` run a worker at any instant. On a side of a split without a majority
  of the voters nobody starts one, and those there are killed when the session of their node ends, before the other side can start others.
  A worker that acts upon something outside gets a token that grows with each owner of its place, if `:child` is a function.

  With `:spread` nothing is agreed upon: each side of a split goes on with the workers that it has.

  ## Options

  - `:cluster`, `:name` - a name as in `Tiebeam.Registry`. Required.
  - `:child` - a child specification, `{module, argument}`, a module, or a function that makes one of these from the token (`nil` with `:spread`).
    Its `:restart` has no meaning: a worker that ends is started again. Required.
  - `:mode` - `:spread`, the default, unless there is `:replicas`.
  - `:replicas` - how many workers, at most 4,096, one per node at most. The same on all nodes.
  - `:weight`, `:labels` - see `Tiebeam.Placement`.
  - `:placement`, `:rebalance` - with `:replicas`, see `Tiebeam.Placement`. The same on all nodes.
  - `:away_from` - with `:replicas`, the name of another pool: no worker is on a node that has a worker of that one. It may also stand in `:placement`.
  - `:settle` - for how many milliseconds nothing must have changed before a node takes a place, or leaves it. Default: 500.
  - `:start_timeout` - how long a worker may take to start, in milliseconds or `:infinity`. Default: 30,000.
  - `:release_timeout` - how long a worker may take to stop, whatever its `:shutdown` says; then it is killed. Default: 5,000.
  - `:max_restarts`, `:max_seconds` - as of `Supervisor`, for the worker. Beyond these the pool on this node ends, and its supervisor decides. Default: 3 in 5.

  A cluster of one:

      iex> {:ok, _} = Tiebeam.Pool.start_link(cluster: MyApp.Cluster, name: "sums", child: {Agent, fn -> 42 end})
      iex> Tiebeam.Pool.call({MyApp.Cluster, "sums"}, {:get, & &1})
      {:ok, 42}
      iex> Tiebeam.Pool.members({MyApp.Cluster, "sums"}) == [node()]
      true
      iex> Tiebeam.Pool.drain({MyApp.Cluster, "sums"})
      :ok
  """

  alias Tiebeam.{Group, Leadership, Placement, Registry, Table}
  alias Tiebeam.Placement.Manager
  alias Tiebeam.Pool.Runner

  @typedoc "A pool: the local name of its cluster, and its own."
  @type t :: {Tiebeam.name(), Registry.name()}

  @typedoc "What is started: see the option `:child`."
  @type child ::
          Supervisor.child_spec() | {module, term} | module | (Tiebeam.Leader.token() | nil -> child)

  @typedoc """
  Who is called.

  - `:any` - one of the workers, at random.
  - `:local_first` - one of this node if there is one, otherwise any.
  - `:leader` - that of the node that leads the cluster's group.
  - `{:key, key}` - for one key the same worker, from all nodes, for as long as its node has one.
  - `:all` - all.
  """
  @type route :: :any | :local_first | :leader | {:key, Registry.name()} | :all

  @typedoc """
  Why a call has no reply.

  - `:no_worker` - there was none for so long; nothing was done.
  - `:timeout` - it did not reply; it may be done.
  - `{:down, reason}` - it went away; it may be done.
  - `{:bad_request, why}` - it does not take such a request, as a worker in Rust says of one of another type; nothing was done. A worker that replies
    `{:error, {:bad_request, why}}` says the same.
  """
  @type error :: :no_worker | :timeout | {:down, term} | {:bad_request, why :: term}

  @defaults [
    cluster: nil,
    name: nil,
    child: nil,
    mode: nil,
    replicas: nil,
    weight: 100,
    labels: %{},
    placement: [],
    rebalance: [],
    away_from: nil,
    settle: 500,
    start_timeout: 30_000,
    release_timeout: 5_000,
    max_restarts: 3,
    max_seconds: 5
  ]

  # Longer than it takes to kill a worker, and shorter than an eighth of the shortest session, in milliseconds.
  @lost_timeout 50

  # The pause between two looks for a worker, in milliseconds.
  @look 20

  @doc """
  Starts the part of this node, linked to the caller. The options are listed [above](#module-options). `{:error, {:already_started, pid}}` if the pool is
  here already; with `:replicas`, `{:error, {:no_group, text}}` if this node takes no part in a group. Does not wait for the worker.
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    options = Leadership.options!(options, @defaults)
    Placement.check!(options, [:settle, :release_timeout], [:start_timeout])
    slots = slots!(options)
    child!(options.child)

    policy = Placement.policy!(away!(options))

    for {key, default} <- [placement: [], rebalance: [], away_from: nil],
        options[key] != default and slots == :local do
      raise ArgumentError,
            "the option #{inspect(key)} needs the option :replicas: with mode: :spread there is a worker on each node"
    end

    runner = struct!(Runner, Map.take(options, [:child, :max_restarts, :max_seconds]))

    Manager.start_link(%Manager{
      cluster: options.cluster,
      kind: :pool,
      name: options.name,
      slots: slots,
      most: 1,
      start: &Runner.start_link(runner, &1, &2),
      settle: options.settle,
      start_timeout: options.start_timeout,
      release_timeout: options.release_timeout,
      # It is killed by then: see `Runner`.
      lost_timeout: @lost_timeout,
      # Its supervisor has given up.
      max_restarts: 0,
      max_seconds: 1,
      metadata: %{},
      policy: policy,
      says: Placement.says!(options)
    })
  end

  # It was there before the option `:placement`.
  defp away!(%{away_from: nil} = options), do: options

  defp away!(%{away_from: pool, placement: placement} = options) do
    if is_list(placement) and List.keymember?(placement, :away_from, 0),
      do: raise(ArgumentError, "away_from: is given twice, as an option and in :placement"),
      else: %{options | placement: [{:away_from, pool} | List.wrap(placement)]}
  end

  defp slots!(%{mode: mode, replicas: nil}) when mode in [nil, :spread], do: :local

  defp slots!(%{mode: nil, replicas: replicas}) when is_integer(replicas) do
    if replicas in 1..Placement.max_slots(),
      do: replicas,
      else:
        raise(
          ArgumentError,
          "the option :replicas must be a number from 1 to #{Placement.max_slots()}, got: #{replicas}"
        )
  end

  defp slots!(%{mode: mode, replicas: replicas}) do
    raise ArgumentError,
          "expected either mode: :spread or replicas: n, got mode: #{inspect(mode)}, replicas: #{inspect(replicas)}"
  end

  defp child!(nil), do: raise(ArgumentError, "the option :child is required")
  defp child!(child) when is_function(child, 1), do: :ok
  # Raises if it is none.
  defp child!(child), do: Supervisor.child_spec(child, [])

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
  Calls a worker, as `GenServer.call/3` does, and answers its reply. Options: `:route`, see `t:route/0` (default `:any`), and `:timeout` in milliseconds
  (default 5,000), which also bounds how long it waits while there is no worker. With the route `:all` it answers a list of `{worker, answer}`
  instead, at once if there is none; the calls run at the same time.
  """
  @spec call(t, request :: term, keyword) ::
          {:ok, reply :: term} | {:error, error} | [{pid, {:ok, reply :: term} | {:error, error}}]
  def call(pool, request, options \\ []) do
    options = options!(options, route: :any, timeout: 5_000)

    if options.route == :all,
      do: call_all(workers(pool), request, options.timeout),
      else: call_one(pool, request, options.route, now() + options.timeout)
  end

  defp call_one(pool, request, route, deadline) do
    left = max(deadline - now(), 0)

    with worker when is_pid(worker) <- choose(pool, route),
         answer when answer != {:error, :noproc} <- Manager.ask(worker, request, left) do
      answer
    else
      # The group does not know yet that it ended.
      _none when left == 0 ->
        {:error, :no_worker}

      _none ->
        Process.sleep(min(left, @look))
        call_one(pool, request, route, deadline)
    end
  end

  defp call_all(workers, request, timeout) do
    requests = for worker <- workers, do: {worker, :gen_server.send_request(worker, request)}
    deadline = now() + timeout

    for {worker, id} <- requests do
      case :gen_server.receive_response(id, max(deadline - now(), 0)) do
        {:reply, reply} -> {worker, {:ok, reply}}
        :timeout -> {worker, {:error, :timeout}}
        {:error, {reason, _worker}} -> {worker, {:error, {:down, reason}}}
      end
    end
  end

  @doc """
  Tells a worker something, or all, by the option `:route`; `{:error, :no_worker}` if this node knows of none. Never waits, and does not say whether it
  arrived.
  """
  @spec cast(t, request :: term, keyword) :: :ok | {:error, :no_worker}
  def cast(pool, request, options \\ []) do
    case options!(options, route: :any).route do
      :all ->
        for worker <- workers(pool), do: GenServer.cast(worker, request)
        :ok

      route ->
        case choose(pool, route) do
          nil -> {:error, :no_worker}
          worker -> GenServer.cast(worker, request)
        end
    end
  end

  defp choose(pool, :any), do: pool |> workers() |> random()

  defp choose({cluster, name} = pool, :local_first) do
    random(Group.local_members(cluster, Manager.workers(name))) || choose(pool, :any)
  end

  defp choose({cluster, _name} = pool, :leader) do
    {leader, _term} = Table.leader(cluster)
    pool |> workers() |> Enum.filter(&(node(&1) == leader)) |> random()
  end

  defp choose(pool, {:key, key}) do
    by_node = pool |> workers() |> Enum.group_by(&node/1)

    case Placement.rank(key, Map.keys(by_node)) do
      [first | _] -> Enum.min(by_node[first])
      [] -> nil
    end
  end

  defp random([]), do: nil
  defp random(workers), do: Enum.random(workers)

  @doc "The workers on all nodes, as far as this node knows. Reads a table and never waits."
  @spec workers(t) :: [pid]
  def workers({cluster, name}), do: Group.members(cluster, Manager.workers(name))

  @doc "The nodes that take part and do not drain, in order, whether they have a worker or not; as `workers/1`."
  @spec members(t) :: [node]
  def members({cluster, name}), do: Manager.nodes(cluster, :pool, name)

  @doc """
  Stops the worker of this node in good order, and starts none any more until the pool is started again. Answers when that is done; blocks for at most
  `timeout` milliseconds, then exits like `GenServer.call/3`.

  The worker leaves the group first, so that others find it no more once they hear of that. One that traps exits serves what it was sent before it is told to stop.
  """
  @spec drain(t, timeout) :: :ok | {:error, :not_started}
  def drain({cluster, name}, timeout \\ 30_000), do: Manager.drain(cluster, :pool, name, timeout)

  defp options!(options, defaults) do
    options = Leadership.options!(options, defaults)

    case options.route do
      route when route in [:any, :local_first, :leader, :all] -> options
      {:key, _key} -> options
      other -> raise ArgumentError, "the option :route cannot be #{inspect(other)}"
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
