# Connections that are idle, frozen or closed. The nodes of the first part tick for 4 s instead of 60.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.IdleTest, kind) do
    use Support.Case, async: true, kind: kind, start: false

    @ticktime 4

    test "check 28: a connection that carries nothing lives on for five tick times" do
      u = Target.start(@kind, net_ticktime: @ticktime)
      p = Beam.start_peer(Net.name("p"), net_ticktime: @ticktime)
      assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
      observer = Beam.on(p, Support.NodeObserver, :start, [])
      # What is tested is time itself.
      Process.sleep(5 * @ticktime * 1_000)
      assert Beam.on(p, Support.NodeObserver, :events, [observer]) == []
      assert Beam.on(p, :rpc, :call, [u.node, :erlang, :nodes, []]) == [p.node]
    end
  end

  defmodule Support.Target.module(Conformance.TicksTest, kind) do
    use Support.Case, async: true, kind: kind, start: false

    @ticktime 4
    # A silent peer is declared down after T to 1.25 T; OTP counts in quarters, and a loaded machine adds to it. With the tick time
    # that a node has of itself it would be 45 s at least.
    @earliest 3_000
    @latest 30_000

    # The tests' own node ticks for 60 s and stays away: U is asked through peers, and nobody introduces one to the other.
    defp start_u, do: Target.start(@kind, net_ticktime: @ticktime)

    defp start_peer,
      do: Beam.start_peer(Net.name("p"), net_ticktime: @ticktime, args: ["-kernel", "connect_all", "false"])

    defp connect(p, u) do
      assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
      Beam.on(p, Support.NodeObserver, :start, [])
    end

    defp milliseconds(fun) do
      started = System.monotonic_time(:millisecond)
      eventually(fun)
      System.monotonic_time(:millisecond) - started
    end

    test "check 28: a frozen P is declared down by U, and can come back" do
      u = start_u()
      p = start_peer()
      q = start_peer()
      connect(p, u)
      connect(q, u)
      nodes = fn -> Beam.on(q, :rpc, :call, [u.node, :erlang, :nodes, []]) end
      assert p.node in nodes.()

      frozen = Beam.os_pid(p)
      Beam.signal(frozen, :STOP)
      assert milliseconds(fn -> p.node not in nodes.() end) in @earliest..@latest
      assert q.node in nodes.()

      Beam.signal(frozen, :CONT)
      assert eventually(fn -> Beam.on(p, :net_adm, :ping, [u.node]) == :pong end)
      assert p.node in nodes.()
    end

    test "check 28: a frozen U is declared down by P, and can come back" do
      u = start_u()
      p = start_peer()
      observer = connect(p, u)
      Target.signal(u, :STOP)
      down = fn -> Beam.on(p, Support.NodeObserver, :events, [observer]) == [nodedown: u.node] end
      assert milliseconds(down) in @earliest..@latest
      Target.signal(u, :CONT)
      assert eventually(fn -> Beam.on(p, :net_adm, :ping, [u.node]) == :pong end)
      assert Beam.on(p, :rpc, :call, [u.node, :fixture, :add, [1, 2]]) == 3
    end

    test "check 28: U sends ticks to a peer that says nothing, then gives it up" do
      u = start_u()
      raw = RawPeer.connect!(u.node)
      started = System.monotonic_time(:millisecond)
      ticks = ticks_until_closed(raw, 0)
      assert ticks >= 2
      assert (System.monotonic_time(:millisecond) - started) in @earliest..@latest
    end

    test "check 28: ticks alone keep a connection, and any bytes count" do
      u = start_u()
      raw = RawPeer.connect!(u.node)

      # Twice the tick time, a tick or a message every second.
      for second <- 1..(2 * @ticktime) do
        if rem(second, 2) == 0,
          do: RawPeer.send_packet(raw, []),
          else: RawPeer.send_name_message(raw, :echo, :ignored)

        Process.sleep(1_000)
      end

      RawPeer.round_trip(raw)
      RawPeer.close(raw)
    end

    defp ticks_until_closed(raw, ticks) do
      case :gen_tcp.recv(raw.socket, 0, 60_000) do
        {:ok, ""} -> ticks_until_closed(raw, ticks + 1)
        {:ok, _} -> ticks_until_closed(raw, ticks)
        {:error, :closed} -> ticks
      end
    end
  end

  defmodule Support.Target.module(Conformance.ShutdownTest, kind) do
    use Support.Case, async: true, kind: kind, start: false

    # `connection_closed` is what a peer's clean exit looks like.
    for {how, stop} <- ["asked by a function": :function, "told by the operating system": :signal] do
      @stop stop
      test "check 30: U exits cleanly, #{how}: connection_closed" do
        u = Target.start(@kind)
        node = u.node
        echo = Target.on(u, :erlang, :whereis, [:echo])
        ref = Process.monitor(echo)
        # A round trip: the monitor is there.
        assert GenServer.call(echo, :hello) == :hello
        :ok = :net_kernel.monitor_nodes(true, [:nodedown_reason])

        case @stop do
          :function -> assert Target.on(u, :stop, []) == :ok
          :signal -> Target.signal(u, :TERM)
        end

        assert_receive {:nodedown, ^node, info}
        assert info[:nodedown_reason] == :connection_closed
        assert_received {:DOWN, ^ref, :process, ^echo, reason}
        # A BEAM first ends its processes; a process of a Rust node may end with the connection.
        assert reason in reasons(u.kind)
        assert {0, _} = OsProcess.await_exit(u.process)
        # epmd reads the end of the registration when it has its turn.
        eventually(fn -> Net.epmd_lookup(node) == :unknown end)
      end
    end

    defp reasons(:beam), do: [:noconnection, :killed, :shutdown]
    defp reasons(:rust), do: [:noconnection, :shutdown]
  end
end
