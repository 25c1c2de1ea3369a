# Clusters whose nodes are found by libcluster: its own code, on BEAM nodes that are otherwise plain or run Tiebeam.
defmodule Tiebeam.Discovery.LibclusterTest do
  use ExUnit.Case, async: true

  import Support.Eventually

  alias Support.{Beam, BeamMember, Libcluster, Multicast, Net, RustMember}

  @moduletag skip: Libcluster.skip() || Multicast.skip()

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  defp gossip(port, secret), do: [port: port, multicast_if: "127.0.0.1"] ++ secret(secret)
  defp secret(nil), do: []
  defp secret(secret), do: [secret: secret]

  defp libcluster(port, secret) do
    peer = Beam.start_peer(Net.name("c"), args: Libcluster.args())
    Libcluster.start(peer, Cluster.Strategy.Gossip, gossip(port, secret))
    peer
  end

  if :rust in Support.Target.kinds() do
    for {title, secret} <- [{"without a secret", nil}, {"with a secret", "somepassword"}] do
      test "a Rust node and plain nodes with libcluster find one another by gossip, #{title}" do
        port = Multicast.port!()
        secret = unquote(secret)
        spec = "gossip:#{port}?interface=127.0.0.1" <> secret_file(secret)
        stranger = libcluster(port, "another")
        one = libcluster(port, secret)
        rust = RustMember.start(Net.name("r"), args: ["--discover", spec])
        eventually(fn -> rust.node in Beam.on(one, Node, :list, []) end, 60_000)
        # The Rust node is there first.
        two = libcluster(port, secret)
        eventually(fn -> rust.node in Beam.on(two, Node, :list, []) end, 60_000)
        assert Beam.on(stranger, Node, :list, []) == []
      end

      # Each side hears the other: where one cannot dial, it is the other one that did.
      test "either side dials, #{title}" do
        secret = unquote(secret)

        for dialler <- [:rust, :beam] do
          port = Multicast.port!()
          peer = Beam.start_peer(Net.name("c"), args: Libcluster.args())
          # A function that connects to nobody.
          connect = if dialler == :rust, do: [connect: {:erlang, :==, [:nobody]}], else: []
          Libcluster.start(peer, Cluster.Strategy.Gossip, gossip(port, secret), connect)
          # An address where nobody listens.
          address = if dialler == :beam, do: ["--address", "#{peer.node}=127.0.0.1:1"], else: []
          spec = "gossip:#{port}?interface=127.0.0.1" <> secret_file(secret)
          rust = RustMember.start(Net.name("r"), args: ["--discover", spec] ++ address)
          eventually(fn -> rust.node in Beam.on(peer, Node, :list, []) end, 60_000)
        end
      end
    end

    defp secret_file(nil), do: ""

    defp secret_file(secret) do
      path =
        Path.join(System.tmp_dir!(), "tiebeam_secret_#{System.pid()}_#{System.unique_integer([:positive])}")

      File.write!(path, secret <> "\n")
      ExUnit.Callbacks.on_exit(fn -> File.rm(path) end)
      "&secret-file=#{path}"
    end
  end

  test "nodes that run Tiebeam and are connected by libcluster are members by themselves" do
    port = Multicast.port!()

    members =
      for prefix <- ~w(b c) do
        member = BeamMember.start(Net.name(prefix), args: Libcluster.args())
        Libcluster.start(member, Cluster.Strategy.Gossip, gossip(port, "somepassword"))
        member
      end

    nodes = members |> Enum.map(& &1.node) |> Enum.sort()
    for member <- members, do: eventually(fn -> BeamMember.alive(member) == nodes end, 60_000)
  end

  test "a cluster is a topology of libcluster, with seeds or with a discovery" do
    [a, b, c] = for prefix <- ~w(a b c), do: BeamMember.start_node(Net.name(prefix), args: Libcluster.args())
    named = [name: BeamMember.cluster()]
    Libcluster.start(a, Cluster.Strategy.Tiebeam, named)
    Libcluster.start(b, Cluster.Strategy.Tiebeam, [join: [a.node]] ++ named)
    seeds = [discovery: [{Tiebeam.Discovery.Static, nodes: [a.node], interval: 50}]]
    # A function that connects to nobody.
    Libcluster.start(c, Cluster.Strategy.Tiebeam, seeds ++ named, connect: {:erlang, :==, [:nobody]})
    eventually(fn -> BeamMember.alive(a) == Enum.sort([a.node, b.node]) end, 60_000)
    assert Beam.on(c, Node, :list, []) == []
    true = Beam.on(c, Node, :connect, [a.node])
    nodes = Enum.sort([a.node, b.node, c.node])
    for member <- [a, b, c], do: eventually(fn -> BeamMember.alive(member) == nodes end, 60_000)
  end

  test "the strategy has what libcluster's behaviour asks for" do
    Code.append_path(System.fetch_env!("LIBCLUSTER"))
    Code.ensure_loaded!(Cluster.Strategy.Tiebeam)

    for {function, arity} <- Cluster.Strategy.behaviour_info(:callbacks),
        do: assert(function_exported?(Cluster.Strategy.Tiebeam, function, arity))
  end
end
