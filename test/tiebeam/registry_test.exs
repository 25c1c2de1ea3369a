# The registry of one node.
defmodule Tiebeam.RegistryTest do
  use ExUnit.Case

  import Support.Eventually

  alias Tiebeam.{Group, Registry}

  @cluster MyApp.Cluster

  setup context do
    start_supervised!({Tiebeam, Keyword.merge([name: @cluster], context[:options] || [])})
    :ok
  end

  doctest Tiebeam.Registry
  doctest Tiebeam.Group

  defp idle, do: spawn_link(fn -> Process.sleep(:infinity) end)

  defp kill(pid) do
    Process.unlink(pid)
    Process.exit(pid, :kill)
  end

  describe "names" do
    test "are there when they are answered, and gone with their process" do
      pid = idle()
      names = for n <- 1..500, do: {:room, n}
      for name <- names, do: assert(:ok = Registry.register(@cluster, name, pid))
      assert Enum.sort(Registry.names(@cluster)) == names
      assert Enum.sort(Registry.local_names(@cluster)) == names
      assert Registry.count(@cluster) == 500
      kill(pid)
      eventually(fn -> Registry.count(@cluster) == 0 end)
      assert Registry.names(@cluster) == []
    end

    test "are of every kind that is allowed, and come back as they were" do
      names =
        [:atom, :ünïcode, "", "text", "日本", 0, -1, 255, 256, 1_000_000_000_000, -2 ** 2000, {}, {:a, 1}] ++
          [[], [1, 2], [1, :a], 'text', {{{"deep"}}}, ["a", ["b"]], nil]

      for name <- names do
        assert :ok = Registry.register(@cluster, name, self(), name)
        assert Registry.lookup(@cluster, name) == {self(), name}
      end

      assert Enum.sort(Registry.names(@cluster)) == Enum.sort(names)
    end

    test "of other kinds are refused with the reason, and nothing is there" do
      nested = Enum.reduce(1..17, :a, fn _, inner -> {inner} end)

      for {name, reason} <- [
            {1.5, :invalid_name},
            {self(), :invalid_name},
            {%{}, :invalid_name},
            {make_ref(), :invalid_name},
            {<<255>>, :invalid_name},
            {<<1::1>>, :invalid_name},
            {[:a | :b], :invalid_name},
            {{:a, [1.0]}, :invalid_name},
            {2 ** 2040, :invalid_name},
            {nested, :invalid_name}
          ] do
        assert {:error, {^reason, text}} = Registry.register(@cluster, name, self())
        assert is_binary(text)
        assert {:error, {^reason, _}} = Group.join(@cluster, name, self())
        assert {:error, {^reason, _}} = Registry.await(@cluster, name)
      end

      assert {:error, {:invalid_scope, _}} = Registry.register(@cluster, :a, self(), nil, scope: "text")
      assert {:error, {:invalid_scope, _}} = Registry.register(@cluster, :a, self(), nil, scope: :global)
      assert Registry.count(@cluster) == 0
    end

    test "over a limit are refused with the limit" do
      long = String.duplicate("x", 1024)
      assert {:error, {:too_long, :name, 1030, 1024}} = Registry.register(@cluster, long, self())
      meta = String.duplicate("x", 4096)
      assert {:error, {:too_long, :metadata, 4102, 4096}} = Registry.register(@cluster, :a, self(), meta)
      assert {:error, {:too_long, :metadata, 4102, 4096}} = Group.join(@cluster, :a, self(), meta)
      assert :ok = Registry.register(@cluster, :a, self())
      assert {:error, {:too_long, :metadata, 4102, 4096}} = Registry.update_meta(@cluster, :a, meta)
      assert Registry.lookup(@cluster, :a) == {self(), nil}
      assert Registry.count(@cluster) == 1
    end

    @tag options: [entries_per_scope: 3]
    test "in a full scope are refused with the limit" do
      for n <- 1..3, do: assert(:ok = Registry.register(@cluster, n, self()))
      assert {:error, {:scope_full, 3}} = Registry.register(@cluster, 4, self())
      assert {:error, {:scope_full, 3}} = Group.join(@cluster, 4, self())
      assert :ok = Registry.register(@cluster, 4, self(), nil, scope: :other)
      assert Registry.count(@cluster) == 3
      assert :ok = Registry.unregister(@cluster, 1)
      assert :ok = Registry.register(@cluster, 4, self())
    end

    test "that are taken say by whom; one that has it gets the new metadata" do
      pid = idle()
      assert :ok = Registry.register(@cluster, :a, pid, 1)
      assert {:error, {:taken, ^pid}} = Registry.register(@cluster, :a, self(), 2)
      assert Registry.lookup(@cluster, :a) == {pid, 1}
      assert :ok = Registry.register(@cluster, :a, pid, 3)
      assert Registry.lookup(@cluster, :a) == {pid, 3}
      assert {:error, {:taken, ^pid}} = Registry.unregister(@cluster, :a, pid: self())
      assert :ok = Registry.unregister(@cluster, :a, pid: pid)
      assert {:error, :unknown} = Registry.update_meta(@cluster, :a, 1)
    end

    test "of scopes have nothing to do with each other" do
      pid = idle()
      assert :ok = Registry.register(@cluster, :a, self(), nil, scope: :one)
      assert :ok = Registry.register(@cluster, :a, pid, nil, scope: :two)
      assert Registry.whereis(@cluster, :a) == nil
      assert Registry.whereis(@cluster, :a, scope: :one) == self()
      assert Registry.whereis(@cluster, :a, scope: :two) == pid
      assert Registry.count(@cluster, scope: :one) == 1
    end

    test "of :global are seen as its scope" do
      :yes = :global.register_name({:test, self()}, self())
      assert Registry.whereis(@cluster, {:test, self()}, scope: :global) == self()
      assert Registry.lookup(@cluster, {:test, self()}, scope: :global) == {self(), nil}
      assert {:test, self()} in Registry.names(@cluster, scope: :global)
      assert GenServer.call(:tiebeam, {:whereis, :global, {:test, self()}}) == self()
      :global.unregister_name({:test, self()})
      assert Registry.whereis(@cluster, {:test, self()}, scope: :global) == nil
    end

    test "of a process that has just ended do not point to it, and are free at once" do
      for n <- 1..200 do
        pid = idle()
        :ok = Registry.register(@cluster, :a, pid)
        monitor = Process.monitor(pid)
        kill(pid)
        assert_receive {:DOWN, ^monitor, _, _, _}
        assert Registry.whereis(@cluster, :a) in [nil, self()]
        assert {n, :ok} == {n, Registry.register(@cluster, :a, self())}
        :ok = Registry.unregister(@cluster, :a)
      end
    end

    test "are waited for, and the waiting ends" do
      waiting = for n <- 1..10, do: Task.async(fn -> Registry.await(@cluster, {:later, rem(n, 2)}) end)
      dead = spawn(fn -> Registry.await(@cluster, {:later, 0}, timeout: :infinity) end)
      # All wait.
      eventually(fn -> map_size(:sys.get_state(:tiebeam).names.waiters) == 11 end)
      Process.exit(dead, :kill)
      eventually(fn -> map_size(:sys.get_state(:tiebeam).names.waiters) == 10 end)
      for n <- 0..1, do: :ok = Registry.register(@cluster, {:later, n}, self(), n)

      assert Enum.sort(Task.await_many(waiting, 60_000)) ==
               Enum.sort(for n <- 1..10, do: {:ok, self(), rem(n, 2)})

      assert {:error, :timeout} = Registry.await(@cluster, :never, timeout: 0)
      assert %{waiters: w, awaited: a} = :sys.get_state(:tiebeam).names
      assert {w, a} == {%{}, %{}}
    end

    test "are selected by a match specification of {name, pid, metadata}" do
      pid = idle()
      for n <- 1..50, do: :ok = Registry.register(@cluster, {:room, n}, pid, %{floor: rem(n, 5)})
      :ok = Registry.register(@cluster, {:hall, 1}, self(), %{floor: 1})
      :ok = Registry.register(@cluster, {:room, 1}, self(), nil, scope: :other)
      select = fn spec, options -> @cluster |> Registry.select(spec, options) |> Enum.sort() end

      assert select.([{{{:hall, :"$1"}, :"$2", :_}, [], [{{:"$1", :"$2"}}]}], []) == [{1, self()}]
      assert select.([{{{:_, :"$1"}, pid, %{floor: 3}}, [{:<, :"$1", 20}], [:"$1"]}], []) == [3, 8, 13, 18]
      assert select.([{{:_, self(), :_}, [], [:"$_"]}], []) == [{{:hall, 1}, self(), %{floor: 1}}]
      assert select.([{{:_, self(), :_}, [{:==, {:size, :"$_"}, 3}], [{:const, :"$_"}]}], []) == [:"$_"]
      assert select.([{{:"$1", :_, :"$2"}, [], [:"$$"]}], scope: :other) == [[{:room, 1}, nil]]

      assert select.([{{:"$1", pid, %{floor: 0}}, [], [:"$1"]}, {{:"$1", self(), :_}, [], [:"$1"]}], []) ==
               [{:hall, 1} | for(n <- 5..50//5, do: {:room, n})]

      for limit <- [0, 1, 7, 51, 52, :infinity] do
        found = Registry.select(@cluster, [{{:"$1", :_, :_}, [], [:"$1"]}], limit: limit)
        assert length(Enum.uniq(found)) == length(found)
        assert length(found) == min(limit, 51)
      end

      assert Enum.sort(Registry.names_of(@cluster, pid)) == for(n <- 1..50, do: {:room, n})
      assert Registry.names_of(@cluster, self(), scope: :other) == [{:room, 1}]
      kill(pid)
      eventually(fn -> Registry.names_of(@cluster, pid) == [] end)

      for spec <- [:x, [:x], [{:_, [], [:"$_"]}], [{{:_, :_, :_}, [], [:"$1"]}], [{{:_, :_, :_}, :x, [1]}]] do
        assert_raise ArgumentError, ~r/expected a match specification/, fn ->
          Registry.select(@cluster, spec)
        end
      end

      assert_raise ArgumentError, ~r/:limit cannot be -1/, fn -> Registry.select(@cluster, [], limit: -1) end

      assert_raise ArgumentError, ~r/there is no cluster Nobody/, fn ->
        Registry.select(Nobody, [{{:_, :_, :_}, [], [1]}])
      end
    end

    test "are found by tag, and those of :global as well" do
      for {name, meta} <- [
            a: %{tags: [:x, "y"]},
            b: %{tags: ["y"]},
            c: %{tags: :x},
            d: %{tags: [1 | "y"]},
            e: ["y"]
          ],
          do: :ok = Registry.register(@cluster, name, self(), meta)

      assert Registry.names(@cluster, tag: :x) == [:a]
      assert Enum.sort(Registry.names(@cluster, tag: "y")) == [:a, :b]
      assert Registry.names(@cluster, tag: 1) == [:d]
      assert Registry.names(@cluster, tag: nil) == []
      :yes = :global.register_name({:tagged, self()}, self())
      assert Registry.names(@cluster, tag: "y", scope: :global) == []
      assert Registry.names_of(@cluster, self(), scope: :global) == [{:tagged, self()}]
      assert Registry.registered?(@cluster, {:tagged, self()}, scope: :global)
      :global.unregister_name({:tagged, self()})
    end

    test "that nobody can use for a cluster raise" do
      assert_raise ArgumentError, ~r/there is no cluster Nobody/, fn -> Registry.whereis(Nobody, :a) end

      assert_raise ArgumentError, ~r/there is no cluster Nobody/, fn ->
        Registry.register(Nobody, :a, self())
      end

      assert_raise ArgumentError, ~r/there is no cluster Nobody/, fn -> Registry.count(Nobody) end
      assert_raise ArgumentError, ~r/there is no cluster Nobody/, fn -> Group.members(Nobody, :a) end
      assert_raise ArgumentError, ~r/unknown option :foo/, fn -> Registry.whereis(@cluster, :a, foo: 1) end
      assert_raise ArgumentError, ~r/keyword list.*got: 5000/, fn -> Registry.await(@cluster, :a, 5000) end

      assert_raise ArgumentError, ~r/:on_conflict cannot be :x/, fn ->
        Registry.register(@cluster, :a, self(), nil, on_conflict: :x)
      end
    end
  end

  describe "a server that crashed" do
    test "knows the names and groups of its processes again" do
      pid = idle()
      :ok = Registry.subscribe(@cluster)
      for n <- 1..100, do: :ok = Registry.register(@cluster, n, pid, {:meta, n}, on_conflict: :exit)
      :ok = Group.join(@cluster, :group, pid, :member)
      server = Process.whereis(:tiebeam)
      Process.exit(server, :kill)
      eventually(fn -> Process.whereis(:tiebeam) not in [nil, server] end)
      :sys.get_state(:tiebeam)
      assert Registry.count(@cluster) == 100
      for n <- 1..100, do: assert(Registry.lookup(@cluster, n) == {pid, {:meta, n}})
      assert Group.lookup(@cluster, :group) == [{pid, :member}]
      assert_received {:tiebeam, @cluster, {:unregistered, :default, 7, ^pid, :restarted}}
      assert {:error, {:taken, ^pid}} = Registry.register(@cluster, 1, self())
      kill(pid)
      eventually(fn -> Registry.count(@cluster) == 0 and Group.members(@cluster, :group) == [] end)
    end
  end

  describe "groups" do
    test "have members while these run" do
      [a, b] = [idle(), idle()]
      for pid <- [a, b], group <- [:x, {:y, 1}, :"$1", {:_, 1}], do: :ok = Group.join(@cluster, group, pid)

      for group <- [:x, {:y, 1}, :"$1", {:_, 1}] do
        assert Enum.sort(Group.members(@cluster, group)) == [a, b]
        assert Enum.sort(Group.local_members(@cluster, group)) == [a, b]
      end

      assert Group.members(@cluster, {:y, 2}) == []
      assert Enum.sort(Group.groups(@cluster)) == Enum.sort([:x, {:y, 1}, :"$1", {:_, 1}])
      assert :ok = Group.leave(@cluster, :x, a)
      assert Group.members(@cluster, :x) == [b]
      assert {:error, :unknown} = Group.leave(@cluster, :x, a)
      kill(b)
      eventually(fn -> Group.members(@cluster, :x) == [] end)
      assert Group.members(@cluster, {:y, 1}) == [a]
      assert GenServer.call(:tiebeam, {:members, :default, {:y, 1}}) == [a]
    end
  end

  describe "a call to a group" do
    defmodule Member do
      use GenServer
      def start(name), do: GenServer.start(__MODULE__, name)
      @impl true
      def init(name), do: {:ok, name}
      @impl true
      def handle_call(:name, _from, name), do: {:reply, name, name}
      def handle_call(:stop, _from, name), do: {:stop, :asked, name}
      def handle_call(:late, _from, name), do: {:noreply, name}
    end

    test "has what each member replied, or why it did not" do
      members =
        for n <- 1..20, into: %{} do
          {:ok, pid} = Member.start(n)
          :ok = Group.join(@cluster, "all", pid)
          {pid, n}
        end

      assert Map.new(Group.call(@cluster, "all", :name, timeout: 60_000)) ==
               Map.new(members, fn {pid, n} -> {pid, {:ok, n}} end)

      assert Group.call(@cluster, "nobody", :name) == []

      # One that ends instead of an answer.
      test = self()
      silent = spawn(fn -> receive do: ({:"$gen_call", _from, :name} -> send(test, :asked)) end)
      :ok = Group.join(@cluster, "all", silent)
      answers = Map.new(Group.call(@cluster, "all", :name, timeout: 60_000))
      assert_received :asked
      assert map_size(answers) == 21 and match?({:error, _}, answers[silent])
      assert Enum.all?(members, fn {pid, n} -> answers[pid] == {:ok, n} end)
      eventually(fn -> length(Group.members(@cluster, "all")) == 20 end)
      stopped = Group.call(@cluster, "all", :stop, timeout: 60_000)
      assert Map.new(stopped) == Map.new(members, fn {pid, _n} -> {pid, {:error, {:down, :asked}}} end)
    end

    test "of more members than are asked at a time reaches them all" do
      members = for n <- 1..2_500, do: n |> Member.start() |> elem(1)
      for pid <- members, do: :ok = Group.join(@cluster, "many", pid)
      answers = Group.call(@cluster, "many", :name, timeout: 60_000)
      assert answers |> Enum.map(&elem(&1, 1)) |> Enum.sort() == for(n <- 1..2_500, do: {:ok, n})
      for pid <- members, do: Process.exit(pid, :kill)
    end

    test "leaves nothing behind" do
      {:ok, pid} = Member.start(1)
      :ok = Group.join(@cluster, "late", pid)
      assert Group.call(@cluster, "late", :late, timeout: 10) == [{pid, {:error, :timeout}}]
      assert Group.call(@cluster, "late", :late, timeout: 0) == [{pid, {:error, :timeout}}]

      assert Process.info(self(), [:messages, :monitors, :links]) |> Keyword.take([:messages, :monitors]) == [
               messages: [],
               monitors: []
             ]

      assert_raise ArgumentError, ~r/:timeout must be milliseconds/, fn ->
        Group.call(@cluster, "late", :late, timeout: :infinity)
      end
    end
  end

  describe "a registry of one's own" do
    defmodule Rooms do
      use Tiebeam.Registry, cluster: MyApp.Cluster, scope: :rooms
    end

    test "registers, finds and forgets names of its scope" do
      pid = idle()
      assert Rooms.lookup_name({:room, 7}) == {:error, :not_found}
      assert Rooms.register_name({:room, 7}, pid) == :ok
      assert Rooms.register_name({:room, 7}, self()) == {:error, :already_registered}
      assert {:error, {:invalid_name, _}} = Rooms.register_name(1.5, self())
      assert Rooms.lookup_name({:room, 7}) == {:ok, pid}
      assert Registry.whereis(@cluster, {:room, 7}, scope: :rooms) == pid
      assert Registry.whereis(@cluster, {:room, 7}) == nil
      assert Rooms.unregister_name({:room, 7}) == :ok
      assert Rooms.unregister_name({:room, 7}) == {:error, :not_found}
      {:ok, agent} = Agent.start_link(fn -> 1 end, name: Rooms.via(:agent))
      assert Rooms.lookup_name(:agent) == {:ok, agent}
      assert Agent.get(Rooms.via(:agent), & &1) == 1
    end

    test "is in its place behind the cluster, or fails with words" do
      {:ok, supervisor} = Supervisor.start_link([Rooms], strategy: :one_for_one)
      assert [{Rooms, :undefined, :worker, _}] = Supervisor.which_children(supervisor)
      Supervisor.stop(supervisor)
      Process.flag(:trap_exit, true)
      :ok = stop_supervised({Tiebeam, @cluster})

      assert {:error,
              {:shutdown, {:failed_to_start_child, Rooms, {:EXIT, {%ArgumentError{message: text}, _}}}}} =
               Supervisor.start_link([Rooms], strategy: :one_for_one)

      assert text =~ "there is no cluster MyApp.Cluster"
    end

    test "is told of options that make no sense when it is compiled" do
      for {options, words} <- [
            {[], ~r/needs the option :cluster/},
            {[cluster: C, on_conflict: :x], ~r/:on_conflict cannot be :x/}
          ] do
        assert_raise ArgumentError, words, fn ->
          Code.eval_quoted(quote do: defmodule(Wrong, do: use(Tiebeam.Registry, unquote(options))))
        end
      end
    end
  end

  describe "requests from anywhere" do
    test "are those of the table" do
      assert GenServer.call(:tiebeam, {:whereis, :default, "a"}) == nil
      assert GenServer.call(:tiebeam, {:register, :default, "a", self()}) == :ok
      assert GenServer.call(:tiebeam, {:register, :s, "a", self(), 1}) == :ok
      assert GenServer.call(:tiebeam, {:whereis, :default, "a"}) == self()
      assert GenServer.call(:tiebeam, {:lookup, :s, "a"}) == {self(), 1}
      assert {:error, {:taken, _}} = GenServer.call(:tiebeam, {:register, :default, "a", idle()})
      assert GenServer.call(:tiebeam, {:unregister, :default, "a"}) == :ok
      assert GenServer.call(:tiebeam, {:unregister, :default, "a"}) == {:error, :unknown}

      assert {:error, :unknown_request} = GenServer.call(:tiebeam, {:register, :default, "a", 1})

      assert {:error, {:invalid, text}} = GenServer.call(:tiebeam, {:register, :default, 1.5, self()})
      assert text =~ "1.5"
      assert GenServer.call(:tiebeam, {:lookup, "s", "a"}) == {self(), 1}
      assert GenServer.call(:tiebeam, {:names, :s}) == [{"a", self(), 1}]
      assert GenServer.call(:tiebeam, {:join, "g", self()}) == :ok
      assert GenServer.call(:tiebeam, {:groups, :default}) == [{"g", [{self(), nil}]}]
      assert GenServer.call(:tiebeam, {:leave, "g", self()}) == :ok
      assert GenServer.call(:tiebeam, {:members, :default, "g"}) == []
      assert {:error, {:invalid, _}} = GenServer.call(:tiebeam, {:whereis, 1, "a"})
    end
  end

  # The name of a child that is killed again and again, while others call it by that name.
  test "a supervised child has its name again after every crash" do
    defmodule Child do
      use GenServer
      def start_link(name), do: GenServer.start_link(__MODULE__, nil, name: name)
      @impl true
      def init(nil), do: {:ok, nil}
      @impl true
      def handle_call(:who, _from, state), do: {:reply, self(), state}
    end

    name = {:via, Registry, {@cluster, {:child, 1}}}
    # A start that fails would end the supervisor before long.
    options = [strategy: :one_for_one, max_restarts: 1_000, max_seconds: 3_600]
    {:ok, supervisor} = Supervisor.start_link([{Child, name}], options)
    stop = :atomics.new(1, [])

    callers =
      for _ <- 1..8 do
        Task.async(fn -> call_until(name, stop, %{}) end)
      end

    pids =
      for _ <- 1..1_000 do
        pid = eventually(fn -> Registry.whereis(@cluster, {:child, 1}) end)
        monitor = Process.monitor(pid)
        Process.exit(pid, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}
        pid
      end

    last = eventually(fn -> Registry.whereis(@cluster, {:child, 1}) end)
    :atomics.put(stop, 1, 1)
    seen = callers |> Task.await_many(60_000) |> Enum.reduce(&Map.merge(&1, &2, fn _, a, b -> a + b end))

    {answered, failed} = Enum.split_with(seen, &match?({{:answered, _pid}, _}, &1))
    assert Keyword.keys(failed) -- [:noproc, :killed] == []
    assert for({{:answered, pid}, _} <- answered, do: pid) -- [last | pids] == []
    assert length(Enum.uniq(pids)) == 1_000 and answered != []
    assert Process.alive?(supervisor)
    assert [{_, pid, _, _}] = Supervisor.which_children(supervisor)
    assert Registry.whereis(@cluster, {:child, 1}) == pid
    Supervisor.stop(supervisor)
  end

  defp call_until(name, stop, seen) do
    saw =
      try do
        {:answered, GenServer.call(name, :who)}
      catch
        :exit, {:noproc, _} -> :noproc
        :exit, {:killed, _} -> :killed
        kind, reason -> {kind, reason}
      end

    seen = Map.update(seen, saw, 1, &(&1 + 1))
    if :atomics.get(stop, 1) == 1, do: seen, else: call_until(name, stop, seen)
  end
end
