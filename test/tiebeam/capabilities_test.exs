defmodule Tiebeam.CapabilitiesTest do
  use ExUnit.Case, async: true

  import Support.Eventually

  alias Support.{Beam, BeamMember, Net, RustMember}
  alias Tiebeam.{Capabilities, Group}

  test "the gate opens when BEAM and Rust nodes all can, and closes when an old one comes" do
    a = BeamMember.start(Net.name("a"))
    on_a = fn function, args -> Beam.on(a, Capabilities, function, [BeamMember.cluster() | args]) end

    options = [cluster: BeamMember.cluster(), version: "1.4.0", capabilities: ["v2"]]
    spec = Capabilities.child_spec(options)
    {:ok, _} = Beam.on(a, :supervisor, :start_child, [:kernel_safe_sup, spec])
    assert on_a.(:all?, ["v2"])

    rust = RustMember.start(Net.name("r"), join: [a.node], args: ["--capability", "v2", "--capability", "v3"])
    eventually(fn -> on_a.(:nodes, ["v2"]) == Enum.sort([a.node, rust.node]) end)
    assert on_a.(:all?, ["v2"])
    assert on_a.(:of, [a.node]) == %{tiebeam: "0.1.0", version: "1.4.0", capabilities: ["v2"]}
    assert on_a.(:of, [rust.node]) == %{tiebeam: "0.1.0", version: nil, capabilities: ["v2", "v3"]}
    assert on_a.(:missing, ["v3"]) == [a.node]
    assert on_a.(:all?, ["v3", [among: [rust.node]]])

    old = RustMember.start(Net.name("r"), join: [a.node])
    eventually(fn -> on_a.(:missing, ["v2"]) == [old.node] end)
    Support.OsProcess.kill(old.process)
    eventually(fn -> on_a.(:all?, ["v2"]) end)
  end

  describe "alone" do
    setup context do
      cluster = :"#{__MODULE__}.#{context.line}"
      start_supervised!({Tiebeam, name: cluster, process: :"#{cluster}.Process"})
      %{cluster: cluster}
    end

    test "what is announced can be replaced, and outlives the cluster's server", %{cluster: cluster} do
      start_supervised!({Capabilities, cluster: cluster, capabilities: ["a"]})
      assert Capabilities.nodes(cluster, "a") == [node()]
      assert Capabilities.put(cluster, ["b", "b"]) == :ok
      assert Capabilities.of(cluster, node()).capabilities == ["b"]

      server = Process.whereis(Tiebeam.Table.process(cluster))
      Process.exit(server, :kill)
      eventually(fn -> Process.whereis(Tiebeam.Table.process(cluster)) not in [nil, server] end)
      eventually(fn -> Capabilities.all?(cluster, "b") end)

      stop_supervised!({Capabilities, cluster})
      eventually(fn -> Capabilities.of(cluster, node()) == nil end)
    end

    test "what others put there is read with care", %{cluster: cluster} do
      for said <- [
            %{capabilities: ["a" | :b]},
            %{capabilities: ["c", 1], version: 2},
            "said",
            %{tiebeam: "9"}
          ] do
        Task.async(fn ->
          :ok = Group.join(cluster, {:tiebeam, :capabilities}, self(), said)
          Process.sleep(:infinity)
        end)
      end

      eventually(fn -> length(Group.members(cluster, {:tiebeam, :capabilities})) == 4 end)
      assert %{version: nil, capabilities: ["c"]} = Capabilities.of(cluster, node())
    end

    test "options that cannot be used are refused", %{cluster: cluster} do
      for options <- [
            [],
            [cluster: cluster, capabilities: "a"],
            [cluster: cluster, capabilities: [:a]],
            [cluster: cluster, capabilities: List.duplicate("a", 33)],
            [cluster: cluster, version: 1]
          ],
          do: assert_raise(ArgumentError, fn -> Capabilities.start_link(options) end)
    end
  end
end
