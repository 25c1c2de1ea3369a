# Packets: large ones, many at once, and bytes that are none.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.FramingTest, kind) do
    use Support.Case, async: true, kind: kind
    import Bitwise

    defp pattern(size, seed \\ 1) do
      block = for i <- 0..4095, into: "", do: <<(i * seed * 2_654_435_761) >>> 7 &&& 0xFFFFFFFF::32>>
      block |> :binary.copy(div(size, byte_size(block)) + 1) |> binary_part(0, size)
    end

    defp echo(u, term, timeout) do
      send({:echo, u.node}, {self(), term})
      assert_receive {pid, back} when node(pid) == u.node, timeout
      back
    end

    describe "large messages (#{kind})" do
      for size <- [65_535, 65_536, 65_537, 131_072, 1_000_000, 64_000_000] do
        @size size
        @tag timeout: 180_000
        test "check 22: #{size} bytes there and back", %{u: u} do
          binary = pattern(@size)
          # Compared by a digest first: a difference of 64 MB is not worth printing.
          back = echo(u, binary, 120_000)
          assert byte_size(back) == @size
          assert :erlang.md5(back) == :erlang.md5(binary)
        end
      end

      test "check 22: around the border of a fragment, byte by byte", %{u: u} do
        for size <- 65_400..65_560//7 do
          binary = pattern(size)
          assert echo(u, binary, 30_000) === binary
        end
      end

      test "check 22: a large reason, a large argument, a large result", %{u: u} do
        large = pattern(300_000)
        {pid, ref} = :erlang.spawn_monitor(u.node, :fixture, :exit, [large])
        assert_receive {:DOWN, ^ref, :process, ^pid, reason}
        assert reason === large
        assert Target.on(u, :call, [{:echo, u.node}, large, 30_000]) === large
        Process.flag(:trap_exit, true)
        pid = Target.on(u, :spawn_linked, [self()])
        send(pid, {self(), :linked?})
        assert_receive {^pid, :linked?}
        Process.exit(pid, large)
        assert_receive {:EXIT, ^pid, reason}
        assert reason === large
      end

      test "check 22: large, and full of atoms", %{u: u} do
        term = for i <- 1..8_000, do: {:"fragment_#{rem(i, 400)}", pid(:n@h, i, 0, 1), "value #{i}"}
        for _ <- 1..3, do: assert(echo(u, term, 30_000) === term)
      end

      test "check 23: fifty senders of large and small messages, each in its order", %{u: u} do
        senders =
          for sender <- 1..50 do
            Task.async(fn ->
              sizes = for i <- 1..12, do: if(rem(i + sender, 3) == 0, do: 150_000 + 997 * i, else: 10 * i)

              for {size, i} <- Enum.with_index(sizes),
                  do: send({:echo, u.node}, {self(), {i, pattern(size, sender)}})

              for {size, i} <- Enum.with_index(sizes) do
                assert_receive {pid, {number, binary}} when node(pid) == u.node, 60_000
                assert number == i
                assert binary === pattern(size, sender)
              end
            end)
          end

        Task.await_many(senders, 120_000)
      end

      test "check 23: the same from U's processes", %{u: u} do
        test = self()

        for sender <- 1..20, into: %{} do
          pid = Target.on(u, :spawn_echo, [])

          for i <- 1..10,
              do: GenServer.cast(pid, {:send, test, {sender, i, pattern(rem(i, 2) * 200_000 + 100, sender)}})

          {sender, pid}
        end

        for sender <- 1..20, i <- 1..10 do
          assert_receive {^sender, number, binary}, 60_000
          assert number == i
          assert binary === pattern(rem(i, 2) * 200_000 + 100, sender)
        end
      end
    end

    describe "limits (#{kind})" do
      test "check 24: a frame that announces more than U takes costs that connection only", %{u: u} do
        other = RawPeer.connect!(u.node)

        for length <- [0xFFFFFFFF, 0x7FFFFFFF, 1_073_741_824] do
          raw = RawPeer.connect!(u.node)
          :ok = :inet.setopts(raw.socket, packet: 0)
          :ok = :gen_tcp.send(raw.socket, <<length::32, 112, 131>>)
          # OTP waits for a gigabyte that was announced; a Rust node has a limit below it.
          if length > 1_073_741_824 or @kind == :rust, do: RawPeer.await_closed(raw)
          RawPeer.close(raw)
          RawPeer.round_trip(other)
        end

        RawPeer.close(other)
        assert Target.on(u, :add, [1, 2]) == 3
      end

      # OTP 25.2 crashes on a fragment with the number 0, and allocates what a large number announces.
      @tag kind: kind
      test "check 27: a count of fragments that is 0, or larger than any message", %{u: u} do
        if @kind == :rust do
          for count <- [0, 0xFFFFFFFFFFFFFFFF, 1 <<< 40] do
            raw = fragments(u)
            me = RawPeer.pid(raw, 1)
            control = versionless({22, me, Target.on(u, :erlang, :whereis, [:echo])})
            RawPeer.send_packet(raw, [<<131, 69, 5::64, count::64, 0>>, control, "part"])
            RawPeer.await_closed(raw)
          end
        end

        assert Target.on(u, :add, [1, 2]) == 3
      end

      defp fragments(u), do: RawPeer.connect!(u.node, flags: RawPeer.pass_through() ||| 0x800000)

      defp versionless(term) do
        <<131, bytes::binary>> = encode(term)
        bytes
      end

      test "check 27: fragments in order are one message, also with others in between", %{u: u} do
        raw = fragments(u)
        me = RawPeer.pid(raw, 1)
        echo = Target.on(u, :erlang, :whereis, [:echo])
        <<a::binary-size(3), b::binary-size(4), c::binary>> = versionless({echo_to(self()), "in three parts"})
        control = versionless({22, me, echo})
        RawPeer.send_packet(raw, [<<131, 69, 5::64, 3::64, 0>>, control, a])
        RawPeer.send_packet(raw, [<<131, 68, 0>>, control, versionless({self(), :in_between})])
        RawPeer.send_packet(raw, [<<131, 70, 5::64, 2::64>>, b])
        RawPeer.send_packet(raw, [<<131, 69, 6::64, 1::64, 0>>, control, versionless({self(), :complete})])
        RawPeer.send_packet(raw, [<<131, 70, 5::64, 1::64>>, c])
        assert_receive {^echo, :in_between}
        assert_receive {^echo, :complete}
        assert_receive {^echo, "in three parts"}
        RawPeer.close(raw)
      end

      defp echo_to(pid), do: pid

      test "check 27: fragments out of order, twice, or without a beginning", %{u: u} do
        echo = Target.on(u, :erlang, :whereis, [:echo])

        broken = [
          fn _ -> [[<<131, 70, 5::64, 1::64>>, "part"]] end,
          fn start -> [start, start] end,
          fn start -> [start, [<<131, 70, 5::64, 1::64>>, "part"]] end,
          fn start -> [start, [<<131, 70, 5::64, 3::64>>, "part"]] end,
          fn start -> [start, [<<131, 70, 6::64, 2::64>>, "part"]] end
        ]

        for packets <- broken do
          raw = fragments(u)

          start = [
            <<131, 69, 5::64, 3::64, 0>>,
            versionless({22, RawPeer.pid(raw, 1), echo}),
            <<109, 100::32>>
          ]

          for packet <- packets.(start), do: RawPeer.send_packet(raw, packet)
          RawPeer.await_closed(raw)
        end

        assert Target.on(u, :add, [1, 2]) == 3
      end
    end

    describe "bytes that are no packet (#{kind})" do
      test "check 27: cost that connection only", %{u: u} do
        other = RawPeer.connect!(u.node)
        echo = Target.on(u, :erlang, :whereis, [:echo])
        connected = Node.monitor(u.node, true)
        assert connected

        outcomes =
          for {what, packet} <- bad_packets() do
            Task.async(fn ->
              raw = RawPeer.connect!(u.node)
              RawPeer.send_packet(raw, packet.(RawPeer.pid(raw, 1), echo))
              # A round trip that comes back says that the connection was left open.
              RawPeer.send_name_message(raw, :echo, {RawPeer.pid(raw, 7), :still_open})
              outcome = what_follows(raw)
              RawPeer.close(raw)
              {what, outcome}
            end)
          end
          |> Task.await_many(30_000)

        still_open = for {what, :open} <- outcomes, do: what
        assert Enum.sort(still_open) == tolerated(u.kind)

        RawPeer.round_trip(other)
        RawPeer.close(other)
        assert Target.on(u, :add, [1, 2]) == 3
        refute_received {:nodedown, _}
      end

      # OTP does not look at the first byte where no distribution header is agreed. A Rust node passes over signals to pids of its
      # earlier lives: OTP 25 itself sends an UNLINK_ID to one.
      defp tolerated(:beam), do: ["a wrong head"]
      defp tolerated(:rust), do: ["an UNLINK_ID to an earlier life", "an exit to an earlier life"]

      defp what_follows(raw) do
        case RawPeer.receive_signal(raw) do
          :closed -> :closed
          {_, {_, :still_open}} -> :open
          {_, _} -> what_follows(raw)
        end
      end

      # What a raw peer without atom cache and fragments may not send. Each gets a pid of its own and the pid of U's `echo`.
      defp bad_packets do
        send_with = fn payload -> fn me, echo -> [112, encode({22, me, echo}), payload] end end
        control = fn control -> fn _, _ -> [112, control] end end

        %{
          "one byte" => fn _, _ -> [112] end,
          "a wrong head" => fn me, echo -> [113, encode({22, me, echo}), encode(:x)] end,
          "a distribution header where none is agreed" => fn me, echo ->
            [131, 68, 0, versionless({22, me, echo}), versionless(:x)]
          end,
          "a fragment where none is agreed" => fn _, _ -> [<<131, 70, 5::64, 1::64>>, "x"] end,
          "a control message without a version" => fn me, echo ->
            [112, versionless({22, me, echo}), encode(:x)]
          end,
          "a control message that is an atom" => control.(encode(:hello)),
          "an empty tuple" => control.(encode({})),
          "an operation that is an atom" => control.(encode({:send, 1, 2})),
          "an unknown operation" => control.(encode({99, 1, 2})),
          "an operation of long ago" => control.(encode({5})),
          "too few elements" => control.(encode({1, 2})),
          "a control message cut off" => control.(<<131, 104, 3, 97>>),
          "no payload" => fn me, echo -> [112, encode({22, me, echo})] end,
          "a payload cut off" => send_with.(<<131, 109, 100::32, "short">>),
          "a payload without a version" => send_with.(<<97, 1>>),
          "a tag that does not exist" => send_with.(<<131, 255>>),
          "not a number" => send_with.(<<131, 70, 0x7FF8000000000000::64>>),
          "infinity" => send_with.(<<131, 70, 0x7FF0000000000000::64>>),
          "a map with the same key twice" => send_with.(<<131, 116, 2::32, 97, 1, 97, 1, 97, 1, 97, 2>>),
          "an atom of 256 characters" =>
            send_with.(<<131, 118, 256::16, String.duplicate("a", 256)::binary>>),
          "an atom that is no UTF-8" => send_with.(<<131, 119, 2, 0xC3, 0x28>>),
          "an atom cache reference" => send_with.(<<131, 82, 0>>),
          "a list that announces more than follows" => send_with.(<<131, 108, 0xFFFFFFFF::32, 106>>),
          "a tuple that announces more than follows" => send_with.(<<131, 105, 0xFFFFFFFF::32, 106>>),
          "a big integer that announces more than follows" => send_with.(<<131, 111, 0xFFFFFFFF::32, 0, 1>>),
          "a bitstring with 9 bits in its last byte" => send_with.(<<131, 77, 1::32, 9, 1>>),
          "a compressed term that is none" => send_with.(<<131, 80, 1000::32, "not zlib">>),
          "a link from another node's pid" => fn _, echo ->
            [112, encode({1, pid(:other@h, 1, 0, 1), echo})]
          end,
          "a monitor from another node's pid" => fn _, echo ->
            [112, encode({19, pid(:other@h, 1, 0, 1), echo, reference(:other@h, 1, [1, 2, 3])})]
          end,
          "exit/2 from another node's pid" => fn _, echo ->
            [112, encode({26, pid(:other@h, 1, 0, 1), echo}), encode(:kill)]
          end,
          "a link to a third node's pid" => fn me, _ -> [112, encode({1, me, pid(:other@h, 1, 0, 1)})] end,
          "an exit to an earlier life" => fn me, echo -> [112, encode({24, me, stale(echo)}), encode(:x)] end,
          "an UNLINK_ID of 0" => fn me, echo -> [112, encode({35, 0, me, echo})] end,
          "an UNLINK_ID of 65 bits" => fn me, echo -> [112, encode({35, 1 <<< 64, me, echo})] end,
          "an UNLINK_ID to an earlier life" => fn me, echo -> [112, encode({35, 1, me, stale(echo)})] end,
          "a message to an atom as if it were a pid" => fn me, _ ->
            [112, encode({22, me, :echo}), encode(:x)]
          end
        }
      end

      test "check 27: an atom cache reference to an empty slot", %{u: u} do
        raw = RawPeer.connect!(u.node, flags: RawPeer.pass_through() ||| 0x2000)
        # One reference, known (not new), slot 7 of segment 0.
        RawPeer.send_packet(raw, [
          <<131, 68, 1, 0x00, 7>>,
          versionless({6, RawPeer.pid(raw, 1), :"", :echo}),
          versionless(:x)
        ])

        RawPeer.await_closed(raw)
        assert Target.on(u, :add, [1, 2]) == 3
      end

      test "check 27: an atom cache that is filled, used and filled again", %{u: u} do
        raw = RawPeer.connect!(u.node, flags: RawPeer.pass_through() ||| 0x2000)
        echo = Target.on(u, :erlang, :whereis, [:echo])
        control = versionless({22, RawPeer.pid(raw, 1), echo})
        message = fn index -> [<<104, 2>>, versionless(self()), <<82, index>>] end

        # Reference 0 is new: segment 7, slot 255.
        RawPeer.send_packet(raw, [<<131, 68, 1, 0x0F, 255, 5, "first">>, control, message.(0)])
        assert_receive {^echo, :first}
        RawPeer.send_packet(raw, [<<131, 68, 1, 0x07, 255>>, control, message.(0)])
        assert_receive {^echo, :first}

        # Two references, long lengths (the nibble after the last one); the slot is written over in the same header that uses it.
        RawPeer.send_packet(raw, [<<131, 68, 2, 0xF7, 0x01, 255, 255, 6::16, "second">>, control, message.(1)])

        assert_receive {^echo, :second}
        RawPeer.send_packet(raw, [<<131, 68, 1, 0x07, 255>>, control, message.(0)])
        assert_receive {^echo, :second}
        RawPeer.close(raw)
      end

      test "what OTP tolerates does not cost the connection", %{u: u} do
        raw = RawPeer.connect!(u.node)
        me = RawPeer.pid(raw, 1)
        echo = Target.on(u, :erlang, :whereis, [:echo])
        ref = RawPeer.reference(raw, [1, 2, 3])
        ours = reference(u.node, creation(echo), [1, 2, 3])
        other = pid(:other@h, 1, 0, 1)

        RawPeer.send_signal(raw, {24, me, echo}, :no_link)
        RawPeer.send_signal(raw, {3, me, echo, :no_link})
        RawPeer.send_signal(raw, {28, me, echo, ours}, :unknown)
        RawPeer.send_signal(raw, {21, me, echo, ours, :unknown})
        RawPeer.send_signal(raw, {36, 77, me, echo})
        RawPeer.send_signal(raw, {20, me, echo, ref})
        RawPeer.send_signal(raw, {20, me, :no_such_name, ref})
        RawPeer.send_signal(raw, {31, ours, echo, 0, me})
        RawPeer.send_signal(raw, {33, me, ours}, :no_alias)
        RawPeer.send_signal(raw, {33, me, reference(:other@h, 1, [1, 2, 3])}, :no_alias)
        RawPeer.send_signal(raw, {6, me, :"", :no_such_name}, :hello)
        RawPeer.send_signal(raw, {22, other, echo}, :from_another)
        RawPeer.send_signal(raw, {22, me, other}, :to_another)
        RawPeer.send_signal(raw, {2, :"", echo}, :old_operation)
        RawPeer.send_signal(raw, {7, other, echo})
        RawPeer.send_packet(raw, [112, encode({22, me, echo}), encode(:then), "bytes that follow"])
        RawPeer.send_packet(raw, [])
        RawPeer.send_signal(raw, {12, :"", echo, {1, 17, 2, me, 0}}, :traced)
        RawPeer.send_signal(raw, {23, me, echo, {1, 17, 2, me, 0}}, :traced)
        assert RawPeer.round_trip(raw) == []
        RawPeer.close(raw)
      end
    end

    describe "a flood (#{kind})" do
      test "check 29: to one process that does not read: others on the connection are served, senders are not held",
           %{} do
        u = Target.start(@kind)
        slow = Node.spawn(u.node, :fixture, :sleep, [60_000])
        message = pattern(1_000)
        flood = Task.async(fn -> for _ <- 1..50_000, do: send(slow, message) end)

        for i <- 1..20, do: assert(GenServer.call({:echo, u.node}, i, 20_000) == i)
        Task.await(flood, 60_000)
        assert GenServer.call({:echo, u.node}, :after_it, 20_000) == :after_it
      end

      test "check 29: by U to a process of the BEAM", %{u: u} do
        test = self()
        counter = Task.async(fn -> count(20_000, test) end)
        assert Target.on(u, :flood, [counter.pid, {:flood, pattern(100)}, 20_000]) == :ok
        assert Task.await(counter, 60_000) == 20_000
      end

      defp count(n, _test) do
        Enum.reduce(1..n, 0, fn _, counted ->
          receive do: ({:flood, _} -> counted + 1)
        end)
      end

      test "check 29: every message of a flood is counted", %{u: u} do
        assert GenServer.call({:sink, u.node}, :reset) == :ok
        for i <- 1..100_000, do: send({:sink, u.node}, {:message, i})
        assert GenServer.call({:sink, u.node}, :count, 60_000) == 100_000
      end
    end
  end
end
