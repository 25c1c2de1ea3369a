# Peers that stop in the middle of a handshake, and peers that stop answering.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.StallsTest, kind) do
    use Support.Case, async: true, kind: kind, start: false

    # OTP gives every step of a handshake 7 s (net_setuptime). A loaded machine adds to it, most of all where fifty wait at once.
    @setup_time 7_000
    @given_up (@setup_time - 500)..(@setup_time + 20_000)

    describe "stalled peers (#{kind})" do
      @describetag timeout: 120_000

      test "check 11: whoever dials and stalls is dropped after the setup time, at each step" do
        u = Target.start(@kind)

        says_nothing = fn -> RawPeer.open(u.node) end

        says_half = fn ->
          socket = RawPeer.open(u.node)
          :ok = :inet.setopts(socket, packet: 0)
          :ok = :gen_tcp.send(socket, <<0, 30, "N", 0>>)
          socket
        end

        does_not_reply = fn ->
          socket = RawPeer.open(u.node)
          {:ok, "ok"} = RawPeer.introduce(socket, Net.name("raw"), RawPeer.pass_through())
          {:ok, _} = RawPeer.challenge(socket)
          socket
        end

        does_not_insist = fn ->
          name = Net.name("raw")
          u.node |> RawPeer.connect!(name: name) |> RawPeer.round_trip()
          socket = RawPeer.open(u.node)
          {:ok, "alive"} = RawPeer.introduce(socket, name, RawPeer.pass_through())
          socket
        end

        crowd = for _ <- 1..50, do: says_nothing
        steps = [says_half, does_not_reply, does_not_insist | crowd]

        tasks =
          for step <- steps do
            Task.async(fn ->
              socket = step.()
              RawPeer.await_closed(socket, 60_000)
            end)
          end

        # Meanwhile U has time for others.
        p = Beam.start_peer(Net.name("p"))
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong

        for elapsed <- Task.await_many(tasks, 100_000) do
          assert elapsed in @given_up
        end
      end

      test "check 11: a thousand that say nothing do not exhaust U" do
        u = Target.start(@kind)
        sockets = for _ <- 1..1000, do: patient_open(u.node)
        p = Beam.start_peer(Net.name("p"))
        assert eventually(fn -> Beam.on(p, :net_adm, :ping, [u.node]) == :pong end)
        Enum.each(sockets, &RawPeer.close/1)
        assert Beam.on(p, :rpc, :call, [u.node, :fixture, :add, [1, 2]]) == 3
      end

      # The queue of a listening socket is short; whoever comes too fast is told to come again.
      defp patient_open(node), do: eventually(fn -> try_open(node) end)

      defp try_open(node) do
        case :gen_tcp.connect({127, 0, 0, 1}, Net.port_of(node), [:binary, active: false, packet: 2], 2_000) do
          {:ok, socket} -> socket
          {:error, _} -> nil
        end
      end

      test "check 11: U gives up on a peer that accepts and says nothing" do
        u = Target.start(@kind)
        listener = RawPeer.listen(Net.name("raw"))
        started = System.monotonic_time(:millisecond)
        task = Task.async(fn -> Target.try_on(u, :rpc, [listener.name, :erlang, :node, []]) end)
        {socket, _, _, _} = RawPeer.accept(listener)
        RawPeer.await_closed(socket, 60_000)
        elapsed = System.monotonic_time(:millisecond) - started
        assert elapsed in @given_up
        assert {:badrpc, _} = Task.await(task, 60_000)
      end
    end
  end
end
