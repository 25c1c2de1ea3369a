# BEAM nodes and Rust nodes in one cluster.
if :rust in Support.Target.kinds() do
  defmodule Tiebeam.MixedClusterTest do
    use ExUnit.Case

    import Support.Eventually

    alias Support.{BeamMember, Net, OsProcess, RustMember}
    alias Tiebeam.Member

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
      :ok = Support.Beam.on(beam, Tiebeam, :set_metadata, [BeamMember.cluster(), "zone=1"])

      for peer <- [rust, other] do
        eventually(fn -> Enum.find(RustMember.members(peer), &(&1.node == beam.node)).metadata == "zone=1" end)

        assert %{multiplier: _, stalls: _, minority: false} = RustMember.ask(peer, :health)
        metrics = RustMember.ask(peer, :metrics)
        assert Map.keys(metrics) == Map.keys(Support.Beam.on(beam, Tiebeam, :metrics, [BeamMember.cluster()]))
        :ok = RustMember.ask(peer, {:subscribe, self()})
      end

      :ok = Support.Beam.on(beam, Tiebeam, :broadcast, [BeamMember.cluster(), "hello"])

      for _ <- 1..2,
          do: assert_receive({:tiebeam, "default", {:broadcast, node, "hello"}} when node == beam.node)
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
