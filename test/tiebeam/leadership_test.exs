# Leadership on one node: a group of one, in memory and on disk.
defmodule Tiebeam.LeadershipTest do
  use ExUnit.Case

  import ExUnit.CaptureLog
  import Support.Eventually

  alias Support.Holder
  alias Tiebeam.{KV, Leader, Lock, Registry, Singleton}

  @cluster MyApp.Cluster
  @moduletag timeout: 120_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    if context[:group] != false, do: start(context[:options] || [])
    :ok
  end

  defp start(options) do
    start_supervised!({Tiebeam, Keyword.merge([name: @cluster, voters: [node()]], options)})
    leads()
  end

  defp leads, do: eventually(fn -> Leader.leader?(@cluster) end, 30_000)

  defp server, do: Process.whereis(:tiebeam)

  defp crash(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, _pid, :killed}, 30_000
  end

  defp started_again(before) do
    eventually(fn -> server() not in [nil, before] and Process.alive?(server()) end)
    leads()
  end

  # A process that runs until it is told to stop.
  defp idle, do: spawn(fn -> receive(do: (:stop -> :ok)) end)

  describe "a node" do
    @tag group: false
    test "without voters has no group, and says so" do
      start_supervised!({Tiebeam, name: @cluster})
      assert Leader.leader?(@cluster) == false
      assert Leader.leader(@cluster) == :none
      assert Leader.term(@cluster) == 0
      assert Leader.await(@cluster, 1_000) == {:error, :no_group}
      assert Leader.subscribe(@cluster) == {:error, :no_group}
      assert Leader.members(@cluster) == {:error, :no_group}
      assert KV.put(@cluster, "a", 1) == {:error, :no_group}
      assert KV.get(@cluster, "a") == {:error, :no_group}
      assert KV.get(@cluster, "a", consistency: :local) == :not_found
      assert KV.watch(@cluster, "a") == {:error, :no_group}
      assert Lock.acquire(@cluster, "a") == {:error, :no_group}
      assert Registry.register(@cluster, "a", self(), nil, scope: :strong) == {:error, :no_group}
      assert Leader.with_leadership(@cluster, fn _ -> flunk() end) == {:error, {:not_leader, nil}}
      assert GenServer.call(:tiebeam, {:kv, :get, "a"}) == {:error, :no_group}
      assert GenServer.call(:tiebeam, :leader) == :none
      assert GenServer.call(:tiebeam, {:subscribe_leader, self()}) == {:error, :no_group}
    end

    @tag group: false
    test "without voters starts a singleton that ends, and says why" do
      start_supervised!({Tiebeam, name: @cluster})
      Process.flag(:trap_exit, true)
      child = %{id: :work, start: {Agent, :start_link, [fn -> :ok end]}}
      {:ok, singleton} = Singleton.start_link(cluster: @cluster, name: "s", child: child)
      assert_receive {:EXIT, ^singleton, {:no_group, "start the cluster" <> _}}, 30_000
    end

    @tag group: false
    test "alone of three has no leader, and is told who is missing" do
      start_supervised!({Tiebeam, name: @cluster, voters: [node(), :"x@127.0.0.1", :"y@127.0.0.1"]})
      missing = {:not_founded, [:"x@127.0.0.1", :"y@127.0.0.1"]}
      assert KV.put(@cluster, "a", 1, timeout: 300) == {:error, missing}
      assert KV.get(@cluster, "a", timeout: 300) == {:error, missing}
      assert Lock.try_acquire(@cluster, "a", timeout: 300) == {:error, missing}
      assert Leader.add_voter(@cluster, node(), timeout: 300) == {:error, missing}
      assert GenServer.call(:tiebeam, :health).group == missing
      eventually(fn -> Tiebeam.health(@cluster).group == missing end)
      # It knows that it does not lead, and does not wait for who does.
      assert KV.put(@cluster, "a", 1, on_follower: :error) == {:error, {:not_leader, nil}}
      assert KV.delete(@cluster, "a", on_follower: :error, expect: 1) == {:error, {:not_leader, nil}}
      assert Leader.await(@cluster, 100) == {:error, :timeout}
      assert Leader.leader?(@cluster) == false
    end

    test "misused says how" do
      message =
        "there is no cluster Nobody on this node. Start it in a supervision tree: {Tiebeam, name: Nobody}"

      for ask <- [&Leader.leader?/1, &Leader.leader/1, &Leader.members/1, &Lock.list/1, &KV.get(&1, "a")] do
        assert_raise ArgumentError, message, fn -> ask.(Nobody) end
      end

      assert_raise ArgumentError, ~r/^unknown option :consistence/, fn ->
        KV.get(@cluster, "a", consistence: :local)
      end

      assert_raise ArgumentError, ~r/:consistency cannot be :old/, fn ->
        KV.get(@cluster, "a", consistency: :old)
      end

      assert_raise ArgumentError, ~r/cannot be 0/, fn -> KV.put(@cluster, "a", 1, timeout: 0) end
      assert_raise ArgumentError, ~r/keyword list.*got: 5000/, fn -> KV.put(@cluster, "a", 1, 5000) end
      assert_raise ArgumentError, ~r/expected a revision/, fn -> KV.cas(@cluster, "a", -1, 1) end
      assert_raise ArgumentError, ~r/expected a token/, fn -> Lock.release(@cluster, "a", -1) end
      assert_raise ArgumentError, ~r/name@host/, fn -> Leader.add_voter(@cluster, :nobody) end
      assert_raise ArgumentError, ~r/i_know: true/, fn -> Leader.force_new_cluster(@cluster) end
      assert {:error, {:invalid_name, _}} = Lock.acquire(@cluster, 1.5)
    end
  end

  describe "keys" do
    test "have revisions that grow, and change only as expected" do
      {:ok, r1} = KV.put(@cluster, "a", 1, on_follower: :error)
      {:ok, r2} = KV.put(@cluster, "b", <<0, 255>>)
      assert r2 > r1
      assert {:error, {:differs, ^r1}} = KV.cas(@cluster, "a", r2, :no)
      assert {:error, {:differs, ^r1}} = KV.cas(@cluster, "a", :absent, :no)
      assert {:error, {:differs, 0}} = KV.cas(@cluster, "c", 5, :no)
      assert {:error, {:differs, ^r1}} = KV.delete(@cluster, "a", expect: {:value, 2})
      {:ok, r3} = KV.cas(@cluster, "a", {:value, 1}, %{two: [2.0, self()]})
      assert KV.get(@cluster, "a") == {:ok, %{two: [2.0, self()]}, r3}
      {:ok, r4} = KV.delete(@cluster, "a", expect: r3)
      assert r4 > r3
      assert KV.get(@cluster, "a", min_revision: r4) == :not_found
      assert KV.get(@cluster, "b", consistency: :local) == {:ok, <<0, 255>>, r2}
    end

    test "that are too long, and values, are refused with the limit" do
      assert {:error, {:too_long, :key, 1025, 1024}} = KV.put(@cluster, String.duplicate("k", 1025), 1)
      limit = 120 * 1024

      assert {:error, {:too_long, :value, bytes, ^limit}} =
               KV.put(@cluster, "k", String.duplicate("v", limit))

      assert bytes > limit
      assert {:ok, _} = KV.put(@cluster, "k", String.duplicate("v", limit - 10))
    end

    test "are listed in order, also more than a page" do
      put = fn n -> {:ok, _} = KV.put(@cluster, "page:#{String.pad_leading("#{n}", 4, "0")}", n) end
      1..1_100 |> Task.async_stream(put, max_concurrency: 64, timeout: 30_000) |> Stream.run()
      {:ok, _} = KV.put(@cluster, "pagf", :behind)
      {:ok, _} = KV.put(@cluster, "pag", :before)

      for options <- [[], [consistency: :local], [min_revision: 1]] do
        assert {:ok, rows} = KV.list(@cluster, "page:", options)
        assert Enum.map(rows, &elem(&1, 1)) == Enum.to_list(1..1_100)
      end

      assert {:ok, rows} = KV.list(@cluster)
      assert length(rows) == 1_102
      assert KV.list(@cluster, "nothing") == {:ok, []}
    end

    test "are watched by prefix, in order, until the watch or its process ends" do
      {:ok, since} = KV.watch(@cluster, "w")
      {:ok, _} = KV.watch(@cluster, "w")
      {:ok, r1} = KV.put(@cluster, "w1", 1)
      {:ok, _} = KV.put(@cluster, "other", 1)
      {:ok, r2} = KV.delete(@cluster, "w1")
      assert r1 > since
      assert_receive {:tiebeam, @cluster, {:kv, :put, "w1", 1, ^r1}}, 30_000
      assert_receive {:tiebeam, @cluster, {:kv, :delete, "w1", ^r2}}, 30_000
      assert KV.unwatch(@cluster, "w") == :ok
      assert KV.unwatch(@cluster, "w") == :ok
      {:ok, _} = KV.put(@cluster, "w2", 1)
      refute_received {:tiebeam, @cluster, {:kv, :put, _, _, _}}

      {watcher, {:ok, _}} = Holder.start(KV, :watch, [@cluster, "x"])
      {:ok, r3} = KV.put(@cluster, "x", 1)
      eventually(fn -> Holder.told(watcher) == [{:kv, :put, "x", 1, r3}] end)
      crash(watcher)
      eventually(fn -> :sys.get_state(server()).group.watches == %{} end)

      # The next server knows nothing of it.
      {:ok, _} = KV.watch(@cluster, "y")
      before = server()
      crash(before)
      assert_receive {:tiebeam, @cluster, {:kv, :unwatched, "y"}}, 30_000
      started_again(before)
    end
  end

  describe "a lock" do
    test "is one process's, and the next one's when that ends, with a greater token" do
      {holder, {:ok, token}} = Holder.start(Lock, :acquire, [@cluster, "l", [metadata: :first]])
      assert [%{name: "l", token: ^token, pid: ^holder, metadata: :first}] = Lock.list(@cluster)
      assert Lock.try_acquire(@cluster, "l") == {:error, :held}
      assert Lock.acquire(@cluster, "l", timeout: 100) == {:error, :held}
      assert Lock.release(@cluster, "l", token + 1) == {:error, :not_held}

      waiting = Task.async(fn -> Lock.acquire(@cluster, "l", timeout: 30_000) end)
      crash(holder)
      assert {:ok, second} = Task.await(waiting, 30_000)
      assert second > token
      # The task has ended as well.
      assert {:ok, third} = Lock.acquire(@cluster, "l", timeout: 30_000)
      assert Lock.release(@cluster, "l", third) == :ok
      assert Lock.release(@cluster, "l", third) == {:error, :not_held}
      eventually(fn -> Lock.list(@cluster) == [] end)
    end

    test "ends with its time, unless it is renewed, and its holder is told before another one has it" do
      {holder, {:ok, token}} = Holder.start(Lock, :acquire, [@cluster, "short", [ttl: 500]])
      assert {:ok, next} = Lock.acquire(@cluster, "short", ttl: 60_000, timeout: 30_000)
      assert next > token
      assert Holder.told(holder) == [{:lost, :lock, "short", token}]
      assert Lock.renew(@cluster, "short", next, 60_000) == :ok
      assert Lock.renew(@cluster, "short", token, 60_000) == {:error, :not_held}
      crash(holder)
    end

    test "is held while a function runs, which ends with it" do
      assert Lock.with(@cluster, "w", fn token -> {token, hd(Lock.list(@cluster)).token} end)
             |> then(fn {:ok, {token, token}} -> true end)

      assert Lock.with(@cluster, "w", [ttl: 500], fn _ -> Process.sleep(:infinity) end) == {:error, :lost}
      assert catch_exit(Lock.with(@cluster, "w", fn _ -> exit(:mistake) end)) == :mistake

      me = self()

      caller =
        spawn(fn ->
          Lock.with(@cluster, "w", fn _ -> send(me, {:in, self()}) && Process.sleep(:infinity) end)
        end)

      assert_receive {:in, worker}, 30_000
      assert Lock.with(@cluster, "w", [timeout: 100], fn _ -> flunk() end) == {:error, :held}
      monitor = Process.monitor(worker)
      Process.exit(caller, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^worker, :killed}, 30_000
      assert Lock.with(@cluster, "w", [timeout: 30_000], fn _ -> :free end) == {:ok, :free}
    end
  end

  describe "leadership" do
    test "runs a function, and kills it when it is lost" do
      {:ok, term} = Leader.leader?(@cluster)
      assert Leader.with_leadership(@cluster, & &1) == {:ok, term}
      assert catch_exit(Leader.with_leadership(@cluster, fn _ -> exit(:mistake) end)) == :mistake

      me = self()

      running =
        Task.async(fn ->
          Leader.with_leadership(@cluster, fn _ -> send(me, {:in, self()}) && Process.sleep(:infinity) end)
        end)

      assert_receive {:in, worker}, 30_000
      monitor = Process.monitor(worker)
      crash(server())
      assert Task.await(running, 30_000) == {:error, :lost}
      assert_receive {:DOWN, ^monitor, :process, ^worker, :killed}, 30_000
    end

    test "is told to subscribers, who survive a crash of the server" do
      :ok = Leader.subscribe(@cluster)
      {:ok, term} = Leader.leader?(@cluster)
      me = node()
      assert_receive {:tiebeam, @cluster, {:leader, ^me, ^term}}, 30_000
      before = server()
      crash(before)
      assert_receive {:tiebeam, @cluster, {:leader, nil, _}}, 30_000
      assert_receive {:tiebeam, @cluster, {:leader, ^me, _}}, 30_000
      assert Leader.unsubscribe(@cluster) == :ok
      assert :sys.get_state(server()).group.subscribers == %{}
    end

    test "cannot be handed to anybody by the only voter" do
      assert {:error, _} = Leader.step_down(@cluster, nil, timeout: 2_000)
      assert {:error, _} = Leader.remove_voter(@cluster, node(), timeout: 2_000)
      leads()
    end
  end

  describe "what any node may ask" do
    test "is answered, with reasons that are atoms or words" do
      ask = &GenServer.call(:tiebeam, &1)
      {:ok, term} = Leader.leader?(@cluster)
      assert ask.(:leader) == {:ok, node(), term}
      assert {:ok, revision} = ask.({:kv, :put, "a", {1, "two"}})
      assert ask.({:kv, :get, "a"}) == {:ok, {1, "two"}, revision}
      assert ask.({:kv, :list, "a"}) == {:ok, [{"a", {1, "two"}, revision}]}
      assert {:ok, later} = ask.({:kv, :delete, "a"})
      assert later > revision
      assert ask.({:kv, :get, "a"}) == :not_found
      assert ask.({:kv, :get, :a}) == {:error, {:invalid, "a key is a binary"}}
      assert {:error, {:invalid, text}} = ask.({:kv, :put, String.duplicate("k", 2_000), 1})
      assert text =~ "the limit is 1024"
      assert ask.({:kv, :increment, "a"}) == {:error, :unknown_request}
      assert ask.({:step_down, :nobody@nowhere}) == {:error, {:no_member, :nobody@nowhere}}
      assert {:error, {:invalid, _}} = ask.({:step_down, :nobody})
      {:ok, token} = Lock.acquire(@cluster, "l", metadata: 1)
      assert ask.(:locks) == [{"l", token, self(), 1}]
      assert ask.({:leadership, :members, 0}) == {:error, :unknown_request}
    end
  end

  describe "leaving" do
    test "ends what was held, and is told" do
      {holder, {:ok, token}} = Holder.start(Lock, :acquire, [@cluster, "l"])
      :ok = Leader.subscribe(@cluster)
      :ok = Tiebeam.leave(@cluster)
      assert Holder.told(holder) == [{:lost, :lock, "l", token}]
      assert_receive {:tiebeam, @cluster, {:stopped, :left}}, 30_000
      assert Leader.leader?(@cluster) == false
      assert KV.put(@cluster, "a", 1) == {:error, :left}
      crash(holder)
    end
  end

  describe "a crash of the server" do
    test "in memory tells the holders, and everything begins anew" do
      {:ok, _} = KV.put(@cluster, "a", 1)
      {holder, {:ok, token}} = Holder.start(Lock, :acquire, [@cluster, "l"])
      before = server()
      crash(before)
      eventually(fn -> Holder.told(holder) == [{:lost, :lock, "l", token}] end)
      started_again(before)
      assert KV.get(@cluster, "a") == :not_found
      assert {:ok, _} = Lock.acquire(@cluster, "l", timeout: 30_000)
      crash(holder)
    end
  end

  describe "on disk" do
    @describetag group: false

    setup do
      directory =
        Path.join(
          System.tmp_dir!(),
          "tiebeam_leadership_#{System.unique_integer([:positive])}_#{System.pid()}"
        )

      on_exit(fn -> File.rm_rf!(directory) end)
      %{directory: directory}
    end

    test "what was agreed outlives the cluster, its server and the process that has the disk", %{
      directory: directory
    } do
      start(data_dir: directory)
      {:ok, revision} = KV.put(@cluster, "a", :kept)
      term = Leader.term(@cluster)

      stop_supervised!({Tiebeam, @cluster})
      start(data_dir: directory)
      assert KV.get(@cluster, "a") == {:ok, :kept, revision}
      assert Leader.term(@cluster) > term

      for process <- [:tiebeam, Tiebeam.Leadership.Store.process(@cluster)] do
        before = server()
        crash(Process.whereis(process))
        started_again(before)
        assert KV.get(@cluster, "a") == {:ok, :kept, revision}
      end

      # Many at once, in one write or in several.
      1..200 |> Task.async_stream(&KV.put(@cluster, "n#{&1}", &1), max_concurrency: 64) |> Stream.run()
      before = server()
      crash(before)
      started_again(before)
      assert {:ok, rows} = KV.list(@cluster, "n")
      assert length(rows) == 200
    end

    test "a directory that is in use, or another node's, is refused with words that help", %{
      directory: directory
    } do
      Process.flag(:trap_exit, true)
      start(data_dir: directory)

      refused = fn options ->
        options = [voters: [node()], data_dir: directory] ++ options

        assert {:error, {:shutdown, {:failed_to_start_child, Tiebeam.Leadership.Store, reason}}} =
                 Tiebeam.start_link(options)

        assert {:shutdown, {:failed_to_start_child, Tiebeam.Server, %Tiebeam.Error{} = error}} = reason
        Exception.message(error)
      end

      assert refused.(name: Another.Cluster, process: :another) =~ "in use"
      stop_supervised!({Tiebeam, @cluster})
      assert refused.(name: @cluster, cluster: "other") =~ "belongs to"
      File.write!(Path.join(directory, "leadership.redb"), "garbage")
      assert refused.(name: @cluster) =~ "damaged"
    end

    test "a write that fails stops the member, and nobody is told otherwise", %{directory: directory} do
      start(data_dir: directory)
      :ok = Leader.subscribe(@cluster)
      {holder, {:ok, token}} = Holder.start(Lock, :acquire, [@cluster, "l"])
      life = :sys.get_state(server()).group.life

      log =
        capture_log(fn ->
          send(server(), {:tiebeam_store, life, {:unpersisted, "no space left on device"}})
          assert_receive {:tiebeam, @cluster, {:stopped, :disk}}, 30_000
          :sys.get_state(Module.concat(@cluster, Reporter))
        end)

      assert log =~ "no space left on device"
      assert Leader.leader?(@cluster) == false
      assert Leader.leader(@cluster) == :none
      assert KV.put(@cluster, "a", 1) == {:error, :stopped}
      eventually(fn -> Holder.told(holder) == [{:lost, :lock, "l", token}] end)
      crash(holder)
    end
  end

  describe "the scope :strong" do
    test "gives a name to one process, with a token that grows, until the process ends" do
      pid = idle()
      strong = [scope: :strong]
      assert Registry.register(@cluster, {:shard, 1}, pid, :meta, strong) == :ok
      assert Registry.register(@cluster, {:shard, 1}, pid, :meta, strong) == :ok
      assert Registry.whereis(@cluster, {:shard, 1}, strong) == pid
      assert Registry.lookup(@cluster, {:shard, 1}, strong) == {pid, :meta}
      assert Registry.names(@cluster, strong) == [{:shard, 1}]
      assert Registry.local_names(@cluster, strong) == [{:shard, 1}]
      assert Registry.count(@cluster, strong) == 1
      token = Registry.token(@cluster, {:shard, 1})
      assert Registry.register(@cluster, {:shard, 1}, self(), nil, strong) == {:error, {:taken, pid}}

      assert Registry.unregister(@cluster, {:shard, 1}, scope: :strong, pid: self()) ==
               {:error, {:taken, pid}}

      # Another scope has names of its own.
      assert Registry.whereis(@cluster, {:shard, 1}) == nil
      assert GenServer.call(:tiebeam, {:names, :strong}) == [{{:shard, 1}, pid, :meta}]
      assert {:error, {:invalid, _}} = GenServer.call(:tiebeam, {:register, :strong, "x", pid})

      waiting =
        Task.async(fn ->
          Registry.register_with_retry(
            @cluster,
            {:shard, 1},
            Process.whereis(:init),
            nil,
            strong ++ [timeout: 30_000]
          )
        end)

      send(pid, :stop)
      assert Task.await(waiting, 40_000) == :ok
      assert Registry.token(@cluster, {:shard, 1}) > token
      assert Registry.unregister(@cluster, {:shard, 1}, strong) == :ok
      assert Registry.unregister(@cluster, {:shard, 1}, strong) == {:error, :unknown}
      assert Registry.whereis(@cluster, {:shard, 1}, strong) == nil
    end

    test "replaces metadata, registers without waiting, and tells of all of it" do
      strong = [scope: :strong]
      assert Registry.subscribe(@cluster) == :ok
      pid = idle()
      waiting = Task.async(fn -> Registry.await(@cluster, "shard", scope: :strong, timeout: 30_000) end)
      reference = Registry.register_async(@cluster, "shard", pid, 1, strong)
      assert_receive {^reference, :ok}, 30_000
      assert Task.await(waiting, 40_000) == {:ok, pid, 1}
      token = Registry.token(@cluster, "shard")
      assert Registry.update_meta(@cluster, "shard", 2, strong) == :ok
      assert Registry.lookup(@cluster, "shard", strong) == {pid, 2}
      assert Registry.token(@cluster, "shard") == token
      assert Registry.update_meta(@cluster, "nobody", 2, strong) == {:error, :unknown}
      reference = Registry.register_async(@cluster, "shard", self(), 1, strong)
      assert_receive {^reference, {:error, {:taken, ^pid}}}, 30_000
      send(pid, :stop)
      assert_receive {:tiebeam, @cluster, {:registered, :strong, "shard", ^pid, 1}}, 30_000
      assert_receive {:tiebeam, @cluster, {:updated, :strong, "shard", ^pid, 2}}, 30_000
      assert_receive {:tiebeam, @cluster, {:unregistered, :strong, "shard", ^pid, :freed}}, 30_000
    end

    test "serves OTP's :via" do
      via = {:via, Registry, {@cluster, :strong, "agent"}}
      {:ok, agent} = Agent.start_link(fn -> 1 end, name: via)
      assert Agent.get(via, & &1) == 1
      assert {:error, {:already_started, ^agent}} = Agent.start_link(fn -> 2 end, name: via)
      assert Registry.await(@cluster, "agent", scope: :strong) == {:ok, agent, nil}
      assert Registry.await(@cluster, "nobody", scope: :strong, timeout: 30) == {:error, :timeout}
      Agent.stop(agent)
      eventually(fn -> GenServer.whereis(via) == nil end)
    end
  end

  describe "a singleton" do
    defp singleton(options) do
      me = self()

      defaults = [
        cluster: @cluster,
        name: "s",
        cooldown: 50,
        on_active: &send(me, {:active, &1}),
        on_passive: &send(me, {:passive, &1})
      ]

      start_supervised!({Singleton, Keyword.merge(defaults, options)})
    end

    defp active do
      assert_receive {:active, token}, 30_000
      token
    end

    test "starts its child with the token, stops it in good order, and gives way for a while" do
      me = self()

      child = fn token ->
        %{id: :c, start: {Agent, :start_link, [fn -> send(me, {:child, self(), token}) end]}}
      end

      singleton = singleton(child: child)
      token = active()
      assert_receive {:child, pid, ^token}, 30_000
      eventually(fn -> Singleton.whereis(@cluster, "s") == {node(), token} end)
      assert Singleton.status(singleton) == {:active, token}

      assert Singleton.step_down(@cluster, "s") == :ok
      refute Process.alive?(pid)
      assert_received {:passive, :step_down}
      second = active()
      assert second > token
      assert_receive {:child, pid, ^second}, 30_000

      stop_supervised!({Singleton, @cluster, "s"})
      assert_received {:passive, :shutdown}
      refute Process.alive?(pid)
      eventually(fn -> Singleton.whereis(@cluster, "s") == nil end)
      assert Singleton.step_down(@cluster, "s") == {:error, :passive}
    end

    test "steps down when its child ends, and tries again" do
      me = self()

      child = fn _token ->
        {Task, fn -> send(me, {:child, self()}) && receive(do: (:end -> exit(:broken))) end}
      end

      singleton(child: child)
      token = active()
      assert_receive {:child, pid}, 30_000
      send(pid, :end)
      assert_receive {:passive, {:exit, :broken}}, 30_000
      assert active() > token
    end

    test "kills its child when the claim is lost" do
      me = self()

      child = fn ->
        Process.flag(:trap_exit, true)
        send(me, {:child, self()})
      end

      singleton(child: {Agent, child})
      active()
      assert_receive {:child, pid}, 30_000
      monitor = Process.monitor(pid)
      crash(server())
      assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 30_000
      assert_receive {:passive, :lost}, 30_000
      # It is active again when the cluster is here again.
      active()
    end
  end
end
