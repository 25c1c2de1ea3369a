# global: U is killed at every word of the talk by which nodes join: on a BEAM, the reference, and on a Rust node, side by side.
#
# P and Q, two BEAM nodes, outlive many U. In one constellation U joins the two, in the other P joins Q through U. U's name is smaller, or
# greater, than theirs: names decide who is asked for locks first, and whose process loses a name.
#
# A killer sees a word a moment after it was said, so that a few more words may follow; an all-BEAM cluster does not end in the same state
# every time either. What it was seen to end in is written down below, and both clusters of every round must end in one of these states.
# README.md says how often each was seen.
u_joins = [
  p: [received: [:init_connect, :init_connect_ack, :set_lock, :lock_set, :exchange, :resolved, :del_lock]],
  p: [sent: [:init_connect, :init_connect_ack, :lock_set, :exchange, :resolved]],
  q: [received: [:in_sync], sent: [:in_sync]]
]

p_joins = [
  p: [received: [:init_connect, :init_connect_ack, :lock_set, :exchange, :resolved]],
  p: [sent: [:init_connect, :init_connect_ack, :set_lock, :lock_set, :exchange, :resolved, :del_lock]],
  q: [received: [:set_lock, :new_nodes, :del_lock]]
]

for {who, moments} <- [u_joins: u_joins, p_joins: p_joins], {order, prefix} <- [smaller: "a", greater: "z"] do
  defmodule Module.concat(Conformance.KillMatrixTest, Macro.camelize("#{who}_#{order}")) do
    use ExUnit.Case, async: true
    import Support.Eventually
    alias Support.{Aftermath, Beam, Net, OsProcess, PhaseKiller, Target}

    @who who
    @order order
    @prefix prefix
    @moments for {at, ways} <- moments, {way, words} <- ways, word <- words, do: {at, way, word}
    @names [:of_p, :of_q, :of_u, :same]
    # Said when all is decided.
    @last_words [:in_sync, :new_nodes, :del_lock]

    setup context do
      Support.FailureLog.enter(context.module, context.test)
      :ok
    end

    @tag timeout: 60_000 + Aftermath.rounds() * 120_000
    test "check 63: #{who} (#{order}), and U is killed at every word: the others end as BEAMs do, and no lock stays" do
      clusters = for kind <- Aftermath.kinds(), do: {kind, for(role <- [p: "p", q: "q"], do: survivor(role))}

      for _ <- 1..Aftermath.rounds(), moment <- @moments do
        # A test starts its own programs; what is done to them is done side by side.
        started =
          for {kind, survivors} <- clusters, do: {Target.start_unready(kind, prefix: @prefix), survivors}

        tasks = for {u, survivors} <- started, do: Task.async(fn -> {u.kind, round(u, survivors, moment)} end)
        for {kind, ended} <- Task.await_many(tasks, 100_000), do: judge(kind, moment, ended)
      end
    end

    defp survivor({role, prefix}), do: {role, Beam.start_peer(Net.name(prefix))}

    defp judge(kind, {at, way, word} = moment, {outcome, registers?}) do
      told = "U is a #{kind} node, killed when #{at} has #{way} #{word}: #{inspect(outcome, pretty: true)}"
      Aftermath.count({@who, @order, moment}, kind, name_of(outcome))
      assert Enum.any?(states(@who, @order, word), &(state(&1) == outcome)), told
      assert registers?, "some lock cannot be had; #{told}"
    end

    # What the cluster may end in: who knows whom of P and Q, and whether P still has the name that U's process wanted, too.
    # It is a fifth of a second from the greetings to the first lock.
    defp states(:u_joins, :smaller, word) when word in [:init_connect, :init_connect_ack], do: [:together]
    defp states(:u_joins, :smaller, word) when word in @last_words, do: [{:together, :lost}]
    defp states(:u_joins, :smaller, _), do: [:together, {:together, :lost}]
    # P's process is on the smaller node, and stays.
    defp states(:u_joins, :greater, _), do: [:together]
    defp states(:p_joins, _, word) when word in [:init_connect, :init_connect_ack], do: [:apart]

    # One of the two may know the other before U could tell the other of it. OTP's protocol has no word that mends it.
    defp states(:p_joins, :greater, _), do: [:apart, :p_knows, :q_knows, :together]

    defp states(:p_joins, :smaller, _) do
      [
        :apart,
        {:apart, :lost},
        {:p_knows, :lost},
        {:q_knows, :lost},
        {:q_knows, :lost_on_q},
        {:together, :lost}
      ]
    end

    defp state({who, :lost}), do: for({role, seen} <- state(who), do: {role, lose(seen)})
    defp state({who, :lost_on_q}), do: Keyword.update!(state(who), :q, &lose/1)

    defp state(:together),
      do: [p: seen([:q], [:q], [:of_p, :of_q, :same]), q: seen([:p], [:p], [:of_p, :of_q, :same])]

    defp state(:apart), do: [p: seen([], [], [:of_p, :same]), q: seen([], [], [:of_q])]
    defp state(:p_knows), do: [p: seen([:q], [:q], [:of_p, :of_q, :same]), q: seen([:p], [], [:of_q])]
    defp state(:q_knows), do: [p: seen([:q], [], [:of_p, :same]), q: seen([:p], [:p], [:of_p, :of_q, :same])]

    defp seen(nodes, known, names) do
      owners = [of_p: :p, of_q: :q, same: :p]
      %{nodes: nodes, known: known, names: for(name <- names, do: {name, owners[name]}), locks: []}
    end

    defp lose(seen), do: %{seen | names: Keyword.delete(seen.names, :same)}

    defp name_of(outcome) do
      whole = [:together, :apart, :p_knows, :q_knows]
      lost = for who <- whole, what <- [:lost, :lost_on_q], do: {who, what}
      Enum.find(whole ++ lost, outcome, &(state(&1) == outcome))
    end

    defp round(u, [p: p, q: q] = survivors, {at, way, word}) do
      {:yes, _} = Beam.on(p, :fixture, :global_register, [:of_p])
      {:yes, same} = Beam.on(p, :fixture, :global_register, [:same])
      {:yes, _} = Beam.on(q, :fixture, :global_register, [:of_q])
      Target.await_ready(u)
      if @who == :u_joins, do: meet(p, q), else: meet(q, u)
      for name <- [:of_u, :same], do: {:yes, _} = Target.on(u, :global_register, [name])

      killer =
        Beam.on(survivors[at], PhaseKiller, :start, [way, word, u.node, "#{OsProcess.os_pid(u.process)}"])

      Beam.on(p, :net_kernel, :connect_node, [u.node])
      assert {137, _} = OsProcess.await_exit(u.process)
      assert Beam.on(survivors[at], PhaseKiller, :killed?, [killer]) == true
      roles = %{u.node => :u, p.node => :p, q.node => :q}
      outcome = Aftermath.settled(survivors, roles, @names)
      registers? = Aftermath.registers?(survivors)
      clear(survivors, same)
      {outcome, registers?}
    end

    defp meet(peer, other) do
      true = Beam.on(peer, :net_kernel, :connect_node, [other.node])
      eventually(fn -> other.node in Aftermath.known(peer) end)
    end

    # For the next U.
    defp clear([p: p, q: q] = survivors, same) do
      for {_, peer} <- survivors, name <- @names, do: Beam.on(peer, :fixture, :global_unregister, [name])
      Process.exit(same, :kill)

      if @who == :p_joins do
        Beam.on(p, :erlang, :disconnect_node, [q.node])
        for {_, peer} <- survivors, do: eventually(fn -> Aftermath.known(peer) == [] end)
      end
    end
  end
end
