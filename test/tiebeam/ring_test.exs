# A ring on one node: the rules.
defmodule Tiebeam.RingTest do
  use ExUnit.Case

  import ExUnit.CaptureLog
  import Support.Eventually

  alias Support.RingDiary
  alias Tiebeam.{Leader, Ring}

  @cluster MyApp.Cluster
  @ring {@cluster, "r"}
  @moduletag timeout: 120_000

  setup_all do
    start_supervised!({Tiebeam, name: @cluster, voters: [node()]})
    eventually(fn -> Leader.leader?(@cluster) end)
    :ok
  end

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  defp start(options \\ []) do
    defaults = [cluster: @cluster, name: "r", partitions: 8, handler: {RingDiary, self()}, settle: 100]
    start_supervised!({Ring, Keyword.merge(defaults, options)})
  end

  defp settled, do: eventually(fn -> Ring.members(@ring) == [node()] and not Ring.rebalancing?(@ring) end)

  defp manager, do: Tiebeam.Placement.Manager.of_this_node(@cluster, :ring, "r")

  test "one node owns all, is told each once, and gives all back" do
    start()

    tokens =
      for partition <- 0..7,
          into: %{},
          do: assert_receive({:own, ^partition, token, nil}) && {partition, token}

    settled()
    refute_received {:own, _, _, _}
    assert Ring.owned(@ring) == Enum.to_list(0..7)
    assert Ring.partitions(@ring, node()) == Enum.to_list(0..7)
    assert Ring.partitions(@ring, :nobody@nowhere) == []
    for {partition, token} <- tokens, do: assert(Ring.owner(@ring, partition) == {node(), token})
    assert Ring.owner(@ring, 8) == nil

    assert Ring.partition_for(@ring, "user:1") == Tiebeam.Placement.partition("user:1", 8)
    assert Ring.node_for(@ring, "user:1") == node()
    assert Ring.owns?(@ring, "user:1")

    stop_supervised!({Ring, @cluster, "r"})

    for {partition, token} <- tokens do
      assert_received {:release, ^partition, ^token, :shutdown}
      # It is given back, behind the release.
      assert Ring.owner(@ring, partition) == nil
    end

    assert Ring.members(@ring) == []

    start()
    for {partition, token} <- tokens, do: assert_receive({:own, ^partition, next, nil} when next > token)
  end

  test "calls and casts go to the process of the key's partition, which keeps its state" do
    start()
    keys = for i <- 1..50, do: {:user, i}
    me = node()

    for key <- keys do
      partition = Tiebeam.Placement.partition(key, 8)
      assert Ring.call(@ring, key, {:put, key}, 30_000) == {:ok, {:put, partition, me}}
    end

    for key <- keys, do: assert(Ring.call(@ring, key, :get) == {:ok, key})
    assert Ring.cast(@ring, "cast", 1) == :ok
    assert Ring.call(@ring, "cast", :get) == {:ok, 1}
    assert Ring.call(@ring, "k", :hang, 50) == {:error, :timeout}
    assert_raise ArgumentError, fn -> Ring.call(@ring, 1.5, :get) end
  end

  test "without an owner a call waits, and says that nothing was done" do
    assert Ring.call(@ring, "a", :get, 50) == {:error, :no_owner}
    assert Ring.cast(@ring, "a", :get) == {:error, :no_owner}

    assert_raise ArgumentError, ~r/no node of MyApp.Cluster takes part in the ring "r"/, fn ->
      Ring.owns?(@ring, "a")
    end

    early = Task.async(fn -> Ring.call(@ring, "a", {:put, 1}, 60_000) end)
    start()
    assert {:ok, {:put, _, _}} = Task.await(early, 60_000)
  end

  test "a handler that fails is told to the caller, and starts again under its token" do
    start()
    {:ok, token} = Ring.call(@ring, "a", :token, 30_000)
    partition = Ring.partition_for(@ring, "a")
    assert_receive {:own, ^partition, ^token, nil}

    log =
      capture_log(fn ->
        assert {:error, {:failed, text}} = Ring.call(@ring, "a", :fail)
        assert text =~ "on purpose"
        assert_receive {:own, ^partition, ^token, nil}
      end)

    assert log =~ "partition #{partition} of the ring \"r\" ended"
    assert Ring.call(@ring, "a", :token, 30_000) == {:ok, token}
  end

  test "that fails again and again ends, and its supervisor starts it anew" do
    start(max_restarts: 1, max_seconds: 60)
    {:ok, token} = Ring.call(@ring, "a", :token, 30_000)
    before = manager()
    monitor = Process.monitor(before)
    assert {:error, {:failed, _}} = Ring.call(@ring, "a", :fail)
    assert {:error, {:failed, _}} = Ring.call(@ring, "a", :fail, 30_000)
    assert_receive {:DOWN, ^monitor, :process, _, {:shutdown, {:runner_ended, _, _}}}
    # The others were released in good order.
    assert_received {:release, _, _, :shutdown}
    assert {:ok, next} = Ring.call(@ring, "a", :token, 60_000)
    assert next > token
  end

  test "drains: gives all up in good order, takes nothing any more, and a handler that hangs is killed" do
    start(release_timeout: 300)
    partition = Tiebeam.Placement.partition("hang", 8)
    {:ok, _} = Ring.call(@ring, "hang", {:put, true}, 30_000)
    settled()

    assert capture_log(fn -> assert Ring.drain(@ring) == :ok end) =~
             "partition #{partition} of the ring \"r\" was killed"

    for other <- 0..7, other != partition, do: assert_received({:release, ^other, _, :drain})
    refute_received {:release, ^partition, _, _}
    assert Ring.owned(@ring) == []
    assert Ring.members(@ring) == []
    Ring.rebalance(@ring)
    assert Ring.call(@ring, "a", :get, 500) == {:error, :no_owner}
    assert Ring.drain(@ring) == :ok
    assert Ring.drain({@cluster, "other"}) == {:error, :not_started}
  end

  test "what is lost with the node's session is released at once, and owned anew" do
    start(lost_timeout: 30_000)
    {:ok, _} = Ring.call(@ring, "a", {:put, 1}, 30_000)
    settled()
    server = Process.whereis(:tiebeam)
    Process.exit(server, :kill)
    for partition <- 0..7, do: assert_receive({:release, ^partition, _, :lost})
    assert Ring.call(@ring, "a", :get, 60_000) == {:ok, nil}
  end

  test "is there once on a node" do
    pid = start()
    settled()
    options = [cluster: @cluster, name: "r", partitions: 8, handler: RingDiary]
    assert Ring.start_link(options) == {:error, {:already_started, pid}}
  end

  test "misused says how" do
    start_supervised!({Tiebeam, name: MyApp.Lone, process: :tiebeam_lone})
    Process.flag(:trap_exit, true)
    options = [cluster: @cluster, name: "r", partitions: 8, handler: RingDiary]
    assert {:error, {:no_group, text}} = Ring.start_link(Keyword.put(options, :cluster, MyApp.Lone))
    assert text =~ "voters:"

    for {change, message} <- [
          {[partitions: 0], ~r/from 1 to 4096/},
          {[partitions: 4097], ~r/from 1 to 4096/},
          {[handler: nil], ~r/:handler/},
          {[handler: Enum], ~r/use Tiebeam.Ring/},
          {[name: nil], ~r/:name is required/},
          {[name: 1.5], ~r/a name is made of/},
          {[cluster: nil], ~r/:cluster is required/},
          {[settle: -1], ~r/:settle must be milliseconds/},
          {[own_timeout: 0], ~r/:own_timeout must be/},
          {[partition: 8], ~r/unknown option :partition/}
        ] do
      assert_raise ArgumentError, message, fn -> Ring.start_link(Keyword.merge(options, change)) end
    end
  end
end
