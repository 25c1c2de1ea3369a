# One cluster of a Rust node and a BEAM node of each release of OTP that is at hand. What two of these nodes do with each other, link by
# link and call by call, is in `test/conformance/pair_test.exs`, which `bin/test releases` runs for them, too.
others = Support.Releases.kinds()

if others == [],
  do:
    IO.puts(
      "Skipped: the cluster of several releases of OTP; bin/test releases makes them, and runs its tests"
    )

defmodule Conformance.ReleasesTest do
  use ExUnit.Case, async: true
  import Support.Eventually
  alias Support.{Joining, Mesh, Net, OsProcess, Releases, Target}

  @others others
  @kinds [:beam] ++ @others ++ [:rust]
  # `TIEBEAM_JOIN_ROUNDS` asks for more.
  @rounds "TIEBEAM_JOIN_ROUNDS" |> System.get_env("10") |> String.to_integer()

  @moduletag skip: if(@others == [], do: "no other releases of OTP", else: false)
  @moduletag timeout: 120_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  # A node of each kind, one mesh. Names decide who begins: the Rust node is smaller or greater than the others.
  defp cluster(kinds \\ @kinds, prefix \\ "u") do
    started =
      for kind <- kinds, do: Target.start_unready(kind, prefix: if(kind == :rust, do: prefix, else: "p"))

    all = Enum.map(started, &Target.await_ready/1)
    Mesh.join(all)
    %{all: all, u: List.last(all), beams: Enum.filter(all, &(&1.kind != :rust))}
  end

  defp pairs(all), do: for(a <- all, b <- all, a != b, do: {a, b})
  defp whereis(target, name), do: Target.on(target, :global, :whereis_name, [name])
  defp everywhere?(all, name, pid), do: Enum.all?(all, &(whereis(&1, name) == pid))
  defp members(target, group), do: target |> Target.on(:pg_members, [group]) |> Enum.sort()

  defp named(target, name) do
    {:yes, pid} = Target.on(target, :global_register, [name])
    pid
  end

  test "check 73: each lists the others, and asks them by rpc, erpc and a ping" do
    %{all: all, beams: beams} = cluster()
    # Each BEAM is of the release that it is taken for.
    for beam <- beams do
      release = beam |> Target.on(:erlang, :system_info, [:otp_release]) |> List.to_integer()
      assert release == (Releases.of(beam.kind) || Releases.own())
    end

    for {a, b} <- pairs(all) do
      assert b.node in Target.on(a, :erlang, :nodes, [])
      assert Target.on(a, :rpc, [b.node, :erlang, :node, []]) == b.node
      assert Target.on(a, :rpc, [b.node, :fixture, :add, [1, 2]]) == 3
      assert {:badrpc, {:EXIT, {:undef, _}}} = Target.try_on(a, :rpc, [b.node, :no_such_module, :f, []])
    end

    for {a, b} <- pairs(all), a in beams do
      assert Target.on(a, :net_adm, :ping, [b.node]) == :pong
      assert Target.on(a, :erpc, :call, [b.node, :fixture, :add, [1, 2]]) == 3

      assert {:badrpc, {:EXIT, {{:exception, :thrown, [_ | _]}, _}}} =
               Target.try_on(a, :erpc, :call, [b.node, :fixture, :raise, [:thrown]])
    end

    for beam <- beams do
      nodes = Enum.map(all, & &1.node)
      assert Target.on(beam, :erpc, :multicall, [nodes, :erlang, :node, []]) == Enum.map(nodes, &{:ok, &1})
      assert {replies, []} = Target.on(beam, :gen_server, :multi_call, [nodes, :echo, :hello, 10_000])
      assert Enum.sort(replies) == Enum.sort(for node <- nodes, do: {node, :hello})
    end

    refute Enum.any?(all, &Mesh.warned?/1)
  end

  test "check 73: terms pass through all of them unchanged" do
    %{all: all} = cluster()
    pids = for target <- all, do: Target.on(target, :erlang, :whereis, [:echo])

    term = %{
      :pids => pids,
      "references" => [make_ref(), :erlang.alias([:explicit_unalias])],
      1.5 => [-0.0, Integer.pow(2, 3000), -Integer.pow(2, 64), <<5::3>>, [1 | 2], ~c"text"],
      {:atoms} => [:ö, :"", :"😀", :erlang.binary_to_atom(String.duplicate("a", 255))],
      [] => [&:lists.reverse/1, fn -> pids end, hd(Port.list())],
      :large => :binary.copy(<<1, 2, 3>>, 100_000),
      :map => Map.new(1..100, &{&1, {&1}})
    }

    # Each hands it on to the next.
    for {a, b} <- pairs(all), do: assert(Target.on(a, :call, [{:echo, b.node}, term, 30_000]) === term)
  end

  test "check 73: a process of each is linked with and monitored by all others" do
    %{all: all} = cluster()

    for owner <- all, reason <- [:normal, {:shutdown, %{why: "told"}}, :crashed] do
      # Another node has spawned it.
      spawner = Enum.find(all, &(&1 != owner))
      pid = Target.on(spawner, :remote_spawn, [owner.node, :fixture, :echo_loop, []])
      assert node(pid) == owner.node
      others = all -- [owner]

      for other <- others do
        Target.on(other, :watch, [pid, self()])
        Target.on(other, :linker, [pid, self()])
        assert_receive {:watching, _}
        assert_receive {:linked, _}
        # What it sent before is there when the answer is.
        assert Target.on(other, :call, [pid, :there, 5_000]) == :there
        assert Target.on(other, :monitor_then_demonitor, [pid, self()]) |> is_pid()
        assert_receive :quiet
        assert Target.on(other, :link_then_unlink, [pid, self()]) |> is_pid()
        assert_receive :quiet
      end

      Target.on(hd(others), :exit_signal, [pid, :normal])
      send(pid, {:stop, reason})

      for _ <- others do
        assert_receive {:down, ^pid, ^reason}
        assert_receive {:exit_seen, ^pid, ^reason}
      end

      unknown = {:no_such_name, owner.node}
      for other <- others, do: Target.on(other, :watch_name, [unknown, self()])
      for _ <- others, do: assert_receive({:down, ^unknown, :noproc})
      refute_received {:down, _, _}
      refute_received {:unexpected, _}
    end
  end

  test "check 73: global names of each are seen by all, taken for all, and go with their process" do
    %{all: all} = cluster()

    for {target, at} <- Enum.with_index(all) do
      next = Enum.at(all, rem(at + 1, length(all)))
      for name <- [{:of, target.kind}, "binary #{at}", 1.0 * at, %{of: [at]}], do: named(target, name)
      pid = named(target, :name)
      assert everywhere?(all, :name, pid)
      assert Target.on(next, :global_register, [:name]) |> elem(0) == :no
      moved = Target.on(next, :spawn_echo, [])
      assert Target.on(target, :global, :re_register_name, [:name, moved]) == :yes
      assert everywhere?(all, :name, moved)
      assert Target.on(next, :global, :send, [:name, {self(), :hello}]) == moved
      assert_receive {^moved, :hello}
      assert Target.on(target, :global_unregister, [:name]) == :ok
      assert everywhere?(all, :name, :undefined)
      mortal = named(target, :mortal)
      send(mortal, {:stop, :normal})
      eventually(fn -> everywhere?(all, :mortal, :undefined) end)
    end

    Mesh.await_joined(all)
    assert map_size(Mesh.names(hd(all))) == 4 * length(all)
  end

  test "check 73: locks of all nodes exclude whoever asks, on whichever release" do
    %{all: all, beams: beams} = cluster()
    nodes = Enum.map(all, & &1.node)
    me = {:resource, self()}
    assert :global.set_lock(me, nodes)
    requester = self()
    for target <- all, do: assert([{:resource, ^requester, _}] = Mesh.locks(target))

    attempt = fn beam, retries ->
      Target.on(beam, :global, :trans, [{:resource, {:by, beam.node}}, &:erlang.node/0, nodes, retries])
    end

    for beam <- beams, do: assert(attempt.(beam, 0) == :aborted)
    # They wait for it; and then one after the other has it.
    waiting = for beam <- beams, do: Task.async(fn -> attempt.(beam, :infinity) end)
    assert Enum.all?(waiting, &(Task.yield(&1, 100) == nil))
    assert :global.del_lock(me, nodes)
    assert Task.await_many(waiting, 60_000) == Enum.map(beams, & &1.node)
    for target <- all, do: eventually(fn -> Mesh.locks(target) == [] end)
  end

  # A scope of pg of OTP 29 says more when it looks for others than one of OTP 25 bears: that one ends. OTP promises that releases
  # two apart understand each other, these are four apart: so all but the newest, and all but the oldest.
  for {kinds, which} <- [{List.delete_at(@kinds, -2), "the newest"}, {tl(@kinds), "the oldest"}] do
    @some kinds
    test "check 73: a pg group of all but #{which} has their members, and loses those that leave, end, or are on a node that does" do
      %{all: all, u: u, beams: beams} = cluster(@some)
      scopes = for target <- all, do: Target.on(target, :erlang, :whereis, [:pg])
      joined = for target <- all, do: {target, Target.on(target, :pg_join, [:group])}
      members?(all, :group, joined)

      for {target, pid} <- joined do
        again = Target.on(target, :pg_join, [:group])
        members?(all, :group, [{target, again} | joined])
        assert Target.on(target, :pg_leave, [:group, again]) == :ok
        members?(all, :group, joined)
        mortal = Target.on(target, :pg_join, [{:only, target.node}])
        members?(all, {:only, target.node}, [{target, mortal}])
        Process.exit(mortal, :kill)
        members?(all, {:only, target.node}, [])
        assert Target.on(target, :erlang, :is_process_alive, [pid])
      end

      assert Enum.map(all, &Target.on(&1, :erlang, :whereis, [:pg])) == scopes
      Target.kill(u)
      members?(beams, :group, List.delete_at(joined, -1))
    end
  end

  defp members?(targets, group, joined) do
    pids = joined |> Enum.map(&elem(&1, 1)) |> Enum.sort()
    eventually(fn -> Enum.all?(targets, &(members(&1, group) == pids)) end)
  end

  test "check 73: a BEAM of each release is killed: the others hear it, and keep nothing of it" do
    %{all: all, u: u, beams: beams} = cluster()

    Enum.reduce(beams, all, fn beam, alive ->
      name = {:of, beam.kind}
      pid = named(beam, name)
      left = alive -- [beam]

      for other <- left do
        Target.on(other, :watch, [pid, self()])
        Target.on(other, :linker, [pid, self()])
        assert_receive {:watching, _}
        assert_receive {:linked, _}
        assert Target.on(other, :call, [pid, :there, 5_000]) == :there
      end

      Target.kill(beam)

      for _ <- left do
        assert_receive {:down, ^pid, :noconnection}
        assert_receive {:exit_seen, ^pid, :noconnection}
      end

      eventually(fn -> everywhere?(left, name, :undefined) end)
      Mesh.await_joined(left)
      left
    end)

    assert is_pid(named(u, :alone))
  end

  for {order, prefix} <- [smaller: "a", greater: "z"] do
    @prefix prefix
    test "check 73: the Rust node, whose name is #{order}, is killed and comes back: no lock and no name stays, the others stay together" do
      %{all: all, u: u, beams: beams} = cluster(@kinds, @prefix)
      for target <- all, do: named(target, {:of, target.kind})
      pid = whereis(u, {:of, :rust})
      for beam <- beams, do: Target.on(beam, :watch, [pid, self()])
      for _ <- beams, do: assert_receive({:watching, _})
      # It takes and gives back the lock of all of them, until it is killed while it holds it.
      nodes = Enum.map(all, & &1.node)
      registering = Task.async(fn -> register_until_killed(u, 1) end)
      eventually(fn -> Enum.any?(beams, &(Mesh.locks(&1) != [])) end)
      Target.kill(u)
      Task.await(registering, 60_000)
      for _ <- beams, do: assert_receive({:down, ^pid, :noconnection})
      Mesh.await_joined(beams)
      eventually(fn -> Enum.all?(beams, &(map_size(Mesh.names(&1)) == length(beams))) end)
      for beam <- beams, do: assert({:yes, _} = Target.on(beam, :global_register, [{:after, beam.kind}]))

      eventually(fn -> Net.epmd_lookup(u.node) == :unknown end)
      again = Target.start(:rust, node: u.node)
      named(again, {:of, :rust})
      Mesh.dial(List.last(beams), again)
      Mesh.await_joined([again | beams])
      assert map_size(Mesh.names(again)) == 2 * length(beams) + 1
      assert nodes -- [again.node | Target.on(again, :erlang, :nodes, [])] == []
    end
  end

  defp register_until_killed(u, number) do
    with {:yes, _} <- Target.try_on(u, :global_register, [{:number, number}]),
         do: register_until_killed(u, number + 1)
  end

  @tag timeout: 60_000 + @rounds * 60_000
  test "check 73: #{@rounds} rounds of one node of each kind that dial each other at once end in one mesh with one table" do
    # The names are in any order, the kinds need not be.
    kinds = [:rust | @kinds -- [:rust]] |> Stream.cycle() |> Enum.take(4)
    Joining.rounds(@rounds, fn random -> Joining.shuffle(kinds, random) end)
  end

  @tag timeout: 60_000 + @rounds * 60_000
  test "check 73: #{@rounds} times the Rust node is killed while it joins: no lock and no name stays" do
    {seed, random} = Joining.seed()
    beams = for kind <- @kinds, kind != :rust, do: Target.start(kind, prefix: "p")
    Mesh.join(beams)
    for beam <- beams, do: named(beam, {:of, beam.kind})

    Enum.reduce(1..@rounds, random, fn round, random ->
      {prefix, random} = Joining.one_of(["a", "z"], random)
      # OTP's locker waits for up to 3 s before it begins.
      {delay, random} = :rand.uniform_s(1_500, random)
      told = "round #{round}, replay with TIEBEAM_SEED=#{seed}: #{inspect({prefix, delay})}"
      u = Target.start(:rust, prefix: prefix)
      named(u, :of_u)
      for beam <- beams, do: Task.async(fn -> Mesh.dial(beam, u) end)
      Process.sleep(delay)
      OsProcess.kill(u.process)

      try do
        eventually(fn -> Enum.all?(beams, &(u.node not in Target.on(&1, :erlang, :nodes, []))) end)
        Mesh.await_joined(beams)
        eventually(fn -> Enum.all?(beams, &(whereis(&1, :of_u) == :undefined)) end)
      rescue
        error in ExUnit.AssertionError -> flunk("#{told}\n#{error.message}")
      end

      random
    end)

    for beam <- beams, do: assert({:yes, _} = Target.on(beam, :global_register, [{:after, beam.kind}]))
  end
end
