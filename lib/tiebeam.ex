defmodule Tiebeam do
  @moduledoc """
  BEAM nodes and Rust nodes in one cluster.

  Put it into a supervision tree:

      children = [
        {Tiebeam, name: MyApp.Cluster, join: [:"rust@127.0.0.1"]}
      ]

  Nodes that are connected and run a cluster of the same identity find each other; `join` names nodes to look for. A
  Rust node is a node as any other: it is in `Node.list/0`, and processes on it are called, linked and monitored as
  usual. Tiebeam adds a common view of who is here:

      iex> [member] = Tiebeam.members(MyApp.Cluster)
      iex> {member.node == node(), member.kind, member.status}
      {true, :beam, :alive}

  Reads never wait for another process: they touch an ETS table of this node. A node without distribution is a cluster
  of one; when distribution starts later, the node continues under its new name.

  A node without the package can ask any member, BEAM or Rust: `GenServer.call({:tiebeam, node}, :members)`.

  ## Options

  #{Tiebeam.Options.docs()}
  """

  alias Tiebeam.{Member, Options, Table}

  @typedoc "The local name of a cluster: the `:name` option of `start_link/1`."
  @type name :: atom

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
end
