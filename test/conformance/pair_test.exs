# Two nodes under test, of every combination of kinds: the tests' own node only asks them. `bin/test releases` adds BEAM nodes
# of other releases of OTP (check 73).
kinds = Support.Target.kinds() ++ Support.Releases.kinds()

for kind <- kinds, other <- kinds do
  other_name = other |> Atom.to_string() |> String.capitalize()

  defmodule Module.concat(Support.Target.module(Conformance.PairTest, kind), "With#{other_name}") do
    use Support.Case, async: true, kind: kind
    @other other

    setup_all do
      # Smaller than U's name.
      %{v: Target.start(@other, prefix: "s")}
    end

    test "U calls, casts, sends to and asks V", %{u: u, v: v} do
      term = {:request, %{pid: self(), list: [1, 2.5, "three"], atom: :ä}, <<5::3>>}
      assert Target.on(u, :call, [{:echo, v.node}, term, 5_000]) == term
      echo = Target.on(v, :erlang, :whereis, [:echo])
      assert Target.on(u, :call, [echo, term, :infinity]) == term
      assert Target.on(u, :cast, [{:echo, v.node}, {:send, self(), :by_v}]) == :ok
      assert_receive :by_v
      assert Target.on(u, :send, [echo, {self(), :to_a_pid}]) == :ok
      assert_receive {^echo, :to_a_pid}
      assert Target.on(u, :rpc, [v.node, :fixture, :add, [1, 2]]) == 3
      assert Target.on(u, :rpc, [v.node, :erlang, :node, []]) == v.node
      assert v.node in Target.on(u, :erlang, :nodes, [])
      assert u.node in Target.on(v, :erlang, :nodes, [])

      assert {:badrpc, {:EXIT, {:noproc, {:gen_server, :call, _}}}} =
               Target.try_on(u, :call, [{:no_such_name, v.node}, :hello, 5_000])

      assert {:badrpc, {:EXIT, {:undef, [{:no_such_module, :f, [], []} | _]}}} =
               Target.try_on(u, :rpc, [v.node, :no_such_module, :f, []])

      assert {:badrpc, {:EXIT, :left}} = Target.try_on(u, :rpc, [v.node, :fixture, :exit, [:left]])
    end

    test "U monitors and links processes of V", %{u: u, v: v} do
      for reason <- [:normal, {:shutdown, 1}, {:crashed, "because"}] do
        pid = Target.on(v, :spawn_echo, [])
        Target.on(u, :watch, [pid, self()])
        Target.on(u, :linker, [pid, self()])
        assert_receive {:watching, _}
        assert_receive {:linked, _}
        # What U sent to V before is there when V's answer to U is.
        assert Target.on(u, :call, [pid, :there, 5_000]) == :there
        send(pid, {:stop, reason})
        assert_receive {:down, ^pid, ^reason}
        assert_receive {:exit_seen, ^pid, ^reason}
      end

      # The last one is dead.
      dead = Target.on(v, :spawn_echo, [])
      Process.exit(dead, :kill)
      eventually(fn -> Target.on(v, :erlang, :is_process_alive, [dead]) == false end)

      for pid <- [dead, stale(dead)] do
        Target.on(u, :watch, [pid, self()])
        assert_receive {:down, ^pid, :noproc}
        Target.on(u, :linker, [pid, self()])
        assert_receive {:exit_seen, ^pid, :noproc}
      end

      unknown = {:no_such_name, v.node}
      Target.on(u, :watch_name, [unknown, self()])
      assert_receive {:down, ^unknown, :noproc}
    end

    test "U spawns on V and sends exit signals to it", %{u: u, v: v} do
      pid = Target.on(u, :remote_spawn, [v.node, :fixture, :echo_loop, []])
      assert node(pid) == v.node
      ref = Process.monitor(pid)
      send(pid, {self(), :alive})
      assert_receive {^pid, :alive}
      Target.on(u, :exit_signal, [pid, :normal])
      assert Target.on(u, :call, [pid, :alive, 5_000]) == :alive
      Target.on(u, :exit_signal, [pid, {:by, :u}])
      assert_receive {:DOWN, ^ref, :process, ^pid, {:by, :u}}
    end

    test "large messages and many atoms between U and V", %{u: u, v: v} do
      for size <- [65_535, 65_536, 65_537, 3_000_000] do
        binary = :binary.copy(<<size::64>>, div(size, 8) + 1) |> binary_part(0, size)
        assert Target.on(u, :call, [{:echo, v.node}, binary, 30_000]) === binary
      end

      atoms = for i <- 1..3_000, do: :"pair_#{i}"

      for _ <- 1..2,
          do: assert(Target.on(u, :call, [{:echo, v.node}, Enum.shuffle(atoms), 30_000]) -- atoms == [])

      deep = nested(100_000)
      assert Target.on(u, :call, [{:echo, v.node}, deep, 30_000]) === deep
      assert Target.on(v, :call, [{:sink, v.node}, :reset, 5_000]) == :ok
      assert Target.on(u, :flood, [{:sink, v.node}, :message, 20_000]) == :ok
      eventually(fn -> Target.on(v, :call, [{:sink, v.node}, :count, 5_000]) == 20_000 end)
    end

    for {greater, prefix} <- ["greater than U's": "z", "smaller than U's": "a"] do
      @prefix prefix
      test "both dial at once, V's name is #{greater}", %{u: u} do
        v = Target.start(@other, prefix: @prefix)

        [a, b] =
          Task.await_many(
            [
              Task.async(fn -> Target.on(u, :rpc, [v.node, :fixture, :add, [1, 2]]) end),
              Task.async(fn -> Target.on(v, :rpc, [u.node, :fixture, :add, [3, 4]]) end)
            ],
            60_000
          )

        assert {a, b} == {3, 7}
        assert Enum.count(Target.on(u, :erlang, :nodes, []), &(&1 == v.node)) == 1
      end
    end

    test "V is killed: U's processes hear noconnection, and V can come back", %{u: u} do
      v = Target.start(@other)
      echo = Target.on(v, :erlang, :whereis, [:echo])
      Target.on(u, :watch, [echo, self()])
      Target.on(u, :linker, [echo, self()])
      assert_receive {:watching, _}
      assert_receive {:linked, _}
      # It does not read what it is sent.
      sleeper = Node.spawn(v.node, :fixture, :sleep, [60_000])
      call = Task.async(fn -> Target.try_on(u, :call, [sleeper, :hello, :infinity]) end)
      assert Target.on(u, :call, [echo, :there, 5_000]) == :there
      eventually(fn -> v.node in Target.on(u, :erlang, :nodes, []) end)
      Target.kill(v)
      assert_receive {:down, ^echo, :noconnection}
      assert_receive {:exit_seen, ^echo, :noconnection}
      v_node = v.node
      assert {:badrpc, {:EXIT, {{:nodedown, ^v_node}, {:gen_server, :call, _}}}} = Task.await(call, 60_000)
      assert v.node not in Target.on(u, :erlang, :nodes, [])

      eventually(fn -> Net.epmd_lookup(v.node) == :unknown end)
      again = Target.start(@other, node: v.node)
      assert Target.on(u, :rpc, [again.node, :fixture, :add, [1, 2]]) == 3
    end
  end
end
