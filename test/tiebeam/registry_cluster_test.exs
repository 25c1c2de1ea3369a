# The registry of several real BEAM nodes.
defmodule Tiebeam.RegistryClusterTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Names, Net}
  alias Tiebeam.{Group, Registry}

  @cluster BeamMember.cluster()
  @moduletag timeout: 120_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  # Members that see each other.
  defp start(count) do
    first = BeamMember.start(Net.name("b"))
    others = for _ <- 2..count//1, do: BeamMember.start(Net.name("b"), join: [first.node])
    members = [first | others]
    joined(members)
    members
  end

  defp joined(members) do
    nodes = members |> Enum.map(& &1.node) |> Enum.sort()
    eventually(fn -> Enum.all?(members, &(BeamMember.alive(&1) == nodes)) end)
  end

  defp on(peer, function, arguments), do: Beam.on(peer, Registry, function, [@cluster | arguments])
  defp register(peer, names, options \\ []), do: Beam.on(peer, Names, :register, [@cluster, names, options])
  defp view(peer, names), do: Beam.on(peer, Names, :view, [@cluster, names])
  defp group(peer, function, arguments), do: Beam.on(peer, Group, function, [@cluster | arguments])

  # Known at once, unlike a cable that is pulled: neither side takes the other's connections, for each has a cookie of its own.
  defp cut(ones, others) do
    for {from, to} <- both_ways(ones, others), do: Beam.on(from, :erlang, :set_cookie, [to.node, from.node])
    for {from, to} <- both_ways(ones, others), do: Beam.on(from, :erlang, :disconnect_node, [to.node])

    for {from, to} <- both_ways(ones, others) do
      eventually(fn -> BeamMember.status(from, to) == :dead end)
      assert to.node not in Beam.on(from, :erlang, :nodes, [])
    end
  end

  defp heal(ones, others) do
    for {from, to} <- both_ways(ones, others),
        do: Beam.on(from, :erlang, :set_cookie, [to.node, Beam.on(from, :erlang, :get_cookie, [])])

    joined(ones ++ others)
  end

  defp both_ways(ones, others), do: for(a <- ones, b <- others, pair <- [{a, b}, {b, a}], do: pair)

  test "what one node registers all find, until the process or its node ends" do
    [a, b, c] = members = start(3)
    names = for n <- 1..200, do: {"name", n}
    registered = register(a, names)
    pids = for {_, pid, :ok} <- registered, do: pid
    assert length(pids) == 200
    assert view(a, names) == pids
    for peer <- [b, c], do: eventually(fn -> view(peer, names) == pids end)
    assert on(b, :lookup, [{"name", 1}]) == {hd(pids), a.node}
    assert on(b, :local_names, []) == []
    assert on(b, :count, []) == 200

    assert on(b, :register, [{"name", 1}, Beam.on(b, :erlang, :whereis, [:init])]) ==
             {:error, {:taken, hd(pids)}}

    remote = Beam.on(a, :erlang, :whereis, [:init])
    assert on(b, :register, [:remote, remote]) == {:error, {:not_local, remote, a.node}}

    assert {:error, {:invalid, text}} =
             Beam.on(b, GenServer, :call, [:tiebeam, {:register, :default, :remote, remote}])

    assert text =~ "#{a.node}"

    # A process.
    Beam.on(a, :erlang, :exit, [hd(pids), :kill])
    for peer <- members, do: eventually(fn -> on(peer, :whereis, [{"name", 1}]) == nil end)
    assert on(b, :count, []) == 199

    # The node.
    BeamMember.kill(a)
    for peer <- [b, c], do: eventually(fn -> on(peer, :count, []) == 0 end)
    assert on(b, :names, []) == []
    assert [{_, _, :ok}] = register(b, [{"name", 2}])
    eventually(fn -> on(c, :count, []) == 1 end)
  end

  test "somebody who waits on another node is answered, and a name follows its process's metadata" do
    [a, b] = start(2)
    waiting = Task.async(fn -> on(b, :await, [:service, [timeout: 20_000]]) end)
    [{_, pid, :ok}] = register(a, [:service])
    assert Task.await(waiting, 60_000) == {:ok, pid, a.node}
    assert on(a, :update_meta, [:service, :new]) == :ok
    assert on(b, :update_meta, [:service, :mine]) == {:error, {:taken, pid}}
    eventually(fn -> on(b, :lookup, [:service]) == {pid, :new} end)
  end

  test "groups have members on all nodes" do
    [a, b] = start(2)
    [init_a, init_b] = for peer <- [a, b], do: Beam.on(peer, :erlang, :whereis, [:init])
    for {peer, pid} <- [{a, init_a}, {b, init_b}], do: assert(group(peer, :join, [:g, pid, peer.node]) == :ok)

    for {peer, local} <- [{a, init_a}, {b, init_b}] do
      eventually(fn -> length(group(peer, :members, [:g])) == 2 end)
      assert Enum.sort(group(peer, :lookup, [:g])) == Enum.sort([{init_a, a.node}, {init_b, b.node}])
      assert group(peer, :local_members, [:g]) == [local]
    end

    BeamMember.kill(a)
    eventually(fn -> group(b, :members, [:g]) == [init_b] end)
  end

  test "a plain node asks a member, and registers a process of its own there" do
    [a, b] = start(2)
    plain = Beam.start_peer(Net.name("p"))
    true = Beam.on(plain, :net_kernel, :connect_node, [a.node])
    ask = fn request -> Beam.on(plain, :gen_server, :call, [{:tiebeam, a.node}, request]) end

    guest = Beam.on(plain, :erlang, :spawn, [:timer, :sleep, [:infinity]])
    assert ask.({:register, :default, "guest", guest, %{from: :plain}}) == :ok
    assert ask.({:lookup, :default, "guest"}) == {guest, %{from: :plain}}
    eventually(fn -> on(b, :lookup, ["guest"]) == {guest, %{from: :plain}} end)

    [{_, pid, :ok}] = register(b, ["host"])
    eventually(fn -> ask.({:whereis, :default, "host"}) == pid end)
    assert ask.({:register, :default, "host", guest}) == {:error, {:taken, pid}}
    assert {:error, {:invalid, _}} = ask.({:register, :default, %{}, guest})
    # What another node's processes have is theirs.
    [{_, own, :ok}] = register(a, ["own"])
    assert {:error, {:invalid, text}} = ask.({:unregister, :default, "own"})
    assert text =~ "only that node"
    assert on(a, :whereis, ["own"]) == own
    assert group(a, :join, [:g, own]) == :ok
    assert {:error, {:invalid, _}} = ask.({:leave, :default, :g, own})
    assert group(a, :members, [:g]) == [own]
    assert ask.({:unregister, :default, "host"}) == {:error, {:taken, pid}}
    assert ask.({:register, :default, "second", guest}) == :ok
    assert ask.({:unregister, :default, "second"}) == :ok
    # Not for others.
    assert ask.({:registry, {:unregister, :default, :erlang.term_to_binary("guest"), nil}, nil, nil, nil}) ==
             {:error, :unknown_request}

    # Watched by the member that was asked.
    Beam.on(plain, :erlang, :exit, [guest, :kill])
    for peer <- [a, b], do: eventually(fn -> on(peer, :whereis, ["guest"]) == nil end)
    assert ask.({:unregister, :default, "guest"}) == {:error, :unknown}
  end

  # The program of a Rust node: it registers what it is asked to.
  test "names and groups are the same on a Rust node" do
    [a, b] = start(2)
    rust = Support.RustMember.start(Net.name("r"), join: [a.node], args: ["--profile", "fast"])
    nodes = Enum.sort([a.node, b.node, rust.node])
    eventually(fn -> BeamMember.alive(a) == nodes and BeamMember.alive(b) == nodes end)

    # Registered on a BEAM node, known on the Rust node.
    [{_, pid, :ok}] = register(a, [{"beam", 1}])
    eventually(fn -> Support.RustMember.ask(rust, {:lookup, :default, {"beam", 1}}) == {pid, a.node} end)
    assert group(a, :join, [:g, pid, :from_beam]) == :ok
    eventually(fn -> Support.RustMember.ask(rust, {:members, :default, :g}) == [pid] end)
    assert Support.RustMember.ask(rust, {:groups, :default}) == [{:g, [{pid, :from_beam}]}]

    # Registered at the Rust node, which watches it; called by name from a BEAM node.
    {:ok, agent} = Agent.start(fn -> :answer end)
    assert Support.RustMember.ask(rust, {:register, :default, :agent, agent, "meta"}) == :ok
    assert {:error, {:taken, ^pid}} = Support.RustMember.ask(rust, {:register, :default, {"beam", 1}, agent})
    for peer <- [a, b], do: eventually(fn -> on(peer, :lookup, [:agent]) == {agent, "meta"} end)
    via = {:via, Registry, {@cluster, :agent}}
    assert Beam.on(b, Agent, :get, [via, Function, :identity, []]) == :answer
    assert on(b, :local_names, []) == []
    Agent.stop(agent)
    for peer <- [a, b], do: eventually(fn -> on(peer, :whereis, [:agent]) == nil end)

    Beam.on(a, :erlang, :exit, [pid, :kill])
    eventually(fn -> Support.RustMember.ask(rust, {:names, :default}) == [] end)
  end

  test "after a split each name has one process, every loser was told, and nothing is lost" do
    [a, b, c] = members = start(3)
    cut([a], [b, c])
    both = for n <- 1..1_000, do: {:both, n}
    ours = for n <- 1..200, do: {:ours, n}
    theirs = for n <- 1..200, do: {:theirs, n}
    on_a = register(a, both)
    on_b = register(b, both)
    for {_, _, answer} <- on_a ++ on_b, do: assert(answer == :ok)
    one_side = for {peer, names} <- [{a, ours}, {c, theirs}], entry <- register(peer, names), do: entry

    heal([a], [b, c])
    pids_a = for {_, pid, _} <- on_a, do: pid
    pids_b = for {_, pid, _} <- on_b, do: pid

    views =
      eventually(fn ->
        [view | others] = for peer <- members, do: view(peer, both)
        if Enum.all?(others, &(&1 == view)) and nil not in view, do: view
      end)

    winners =
      for {pid, one, other} <- Enum.zip([views, pids_a, pids_b]) do
        assert pid in [one, other]
        pid
      end

    losers = (pids_a ++ pids_b) -- winners
    assert length(losers) == 1_000

    # Told once each, with who has the name now, and none of them was ended.
    told = fn -> for peer <- [a, b], {pid, event} <- Beam.on(peer, Names, :told, []), do: {pid, event} end
    eventually(fn -> length(told.()) >= 1_000 end)

    assert Enum.sort(told.()) ==
             Enum.sort(
               for {name, winner, one, other} <- Enum.zip([both, winners, pids_a, pids_b]),
                   loser = if(winner == one, do: other, else: one),
                   do: {loser, {:lost, :default, name, winner}}
             )

    assert length(Beam.on(a, Names, :alive, [pids_a])) + length(Beam.on(b, Names, :alive, [pids_b])) == 2_000

    # What only one side had is everywhere.
    for peer <- members do
      eventually(fn -> view(peer, ours ++ theirs) == for({_, pid, :ok} <- one_side, do: pid) end)
      eventually(fn -> on(peer, :count, []) == 1_400 end)
    end
  end

  test "a loser ends, or waits and has the name again, as it asked for" do
    [a, b] = members = start(2)
    cut([a], [b])
    [exit_a, exit_b] = for peer <- members, do: register(peer, [:exit], on_conflict: :exit)
    [wait_a, wait_b] = for peer <- members, do: register(peer, [:wait], on_conflict: :standby)
    heal([a], [b])

    pid = fn [{_, pid, :ok}] -> pid end

    alive = fn ->
      for {peer, entry} <- [{a, exit_a}, {b, exit_b}],
          p <- Beam.on(peer, Names, :alive, [[pid.(entry)]]),
          do: p
    end

    eventually(fn -> match?([_], alive.()) end)
    for peer <- members, do: eventually(fn -> [on(peer, :whereis, [:exit])] == alive.() end)

    pids = [pid.(wait_a), pid.(wait_b)]

    [kept] =
      eventually(fn -> with [[p], [p]] <- Enum.map(members, &view(&1, [:wait])), do: [p], else: (_ -> nil) end)

    [waiting] = pids -- [kept]
    at = if node(waiting) == a.node, do: a, else: b
    eventually(fn -> {waiting, {:lost, :default, :wait, kept}} in Beam.on(at, Names, :told, []) end)
    holder = if at == a, do: b, else: a
    Beam.on(holder, :erlang, :exit, [kept, :kill])
    for peer <- members, do: eventually(fn -> on(peer, :whereis, [:wait]) == waiting end)
    eventually(fn -> {waiting, {:promoted, :default, :wait}} in Beam.on(at, Names, :told, []) end)
  end

  test "the user decides whose a name is" do
    [a, b] = members = start(2)
    cut([a], [b])
    [mine_a, mine_b] = for peer <- members, do: register(peer, [:last], resolve: {Names, :last_node})
    for peer <- members, do: [{_, _, :ok}] = register(peer, [:neither], resolve: {Names, :neither})
    for peer <- members, do: [{_, _, :ok}] = register(peer, [:broken], resolve: {Names, :no_such_function})
    heal([a], [b])

    {_, last, _} = [mine_a, mine_b] |> List.flatten() |> Enum.max_by(fn {_, pid, _} -> node(pid) end)
    for peer <- members, do: eventually(fn -> view(peer, [:last, :neither]) == [last, nil] end)

    eventually(fn ->
      with [[p], [p]] when p != nil <- Enum.map(members, &view(&1, [:broken])), do: p, else: (_ -> nil)
    end)

    for peer <- members,
        do:
          eventually(fn ->
            Enum.any?(Beam.on(peer, Names, :told, []), &match?({_, {:lost, _, :neither, nil}}, &1))
          end)
  end
end
