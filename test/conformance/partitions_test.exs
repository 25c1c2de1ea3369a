# global: what a cluster of four ends in when a link is cut, a node stops, is killed, or stands still: the same befalls a cluster with
# U on a BEAM, the reference, and one with U on a Rust node, side by side.
#
# OTP leaves some of it to chance: each node that misses another tells the rest, and whoever is reported first is removed. Both
# clusters of a test must end in one of the ways in which a cluster of BEAMs was seen to end. README.md says how often.
things = [
  links:
    for(
      {one, other} <- [u: :p, p: :q],
      how <- [:is_cut, :breaks],
      do: {{how, one, other}, "the link between #{one} and #{other} #{how}"}
    ),
  connections:
    for(
      {one, other} <- [u: :p, p: :u, p: :q],
      do: {{:disconnects, one, other}, "#{one} closes its connection to #{other}"}
    ) ++
      for(role <- [:u, :p], do: {{:waits, role}, "#{role} stands still for a moment"}),
  nodes:
    for(
      role <- [:u, :p],
      {how, told} <- [stops: "stops in order", ends: "is told to terminate", dies: "is killed"],
      do: {{how, role}, "#{role} #{told}"}
    ),
  freezes:
    for(
      role <- [:u, :p],
      do: {{:freezes, role}, "#{role} stands still until all have given it up, and comes back to itself"}
    )
]

