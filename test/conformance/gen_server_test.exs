# gen_server and its relatives, with the server on U and with the client on U.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.GenServerTest, kind) do
    use Support.Case, async: true, kind: kind

    defmodule Server do
      @moduledoc "What U calls: answers, answers late, crashes, counts casts."
      use GenServer
      def init(test), do: {:ok, %{test: test, casts: []}}
      def handle_call({:echo, term}, _from, s), do: {:reply, term, s}
      def handle_call(:from, from, s), do: {:reply, from, s}
      def handle_call(:casts, _from, s), do: {:reply, Enum.reverse(s.casts), s}
      def handle_call({:stop, reason}, _from, s), do: {:stop, reason, s}
      def handle_call(:never, _from, s), do: {:noreply, s}

      def handle_call({:late, ms, term}, from, s) do
        Process.send_after(self(), {:reply, from, term}, ms)
        {:noreply, s}
      end

      def handle_cast(term, s), do: {:noreply, %{s | casts: [term | s.casts]}}

      def handle_info({:reply, from, term}, s) do
        GenServer.reply(from, term)
        send(s.test, {:replied, term})
        {:noreply, s}
      end
    end

    defp start_server do
      name = :"server_#{System.unique_integer([:positive])}"

      pid =
        start_supervised!(%{
          id: name,
          start: {GenServer, :start_link, [Server, self(), [name: name]]},
          restart: :temporary
        })

      {name, pid}
    end

    describe "calls to U (#{kind})" do
      test "check 42: by name and by pid, with a time limit and without", %{u: u} do
        echo = Target.on(u, :erlang, :whereis, [:echo])

        for server <- [{:echo, u.node}, echo], timeout <- [5_000, :infinity] do
          assert GenServer.call(server, {:request, 1}, timeout) == {:request, 1}
          assert :gen_server.call(server, "request", timeout) == "request"
        end
      end

      test "check 42: a thousand at once from a hundred processes", %{u: u} do
        1..100
        |> Task.async_stream(
          fn i -> for j <- 1..10, do: assert(GenServer.call({:echo, u.node}, {i, j}, 20_000) == {i, j}) end,
          timeout: 60_000
        )
        |> Stream.run()
      end

      test "check 42: send_request and its answer", %{u: u} do
        requests = for i <- 1..50, do: {i, :gen_server.send_request({:echo, u.node}, i)}

        for {i, request} <- Enum.shuffle(requests),
            do: assert(:gen_server.receive_response(request, 10_000) == {:reply, i})

        unknown = :gen_server.send_request({:no_such_name, u.node}, :hello)
        assert {:error, {:noproc, _}} = :gen_server.receive_response(unknown, 10_000)
      end

      test "check 42: an unknown name is noproc at once, also without a time limit", %{u: u} do
        for timeout <- [5_000, :infinity] do
          assert {:noproc, _} = catch_exit(GenServer.call({:no_such_name, u.node}, :hello, timeout))
        end
      end

      test "check 42: the server exits in the middle", %{u: u} do
        for reason <- [{:shutdown, :asked}, :boom, :normal] do
          # It is in its receive and does not answer this request; then it is told to stop.
          pid = Node.spawn(u.node, :fixture, :sleep, [60_000])
          request = :gen_server.send_request(pid, :hello)
          if reason == :normal, do: Process.exit(pid, :kill), else: Process.exit(pid, reason)
          expected = if reason == :normal, do: :killed, else: reason
          assert {:error, {^expected, _}} = :gen_server.receive_response(request, 10_000)
        end

        pid = Node.spawn(u.node, :fixture, :sleep, [60_000])
        killer = Task.async(fn -> eventually(fn -> Process.exit(pid, {:shutdown, 1}) end) end)
        assert {{:shutdown, 1}, {GenServer, :call, _}} = catch_exit(GenServer.call(pid, :hello, :infinity))
        Task.await(killer, 60_000)
      end

      test "check 42: no answer is a timeout", %{u: u} do
        pid = Node.spawn(u.node, :fixture, :sleep, [60_000])
        assert {:timeout, {GenServer, :call, _}} = catch_exit(GenServer.call(pid, :hello, 100))
      end

      test "check 42: the node goes down in the middle: nodedown" do
        u = Target.start(@kind)
        pid = Node.spawn(u.node, :fixture, :sleep, [60_000])
        node = u.node
        request = :gen_server.send_request(pid, :hello)
        assert GenServer.call({:echo, node}, :there) == :there
        Target.kill(u)
        assert {:error, {:noconnection, _}} = :gen_server.receive_response(request, 20_000)

        assert {{:nodedown, ^node}, {GenServer, :call, _}} =
                 catch_exit(GenServer.call({:echo, node}, :hello, 20_000))
      end

      test "check 43: an answer after the timeout does not reach the caller" do
        u = Target.start(@kind)
        echo = Target.on(u, :erlang, :whereis, [:echo])

        # U cannot answer in time, and answers all of them afterwards.
        Target.signal(u, :STOP)

        for server <- [{:echo, u.node}, echo], _ <- 1..20 do
          assert {:timeout, _} = catch_exit(GenServer.call(server, :late, 10))
        end

        Target.signal(u, :CONT)
        assert GenServer.call(echo, :then, 20_000) == :then
        assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
      end
    end

    describe "casts and calls to many (#{kind})" do
      test "check 44: cast", %{u: u} do
        assert GenServer.cast({:echo, u.node}, {:send, self(), :by_cast}) == :ok
        assert_receive :by_cast
        assert GenServer.cast({:no_such_name, u.node}, :hello) == :ok
        assert :gen_server.cast(Target.on(u, :erlang, :whereis, [:echo]), {:send, self(), :by_pid}) == :ok
        assert_receive :by_pid
      end

      test "check 44: abcast and multi_call over U, this node and a dead one", %{u: u} do
        {name, _} = start_server()
        dead = Net.name("dead")
        nodes = [u.node, node(), dead]

        assert :gen_server.abcast([u.node, dead], :echo, {:send, self(), :by_abcast}) == :abcast
        assert_receive :by_abcast

        assert {replies, bad} = :gen_server.multi_call(nodes, :echo, :question, 20_000)
        assert replies == [{u.node, :question}]
        assert Enum.sort(bad) == Enum.sort([node(), dead])

        # A name that only this node has.
        assert {[{this, []}], bad} = :gen_server.multi_call(nodes, name, :casts, 20_000)
        assert this == node()
        assert Enum.sort(bad) == Enum.sort([u.node, dead])

        # Without a time limit.
        assert {[_], [^dead]} = :gen_server.multi_call([u.node, dead], :echo, :question)
      end

      test "check 45: system messages to a process that knows none fail in time, and do no harm", %{u: u} do
        for call <- [
              fn -> :sys.get_state({:echo, u.node}, 200) end,
              fn -> :sys.get_status({:echo, u.node}, 200) end,
              fn -> :sys.suspend({:echo, u.node}, 200) end,
              fn -> :sys.resume({:echo, u.node}, 200) end
            ] do
          assert {:timeout, _} = catch_exit(call.())
        end

        assert GenServer.call({:echo, u.node}, :still_here) == :still_here
        assert :noproc = catch_exit(:gen_server.stop({:no_such_name, u.node}, :normal, 5_000))
        assert {:noproc, _} = catch_exit(:sys.get_state({:no_such_name, u.node}, 5_000))
      end

      test "other relatives: gen_event, gen_statem and supervisor calls to an unknown name", %{u: u} do
        unknown = {:no_such_name, u.node}
        assert :noproc = catch_exit(:gen_event.sync_notify(unknown, :event))
        assert {:noproc, _} = catch_exit(:gen_statem.call(unknown, :hello, 5_000))
        assert {:noproc, _} = catch_exit(Supervisor.which_children(unknown))
        assert {:noproc, _} = catch_exit(Agent.get(unknown, & &1, 5_000))
        assert Process.send({:no_such_name, u.node}, :hello, [:noconnect]) == :ok
      end
    end

    describe "calls by U (#{kind})" do
      test "check 46: by pid and by name", %{u: u} do
        {name, pid} = start_server()
        term = %{list: [1, 2.5, "three"], pid: self()}

        for server <- [pid, {name, node()}] do
          assert Target.on(u, :call, [server, {:echo, term}, 5_000]) == term
          assert Target.on(u, :call, [server, {:echo, term}, :infinity]) == term
          assert Target.on(u, :call, [server, {:late, 100, :late}, 5_000]) == :late
        end

        # The client is a process of U.
        {client, _} = Target.on(u, :call, [pid, :from, 5_000])
        assert node(client) == u.node
      end

      test "check 46: a time limit", %{u: u} do
        {name, pid} = start_server()

        for server <- [pid, {name, node()}] do
          assert {:badrpc, {:EXIT, {:timeout, {:gen_server, :call, [^server, :never, 100]}}}} =
                   Target.try_on(u, :call, [server, :never, 100])
        end

        # The late answer goes to a caller that no longer waits, and harms nothing.
        assert {:badrpc, {:EXIT, {:timeout, _}}} = Target.try_on(u, :call, [pid, {:late, 200, :too_late}, 50])
        assert_receive {:replied, :too_late}
        assert Target.on(u, :call, [pid, {:echo, 1}, 5_000]) == 1
      end

      test "check 46: a server that is not there, that crashes, that stops", %{u: u} do
        unknown = {:no_such_name, node()}

        assert {:badrpc, {:EXIT, {:noproc, {:gen_server, :call, [^unknown, :hello, 5_000]}}}} =
                 Target.try_on(u, :call, [unknown, :hello, 5_000])

        for reason <- [{:shutdown, :asked}, :normal, {:boom, [1]}] do
          {_, pid} = start_server()

          assert {:badrpc, {:EXIT, {^reason, {:gen_server, :call, _}}}} =
                   Target.try_on(u, :call, [pid, {:stop, reason}, :infinity])

          assert {:badrpc, {:EXIT, {:noproc, _}}} = Target.try_on(u, :call, [pid, {:echo, 1}, 5_000])
        end
      end

      test "check 46: the server's node is cut off, or cannot be reached", %{u: u} do
        p = Beam.start_peer(Net.name("p"))
        node = p.node
        server = Beam.on(p, :erlang, :spawn, [:timer, :sleep, [:infinity]])
        call = Task.async(fn -> Target.try_on(u, :call, [server, :hello, :infinity]) end)
        eventually(fn -> u.node in Beam.on(p, :erlang, :nodes, []) end)
        # The request has arrived: U waits.
        eventually(fn ->
          Beam.on(p, :erlang, :process_info, [server, :message_queue_len]) == {:message_queue_len, 1}
        end)

        Beam.on(p, :erlang, :disconnect_node, [u.node])
        assert {:badrpc, {:EXIT, {{:nodedown, ^node}, {:gen_server, :call, _}}}} = Task.await(call, 60_000)

        absent = Net.name("absent")
        server = {:anybody, absent}

        assert {:badrpc, {:EXIT, {{:nodedown, ^absent}, {:gen_server, :call, _}}}} =
                 Target.try_on(u, :call, [server, :hello, 5_000])
      end

      test "casts by U arrive in order", %{u: u} do
        {name, pid} = start_server()
        for i <- 1..50, do: assert(Target.on(u, :cast, [{name, node()}, i]) == :ok)
        # Each cast was made by another process of U; each had been sent before the next was asked for.
        eventually(fn -> length(GenServer.call(pid, :casts)) == 50 end)
        assert Enum.sort(GenServer.call(pid, :casts)) == Enum.to_list(1..50)
      end
    end
  end
end
