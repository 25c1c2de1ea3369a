# Process groups: `pg` on U and on BEAM nodes.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.PgTest, kind) do
    use Support.Case, async: true, kind: kind

    # The tests' own node is connected to every U at once: each test here has a scope of its own.
    defp scope do
      name = :"pg_test_#{System.unique_integer([:positive])}"
      start_supervised!(%{id: name, start: {:pg, :start_link, [name]}, restart: :temporary})
      name
    end

    defp shared_scope(u) do
      scope = scope()
      assert Target.on(u, :pg_start, [scope]) == :ok
      scope
    end

    defp process, do: start_supervised!({Task, fn -> Process.sleep(:infinity) end}, id: make_ref())

    # A member on U of a scope.
    defp join(u, scope, group) do
      pid = Target.on(u, :spawn_echo, [])
      assert Target.on(u, :pg, :join, [scope, group, pid]) == :ok
      pid
    end

    # Both sides see just these members, each as often as it is named.
    defp agree(u, scope, group, members) do
      members = Enum.sort(members)
      eventually(fn -> Enum.sort(:pg.get_members(scope, group)) == members end)
      eventually(fn -> Enum.sort(Target.on(u, :pg, :get_members, [scope, group])) == members end)

      for node <- [node(), u.node] do
        local = Enum.filter(members, &(node(&1) == node))
        assert Enum.sort(:rpc.call(node, :pg, :get_local_members, [scope, group])) == local
        assert group in :rpc.call(node, :pg, :which_groups, [scope]) == (members != [])
        assert group in :rpc.call(node, :pg, :which_local_groups, [scope]) == (local != [])
      end
    end

    # A peer that runs the default scope.
    defp start_peer(opts \\ []),
      do: Beam.start_peer(opts[:node] || Net.name("p"), args: ["-kernel", "start_pg", "true"])

    defp process_on(p), do: Beam.on(p, :erlang, :spawn, [:timer, :sleep, [:infinity]])

    defp agree_with_peer(u, p, group, members) do
      members = Enum.sort(members)
      eventually(fn -> Enum.sort(Beam.on(p, :pg, :get_members, [group])) == members end)
      eventually(fn -> Enum.sort(Target.on(u, :pg_members, [group])) == members end)
    end

    describe "members (#{kind})" do
      test "check 68: those of before the connection are merged, and vanish with it" do
        u = Target.start(@kind)
        p = start_peer()
        [u1, u2] = for _ <- 1..2, do: Target.on(u, :pg_join, [:g])
        only_u = Target.on(u, :pg_join, [{:only, u.node}])
        [p1, p2] = for _ <- 1..2, do: process_on(p)
        assert Beam.on(p, :pg, :join, [:g, [p1, p2]]) == :ok
        assert Beam.on(p, :pg, :join, [:only_p, p1]) == :ok

        for _ <- 1..3 do
          assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
          agree_with_peer(u, p, :g, [u1, u2, p1, p2])
          agree_with_peer(u, p, {:only, u.node}, [only_u])
          agree_with_peer(u, p, :only_p, [p1])

          assert Beam.on(p, :erlang, :disconnect_node, [u.node])
          eventually(fn -> Enum.sort(Beam.on(p, :pg, :get_members, [:g])) == Enum.sort([p1, p2]) end)
          eventually(fn -> Enum.sort(Target.on(u, :pg_members, [:g])) == Enum.sort([u1, u2]) end)
          assert Beam.on(p, :pg, :which_groups, []) |> Enum.sort() == [:g, :only_p]
        end
      end

      test "check 68: joins and leaves go both ways", %{u: u} do
        scope = shared_scope(u)
        here = process()
        there = join(u, scope, "g")
        assert :pg.join(scope, "g", here) == :ok
        agree(u, scope, "g", [here, there])

        assert :pg.leave(scope, "g", here) == :ok
        agree(u, scope, "g", [there])
        assert Target.on(u, :pg, :leave, [scope, "g", there]) == :ok
        agree(u, scope, "g", [])
      end

      test "check 68: several at once, and one several times", %{u: u} do
        scope = shared_scope(u)
        [a, b, c] = for _ <- 1..3, do: process()
        [x, y, z] = for _ <- 1..3, do: Target.on(u, :spawn_echo, [])
        assert :pg.join(scope, :g, [a, b, a]) == :ok
        assert Target.on(u, :pg, :join, [scope, :g, [x, y, x]]) == :ok
        assert Target.on(u, :pg, :join, [scope, :g, x]) == :ok
        agree(u, scope, :g, [a, a, b, x, x, x, y])

        # Processes that are no members do not matter while one is.
        assert :pg.leave(scope, :g, [a, b]) == :ok
        assert Target.on(u, :pg, :leave, [scope, :g, [x, y, x, z]]) == :ok
        agree(u, scope, :g, [a, x])
        assert Target.on(u, :pg, :leave, [scope, :g, [y, z]]) == :not_joined
        assert Target.on(u, :pg, :leave, [scope, :other, x]) == :not_joined
        assert :pg.leave(scope, :g, [c]) == :not_joined
        assert Target.on(u, :pg, :leave, [scope, :g, x]) == :ok
        assert :pg.leave(scope, :g, a) == :ok
        agree(u, scope, :g, [])
      end

      test "check 68: the fixture's own functions", %{u: u} do
        group = {:group, make_ref()}
        pid = Target.on(u, :pg_join, [group])
        assert Target.on(u, :pg_members, [group]) == [pid]
        assert Target.on(u, :pg_leave, [group, pid]) == :ok
        assert Target.on(u, :pg_leave, [group, pid]) == :not_joined
        assert Target.on(u, :pg_members, [group]) == []
      end

      test "check 68: death is a leave from all groups", %{u: u} do
        scope = shared_scope(u)
        {here, there} = {process(), join(u, scope, :a)}
        assert :pg.join(scope, :a, here) == :ok

        for {group, times} <- [b: 1, c: 3], _ <- 1..times do
          assert :pg.join(scope, group, here) == :ok
          assert Target.on(u, :pg, :join, [scope, group, there]) == :ok
        end

        agree(u, scope, :c, List.duplicate(here, 3) ++ List.duplicate(there, 3))
        send(there, {:stop, :done})
        for {group, times} <- [a: 1, b: 1, c: 3], do: agree(u, scope, group, List.duplicate(here, times))
        Process.exit(here, :kill)
        for group <- [:a, :b, :c], do: agree(u, scope, group, [])

        # One that is dead already joins and leaves at once.
        assert Target.on(u, :pg, :join, [scope, :a, there]) == :ok
        agree(u, scope, :a, [])
      end

      test "check 68: a process joins on its own node only", %{u: u} do
        scope = shared_scope(u)

        for {function, arguments} <- [join: [scope, :g, self()], leave: [scope, :g, [self()]]] do
          me = self()

          assert {:badrpc, {:EXIT, {{:nolocal, ^me}, [_ | _]}}} =
                   nolocal(Target.try_on(u, :pg, function, arguments))
        end

        agree(u, scope, :g, [])
      end

      # A Rust node's errors of its own have no stack.
      defp nolocal({:badrpc, {:EXIT, {reason, []}}}), do: {:badrpc, {:EXIT, {reason, [:none]}}}
      defp nolocal(answer), do: answer

      test "check 68: groups are any term, and differ as terms do", %{u: u} do
        scope = shared_scope(u)

        groups = [
          1,
          1.0,
          0.0,
          -1,
          Integer.pow(2, 70),
          "1",
          ~c"1",
          :"1",
          :"",
          [],
          {},
          %{},
          %{a: 1, b: [2]},
          [1 | 2],
          <<1::3>>,
          self(),
          make_ref(),
          {:"Elixir.Phoenix", "rooms:lobby", nil},
          &Enum.map/2,
          fn -> u.node end,
          nested(100),
          String.duplicate("long", 1_000)
        ]

        members =
          for group <- groups do
            {here, there} = {process(), join(u, scope, group)}
            assert :pg.join(scope, group, here) == :ok
            [here, there]
          end

        for {group, members} <- Enum.zip(groups, members), do: agree(u, scope, group, members)

        for {group, [here, there]} <- Enum.zip(groups, members) do
          assert :pg.leave(scope, group, here) == :ok
          assert Target.on(u, :pg, :leave, [scope, group, there]) == :ok
        end

        for group <- groups, do: agree(u, scope, group, [])
        eventually(fn -> :pg.which_groups(scope) == [] end)
        eventually(fn -> Target.on(u, :pg, :which_groups, [scope]) == [] end)
      end

      test "check 68: thousands of members and groups", %{u: u} do
        scope = shared_scope(u)
        here = for _ <- 1..500, do: spawn_link(fn -> Process.sleep(:infinity) end)
        there = for _ <- 1..500, do: Target.on(u, :spawn_echo, [])
        assert :pg.join(scope, :many, here) == :ok
        assert Target.on(u, :pg, :join, [scope, :many, there]) == :ok
        agree(u, scope, :many, here ++ there)
        for i <- 1..2_000, do: assert(:pg.join(scope, {:room, i}, hd(here)) == :ok)
        for i <- 1..2_000, do: assert(Target.on(u, :pg, :join, [scope, {:room, i}, hd(there)]) == :ok)
        agree(u, scope, {:room, 2_000}, [hd(here), hd(there)])
        for pid <- there, do: send(pid, {:stop, :done})
        agree(u, scope, :many, here)
        agree(u, scope, {:room, 2_000}, [hd(here)])
      end
    end

    describe "restarts (#{kind})" do
      test "check 69: U is killed and comes back: the old members vanish, new ones appear" do
        u = Target.start(@kind)
        p = start_peer()
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        mine = process_on(p)
        assert Beam.on(p, :pg, :join, [:g, mine]) == :ok
        old = Target.on(u, :pg_join, [:g])
        agree_with_peer(u, p, :g, [old, mine])

        Target.kill(u)
        eventually(fn -> Beam.on(p, :pg, :get_members, [:g]) == [mine] end)
        again = Target.start(@kind, node: u.node)
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        new = Target.on(again, :pg_join, [:g])
        agree_with_peer(again, p, :g, [new, mine])
      end

      test "check 69: U is killed and back before anybody has noticed" do
        u = Target.start(@kind)
        p = start_peer()
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        for _ <- 1..10, do: Target.on(u, :pg_join, [:g])
        eventually(fn -> length(Beam.on(p, :pg, :get_members, [:g])) == 10 end)
        Target.kill(u)
        again = Target.start(@kind, node: u.node)
        new = Target.on(again, :pg_join, [:g])
        # U's own greeting: nobody on P has asked for the connection.
        assert Target.on(again, :net_adm, :ping, [p.node]) == :pong
        agree_with_peer(again, p, :g, [new])
      end

      test "check 69: P's scope ends and starts again" do
        u = Target.start(@kind)
        p = start_peer()
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        mine = process_on(p)
        assert Beam.on(p, :pg, :join, [:g, mine]) == :ok
        theirs = Target.on(u, :pg_join, [:g])
        agree_with_peer(u, p, :g, [mine, theirs])

        # Its own members are lost: that is how OTP does it.
        old = Beam.on(p, :erlang, :whereis, [:pg])
        Beam.on(p, :erlang, :exit, [old, :kill])

        eventually(fn ->
          is_pid(Beam.on(p, :erlang, :whereis, [:pg])) and Beam.on(p, :erlang, :whereis, [:pg]) != old
        end)

        agree_with_peer(u, p, :g, [theirs])
        assert Beam.on(p, :pg, :join, [:g, mine]) == :ok
        agree_with_peer(u, p, :g, [mine, theirs])
      end

      test "check 69: P is gone and comes back" do
        u = Target.start(@kind)
        node = Net.name("p")
        theirs = Target.on(u, :pg_join, [:g])

        for _ <- 1..2 do
          p = start_peer(node: node)
          assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
          mine = process_on(p)
          assert Beam.on(p, :pg, :join, [:g, mine]) == :ok
          agree_with_peer(u, p, :g, [mine, theirs])
          stop_supervised!(node)
          eventually(fn -> Target.on(u, :pg_members, [:g]) == [theirs] end)
        end
      end
    end

    describe "scopes (#{kind})" do
      test "check 70: they know nothing of each other", %{u: u} do
        [one, two] = for _ <- 1..2, do: shared_scope(u)
        here = process()
        there = join(u, one, :g)
        assert :pg.join(two, :g, here) == :ok
        agree(u, one, :g, [there])
        agree(u, two, :g, [here])
      end

      test "check 70: one that starts later on U", %{u: u} do
        scope = scope()
        here = process()
        assert :pg.join(scope, :g, here) == :ok
        assert Target.on(u, :pg_start, [scope]) == :ok
        there = join(u, scope, :g)
        agree(u, scope, :g, [here, there])
      end

      test "check 70: one that starts later on P, and again", %{u: u} do
        name = :"pg_test_#{System.unique_integer([:positive])}"
        assert Target.on(u, :pg_start, [name]) == :ok
        there = join(u, name, :g)

        for _ <- 1..3 do
          {:ok, scope} = :pg.start(name)
          here = process()
          assert :pg.join(name, :g, here) == :ok
          agree(u, name, :g, [here, there])
          GenServer.stop(scope)
          eventually(fn -> Target.on(u, :pg, :get_members, [name, :g]) == [there] end)
        end
      end

      test "check 70: what asks for a scope that does not run is told so", %{u: u} do
        assert Target.on(u, :pg, :get_members, [:no_such_scope, :g]) == []
        pid = Target.on(u, :spawn_echo, [])

        assert {:badrpc, {:EXIT, {:noproc, {:gen_server, :call, [:no_such_scope, _, :infinity]}}}} =
                 Target.try_on(u, :pg, :join, [:no_such_scope, :g, pid])
      end
    end

    describe "what is said (#{kind})" do
      test "check 71: whatever is done on U, the scope on P goes on, and they agree", %{u: u} do
        scope = shared_scope(u)
        before = Process.whereis(scope)
        fuzz(u, scope, seed(), fn step -> step <= 400 end)

        for group <- Target.on(u, :pg, :which_groups, [scope]),
            do: agree(u, scope, group, Target.on(u, :pg, :get_members, [scope, group]))

        assert Process.whereis(scope) == before
      end

      # A BEAM's scope can end another's at such a moment: it tells of a leave before it has told its groups.
      if kind == :rust do
        # TIEBEAM_ROUNDS may ask for many.
        @tag timeout: 600_000
        test "check 71: also while the connection is lost again and again" do
          u = Target.start(@kind)
          p = start_peer()
          before = Beam.on(p, :erlang, :whereis, [:pg])
          cutting = :atomics.new(1, [])
          seed = seed()
          fuzzing = Task.async(fn -> fuzz(u, :pg, seed, fn _ -> :atomics.get(cutting, 1) == 0 end) end)

          for _ <- 1..("TIEBEAM_ROUNDS" |> System.get_env("50") |> String.to_integer()) do
            assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
            # At any moment of the exchange that follows.
            Process.sleep(:rand.uniform(20) - 1)
            Beam.on(p, :erlang, :disconnect_node, [u.node])
          end

          :atomics.put(cutting, 1, 1)
          Task.await(fuzzing, :infinity)
          assert Beam.on(p, :erlang, :whereis, [:pg]) == before
          groups = Target.on(u, :pg, :which_groups, [])
          assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
          for group <- groups, do: agree_with_peer(u, p, group, Target.on(u, :pg_members, [group]))
          eventually(fn -> Enum.sort(Beam.on(p, :pg, :which_groups, [])) == Enum.sort(groups) end)
        end
      end

      # Four clients that do anything to U's scope at once, each while it shall go on; a seed decides what.
      defp fuzz(u, scope, seed, go_on?) do
        work = fn client ->
          :rand.seed(:exsss, {seed, client, 0})

          Stream.iterate(1, &(&1 + 1))
          |> Stream.take_while(go_on?)
          |> Enum.reduce([], fn _, pids -> step(u, scope, pids) end)
        end

        1..4 |> Task.async_stream(work, timeout: :infinity) |> Stream.run()
      end

      # A test that fails prints it.
      defp seed do
        seed = String.to_integer(System.get_env("TIEBEAM_SEED") || "#{System.os_time()}")

        Support.FailureLog.add(
          {Support.FailureLog.scope(), "the clients"},
          "replay with TIEBEAM_SEED=#{seed}\n"
        )

        seed
      end

      # The groups are few and those of all clients, so that they are emptied and filled all the time.
      @groups [:a, "a", 1, 1.0, {:a, 1}]

      defp step(u, scope, pids) do
        group = Enum.random(@groups)

        case :rand.uniform(10) do
          n when n <= 2 or pids == [] ->
            pid = Target.on(u, :spawn_echo, [])
            :ok = Target.on(u, :pg, :join, [scope, group, pid])
            [pid | pids]

          n when n <= 4 ->
            # Some are dead.
            :ok = Target.on(u, :pg, :join, [scope, group, some(pids)])
            pids

          n when n <= 8 ->
            # Most are no members.
            members = if n == 8, do: Enum.random(pids), else: some(pids)
            assert Target.on(u, :pg, :leave, [scope, group, members]) in [:ok, :not_joined]
            pids

          9 ->
            send(Enum.random(pids), {:stop, :done})
            pids

          10 ->
            assert Target.on(u, :pg, :leave, [scope, {:never, make_ref()}, pids]) == :not_joined
            Enum.take(pids, 20)
        end
      end

      defp some(pids), do: for(_ <- 1..:rand.uniform(5), do: Enum.random(pids))

      # To a BEAM's scope such a peer is known from then on, and is told of joins and leaves before it is told the groups.
      if kind == :rust do
        test "check 71: a peer that tells its groups unasked is told ours before any join or leave", %{u: u} do
          scope = shared_scope(u)
          there = join(u, scope, :before)
          raw = RawPeer.connect!(u.node)
          {me, theirs} = {RawPeer.pid(raw, 3), Target.on(u, :erlang, :whereis, [scope])}
          RawPeer.receive_until(raw, fn _, message -> message == {:discover, theirs} end)
          # Nothing is known of it yet.
          assert Target.on(u, :pg, :join, [scope, :before, there]) == :ok
          assert messages(RawPeer.round_trip(raw), me) == []

          RawPeer.send_signal(raw, {22, me, theirs}, {:"$gen_cast", {:sync, me, [{:g, [me]}]}})
          RawPeer.receive_until(raw, fn control, _ -> match?({19, ^theirs, ^me, _}, control) end)
          assert Target.on(u, :pg, :get_members, [scope, :g]) == [me]
          assert Target.on(u, :pg, :join, [scope, :after, there]) == :ok
          assert Target.on(u, :pg, :leave, [scope, :before, there]) == :ok

          assert messages(RawPeer.round_trip(raw), me) == [
                   {:"$gen_cast", {:sync, theirs, [{:before, [there, there]}]}},
                   {:join, theirs, :after, there},
                   {:leave, theirs, there, [:before]}
                 ]

          RawPeer.send_signal(raw, {22, me, theirs}, {:discover, me})

          {{:"$gen_cast", {:sync, ^theirs, groups}}, _} =
            RawPeer.receive_until(raw, fn control, message -> elem(control, 2) == me and message end)

          assert Enum.sort(groups) == [after: [there], before: [there]]
        end

        defp messages(signals, to),
          do: for({{op, _, ^to}, message} when op in [2, 22] <- signals, do: message)
      end

      # A BEAM's scope ends on most of these.
      if kind == :rust do
        test "check 71: what U's scope does not understand does it no harm", %{u: u} do
          scope = shared_scope(u)
          there = join(u, scope, :g)
          agree(u, scope, :g, [there])
          before = Target.on(u, :erlang, :whereis, [scope])
          mine = Process.whereis(scope)

          for strange <- [
                :hello,
                {:discover, :nobody},
                {:discover, mine, 2},
                {:leave, mine, self(), [:never]},
                {:leave, self(), self(), [:g]},
                {:join, mine, :g},
                {:join, mine, :g, [self() | :improper]},
                {:join, mine, :g, [there]},
                {:nodeup, node()},
                {:DOWN, make_ref(), :process, mine, :noconnection}
              ] do
            send({scope, u.node}, strange)
            GenServer.cast({scope, u.node}, strange)
          end

          assert GenServer.call({scope, u.node}, {:join_local, :g, self()}) == {:error, :notsup}
          assert Target.on(u, :erlang, :whereis, [scope]) == before
          agree(u, scope, :g, [there])
        end
      end
    end

    describe "monitors (#{kind})" do
      test "check 72: pg:monitor on P sees U's joins and leaves", %{u: u} do
        scope = shared_scope(u)
        first = join(u, scope, :g)
        agree(u, scope, :g, [first])
        assert {group, [^first]} = :pg.monitor(scope, :g)
        assert {whole, %{g: [^first]}} = :pg.monitor_scope(scope)

        second = join(u, scope, :g)
        for ref <- [group, whole], do: assert_receive({^ref, :join, :g, [^second]})
        other = join(u, scope, :h)
        assert_receive {^whole, :join, :h, [^other]}
        assert Target.on(u, :pg, :join, [scope, :g, [first, second]]) == :ok
        for ref <- [group, whole], do: assert_receive({^ref, :join, :g, [_, _]})

        assert Target.on(u, :pg, :leave, [scope, :g, first]) == :ok
        for ref <- [group, whole], do: assert_receive({^ref, :leave, :g, [^first]})
        send(other, {:stop, :done})
        assert_receive {^whole, :leave, :h, [^other]}
        # It has joined twice.
        send(second, {:stop, :done})

        for ref <- [group, whole] do
          assert_receive {^ref, :leave, :g, [^second | _] = left}
          if left == [second], do: assert_receive({^ref, :leave, :g, [^second]})
        end

        refute_received {^group, _, :h, _}
      end
    end

    describe "Phoenix.PubSub's way (#{kind})" do
      # The adapter has a scope of its own and one group; each node's worker is its member. A broadcast goes to the members on
      # other nodes, which hand it on to their own subscribers.
      defmodule Worker do
        @moduledoc "The worker of one node, with one subscriber."
        use GenServer

        def start_link({scope, group, subscriber}),
          do: GenServer.start_link(__MODULE__, {scope, group, subscriber})

        @impl true
        def init({scope, group, subscriber}) do
          :ok = :pg.join(scope, group, self())
          {:ok, subscriber}
        end

        @impl true
        def handle_info({:forward_to_local, topic, message, _dispatcher}, subscriber) do
          send(subscriber, {:broadcast, topic, message})
          {:noreply, subscriber}
        end
      end

      test "check 76: broadcasts reach the members on the other side, in order", %{u: u} do
        {scope, group} = {shared_scope(u), MyApp.PubSub.Adapter}
        workers = for _ <- 1..2, do: start_supervised!({Worker, {scope, group, self()}}, id: make_ref())
        there = join(u, scope, group)
        agree(u, scope, group, [there | workers])

        # From here: U's member answers what it gets.
        for i <- 1..200, pid <- :pg.get_members(scope, group), node(pid) != node() do
          send(pid, {self(), {:forward_to_local, "rooms:lobby", i, Phoenix.PubSub}})
        end

        for i <- 1..200, do: assert_receive({^there, {:forward_to_local, "rooms:lobby", ^i, _}})

        # From U.
        for i <- 1..50,
            pid <- Target.on(u, :pg, :get_members, [scope, group]),
            node(pid) != u.node do
          message = {:forward_to_local, "rooms:lobby", %{id: i}, Phoenix.PubSub}
          assert Target.on(u, :send, [pid, message]) == :ok
        end

        for i <- 1..50, _ <- workers, do: assert_receive({:broadcast, "rooms:lobby", %{id: ^i}})
      end

      test "check 76: a node that looks for others in epmd, as libcluster does, finds U and its members" do
        u = Target.start(@kind)
        theirs = Target.on(u, :pg_join, [MyApp.PubSub.Adapter])
        p = start_peer()
        {:ok, names} = Beam.on(p, :erl_epmd, :names, [~c"127.0.0.1"])
        found = for {name, _port} <- names, do: :"#{name}@127.0.0.1"
        assert u.node in found
        assert Beam.on(p, :net_kernel, :connect_node, [u.node])
        assert u.node in Beam.on(p, :erlang, :nodes, [])
        agree_with_peer(u, p, MyApp.PubSub.Adapter, [theirs])
      end
    end
  end
end
