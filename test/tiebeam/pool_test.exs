# A pool on one node: the rules.
defmodule Tiebeam.PoolTest do
  use ExUnit.Case

  import ExUnit.CaptureLog
  import Support.Eventually

  alias Tiebeam.{Leader, Lock, Pool}

  @cluster MyApp.Cluster
  @pool {@cluster, "p"}
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
    defaults = [cluster: @cluster, name: "p", child: {Agent, fn -> :state end}, settle: 100]
    start_supervised!({Pool, Keyword.merge(defaults, options)})
  end

  defp worker, do: eventually(fn -> List.first(Pool.workers(@pool)) end)

  defp crash(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, _, _}
  end

  test "that spreads runs a worker, calls it by every route, and stops it" do
    start()
    worker = worker()
    get = {:get, & &1}

    for route <- [:any, :local_first, :leader, {:key, "k"}],
        do: assert(Pool.call(@pool, get, route: route, timeout: 30_000) == {:ok, :state})

    assert Pool.call(@pool, get, route: :all) == [{worker, {:ok, :state}}]
    assert Pool.cast(@pool, {:cast, fn _ -> :cast end}) == :ok
    assert Pool.call(@pool, get) == {:ok, :cast}
    assert Pool.cast(@pool, {:cast, fn _ -> :all end}, route: :all) == :ok
    assert Pool.call(@pool, get) == {:ok, :all}
    assert Pool.members(@pool) == [node()]

    hang = {:get, fn _ -> Process.sleep(:infinity) end}
    assert Pool.call(@pool, hang, timeout: 50) == {:error, :timeout}
    assert Pool.call(@pool, hang, route: :all, timeout: 50) == [{worker, {:error, :timeout}}]

    # It still hangs, and is not waited for long.
    stop_supervised!({Pool, @cluster, "p"})
    refute Process.alive?(worker)
    eventually(fn -> Pool.workers(@pool) == [] end)
    assert Pool.call(@pool, get, timeout: 50) == {:error, :no_worker}
    assert Pool.call(@pool, get, route: :all) == []
    assert Pool.cast(@pool, get) == {:error, :no_worker}
  end

  test "starts a worker again that ended, and ends itself when that goes on" do
    pid = start(max_restarts: 1, max_seconds: 60)
    first = worker()
    crash(first)
    second = eventually(fn -> Enum.find(Pool.workers(@pool), &(&1 != first)) end)
    monitor = Process.monitor(pid)
    crash(second)
    assert_receive {:DOWN, ^monitor, :process, _, {:shutdown, {:runner_ended, 0, _}}}
    # Its supervisor started it again.
    eventually(fn -> Enum.any?(Pool.workers(@pool), &(&1 not in [first, second])) end)
  end

  test "a call is told that its worker went away" do
    start()
    worker()
    assert {:error, {:down, :gone}} = Pool.call(@pool, {:get, fn _ -> exit(:gone) end}, timeout: 30_000)
    assert {:ok, :state} = Pool.call(@pool, {:get, & &1}, timeout: 30_000)
  end

  test "goes on while the server is gone, and its worker is found again" do
    start()
    worker = worker()
    server = Process.whereis(:tiebeam)
    Process.exit(server, :kill)
    eventually(fn -> Process.whereis(:tiebeam) not in [nil, server] end)
    eventually(fn -> Pool.workers(@pool) == [worker] and Pool.members(@pool) == [node()] end)
    assert Pool.call(@pool, {:get, & &1}) == {:ok, :state}
  end

  test "waits for a worker" do
    early = Task.async(fn -> Pool.call(@pool, {:get, & &1}, timeout: 60_000) end)
    start()
    assert Task.await(early, 60_000) == {:ok, :state}
  end

  test "drains, and starts no worker any more" do
    start()
    worker = worker()
    assert Pool.drain(@pool) == :ok
    refute Process.alive?(worker)
    assert Pool.members(@pool) == []
    eventually(fn -> Pool.workers(@pool) == [] end)
    assert Pool.drain(@pool) == :ok
    assert Pool.call(@pool, {:get, & &1}, timeout: 300) == {:error, :no_worker}
    assert Pool.drain({@cluster, "other"}) == {:error, :not_started}
  end

  test "of replicas runs one per node, under a token that grows" do
    start(replicas: 3, child: fn token -> {Agent, fn -> token end} end)
    assert {:ok, token} = Pool.call(@pool, {:get, & &1}, timeout: 30_000)
    assert is_integer(token)
    first = worker()
    # Two places are left for others.
    assert [_] = Pool.workers(@pool)
    assert Pool.drain(@pool) == :ok
    refute Process.alive?(first)
    stop_supervised!({Pool, @cluster, "p"})

    start(replicas: 1, child: fn token -> {Agent, fn -> token end} end)
    assert {:ok, next} = Pool.call(@pool, {:get, & &1}, timeout: 30_000)
    assert next > token

    # The session of this node ends.
    second = worker()
    monitor = Process.monitor(second)
    :tiebeam |> Process.whereis() |> Process.exit(:kill)
    assert_receive {:DOWN, ^monitor, :process, _, :killed}
    eventually(fn -> Enum.find(Pool.workers(@pool), &(&1 not in [first, second])) end)
  end

  test "stays away from another pool" do
    start_supervised!({Pool, cluster: @cluster, name: "other", child: {Agent, fn -> nil end}})
    eventually(fn -> Pool.workers({@cluster, "other"}) != [] end)
    start(replicas: 1, away_from: "other")
    # Behind everything that was asked before it.
    eventually(fn -> Pool.members(@pool) == [node()] end)
    {:ok, token} = Lock.acquire(@cluster, "later")
    :ok = Lock.release(@cluster, "later", token)
    assert Pool.call(@pool, {:get, & &1}, timeout: 500) == {:error, :no_worker}
    assert Pool.drain({@cluster, "other"}) == :ok
    assert Pool.call(@pool, {:get, & &1}, timeout: 30_000) == {:ok, :state}
  end

  test "kills a worker that hangs when it starts" do
    me = self()

    child = %{
      id: :hangs,
      start:
        {Agent, :start_link,
         [
           fn ->
             send(me, {:hangs, self()})
             Process.sleep(:infinity)
           end
         ]}
    }

    log =
      capture_log(fn ->
        start(child: child, start_timeout: 200, release_timeout: 200)
        assert_receive {:hangs, worker}
        monitor = Process.monitor(worker)
        assert_receive {:DOWN, ^monitor, :process, _, :killed}
        stop_supervised({Pool, @cluster, "p"})
      end)

    assert log =~ "worker 0 of the pool \"p\" was killed: it was starting for longer than it may"
  end

  test "misused says how" do
    start_supervised!({Tiebeam, name: MyApp.Lone, process: :tiebeam_lone})
    Process.flag(:trap_exit, true)
    options = [cluster: @cluster, name: "p", child: {Agent, fn -> nil end}]

    assert {:error, {:no_group, text}} =
             Pool.start_link(Keyword.merge(options, cluster: MyApp.Lone, replicas: 1))

    assert text =~ "voters:"

    for {change, message} <- [
          {[child: nil], ~r/:child is required/},
          {[mode: :all], ~r/either mode: :spread or replicas: n/},
          {[mode: :spread, replicas: 2], ~r/either mode: :spread or replicas: n/},
          {[replicas: 0], ~r/from 1 to 4096/},
          {[away_from: "other"], ~r/:away_from needs the option :replicas/},
          {[name: nil], ~r/:name is required/},
          {[max_seconds: 0], ~r/:max_seconds/},
          {[size: 8], ~r/unknown option :size/}
        ] do
      assert_raise ArgumentError, message, fn -> Pool.start_link(Keyword.merge(options, change)) end
    end

    assert_raise ArgumentError, ~r/:route cannot be :none/, fn -> Pool.call(@pool, :x, route: :none) end
  end
end
