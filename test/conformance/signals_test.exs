# Links, monitors, exit signals and spawn requests between a BEAM node (the tests' own) and U, both directions.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.SignalsTest, kind) do
    use Support.Case, async: true, kind: kind

    # A process on U that answers like `echo`, and stops with Reason on {stop, Reason}.
    defp spawn_echo(u), do: Target.on(u, :spawn_echo, [])

    # A pid of U that ended long ago.
    defp dead(u) do
      pid = spawn_echo(u)
      ref = Process.monitor(pid)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
      pid
    end

    # A pid of an earlier life of U.
    defp stale_pid(u), do: stale(spawn_echo(u))

    # Everything `pid` had to tell this process has arrived when this returns.
    defp round_trip(pid) do
      unique = make_ref()
      send(pid, {self(), unique})
      assert_receive {_, ^unique}
    end

    # The connection has not been replaced behind the back of the test.
    defp watch_connection(u) do
      true = Node.monitor(u.node, true)
      fn -> refute_received {:nodedown, _} end
    end

    describe "monitors on U (#{kind})" do
      for reason <- [:normal, :shutdown, {:shutdown, "why"}, :kill, {:crashed, [1, 2.5, "three"]}] do
        @reason reason
        test "check 31: a process that exits with #{inspect(reason)}", %{u: u} do
          pid = spawn_echo(u)
          ref = Process.monitor(pid)
          send(pid, {:stop, @reason})
          reason = @reason
          assert_receive {:DOWN, ^ref, :process, ^pid, ^reason}
        end
      end

      test "check 31: a registered name", %{u: u} do
        ref = Process.monitor({:echo, u.node})
        round_trip({:echo, u.node})
        refute_received {:DOWN, ^ref, _, _, _}
        assert Process.demonitor(ref, [:flush, :info])
      end

      test "check 31: a dead pid, a pid of an earlier life, an unknown name: noproc", %{u: u} do
        node = u.node

        for pid <- [dead(u), stale_pid(u)] do
          ref = Process.monitor(pid)
          assert_receive {:DOWN, ^ref, :process, ^pid, :noproc}
        end

        ref = Process.monitor({:no_such_name, node})
        assert_receive {:DOWN, ^ref, :process, {:no_such_name, ^node}, :noproc}
      end

      test "check 31: many monitors on one process, each told once", %{u: u} do
        pid = spawn_echo(u)
        refs = for _ <- 1..500, do: Process.monitor(pid)
        send(pid, {:stop, :done})
        for ref <- refs, do: assert_receive({:DOWN, ^ref, :process, ^pid, :done})
        refute_received {:DOWN, _, _, _, _}
      end

      test "check 31: the connection is cut: noconnection", %{} do
        u = Target.start(@kind)
        pid = spawn_echo(u)
        by_pid = Process.monitor(pid)
        by_name = Process.monitor({:echo, u.node})
        round_trip(pid)
        Node.disconnect(u.node)
        assert_receive {:DOWN, ^by_pid, :process, ^pid, :noconnection}
        node = u.node
        assert_receive {:DOWN, ^by_name, :process, {:echo, ^node}, :noconnection}
      end

      test "check 32: demonitor with flush, while the process exits", %{u: u} do
        for _ <- 1..300 do
          pid = spawn_echo(u)
          ref = Process.monitor(pid)
          Process.exit(pid, :race)
          Process.demonitor(ref, [:flush])
          again = Process.monitor(pid)
          assert_receive {:DOWN, ^again, :process, ^pid, reason} when reason in [:race, :noproc]
          refute_received {:DOWN, ^ref, _, _, _}
        end
      end

      test "check 32: a monitor that is gone is not answered", %{u: u} do
        pid = spawn_echo(u)
        for _ <- 1..200, do: pid |> Process.monitor() |> Process.demonitor()
        kept = Process.monitor(pid)
        send(pid, {:stop, :end})
        assert_receive {:DOWN, ^kept, :process, ^pid, :end}
        refute_received {:DOWN, _, _, _, _}
      end
    end

    describe "monitors from U (#{kind})" do
      test "check 31, 39: a pid and a name of the BEAM node", %{u: u} do
        for reason <- [:normal, {:shutdown, 1}, {:crashed, "because"}] do
          pid = spawn(fn -> receive do: (:stop -> exit(reason)) end)
          Target.on(u, :watch, [pid, self()])
          assert_receive {:watching, watcher} when node(watcher) == u.node
          send(pid, :stop)
          assert_receive {:down, ^pid, ^reason}
        end

        name = :"watched_#{System.unique_integer([:positive])}"
        pid = spawn(fn -> receive do: (:stop -> exit(:by_name)) end)
        Process.register(pid, name)
        target = {name, node()}
        Target.on(u, :watch_name, [target, self()])
        assert_receive {:watching, _}
        send(pid, :stop)
        assert_receive {:down, ^target, :by_name}
      end

      test "check 31, 39: what is not there is noproc", %{u: u} do
        dead = spawn(fn -> :ok end)
        eventually(fn -> not Process.alive?(dead) end)
        Target.on(u, :watch, [dead, self()])
        assert_receive {:down, ^dead, :noproc}

        stale = stale(self())
        Target.on(u, :watch, [stale, self()])
        assert_receive {:down, ^stale, :noproc}

        target = {:no_such_name, node()}
        Target.on(u, :watch_name, [target, self()])
        assert_receive {:down, ^target, :noproc}
      end

      test "check 31, 39: a node that cannot be reached is noconnection", %{u: u} do
        target = {:anybody, Net.name("absent")}
        Target.on(u, :watch_name, [target, self()])
        assert_receive {:down, ^target, :noconnection}
      end

      test "check 32, 39: a monitor taken back", %{u: u} do
        pid = spawn(fn -> receive do: (:stop -> exit(:late)) end)
        Target.on(u, :monitor_then_demonitor, [pid, self()])
        assert_receive {:demonitored, _}
        send(pid, :stop)
        assert_receive quiet when quiet == :quiet or elem(quiet, 0) == :unexpected
        assert quiet == :quiet
      end
    end

    describe "links (#{kind})" do
      test "check 33: U's process ends and the BEAM's hears of it", %{u: u} do
        Process.flag(:trap_exit, true)

        for reason <- [:normal, :shutdown, {:shutdown, 1}, {:crashed, %{why: "x"}}, :kill] do
          pid = spawn_echo(u)
          Process.link(pid)
          send(pid, {:stop, reason})
          assert_receive {:EXIT, ^pid, ^reason}
        end

        pid = spawn_echo(u)
        Process.link(pid)
        Process.exit(pid, :kill)
        assert_receive {:EXIT, ^pid, :killed}
      end

      test "check 33: an abnormal reason kills a linked process that does not trap exits, a normal one does not",
           %{u: u} do
        for {reason, expected} <- [normal: :alive, boom: :boom, kill: :kill] do
          pid = spawn_echo(u)
          test = self()

          {linked, ref} =
            spawn_monitor(fn ->
              Process.link(pid)
              send(test, :linked)
              receive do: (:stop -> exit(:alive))
            end)

          assert_receive :linked
          send(pid, {:stop, reason})
          if expected == :alive, do: assert_down(pid) && send(linked, :stop)
          assert_receive {:DOWN, ^ref, :process, ^linked, ^expected}
        end
      end

      # Waits until U has told of the end of this process; what it told before has arrived then, too.
      defp assert_down(pid) do
        ref = Process.monitor(pid)
        assert_receive {:DOWN, ^ref, :process, ^pid, _}
      end

      test "check 33: the BEAM's process ends and U's hears of it", %{u: u} do
        for reason <- [:normal, :boom, {:crashed, [<<1, 2, 3>>]}] do
          pid = spawn(fn -> receive do: (:stop -> exit(reason)) end)
          Target.on(u, :linker, [pid, self()])
          assert_receive {:linked, _}
          send(pid, :stop)
          assert_receive {:exit_seen, ^pid, ^reason}
        end

        pid = spawn(fn -> receive do: (:stop -> :ok) end)
        Target.on(u, :linker, [pid, self()])
        assert_receive {:linked, _}
        Process.exit(pid, :kill)
        assert_receive {:exit_seen, ^pid, :killed}
      end

      test "check 33: a process of U that does not trap exits dies with its link, unless the reason is normal",
           %{u: u} do
        for {reason, expected} <- [boom: :boom, kill: :kill, normal: :asked] do
          test = self()

          pid =
            spawn(fn ->
              linked = Target.on(u, :spawn_linked, [self()])
              send(test, {:linked, linked})
              receive do: (:stop -> exit(reason))
            end)

          assert_receive {:linked, linked}
          ref = Process.monitor(linked)
          # The link has been made when U's process answers: it makes it before anything else.
          round_trip(linked)
          send(pid, :stop)
          if expected == :asked, do: round_trip(linked) && send(linked, {:stop, :asked})
          assert_receive {:DOWN, ^ref, :process, ^linked, ^expected}
        end
      end

      test "check 33: a link to what is not there is noproc", %{u: u} do
        Process.flag(:trap_exit, true)

        for pid <- [dead(u), stale_pid(u)] do
          Process.link(pid)
          assert_receive {:EXIT, ^pid, :noproc}
        end

        dead = spawn(fn -> :ok end)
        eventually(fn -> not Process.alive?(dead) end)

        for pid <- [dead, stale(self())] do
          Target.on(u, :linker, [pid, self()])
          assert_receive {:exit_seen, ^pid, :noproc}
        end
      end

      test "check 33: the connection is cut: noconnection on both sides", %{} do
        Process.flag(:trap_exit, true)
        u = Target.start(@kind)
        p = Beam.start_peer(Net.name("p"))
        # U's process is linked to one of P, and reports to this node.
        on_p = Beam.on(p, :erlang, :spawn, [:timer, :sleep, [:infinity]])
        Target.on(u, :linker, [on_p, self()])
        assert_receive {:linked, _}
        eventually(fn -> u.node in Beam.on(p, :erlang, :nodes, []) end)
        assert Beam.on(p, :erlang, :disconnect_node, [u.node])
        assert_receive {:exit_seen, ^on_p, :noconnection}

        pid = spawn_echo(u)
        Process.link(pid)
        round_trip(pid)
        Node.disconnect(u.node)
        assert_receive {:EXIT, ^pid, :noconnection}
      end

      test "check 33: unlink from both sides", %{u: u} do
        Process.flag(:trap_exit, true)
        pid = spawn_echo(u)
        Process.link(pid)
        Process.unlink(pid)
        send(pid, {:stop, :boom})
        assert_down(pid)
        refute_received {:EXIT, _, _}

        other = spawn(fn -> receive do: (:stop -> exit(:boom)) end)
        Target.on(u, :link_then_unlink, [other, self()])
        assert_receive {:unlinked, _}
        send(other, :stop)
        assert_receive quiet when quiet == :quiet or elem(quiet, 0) == :unexpected
        assert quiet == :quiet
      end

      test "check 34: a storm of links and unlinks from the BEAM ends with none", %{u: u} do
        pid = spawn_echo(u)
        test = self()

        {storm, ref} =
          spawn_monitor(fn ->
            for _ <- 1..10_000, do: Process.link(pid) && Process.unlink(pid)
            send(test, :done)
            receive do: (:stop -> exit(:survived))
          end)

        assert_receive :done
        send(pid, {:stop, :boom})
        assert_down(pid)
        send(storm, :stop)
        assert_receive {:DOWN, ^ref, :process, ^storm, :survived}
      end

      test "check 34: storms from both sides at once leave the one link that was made last", %{u: u} do
        Process.flag(:trap_exit, true)
        pid = spawn_echo(u)
        victims = for _ <- 1..100, do: spawn(fn -> receive do: (:stop -> exit(:boom)) end)
        for victim <- victims, do: Target.on(u, :link_then_unlink, [victim, self()])
        for _ <- 1..2_000, do: Process.link(pid) && Process.unlink(pid)
        Process.link(pid)
        for _ <- victims, do: assert_receive({:unlinked, _})
        for victim <- victims, do: send(victim, :stop)
        for _ <- victims, do: assert_receive(:quiet)
        send(pid, {:stop, :last})
        assert_receive {:EXIT, ^pid, :last}
        refute_received {:EXIT, _, _}
        refute_received {:unexpected, _}
      end

      test "check 34: every UNLINK_ID is acknowledged once, with its own id, also without a link or a process",
           %{u: u} do
        raw = RawPeer.connect!(u.node)
        me = RawPeer.pid(raw, 1)
        pid = spawn_echo(u)
        n = 10_000

        Task.async(fn ->
          for id <- 1..n do
            RawPeer.send_signal(raw, {1, me, pid})
            RawPeer.send_signal(raw, {35, id, me, pid})
          end
        end)

        ids =
          for _ <- 1..n do
            {id, _} =
              RawPeer.receive_until(raw, fn control, _ ->
                match?({36, _, ^pid, ^me}, control) && elem(control, 1)
              end)

            id
          end

        assert ids == Enum.to_list(1..n)

        dead = dead(u)
        RawPeer.send_signal(raw, {35, 0xFFFFFFFFFFFFFFFF, me, dead})

        {_, _} =
          RawPeer.receive_until(raw, fn control, _ -> control == {36, 0xFFFFFFFFFFFFFFFF, dead, me} end)

        # No link is left: nothing is heard of the end of the process.
        send(pid, {:stop, :boom})
        assert_down(pid)
        refute Enum.any?(RawPeer.round_trip(raw), fn {control, _} -> elem(control, 0) in [3, 24, 36] end)
        RawPeer.close(raw)
      end
    end

    describe "exit/2 (#{kind})" do
      test "check 35: kill is untrappable and becomes killed", %{u: u} do
        pid = spawn_echo(u)
        ref = Process.monitor(pid)
        Process.exit(pid, :kill)
        assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
      end

      test "check 35: normal is ignored, another reason ends the process", %{u: u} do
        pid = spawn_echo(u)
        ref = Process.monitor(pid)
        Process.exit(pid, :normal)
        round_trip(pid)
        refute_received {:DOWN, ^ref, _, _, _}
        Process.exit(pid, {:reason, %{any: "term"}})
        assert_receive {:DOWN, ^ref, :process, ^pid, {:reason, %{any: "term"}}}
      end

      test "check 35: a process that traps exits gets a message", %{u: u} do
        # `linker` waits for the exit of its peer with exits trapped, and is not disturbed by others.
        pid = spawn(fn -> receive do: (:stop -> exit(:end)) end)
        linker = Target.on(u, :linker, [pid, self()])
        assert_receive {:linked, ^linker}
        ref = Process.monitor(linker)
        Process.exit(linker, :ignored_by_its_receive)
        Process.exit(linker, :normal)
        send(pid, :stop)
        assert_receive {:exit_seen, ^pid, :end}
        assert_receive {:DOWN, ^ref, :process, ^linker, :normal}
      end

      test "check 35, 39: sent by a process of U", %{u: u} do
        {pid, ref} = spawn_monitor(fn -> Process.sleep(:infinity) end)
        assert Target.on(u, :exit_signal, [pid, {:from, "u"}]) == true
        assert_receive {:DOWN, ^ref, :process, ^pid, {:from, "u"}}

        {pid, ref} = spawn_monitor(fn -> Process.sleep(:infinity) end)
        Target.on(u, :exit_signal, [pid, :kill])
        assert_receive {:DOWN, ^ref, :process, ^pid, :killed}

        {pid, ref} = spawn_monitor(fn -> receive do: (:stop -> exit(:alive)) end)
        Target.on(u, :exit_signal, [pid, :normal])
        Target.on(u, :send, [pid, :stop])
        assert_receive {:DOWN, ^ref, :process, ^pid, :alive}
      end
    end

    describe "spawn on U (#{kind})" do
      test "check 36: spawn", %{u: u} do
        pid = Node.spawn(u.node, :fixture, :echo_loop, [])
        assert node(pid) == u.node
        round_trip(pid)
      end

      test "check 36: spawn_link", %{u: u} do
        Process.flag(:trap_exit, true)
        pid = Node.spawn_link(u.node, :fixture, :exit, [{:linked, 1}])
        assert_receive {:EXIT, ^pid, {:linked, 1}}
        pid = Node.spawn_link(u.node, :fixture, :add, [1, 2])
        assert_receive {:EXIT, ^pid, :normal}
      end

      test "check 36: spawn_monitor", %{u: u} do
        {pid, ref} = :erlang.spawn_monitor(u.node, :fixture, :exit, [{:monitored, 1}])
        assert node(pid) == u.node
        assert_receive {:DOWN, ^ref, :process, ^pid, {:monitored, 1}}
        {pid, ref} = :erlang.spawn_monitor(u.node, :fixture, :add, [1, 2])
        assert_receive {:DOWN, ^ref, :process, ^pid, :normal}
      end

      test "check 36: spawn_opt with link, monitor and the options of a process", %{u: u} do
        Process.flag(:trap_exit, true)

        options = [
          :link,
          :monitor,
          priority: :high,
          fullsweep_after: 0,
          min_heap_size: 1000,
          max_heap_size: %{size: 0, kill: true, error_logger: true},
          message_queue_data: :off_heap
        ]

        {pid, ref} = :erlang.spawn_opt(u.node, :fixture, :exit, [:both], options)
        assert_receive {:EXIT, ^pid, :both}
        assert_receive {:DOWN, ^ref, :process, ^pid, :both}
      end

      test "check 36: spawn_request and its reply", %{u: u} do
        request = :erlang.spawn_request(u.node, :fixture, :echo_loop, [], [:monitor, {:reply_tag, :answer}])
        assert_receive {:answer, ^request, :ok, pid}
        round_trip(pid)
        send(pid, {:stop, :over})
        assert_receive {:DOWN, ^request, :process, ^pid, :over}

        silent = :erlang.spawn_request(u.node, :fixture, :send, [self(), :hello], [{:reply, :no}])
        assert_receive :hello
        refute_received {:spawn_reply, ^silent, _, _}

        for unknown <- [:no_such_option, {:no_such_option, 1}] do
          refused = :erlang.spawn_request(u.node, :fixture, :add, [1, 2], [:link, unknown])
          assert_receive {:spawn_reply, ^refused, :error, :badopt}
        end
      end

      test "check 36: the reply comes before anything of the child, a thousand times", %{u: u} do
        requests =
          for _ <- 1..1000, do: :erlang.spawn_request(u.node, :fixture, :exit, [:at_once], [:monitor])

        for request <- requests do
          assert_receive {:spawn_reply, ^request, :ok, pid}
          assert_receive {:DOWN, ^request, :process, ^pid, :at_once}
        end
      end

      test "check 37: an unknown function: the child exits undef", %{u: u} do
        {pid, ref} = :erlang.spawn_monitor(u.node, :no_such_module, :f, [1, :two])

        assert_receive {:DOWN, ^ref, :process, ^pid, {:undef, [{:no_such_module, :f, [1, :two], []} | _]}}

        {pid, ref} = :erlang.spawn_monitor(u.node, :fixture, :no_such_function, [])

        assert_receive {:DOWN, ^ref, :process, ^pid, {:undef, [{:fixture, :no_such_function, [], []} | _]}}

        pid = Node.spawn(u.node, :no_such_module, :f, [])
        assert node(pid) == u.node
      end

      test "check 38: a closure fails without hanging", %{u: u} do
        captured = make_ref()
        {pid, ref} = :erlang.spawn_monitor(u.node, fn -> captured end)
        assert_receive {:DOWN, ^ref, :process, ^pid, {reason, stack}} when is_list(stack)
        # A node that lacks the module says undef, one that has another version says badfun.
        assert reason == :undef or match?({:badfun, _}, reason)

        assert {:badrpc, {:EXIT, {_, _}}} =
                 :rpc.call(u.node, :erlang, :apply, [fn -> captured end, []], 10_000)
      end
    end

    describe "spawn by U (#{kind})" do
      test "check 39: on the BEAM node", %{u: u} do
        pid = Target.on(u, :remote_spawn, [node(), Kernel, :send, [self(), {:spawned, :by_u}]])
        assert_receive {:spawned, :by_u}
        assert node(pid) == node()
        eventually(fn -> not Process.alive?(pid) end)
      end

      test "check 39: of an unknown function", %{u: u} do
        pid = Target.on(u, :remote_spawn, [node(), :no_such_module, :f, []])
        assert node(pid) == node()
        eventually(fn -> not Process.alive?(pid) end)
      end
    end

    describe "stale pids (#{kind})" do
      test "check 40: signals to pids of an earlier life of U do not cost the connection", %{u: u} do
        Process.flag(:trap_exit, true)
        connected = watch_connection(u)
        stale = stale_pid(u)
        alive = spawn_echo(u)

        for _ <- 1..10 do
          send(stale, :hello)
          send(stale, {self(), :answer_me})
          Process.exit(stale, :kill)
          ref = Process.monitor(stale)
          Process.demonitor(ref, [:flush])
          Process.link(stale)
          assert_receive {:EXIT, ^stale, :noproc}
          Process.group_leader(stale, self())

          assert catch_exit(GenServer.call(stale, :hello, 5_000)) ==
                   {:noproc, {GenServer, :call, [stale, :hello, 5_000]}}
        end

        # OTP 25 sends an UNLINK_ID here if it unlinks before it has heard of noproc, and then OTP closes the connection. A Rust
        # node does not, and says nothing that OTP would close it for.
        if @kind == :rust do
          for _ <- 1..50, do: Process.link(stale) && Process.unlink(stale)
        end

        round_trip(alive)
        refute_received {_, :answer_me}
        connected.()
      end

      test "check 40: signals of U to pids of an earlier life of the BEAM node do not cost the connection", %{
        u: u
      } do
        connected = watch_connection(u)
        stale = stale(self())
        assert Target.on(u, :send, [stale, :hello]) == :ok
        assert Target.on(u, :cast, [stale, :hello]) == :ok
        assert Target.on(u, :exit_signal, [stale, :kill]) == true
        Target.on(u, :watch, [stale, self()])
        assert_receive {:down, ^stale, :noproc}
        Target.on(u, :linker, [stale, self()])
        assert_receive {:exit_seen, ^stale, :noproc}
        Target.on(u, :monitor_then_demonitor, [stale, self()])
        assert_receive {:demonitored, _}
        linked = Target.on(u, :spawn_linked, [stale])
        ref = Process.monitor(linked)
        assert_receive {:DOWN, ^ref, :process, ^linked, :noproc}
        refute_received :hello
        connected.()

        # An UNLINK_ID to such a pid costs the connection: OTP 25 itself sends one here and is cut off. A Rust node is not.
        if @kind == :rust do
          Target.on(u, :link_then_unlink, [stale, self()])
          assert_receive {:unlinked, _}
          assert_receive answer when answer == :quiet or elem(answer, 0) == :unexpected
          assert Target.on(u, :add, [1, 2]) == 3
          connected.()
        end
      end

      test "check 40: a raw peer's signals to stale pids that OTP tolerates", %{u: u} do
        raw = RawPeer.connect!(u.node)
        me = RawPeer.pid(raw, 1)
        stale = stale_pid(u)
        ref = RawPeer.reference(raw, [1, 2, 3])

        RawPeer.send_signal(raw, {22, me, stale}, :hello)
        RawPeer.send_signal(raw, {1, me, stale})

        assert {_, _} =
                 RawPeer.receive_until(raw, fn control, reason ->
                   {control, reason} == {{24, stale, me}, :noproc}
                 end)

        RawPeer.send_signal(raw, {19, me, stale, ref})

        assert {_, _} =
                 RawPeer.receive_until(raw, fn control, reason ->
                   {control, reason} == {{28, stale, me, ref}, :noproc}
                 end)

        RawPeer.send_signal(raw, {20, me, stale, ref})
        RawPeer.send_signal(raw, {26, me, stale}, :kill)
        RawPeer.send_signal(raw, {28, me, stale, ref}, :whatever)
        RawPeer.send_signal(raw, {31, reference(u.node, creation(stale), [1, 2, 3]), stale, 0, me})
        assert RawPeer.round_trip(raw) == []
        RawPeer.close(raw)
      end
    end

    describe "the order of a loss (#{kind})" do
      test "check 41: links and monitors first, then nodedown, then the next nodeup", %{} do
        u = Target.start(@kind)
        Process.flag(:trap_exit, true)
        node = u.node
        pid = spawn_echo(u)
        Process.link(pid)
        ref = Process.monitor(pid)
        by_name = Process.monitor({:echo, node})
        round_trip(pid)
        :ok = :net_kernel.monitor_nodes(true)
        Target.kill(u)
        # The next incarnation, and the first sign of it.
        eventually(fn -> Net.epmd_lookup(node) == :unknown end)
        again = Target.start(@kind, node: node)
        assert :net_adm.ping(again.node) == :pong
        eventually(fn -> {:nodeup, node} in messages() end)
        :ok = :net_kernel.monitor_nodes(false)

        about_u = fn
          {:EXIT, p, _} -> p == pid
          {:DOWN, r, :process, _, _} -> r in [ref, by_name]
          {event, n} -> event in [:nodeup, :nodedown] and n == node
          _ -> false
        end

        {signals, nodes} = messages() |> Enum.filter(about_u) |> Enum.split(3)
        assert nodes == [nodedown: node, nodeup: node]

        assert Enum.sort(signals) ==
                 Enum.sort([
                   {:EXIT, pid, :noconnection},
                   {:DOWN, ref, :process, pid, :noconnection},
                   {:DOWN, by_name, :process, {:echo, node}, :noconnection}
                 ])
      end

      defp messages do
        {:messages, messages} = Process.info(self(), :messages)
        messages
      end
    end
  end
end
