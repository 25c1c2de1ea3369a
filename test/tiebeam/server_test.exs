defmodule Tiebeam.ServerTest do
  use ExUnit.Case

  import ExUnit.CaptureLog
  import Support.Eventually

  alias Tiebeam.{Member, Native}

  @cluster MyApp.Cluster
  @process :server_test
  # Never connected: what is sent to it is lost, and what it "sends" the test sends.
  @peer :"nobody@127.0.0.1"

  setup do
    start_supervised!({Tiebeam, name: @cluster, process: @process})
    :ok = Tiebeam.subscribe(@cluster)
    %{peer: peer()}
  end

  # The core of another node, played by the test.
  defp peer(settings \\ %{}) do
    {:ok, core} = Native.new(Map.merge(settings(), settings))
    core
  end

  defp settings do
    %{
      node: @peer,
      creation: 1,
      incarnation: 1,
      cluster: "default",
      join: [],
      seed: 1,
      metadata: "",
      evict: false,
      entries_per_scope: 1024,
      timing: Native.timing(:lan),
      leadership: nil
    }
  end

  defp nodeup(info \\ [node_type: :visible]), do: send(@process, {:nodeup, @peer, info})
  defp nodedown, do: send(@process, {:nodedown, @peer, [node_type: :visible]})
  defp received(bytes), do: send(@process, {:"$tiebeam", @peer, bytes})

  defp hello(core) do
    {actions, _} = Native.step(core, 0, [{:connected, node(), true}])
    {:send, _node, bytes} = List.keyfind!(actions, :send, 0)
    bytes
  end

  # A call is answered behind everything that was sent before.
  defp settle, do: GenServer.call(@process, :members)

  # What was noticed before is in the log.
  defp reported do
    settle()
    :sys.get_state(Module.concat(@cluster, Reporter))
  end

  test "a member comes, goes and comes back", %{peer: peer} do
    nodeup()
    received(hello(peer))
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: @peer, status: :alive} = member}}
    assert Tiebeam.member(@cluster, @peer) == member

    nodedown()
    assert_receive {:tiebeam, @cluster, {:member, :suspect, %Member{node: @peer}}}
    assert Tiebeam.member(@cluster, @peer).status == :suspect

    # Back under another creation: it was restarted. It outdoes what was held of its name.
    nodeup()
    received(hello(peer(%{creation: 2, incarnation: 2})))

    assert_receive {:tiebeam, @cluster, {:member, :down, %Member{node: @peer, creation: 1, status: :dead}}}

    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: @peer, creation: 2}}}
  end

  test "what waits in the mailbox is taken in its order", %{peer: peer} do
    :sys.suspend(@process)
    nodeup()
    received(hello(peer))
    nodedown()
    nodeup()
    received(hello(peer(%{creation: 2})))
    :sys.resume(@process)
    settle()

    for {change, creation} <- [up: 1, down: 1, up: 2] do
      assert_received {:tiebeam, @cluster, {:member, first_change, %Member{creation: first_creation}}}
                      when first_change in [:up, :down]

      assert {first_change, first_creation} == {change, creation}
    end
  end

  test "more than one batch is taken completely", %{peer: peer} do
    :sys.suspend(@process)
    nodeup()
    hello = hello(peer)
    for _ <- 1..1000, do: received(hello)
    received(farewell(peer))
    :sys.resume(@process)
    assert_receive {:tiebeam, @cluster, {:member, :up, _}}
    assert_receive {:tiebeam, @cluster, {:member, :left, _}}
  end

  defp farewell(core) do
    name = node()
    # A member says farewell to those it knows.
    {:ok, other} = Native.new(%{settings() | node: name})
    {[_up | hellos], _} = Native.step(other, 0, [{:connected, @peer, true}])
    events = for {:send, @peer, bytes} <- hellos, do: {:received, name, bytes}
    {actions, _} = Native.step(core, 0, events ++ [{:asked, 1, :leave}])
    {:send, ^name, bytes} = List.last(for {:send, ^name, _} = action <- actions, do: action)
    bytes
  end

  test "another cluster is told to subscribers and to the log" do
    log =
      capture_log(fn ->
        nodeup()
        received(hello(peer(%{cluster: "blue"})))
        assert_receive {:tiebeam, @cluster, {:refused, @peer, "blue"}}
        reported()
      end)

    assert log =~ ~S[is connected but in another cluster ("blue")]
    assert Tiebeam.member(@cluster, @peer) == nil
  end

  test "bytes that mean nothing are logged and change nothing", %{peer: peer} do
    nodeup()
    received(hello(peer))
    before = settle()

    log =
      capture_log(fn ->
        received("garbage")
        assert settle() == before
        reported()
      end)

    assert log =~ "ignored a message of #{@peer}: malformed: version 103"
  end

  test "messages that are none of its business are dropped" do
    pid = Process.whereis(@process)
    before = settle()

    strangers = [:hello, {:"$tiebeam", "a@h", ""}, {:"$tiebeam", @peer, :a}, {make_ref(), 1}]

    for message <- strangers ++ [{:timeout, make_ref(), :wake}, {:EXIT, self(), :normal}] do
      send(pid, message)
    end

    GenServer.cast(pid, :stop)

    for request <- [:stop, {:subscribe, :me}, {:unsubscribe, 1}, {:leave, :now}, {:broadcast, :all}] do
      assert GenServer.call(pid, request) == {:error, :unknown_request}
    end

    assert settle() == before
    assert Process.whereis(@process) == pid
  end

  test "a crash starts a fresh core, and subscribers can follow", %{peer: peer} do
    nodeup()
    received(hello(peer))
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: @peer}}}

    pid = Process.whereis(@process)
    reference = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^reference, _, _, :killed}

    assert_receive {:tiebeam, @cluster, {:member, :down, %Member{node: @peer, status: :dead}}}
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: me}}} when me == node()
    assert [%Member{status: :alive}] = Tiebeam.members(@cluster)
  end

  test "a server that takes over keeps the metadata" do
    :ok = Tiebeam.set_metadata(@cluster, "zone=1")
    assert_receive {:tiebeam, @cluster, {:member, :updated, %Member{metadata: "zone=1"}}}
    Process.exit(Process.whereis(@process), :kill)
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{metadata: "zone=1"}}}
  end

  test "health and metrics are read from the table, which follows", %{peer: peer} do
    before = Tiebeam.metrics(@cluster)
    nodeup()
    received(hello(peer))
    assert %{multiplier: _, stalls: _, minority: _} = Tiebeam.health(@cluster)
    assert GenServer.call(@process, :metrics).received == before.received + 1
    eventually(fn -> Tiebeam.metrics(@cluster).received == before.received + 1 end)
    assert GenServer.call(@process, :health).multiplier >= 1
  end

  test "a stop of this node is told" do
    :sys.suspend(@process)
    # Longer than any timer may be late.
    Process.sleep(2_000)
    :sys.resume(@process)
    assert_receive {:tiebeam, @cluster, {:stalled, late}} when late >= 500
    assert_receive {:tiebeam, @cluster, {:health, multiplier}} when multiplier > 1
    eventually(fn -> match?(%{stalls: 1}, Tiebeam.health(@cluster)) end)
  end

  describe "telemetry" do
    # What `:telemetry` is to the package: one function.
    defmodule Stub do
      def execute(event, measurements, metadata) do
        send(:telemetry_test, {:telemetry, event, measurements, metadata})
        :ok
      end
    end

    test "gets every event where it is loaded, and its handlers do not hold up the server", %{peer: peer} do
      Process.register(self(), :telemetry_test)
      {:module, _, _, _} = Module.create(:telemetry, stub(), Macro.Env.location(__ENV__))

      on_exit(fn ->
        :code.delete(:telemetry)
        :code.purge(:telemetry)
      end)

      stop_supervised!({Tiebeam, @cluster})
      start_supervised!({Tiebeam, name: @cluster, process: @process, voters: [node()]})

      me = node()

      assert_receive {:telemetry, [:tiebeam, :member, :up], %{count: 1},
                      %{cluster: @cluster, member: %{node: ^me}}}

      assert_receive {:telemetry, [:tiebeam, :leader], %{term: _}, %{cluster: @cluster, node: ^me}}, 30_000

      nodeup()
      received(hello(peer))
      assert_receive {:telemetry, [:tiebeam, :member, :up], %{count: 1}, %{member: %Member{node: @peer}}}

      # A handler that never ends.
      :sys.suspend(Module.concat(@cluster, Reporter))
      for _ <- 1..2_000, do: received("garbage")
      settle()

      {:message_queue_len, waiting} =
        Process.info(Process.whereis(Module.concat(@cluster, Reporter)), :message_queue_len)

      assert waiting in 500..1_100

      log =
        capture_log(fn ->
          :sys.resume(Module.concat(@cluster, Reporter))
          reported()
        end)

      assert log =~ ~r/\d+ notices were not reported: handlers were too slow/
    end

    defp stub do
      quote do
        defdelegate execute(event, measurements, metadata), to: unquote(Stub)
      end
    end
  end
end
