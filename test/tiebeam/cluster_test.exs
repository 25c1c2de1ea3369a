defmodule Tiebeam.ClusterTest do
  # Clusters of real BEAM nodes, each steered past distribution.
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Net}
  alias Tiebeam.Member

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  defp connect(a, b), do: true = Beam.on(a, Node, :connect, [b.node])

  defp all_alive(peers) do
    nodes = peers |> Enum.map(& &1.node) |> Enum.sort()
    for peer <- peers, do: eventually(fn -> BeamMember.alive(peer) == nodes end)
  end

  # Without the mesh of `global`, nodes connect only when Tiebeam dials.
  @no_mesh ["-kernel", "connect_all", "false", "-kernel", "prevent_overlapping_partitions", "false"]

  test "three nodes find each other through one seed, and all list all" do
    a = BeamMember.start(Net.name("a"), args: @no_mesh)
    b = BeamMember.start(Net.name("b"), args: @no_mesh, join: [a.node])
    c = BeamMember.start(Net.name("c"), args: @no_mesh, join: [a.node])
    all_alive([a, b, c])

    for peer <- [a, b, c], %Member{} = member <- BeamMember.members(peer) do
      owner = Enum.find([a, b, c], &(&1.node == member.node))
      assert member.kind == :beam
      assert member.creation == Beam.on(owner, :erlang, :system_info, [:creation])
    end

    assert BeamMember.told(a, b) == [:up]
    assert BeamMember.told(b, c) == [:up]
  end

  test "nodes that are connected need no seed" do
    [a, b, c] = peers = for prefix <- ~w(a b c), do: BeamMember.start(Net.name(prefix))
    connect(a, b)
    connect(b, c)
    all_alive(peers)
  end

  test "a cluster that starts on nodes long connected finds itself" do
    [a, b] = peers = for prefix <- ~w(a b), do: BeamMember.start_node(Net.name(prefix))
    connect(a, b)
    Enum.each(peers, &BeamMember.start_cluster/1)
    all_alive(peers)
  end

  test "a seed that starts last is found" do
    seed = Net.name("s")
    a = BeamMember.start(Net.name("a"), join: [seed])
    assert BeamMember.alive(a) == [a.node]
    all_alive([a, BeamMember.start(seed)])
  end

  test "a killed node is down on all others, and its restart is up once" do
    [a, b, c] = peers = for prefix <- ~w(a b c), do: BeamMember.start(Net.name(prefix))
    connect(a, b)
    connect(a, c)
    all_alive(peers)
    first = BeamMember.member(a, c)

    BeamMember.kill(c)

    for survivor <- [a, b] do
      eventually(fn -> BeamMember.status(survivor, c) == :dead end)
      assert BeamMember.alive(survivor) == Enum.sort([a.node, b.node])
      assert BeamMember.told(survivor, c) == [:up, :down]
    end

    c = BeamMember.start(c.node, join: [a.node])
    all_alive([a, b, c])

    for survivor <- [a, b] do
      assert BeamMember.told(survivor, c) == [:up, :down, :up]
      again = BeamMember.member(survivor, c)
      assert again.creation != first.creation
    end
  end

  test "a lost connection is dialled again" do
    a = BeamMember.start(Net.name("a"), args: @no_mesh)
    b = BeamMember.start(Net.name("b"), args: @no_mesh)
    connect(a, b)
    all_alive([a, b])
    true = Beam.on(a, :erlang, :disconnect_node, [b.node])
    eventually(fn -> BeamMember.told(a, b) == [:up, :down, :up] end)
    eventually(fn -> BeamMember.told(b, a) == [:up, :down, :up] end)
  end

  test "who leaves has left, stays connected, and may come back" do
    [a, b] = peers = for prefix <- ~w(a b), do: BeamMember.start(Net.name(prefix))
    connect(a, b)
    all_alive(peers)

    assert Beam.on(b, Tiebeam, :leave, [BeamMember.cluster()]) == :ok
    eventually(fn -> BeamMember.status(a, b) == :left end)
    assert b.node in Beam.on(a, Node, :list, [])

    BeamMember.stop_cluster(b)
    {:ok, _} = BeamMember.start_tiebeam(b)
    all_alive(peers)
    assert BeamMember.told(a, b) == [:up, :left, :up]
  end

  test "an orderly stop is a leave" do
    [a, b] = peers = for prefix <- ~w(a b), do: BeamMember.start(Net.name(prefix))
    connect(a, b)
    all_alive(peers)
    BeamMember.stop_cluster(b)
    eventually(fn -> BeamMember.status(a, b) == :left end)
    assert BeamMember.told(a, b) == [:up, :left]
  end

  test "another cluster is refused on both sides" do
    a = BeamMember.start(Net.name("a"))
    b = BeamMember.start(Net.name("b"), cluster: "blue")
    connect(a, b)

    eventually(fn -> {:refused, b.node, "blue"} in BeamMember.events(a) end)
    eventually(fn -> {:refused, a.node, "default"} in BeamMember.events(b) end)
    assert BeamMember.alive(a) == [a.node]
    assert BeamMember.alive(b) == [b.node]
  end

  test "a node without the package asks any member" do
    a = BeamMember.start(Net.name("a"))
    plain = Beam.start_peer(Net.name("p"))
    connect(plain, a)
    assert [%Member{status: :alive}] = Beam.on(plain, GenServer, :call, [{:tiebeam, a.node}, :members])
    assert BeamMember.alive(a) == [a.node]
  end

  test "a hidden node is a member" do
    a = BeamMember.start(Net.name("a"))
    b = BeamMember.start(Net.name("b"), hidden: true, join: [a.node])
    all_alive([a, b])
  end

  test "a node that becomes distributed continues under its name, and back" do
    a = BeamMember.start(Net.name("a"))
    name = Net.name("b")
    paths = for app <- [:elixir, :logger, :tiebeam], arg <- ["-pa", Application.app_dir(app, "ebin")], do: arg

    options = %{
      connection: :standard_io,
      args: Enum.map(["-setcookie", Net.cookie() | paths], &String.to_charlist/1)
    }

    b = %{peer: start_supervised!(%{id: :b, start: {:peer, :start_link, [options]}}), node: name}
    {:ok, _} = Beam.on(b, Application, :ensure_all_started, [:tiebeam])
    BeamMember.start_cluster(b, join: [a.node])
    assert BeamMember.alive(b) == [:nonode@nohost]

    {:ok, _} = Beam.on(b, Node, :start, [name, :longnames])
    all_alive([a, b])
    assert BeamMember.told(b, %{node: :nonode@nohost}) == [:down]

    :ok = Beam.on(b, Node, :stop, [])
    eventually(fn -> BeamMember.alive(b) == [:nonode@nohost] end)
    eventually(fn -> BeamMember.status(a, b) == :dead end)
    assert BeamMember.told(b, a) == [:up, :down]
  end
end
