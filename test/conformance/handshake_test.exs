# Connections: who may connect, who wins when both dial, what replaces what.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.HandshakeTest, kind) do
    use Support.Case, async: true, kind: kind
    import Bitwise

    describe "connecting (#{kind})" do
      test "check 4: ping, and U is a visible node", %{u: u} do
        p = Beam.start_peer(Net.name("p"))
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        assert Beam.on(p, :erlang, :nodes, []) == [u.node]
        assert Beam.on(p, :erlang, :nodes, [:hidden]) == []
        assert p.node in Target.on(u, :erlang, :nodes, [])
      end

      for {order, prefix} <- [smaller: "a", greater: "z"] do
        @prefix prefix
        test "check 5: P dials U, whose name is #{order}" do
          u = Target.start(@kind, prefix: @prefix)
          p = Beam.start_peer(Net.name("p"))
          assert Beam.on(p, :net_kernel, :connect_node, [u.node]) == true
          assert both_directions(p, u)
        end

        test "check 5: U, whose name is #{order}, dials P" do
          u = Target.start(@kind, prefix: @prefix)
          p = Beam.start_peer(Net.name("p"))
          assert Target.on(u, :rpc, [p.node, :erlang, :node, []]) == p.node
          assert both_directions(p, u)
        end

        test "check 6: both dial at once, U's name is #{order}: one connection, one nodeup" do
          u = Target.start(@kind, prefix: @prefix)
          p = Beam.start_peer(Net.name("p"))
          observer = Beam.on(p, Support.NodeObserver, :start, [])
          rounds = "TIEBEAM_ROUNDS" |> System.get_env("30") |> String.to_integer()

          seed =
            "TIEBEAM_SEED" |> System.get_env("#{System.unique_integer([:positive])}") |> String.to_integer()

          random = :rand.seed_s(:exsss, seed)

          Enum.reduce(1..rounds, random, fn round, random ->
            # One dials a little later than the other: the races lie in the first milliseconds.
            {delay, random} = :rand.uniform_s(2_000, random)
            {first, random} = :rand.uniform_s(random)
            told = "round #{round} of #{rounds}, replay with TIEBEAM_SEED=#{seed}"

            dials = [
              fn -> Beam.on(p, :rpc, :call, [u.node, :fixture, :add, [1, 2]]) end,
              fn -> Target.on(u, :rpc, [p.node, :fixture, :add, [1, 2]]) end
            ]

            dials = if first < 0.5, do: dials, else: Enum.reverse(dials)
            [first, second] = Enum.with_index(dials)

            tasks =
              for {dial, wait} <- [first, second] do
                Task.async(fn ->
                  spin(wait * delay)
                  dial.()
                end)
              end

            assert Task.await_many(tasks, 60_000) == [3, 3], told
            assert Beam.on(p, Support.NodeObserver, :events, [observer]) == [nodeup: u.node], told

            eventually(fn -> apart?(p, u) end)
            Beam.on(p, Support.NodeObserver, :forget, [observer])
            random
          end)
        end
      end

      # A greeting of `global` that was still under way may connect the two once more.
      defp apart?(p, u) do
        Beam.on(p, :erlang, :disconnect_node, [u.node])
        Beam.on(p, :erlang, :nodes, []) == [] and p.node not in Target.on(u, :erlang, :nodes, [])
      end

      # Waits some microseconds, which no timer can.
      defp spin(microseconds) do
        deadline = System.monotonic_time(:microsecond) + microseconds
        spin_until(deadline)
      end

      defp spin_until(deadline),
        do: if(System.monotonic_time(:microsecond) < deadline, do: spin_until(deadline), else: :ok)

      defp both_directions(p, u) do
        assert u.node in Beam.on(p, :erlang, :nodes, [])
        eventually(fn -> p.node in Target.on(u, :erlang, :nodes, []) end)
        assert Beam.on(p, :rpc, :call, [u.node, :fixture, :add, [1, 2]]) == 3
        assert Target.on(u, :rpc, [p.node, :fixture, :add, [3, 4]]) == 7
      end

      test "disconnect_node, and again", %{u: _} do
        u = Target.start(@kind)

        for _ <- 1..5 do
          assert :net_adm.ping(u.node) == :pong
          assert u.node in Node.list()
          assert Node.disconnect(u.node) == true
          refute u.node in Node.list()
        end
      end
    end

    describe "statuses (#{kind})" do
      test "check 7: U gets ok_simultaneous and goes on" do
        dialled("raw", fn listener, u, socket, flags ->
          RawPeer.send_status(socket, "ok_simultaneous")
          {:ok, raw} = RawPeer.accept_proof(socket, listener, u.node, flags)
          raw
        end)
      end

      test "check 7: U gets alive, insists with true and goes on" do
        dialled("raw", fn listener, u, socket, flags ->
          RawPeer.send_status(socket, "alive")
          assert {:ok, "true"} = RawPeer.status(socket)
          {:ok, raw} = RawPeer.accept_proof(socket, listener, u.node, flags)
          raw
        end)
      end

      test "check 7: U gets nok, keeps what it has to send, and takes our connection instead" do
        # Only a node with a greater name says nok.
        dialled("z", fn listener, u, socket, _flags ->
          RawPeer.send_status(socket, "nok")
          RawPeer.close(socket)
          RawPeer.connect!(u.node, name: listener.name)
        end)
      end

      test "check 7: U dials, and before its attempt has an answer the other, with a smaller name, dials: nok" do
        u = Target.start(@kind)
        listener = RawPeer.listen(Net.name("raw"))
        task = send_from(u, listener.name)
        {socket, name, flags, _} = RawPeer.accept(listener)
        assert name == u.node
        assert {:error, {:status, "nok"}} = RawPeer.connect(u.node, name: listener.name)
        RawPeer.send_status(socket, "ok")
        {:ok, raw} = RawPeer.accept_proof(socket, listener, u.node, flags)
        received(raw, u, task)
      end

      test "check 7: U dials, and before its attempt has an answer the other, with a greater name, dials: ok_simultaneous" do
        u = Target.start(@kind)
        listener = RawPeer.listen(Net.name("z"))
        task = send_from(u, listener.name)
        {socket, _, _, _} = RawPeer.accept(listener)
        ours = RawPeer.open(u.node)
        assert {:ok, "ok_simultaneous"} = RawPeer.introduce(ours, listener.name, RawPeer.pass_through())
        # U gave up its own attempt.
        RawPeer.await_closed(socket)
        {:ok, raw} = RawPeer.prove(ours, u.node, listener.name, RawPeer.pass_through())
        received(raw, u, task)
      end

      # U is made to dial a raw peer, which answers in its own way; what U had to send arrives on the connection that wins.
      defp dialled(prefix, answer) do
        u = Target.start(@kind)
        listener = RawPeer.listen(Net.name(prefix))
        task = send_from(u, listener.name)
        {socket, name, flags, creation} = RawPeer.accept(listener)
        assert name == u.node
        assert creation == creation(Target.on(u, :erlang, :whereis, [:echo]))
        assert (flags &&& RawPeer.published()) == RawPeer.published()
        raw = answer.(listener, u, socket, flags)
        received(raw, u, task)
      end

      defp send_from(u, node),
        do: Task.async(fn -> Target.on(u, :send, [{:anybody, node}, {:from, u.node}]) end)

      defp received(raw, u, task) do
        u_node = u.node

        {true, before} =
          RawPeer.receive_until(raw, fn control, message ->
            match?({6, _, :"", :anybody}, control) and message == {:from, u_node}
          end)

        assert Task.await(task, 60_000) == :ok
        assert raw.name in Target.on(u, :erlang, :nodes, [])
        after_it = RawPeer.round_trip(raw)

        refute Enum.any?(before ++ after_it, fn {_, message} ->
                 is_tuple(message) and elem(message, 0) == :lost_connection
               end)

        RawPeer.close(raw)
        eventually(fn -> raw.name not in Target.on(u, :erlang, :nodes, []) end)
      end

      test "check 8: a new connection of a peer that U still holds for connected takes the place of the old one",
           %{u: u} do
        name = Net.name("raw")
        old = RawPeer.connect!(u.node, name: name)
        assert old.name in Target.on(u, :erlang, :nodes, [])

        socket = RawPeer.open(u.node)
        assert {:ok, "alive"} = RawPeer.introduce(socket, name, RawPeer.pass_through(), 77)
        :ok = RawPeer.send_status(socket, "true")
        {:ok, new} = RawPeer.prove(socket, u.node, name, RawPeer.pass_through(), 77)
        RawPeer.await_closed(old)
        RawPeer.round_trip(new)
        assert name in Target.on(u, :erlang, :nodes, [])
        RawPeer.close(new)
      end

      test "check 8: alive, and the peer does not insist: the old connection stays", %{u: u} do
        name = Net.name("raw")
        old = RawPeer.connect!(u.node, name: name)
        # The acknowledgement is sent before U counts the connection as up.
        RawPeer.round_trip(old)
        socket = RawPeer.open(u.node)
        assert {:ok, "alive"} = RawPeer.introduce(socket, name, RawPeer.pass_through(), 77)
        :ok = RawPeer.send_status(socket, "false")
        RawPeer.await_closed(socket)
        RawPeer.round_trip(old)

        # The same when the peer goes away, or cannot prove that it knows the cookie.
        gone = RawPeer.open(u.node)
        assert {:ok, "alive"} = RawPeer.introduce(gone, name, RawPeer.pass_through(), 78)
        RawPeer.close(gone)
        RawPeer.round_trip(old)

        wrong = eventually(fn -> with {:error, :closed} <- insist(u, name), do: nil end)
        assert wrong == :wrong_cookie
        RawPeer.round_trip(old)
        RawPeer.close(old)
      end

      # Insists, then fails to prove. U answers nothing while the attempt before this one still holds the slot.
      defp insist(u, name) do
        socket = RawPeer.open(u.node)

        with {:ok, "alive"} <- RawPeer.introduce(socket, name, RawPeer.pass_through(), 79) do
          :ok = RawPeer.send_status(socket, "true")

          assert {:error, :closed} =
                   RawPeer.prove(socket, u.node, name, RawPeer.pass_through(), 79, cookie: "wrong")

          :wrong_cookie
        end
      end

      test "check 8: U is killed and started again at once" do
        u = Target.start(@kind)
        p = Beam.start_peer(Net.name("p"))
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        observer = Beam.on(p, Support.NodeObserver, :start, [])
        old_echo = Beam.on(p, :rpc, :call, [u.node, :erlang, :whereis, [:echo]])

        Target.kill(u)
        eventually(fn -> Net.epmd_lookup(u.node) == :unknown end)
        again = Target.start(@kind, node: u.node)
        eventually(fn -> Beam.on(p, :net_adm, :ping, [again.node]) == :pong end)
        assert Beam.on(p, Support.NodeObserver, :events, [observer]) == [nodedown: u.node, nodeup: u.node]

        new_echo = Beam.on(p, :rpc, :call, [u.node, :erlang, :whereis, [:echo]])
        assert creation(new_echo) != creation(old_echo)
        assert Beam.on(p, :rpc, :call, [u.node, :erlang, :is_process_alive, [new_echo]]) == true
        # A call to the old one fails at once, and does not reach the new one.
        assert Beam.on(p, Support.NodeObserver, :call_reason, [old_echo, :hello]) == :noproc
      end

      test "check 7: U's own name, and no name at all, are refused", %{u: u} do
        assert {:error, {:status, "nok"}} = RawPeer.connect(u.node, name: u.node)
        assert {:error, _} = RawPeer.connect(u.node, name: :no_host_part)
        assert {:error, _} = RawPeer.connect(u.node, name: :"@127.0.0.1")
        assert {:error, _} = RawPeer.connect(u.node, name: :"spa ce@127.0.0.1")
        assert Target.on(u, :add, [1, 2]) == 3
      end
    end

    describe "cookies (#{kind})" do
      test "check 9: a wrong cookie is a pang, in both directions; the right one works afterwards" do
        u = Target.start(@kind)
        p = Beam.start_peer(Net.name("p"), cookie: "wrong")
        for _ <- 1..3, do: assert(Beam.on(p, :net_adm, :ping, [u.node]) == :pang)
        assert {:badrpc, _} = Target.try_on(u, :rpc, [p.node, :erlang, :node, []])
        assert p.node not in Target.on(u, :erlang, :nodes, [])

        Beam.on(p, :erlang, :set_cookie, [:"#{Net.cookie()}"])
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        assert Target.on(u, :rpc, [p.node, :erlang, :node, []]) == p.node
      end

      test "check 9: U closes the connection when the digest is wrong", %{u: u} do
        name = Net.name("raw")
        for _ <- 1..20, do: assert({:error, :closed} = RawPeer.connect(u.node, name: name, cookie: "wrong"))
        raw = eventually(fn -> with {:error, _} <- RawPeer.connect(u.node, name: name), do: nil end)
        assert {:ok, raw} = raw
        RawPeer.round_trip(raw)
        RawPeer.close(raw)
      end

      test "check 9: U, as the one who dials, refuses a peer that does not prove the cookie", %{u: u} do
        listener = RawPeer.listen(Net.name("raw"))
        task = Task.async(fn -> Target.try_on(u, :rpc, [listener.name, :erlang, :node, []]) end)
        {socket, _, flags, _} = RawPeer.accept(listener)
        RawPeer.send_status(socket, "ok")
        text = to_string(listener.name)
        :ok = :gen_tcp.send(socket, <<"N", flags::64, 1::32, 5::32, byte_size(text)::16, text::binary>>)
        {:ok, <<"r", _::32, digest::binary>>} = :gen_tcp.recv(socket, 0, 10_000)
        assert digest == RawPeer.digest(Net.cookie(), 1)
        :ok = :gen_tcp.send(socket, ["a", :rand.bytes(16)])
        RawPeer.await_closed(socket)
        assert Task.await(task, 60_000) == {:badrpc, :nodedown}
      end

      test "check 10: a cookie for one node only" do
        u = Target.start(@kind, cookie: "another_cookie")
        p = Beam.start_peer(Net.name("p"))
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pang
        Beam.on(p, :erlang, :set_cookie, [u.node, :another_cookie])
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        assert u.node in Beam.on(p, :erlang, :nodes, [])
      end
    end

    describe "flags (#{kind})" do
      # Unlinking with ids, and wide pids, ports and references. A Rust node serves OTP 25, which does not ask for them.
      @since_26 [0x2000000, 0x400000000]

      defp asks_for_more?(:rust), do: false
      defp asks_for_more?(:beam), do: Support.Releases.own() >= 26

      test "check 12: a mandatory flag is missing: not_allowed", %{u: u} do
        # All that OTP 25 asks for: extended references, fun tags, new fun tags, extended pids and ports, export, bit binaries,
        # new floats, UTF-8 atoms, maps, big creations, the handshake of OTP 23.
        of_25 = [0x4, 0x10, 0x80, 0x100, 0x200, 0x400, 0x800, 0x10000, 0x20000, 0x40000, 0x1000000]

        for flag <- if(asks_for_more?(u.kind), do: of_25 ++ @since_26, else: of_25) do
          digest = 0x4000000
          flags = RawPeer.pass_through() &&& bnot(digest ||| flag)
          socket = RawPeer.open(u.node)

          assert {:ok, "not_allowed"} = RawPeer.introduce(socket, Net.name("raw"), flags),
                 "without flag 0x#{Integer.to_string(flag, 16)}"

          RawPeer.await_closed(socket)
        end
      end

      test "check 13: the flag that stands for all mandatory ones is enough", %{u: u} do
        digest = 0x4000000

        # It stands for those of OTP 25.
        if asks_for_more?(u.kind) do
          socket = RawPeer.open(u.node)
          assert {:ok, "not_allowed"} = RawPeer.introduce(socket, Net.name("raw"), digest)
          RawPeer.close(socket)
        end

        socket = RawPeer.open(u.node)
        flags = if asks_for_more?(u.kind), do: Enum.reduce(@since_26, digest, &bor/2), else: digest
        assert {:ok, "ok"} = RawPeer.introduce(socket, Net.name("raw"), flags)
        assert {:ok, %{flags: flags}} = RawPeer.challenge(socket)
        assert (flags &&& 0x4000000) != 0
        RawPeer.close(socket)
      end

      test "U offers what it has, and nothing unknown", %{u: u} do
        socket = RawPeer.open(u.node)
        {:ok, "ok"} = RawPeer.introduce(socket, Net.name("raw"), RawPeer.otp25())
        {:ok, %{flags: flags}} = RawPeer.challenge(socket)
        RawPeer.close(socket)
        # All that OTP 26 asks for.
        assert (flags &&& 0x403070F94) == 0x403070F94
        assert (flags &&& bnot(offered(u.kind))) == 0
        assert (flags &&& RawPeer.published()) == RawPeer.published()
      end

      # What OTP 25 offers, and besides: 37 for priority messages since OTP 28, 38 for native records since OTP 29.
      defp offered(:rust), do: RawPeer.otp25() ||| 1 <<< 37

      defp offered(:beam) do
        for {release, bit} <- [{28, 37}, {29, 38}],
            Support.Releases.own() >= release,
            reduce: RawPeer.otp25() do
          flags -> flags ||| 1 <<< bit
        end
      end

      test "unknown flags and bytes after the name are passed over", %{u: u} do
        socket = RawPeer.open(u.node)
        name = Net.name("raw")
        flags = RawPeer.pass_through() ||| 1 <<< 60
        :ok = :gen_tcp.send(socket, [RawPeer.send_name(name, flags), "more"])
        assert {:ok, "ok"} = RawPeer.status(socket)
        {:ok, raw} = RawPeer.prove(socket, u.node, name, RawPeer.pass_through())
        RawPeer.round_trip(raw)
        RawPeer.close(raw)
      end

      test "bytes that are no handshake cost that socket only", %{u: u} do
        for bytes <- [
              <<0, 0>>,
              <<0, 1, "x">>,
              <<0, 3, "n", 0, 5>>,
              <<0, 5, "GET /">>,
              <<0, 20, "N", 0::64, 0::32, 0xFFFF::16, "short">>
            ] do
          socket = RawPeer.open(u.node)
          :ok = :inet.setopts(socket, packet: 0)
          :ok = :gen_tcp.send(socket, bytes)
          RawPeer.await_closed(socket)
        end

        assert Target.on(u, :add, [1, 2]) == 3
      end

      test "a name longer than 255 characters costs that socket only", %{u: u} do
        socket = RawPeer.open(u.node)
        name = String.duplicate("n", 250) <> "@127.0.0.1"
        :ok = :gen_tcp.send(socket, RawPeer.send_name(name, RawPeer.pass_through()))
        RawPeer.await_closed(socket)
        assert Target.on(u, :add, [1, 2]) == 3
      end

      test "check 15: a peer without a name of its own gets one, or not_allowed", %{u: u} do
        socket = RawPeer.open(u.node)
        flags = (RawPeer.pass_through() &&& bnot(RawPeer.published())) ||| RawPeer.name_me()

        case RawPeer.introduce(socket, "127.0.0.1", flags, 0) do
          {:ok, <<"named:", n::16, name::binary-size(n), creation::32>>} ->
            {:ok, raw} = RawPeer.prove(socket, u.node, String.to_atom(name), flags, creation)
            RawPeer.round_trip(raw)

          {:ok, "not_allowed"} ->
            assert u.kind == :rust
        end

        RawPeer.close(socket)
        assert Target.on(u, :add, [1, 2]) == 3
      end
    end

    describe "long and short names (#{kind})" do
      test "check 14: nodes with short names connect, in both directions" do
        u = Target.start(@kind, node: Net.name("u", "localhost"))
        p = Beam.start_peer(Net.name("p", "localhost"))
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        assert Beam.on(p, :erlang, :nodes, []) == [u.node]
        q = Beam.start_peer(Net.name("q", "localhost"))
        call = [u.node, :fixture, :rpc, [q.node, :erlang, :node, []]]
        assert Beam.on(p, :rpc, :call, call) == q.node
      end

      # OTP decides on the side that dials: it refuses a host without a dot when its own has one, and the other way round.
      test "check 14: a node with a long name and one with a short name stay apart", %{u: u} do
        p = Beam.start_peer(Net.name("p", "localhost"))
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pang
        assert Target.try_on(u, :rpc, [p.node, :erlang, :node, []]) == {:badrpc, :nodedown}
        assert Beam.on(p, :erlang, :nodes, []) == []
      end
    end

    describe "hidden peers (#{kind})" do
      test "check 16: a hidden BEAM connects, and neither lists the other as visible", %{u: u} do
        p = Beam.start_peer(Net.name("p"), hidden: true)
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        assert Beam.on(p, :erlang, :nodes, []) == []
        assert Beam.on(p, :erlang, :nodes, [:hidden]) == [u.node]
        assert p.node not in Target.on(u, :erlang, :nodes, [])
        assert Beam.on(p, :rpc, :call, [u.node, :fixture, :add, [1, 2]]) == 3
        assert Target.on(u, :rpc, [p.node, :fixture, :add, [1, 2]]) == 3
      end

      test "check 16: a hidden peer hears nothing of global, pg or rex", %{u: u} do
        raw = RawPeer.connect!(u.node, flags: RawPeer.pass_through() &&& bnot(RawPeer.published()))
        assert RawPeer.round_trip_with_greetings(raw) == []
        assert RawPeer.receive_signal(raw, 300) == :timeout
        RawPeer.close(raw)
      end
    end
  end
end
