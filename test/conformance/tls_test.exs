# Distribution inside TLS: who meets whom, and who is refused. The tests' own node does without, so U is asked by way of P.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.TlsTest, kind) do
    use Support.Case, async: true, kind: kind, start: false
    alias Support.Certificates

    setup_all do
      {:ok, _} = Application.ensure_all_started(:ssl)
      ours = Certificates.authority("ours")
      theirs = Certificates.authority("theirs")

      %{
        ours: ours,
        theirs: theirs,
        member: Certificates.certificate(ours, ["localhost"]),
        stranger: Certificates.certificate(theirs, ["localhost"])
      }
    end

    defp start_u(trust, tls, opts \\ []) do
      args = Certificates.args(@kind, trust, tls) ++ (opts[:args] || [])
      opts = Keyword.merge([node: Net.name(opts[:prefix] || "u", "localhost")], opts)
      Target.start(@kind, Keyword.put(opts, :args, args))
    end

    defp start_p(trust, tls, opts \\ []) do
      args = Certificates.args(:beam, trust, tls)
      Beam.start_peer(Net.name("p", opts[:host] || "localhost"), Keyword.put(opts, :args, args))
    end

    defp ping(p, u), do: Beam.on(p, :net_adm, :ping, [u.node])

    # A call of U to P, by way of a node that U trusts.
    defp u_calls(q, u, p), do: Beam.on(q, :rpc, :call, [u.node, :fixture, :rpc, [p.node, :erlang, :node, []]])

    for version <- [:"tlsv1.2", :"tlsv1.3"], key <- [:ec, :rsa] do
      @version version
      @key key

      test "check 18: #{version}, #{key} certificates on both sides, P dials (#{kind})", context do
        identity = Certificates.certificate(context.ours, ["localhost"], @key)
        u = start_u(context.ours, identity: identity)
        p = start_p(context.ours, identity: identity, version: @version)
        assert ping(p, u) == :pong
        assert Beam.on(p, :erlang, :nodes, []) == [u.node]
        assert echoes(p, u)
      end

      test "check 18: #{version}, #{key} certificates on both sides, U dials (#{kind})", context do
        identity = Certificates.certificate(context.ours, ["localhost"], @key)
        u = start_u(context.ours, identity: identity)
        q = start_p(context.ours, identity: context.member)
        p = start_p(context.ours, identity: identity, version: @version)
        assert u_calls(q, u, p) == p.node
        eventually(fn -> u.node in Beam.on(p, :erlang, :nodes, []) end)
        assert echoes(p, u)
      end
    end

    # Fragments, and frames in several records; both directions at once.
    defp echoes(p, u) do
      for size <- [0, 1, 16_384, 65_537, 3_000_000] do
        bytes = :binary.copy(<<size::32>>, div(size, 4)) <> :binary.copy("x", rem(size, 4))
        assert Beam.on(p, :gen_server, :call, [{:echo, u.node}, bytes]) == bytes
      end

      true
    end

    for version <- [:"tlsv1.2", :"tlsv1.3"] do
      @version version

      test "check 18: #{version}, certificates of those who dial are not required (#{kind})", context do
        u = start_u(context.ours, identity: context.member, require_client_certificate: false)
        tls = [identity: context.member, client_identity: nil, version: @version]
        p = start_p(context.ours, tls ++ [require_client_certificate: false])
        assert ping(p, u) == :pong
        assert Beam.on(p, :erlang, :disconnect_node, [u.node])
        q = start_p(context.ours, tls ++ [require_client_certificate: false])
        assert u_calls(q, u, p) == p.node
      end

      test "check 18: #{version}, P has no certificate and U requires one (#{kind})", context do
        u = start_u(context.ours, identity: context.member)
        p = start_p(context.ours, identity: context.member, client_identity: nil, version: @version)
        assert ping(p, u) == :pang
        said(u, ~r/shows none, and this node requires one/)
        q = start_p(context.ours, identity: context.member)
        assert ping(q, u) == :pong
      end

      test "check 18: #{version}, P's certificate is of another authority (#{kind})", context do
        u = start_u(context.ours, identity: context.member)
        q = start_p(context.ours, identity: context.member)

        # P trusts ours, so that it is U who refuses.
        p = start_p(context.ours, identity: context.stranger, version: @version)
        assert ping(p, u) == :pang
        said(u, ~r/certificate is refused: it is signed by no authority that this node knows/)
        assert u_calls(q, u, p) == {:badrpc, :nodedown}
        assert Beam.on(q, :rpc, :call, [u.node, :fixture, :add, [1, 2]]) == 3
      end

      test "check 18: #{version}, P does not know the authority of U's certificate (#{kind})", context do
        u = start_u(context.ours, identity: context.member)
        p = start_p(context.theirs, identity: context.member, version: @version)
        assert ping(p, u) == :pang
        said(u, ~r/UnknownCA/)
        q = start_p(context.ours, identity: context.member)
        assert u_calls(q, u, p) == {:badrpc, :nodedown}
      end
    end

    # What U logs of a refusal is for its operator: a BEAM says it in words of its own.
    defp said(%{kind: :beam}, _regex), do: :ok
    defp said(u, regex), do: eventually(fn -> OsProcess.output(u.process) =~ regex end)

    test "check 18: U looks for the host's name in the certificate of a node that it dials (#{kind})",
         context do
      u = start_u(context.ours, identity: context.member)
      q = start_p(context.ours, identity: context.member)
      elsewhere = Certificates.certificate(context.ours, ["other.example"])
      p = start_p(context.ours, identity: elsewhere)
      assert u_calls(q, u, p) == {:badrpc, :nodedown}
      # And not in that of one who dials.
      assert ping(p, u) == :pong
    end

    if kind == :rust do
      test "check 18: the program asks through TLS, and says in one line why it cannot (rust)", context do
        p = start_p(context.ours, identity: context.member)

        ["--tls-ca", ca | identity] =
          Certificates.args(:rust, context.ours, identity: context.member) -- ["--tls-require-client-cert"]

        stranger =
          Certificates.args(:rust, context.theirs, identity: context.stranger) --
            ["--tls-require-client-cert"]

        assert {"pong" <> _, 0} = tiebeam_ping(p, ["--tls-ca", ca | identity])

        for {args, why} <- [
              {stranger, "signed by no authority that this node knows"},
              {["--tls-ca", ca], "requires a certificate"},
              {[], "one side uses TLS"}
            ] do
          assert {line, 1} = tiebeam_ping(p, args)
          assert line =~ ~r/^tiebeam: no connection to '#{p.node}': [^\n]*#{why}[^\n]*\n$/
        end
      end

      defp tiebeam_ping(p, args) do
        args = ["ping", to_string(p.node), "--cookie", Net.cookie() | args]
        System.cmd(Support.RustPeer.program(), args, stderr_to_stdout: true)
      end

      test "check 18: U may be told not to look for the host's name (rust)", context do
        u = start_u(context.ours, [identity: context.member], args: ["--tls-any-host"])
        q = start_p(context.ours, identity: context.member)
        p = start_p(context.ours, identity: Certificates.certificate(context.ours, ["other.example"]))
        assert u_calls(q, u, p) == p.node
        stranger = start_p(context.ours, identity: context.stranger)
        assert u_calls(q, u, stranger) == {:badrpc, :nodedown}
      end
    end

    test "check 18: the host in the name is an address (#{kind})", context do
      identity = Certificates.certificate(context.ours, ["127.0.0.1"])
      u = start_u(context.ours, [identity: identity], node: Net.name("u"))
      [p, q] = for _ <- 1..2, do: start_p(context.ours, [identity: identity], host: "127.0.0.1")
      assert ping(p, u) == :pong
      assert u_calls(p, u, q) == q.node
    end

    @tag skip: Net.skip_without_ipv6()
    test "check 18: over IPv6 (#{kind})", context do
      tls = [identity: Certificates.certificate(context.ours, ["::1"]), protocol: "inet6_tls"]
      u = start_u(context.ours, tls, node: Net.name("u", "::1"))
      [p, q] = for _ <- 1..2, do: start_p(context.ours, tls, host: "::1")
      assert ping(p, u) == :pong
      assert u_calls(p, u, q) == q.node
    end

    test "a node inside TLS and one outside stay apart (#{kind})", context do
      u = start_u(context.ours, identity: context.member)
      plain = Beam.start_peer(Net.name("p", "localhost"))
      assert ping(plain, u) == :pang
      q = start_p(context.ours, identity: context.member)
      # What P gets is the beginning of a message in its eyes, so that it waits for the rest.
      assert {:badrpc, why} = u_calls(q, u, plain)
      assert why in [:nodedown, :timeout]
      assert ping(q, u) == :pong
    end

    test "an idle connection lives on, and its end is seen at once (#{kind})", context do
      u = start_u(context.ours, [identity: context.member], net_ticktime: 2)
      p = start_p(context.ours, [identity: context.member], net_ticktime: 2)
      assert ping(p, u) == :pong
      observer = Beam.on(p, Support.NodeObserver, :start, [])
      # Time is what this is about: twice that after which silence ends a connection.
      Process.sleep(5_000)
      assert Beam.on(p, Support.NodeObserver, :events, [observer]) == []
      Target.kill(u)
      eventually(fn -> Beam.on(p, Support.NodeObserver, :events, [observer]) == [nodedown: u.node] end)
    end

    test "U names the host that it dials, and lengths have four bytes from the first message on (#{kind})",
         context do
      u = start_u(context.ours, identity: context.member)
      q = start_p(context.ours, identity: context.member)
      raw = Net.name("raw", "localhost")
      test = self()
      files = [certfile: context.member.certificate, keyfile: context.member.key]

      sni = fn name ->
        send(test, {:sni, name})
        :undefined
      end

      {:ok, listener} =
        :ssl.listen(0, files ++ [mode: :binary, active: false, ip: {127, 0, 0, 1}, sni_fun: sni])

      {:ok, {_, port}} = :ssl.sockname(listener)
      registration = Net.epmd_register(raw, port)
      dials = Task.async(fn -> u_calls(q, u, %{node: raw}) end)
      {:ok, accepted} = :ssl.transport_accept(listener, 15_000)
      {:ok, socket} = :ssl.handshake(accepted, 15_000)
      assert_receive {:sni, ~c"localhost"}
      {:ok, <<length::32>>} = :ssl.recv(socket, 4, 15_000)
      {:ok, name} = :ssl.recv(socket, length, 15_000)
      assert <<"N", _flags::64, _creation::32, n::16, name::binary-size(n)>> = name
      assert name == to_string(u.node)
      :ssl.close(socket)
      assert Task.await(dials) == {:badrpc, :nodedown}
      :gen_tcp.close(registration)
    end
  end
end
