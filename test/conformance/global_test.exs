# global: names and locks of a whole cluster, and what becomes of it when connections go.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.GlobalTest, kind) do
    use Support.Case, async: true, kind: kind, start: false
    alias Support.{Aftermath, Mesh}

    @moduletag timeout: 180_000

    defp start_beams(prefixes, opts \\ []),
      do: Enum.map(prefixes, &Target.start(:beam, [prefix: &1] ++ opts))

    # U and two BEAM nodes, one cluster.
    defp cluster(prefix \\ "u", opts \\ []) do
      [p, q] = start_beams(["p", "q"], opts)
      u = Target.start(@kind, [prefix: prefix] ++ opts)
      Mesh.join([u, p, q])
      %{u: u, p: p, q: q}
    end

    defp whereis(target, name), do: Target.on(target, :global, :whereis_name, [name])
    defp register(target, name, pid), do: Target.on(target, :global, :register_name, [name, pid])

    defp everywhere?(targets, name, pid), do: Enum.all?(targets, &(whereis(&1, name) == pid))

    describe "names (#{kind})" do
      for {order, prefix} <- [smaller: "a", greater: "z"] do
        @prefix prefix
        test "check 52: names of both sides are merged when U, whose name is #{order}, meets P" do
          u = Target.start(@kind, prefix: @prefix)
          [p] = start_beams(["p"])
          {:yes, on_u} = Target.on(u, :global_register, [:of_u])
          {:yes, on_p} = Target.on(p, :global_register, [:of_p])
          assert whereis(p, :of_u) == :undefined
          Mesh.dial(p, u)
          Mesh.await_joined([u, p])
          assert Mesh.names(u) == %{of_u: on_u, of_p: on_p}
          assert Mesh.names(p) == %{of_u: on_u, of_p: on_p}
          assert Enum.sort(Target.on(u, :global_names, [])) == [:of_p, :of_u]
          assert Target.on(u, :global_whereis, [:of_p]) == on_p
          assert Target.on(u, :global_whereis, [:nobody]) == :undefined
        end
      end

      test "check 53: what is registered on one node is seen on all, and taken on all" do
        %{u: u, p: p, q: q} = cluster()
        {:yes, on_u} = Target.on(u, :global_register, [:from_u])
        assert everywhere?([u, p, q], :from_u, on_u)
        {:yes, on_p} = Target.on(p, :global_register, [:from_p])
        assert everywhere?([u, p, q], :from_p, on_p)
        assert {:no, _} = Target.on(u, :global_register, [:from_p])
        assert {:no, _} = Target.on(q, :global_register, [:from_u])
        assert everywhere?([u, p, q], :from_p, on_p)
        # A process has one name.
        assert register(u, :another, on_u) == :no
        # A process may be registered by a node on which it does not run.
        elsewhere = Target.on(q, :spawn_echo, [])
        assert register(u, :elsewhere, elsewhere) == :yes
        assert everywhere?([u, p, q], :elsewhere, elsewhere)
        assert Target.on(p, :global, :send, [:from_u, {self(), :hello}]) == on_u
        assert_receive {^on_u, :hello}
        assert Target.on(u, :global, :send, [:from_p, {self(), :hello}]) == on_p
        assert_receive {^on_p, :hello}
        Mesh.await_joined([u, p, q])
      end

      test "check 54: names change owners and go, by hand, with the process, and with the node" do
        %{u: u, p: p, q: q} = cluster()
        all = [u, p, q]
        {:yes, first} = Target.on(u, :global_register, [:name])
        second = Target.on(p, :spawn_echo, [])
        assert Target.on(u, :global, :re_register_name, [:name, second]) == :yes
        assert everywhere?(all, :name, second)
        assert Target.on(q, :global, :re_register_name, [:name, first]) == :yes
        assert everywhere?(all, :name, first)
        # The process that has lost its name takes it along no more.
        Process.exit(second, :kill)
        assert Target.on(p, :global_unregister, [:name]) == :ok
        assert everywhere?(all, :name, :undefined)
        {:yes, _} = Target.on(q, :global_register, [:name])
        assert Target.on(u, :global_unregister, [:name]) == :ok
        assert Target.on(u, :global_unregister, [:name]) == :ok
        assert everywhere?(all, :name, :undefined)

        {:yes, on_u} = Target.on(u, :global_register, [:dies_on_u])
        {:yes, on_p} = Target.on(p, :global_register, [:dies_on_p])
        send(on_u, {:stop, :normal})
        Process.exit(on_p, :kill)
        eventually(fn -> everywhere?(all, :dies_on_u, :undefined) end)
        eventually(fn -> everywhere?(all, :dies_on_p, :undefined) end)

        {:yes, _} = Target.on(u, :global_register, [:of_u])
        {:yes, _} = Target.on(p, :global_register, [:of_p])
        Target.kill(p)
        eventually(fn -> everywhere?([u, q], :of_p, :undefined) end)
        Target.kill(u)
        eventually(fn -> whereis(q, :of_u) == :undefined end)
        Mesh.await_joined([q])
      end

      test "check 54: a process that is dead already has no name for long" do
        %{u: u, p: p, q: q} = cluster()
        dead = Target.on(p, :spawn_echo, [])
        Process.exit(dead, :kill)
        assert register(u, :dead, dead) == :yes
        eventually(fn -> everywhere?([u, p, q], :dead, :undefined) end)
      end

      test "check 55: any term is a name" do
        %{u: u, p: p, q: q} = cluster()
        deep = Enum.reduce(1..200, [], fn n, rest -> [n, {rest}] end)

        names = [
          {:tuple, 1},
          "binary",
          1.5,
          -0.0,
          1,
          Integer.pow(2, 200),
          [],
          ~c"charlist",
          %{map: [1, 2]},
          self(),
          make_ref(),
          <<1::3>>,
          {:via, &:erlang.node/0},
          :ö,
          [1 | 2],
          deep
        ]

        pids =
          for {name, at} <- Enum.with_index(names), into: %{} do
            registrar = Enum.at([u, p, q], rem(at, 3))
            {:yes, pid} = Target.on(registrar, :global_register, [name])
            {name, pid}
          end

        for target <- [u, p, q], do: assert(Mesh.names(target) == pids)
        # 1 and 1.0 are different names.
        assert whereis(u, 1.0) == :undefined
        for name <- names, do: assert(Target.on(u, :global_unregister, [name]) == :ok)
        for target <- [u, p, q], do: assert(Mesh.names(target) == %{})
      end
    end

    describe "conflicts (#{kind})" do
      # Two partitions, {U, R} and {P, Q}, both with a process called `:name`, meet between U and P.
      defp conflict(prefix, on_u, on_p) do
        [p, q, r] = start_beams(["p", "q", "r"])
        u = Target.start(@kind, prefix: prefix)
        Mesh.join([p, q])
        Mesh.join([u, r])
        of_u = Target.on(u, :spawn_relay, [self()])
        of_p = Target.on(p, :spawn_relay, [self()])
        assert Target.on(u, :global, :register_name, [:name, of_u] ++ on_u) == :yes
        assert Target.on(p, :global, :register_name, [:name, of_p] ++ on_p) == :yes
        [monitor_u, monitor_p] = Enum.map([of_u, of_p], &Process.monitor/1)
        Mesh.dial(u, p)
        Mesh.await_joined([u, p, q, r])
        {smaller, greater} = if u.node < p.node, do: {of_u, of_p}, else: {of_p, of_u}
        monitors = %{of_u => monitor_u, of_p => monitor_p}
        %{all: [u, p, q, r], smaller: smaller, greater: greater, monitors: monitors}
      end

      defp assert_killed(c, pid) do
        monitor = c.monitors[pid]
        assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}
      end

      defp assert_alive(c, pid) do
        monitor = c.monitors[pid]
        refute_received {:DOWN, ^monitor, :process, ^pid, _}
      end

      for {order, prefix} <- [smaller: "a", greater: "z"] do
        @prefix prefix
        test "check 56: U, whose name is #{order}: one process is killed by default" do
          c = conflict(@prefix, [], [])
          assert_killed(c, c.greater)
          assert_alive(c, c.smaller)
          assert everywhere?(c.all, :name, c.smaller)
        end

        test "check 56: U, whose name is #{order}: one process is notified" do
          method = [&:global.random_notify_name/3]
          c = conflict(@prefix, method, method)
          loser = c.greater
          assert_receive {:relayed, ^loser, {:global_name_conflict, :name}}
          for pid <- [c.smaller, c.greater], do: assert_alive(c, pid)
          assert everywhere?(c.all, :name, c.smaller)
        end

        test "check 56: U, whose name is #{order}: both processes are notified, and the name is nobody's" do
          method = [&:global.notify_all_name/3]
          %{smaller: one, greater: other} = c = conflict(@prefix, method, method)
          assert_receive {:relayed, ^one, {:global_name_conflict, :name, ^other}}
          assert_receive {:relayed, ^other, {:global_name_conflict, :name, ^one}}
          for pid <- [one, other], do: assert_alive(c, pid)
          assert everywhere?(c.all, :name, :undefined)
        end

        test "check 56: U, whose name is #{order}: a function of the users decides" do
          method = [Function.capture(:fixture, :keep_greater, 3)]
          c = conflict(@prefix, method, method)
          loser = c.smaller
          assert_receive {:relayed, ^loser, {:lost, :name}}
          for pid <- [c.smaller, c.greater], do: assert_alive(c, pid)
          assert everywhere?(c.all, :name, c.greater)
        end
      end

      test "check 56: a closure of P decides where P decides" do
        [helper] = start_beams(["h"])
        closure = Target.on(helper, :closure, [:told])
        c = conflict("z", [], [closure])
        loser = c.smaller
        assert_receive {:relayed, ^loser, {:lost, {:told, :name}}}
        assert everywhere?(c.all, :name, c.greater)
      end

      test "check 56: a closure goes through U unchanged" do
        [p, q] = start_beams(["p", "q"])
        u = Target.start(@kind, prefix: "a")
        closure = Target.on(p, :closure, [:told])
        of_p = Target.on(p, :spawn_relay, [self()])
        assert Target.on(p, :global, :register_name, [:name, of_p, closure]) == :yes
        # U learns of it from P, and tells Q.
        Mesh.join([u, p])
        Mesh.dial(q, u)
        Mesh.await_joined([u, p, q])
        Target.kill(u)

        for target <- [p, q] do
          table = Target.on(target, :ets, :tab2list, [:global_names])
          assert [{:name, ^of_p, ^closure, _}] = table
        end
      end
    end

    describe "joining (#{kind})" do
      test "check 57: U dials one node of three, and is part of the mesh within seconds" do
        beams = start_beams(["p", "q", "r"])
        Mesh.join(beams)
        u = Target.start(@kind)
        Mesh.dial(u, hd(beams))
        took = Mesh.await_joined([u | beams])
        # OTP's locker waits for 0.2 to 3 s before it begins; what is above is the machine's load.
        assert took < 30_000
        for beam <- beams, do: assert(Mesh.call(beam, :get_protocol_version) == 8)
        assert Mesh.call(u, :get_protocol_version) == 8
        assert Enum.sort(Mesh.call(u, :get_synced)) == Enum.sort(Enum.map(beams, & &1.node))
        assert Mesh.call(u, :get_names_ext) == []
        refute Enum.any?([u | beams], &Mesh.warned?/1)
      end

      test "check 58: two partitions become one through U" do
        left = start_beams(["b", "p"])
        right = start_beams(["q", "y"])
        Mesh.join(left)
        Mesh.join(right)

        for {target, name} <- Enum.zip(left ++ right, [:b, :p, :q, :y]),
            do: {:yes, _} = Target.on(target, :global_register, [name])

        u = Target.start(@kind)
        {:yes, _} = Target.on(u, :global_register, [:u])
        Mesh.dial(u, hd(left))
        Mesh.dial(u, hd(right))
        Mesh.await_joined([u] ++ left ++ right)
        assert map_size(Mesh.names(u)) == 5
        refute Enum.any?([u] ++ left ++ right, &Mesh.warned?/1)
      end

      test "check 61: global:sync returns on P and on U, with the names of the other" do
        u = Target.start(@kind)
        p = Beam.start_peer(Net.name("p"))
        {:yes, on_u} = Target.on(u, :global_register, [:of_u])
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        assert Beam.on(p, :global, :sync, []) == :ok
        assert Beam.on(p, :global, :whereis_name, [:of_u]) == on_u
        assert Mesh.call(u, {:sync, [p.node]}) == :ok
      end

      if @kind == :rust do
        # As a hello that is left of an earlier connection does. Two BEAM nodes cancel each other's sessions for ever then.
        test "check 57: U and P agree in the end when a hello out of turn has put them out of step" do
          [p] = start_beams(["p"])
          u = Target.start(@kind)
          assert :net_adm.ping(u.node) == :pong
          locker = eventually(fn -> locker(u) end)
          assert Mesh.dial(u, p)

          for tag <- 1..3 do
            hello = {:init_connect, {8, tag}, u.node, {:locker, :no_longer_a_pid, %{}, locker}}
            GenServer.cast({:global_name_server, p.node}, hello)
          end

          Mesh.await_joined([u, p])
        end

        # The tests' own node keeps the hello that it got from U, and does not answer it.
        defp locker(u) do
          {:dictionary, kept} = :global_name_server |> Process.whereis() |> Process.info(:dictionary)

          with {_, {_version, {:locker, _, _, locker}, _tag}} <-
                 List.keyfind(kept, {:pre_connect, u.node}, 0),
               do: locker
        end
      end

      test "check 74: three nodes of this kind, and a BEAM" do
        kinds = for prefix <- ["a", "k", "z"], do: Target.start(@kind, prefix: prefix)
        for target <- kinds, do: {:yes, _} = Target.on(target, :global_register, [target.node])
        {:yes, _} = Target.on(hd(kinds), :global_register, [:same])
        {:yes, _} = Target.on(List.last(kinds), :global_register, [:same])
        Mesh.join(kinds)
        assert map_size(Mesh.names(hd(kinds))) == 4
        [p] = start_beams(["p"])
        Mesh.dial(p, hd(kinds))
        Mesh.await_joined([p | kinds])
        assert map_size(Mesh.names(p)) == 4
      end
    end

    describe "locks (#{kind})" do
      test "check 60: two contenders exclude each other, and the death of an owner frees its lock" do
        %{u: u, p: p, q: q} = cluster()
        nodes = Enum.map([u, p, q], & &1.node)
        me = {:resource, self()}
        other = {:resource, :other}
        assert :global.set_lock(me, nodes)
        # Whoever asks in the same name has it, too.
        assert :global.set_lock(me, nodes, 0)
        assert Task.await(Task.async(fn -> :global.set_lock(other, nodes, 0) end)) == false
        assert Task.await(Task.async(fn -> :global.set_lock(other, [u.node], 0) end)) == false
        assert [{:resource, owner, [{owner, _}]}] = Mesh.locks(u)
        assert owner == self()
        # Not the owner's to give back.
        Task.await(Task.async(fn -> :global.del_lock(other, nodes) end))
        assert [{:resource, ^owner, _}] = Mesh.locks(u)
        assert :global.del_lock(me, nodes)
        for target <- [u, p, q], do: assert(Mesh.locks(target) == [])

        {:ok, dies} = Task.start(fn -> :global.set_lock(other, nodes) && Process.sleep(:infinity) end)
        eventually(fn -> length(Mesh.locks(u)) == 1 end)
        waits = Task.async(fn -> :global.set_lock(me, nodes) end)
        Process.exit(dies, :kill)
        assert Task.await(waits, 30_000)
        eventually(fn -> Mesh.locks(u) == [] end)
      end

      test "check 60: contenders on P and Q never hold a resource of U and P and Q at once" do
        %{u: u, p: p, q: q} = cluster()
        nodes = Enum.map([u, p, q], & &1.node)
        inside = :atomics.new(1, [])

        enter = fn ->
          :global.trans({:resource, self()}, fn -> :atomics.add_get(inside, 1, 1) |> leave(inside) end, nodes)
        end

        tasks = for _ <- 1..8, do: Task.async(enter)
        assert Enum.all?(Task.await_many(tasks, 120_000), &(&1 == 1))
        for target <- [u, p, q], do: eventually(fn -> Mesh.locks(target) == [] end)
      end

      test "check 60: transactions of U, P and Q exclude each other, and a node that dies inside makes room" do
        %{u: u, p: p, q: q} = cluster()
        all = [u, p, q]
        tries = for _ <- 1..3, target <- all, do: Target.on(target, :global_trans, [{:any, "term"}, self()])

        for _ <- tries do
          assert_receive {:entered, pid}, 60_000
          assert pid in tries
          # On a Rust node a process of its own holds the lock.
          assert [[{{:any, "term"}, owner, owners}]] = all |> Enum.map(&holders/1) |> Enum.uniq()

          assert owners == [owner] and node(owner) == node(pid)
          refute_received {:entered, _}
          send(pid, :leave)
          assert_receive {:left, ^pid}
        end

        for target <- all, do: assert(Mesh.locks(target) == [])
        dies = Target.on(u, :global_trans, [:of_u, self()])
        assert_receive {:entered, ^dies}
        waits = Target.on(p, :global_trans, [:of_u, self()])
        refute_receive {:entered, _}, 300
        Target.kill(u)
        assert_receive {:entered, ^waits}
        send(waits, :leave)
        assert_receive {:left, ^waits}
        Mesh.await_joined([p, q])
      end

      # The locks on a target, without the references of its monitors.
      defp holders(target) do
        for {resource, requester, held} <- Mesh.locks(target),
            do: {resource, requester, Enum.map(held, &elem(&1, 0))}
      end

      defp leave(count, inside) do
        Process.sleep(5)
        :atomics.sub(inside, 1, 1)
        count
      end
    end

    describe "nodes that stop answering (#{kind})" do
      test "check 62: U stands still for 30 s: P's registrations go on after U is taken for dead" do
        [p, q] = for prefix <- ["p", "q"], do: Beam.start_peer(Net.name(prefix), net_ticktime: 4)
        u = Target.start(@kind, net_ticktime: 4)
        for peer <- [p, q], do: true = Beam.on(peer, :net_kernel, :connect_node, [u.node])
        eventually(fn -> length(Beam.on(p, GenServer, :call, [:global_name_server, :get_known])) == 2 end)
        Target.signal(u, :STOP)
        # U is taken for dead after 4 to 5 s.
        assert {:yes, pid} = Beam.on(p, :fixture, :global_register, [:meanwhile], 30_000)
        assert Beam.on(q, :global, :whereis_name, [:meanwhile]) == pid
        Process.sleep(20_000)
        Target.signal(u, :CONT)

        # If P had asked U for the lock, U grants it when it wakes up, and so connects to P again, a BEAM not less than a Rust node.
        # Then all three find together. Otherwise U stays away.
        #
        # Or it ends halfway: U still has the last words of its earlier connections to read, that it be removed, and begins its talk
        # with P anew when it has come to them. Then each `global` waits for the other's next word (`pending` in OTP's state), on a
        # connection that both have: two in some thirty clusters of BEAMs, and nothing ends it.
        together = [p: [:q, :u], q: [:p, :u]]
        away = [p: [:q], q: [:p]]
        halfway = [p: [:q, :u], q: [:p]]

        roles = %{u.node => :u, p.node => :p, q.node => :q}
        ended = Aftermath.ended([p: p, q: q], roles, [:meanwhile], [together, away, halfway])

        for {role, seen} <- ended do
          assert seen.known == seen.nodes or seen.known == away[role]
          assert seen.names == [meanwhile: :p]
          assert seen.locks == []
        end

        assert Aftermath.registers?(p: p, q: q)
      end
    end

    describe "connections that go (#{kind})" do
      if @kind == :rust do
        test "check 65: U looks for the cluster that removed it, and all tables agree" do
          u = Target.start(@kind, args: ["--rejoin"])
          all = [u, p | _] = [u | start_beams(["p", "q", "r"])]
          Mesh.join(all)
          for target <- all, do: {:yes, _} = Target.on(target, :global_register, [target.node])
          # From the other side, so that U does not know whether the cluster wants it.
          Target.on(p, :erlang, :disconnect_node, [u.node])
          eventually(fn -> u.node not in Mesh.known(p) end)
          eventually(fn -> Mesh.known(u) != [] end)
          groups = Mesh.settled(all)
          group = Enum.find(groups, &(u.node in &1))
          assert length(group) > 1
          Mesh.await_joined(Enum.filter(all, &(&1.node in group)))
        end

        test "check 65: U joins again the nodes that it was told to join" do
          [p, q] = start_beams(["p", "q"])
          u = Target.start(@kind, args: ["--join", to_string(p.node), "--join", to_string(q.node)])
          Mesh.await_joined([u, p] ++ [q])
          {:yes, _} = Target.on(u, :global_register, [:of_u])
          Target.on(p, :erlang, :disconnect_node, [u.node])
          Mesh.await_joined([u, p, q])
          assert is_pid(whereis(q, :of_u))
        end
      end

      test "check 66: without prevent_overlapping_partitions a lost connection is just that" do
        off = ["-kernel", "prevent_overlapping_partitions", "false"]
        off_of_kind = if @kind == :beam, do: off, else: ["--prevent-overlapping-partitions", "false"]
        [p, q] = start_beams(["p", "q"], args: off)
        u = Target.start(@kind, args: off_of_kind)
        Mesh.join([u, p, q])
        Target.on(p, :erlang, :disconnect_node, [u.node])
        eventually(fn -> u.node not in Mesh.known(p) and p.node not in Mesh.known(u) end)
        assert Mesh.known(q) |> Enum.sort() == Enum.sort([p.node, u.node])
        assert q.node in Mesh.known(u)
        # They find one another again.
        Mesh.dial(u, p)
        Mesh.await_joined([u, p, q])
        refute Enum.any?([u, p, q], &Mesh.warned?/1)
      end

      test "check 66: a peer with connect_all off takes no part and holds nobody up" do
        [p] = start_beams(["p"])
        [alone] = start_beams(["q"], args: ["-kernel", "connect_all", "false"])
        u = Target.start(@kind)
        Mesh.join([u, p])
        assert Mesh.dial(alone, u)
        assert alone.node in Target.on(u, :erlang, :nodes, [])
        assert {:yes, pid} = Target.on(u, :global_register, [:of_u])
        assert whereis(p, :of_u) == pid
        assert whereis(alone, :of_u) == :undefined
        refute alone.node in Target.on(p, :erlang, :nodes, [])
        Target.on(alone, :erlang, :disconnect_node, [u.node])
        Mesh.await_joined([u, p])
      end

      test "check 66: U with connect_all off takes no part" do
        off = if @kind == :beam, do: ["-kernel", "connect_all", "false"], else: ["--connect-all", "false"]
        [p, q] = start_beams(["p", "q"])
        u = Target.start(@kind, args: off)
        Mesh.join([p, q])
        assert Mesh.dial(p, u)
        assert {:yes, _} = Target.on(p, :global_register, [:of_p])
        assert {:yes, _} = Target.on(u, :global_register, [:of_u])
        assert Mesh.names(u) |> Map.keys() == [:of_u]
        assert Mesh.names(q) |> Map.keys() == [:of_p]
        refute u.node in Target.on(q, :erlang, :nodes, [])
        assert Mesh.known(u) == []
      end

      test "check 67: disconnect_node, then ping again" do
        [p] = start_beams(["p"])
        u = Target.start(@kind)
        {:yes, on_u} = Target.on(u, :global_register, [:of_u])
        Mesh.join([u, p])

        for _ <- 1..3 do
          assert Target.on(p, :erlang, :disconnect_node, [u.node])
          eventually(fn -> Mesh.known(u) == [] and Mesh.known(p) == [] end)
          eventually(fn -> whereis(p, :of_u) == :undefined end)
          assert Target.on(p, :net_adm, :ping, [u.node]) == :pong
          Mesh.await_joined([u, p])
          assert whereis(p, :of_u) == on_u
        end
      end

      test "a hidden connection takes no part" do
        [p] = start_beams(["p"])
        [hidden] = start_beams(["h"], hidden: true)
        u = Target.start(@kind)
        Mesh.join([u, p])
        assert Mesh.dial(hidden, u)
        assert {:yes, _} = Target.on(u, :global_register, [:of_u])
        assert whereis(hidden, :of_u) == :undefined
        refute hidden.node in Mesh.known(u)
        Target.kill(hidden)
        Mesh.await_joined([u, p])
        refute Enum.any?([u, p], &Mesh.warned?/1)
      end
    end

    describe "what U must not fail on (#{kind})" do
      test "calls and messages of no known shape" do
        %{u: u, p: p, q: q} = cluster()

        junk = [
          :nonsense,
          {:init_connect, 8, :node, :junk},
          {:exchange, p.node, [{:name, :no_pid, 1}], [], 1},
          {:resolved, p.node, [:op], [], :unused, [], 1},
          {:new_nodes, p.node, [], [], [1], []},
          {:lock_set, :no_pid, true, [], 1},
          {:lost_connection, 1, 2, 3, 4},
          {:remove_connection, :nobody},
          {:cancel_connect, p.node, 1},
          {:in_sync, 1, true},
          %{},
          []
        ]

        # A BEAM's name server dies of some of them, and takes its node along.
        if @kind == :rust do
          for term <- junk do
            send({:global_name_server, u.node}, term)
            GenServer.cast({:global_name_server, u.node}, term)
          end

          assert GenServer.call({:global_name_server, u.node}, {:unknown, :call}) == {:error, :notsup}
        end

        Mesh.await_joined([u, p, q])
        assert {:yes, _} = Target.on(p, :global_register, [:still_here])
      end
    end
  end
end
