# Real nodes that find one another.
defmodule Tiebeam.DiscoveryClusterTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, DnsServer, Multicast, Net, RustMember, ToldDiscovery}
  alias Tiebeam.Discovery.{DNS, Epmd, Gossip, Static}

  @soon 60_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  defp all_alive(members) do
    nodes = members |> Enum.map(& &1.node) |> Enum.sort()

    for member <- members do
      view = if member.kind == :rust, do: RustMember, else: BeamMember
      eventually(fn -> view.alive(member) == nodes end, @soon)
    end
  end

  describe "by gossip" do
    @describetag skip: Multicast.skip()

    for secret <- [nil, "somepassword"] do
      test "members of both kinds find each other, with the secret #{inspect(secret)}" do
        secret = unquote(secret)
        port = Multicast.port!()
        gossip = [port: port, multicast_if: "127.0.0.1"]
        same = gossip ++ if(secret, do: [secret: secret], else: [])
        other = BeamMember.start(Net.name("o"), discovery: [{Gossip, [secret: "another"] ++ gossip}])
        members = for _ <- 1..2, do: BeamMember.start(Net.name("b"), discovery: [{Gossip, same}])

        members =
          if :rust in Support.Target.kinds() do
            spec = "gossip:#{port}?interface=127.0.0.1" <> secret_file(secret)
            [RustMember.start(Net.name("r"), args: ["--discover", spec]) | members]
          else
            members
          end

        # What else comes to that port does no harm.
        {:ok, socket} = :gen_udp.open(0)

        for junk <- ["", "heartbeat::", :binary.copy(<<255>>, 16), :binary.copy("x", 2_000)],
            do: :ok = :gen_udp.send(socket, {127, 0, 0, 1}, port, junk)

        all_alive(members)
        assert BeamMember.alive(other) == [other.node]
      end
    end

    defp secret_file(nil), do: ""

    defp secret_file(secret) do
      path = Path.join(System.tmp_dir!(), "tiebeam_secret_#{System.pid()}")
      File.write!(path, secret <> "\n")
      on_exit(fn -> File.rm(path) end)
      "&secret-file=#{path}"
    end
  end

  test "by epmd: those with matching names" do
    prefix = "epmd#{System.unique_integer([:positive])}-"
    plain = Beam.start_peer(Net.name("plain"))
    options = [hosts: ["127.0.0.1"], matching: prefix <> "*", interval: 100]
    members = for _ <- 1..3, do: BeamMember.start(Net.name(prefix), discovery: [{Epmd, options}])
    all_alive(members)
    assert Beam.on(plain, Node, :list, []) == []
  end

  test "by DNS: a node that comes later" do
    dns = start_supervised!(DnsServer)
    DnsServer.set(dns, "app.internal", [])
    later = Net.name("later")

    options = [
      query: "app.internal",
      basename: Net.alive(later),
      nameservers: [DnsServer.address(dns)],
      interval: 100
    ]

    first = BeamMember.start(Net.name("first"), discovery: [{DNS, options}])
    later = BeamMember.start(later)
    DnsServer.set(dns, "app.internal", a: {127, 0, 0, 1})
    all_alive([first, later])
  end

  test "by a list: a node that is lost is found again when it is back" do
    back = Net.name("back")
    lost = BeamMember.start(back)

    here = BeamMember.start(Net.name("here"), discovery: [{Static, nodes: [back], interval: 100}])

    all_alive([here, lost])
    BeamMember.kill(lost)
    eventually(fn -> Beam.on(here, Node, :list, []) == [] end, @soon)
    again = Beam.start_peer(back)
    eventually(fn -> Beam.on(here, Node, :list, []) == [back] end, @soon)
    assert again.node == back
  end

  describe "nodes that vanish" do
    defp search(answers, options) do
      name = Module.concat(__MODULE__, "C#{System.unique_integer([:positive])}")
      # Hidden: the tests' own node is not woven into a mesh.
      options = [answers: answers, interval: 20, connect: {:net_kernel, :hidden_connect_node, []}] ++ options
      cluster = [name: name, process: Module.concat(name, Process), discovery: [{ToldDiscovery, options}]]
      start_supervised!({Tiebeam, cluster}, id: name)
    end

    test "stay connected, or not if the option says so" do
      kept = Beam.start_peer(Net.name("kept")).node
      vanished = Beam.start_peer(Net.name("vanished")).node
      stays = ToldDiscovery.answers([{:ok, [kept, vanished]}])
      search(stays, [])
      eventually(fn -> Enum.all?([kept, vanished], &(&1 in Node.list(:hidden))) end, @soon)
      ToldDiscovery.tell(stays, [{:ok, [kept]}])
      # Twice as many as it takes.
      eventually(fn -> ToldDiscovery.looks(stays) > 6 end, @soon)
      assert vanished in Node.list(:hidden)

      goes = ToldDiscovery.answers([{:ok, [kept, vanished]}, {:ok, []}, {:some, [kept]}, {:ok, [kept]}])
      search(goes, disconnect_vanished: true)
      eventually(fn -> vanished not in Node.list(:hidden) end, @soon)
      assert kept in Node.list(:hidden)
    end
  end

  describe "telemetry" do
    # What `:telemetry` is to the package: one function.
    defmodule Stub do
      def execute(event, measurements, metadata) do
        send(:discovery_telemetry_test, {event, measurements, metadata})
        :ok
      end
    end

    test "tells of connections and of what fails" do
      Process.register(self(), :discovery_telemetry_test)
      stub = quote do: defdelegate(execute(event, measurements, metadata), to: unquote(Stub))
      {:module, _, _, _} = Module.create(:telemetry, stub, Macro.Env.location(__ENV__))

      on_exit(fn ->
        :code.delete(:telemetry)
        :code.purge(:telemetry)
      end)

      peer = Beam.start_peer(Net.name("t")).node
      nobody = Net.name("nobody")
      search(ToldDiscovery.answers([{:error, :broken}, {:ok, [peer, nobody]}]), [])

      assert_receive {[:tiebeam, :discovery, :error], %{count: 1},
                      %{discovery: ToldDiscovery, reason: :broken, cluster: _}},
                     @soon

      assert_receive {[:tiebeam, :connect_node, :ok], %{duration: duration},
                      %{discovery: ToldDiscovery, node: ^peer}}
                     when is_integer(duration),
                     @soon

      assert_receive {[:tiebeam, :connect_node, :error], %{duration: _},
                      %{node: ^nobody, reason: :unreachable}},
                     @soon
    end
  end
end
