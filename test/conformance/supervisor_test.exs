# Supervisors on U: the same stories for OTP's and for a Rust node's.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.SupervisorTest, kind) do
    use Support.Case, async: true, kind: kind

    @kills 100

    # Names that no other test has: of the supervisor, and of children a, b, c.
    defp names do
      unique = System.unique_integer([:positive])
      for name <- ~w(sup a b c), do: :"#{name}_#{unique}"
    end

    defp supervise(u, [sup | children], strategy, intensity, restarts) do
      Target.on(u, :supervise, [sup, strategy, intensity, Enum.zip(children, restarts)])
    end

    defp permanent(u, names, strategy),
      do: supervise(u, names, strategy, {@kills, 3600}, [:permanent, :permanent, :permanent])

    # Who has the name now, and takes calls; nobody, if it ends meanwhile.
    defp who(u, name) do
      GenServer.call({name, u.node}, :who, 60_000)
    catch
      :exit, {reason, {GenServer, :call, _}} when reason != :timeout -> nil
    end

    defp successor(u, name, pid) do
      eventually(fn ->
        now = who(u, name)
        now != pid && now
      end)
    end

    defp kill(u, pid), do: Target.on(u, :exit_signal, [pid, :kill])

    defp assert_exit(pid, reason) do
      receive do
        {:EXIT, ^pid, seen} -> assert seen == reason
      after
        60_000 -> flunk("no exit of #{inspect(pid)}")
      end
    end

    defp assert_down(monitor, reason) do
      receive do
        {:DOWN, ^monitor, :process, _, seen} -> assert seen == reason
      after
        60_000 -> flunk("no down")
      end
    end

    test "check 77: a server is linked to, monitored and called by name while it is killed", %{u: u} do
      [_, a | _] = names = names()
      permanent(u, names, :one_for_one)
      Process.flag(:trap_exit, true)

      # Others call it all the time: whatever is answered comes from one of its lives.
      callers =
        for _ <- 1..4 do
          Task.async(fn ->
            Stream.repeatedly(fn -> who(u, a) end)
            |> Enum.reduce_while(MapSet.new(), fn pid, seen ->
              receive do
                :stop -> {:halt, seen}
              after
                0 -> {:cont, if(pid, do: MapSet.put(seen, pid), else: seen)}
              end
            end)
          end)
        end

      lives =
        Enum.scan(1..@kills, who(u, a), fn _, pid ->
          Process.link(pid)
          by_pid = Process.monitor(pid)
          by_name = Process.monitor({a, u.node})
          # Both are there before it is killed: the connection keeps the order.
          assert GenServer.call({a, u.node}, :who) == pid
          kill(u, pid)
          assert_exit(pid, :killed)
          assert_down(by_pid, :killed)
          assert_down(by_name, :killed)
          successor(u, a, pid)
        end)

      for caller <- callers, do: send(caller.pid, :stop)
      seen = callers |> Enum.map(&Task.await(&1, 60_000)) |> Enum.reduce(&MapSet.union/2)
      assert length(Enum.uniq(lives)) == @kills
      assert MapSet.size(seen) > 1
    end

    for {strategy, restarted} <- [one_for_one: [:b], rest_for_one: [:b, :c], one_for_all: [:a, :b, :c]] do
      test "check 77: #{strategy}", %{u: u} do
        [_ | children] = names = names()
        permanent(u, names, unquote(strategy))
        before = Enum.map(children, &who(u, &1))
        kill(u, Enum.at(before, 1))

        for {name, letter, pid} <- Enum.zip([children, [:a, :b, :c], before]) do
          if letter in unquote(restarted) do
            successor(u, name, pid)
          else
            assert who(u, name) == pid
          end
        end
      end
    end

    test "check 77: who is restarted is a matter of the reason", %{u: u} do
      [sup, permanent, transient, temporary] = names = names()
      supervise(u, names, :one_for_one, {@kills, 3600}, [:permanent, :transient, :temporary])
      fail = fn name, reason -> GenServer.cast({name, u.node}, {:fail, reason}) end

      for reason <- [:normal, :shutdown, {:shutdown, :done}, :crash] do
        pid = who(u, permanent)
        fail.(permanent, reason)
        successor(u, permanent, pid)
      end

      pid = who(u, transient)
      fail.(transient, :crash)
      successor(u, transient, pid)
      fail.(transient, {:shutdown, :done})
      fail.(temporary, :crash)

      eventually(fn ->
        children = Supervisor.which_children({sup, u.node})
        match?([{^transient, :undefined, :worker, _}, {^permanent, _, :worker, _}], children)
      end)
    end

    test "check 77: Supervisor's functions", %{u: u} do
      [sup, a, b, c] = names = names()
      permanent(u, names, :one_for_one)
      sup = {sup, u.node}
      [pid_a, pid_b, pid_c] = for name <- [a, b, c], do: who(u, name)

      children = for {id, pid, kind, _modules} <- Supervisor.which_children(sup), do: {id, pid, kind}
      assert children == [{c, pid_c, :worker}, {b, pid_b, :worker}, {a, pid_a, :worker}]
      assert Supervisor.count_children(sup) == %{specs: 3, active: 3, supervisors: 0, workers: 3}

      assert Supervisor.restart_child(sup, b) == {:error, :running}
      assert Supervisor.delete_child(sup, b) == {:error, :running}
      assert Supervisor.terminate_child(sup, b) == :ok
      assert who(u, b) == nil
      assert Supervisor.count_children(sup) == %{specs: 3, active: 2, supervisors: 0, workers: 3}
      assert {:ok, pid} = Supervisor.restart_child(sup, b)
      assert who(u, b) == pid
      assert Supervisor.terminate_child(sup, b) == :ok
      assert Supervisor.delete_child(sup, b) == :ok

      for function <- [:terminate_child, :restart_child, :delete_child],
          do: assert(apply(Supervisor, function, [sup, b]) == {:error, :not_found})

      assert [{^c, ^pid_c, :worker, _}, {^a, ^pid_a, :worker, _}] = Supervisor.which_children(sup)
    end

    test "check 77: a supervisor ends for the reasons of OTP, and its children with it", %{u: u} do
      Process.flag(:trap_exit, true)

      ends = fn end_it, reason, of_children ->
        names = [sup | children] = names()
        pid = supervise(u, names, :one_for_one, {1, 3600}, [:permanent, :permanent, :permanent])
        monitors = for name <- children, do: Process.monitor({name, u.node})
        Process.link(pid)
        monitor = Process.monitor({sup, u.node})
        end_it.(pid, names)
        assert_exit(pid, reason)
        assert_down(monitor, reason)
        for child <- monitors, of_children != nil, do: assert_down(child, of_children)
        for name <- children, do: assert(eventually(fn -> who(u, name) == nil end))
      end

      ends.(fn pid, _ -> kill(u, pid) end, :killed, :killed)
      ends.(fn _, [sup | _] -> Supervisor.stop({sup, u.node}) end, :normal, :shutdown)

      ends.(
        fn _, [sup | _] -> Supervisor.stop({sup, u.node}, {:shutdown, :moved}) end,
        {:shutdown, :moved},
        :shutdown
      )

      # One restart is borne, two are too many.
      ends.(
        fn _, [_, a | _] ->
          pid = who(u, a)
          kill(u, pid)
          kill(u, successor(u, a, pid))
        end,
        :shutdown,
        nil
      )
    end

    test "check 77: what others send it is no reason to end", %{u: u} do
      [sup | _] = names = names()
      pid = permanent(u, names, :one_for_one)
      Process.exit(pid, :shutdown)
      send(pid, :hello)
      send(pid, {:EXIT, self(), :boom})
      assert Supervisor.count_children({sup, u.node}).active == 3
    end
  end
end