for {group, things} <- things do
  defmodule Module.concat(Conformance.PartitionsTest, Macro.camelize("#{group}")) do
    use ExUnit.Case, async: true
    import Support.Eventually
    alias Support.{Aftermath, Link, Mesh, Net, OsProcess, Target}

    @roles [:p, :q, :r, :u]
    @names for role <- @roles, do: {:of, role}

    setup context do
      Support.FailureLog.enter(context.module, context.test)
      :ok
    end

    for {thing, told} <- things do
      @tag thing: thing
      @tag timeout: 60_000 + Aftermath.rounds() * 60_000
      test "check 64: #{told |> String.replace("_", " ")}", %{thing: thing} do
        for _ <- 1..Aftermath.rounds() do
          # A test starts its own programs; what befalls them does so side by side.
          clusters = for kind <- Aftermath.kinds(), do: {kind, start(kind, thing)}
          tasks = for {kind, c} <- clusters, do: Task.async(fn -> {kind, aftermath(c, thing)} end)
          for {kind, ended} <- Task.await_many(tasks, 100_000), do: judge(kind, thing, ended)
          for {_, c} <- clusters, role <- @roles, OsProcess.alive?(c[role].process), do: Target.kill(c[role])
        end
      end
    end

    defp judge(kind, thing, {outcome, registers?}) do
      told = "U is a #{kind} node: #{inspect(outcome, pretty: true)}"
      partitions = Aftermath.partitions(outcome)
      Aftermath.count(thing, kind, partitions)
      assert partitions in ends_in(thing), told

      for {role, seen} <- outcome do
        group = Enum.find(partitions, &(role in &1))
        assert seen.names == for(role <- group, do: {{:of, role}, role}), told
        assert seen.locks == [], told
      end

      assert registers?, "some lock cannot be had; #{told}"
    end

    # Partitions, by roles.
    defp ends_in({how, role}) when how in [:stops, :ends, :dies], do: [[@roles -- [role]]]
    defp ends_in({:waits, _}), do: [[@roles]]
    defp ends_in({:freezes, role}), do: [Enum.sort([[role], @roles -- [role]])]

    # The others remove the one that is reported first, or each of them removes both.
    defp ends_in({_, one, other}) do
      both = Enum.sort([[one], [other], @roles -- [one, other]])
      [both | for(removed <- [one, other], do: Enum.sort([[removed], @roles -- [removed]]))]
    end

    defp befalls(c, {:is_cut, one, other}), do: lose(c, one, other, fn -> Link.cut(c.link) end)
    defp befalls(c, {:breaks, one, other}), do: lose(c, one, other, fn -> Link.break(c.link) end)

    defp befalls(c, {:disconnects, one, other}),
      do: lose(c, one, other, fn -> Target.on(c[one], :erlang, :disconnect_node, [c[other].node]) end)

    defp befalls(c, {:stops, role}), do: await_end(c, role, &Target.on(&1, :stop, []))
    defp befalls(c, {:ends, role}), do: await_end(c, role, &Target.signal(&1, :TERM))
    defp befalls(c, {:dies, role}), do: await_end(c, role, &Target.signal(&1, :KILL))

    defp befalls(c, {:waits, role}) do
      Target.signal(c[role], :STOP)
      Process.sleep(1_500)
      Target.signal(c[role], :CONT)
      @roles
    end

    defp befalls(c, {:freezes, role}) do
      Target.signal(c[role], :STOP)

      # Not only unknown: as long as a connection is left, what a node says when it wakes up reaches the others.
      for other <- @roles -- [role], do: eventually(fn -> not connected?(c[other], c[role]) end, 30_000)
      Target.signal(c[role], :CONT)
      eventually(fn -> Mesh.known(c[role]) == [] end, 30_000)
      @roles
    end

    defp lose(c, one, other, how) do
      how.()
      lost? = fn -> not connected?(c[one], c[other]) and not connected?(c[other], c[one]) end
      eventually(lost?, 30_000)
      @roles
    end

    defp await_end(c, role, how) do
      how.(c[role])
      OsProcess.await_exit(c[role].process)
      @roles -- [role]
    end

    defp connected?(target, other), do: other.node in Target.on(target, :erlang, :nodes, [])

    # A map from roles to targets, and `:link` where there is one.
    defp start(kind, {how, one, other}) when how in [:is_cut, :breaks] do
      # The node that is dialled over the link has to be there first.
      dialled = Target.start(:beam, prefix: "#{other}", net_ticktime: 4)
      link = Link.start(Net.port_of(dialled.node))
      args = link_args(if(one == :u, do: kind, else: :beam), dialled, Link.port(link))

      c =
        for role <- @roles -- [other], into: %{other => dialled} do
          args = if role == one, do: args, else: []
          {role, Target.start_unready(kind_of(role, kind), prefix: "#{role}", net_ticktime: 4, args: args)}
        end

      for {_, target} <- c, do: Target.await_ready(target)
      # Before a third node has told the dialled one whom to dial.
      true = Mesh.dial(c[one], c[other])
      assert Link.up?(link)
      Map.put(c, :link, link)
    end

    defp start(kind, thing) do
      opts = if elem(thing, 0) in [:freezes], do: [net_ticktime: 4], else: []

      c =
        for role <- @roles,
            into: %{},
            do: {role, Target.start_unready(kind_of(role, kind), [prefix: "#{role}"] ++ opts)}

      for {_, target} <- c, do: Target.await_ready(target)
      c
    end

    defp kind_of(:u, kind), do: kind
    defp kind_of(_, _), do: :beam

    defp link_args(:rust, dialled, port), do: ["--address", "#{dialled.node}=127.0.0.1:#{port}"]

    defp link_args(:beam, dialled, port),
      do: ["-epmd_module", "relayed_epmd", "-relayed", Net.alive(dialled.node), "#{port}"]

    # The tests' own node says something every 15 s, and these want to hear from everybody every 4 s.
    defp keep_talking(targets) do
      for target <- targets, do: :erlang.send({:sink, target.node}, :still_here, [:noconnect])
      Process.sleep(500)
      keep_talking(targets)
    end

    defp aftermath(c, thing) do
      spawn_link(fn -> keep_talking(for role <- @roles, do: c[role]) end)
      for role <- @roles, do: {:yes, _} = Target.on(c[role], :global_register, [{:of, role}])
      Mesh.join(for role <- @roles, do: c[role])
      survivors = for role <- befalls(c, thing), do: {role, c[role]}
      roles = for role <- @roles, into: %{}, do: {c[role].node, role}
      outcome = Aftermath.settled(survivors, roles, @names, 1_000, 40_000)
      {outcome, Aftermath.registers?(survivors)}
    end
  end
end
