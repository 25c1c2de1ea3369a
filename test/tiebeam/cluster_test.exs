defmodule Tiebeam.ClusterTest do
  # Clusters of real BEAM nodes, each steered past distribution.
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Certificates, Listener, Cluster, Net, NodeObserver, OsProcess}
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

  test "a lost connection is dialled again, and nobody is declared dead for it" do
    a = BeamMember.start(Net.name("a"), args: @no_mesh)
    b = BeamMember.start(Net.name("b"), args: @no_mesh)
    connect(a, b)
    all_alive([a, b])
    observer = Beam.on(a, NodeObserver, :start, [])
    true = Beam.on(a, :erlang, :disconnect_node, [b.node])
    eventually(fn -> Beam.on(a, NodeObserver, :events, [observer]) == [nodedown: b.node, nodeup: b.node] end)
    all_alive([a, b])
    assert BeamMember.told(a, b) == [:up]
    assert BeamMember.told(b, a) == [:up]
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

  test "a node without the package is observed, and asks any member" do
    a = BeamMember.start(Net.name("a"))
    plain = BeamMember.start_node(Net.name("p"))
    connect(plain, a)
    assert [%Member{} | _] = Beam.on(plain, GenServer, :call, [{:tiebeam, a.node}, :members])
    all_alive_at(a, [a, plain])
    assert BeamMember.member(a, plain).kind == :plain

    # One that joins the cluster after all.
    BeamMember.start_cluster(plain)
    all_alive([a, plain])
    eventually(fn -> BeamMember.member(a, plain).kind == :beam end)
  end

  defp all_alive_at(peer, peers) do
    nodes = peers |> Enum.map(& &1.node) |> Enum.sort()
    eventually(fn -> BeamMember.alive(peer) == nodes end)
  end

  test "metadata is seen by all, a broadcast by the others" do
    [a, b] = peers = for prefix <- ~w(a b), do: BeamMember.start(Net.name(prefix), metadata: "first")
    connect(a, b)
    all_alive(peers)
    assert BeamMember.member(a, b).metadata == "first"

    :ok = Beam.on(b, Tiebeam, :set_metadata, [BeamMember.cluster(), "second"])
    eventually(fn -> BeamMember.member(a, b).metadata == "second" end)
    eventually(fn -> match?(%Member{round_trip: micros} when is_integer(micros), BeamMember.member(a, b)) end)
    assert BeamMember.told(a, b) == [:up]

    :ok = Beam.on(b, Tiebeam, :broadcast, [BeamMember.cluster(), "hello"])
    eventually(fn -> {:broadcast, b.node, "hello"} in BeamMember.events(a) end)
    refute {:broadcast, b.node, "hello"} in BeamMember.events(b)
  end

  test "a process of another node subscribes, and hears of the cluster by its identity" do
    [a, b] = peers = for prefix <- ~w(a b), do: BeamMember.start(Net.name(prefix), args: @no_mesh)
    connect(a, b)
    all_alive(peers)
    listener = Listener.start_node()
    Listener.listen(listener, a.node)
    BeamMember.stop_cluster(b)

    told =
      eventually(fn -> Enum.find(Listener.history(listener), &match?({_, _, {:member, :left, _}}, &1)) end)

    assert {_, at, {:member, :left, %Member{node: left}}} = told
    assert {at, left} == {a.node, b.node}

    # A pid of a node that is not connected makes nobody dial.
    stranger = Beam.start_peer(Net.name("s"), args: @no_mesh)
    pid = Beam.on(stranger, :erlang, :whereis, [:init])
    assert Beam.on(a, GenServer, :call, [:tiebeam, {:subscribe, pid}]) == {:error, :noconnection}

    # It ends with the subscriber.
    ExUnit.Callbacks.stop_supervised!(listener.node)
    eventually(fn -> Beam.on(a, Tiebeam.Table, :subscribers, [BeamMember.cluster()]) |> length() == 1 end)
  end

  test "a subscriber behind a busy link is told how much it missed, and nobody waits for it" do
    a = BeamMember.start(Net.name("a"), args: @no_mesh)
    listener = Listener.start_node()
    Listener.listen(listener, a.node)
    set = fn metadata -> Beam.on(a, Tiebeam, :set_metadata, [BeamMember.cluster(), metadata]) end
    os_pid = Beam.os_pid(listener)

    OsProcess.send_signal(os_pid, :STOP)
    # Its sender is suspended until the listener reads on.
    sender = Beam.on(a, :erlang, :spawn, [Cluster, :send_megabytes, [{:nobody, listener.node}, 64]])
    send = fn -> Beam.on(a, :erlang, :send, [{:nobody, listener.node}, :x, [:noconnect, :nosuspend]]) end
    eventually(fn -> send.() == :nosuspend end)
    for metadata <- ~w(one two three), do: :ok = set.(metadata)

    OsProcess.send_signal(os_pid, :CONT)
    eventually(fn -> not Beam.on(a, Process, :alive?, [sender]) and send.() == :ok end)
    :ok = set.("four")
    told = fn -> for {_, _, event} <- Listener.history(listener), do: event end
    eventually(fn -> Enum.any?(told.(), &match?({:member, :updated, %Member{metadata: "four"}}, &1)) end)
    # Others may have been missed as well, such as those of a busy machine.
    assert [missed | _] = for({:missed, count} <- told.(), do: count)
    assert missed >= 3
    refute Enum.any?(told.(), &match?({:member, :updated, %Member{metadata: "three"}}, &1))
  end

  test "what a connection received is counted, over TCP and over TLS" do
    {:ok, _} = Application.ensure_all_started(:ssl)
    authority = Certificates.authority("ours")
    identity = Certificates.certificate(authority, ["localhost"])
    tls = Certificates.args(:beam, authority, identity: identity)

    for args <- [[], tls] do
      [a, b] =
        for prefix <- ~w(a b), do: Beam.start_peer(Net.name(prefix, "localhost"), args: @no_mesh ++ args)

      received = fn -> Beam.on(a, Tiebeam.Connection, :received, [b.node]) end
      assert received.() == nil
      connect(a, b)
      before = received.()
      assert is_integer(before)
      assert Beam.on(a, :erpc, :call, [b.node, :erlang, :node, []]) == b.node
      assert received.() > before
    end
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
