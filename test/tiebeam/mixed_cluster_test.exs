# BEAM nodes and Rust nodes in one cluster.
if :rust in Support.Target.kinds() do
  defmodule Tiebeam.MixedClusterTest do
    use ExUnit.Case

    import Support.Eventually

    alias Support.{Beam, BeamMember, Net, OsProcess, PoolWorker, RustMember}
    alias Tiebeam.{Member, Pool}

    setup context do
      Support.FailureLog.enter(context.module, context.test)
      :ok
    end

    defp view(%{kind: :rust}), do: RustMember
    defp view(_peer), do: BeamMember

    defp all_alive(peers) do
      nodes = peers |> Enum.map(& &1.node) |> Enum.sort()
      for peer <- peers, do: eventually(fn -> view(peer).alive(peer) == nodes end)
    end

    # One BEAM node and two Rust nodes. The Rust nodes know only the BEAM node, and learn of each other.
    defp start_three do
      beam = BeamMember.start(Net.name("b"))
      rusts = for prefix <- ~w(r s), do: RustMember.start(Net.name(prefix), join: [beam.node])
      all_alive([beam | rusts])
      [beam | rusts]
    end

    test "all list all, with their kinds" do
      [beam, rust, other] = start_three()

      for peer <- [beam, rust, other] do
        kinds = for %Member{node: node, kind: kind} <- view(peer).members(peer), do: {node, kind}
        assert kinds == Enum.sort([{beam.node, :beam}, {rust.node, :rust}, {other.node, :rust}])
      end
    end

    test "metadata is seen by all, a broadcast by the others, health and metrics by whoever asks" do
      [beam, rust, other] = start_three()
      :ok = Beam.on(beam, Tiebeam, :set_metadata, [BeamMember.cluster(), "zone=1"])

      for peer <- [rust, other] do
        eventually(fn -> Enum.find(RustMember.members(peer), &(&1.node == beam.node)).metadata == "zone=1" end)

        assert %{multiplier: _, stalls: _, minority: false} = RustMember.ask(peer, :health)
        metrics = RustMember.ask(peer, :metrics)
        assert Map.keys(metrics) == Map.keys(Beam.on(beam, Tiebeam, :metrics, [BeamMember.cluster()]))
        :ok = RustMember.ask(peer, {:subscribe, self()})
      end

      :ok = Beam.on(beam, Tiebeam, :broadcast, [BeamMember.cluster(), "hello"])

      for _ <- 1..2,
          do: assert_receive({:tiebeam, "default", {:broadcast, node, "hello"}} when node == beam.node)
    end

    test "a pool has workers of both kinds, and both find the same one for a key" do
      beam = BeamMember.start(Net.name("b"))
      rust = RustMember.start(Net.name("r"), join: [beam.node], args: ["--fixture"])
      all_alive([beam, rust])
      nodes = Enum.sort([beam.node, rust.node])
      pool = {BeamMember.cluster(), "p"}
      on = fn function, arguments -> Beam.on(beam, Pool, function, [pool | arguments], 60_000) end

      # The one of the Rust node is there for all before there is another one.
      true = :net_kernel.hidden_connect_node(rust.node)
      manager = :erpc.call(rust.node, :fixture, :work, ["p"], 60_000)
      eventually(fn -> on.(:members, []) == [rust.node] end)
      assert on.(:call, [:hello, [timeout: 30_000]]) == {:ok, {rust.node, :hello}}

      :ok = Beam.on(beam, PoolWorker, :start_pool, [[cluster: BeamMember.cluster(), name: "p"]])
      eventually(fn -> Enum.sort(for worker <- on.(:workers, []), do: node(worker)) == nodes end)
      eventually(fn -> on.(:members, []) == nodes end)
      answers = on.(:call, [:all, [route: :all, timeout: 30_000]])
      assert Enum.sort(for {_worker, {:ok, {node, :all}}} <- answers, do: node) == nodes
      assert on.(:call, [:near, [route: :local_first, timeout: 30_000]]) == {:ok, {beam.node, :near}}

      # The Rust node hears of the worker of the BEAM a moment later.
      by_key = for key <- 1..20, do: on.(:call, [:from, [route: {:key, key}, timeout: 30_000]])
      assert Enum.sort(Enum.uniq(by_key)) == for(node <- nodes, do: {:ok, {node, :from}})
      ask = fn key -> {:ok, :erpc.call(rust.node, :fixture, :call_pool, ["p", key, :from], 60_000)} end
      eventually(fn -> Enum.map(1..20, ask) == by_key end)

      # What is left goes on.
      :ok =
        Beam.on(beam, :supervisor, :terminate_child, [:kernel_safe_sup, {Pool, BeamMember.cluster(), "p"}])

      eventually(fn -> Enum.map(on.(:workers, []), &node/1) == [rust.node] end)
      assert on.(:call, [:left, [timeout: 30_000]]) == {:ok, {rust.node, :left}}
      true = Process.exit(manager, :kill)
      eventually(fn -> on.(:workers, []) == [] end)
      assert on.(:call, [:nobody, [timeout: 100]]) == {:error, :no_worker}
    end

    test "a Rust node that is killed is down on all others, and its restart is up once" do
      [beam, rust, other] = start_three()
      OsProcess.kill(rust.process)
      eventually(fn -> BeamMember.status(beam, rust) == :dead end)
      eventually(fn -> RustMember.status(other, rust) == :dead end)
      assert BeamMember.alive(beam) == Enum.sort([beam.node, other.node])

      rust = RustMember.start(rust.node, join: [other.node])
      all_alive([beam, rust, other])
      assert BeamMember.told(beam, rust) == [:up, :down, :up]
    end

    test "a Rust node that is told to end has left" do
      [beam, rust, other] = start_three()
      OsProcess.signal(rust.process, :TERM)
      eventually(fn -> BeamMember.status(beam, rust) == :left end)
      eventually(fn -> RustMember.status(other, rust) == :left end)
      assert {0, _output} = OsProcess.await_exit(rust.process)
      assert BeamMember.told(beam, rust) == [:up, :left]
    end

    test "a BEAM node that is killed is down on the Rust nodes, one that stops has left" do
      [beam, rust, other] = start_three()
      second = BeamMember.start(Net.name("c"), join: [rust.node])
      all_alive([beam, rust, other, second])

      BeamMember.kill(second)
      for peer <- [rust, other], do: eventually(fn -> RustMember.status(peer, second) == :dead end)

      BeamMember.stop_cluster(beam)
      for peer <- [rust, other], do: eventually(fn -> RustMember.status(peer, beam) == :left end)
    end

    test "a Rust node of another cluster is refused" do
      beam = BeamMember.start(Net.name("b"))
      rust = RustMember.start(Net.name("r"), join: [beam.node], cluster: "blue")
      eventually(fn -> {:refused, rust.node, "blue"} in BeamMember.events(beam) end)
      assert BeamMember.alive(beam) == [beam.node]
      assert RustMember.alive(rust) == [rust.node]
    end

    test "a Rust node with --no-cluster is observed, as any node without Tiebeam" do
      rust = RustMember.start(Net.name("r"), args: ["--no-cluster"])
      beam = BeamMember.start(Net.name("b"), join: [rust.node])
      eventually(fn -> BeamMember.alive(beam) == Enum.sort([beam.node, rust.node]) end)
      assert BeamMember.member(beam, rust).kind == :plain
      assert catch_exit(RustMember.members(rust)) |> elem(0) == :noproc
    end
  end
end
