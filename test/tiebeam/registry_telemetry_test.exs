# What `:telemetry` is told of names and groups.
defmodule Tiebeam.RegistryTelemetryTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Names, Net}
  alias Tiebeam.{Group, Registry}

  @cluster BeamMember.cluster()
  @soon 30_000

  # What `:telemetry` is to the package: one function.
  defmodule Stub do
    def execute(event, measurements, metadata) do
      send(:registry_telemetry_test, {event, measurements, metadata})
      :ok
    end
  end

  setup do
    Process.register(self(), :registry_telemetry_test)
    stub = quote do: defdelegate(execute(event, measurements, metadata), to: unquote(Stub))
    {:module, _, _, _} = Module.create(:telemetry, stub, Macro.Env.location(__ENV__))

    on_exit(fn ->
      :code.delete(:telemetry)
      :code.purge(:telemetry)
    end)

    start_supervised!({Tiebeam, name: @cluster, cluster: "telemetry", timing: [greet_first: 100]})
    :ok
  end

  # Counts are of a turn: they come in as many parts as there were turns.
  defp receive_count(_event, 0), do: :ok

  defp receive_count(event, left) do
    assert_receive {[:tiebeam, :registry, ^event], %{count: count}, %{cluster: @cluster}}, @soon
    receive_count(event, left - count)
  end

  test "names and memberships that come and go, and the entries of a node that ends" do
    for n <- 1..20, do: :ok = Registry.register(@cluster, n, self())
    receive_count(:registered, 20)
    :ok = Registry.update_meta(@cluster, 1, :new)
    receive_count(:updated, 1)
    :ok = Registry.unregister(@cluster, 1)
    receive_count(:unregistered, 1)
    :ok = Group.join(@cluster, :g, self())
    receive_count(:joined, 1)
    :ok = Group.leave(@cluster, :g, self())
    receive_count(:left, 1)

    peer = BeamMember.start(Net.name("b"), join: [node()], cluster: "telemetry")
    eventually(fn -> Beam.on(peer, Registry, :count, [@cluster]) == 19 end)
    Beam.on(peer, Names, :register, [@cluster, [:a, :b, :c]])
    receive_count(:registered, 3)
    node = peer.node
    BeamMember.kill(peer)

    assert_receive {[:tiebeam, :registry, :purge], %{names: 3, memberships: 0, duration: _},
                    %{node: ^node, reason: :down}},
                   @soon
  end

  test "a process that lost its name" do
    peer = BeamMember.start(Net.name("b"), cluster: "telemetry")
    [{_, older, :ok}] = Beam.on(peer, Names, :register, [@cluster, [:disputed]])
    # The greater stamp is the younger one.
    for n <- 1..5, do: :ok = Registry.register(@cluster, n, self())
    :ok = Registry.register(@cluster, :disputed, self())
    me = self()
    true = Node.connect(peer.node)

    assert_receive {[:tiebeam, :registry, :conflict], %{count: 1},
                    %{scope: :default, name: :disputed, pid: ^me, kept: ^older}},
                   @soon
  end
end
