# What programs and tools do to any node, whoever wrote them: they must not tell U from the others, or at least not hang.
erl_call = Support.Foreign.erl_call()
no_erl_call = Support.Foreign.skip_reason(erl_call, "erl_call", "Debian: erlang-base")
jinterface = Support.Foreign.jinterface()
no_jinterface = Support.Foreign.skip_reason(jinterface, "JInterface", "Debian: erlang-jinterface and a JDK")

for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.EcosystemTest, kind) do
    use Support.Case, async: true, kind: kind

    @erl_call erl_call
    @jinterface jinterface

    describe "those who watch nodes (#{kind})" do
      test "net_kernel:monitor_nodes tells of U's coming and going, once each" do
        # The tests' own node sees other nodes too: those are passed over.
        :ok = :net_kernel.monitor_nodes(true)
        :ok = :net_kernel.monitor_nodes(true, [:nodedown_reason, node_type: :visible])
        u = Target.start(@kind)
        node = u.node

        for round <- 1..3 do
          # Coming.
          assert :net_adm.ping(node) == :pong
          assert_receive {:nodeup, ^node}
          assert_receive {:nodeup, ^node, info}
          assert info[:node_type] == :visible

          # Going.
          if round < 3, do: Node.disconnect(node), else: Target.kill(u)
          assert_receive {:nodedown, ^node}
          assert_receive {:nodedown, ^node, info}
          assert info[:nodedown_reason] == if(round < 3, do: :disconnect, else: :connection_closed)
        end

        refute_received {_, ^node}
        refute_received {_, ^node, _}
        :net_kernel.monitor_nodes(false)
        :net_kernel.monitor_nodes(false, [:nodedown_reason, node_type: :visible])
      end

      test "a hidden U is told only to those who ask for hidden nodes" do
        :ok = :net_kernel.monitor_nodes(true)
        :ok = :net_kernel.monitor_nodes(true, node_type: :hidden)
        u = Target.start(@kind, hidden: true)
        node = u.node
        assert :net_adm.ping(node) == :pong
        assert_receive {:nodeup, ^node, [node_type: :hidden]}
        Target.kill(u)
        assert_receive {:nodedown, ^node, [node_type: :hidden]}
        refute_received {_, ^node}
        :net_kernel.monitor_nodes(false)
        :net_kernel.monitor_nodes(false, node_type: :hidden)
      end

      test "Node.monitor tells of U's end, and of a node that is not there" do
        u = Target.start(@kind)
        node = u.node
        assert Node.connect(node)
        for _ <- 1..3, do: assert(Node.monitor(node, true))
        assert Node.monitor(node, false)
        assert node in Node.list()
        Target.kill(u)
        for _ <- 1..2, do: assert_receive({:nodedown, ^node})
        assert Node.monitor(node, true)
        assert_receive {:nodedown, ^node}
        refute_received {:nodedown, ^node}
      end

      test "Node.connect, ping, list and disconnect" do
        u = Target.start(@kind)
        refute u.node in Node.list()
        assert Node.connect(u.node) == true
        assert u.node in Node.list()
        assert Node.ping(u.node) == :pong
        assert Node.disconnect(u.node) == true
        refute u.node in Node.list()
        assert Node.connect(u.node) == true
        eventually(fn -> node() in Target.on(u, :erlang, :nodes, []) end)
      end
    end

    describe "code that a node does not have (#{kind})" do
      test "Task.Supervisor.async on U: no such supervisor, at once", %{u: u} do
        supervisor = {MyApp.TaskSupervisor, u.node}

        for start <- [
              fn -> Task.Supervisor.async(supervisor, fn -> 1 end) end,
              fn -> Task.Supervisor.async_nolink(supervisor, fn -> 1 end) end,
              fn -> Task.Supervisor.async(supervisor, :fixture, :add, [1, 2]) end,
              fn -> Task.Supervisor.start_child(supervisor, fn -> 1 end) end
            ] do
          assert {:noproc, {GenServer, :call, [^supervisor | _]}} = catch_exit(start.())
        end

        assert {:noproc, _} = catch_exit(DynamicSupervisor.which_children(supervisor))
      end

      test "Task.Supervisor.async on a server of U that is none: an error, no hang", %{u: u} do
        task = Task.async(fn -> catch_error(Task.Supervisor.async({:echo, u.node}, fn -> 1 end)) end)
        assert {:ok, _error} = Task.yield(task, 20_000)
      end

      test "a closure: erpc, Task and spawn say what is missing", %{u: u} do
        # The module of this test is on no other node.
        fun = fn -> 1 end
        assert {:exception, :undef, [{^fun, [], []} | _]} = catch_error(:erpc.call(u.node, fun, 10_000))

        Process.flag(:trap_exit, true)
        pid = Node.spawn_link(u.node, fn -> 1 end)
        assert_receive {:EXIT, ^pid, {:undef, [{_, [], []} | _]}}
      end

      test "check 51: what observer and etop start on U ends with a reason, and does not hang", %{u: u} do
        Process.flag(:trap_exit, true)

        # As their modules do: a process there, linked, that sends what it finds.
        for {function, arguments} <- [
              procs_info: [self()],
              fetch_stats: [self(), 100],
              no_such_function: [self()]
            ] do
          pid = Node.spawn_link(u.node, :observer_backend, function, arguments)
          send(pid, {self(), :fetch})
          unless answered?(pid, @kind), do: flunk("#{function} neither answers nor ends")
          Process.unlink(pid)
          Process.exit(pid, :kill)
        end

        assert Target.on(u, :add, [1, 2]) == 3
      end

      # A BEAM has the module: then something comes from it.
      defp answered?(pid, :beam) do
        receive do
          {:EXIT, ^pid, _} -> true
          {:EXIT, _, _} -> answered?(pid, :beam)
          _ -> true
        after
          10_000 -> false
        end
      end

      defp answered?(pid, :rust) do
        receive do
          {:EXIT, ^pid, {:undef, [{:observer_backend, _, _, _} | _]}} -> true
        after
          10_000 -> false
        end
      end
    end

    describe "erl_call (#{kind})" do
      @describetag skip: no_erl_call || false

      test "connects, and calls functions", %{u: u} do
        assert erl_call(u, []) == {"", 0}
        assert erl_call(u, ["-a", "erlang node []"]) == {"'#{u.node}'", 0}
        assert erl_call(u, ["-a", "fixture add [20,22]"]) == {"42", 0}
        # With a name of its own, and with what is printed there.
        assert erl_call(u, ["-r", "-a", "fixture add [1,2]"]) == {"3", 0}
        assert erl_call(u, ["-fetch_stdout", "-a", "fixture add [1,2]"]) == {"3", 0}
        assert {"{badrpc, {'EXIT', {oops, " <> _, 0} = erl_call(u, ["-a", "fixture raise [oops]"])
        assert {"{badrpc, {'EXIT', {undef, " <> _, 0} = erl_call(u, ["-a", "no_such_module f []"])
      end

      test "several at once", %{u: u} do
        1..20
        |> Task.async_stream(fn i -> {i, erl_call(u, ["-h", "c#{i}", "-a", "fixture add [#{i},1]"])} end,
          timeout: 60_000
        )
        |> Enum.each(fn {:ok, {i, answer}} -> assert answer == {"#{i + 1}", 0} end)
      end

      test "is refused with another cookie", %{u: u} do
        assert {output, 1} = erl_call(u, ["-a", "fixture add [1,2]"], "wrong")
        assert output =~ "failed to connect to node #{u.node}"
      end

      defp erl_call(u, arguments, cookie \\ Net.cookie()) do
        arguments = ["-timeout", "20", "-name", to_string(u.node), "-c", cookie | arguments]
        System.cmd(@erl_call, arguments, stderr_to_stdout: true)
      end
    end

    describe "JInterface (#{kind})" do
      @describetag skip: no_jinterface || false

      test "connects, pings, calls rpc, sends, links", %{u: u} do
        # Java takes its time on a loaded machine.
        arguments = ["-cp", @jinterface, "test/fixture/JInterfaceClient.java", to_string(Net.name("java"))]
        arguments = arguments ++ [to_string(u.node), Net.cookie()]
        {:ok, java} = OsProcess.start_link("java", arguments, label: "java")
        {status, output} = OsProcess.await_exit(java, 50_000)
        assert {status, output} == {0, output}

        for done <- ["rpc", "node", "undef", "ping", "echo", "by name", "exit"],
            do: assert(output =~ ~r/^#{done}: /m)
      end
    end
  end
end
