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

defmodule Conformance.KillMatrixTest.Outcome do
  @moduledoc """
  What P and Q end in: `:together`, `:apart`, or connected and only one of them knows the other. P had a name that U's process wanted, too; with
  `{outcome, :lost}` it has been lost, with `{outcome, :lost_on_q}` only Q has heard of that.
  """

  @together [p: {[:q], [:q], [:of_p, :of_q, :same]}, q: {[:p], [:p], [:of_p, :of_q, :same]}]
  @states [
    together: @together,
    apart: [p: {[], [], [:of_p, :same]}, q: {[], [], [:of_q]}],
    p_knows: [p: @together[:p], q: {[:p], [], [:of_q]}],
    q_knows: [p: {[:q], [], [:of_p, :same]}, q: @together[:q]]
  ]
  @owners [of_p: :p, of_q: :q, same: :p]

  # It is a fifth of a second from the greetings to the first lock.
  @greetings [:init_connect, :init_connect_ack]
  # Said when all is decided.
  @last_words [:in_sync, :new_nodes, :del_lock]

  @doc "What a cluster of BEAMs was seen to end in, and one more: README.md tells of `:q_knows`."
  def known(:u_joins, :smaller, word) when word in @greetings, do: [:together]
  def known(:u_joins, :smaller, word) when word in @last_words, do: [{:together, :lost}]
  def known(:u_joins, :smaller, _), do: [:together, {:together, :lost}]
  # P's process is on the smaller node, and stays.
  def known(:u_joins, :greater, _), do: [:together]
  def known(:p_joins, _, word) when word in @greetings, do: [:apart]

  # One of the two may know the other before U could tell the other of it. OTP's protocol has no word that mends it.
  def known(:p_joins, :greater, word) when word in @last_words, do: [:together, :p_knows, :q_knows]
  def known(:p_joins, :greater, _), do: [:apart | known(:p_joins, :greater, :del_lock)]

  def known(:p_joins, :smaller, word) when word in @last_words,
    do: [{:together, :lost}, {:p_knows, :lost}, {:q_knows, :lost}, {:q_knows, :lost_on_q}]

  def known(:p_joins, :smaller, _), do: [:apart, {:apart, :lost} | known(:p_joins, :smaller, :del_lock)]

  @doc "The name of an outcome of `Support.Aftermath.settled/5`; itself where it has none."
  def name(outcome) do
    names = for {who, _} <- @states, name <- [who, {who, :lost}, {who, :lost_on_q}], do: name
    Enum.find(names, outcome, &(state(&1) == outcome))
  end

  defp state({who, :lost}), do: for({role, seen} <- state(who), do: {role, lose(seen)})
  defp state({who, :lost_on_q}), do: Keyword.update!(state(who), :q, &lose/1)

  defp state(who) do
    for {role, {nodes, known, names}} <- @states[who] do
      {role, %{nodes: nodes, known: known, names: for(name <- names, do: {name, @owners[name]}), locks: []}}
    end
  end

  defp lose(seen), do: %{seen | names: Keyword.delete(seen.names, :same)}
end

for {who, moments} <- [u_joins: u_joins, p_joins: p_joins], {order, prefix} <- [smaller: "a", greater: "z"] do
  defmodule Module.concat(Conformance.KillMatrixTest, Macro.camelize("#{who}_#{order}")) do
    use ExUnit.Case, async: true
    import Support.Eventually
    alias Conformance.KillMatrixTest.Outcome
    alias Support.{Aftermath, Beam, Net, OsProcess, PhaseKiller, Target}

    @who who
    @order order
    @prefix prefix
    @moments for {at, ways} <- moments, {way, words} <- ways, word <- words, do: {at, way, word}
    @names [:of_p, :of_q, :of_u, :same]

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
      Aftermath.count({@who, @order, moment}, kind, Outcome.name(outcome))
      assert Outcome.name(outcome) in Outcome.known(@who, @order, word), told
      assert registers?, "some lock cannot be had; #{told}"
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
