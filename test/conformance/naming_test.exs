# Names and epmd: how U is found.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.NamingTest, kind) do
    use Support.Case, async: true, kind: kind

    describe "epmd (#{kind})" do
      test "check 1: U is registered as a visible node of protocol 6", %{u: u} do
        found = Net.epmd_lookup(u.node)
        assert found.type == 77
        assert found.protocol == 0
        assert found.highest == 6
        assert found.lowest in 5..6
        assert found.name == Net.alive(u.node)

        assert {:ok, names} = :net_adm.names(~c"127.0.0.1")
        assert {String.to_charlist(Net.alive(u.node)), found.port} in names
      end

      test "check 1: a hidden U is registered as hidden" do
        u = Target.start(@kind, hidden: true)
        assert Net.epmd_lookup(u.node).type == type_of_hidden(u.kind)
        assert :net_adm.ping(u.node) == :pong
        assert u.node in Node.list(:hidden)
        refute u.node in Node.list()
      end

      # What a hidden BEAM says of itself is in its flags; to epmd it is like any other.
      defp type_of_hidden(:beam), do: 77
      defp type_of_hidden(:rust), do: 72

      test "check 2: a name that is taken is refused with an error, and its owner goes on", %{u: u} do
        second = Target.start_unready(@kind, node: u.node)
        {status, output} = OsProcess.await_exit(second.process)
        assert status == 1
        assert output =~ Net.alive(u.node)
        refute output =~ ~r/^ready /m
        refute output =~ "panicked"

        assert Target.on(u, :add, [1, 2]) == 3
        assert Net.epmd_lookup(u.node).name == Net.alive(u.node)
      end

      test "check 2: the name of a node that was killed is free at once" do
        u = Target.start(@kind)
        Target.kill(u)
        eventually(fn -> Net.epmd_lookup(u.node) == :unknown end)
        again = Target.start(@kind, node: u.node)
        assert :net_adm.ping(again.node) == :pong
      end

      test "check 3: U registers again when epmd was restarted, with the same port and creation" do
        port = Net.free_port()
        epmd = Net.start_epmd(port)
        u = Target.start(@kind, env: %{"ERL_EPMD_PORT" => Integer.to_string(port)})
        before = Net.epmd_lookup(u.node, port)
        creation = creation_of(u, before.port)

        OsProcess.kill(epmd)
        # It knows nobody, until U comes.
        Net.start_epmd(port)
        found = eventually(fn -> with :unknown <- Net.epmd_lookup(u.node, port), do: nil end)
        assert found == before
        assert creation_of(u, found.port) == creation
      end

      defp creation_of(u, port) do
        {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false, packet: 2])
        {:ok, "ok"} = RawPeer.introduce(socket, Net.name("raw"), RawPeer.pass_through())
        {:ok, challenge} = RawPeer.challenge(socket)
        assert challenge.name == to_string(u.node)
        RawPeer.close(socket)
        challenge.creation
      end
    end
  end
end
