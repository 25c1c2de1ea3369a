defmodule Support.Cluster do
  @moduledoc """
  A full mesh of real nodes of all kinds, each with OTP's own settings (`prevent_overlapping_partitions` is on), and what
  its members were told.

  A node is a map with at least `:node`, `:kind` (`:beam` with the package, `:plain` without it, `:rust`), `:os_pid` and
  `:listener`.
  """
  import Support.Eventually

  alias Support.{Beam, BeamMember, Listener, Net, NodeObserver, RustMember}
  alias Tiebeam.Member

  @doc """
  Starts nodes of `kinds` and waits until all list all and are connected to all.

  Options: `:profile` (default `:fast`), and `:places`: for each node, what `place/1` gives for one on this machine.
  """
  def start(kinds, opts \\ []) do
    profile = opts[:profile] || :fast
    places = opts[:places] || List.duplicate(place(), length(kinds))

    nodes =
      for {kind, place} <- Enum.zip(kinds, places), reduce: [] do
        started -> started ++ [start_node(kind, place, Enum.map(Enum.take(started, 1), & &1.node), profile)]
      end

    complete(nodes)
    for %{kind: kind} = node when kind != :plain <- nodes, do: Listener.listen(node.listener, node.node)
    # From a moment in which all is well.
    complete(nodes)
    nodes
  end

  @doc "Where a node runs: the host in its name, the command that runs programs there, and a listener beside it."
  def place(host \\ "127.0.0.1", through \\ nil, listener \\ nil) do
    %{
      host: host,
      through: through,
      listener: listener || Listener.start_node(Net.name("l", host), through: through)
    }
  end

  defp start_node(:beam, place, join, profile) do
    node = Net.name("b", place.host)
    peer = BeamMember.start(node, join: join, profile: profile, through: place.through)

    Map.merge(peer, %{
      kind: :beam,
      os_pid: Beam.os_pid(peer),
      listener: place.listener,
      observer: observer(peer)
    })
  end

  defp start_node(:plain, place, join, _profile) do
    peer = Beam.start_peer(Net.name("p", place.host), through: place.through)
    observer = observer(peer)
    for node <- join, do: eventually(fn -> Beam.on(peer, Node, :connect, [node]) end)
    Map.merge(peer, %{kind: :plain, os_pid: Beam.os_pid(peer), listener: place.listener, observer: observer})
  end

  defp start_node(:rust, place, join, profile) do
    node = Net.name("r", place.host)
    member = RustMember.start(node, join: join, through: place.through, args: ["--profile", "#{profile}"])
    Map.merge(member, %{os_pid: "#{Support.OsProcess.os_pid(member.process)}", listener: place.listener})
  end

  defp observer(peer), do: Beam.on(peer, NodeObserver, :start, [])

  @doc "The members among `nodes`: those that run Tiebeam."
  def members(nodes), do: Enum.reject(nodes, &(&1.kind == :plain))

  @doc "What a member lists."
  def view(%{kind: :beam} = node), do: BeamMember.members(node)
  def view(%{kind: :rust} = node), do: Listener.ask(node.listener, {:tiebeam, node.node}, :members)

  @doc "`nodes()` of a node."
  def connected(%{kind: :rust} = node),
    do: Beam.on(node.listener, :rpc, :call, [node.node, :erlang, :nodes, []])

  def connected(node), do: Beam.on(node, Node, :list, [])

  @doc "Whether all list all of `nodes` as alive and nobody else, and are connected to all of them."
  def complete?(nodes) do
    names = names(nodes)

    Enum.all?(members(nodes), &(alive(&1) == names)) and
      Enum.all?(nodes, &(Enum.sort([&1.node | connected(&1)]) == names))
  end

  @doc "Waits until they are complete."
  def complete(nodes, timeout \\ 120_000) do
    eventually(fn -> complete?(nodes) end, timeout)
  rescue
    error in ExUnit.AssertionError ->
      views =
        for node <- members(nodes), do: {node.node, for(m <- view(node), do: {m.node, m.kind, m.status})}

      links = for node <- nodes, do: {node.node, connected(node)}

      reraise %{error | message: "#{error.message}\n#{inspect([views: views, links: links], pretty: true)}"},
              __STACKTRACE__
  end

  def names(nodes), do: nodes |> Enum.map(& &1.node) |> Enum.sort()

  def alive(node), do: for(%Member{status: :alive, node: name} <- view(node), do: name)

  @doc "The present in the time of `told/3`."
  def now, do: :os.system_time(:millisecond)

  @doc "What the member `at` was told of `about` since `since`: `{milliseconds, change}`, the milliseconds from then on."
  def told(at, about, since) do
    for {time, node, {:member, change, %Member{node: name}}} <- history(at),
        node == at.node and name == about.node and time >= since,
        do: {time - since, change}
  end

  @doc "All that the member `at` was told since `since`, as `{milliseconds, event}`."
  def events(at, since) do
    for {time, node, event} <- history(at), node == at.node and time >= since, do: {time - since, event}
  end

  defp history(node), do: Listener.history(node.listener)

  @doc "Which of `nodes` a BEAM node lost since it was asked last, and forgets them."
  def lost(%{kind: :rust}, _nodes), do: []

  def lost(node, nodes) do
    events = Beam.on(node, NodeObserver, :events, [node.observer])
    Beam.on(node, NodeObserver, :forget, [node.observer])
    for {:nodedown, name} <- events, name in names(nodes), do: name
  end

  @doc "Stops a node's program; it goes on when it is told to, or when the test ends, because a stopped one cannot end."
  def freeze(node), do: ExUnit.Callbacks.start_supervised!({Tiebeam.Test.Pause, node.os_pid})
  def thaw(node), do: ExUnit.Callbacks.stop_supervised!({Tiebeam.Test.Pause, node.os_pid})

  @chunk 64

  @doc "Sends that many megabytes to a process, in messages of #{@chunk}. Runs on a node of the mesh."
  def send_megabytes(destination, megabytes) do
    chunk = :binary.copy(<<0>>, @chunk * 1024 * 1024)
    for _ <- 1..div(megabytes, @chunk), do: send(destination, {:a_large_message, chunk})
    :ok
  end

  @doc "Never gives its scheduler back of itself. Runs on a node of the mesh."
  def spin, do: spin()
end
