# How nodes find one another where epmd does not tell: a common port, a map of addresses, an epmd inside a node; IPv6; nodes
# that get their name from others.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.AddressingTest, kind) do
    use Support.Case, async: true, kind: kind, start: false

    # A call of U to P, by way of a node that is connected to U.
    defp u_calls(q, u, p), do: Beam.on(q, :rpc, :call, [u.node, :fixture, :rpc, [p.node, :erlang, :node, []]])

    defp ping(p, u), do: Beam.on(p, :net_adm, :ping, [u.node])

    # The node that a test starts on `host`; all of them have one port, and epmd is nowhere.
    defp without_epmd(port, host) do
      %{
        env: %{"ERL_EPMD_PORT" => "#{Net.free_port()}"},
        beam:
          ["-start_epmd", "false", "-erl_epmd_port", "#{port}", "-kernel", "inet_dist_use_interface"] ++
            ["{#{String.replace(host, ".", ",")}}"],
        rust: ["--common-port", "#{port}"]
      }
    end

    describe "without epmd (#{kind})" do
      test "check 17: all nodes listen on one port; P dials, U dials" do
        port = Net.free_port()

        start_p = fn host ->
          told = without_epmd(port, host)
          Beam.start_peer(Net.name("p", host), env: told.env, args: told.beam)
        end

        told = without_epmd(port, "127.0.0.2")

        u =
          Target.start(@kind, node: Net.name("u", "127.0.0.2"), env: told.env, args: told[@kind], epmd: "none")

        p = start_p.("127.0.0.3")
        assert ping(p, u) == :pong
        assert Beam.on(p, :erlang, :nodes, []) == [u.node]
        # No epmd gave it, and 0 to 3 are no creations of a node that makes its own.
        assert creation(Beam.on(p, :rpc, :call, [u.node, :erlang, :whereis, [:echo]])) > 3

        q = start_p.("127.0.0.4")
        assert u_calls(p, u, q) == q.node
        assert Net.epmd_lookup(u.node) == :unknown
      end
    end

    describe "dynamic names (#{kind})" do
      test "check 15: a node without a name of its own gets one from U" do
        u = Target.start(@kind, node: Net.name("u", "localhost"))
        [p, q] = for _ <- 1..2, do: Beam.start_nameless()
        # A ping does not connect a node that has no name yet.
        assert Beam.on(p, :net_kernel, :connect_node, [u.node]) == true
        assert Beam.on(q, :net_kernel, :connect_node, [u.node]) == true
        [p, q] = for peer <- [p, q], do: %{peer | node: Beam.on(peer, :erlang, :node, [])}
        assert p.node != q.node
        assert to_string(p.node) =~ ~r/^[A-Z0-9]+@/

        # Such a node is hidden, and its pids are known to U as its own.
        assert Beam.on(p, :erlang, :nodes, []) == []
        assert Beam.on(p, :erlang, :nodes, [:hidden]) == [u.node]
        assert Beam.on(p, :gen_server, :call, [{:echo, u.node}, :hello]) == :hello
        assert u_calls(p, u, p) == p.node
        hidden = Beam.on(q, :rpc, :call, [u.node, :erlang, :nodes, [:hidden]])
        assert Enum.sort(hidden) == Enum.sort([p.node, q.node])

        # It goes and comes back, and whatever its name is then, it is served.
        Beam.on(p, :erlang, :disconnect_node, [u.node])
        eventually(fn -> Beam.on(p, :net_kernel, :connect_node, [u.node]) == true end)
        again = %{p | node: Beam.on(p, :erlang, :node, [])}
        assert u_calls(again, u, again) == again.node
      end
    end

    if kind == :rust do
      test "check 17: U has a map of addresses, and P an epmd that U does not ask (rust)" do
        p = Beam.start_peer(Net.name("p"))
        address = "#{p.node}=127.0.0.1:#{Net.port_of(p.node)}"
        args = ["--address", address, "--join", to_string(p.node)]
        u = Target.start(:rust, env: %{"ERL_EPMD_PORT" => "#{Net.free_port()}"}, args: args, epmd: "none")
        eventually(fn -> Beam.on(p, :erlang, :nodes, []) == [u.node] end)
        assert u_calls(p, u, p) == p.node
        assert Net.epmd_lookup(u.node) == :unknown
      end

      test "check 3: U is the epmd of its host; when it ends another takes over, and creations stay (rust)" do
        port = Net.free_port()
        env = %{"ERL_EPMD_PORT" => "#{port}"}
        # A node that ends before the test does, so it is no target of the module.
        serving = Target.start(:rust, env: env, epmd: "auto")
        u = Target.start(:rust, env: env, epmd: "auto")

        [p, q] =
          for name <- ["p", "q"],
              do: Beam.start_peer(Net.name(name), env: env, args: ["-start_epmd", "false"])

        nodes = [u, p, q]

        names = fn ->
          for {:ok, names} <- [Beam.on(p, :net_adm, :names, [])], {name, _} <- names, do: to_string(name)
        end

        assert Enum.sort(names.()) == Enum.sort(Enum.map([serving | nodes], &Net.alive(&1.node)))
        assert ping(p, u) == :pong
        creation = u_creation(p, u)

        Target.kill(serving)
        # OTP and U try again every two seconds.
        eventually(fn -> Enum.sort(names.()) == Enum.sort(Enum.map(nodes, &Net.alive(&1.node))) end)
        assert u_calls(p, u, q) == q.node
        assert ping(q, u) == :pong
        assert u_creation(q, u) == creation
        assert u_creation(p, u) == creation
      end

      defp u_creation(p, u), do: creation(Beam.on(p, :rpc, :call, [u.node, :erlang, :whereis, [:echo]]))
    end

    describe "IPv6 (#{kind})" do
      @describetag skip: Net.skip_without_ipv6()

      test "the host in the name is an address; P dials, U dials" do
        u = start_u("::1")
        [p, q] = for name <- ["p", "z"], do: start_p(name, "::1")
        assert ping(p, u) == :pong
        assert Beam.on(p, :erlang, :nodes, []) == [u.node]
        assert u_calls(p, u, q) == q.node
        bytes = :binary.copy("x", 1_000_000)
        assert Beam.on(q, :gen_server, :call, [{:echo, u.node}, bytes]) == bytes
      end

      test "an address in another spelling is another name" do
        u = start_u("0:0:0:0:0:0:0:1")
        p = start_p("p", "::1")
        assert ping(p, u) == :pong
        assert u_calls(p, u, p) == p.node
        # P finds U there, and hears another name than the one it wanted.
        assert ping(p, %{node: :"#{Net.alive(u.node)}@::1"}) == :pang
        assert Beam.on(p, :erlang, :nodes, []) == [u.node]
        assert u_calls(p, u, p) == p.node
      end

      test "U is reached over IPv6 without epmd" do
        port = Net.free_port()
        args = ["-proto_dist", "inet6_tcp", "-start_epmd", "false", "-erl_epmd_port", "#{port}"]
        env = %{"ERL_EPMD_PORT" => "#{Net.free_port()}"}
        told = [beam: args, rust: ["--common-port", "#{port}"]]
        u = Target.start(@kind, node: Net.name("u", "::1"), env: env, args: told[@kind], epmd: "none")
        # There is one such address only: P does not listen.
        p = Beam.start_peer(Net.name("p", "::1"), env: env, args: args ++ ["-dist_listen", "false"])
        assert ping(p, u) == :pong
        assert Beam.on(p, :rpc, :call, [u.node, :fixture, :add, [1, 2]]) == 3
      end

      defp start_u(host), do: Target.start(@kind, node: Net.name("u", host), args: ipv6(@kind))
      defp start_p(prefix, host), do: Beam.start_peer(Net.name(prefix, host), args: ipv6(:beam))

      defp ipv6(:beam), do: ["-proto_dist", "inet6_tcp"]
      # The host in its name tells.
      defp ipv6(:rust), do: []
    end
  end
end
