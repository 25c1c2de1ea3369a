defmodule Tiebeam do
  @moduledoc """
  BEAM nodes and Rust nodes in one cluster.

  Put it into a supervision tree:

      children = [
        {Tiebeam, name: MyApp.Cluster, join: [:"rust@127.0.0.1"]}
      ]

  Nodes that are connected and run a cluster of the same identity find each other; `join` names nodes to look for, and
  `discovery` ways to find them (`Tiebeam.Discovery`). A Rust node is a node as any other: it is in `Node.list/0`, and
  processes on it are called, linked and monitored as usual. Tiebeam adds a common view of who is here:

      iex> [member] = Tiebeam.members(MyApp.Cluster)
      iex> {member.node == node(), member.kind, member.status}
      {true, :beam, :alive}

  Reads never wait for another process: they touch an ETS table of this node. A node without distribution is a cluster
  of one; when distribution starts later, the node continues under its new name.

  ## Who is alive

  Members probe each other (SWIM, with the additions of Lifeguard), over the connections that they have. One that does not
  answer is a suspect first, and others are asked; only when nothing is heard of it in time is it dead. A BEAM node without
  the package is observed: up to three members ask its kernel. How soon, and whether the connection of a dead node is closed,
  say the options `:profile`, `:timing` and `:evict`.

  ## From other nodes

  Any node, with the package or without, can ask any member, BEAM or Rust: `GenServer.call({:tiebeam, node}, request)`
  where the request is `:members`, `:health`, `:metrics`, `{:subscribe, pid}` or `{:unsubscribe, pid}`.

  ## Options

  #{Tiebeam.Options.docs()}
  """

  alias Tiebeam.{Error, Member, Options, Table}

  @typedoc "The local name of a cluster: the `:name` option of `start_link/1`."
  @type name :: atom

  @typedoc """
  How well this node itself keeps up.

  - `:multiplier` - 1 when all is well, at most 8. A node that misses answers, is contradicted, or stands still raises it,
    and waits that many times longer before it blames others (Lifeguard, section 3.1).
  - `:stalls` - how often this node stood still.
  - `:minority` - this node sees no majority of the members that were last here together: it may be cut off.
  - `:group` - `t:group_condition/0`.
  """
  @type health :: %{
          multiplier: pos_integer,
          stalls: non_neg_integer,
          minority: boolean,
          group: group_condition
        }

  @typedoc """
  How it is with this node's part in the group of `Tiebeam.Leader`.

  - `:none` - it was started without `:voters` and `:expect`.
  - `:ok` - somebody leads, as far as this node knows; `:no_leader` - nobody does.
  - `{:not_founded, missing}` - there is no group yet: it begins once all of these nodes, or with `:expect` so many more, are here.
  - `{:no_replica, limit}` - the group has as many members as it may, and this node is none of them.
  - `{:foreign, nodes}` - these are in a group that was founded apart from this one; the two refuse each other.
  - `{:stopped, why}` - this node takes no part any more, for example because its disk failed; start the cluster on it again.
  """
  @type group_condition ::
          :none
          | :ok
          | :no_leader
          | {:not_founded, [node] | pos_integer}
          | {:no_replica, pos_integer}
          | {:foreign, [node]}
          | {:stopped, String.t()}

  @typedoc """
  What the membership did since it started; counts that only grow, but for `:queued`.

  - `:sent`, `:sent_bytes`, `:received`, `:received_bytes` - messages of the cluster, and their bytes.
  - `:probes`, `:probes_failed` - members probed, and probes that nobody answered; `:indirect` - requests to probe for
    another member.
  - `:suspicions` - raised by this node's own probes; `:recovered` - suspicions, of anybody, that ended well.
  - `:refutations` - times this node had to contradict what was said of it.
  - `:deaths` - members declared dead, by this node or by others; `:evictions` - their connections that were closed;
    `:contested` - verdicts that were not carried out.
  - `:syncs`, `:syncs_equal` - exchanges of the whole table, and those that found no difference.
  - `:ignored` - messages that had no effect.
  - `:queued` - words about members that wait to be passed on, now.
  """
  @type metrics :: %{
          sent: non_neg_integer,
          sent_bytes: non_neg_integer,
          received: non_neg_integer,
          received_bytes: non_neg_integer,
          probes: non_neg_integer,
          probes_failed: non_neg_integer,
          indirect: non_neg_integer,
          suspicions: non_neg_integer,
          recovered: non_neg_integer,
          refutations: non_neg_integer,
          deaths: non_neg_integer,
          evictions: non_neg_integer,
          contested: non_neg_integer,
          syncs: non_neg_integer,
          syncs_equal: non_neg_integer,
          ignored: non_neg_integer,
          queued: non_neg_integer
        }

  @doc """
  Starts a cluster member on this node, linked to the caller.

  The options are listed [above](#module-options). Raises `ArgumentError` for options that cannot be used. Returns the
  supervisor's error when the registered name that members send to is taken; its cause is a `Tiebeam.Error`.
  """
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(options) do
    options |> Options.validate!() |> Tiebeam.Supervisor.start_link()
  end

  @doc """
  The child specification of a cluster member, for a supervisor. When the supervisor stops it, it leaves the cluster
  first.

      iex> Tiebeam.child_spec(name: MyApp.Cluster).id
      {Tiebeam, MyApp.Cluster}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: {__MODULE__, Keyword.get(options, :name)},
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor
    }
  end

  @doc """
  All members this node knows, itself included, in the order of their names.

  Members that are dead or have left stay listed for a while. Raises `ArgumentError` if no cluster of that name runs on
  this node.

      iex> alive = for %{status: :alive, node: node} <- Tiebeam.members(MyApp.Cluster), do: node
      iex> node() in alive
      true
  """
  @spec members(name) :: [Member.t()]
  def members(name), do: Table.members(name)

  @doc """
  What this node knows of the member `node`; `nil` if there is no such member.

      iex> Tiebeam.member(MyApp.Cluster, node()).status
      :alive
      iex> Tiebeam.member(MyApp.Cluster, :"nobody@127.0.0.1")
      nil
  """
  @spec member(name, node) :: Member.t() | nil
  def member(name, node) when is_atom(node), do: Table.member(name, node)

  @doc """
  How well this node itself keeps up, as of at most a second before its last message or timer.

      iex> Tiebeam.health(MyApp.Cluster)
      %{multiplier: 1, stalls: 0, minority: false, group: :none}
  """
  @spec health(name) :: health
  def health(name), do: Table.health(name)

  @doc """
  What the membership did since it started, as of at most a second before its last message or timer.

      iex> Tiebeam.metrics(MyApp.Cluster).deaths
      0
  """
  @spec metrics(name) :: metrics
  def metrics(name), do: Table.metrics(name)

  @doc """
  Replaces what this node tells about itself, at most 512 bytes. Members see it in about a second.

  It is kept when the cluster's server restarts, but not when the cluster itself does. Raises `ArgumentError` for more
  bytes. Blocks for the time of a call, at most five seconds, then exits like `GenServer.call/2`.

      iex> Tiebeam.set_metadata(MyApp.Cluster, "zone=1")
      :ok
      iex> Tiebeam.member(MyApp.Cluster, node()).metadata
      "zone=1"
  """
  @spec set_metadata(name, binary) :: :ok | {:error, Error.t()}
  def set_metadata(name, metadata) when is_binary(metadata), do: command(name, {:set_metadata, metadata})

  @doc """
  Tells all other members something once, at most 512 bytes. Their subscribers get `{:broadcast, node, binary}`.

  Best effort, in no order: it is passed on from member to member beside the probes. The error with the reason
  `{:busy, limit}` says that too many are under way. Raises `ArgumentError` for more bytes. Blocks as `set_metadata/2`.

      iex> Tiebeam.broadcast(MyApp.Cluster, "reload")
      :ok
  """
  @spec broadcast(name, binary) :: :ok | {:error, Error.t()}
  def broadcast(name, binary) when is_binary(binary), do: command(name, {:broadcast, binary})

  @doc """
  Sends the calling process a `t:Tiebeam.Event.message/0` for every change from now on.

  Subscribing twice is the same as once. The subscription ends with the process.

      iex> Tiebeam.subscribe(MyApp.Cluster)
      :ok
  """
  @spec subscribe(name) :: :ok
  def subscribe(name), do: GenServer.call(Table.process(name), {:subscribe, self()})

  @doc """
  Ends the subscription of the calling process. Events that were sent before may still be in its mailbox.

      iex> Tiebeam.unsubscribe(MyApp.Cluster)
      :ok
  """
  @spec unsubscribe(name) :: :ok
  def unsubscribe(name), do: GenServer.call(Table.process(name), {:unsubscribe, self()})

  @doc """
  Tells all members that this node leaves, and takes no further part.

  Afterwards only this node is listed, as `:left`. The connections between the nodes stay. To come back, restart the
  child in its supervisor. Blocks until the farewells are sent, at most five seconds, then exits like
  `GenServer.call/2`. Leaving twice is the same as once.
  """
  @spec leave(name) :: :ok
  def leave(name), do: GenServer.call(Table.process(name), :leave)

  defp command(name, {what, _bytes} = command) do
    case GenServer.call(Table.process(name), command) do
      :ok ->
        :ok

      {:error, {:too_long, bytes, limit}} ->
        raise ArgumentError, "#{what}: #{bytes} bytes are too many, the limit is #{limit}"

      {:error, reason} ->
        {:error, %Error{reason: reason}}
    end
  end
end
