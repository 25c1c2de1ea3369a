defmodule Tiebeam.ClusterTest do
  # Clusters of real BEAM nodes, each steered past distribution.
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, Net, Recorder}
  alias Tiebeam.Member

  @cluster Test.Cluster

  # What the defaults do in seconds, in a fraction of one.
  @timing [greet_first: 100, greet_max: 500, sync_every: 300]

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  defp start_node(node, opts \\ []) do
    logger = Path.join(Application.app_dir(:logger), "ebin")
    peer = Beam.start_peer(node, Keyword.update(opts, :args, ["-pa", logger], &(["-pa", logger] ++ &1)))
    {:ok, _} = Beam.on(peer, Application, :ensure_all_started, [:tiebeam])
    peer
  end

  defp start_member(node, opts \\ []) do
    {cluster, opts} = Keyword.split(opts, [:join, :cluster])
    node |> start_node(opts) |> start_cluster(cluster)
  end

  # Under a supervisor of OTP's own, for it must outlive the call that starts it.
  defp start_cluster(peer, opts \\ []) do
    {:ok, _} = start_child(peer, Tiebeam.child_spec([name: @cluster, timing: @timing] ++ opts))
    {:ok, _} = start_child(peer, Recorder.child_spec(@cluster))
    peer
  end

  defp start_child(peer, spec), do: Beam.on(peer, :supervisor, :start_child, [:kernel_safe_sup, spec])

  defp stop_cluster(peer) do
    :ok = Beam.on(peer, :supervisor, :terminate_child, [:kernel_safe_sup, {Tiebeam, @cluster}])
    :ok = Beam.on(peer, :supervisor, :delete_child, [:kernel_safe_sup, {Tiebeam, @cluster}])
  end

  defp kill(peer) do
    Process.flag(:trap_exit, true)
    peer |> Beam.os_pid() |> Beam.signal("KILL")
    # Its supervisor lets go of it, so that the name can be started again.
    eventually(fn -> not Process.alive?(peer.peer) end)
    ExUnit.Callbacks.stop_supervised(peer.node)
  end

  defp connect(a, b), do: true = Beam.on(a, Node, :connect, [b.node])

  defp members(peer), do: Beam.on(peer, Tiebeam, :members, [@cluster])

  defp alive(peer), do: for(%Member{status: :alive, node: node} <- members(peer), do: node)

  defp status(peer, %{node: node}) do
    case Beam.on(peer, Tiebeam, :member, [@cluster, node]) do
      %Member{status: status} -> status
      nil -> nil
    end
  end

  # What `peer` was told of the node of `other`: `[:up, :down]`.
  defp told(peer, %{node: node}) do
    for {:member, change, %Member{node: ^node}} <- Beam.on(peer, Recorder, :events, []), do: change
  end

  defp all_alive(peers) do
    nodes = peers |> Enum.map(& &1.node) |> Enum.sort()
    for peer <- peers, do: eventually(fn -> alive(peer) == nodes end)
  end

  # Without the mesh of `global`, nodes connect only when Tiebeam dials.
  @no_mesh ["-kernel", "connect_all", "false", "-kernel", "prevent_overlapping_partitions", "false"]

  test "three nodes find each other through one seed, and all list all" do
    a = start_member(Net.name("a"), args: @no_mesh)
    b = start_member(Net.name("b"), args: @no_mesh, join: [a.node])
    c = start_member(Net.name("c"), args: @no_mesh, join: [a.node])
    all_alive([a, b, c])

    for peer <- [a, b, c], %Member{} = member <- members(peer) do
      owner = Enum.find([a, b, c], &(&1.node == member.node))
      assert member.kind == :beam
      assert member.creation == Beam.on(owner, :erlang, :system_info, [:creation])
    end

    assert told(a, b) == [:up]
    assert told(b, c) == [:up]
  end

  test "nodes that are connected need no seed" do
    [a, b, c] = peers = for prefix <- ~w(a b c), do: start_member(Net.name(prefix))
    connect(a, b)
    connect(b, c)
    all_alive(peers)
  end

  test "a cluster that starts on nodes long connected finds itself" do
    [a, b] = peers = for prefix <- ~w(a b), do: start_node(Net.name(prefix))
    connect(a, b)
    Enum.each(peers, &start_cluster/1)
    all_alive(peers)
  end

  test "a seed that starts last is found" do
    seed = Net.name("s")
    a = start_member(Net.name("a"), join: [seed])
    assert alive(a) == [a.node]
    all_alive([a, start_member(seed)])
  end

  test "a killed node is down on all others, and its restart is up once" do
    [a, b, c] = peers = for prefix <- ~w(a b c), do: start_member(Net.name(prefix))
    connect(a, b)
    connect(a, c)
    all_alive(peers)
    first = Beam.on(a, Tiebeam, :member, [@cluster, c.node])

    kill(c)

    for survivor <- [a, b] do
      eventually(fn -> status(survivor, c) == :dead end)
      assert alive(survivor) == Enum.sort([a.node, b.node])
      assert told(survivor, c) == [:up, :down]
    end

    c = start_member(c.node, join: [a.node])
    all_alive([a, b, c])

    for survivor <- [a, b] do
      assert told(survivor, c) == [:up, :down, :up]
      again = Beam.on(survivor, Tiebeam, :member, [@cluster, c.node])
      assert again.creation != first.creation
    end
  end

  test "a lost connection is dialled again" do
    a = start_member(Net.name("a"), args: @no_mesh)
    b = start_member(Net.name("b"), args: @no_mesh)
    connect(a, b)
    all_alive([a, b])
    true = Beam.on(a, :erlang, :disconnect_node, [b.node])
    eventually(fn -> told(a, b) == [:up, :down, :up] end)
    eventually(fn -> told(b, a) == [:up, :down, :up] end)
  end

  test "who leaves has left, stays connected, and may come back" do
    [a, b] = peers = for prefix <- ~w(a b), do: start_member(Net.name(prefix))
    connect(a, b)
    all_alive(peers)

    assert Beam.on(b, Tiebeam, :leave, [@cluster]) == :ok
    eventually(fn -> status(a, b) == :left end)
    assert b.node in Beam.on(a, Node, :list, [])

    stop_cluster(b)
    {:ok, _} = start_child(b, Tiebeam.child_spec(name: @cluster, timing: @timing))
    all_alive(peers)
    assert told(a, b) == [:up, :left, :up]
  end

  test "an orderly stop is a leave" do
    [a, b] = peers = for prefix <- ~w(a b), do: start_member(Net.name(prefix))
    connect(a, b)
    all_alive(peers)
    stop_cluster(b)
    eventually(fn -> status(a, b) == :left end)
    assert told(a, b) == [:up, :left]
  end

  test "another cluster is refused on both sides" do
    a = start_member(Net.name("a"))
    b = start_member(Net.name("b"), cluster: "blue")
    connect(a, b)

    eventually(fn -> {:refused, b.node, "blue"} in Beam.on(a, Recorder, :events, []) end)
    eventually(fn -> {:refused, a.node, "default"} in Beam.on(b, Recorder, :events, []) end)
    assert alive(a) == [a.node]
    assert alive(b) == [b.node]
  end

  test "a node without the package asks any member" do
    a = start_member(Net.name("a"))
    plain = Beam.start_peer(Net.name("p"))
    connect(plain, a)
    assert [%Member{status: :alive}] = Beam.on(plain, GenServer, :call, [{:tiebeam, a.node}, :members])
    assert alive(a) == [a.node]
  end

  test "a hidden node is a member" do
    a = start_member(Net.name("a"))
    b = start_member(Net.name("b"), hidden: true, join: [a.node])
    all_alive([a, b])
  end

  test "a node that becomes distributed continues under its name, and back" do
    a = start_member(Net.name("a"))
    name = Net.name("b")
    paths = for app <- [:elixir, :logger, :tiebeam], arg <- ["-pa", Application.app_dir(app, "ebin")], do: arg

    options = %{
      connection: :standard_io,
      args: Enum.map(["-setcookie", Net.cookie() | paths], &String.to_charlist/1)
    }

    b = %{peer: start_supervised!(%{id: :b, start: {:peer, :start_link, [options]}}), node: name}
    {:ok, _} = Beam.on(b, Application, :ensure_all_started, [:tiebeam])
    start_cluster(b, join: [a.node])
    assert alive(b) == [:nonode@nohost]

    {:ok, _} = Beam.on(b, Node, :start, [name, :longnames])
    all_alive([a, b])
    assert told(b, %{node: :nonode@nohost}) == [:down]

    :ok = Beam.on(b, Node, :stop, [])
    eventually(fn -> alive(b) == [:nonode@nohost] end)
    eventually(fn -> status(a, b) == :dead end)
    assert told(b, a) == [:up, :down]
  end
end
