# The services of one node.
defmodule Tiebeam.ServicesTest do
  use ExUnit.Case

  import Support.Eventually

  alias Tiebeam.{Group, Native, Registry, Service, Services}

  @cluster MyApp.Cluster

  setup do
    # A suspect stays one for as long as any test takes.
    start_supervised!({Tiebeam, name: @cluster, timing: [suspicion_multiplier: 64]})
    :ok
  end

  doctest Tiebeam.Services

  defp idle, do: spawn_link(fn -> Process.sleep(:infinity) end)

  defp kill(pid) do
    Process.unlink(pid)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 30_000
  end

  defp names(filter), do: @cluster |> Services.list(filter) |> Enum.map(& &1.name) |> Enum.sort()

  defp next_change(watch) do
    assert_receive {:tiebeam, @cluster, {:service, ^watch, change, %Service{} = service}}, 30_000
    {change, service.name, service.tags}
  end

  describe "the list" do
    test "is of what passes the filter" do
      :ok = Services.register(@cluster, "api", tags: ["http", "json"], meta: %{zone: "a", port: 1})
      :ok = Services.register(@cluster, "web", tags: ["http"], meta: %{zone: "b"})
      :ok = Services.register(@cluster, nil, meta: :any)
      :ok = Services.register(@cluster, "api", scope: :other)
      assert names([]) == [nil, "api", "web"]
      assert names(name: "api") == ["api"]
      assert names(name: nil) == [nil]
      assert names(tag: "http") == ["api", "web"]
      assert names(tag: ["http", "json"]) == ["api"]
      assert names(tag: :http) == []
      assert names(meta: %{zone: "a"}) == ["api"]
      assert names(meta: %{zone: "a", port: 2}) == []
      assert names(meta: %{port: 1.0}) == []
      assert names(status: :suspect) == []
      assert names(status: :any, tag: "json") == ["api"]
      assert names(scope: :other) == ["api"]
      assert names(scope: :none) == []
    end

    test "has a process under each of its services, and each process of a service once" do
      [one, other] = pids = [idle(), idle()]
      for pid <- pids, name <- ["a", "b"], do: :ok = Services.register(@cluster, name, pid: pid, tags: [1])
      :ok = Services.register(@cluster, "a", pid: one, tags: [2])
      assert Enum.sort(for %{pid: pid} <- Services.list(@cluster, name: "a"), do: pid) == Enum.sort(pids)
      assert for(%{pid: pid} <- Services.list(@cluster, tag: 2), do: pid) == [one]
      :ok = Services.unregister(@cluster, "a", pid: one)
      assert for(%{pid: pid} <- Services.list(@cluster, name: "a"), do: pid) == [other]
    end

    test "never shows a process of this node that has ended" do
      for _ <- 1..100 do
        pid = idle()
        :ok = Services.register(@cluster, "short", pid: pid)
        kill(pid)
        assert Services.list(@cluster, name: "short") == []
      end
    end

    # What any node may have put there.
    test "takes what is in the groups as it is" do
      for {name, metadata} <- [
            {"nothing", nil},
            {"number", %{tags: 7, meta: 1}},
            {"improper", %{tags: ["a" | "b"]}},
            {"list", [tags: ["a"]]}
          ],
          do: :ok = Group.join(@cluster, name, self(), metadata, scope: :services)

      assert names([]) == ["improper", "list", "nothing", "number"]
      assert [%Service{name: "improper", tags: ["a"], meta: nil}] = Services.list(@cluster, tag: "a")
      assert [%Service{name: "number", tags: [], meta: 1}] = Services.list(@cluster, name: "number")
    end

    test "is asked for in words that can be understood" do
      for {options, words} <- [
            {[status: :dead], ~r/:status cannot be :dead/},
            {[meta: [a: 1]], ~r/:meta cannot be/},
            {[scope: "x"], ~r/:scope cannot be "x"/},
            {[tags: ["a"]], ~r/unknown option :tags; the options are :name, :tag/}
          ] do
        assert_raise ArgumentError, words, fn -> Services.list(@cluster, options) end
        assert_raise ArgumentError, words, fn -> Services.watch(@cluster, options) end
      end

      for tags <- ["a", [1.5], ["a" | "b"]] do
        assert_raise ArgumentError, ~r/:tags must be a list of names/, fn ->
          Services.register(@cluster, "a", tags: tags)
        end
      end

      assert_raise ArgumentError, ~r/there is no cluster Nobody/, fn -> Services.list(Nobody) end
      long = String.duplicate("x", 4096)
      assert {:error, {:too_long, :metadata, _, 4096}} = Services.register(@cluster, "a", meta: long)
    end
  end

  describe "a watch" do
    test "tells what passes its filter, and what does no longer" do
      pid = idle()
      :ok = Services.register(@cluster, "old", tags: ["http"])
      {:ok, watch, [%Service{name: "old"}]} = Services.watch(@cluster, tag: "http")
      {:ok, all, services} = Services.watch(@cluster)
      assert length(services) == 1

      :ok = Services.register(@cluster, "api", pid: pid)
      assert next_change(all) == {:up, "api", []}
      :ok = Services.register(@cluster, "api", pid: pid, tags: ["http"])
      assert next_change(watch) == {:up, "api", ["http"]}
      assert next_change(all) == {:changed, "api", ["http"]}
      :ok = Services.register(@cluster, "api", pid: pid, tags: ["http"], meta: 1)
      assert next_change(watch) == {:changed, "api", ["http"]}
      :ok = Services.register(@cluster, "api", pid: pid, tags: ["json"])
      assert next_change(watch) == {:down, "api", ["http"]}
      :ok = Services.register(@cluster, "api", scope: :other, tags: ["http"])
      :ok = Services.unwatch(@cluster, all)
      :ok = Services.register(@cluster, "api", pid: pid, tags: ["http"])
      assert next_change(watch) == {:up, "api", ["http"]}
      kill(pid)
      assert next_change(watch) == {:down, "api", ["http"]}
      refute_received {:tiebeam, @cluster, {:service, ^watch, _, _}}
    end

    test "ends with its process, and leaves nothing behind" do
      task = Task.async(fn -> Services.watch(@cluster, scope: :one) end)
      {:ok, watch, []} = Task.await(task)
      eventually(fn -> :sys.get_state(:tiebeam).names.services.watches == %{} end)
      assert :sys.get_state(:tiebeam).names.services.known == %{}
      # Somebody else's.
      assert Services.unwatch(@cluster, watch) == :ok
      members = Tiebeam.Table.members_of(@cluster)
      assert :ets.match(members, {{:service_watch, :_}, :_, :_}) == []
    end

    test "outlives a crash of the server, and tells the differences" do
      pid = idle()
      :ok = Services.register(@cluster, "api", pid: pid, tags: ["http"])
      {:ok, watch, [_api]} = Services.watch(@cluster, tag: "http")
      server = Process.whereis(:tiebeam)
      kill(server)
      assert next_change(watch) == {:down, "api", ["http"]}
      assert next_change(watch) == {:up, "api", ["http"]}
      kill(pid)
      assert next_change(watch) == {:down, "api", ["http"]}
    end

    test "is told that this node's services are none any more when it leaves" do
      :ok = Services.register(@cluster, "api", [])
      {:ok, watch, [_api]} = Services.watch(@cluster)
      :ok = Tiebeam.leave(@cluster)
      assert next_change(watch) == {:down, "api", []}
      assert Services.list(@cluster, status: :any) == []
    end

    test "more of them than there may be are refused" do
      answers = for _ <- 1..4_100, do: Services.watch(@cluster, name: "nobody")
      assert Enum.count(answers, &match?({:ok, _, []}, &1)) == 4_096
      assert List.last(answers) == {:error, {:busy, 4_096}}
    end
  end

  describe "a node that is suspected" do
    # Never connected: its core is played by the test, and what is sent to it is lost.
    @peer :"nobody@127.0.0.1"

    # The core of a node that has seen another one.
    defp core(node, other, creation \\ 1, incarnation \\ 1) do
      settings = %{
        node: node,
        creation: creation,
        incarnation: incarnation,
        cluster: "default",
        join: [],
        seed: 1,
        metadata: "",
        evict: false,
        entries_per_scope: 1024,
        timing: Native.timing(:lan),
        leadership: nil
      }

      {:ok, core} = Native.new(settings)
      {actions, _deadline} = Native.step(core, 0, [{:connected, other, true}])
      {core, sent(actions)}
    end

    defp sent(actions), do: for({:send, _node, bytes} <- actions, do: bytes)

    # A process of the peer, and what the peer sends when it joins groups and has a name.
    defp joins(metadata) do
      {core, hellos} = core(@peer, node())
      {_twin, hellos_of_this} = core(node(), @peer)
      pid = :erlang.binary_to_term(<<131, 88, 119, byte_size("#{@peer}"), "#{@peer}", 7::32, 0::32, 1::32>>)

      [name, bytes, nothing] =
        for term <- ["api", pid, nil], do: :erlang.term_to_binary(term, minor_version: 2)

      metadata = :erlang.term_to_binary(metadata, minor_version: 2)

      commands = [
        {:join, :services, name, bytes, metadata},
        {:join, :default, name, bytes, metadata},
        {:register, :default, name, bytes, nothing, :notify, false}
      ]

      asked = for {command, call} <- Enum.with_index(commands), do: {:asked, call, command}
      heard = for hello <- hellos_of_this, do: {:received, node(), hello}
      {actions, _deadline} = Native.step(core, 1, heard)
      {more, _deadline} = Native.step(core, 2, asked ++ [:woke])
      {pid, hellos ++ sent(actions) ++ sent(more)}
    end

    defp from_peer(bytes), do: for(message <- bytes, do: send(:tiebeam, {:"$tiebeam", @peer, message}))

    # It answers no probe, so it is a suspect sooner or later whatever is done: nothing here depends on when.
    test "has services that are flagged, and hidden from who wants them so" do
      {pid, messages} = joins(%{tags: ["http"], meta: 1})
      {:ok, alive, []} = Services.watch(@cluster)
      {:ok, any, []} = Services.watch(@cluster, status: :any)
      {:ok, suspects, []} = Services.watch(@cluster, status: :suspect, tag: "http")
      send(:tiebeam, {:nodeup, @peer, [node_type: :visible]})
      from_peer(messages)
      assert next_change(alive) == {:up, "api", ["http"]}
      assert next_change(any) == {:up, "api", ["http"]}

      eventually(fn ->
        Registry.whereis(@cluster, "api") == pid and Group.members(@cluster, "api") == [pid]
      end)

      send(:tiebeam, {:nodedown, @peer, [node_type: :visible]})
      assert next_change(suspects) == {:up, "api", ["http"]}
      assert next_change(any) == {:changed, "api", ["http"]}
      assert next_change(alive) == {:down, "api", ["http"]}
      assert Services.list(@cluster) == []

      assert [%Service{status: :suspect, pid: ^pid, node: @peer, meta: 1}] =
               Services.list(@cluster, status: :any)

      assert [%Service{status: :suspect, pid: ^pid}] = Services.list(@cluster, status: :suspect, name: "api")
      assert seen() == {[], [], nil, nil}
      assert Group.call(@cluster, "api", :x, hide_suspect: true) == []
      assert Group.members(@cluster, "api") == [pid]
      assert Registry.whereis(@cluster, "api") == pid

      # It says that it is well.
      send(:tiebeam, {:nodeup, @peer, [node_type: :visible]})

      eventually(fn ->
        {_core, hellos} = core(@peer, node(), 1, System.unique_integer([:positive, :monotonic]) + 1)
        from_peer(hellos)
        seen() == {[pid], [{pid, nil}], pid, {pid, nil}}
      end)

      assert next_change(suspects) == {:down, "api", ["http"]}
      assert next_change(any) == {:changed, "api", ["http"]}
      assert next_change(alive) == {:up, "api", ["http"]}

      # Another life of it has no services.
      {_core, hellos} = core(@peer, node(), 2, System.unique_integer([:positive, :monotonic]) + 1)
      from_peer(hellos)
      eventually(fn -> Services.list(@cluster, status: :any) == [] end)
      assert next_change(alive) == {:down, "api", ["http"]}

      assert_raise ArgumentError, ~r/:hide_suspect cannot be 1/, fn ->
        Group.members(@cluster, "api", hide_suspect: 1)
      end
    end

    # What look-ups show to who does not want suspects.
    defp seen do
      options = [hide_suspect: true]
      metadata = for {pid, %{meta: 1}} <- Group.lookup(@cluster, "api", options), do: {pid, nil}
      members = Group.members(@cluster, "api", options)

      {members, metadata, Registry.whereis(@cluster, "api", options),
       Registry.lookup(@cluster, "api", options)}
    end
  end

  describe "a supervised child" do
    defmodule Child do
      use GenServer
      def start_link(argument), do: GenServer.start_link(__MODULE__, argument)
      @impl true
      def init({:ignore, _test}), do: :ignore

      def init({:ok, test}) do
        send(test, {:started, self()})
        {:ok, test}
      end

      @impl true
      def handle_call(:who, _from, test), do: {:reply, self(), test}
    end

    defmodule Observer do
      # What the next child sees of the one before.
      def start_link(test), do: Agent.start_link(fn -> send(test, {:seen, Services.list(MyApp.Cluster)}) end)
    end

    defp service(options \\ []) do
      child = {Child, {:ok, self()}}
      {Services, Keyword.merge([cluster: @cluster, name: "api", tags: ["http"], child: child], options)}
    end

    test "is registered before its supervisor goes on, also after each restart" do
      observer = %{id: Observer, start: {Observer, :start_link, [self()]}}

      {:ok, supervisor} =
        Supervisor.start_link([service(), observer], strategy: :rest_for_one, max_restarts: 100)

      for _ <- 1..20 do
        assert_receive {:seen, [%Service{name: "api", tags: ["http"], pid: pid}]}, 30_000
        assert GenServer.call(pid, :who) == pid
        assert [{Observer, _, _, _}, {Child, ^pid, :worker, [Child]}] = Supervisor.which_children(supervisor)
        kill(pid)
      end

      Supervisor.stop(supervisor)
      assert Services.list(@cluster) == []
    end

    test "keeps what its specification says" do
      slow = Supervisor.child_spec({Child, :x}, id: :slow, shutdown: 7, restart: :transient)
      {Services, options} = service(child: slow)
      assert %{id: :slow, shutdown: 7, restart: :transient, modules: [Child]} = Services.child_spec(options)

      {:ok, supervisor} =
        Supervisor.start_link([service(child: {Child, {:ignore, self()}})], strategy: :one_for_one)

      assert [{Child, :undefined, _, _}] = Supervisor.which_children(supervisor)
      Supervisor.stop(supervisor)
    end

    test "that cannot be registered is stopped, and its start says why" do
      Process.flag(:trap_exit, true)
      long = String.duplicate("x", 4096)

      for options <- [[meta: long], [cluster: Nobody]] do
        assert {:error, {:shutdown, {:failed_to_start_child, Child, {:not_registered, why}}}} =
                 Supervisor.start_link([service(options)], strategy: :one_for_one)

        assert match?({:too_long, :metadata, _, 4096}, why) or match?({:error, %ArgumentError{}}, why)
        assert_receive {:started, pid}
        refute Process.alive?(pid)
      end

      assert Services.list(@cluster) == []
    end

    test "is described in full" do
      for {options, words} <- [
            {[cluster: @cluster, name: "a"], ~r/:child is required/},
            {[cluster: @cluster, name: "a", child: Child, pid: self()], ~r/:pid is the child's/},
            {[cluster: @cluster, name: "a", child: Child, tag: "a"], ~r/unknown option :tag/}
          ],
          do: assert_raise(ArgumentError, words, fn -> Services.child_spec(options) end)
    end
  end
end
