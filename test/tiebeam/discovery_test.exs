# What is decided when nodes are looked for, and what name servers answer; without other nodes.
defmodule Tiebeam.DiscoveryTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias Support.{Beam, DnsServer, Multicast, Net, ToldDiscovery}
  alias Tiebeam.{Discovery, Options}

  alias Tiebeam.Discovery.{
    Candidates,
    Connector,
    DNS,
    Epmd,
    ErlangHosts,
    Gossip,
    Kubernetes,
    KubernetesAPI,
    SRV,
    Static
  }

  alias Tiebeam.Discovery.Gossip.Packet

  doctest Tiebeam.Discovery.Pace
  doctest Tiebeam.Discovery.Name
  doctest Tiebeam.Discovery.Gossip.Packet
  doctest Static
  doctest DNS
  doctest ErlangHosts
  doctest Cluster.Strategy.Tiebeam
  doctest SRV
  doctest Kubernetes

  # Packets that libcluster has sent: see test/fixture/gossip.exs.
  @golden "native/tiebeam_node/tests/vectors/gossip.txt"

  describe "options" do
    test "each mistake says which option is wrong and how" do
      cases = [
        {:gossip, "gossip is no discovery: it has no find/1. See Tiebeam.Discovery", ":"},
        {"dns", ~s(expected an entry of :discovery to be a module or {module, options}, got: "dns"), ""},
        {{DNS, 5}, "expected the options of Tiebeam.Discovery.DNS to be a keyword list, got: 5", ""},
        {DNS, "expected :query of Tiebeam.Discovery.DNS to be a string, got: nil", ""},
        {{DNS, query: "a", basename: "b c"},
         ~s(expected :basename of Tiebeam.Discovery.DNS to be the name of a node before the @, got: "b c"),
         ""},
        {{DNS, query: "a", nameservers: [{127, 0, 0, 1}]},
         "expected :nameservers of Tiebeam.Discovery.DNS to be a list of {address, port}, got: [{127, 0, 0, 1}]",
         ""},
        {{DNS, query: "a", names: 1},
         "unknown or repeated option :names of Tiebeam.Discovery.DNS; the options are :query, :basename, " <>
           ":nameservers, :interval, :connect, :disconnect_vanished", ""},
        {{DNS, query: "a", interval: -1},
         "expected :interval of Tiebeam.Discovery.DNS to be a number of milliseconds, got: -1", ""},
        {{DNS, query: "a", connect: :now},
         "expected :connect of Tiebeam.Discovery.DNS to be a tuple of module, function and arguments, got: :now",
         ""},
        {{DNS, query: "a", disconnect_vanished: 1},
         "expected :disconnect_vanished of Tiebeam.Discovery.DNS to be true or false, got: 1", ""},
        {{Static, nodes: [:a]},
         "expected :nodes of Tiebeam.Discovery.Static to be a list of node names, got: [:a]", ""},
        {{Epmd, hosts: [:h]}, "expected :hosts of Tiebeam.Discovery.Epmd to be a list of hosts, got: [:h]",
         ""},
        {{Kubernetes, service: "a", names: :pod},
         "the names of pods have their namespace in them: give Tiebeam.Discovery.Kubernetes a :namespace",
         ""},
        {{ErlangHosts, path: :here},
         "expected :path of Tiebeam.Discovery.ErlangHosts to be a path, got: :here", ""},
        {{KubernetesAPI, selector: "a", server: "http://10.96.0.1"},
         "expected :server of Tiebeam.Discovery.KubernetesAPI to be an address that begins with https://, got: " <>
           ~s("http://10.96.0.1"), ""},
        {{Gossip, multicast_addr: "1.2.3"},
         ~s(expected :multicast_addr of Tiebeam.Discovery.Gossip to be an IPv4 address, got: "1.2.3"), ""}
      ]

      for {entry, message, prefix} <- cases do
        assert_raise ArgumentError, prefix <> message, fn ->
          Options.validate!(name: A, discovery: [entry])
        end
      end

      assert_raise ArgumentError,
                   "expected the option :discovery to be a list, got: Tiebeam.Discovery.DNS",
                   fn ->
                     Options.validate!(name: A, discovery: DNS)
                   end
    end

    test "what is not given has a default; gossip has a pace of its own" do
      assert %{
               module: DNS,
               interval: 5_000,
               connect: {:net_kernel, :connect_node, []},
               disconnect_vanished: false
             } = Discovery.new!({DNS, query: "app"})

      assert %{interval: 10, disconnect_vanished: true} =
               Discovery.new!({DNS, query: "app", interval: 10, disconnect_vanished: true})

      assert %{interval: 0, state: %{port: 45_892, target: {233, 252, 1, 32}}} = Discovery.new!(Gossip)
    end

    test "a secret may be a function, and is not in what is printed" do
      for secret <- ["somepassword", fn -> "somepassword" end] do
        discovery = Discovery.new!({Gossip, secret: secret})
        assert discovery.state.key.() == :crypto.hash(:sha256, "somepassword")
        refute inspect(discovery, limit: :infinity) =~ "somepassword"
      end
    end
  end

  describe "candidates" do
    defp nobody, do: fn _name -> false end

    test "a node is dialled once at a time and not while it is connected" do
      {[], candidates} = Candidates.found(%Candidates{}, ["a@h", "b@h"], true)
      assert {["b@h"], candidates} = Candidates.next_dials(candidates, 0, 8, &(&1 == "a@h"))
      assert {["a@h"], candidates} = Candidates.next_dials(candidates, 0, 8, nobody())
      candidates = candidates |> Candidates.reached("a@h") |> Candidates.reached("b@h")
      assert {["a@h", "b@h"], _} = Candidates.next_dials(candidates, 0, 8, nobody())
    end

    test "a node that was not reached rests, and those that failed less come first" do
      {[], candidates} = Candidates.found(%Candidates{}, ["a@h", "b@h"], true)
      {["a@h"], candidates} = Candidates.next_dials(candidates, 0, 1, nobody())
      assert {1, candidates} = Candidates.failed(candidates, "a@h", 0, &(&1 * 10))
      assert {["b@h"], candidates} = Candidates.next_dials(candidates, 9, 8, nobody())
      candidates = Candidates.reached(candidates, "b@h")
      assert {["b@h"], candidates} = Candidates.next_dials(candidates, 10, 1, nobody())
      assert {["a@h"], candidates} = Candidates.next_dials(candidates, 10, 1, nobody())
      assert {2, candidates} = Candidates.failed(candidates, "a@h", 10, &(&1 * 10))
      assert {[], _} = Candidates.next_dials(candidates, 29, 8, nobody())
    end

    test "a node that is not found any more is not dialled" do
      {[], candidates} = Candidates.found(%Candidates{}, ["a@h"], true)
      {[], candidates} = Candidates.found(candidates, ["b@h"], false)
      assert {["b@h"], _} = Candidates.next_dials(candidates, 0, 8, nobody())
    end

    # A name server that answered with nothing for a moment made libcluster disconnect the whole cluster.
    test "only complete answers that have others make a node vanish" do
      {[], candidates} = Candidates.found(%Candidates{}, ["a@h", "b@h"], true)

      candidates =
        for _ <- 1..10, {names, complete?} <- [{["a@h"], false}, {[], true}], reduce: candidates do
          candidates ->
            assert {[], candidates} = Candidates.found(candidates, names, complete?)
            candidates
        end

      assert {[], candidates} = Candidates.found(candidates, ["a@h"], true)
      assert {[], candidates} = Candidates.found(candidates, ["a@h"], true)
      # Once more in time.
      assert {[], candidates} = Candidates.found(candidates, ["a@h", "b@h"], true)
      assert {[], candidates} = Candidates.found(candidates, ["a@h"], true)
      assert {[], candidates} = Candidates.found(candidates, ["a@h"], true)
      assert {["b@h"], candidates} = Candidates.found(candidates, ["a@h"], true)
      assert {[], _} = Candidates.found(candidates, ["a@h"], true)
    end

    test "names are remembered up to a limit, the freshest ones" do
      made_up = fn range -> for n <- range, do: "n#{n}@h" end
      known? = fn candidates, range -> Enum.all?(made_up.(range), &is_map_key(candidates.nodes, &1)) end
      {[], candidates} = Candidates.found(%Candidates{}, made_up.(1..9), false)
      {["n1@h"], candidates} = Candidates.next_dials(candidates, 0, 1, nobody())
      {[], candidates} = Candidates.found(candidates, made_up.(10..4100), false)
      assert known?.(candidates, 10..4100)
      assert known?.(candidates, 1..1), "it is being dialled"
      refute known?.(candidates, 2..2)
      # More at once than there is room for.
      {[], candidates} = Candidates.found(candidates, made_up.(5001..15_000), false)
      assert map_size(candidates.nodes) == 4096
      assert known?.(candidates, 5001..9095)
      # One after the other.
      candidates =
        Enum.reduce(made_up.(20_001..30_000), candidates, &elem(Candidates.found(&2, [&1], false), 1))

      assert map_size(candidates.nodes) <= 4096
      assert known?.(candidates, 29_000..30_000)
    end
  end

  describe "packets of gossip" do
    defp golden do
      for line <- File.stream!(@golden), not String.starts_with?(line, "#") do
        [node, secret, packet] = line |> String.trim_trailing("\n") |> String.split("\t")
        {node, if(secret == "-", do: nil, else: Packet.key(secret)), Base.decode16!(packet, case: :lower)}
      end
    end

    test "what libcluster sends is read with its secret and no other" do
      assert length(golden()) > 10

      for {node, key, packet} <- golden() do
        assert Packet.read(packet, key) == {:ok, node}
        assert Packet.read(packet, Packet.key("another")) == :error
        if key, do: assert(Packet.read(packet) == :error)
      end
    end

    test "what is written is what libcluster reads: its own steps, backwards" do
      iv = :crypto.strong_rand_bytes(16)

      for {node, key, _packet} <- golden() do
        written = Packet.write(node, key, iv)
        assert Packet.read(written, key) == {:ok, node}

        plain =
          if key do
            <<^iv::binary-size(16), encrypted::binary>> = written
            :crypto.crypto_one_time(:aes_256_cbc, key, iv, encrypted, encrypt: false, padding: :pkcs_padding)
          else
            written
          end

        "heartbeat::" <> term = plain
        assert :erlang.binary_to_term(term) == %{node: String.to_atom(node)}
      end
    end

    test "what names no node is ignored, and makes no atoms" do
      for term <- [
            <<131, 119, 1, "a">>,
            <<131, 116, 0::32>>,
            <<131, 116, 1::32, 119, 4, "node", 107, 3::16, "a@b">>,
            <<131, 116, 1::32, 119, 4, "node", 119, 3, "a b">>,
            <<131, 116, 1::32, 119, 4, "node", 119, 3, "a@b", 0>>,
            <<131, 116, 1::32, 119, 4, "node", 100, 0xFFFF::16, "a@b">>,
            <<131, 116, 0xFFFFFFFF::32>>,
            <<131, 80, 0x7FFFFFFF::32, 120, 156, 3, 0>>
          ],
          do: assert(Packet.read("heartbeat::" <> term) == :error)

      assert Packet.read("heartbeat::" <> String.duplicate("x", 1024)) == :error

      name = "made_up#{System.unique_integer([:positive])}@h"
      assert Packet.read(Packet.write(name)) == {:ok, name}
      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
    end

    test "what is not padded as it should be is ignored" do
      {key, iv} = {Packet.key("somepassword"), <<0::128>>}
      # 28 bytes: four are missing.
      plain = Packet.write("a@h")
      encrypt = &(iv <> :crypto.crypto_one_time(:aes_256_cbc, key, iv, plain <> &1, true))
      assert Packet.read(encrypt.(<<4, 4, 4, 4>>), key) == {:ok, "a@h"}

      for padding <- [<<1, 2, 3, 4>>, <<0, 0, 0, 0>>, <<4, 4, 4, 17>>, <<4, 4, 4, 255>>],
          do: assert(Packet.read(encrypt.(padding), key) == :error)
    end

    test "cut and changed packets are ignored or read, and raise nothing" do
      for {_node, key, packet} <- golden() do
        for size <- 0..(byte_size(packet) - 1) do
          assert Packet.read(binary_part(packet, 0, size), key) == :error
        end

        for at <- 0..(byte_size(packet) - 1), bit <- [1, 16, 255] do
          <<head::binary-size(at), byte, tail::binary>> = packet
          Packet.read(<<head::binary, Bitwise.bxor(byte, bit), tail::binary>>, key)
        end
      end
    end
  end

  describe "gossip" do
    @describetag skip: Multicast.skip()

    # What is found until this node is.
    defp found(state, name, so_far \\ []) do
      {:some, names, state} = Gossip.find(state)
      names = so_far ++ names
      if name in names, do: names, else: found(state, name, names)
    end

    defp secret(nil), do: {nil, nil}
    defp secret(secret), do: {secret, Packet.key(secret)}

    for secret <- [nil, "somepassword"] do
      test "is sent as it is heard, with the secret #{inspect(secret)}" do
        {secret, key} = secret(unquote(secret))
        {port, group} = {Multicast.port!(), {233, 252, 1, 32}}
        options = [port: port, multicast_if: "127.0.0.1", secret: secret]
        socket = Multicast.open(port)
        search = Task.async(fn -> options |> Gossip.init() |> found("found@h") end)
        assert {:ok, {_address, _port, packet}} = :gen_udp.recv(socket, 0, 30_000)
        assert Packet.read(packet, key) == {:ok, Atom.to_string(node())}
        if key, do: assert(Packet.read(packet) == :error)
        other = if key, do: nil, else: Packet.key("another")

        for {name, key} <- [{"another@h", other}, {"found@h", key}] do
          :ok = :gen_udp.send(socket, group, port, Packet.write(name, key, :crypto.strong_rand_bytes(16)))
        end

        # They come in order.
        refute "another@h" in Task.await(search, 30_000)
      end
    end
  end

  describe "name servers" do
    setup do
      dns = start_supervised!(DnsServer)
      %{dns: dns, servers: [nameservers: [DnsServer.address(dns)]]}
    end

    test "addresses are names of nodes", %{dns: dns, servers: servers} do
      state = DNS.init([query: "app.internal", basename: "app"] ++ servers)
      assert {:ok, [], ^state} = DNS.find(state)
      DnsServer.set(dns, "app.internal", [])
      assert {:ok, [], ^state} = DNS.find(state)

      DnsServer.set(dns, "app.internal",
        a: {10, 0, 0, 5},
        aaaa: {0xFD00, 0, 0, 0, 0, 0, 0, 5},
        a: {10, 0, 0, 6}
      )

      assert {:ok, ["app@10.0.0.5", "app@10.0.0.6", "app@fd00::5"], ^state} = DNS.find(state)
      DnsServer.set(dns, "app.internal", :broken)
      assert {:error, {"app.internal", {:a, _reason}}, ^state} = DNS.find(state)
      # The basename is the node's own.
      DnsServer.set(dns, "app.internal", a: {10, 0, 0, 5})
      own = node() |> Atom.to_string() |> String.split("@") |> hd()
      assert {:ok, [name], _} = DNS.find(%{state | basename: nil})
      assert name == own <> "@10.0.0.5"
    end

    test "targets of SRV records are names of nodes", %{dns: dns, servers: servers} do
      DnsServer.set(dns, "_app._tcp.internal",
        srv: {0, 0, 4369, ~c"h1.internal"},
        srv: {9, 9, 1, ~c"h2.internal"}
      )

      state = SRV.init([query: "_app._tcp.internal", basename: "app"] ++ servers)
      assert {:ok, names, ^state} = SRV.find(state)
      assert Enum.sort(names) == ["app@h1.internal", "app@h2.internal"]
      DnsServer.set(dns, "_app._tcp.internal", :broken)
      assert {:error, {"_app._tcp.internal", {:srv, _reason}}, ^state} = SRV.find(state)
    end

    test "pods of a headless service are named in three ways", %{dns: dns, servers: servers} do
      name = "app-headless.prod.svc.cluster.local"
      DnsServer.set(dns, name, a: {10, 0, 0, 5}, srv: {0, 50, 4369, ~c"app-0." ++ to_charlist(name)})
      options = [service: "app-headless", namespace: "prod", basename: "app"] ++ servers

      for {names, expected} <- [
            address: "app@10.0.0.5",
            pod: "app@10-0-0-5.prod.pod.cluster.local",
            hostname: "app@app-0." <> name
          ] do
        assert {:ok, [^expected], _} = Kubernetes.find(Kubernetes.init([names: names] ++ options))
      end
    end
  end

  describe "a file of hosts" do
    test "is read at each look, and epmd asked on its hosts" do
      path =
        Path.join(System.tmp_dir!(), "tiebeam_hosts_#{System.pid()}_#{System.unique_integer([:positive])}")

      on_exit(fn -> File.rm(path) end)
      [alive, host] = node() |> Atom.to_string() |> String.split("@")
      state = ErlangHosts.init(path: path, matching: alive)
      assert {:error, {^path, :enoent}, ^state} = ErlangHosts.find(state)
      File.write!(path, "% No hosts yet.\n")
      assert {:ok, [], ^state} = ErlangHosts.find(state)
      File.write!(path, "'#{host}'.\n")
      assert {:ok, [name], ^state} = ErlangHosts.find(state)
      assert name == Atom.to_string(node())
      File.write!(path, "'#{host}'")
      assert {:error, {^path, {_line, :erl_parse, _why}}, ^state} = ErlangHosts.find(state)
    end
  end

  describe "the system's name servers" do
    # As /etc/resolv.conf says it in a pod.
    setup do
      dns = start_supervised!(DnsServer)
      {{127, 0, 0, 1}, port} = DnsServer.address(dns)

      path =
        Path.join(System.tmp_dir!(), "tiebeam_inetrc_#{System.pid()}_#{System.unique_integer([:positive])}")

      File.write!(path, """
      {resolv_conf, ""}.
      {nameserver, {127,0,0,1}, #{port}}.
      {search, ["prod.svc.cluster.local", "svc.cluster.local"]}.
      """)

      on_exit(fn -> File.rm(path) end)
      %{dns: dns, peer: Beam.start_peer(Net.name("dns"), env: %{"ERL_INETRC" => path})}
    end

    test "are asked in the domains of the search list, too", %{dns: dns, peer: peer} do
      DnsServer.set(dns, "app.prod.svc.cluster.local", a: {10, 0, 0, 5})
      DnsServer.set(dns, "app.other.svc.cluster.local", a: {10, 0, 0, 6}, srv: {0, 0, 1, ~c"app-0.example"})
      find = fn module, state -> Beam.on(peer, module, :find, [state]) end

      for {service, expected} <- [
            {"app", "x@10.0.0.5"},
            {"app.other", "x@10.0.0.6"},
            {"app.other.svc.cluster.local.", "x@10.0.0.6"}
          ] do
        assert {:ok, [^expected], _} = find.(Kubernetes, Kubernetes.init(service: service, basename: "x"))
        assert {:ok, [^expected], _} = find.(DNS, DNS.init(query: service, basename: "x"))
      end

      assert {:ok, ["x@app-0.example"], _} = find.(SRV, SRV.init(query: "app.other", basename: "x"))
      assert {:ok, [], _} = find.(DNS, DNS.init(query: "nobody.example.", basename: "x"))
      DnsServer.set(dns, "app.broken", :broken)
      assert {:error, {"app.broken.", {:a, _}}, _} = find.(DNS, DNS.init(query: "app.broken.", basename: "x"))
    end
  end

  describe "a search" do
    defp discover(answers, result) do
      name = Module.concat(__MODULE__, "C#{System.unique_integer([:positive])}")
      connect = {ToldDiscovery, :connect, [self(), result]}
      options = [answers: ToldDiscovery.answers(answers), interval: 1, connect: connect]
      cluster = [name: name, process: Module.concat(name, Process), discovery: [{ToldDiscovery, options}]]
      {start_supervised!({Tiebeam, cluster}), name}
    end

    defp connector(supervisor) do
      [pid] = for {{Connector, 0}, pid, _, _} <- Supervisor.which_children(supervisor), do: pid
      pid
    end

    test "dials what it finds, but not itself, and what is no name" do
      made_up = "made_up#{System.unique_integer([:positive])}@192.0.2.1"
      discover([{:ok, [node(), "no name", :"a@192.0.2.1", made_up, 5]}], true)
      assert_receive {:connect, first}, 30_000
      assert_receive {:connect, second}, 30_000
      assert Enum.sort([first, second]) == [:"a@192.0.2.1", String.to_existing_atom(made_up)]
    end

    test "goes on after errors and faults, and the cluster stays as it is" do
      log =
        capture_log(fn ->
          {supervisor, name} = discover([{:error, :broken}, :raise, {:some, [:"a@192.0.2.1"]}], false)

          connector = connector(supervisor)

          assert_receive {:connect, :"a@192.0.2.1"}, 60_000
          assert connector(supervisor) == connector
          assert [%{status: :alive}] = Tiebeam.members(name)
          # It is tried again, later and later.
          assert_receive {:connect, :"a@192.0.2.1"}, 60_000
        end)

      assert log =~ "ToldDiscovery cannot look for nodes, trying again: :broken"
      assert log =~ "a fault of the user's"
      assert log =~ "cannot connect to a@192.0.2.1"
    end
  end
end
