# rpc and erpc, the group leader, the logger, remote shells.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.RpcTest, kind) do
    use Support.Case, async: true, kind: kind

    # What `erlang:exit/2` and friends leave behind in a stack differs from node to node: who failed does not.
    defp failed_in?([{module, function, arguments, location} | _], {module, function, arity})
         when is_list(location) do
      arguments == arity or (is_list(arguments) and length(arguments) == arity)
    end

    defp failed_in?(_, _), do: false

    describe "rpc:call and erpc:call to U (#{kind})" do
      test "check 47: a value", %{u: u} do
        assert :rpc.call(u.node, :fixture, :add, [1, 2]) == 3
        assert :rpc.call(u.node, :fixture, :add, [1, 2], 5_000) == 3
        assert :rpc.call(u.node, :fixture, :add, [1, 2.5], :infinity) == 3.5
        assert :rpc.call(u.node, :fixture, :add, [Integer.pow(2, 64), 1]) == Integer.pow(2, 64) + 1
        assert :erpc.call(u.node, :fixture, :add, [1, 2]) == 3
        assert :erpc.call(u.node, :fixture, :add, [1, 2], 5_000) == 3
        assert :rpc.call(u.node, :erlang, :node, []) == u.node
        assert node() in :rpc.call(u.node, :erlang, :nodes, [])
        assert node(:rpc.call(u.node, :erlang, :whereis, [:echo])) == u.node
        assert :rpc.call(u.node, :erlang, :whereis, [:no_such_name]) == :undefined
        assert [] == [:echo, :sink, :net_kernel, :rex] -- :rpc.call(u.node, :erlang, :registered, [])
        assert [_ | _] = :rpc.call(u.node, :erlang, :processes, [])
        assert :rpc.call(u.node, :erlang, :system_info, [:process_count]) > 0
        assert [_ | _] = :rpc.call(u.node, :erlang, :system_info, [:otp_release])
        assert [_ | _] = :rpc.call(u.node, :erlang, :system_info, [:system_version])
        echo = :rpc.call(u.node, :erlang, :whereis, [:echo])
        assert :rpc.call(u.node, :erlang, :is_process_alive, [echo]) == true
        assert :rpc.call(u.node, :erlang, :is_process_alive, [stale(echo)]) == false
      end

      test "check 47: a throw", %{u: u} do
        assert :rpc.call(u.node, :fixture, :throw, [{:thrown, 1}]) == {:thrown, 1}
        assert catch_throw(:erpc.call(u.node, :fixture, :throw, [{:thrown, 1}])) == {:thrown, 1}
      end

      test "check 47: an exit", %{u: u} do
        assert :rpc.call(u.node, :fixture, :exit, [{:left, 1}]) == {:badrpc, {:EXIT, {:left, 1}}}
        assert catch_exit(:erpc.call(u.node, :fixture, :exit, [{:left, 1}])) == {:exception, {:left, 1}}
        assert catch_exit(:erpc.call(u.node, :fixture, :exit, [:normal])) == {:exception, :normal}
      end

      test "check 47: an error with its stack", %{u: u} do
        assert {:badrpc, {:EXIT, {{:wrong, 1}, stack}}} = :rpc.call(u.node, :fixture, :raise, [{:wrong, 1}])
        assert failed_in?(stack, {:fixture, :raise, 1})

        assert {:exception, {:wrong, 1}, stack} = catch_error(call_raising(u, [{:wrong, 1}]))
        assert failed_in?(stack, {:fixture, :raise, 1})

        assert {:badrpc, {:EXIT, {:badarith, stack}}} = :rpc.call(u.node, :fixture, :add, [1, :two])
        assert failed_in?(Enum.drop_while(stack, &(elem(&1, 0) == :erlang)), {:fixture, :add, 2})
      end

      # Errors of erpc are Erlang terms; Elixir would make an exception of them.
      defp call_raising(u, arguments) do
        :erpc.call(u.node, :fixture, :raise, arguments)
      rescue
        error in ErlangError -> :erlang.error(error.original)
      end

      test "check 47: an unknown function", %{u: u} do
        for {m, f, a} <- [
              {:no_such_module, :f, [1, 2]},
              {:fixture, :no_such_function, []},
              {:fixture, :add, [1]}
            ] do
          assert {:badrpc, {:EXIT, {:undef, [{^m, ^f, ^a, []} | _]}}} = :rpc.call(u.node, m, f, a)
        end
      end

      test "check 47: a timeout", %{u: u} do
        assert :rpc.call(u.node, :fixture, :sleep, [60_000], 100) == {:badrpc, :timeout}
        assert {:erpc, :timeout} = erpc_error(fn -> :erpc.call(u.node, :fixture, :sleep, [60_000], 100) end)
        assert :rpc.call(u.node, :fixture, :sleep, [50], 10_000) == :ok
      end

      defp erpc_error(fun) do
        fun.()
      rescue
        error in ErlangError -> error.original
      end

      test "check 47: arguments that are no proper list", %{u: u} do
        improper = fn -> :erpc.call(u.node, :fixture, :add, [1 | 2]) end
        assert {:exception, :badarg, stack} = erpc_error(improper)
        assert is_list(stack)
        assert {:badrpc, {:EXIT, {:badarg, ^stack}}} = :rpc.call(u.node, :fixture, :add, [1 | 2])
      end

      test "check 47: a node that is not there, and one that goes away" do
        assert :rpc.call(Net.name("absent"), :fixture, :add, [1, 2]) == {:badrpc, :nodedown}

        assert {:erpc, :noconnection} =
                 erpc_error(fn -> :erpc.call(Net.name("absent"), :fixture, :add, [1, 2]) end)

        u = Target.start(@kind)
        rpc = Task.async(fn -> :rpc.call(u.node, :fixture, :sleep, [60_000]) end)
        erpc = Task.async(fn -> erpc_error(fn -> :erpc.call(u.node, :fixture, :sleep, [60_000]) end) end)
        # Both are under way, whichever state they have reached.
        assert :rpc.call(u.node, :fixture, :add, [1, 2]) == 3
        Target.kill(u)
        assert Task.await(rpc, 60_000) == {:badrpc, :nodedown}
        assert Task.await(erpc, 60_000) == {:erpc, :noconnection}
      end

      test "check 47: multicall, cast, async_call, send_request", %{u: u} do
        dead = Net.name("dead")
        assert :rpc.multicall([u.node, dead], :fixture, :add, [1, 2]) == {[3], [dead]}
        assert :erpc.multicall([u.node, u.node], :fixture, :add, [1, 2]) == [ok: 3, ok: 3]
        assert [{:throw, :t}] = :erpc.multicall([u.node], :fixture, :throw, [:t])
        assert [{:exit, {:exception, :e}}] = :erpc.multicall([u.node], :fixture, :exit, [:e])
        assert [{:error, {:exception, :r, [_ | _]}}] = :erpc.multicall([u.node], :fixture, :raise, [:r])
        assert [{:error, {:erpc, :noconnection}}] = :erpc.multicall([dead], :fixture, :add, [1, 2])

        assert :rpc.cast(u.node, :fixture, :send, [self(), :by_rpc_cast]) == true
        assert_receive :by_rpc_cast
        assert :erpc.cast(u.node, :fixture, :send, [self(), :by_erpc_cast]) == :ok
        assert_receive :by_erpc_cast
        assert :erpc.multicast([u.node, u.node], :fixture, :send, [self(), :by_multicast]) == :ok
        for _ <- 1..2, do: assert_receive(:by_multicast)

        key = :rpc.async_call(u.node, :fixture, :add, [20, 22])
        assert :rpc.yield(key) == 42
        key = :rpc.async_call(u.node, :fixture, :sleep, [60_000])
        assert :rpc.nb_yield(key, 50) == :timeout

        requests = for i <- 1..100, do: {i, :erpc.send_request(u.node, :fixture, :add, [i, i])}

        for {i, request} <- Enum.shuffle(requests),
            do: assert(:erpc.receive_response(request, 10_000) == 2 * i)
      end

      test "check 48: block_call, abcast, sbcast, server_call do not hang", %{u: u} do
        assert :rpc.block_call(u.node, :fixture, :add, [1, 2], 20_000) == 3
        assert :rpc.block_call(u.node, :fixture, :throw, [:thrown], 20_000) == :thrown

        assert :rpc.block_call(u.node, :fixture, :exit, [{:left, 1}], 20_000) ==
                 {:badrpc, {:EXIT, {:left, 1}}}

        assert {:badrpc, {:EXIT, {:undef, _}}} = :rpc.block_call(u.node, :no_such_module, :f, [], 20_000)

        assert :rpc.abcast([u.node], :echo, {self(), :by_abcast}) == :abcast
        assert_receive {_, :by_abcast}

        assert :rpc.sbcast([u.node, Net.name("dead")], :echo, {self(), :by_sbcast}) |> elem(0) == [u.node]
        assert_receive {_, :by_sbcast}
        node = u.node
        assert {[], [^node]} = :rpc.sbcast([u.node], :no_such_name, :hello)

        # `server_call` asks {From, Request} and waits for {ReplyWrapper, Node, Reply}: nothing in the fixture answers that. A name
        # that is not there is an error at once.
        assert :rpc.server_call(u.node, :no_such_name, :wrapper, :hello) == {:error, :nodedown}
      end

      test "check 48: what a C node or an old release says to rex", %{u: u} do
        send({:rex, u.node}, {self(), :features_request})
        node = u.node
        assert_receive {:features_reply, ^node, features}
        assert :erpc in features

        send({:rex, u.node}, {self(), {:call, :fixture, :add, [1, 2], Process.group_leader()}})
        assert_receive {:rex, 3}

        assert GenServer.call({:rex, u.node}, {:call, :fixture, :add, [1, 2], Process.group_leader()}, 20_000) ==
                 3

        GenServer.cast(
          {:rex, u.node},
          {:cast, :fixture, :send, [self(), :by_old_cast], Process.group_leader()}
        )

        assert_receive :by_old_cast

        # What nobody understands harms nobody.
        send({:rex, u.node}, :nonsense)
        send({:net_kernel, u.node}, :nonsense)
        send({:rex, u.node}, {self(), {:sbcast, :no_such_name, :hello}})
        assert_receive {:rex, ^node, {:nonexisting_name, :no_such_name}}
        assert :net_adm.ping(u.node) == :pong
        assert GenServer.call({:net_kernel, u.node}, {:is_auth, node()}, 10_000) == :yes
      end
    end

    describe "rpc by U (#{kind})" do
      test "check 47: a value, an exit, an unknown function, a node that is not there", %{u: u} do
        assert Target.on(u, :rpc, [node(), :erlang, :abs, [-5]]) == 5
        assert Target.on(u, :rpc, [node(), Map, :new, [[a: 1]]]) == %{a: 1}
        assert Target.try_on(u, :rpc, [node(), :erlang, :exit, [:left]]) == {:badrpc, {:EXIT, :left}}
        assert Target.on(u, :rpc, [node(), :erlang, :throw, [:thrown]]) == :thrown

        assert {:badrpc, {:EXIT, {:badarg, [_ | _]}}} =
                 Target.try_on(u, :rpc, [node(), :erlang, :error, [:badarg]])

        assert {:badrpc, {:EXIT, {:undef, [{:no_such_module, :f, [1], []} | _]}}} =
                 Target.try_on(u, :rpc, [node(), :no_such_module, :f, [1]])

        assert Target.try_on(u, :rpc, [Net.name("absent"), :erlang, :node, []]) == {:badrpc, :nodedown}
        # The fixture waits 5 s.
        started = System.monotonic_time(:millisecond)
        assert Target.try_on(u, :rpc, [node(), :timer, :sleep, [:infinity]]) == {:badrpc, :timeout}
        assert (System.monotonic_time(:millisecond) - started) in 4_900..30_000
      end
    end

    describe "group leader and logger (#{kind})" do
      # A process here whose output goes to U: its group leader is the one of U's own processes.
      defp with_leader_on_u(u, fun) do
        leader = leader(u)
        assert node(leader) == u.node

        Task.async(fn ->
          Process.group_leader(self(), leader)
          fun.()
        end)
        |> Task.await(60_000)
      end

      # A BEAM hands the caller's group leader on to what it starts for the caller; a Rust node gives its own.
      defp leader(%{kind: :beam} = u) do
        {:group_leader, leader} =
          Target.on(u, :erlang, :process_info, [Target.on(u, :erlang, :whereis, [:echo]), :group_leader])

        leader
      end

      defp leader(%{kind: :rust} = u), do: Target.on(u, :rpc, [node(), :erlang, :group_leader, []])

      test "check 49: output of a process on the BEAM whose group leader is on U completes", %{u: u} do
        marker = "marker#{System.unique_integer([:positive])}"

        with_leader_on_u(u, fn ->
          assert :io.format("plain~n") == :ok
          assert :io.format("~p ~ts ~w~n", [{:a, 1}, "text", [1, 2]]) == :ok
          assert :io.put_chars("unicode: \u{1F600}\n") == :ok
          assert IO.puts("from Elixir") == :ok
          assert :io.format("~s and ~p~n", [marker, {marker, 1}]) == :ok
        end)

        eventually(fn -> OsProcess.output(u.process) =~ marker end)
      end

      test "check 49: input ends, and every request is answered", %{u: u} do
        with_leader_on_u(u, fn ->
          # A BEAM that was started with -noinput lets a reader wait.
          if @kind == :rust, do: assert(IO.gets("") in [:eof, {:error, :enotsup}])
          assert {:error, _} = :io.columns()
          options = :io.getopts()
          assert is_list(options) or match?({:error, _}, options)

          request = fn request ->
            tag = make_ref()
            send(Process.group_leader(), {:io_request, self(), tag, request})
            assert_receive {:io_reply, ^tag, answer}
            answer
          end

          assert request.({:put_chars, :unicode, "text\n"}) == :ok
          assert request.({:put_chars, :unicode, :io_lib, :format, ["~p~n", [:formatted]]}) == :ok
          assert request.({:put_chars, :latin1, "latin1\n"}) == :ok

          assert request.({:requests, [{:put_chars, :unicode, "one\n"}, {:put_chars, :unicode, "two\n"}]}) ==
                   :ok

          for strange <- [:nonsense, {:get_geometry, :rows}, {:put_chars, :unicode, :no_such_module, :f, []}] do
            answer = request.(strange)
            assert answer == :eof or match?({:error, _}, answer) or answer in of_newer_beams(u.kind)
          end

          assert :io.format("still ~p~n", [:here]) == :ok
        end)
      end

      # Since OTP 26 the manual's `{error, enotsup}` is this, where a node has no terminal.
      defp of_newer_beams(:beam), do: if(Support.Releases.own() >= 26, do: [:enotsup], else: [])
      defp of_newer_beams(:rust), do: []

      test "check 50: the crash report of such a process reaches U's logger", %{u: u} do
        p = Beam.start_peer(Net.name("p"), logger_level: "error")
        assert Beam.on(p, :net_adm, :ping, [u.node]) == :pong
        marker = "crash#{System.unique_integer([:positive])}"
        Beam.on(p, Support.NodeObserver, :crash, [leader(u), String.to_atom(marker)])
        eventually(fn -> OsProcess.output(u.process) =~ marker end)
      end
    end

    describe "tools (#{kind})" do
      test "check 51: erl -remsh gives a shell on a BEAM, and fails with a message on a Rust node", %{u: u} do
        shell = shell("erl -name #{Net.name("shell")} -setcookie #{Net.cookie()} -remsh #{u.node}")

        case @kind do
          :beam -> eventually(fn -> OsProcess.output(shell) =~ "(#{u.node})1>" end)
          :rust -> eventually(fn -> OsProcess.output(shell) =~ ~r/terminated|undef|Could not/ end)
        end

        leave(shell)
        assert Target.on(u, :add, [1, 2]) == 3
      end

      test "check 51: iex --remsh says that there is no IEx", %{u: u} do
        shell = shell("iex --name #{Net.name("iex")} --cookie #{Net.cookie()} --remsh #{u.node}")

        # Since OTP 26 its shell is started on the other node by OTP, which takes one for the other in what it says.
        told =
          if Support.Releases.own() >= 26,
            do: ~s(Could not load "#{u.node}" on iex),
            else: "Could not find IEx on remote node #{u.node}"

        eventually(fn -> OsProcess.output(shell) =~ told end)
        leave(shell)
        assert Target.on(u, :add, [1, 2]) == 3
      end

      # Shells want a terminal: `script` gives them one. Nothing is typed, and the input does not end.
      defp shell(command) do
        fifo =
          Path.join(System.tmp_dir!(), "tiebeam_shell_#{System.unique_integer([:positive])}_#{System.pid()}")

        {_, 0} = System.cmd("mkfifo", [fifo])
        on_exit(fn -> File.rm(fifo) end)
        script = ~s(exec timeout -k 1 60 script -qec "$1" /dev/null <>"$2")
        start_supervised!({OsProcess, {"/bin/sh", ["-c", script, "shell", command, fifo], label: command}})
      end

      # It may have ended by itself.
      defp leave(shell) do
        System.cmd("kill", ["-TERM", Integer.to_string(OsProcess.os_pid(shell))], stderr_to_stdout: true)
        OsProcess.await_exit(shell)
      end

      test "check 51: what observer asks is answered", %{u: u} do
        assert :net_adm.ping(u.node) == :pong
        assert u.node in Node.list()

        for {m, f, a} <- [
              {:observer_backend, :sys_info, []},
              {:code, :ensure_loaded, [:observer_backend]},
              {:erlang, :function_exported, [:observer_backend, :sys_info, 0]},
              {:observer_backend, :get_table_list, [:ets, []]}
            ] do
          # A node without the tool says so; no answer at all would hang the window.
          assert :rpc.call(u.node, m, f, a, 10_000) != {:badrpc, :timeout}
        end
      end
    end
  end
end
