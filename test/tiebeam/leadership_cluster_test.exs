# Leadership of three real nodes, BEAM and Rust in every mix.
defmodule Tiebeam.LeadershipClusterTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Beater, Holder, Net, OsProcess, RingDiary, RustMember, Target}
  alias Tiebeam.{KV, Leader, Lock, Placement, Registry, Ring, Singleton}

  @cluster BeamMember.cluster()
  @moduletag timeout: 180_000

  # Generous: what is usual is printed.
  @deadline 30_000

  # Short, so that a node that is cut off is given up soon. The holder counts a quarter less.
  @session_ttl 2_000

  # A node that stands still for so many microseconds may hear of its loss too late; then tokens are what protects.
  @stall 100_000

  @options [profile: :fast, session_ttl: @session_ttl]

  @mixes [[:beam, :beam, :beam]] ++
           if(:rust in Target.kinds(), do: [[:beam, :beam, :rust], [:beam, :rust, :rust]], else: [])

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  # Three voters that see each other and agree on a leader.
  defp start(kinds, voters \\ &Function.identity/1) do
    names = for kind <- kinds, do: Net.name(if kind == :rust, do: "r", else: "b")
    nodes = for {kind, name} <- Enum.zip(kinds, names), do: start_node(kind, name, voters.(names))
    agreed(nodes)
    nodes
  end

  defp start_node(:beam, name, voters) do
    peer = BeamMember.start(name, options(voters))
    Map.merge(peer, %{kind: :beam, os_pid: Beam.os_pid(peer)})
  end

  defp start_node(:rust, name, voters) do
    join = voters -- [name]

    member =
      RustMember.start(name,
        join: join,
        args: ["--profile", "fast", "--voters", Enum.join(voters, ","), "--fixture"]
      )

    Map.put(member, :os_pid, "#{OsProcess.os_pid(member.process)}")
  end

  # Nodes that are only counted find each other as those that are named do.
  defp options({:expect, names}), do: [join: names, expect: length(names)] ++ @options
  defp options(names), do: [join: names, voters: names] ++ @options

  defp on(node, module, function, arguments, timeout \\ 60_000),
    do: Beam.on(node, module, function, [@cluster | arguments], timeout)

  defp leader(%{kind: :beam} = node), do: on(node, Leader, :leader, [])
  defp leader(%{kind: :rust} = node), do: RustMember.ask(node, :leader)

  # All name the same one of them.
  defp agreed(nodes) do
    names = for node <- nodes, do: node.node

    {:ok, leader, _term} =
      eventually(
        fn ->
          with [{:ok, leader, _term} = answer] <- nodes |> Enum.map(&leader/1) |> Enum.uniq(),
               true <- leader in names,
               do: answer,
               else: (_ -> nil)
        end,
        60_000
      )

    Enum.find(nodes, &(&1.node == leader))
  end

  # On a busy machine leaders change by themselves now and then: who asks is told that nothing was done, or that it is not
  # known.
  defp settled(ask) do
    {:answer, answer} =
      eventually(
        fn ->
          case ask.() do
            {:error, reason} when reason in [:no_quorum, :unknown] -> nil
            answer -> {:answer, answer}
          end
        end,
        @deadline
      )

    answer
  end

  defp put(node, key, value), do: settled(fn -> try_put(node, key, value, 5_000) end)

  defp try_put(%{kind: :beam} = node, key, value, timeout),
    do: on(node, KV, :put, [key, value, [timeout: timeout]])

  defp try_put(%{kind: :rust} = node, key, value, _timeout), do: RustMember.ask(node, {:kv, :put, key, value})

  defp get(%{kind: :beam} = node, key), do: settled(fn -> on(node, KV, :get, [key]) end)
  defp get(%{kind: :rust} = node, key), do: settled(fn -> RustMember.ask(node, {:kv, :get, key}) end)

  # How many milliseconds after `disturb` a write is acknowledged, through another node.
  defp failover(what, mix, nodes, victim, disturb) do
    [through | _] = Enum.sort_by(List.delete(nodes, victim), & &1.kind)
    since = System.monotonic_time(:microsecond)
    disturb.()
    {:ok, _} = written(through, since + 1000 * @deadline)
    took = div(System.monotonic_time(:microsecond) - since, 1000)

    IO.puts(
      "\n#{what} of the leader (#{victim.kind} of #{inspect(mix)}): next acknowledged write after #{took} ms"
    )

    assert took < @deadline
  end

  defp written(node, deadline) do
    case try_put(node, "failover", deadline, 1_000) do
      {:ok, revision} ->
        {:ok, revision}

      {:error, reason} when reason in [:no_quorum, :unknown] ->
        assert System.monotonic_time(:microsecond) < deadline
        written(node, deadline)
    end
  end

  for mix <- @mixes do
    @mix mix
    test "three nodes agree, hand over, and go on without the leader: #{inspect(mix)}" do
      nodes = start(@mix)
      beams = Enum.filter(nodes, &(&1.kind == :beam))
      first = agreed(nodes)
      {:ok, _, term} = leader(first)

      # No two have one token, however they are asked one after the other.
      tokens = for node <- beams, {:ok, token} <- [on(node, Leader, :leader?, [])], do: token
      assert tokens == Enum.uniq(tokens)

      # What is written through any node is read through any other.
      for node <- nodes, do: {:ok, _} = put(node, "by:#{node.node}", {node.node, 1})
      for node <- nodes, other <- nodes, do: assert({:ok, {_, 1}, _} = get(node, "by:#{other.node}"))
      {:ok, revision} = put(first, "last", "text")

      for node <- beams do
        assert on(node, KV, :get, ["last", [min_revision: revision]]) == {:ok, "text", revision}
        assert {:ok, [_, _, _]} = on(node, KV, :list, ["by:", [consistency: :local]])
      end

      # Who does not lead may be told not to forward: at most one of them does.
      if length(beams) > 1 do
        put = &on(&1, KV, :put, ["refused", 1, [on_follower: :error]])
        assert beams |> Enum.map(put) |> Enum.any?(&match?({:error, {:not_leader, _}}, &1))
      end

      # A lock is one process's in the whole cluster; so is a strong name.
      [one, other] = [hd(beams), List.last(beams)]

      {holder, {:ok, token}} =
        Beam.on(one, Holder, :start, [Lock, :acquire, [@cluster, {:lock, 1}, [timeout: 20_000]]])

      if one != other,
        do: assert(settled(fn -> on(other, Lock, :try_acquire, [{:lock, 1}]) end) == {:error, :held})

      init = Beam.on(one, :erlang, :whereis, [:init])
      assert settled(fn -> on(one, Registry, :register, ["strong", init, nil, [scope: :strong]]) end) == :ok

      for node <- beams,
          do: eventually(fn -> on(node, Registry, :whereis, ["strong", [scope: :strong]]) == init end)

      for node <- nodes, do: eventually(fn -> match?([{{:lock, 1}, ^token, ^holder, nil}], locks(node)) end)
      Beam.on(one, :erlang, :exit, [holder, :kill])
      for node <- nodes, do: eventually(fn -> locks(node) == [] end)

      # A node that is none of them follows the leader, whoever it is by now.
      for node <- nodes, do: :ok = RustMember.ask(node, {:subscribe_leader, self()})

      followed = fn term ->
        for _ <- nodes do
          assert_receive {:tiebeam, "default", {:leader, node, t}} when node != nil and t >= term, @deadline
        end
      end

      followed.(term)

      # In good order.
      {:ok, next} = settled(fn -> step_down(hd(beams)) end)
      assert next > term
      followed.(next)
      second = agreed(nodes)

      # Silent, then back.
      failover("SIGSTOP", @mix, nodes, second, fn ->
        start_supervised!({Tiebeam.Test.Pause, second.os_pid})
      end)

      stop_supervised!({Tiebeam.Test.Pause, second.os_pid})
      third = agreed(nodes)

      # Gone for good.
      failover("kill -9", @mix, nodes, third, fn -> OsProcess.send_signal(third.os_pid, :KILL) end)
      rest = List.delete(nodes, third)
      agreed(rest)
      for node <- rest, other <- nodes, do: assert({:ok, {_, 1}, _} = get(node, "by:#{other.node}"))
    end
  end

  # The other may not take over in time on a busy machine: then the leader goes on, and is asked again.
  defp step_down(node) do
    since = System.monotonic_time(:microsecond)

    with {:ok, term} <- on(node, Leader, :step_down, []),
         {:ok, _} <- try_put(node, "handed", "over", 5_000) do
      took = System.monotonic_time(:microsecond) - since
      IO.puts("\nstep-down: next acknowledged write after #{div(took, 1000)} ms")
      {:ok, term}
    else
      {:error, _reason} -> {:error, :no_quorum}
    end
  end

  defp locks(%{kind: :rust} = node), do: RustMember.ask(node, :locks)
  defp locks(%{kind: :beam} = node), do: Beam.on(node, GenServer, :call, [:tiebeam, :locks])

  # Known at once, unlike a cable that is pulled: neither side takes the other's connections, for each has a cookie of its
  # own.
  defp cut(one, others) do
    for {from, to} <- both_ways(one, others), do: Beam.on(from, :erlang, :set_cookie, [to.node, from.node])
    for {from, to} <- both_ways(one, others), do: Beam.on(from, :erlang, :disconnect_node, [to.node])
  end

  defp heal(one, others) do
    for {from, to} <- both_ways(one, others),
        do: Beam.on(from, :erlang, :set_cookie, [to.node, Beam.on(from, :erlang, :get_cookie, [])])
  end

  defp both_ways(one, others), do: for(other <- others, pair <- [{one, other}, {other, one}], do: pair)

  test "a node that is cut off knows that what it held is lost before another one has it" do
    nodes = start([:beam, :beam, :beam])
    [one | others] = nodes

    {holder, {:ok, token}} =
      Beam.on(one, Holder, :start, [Lock, :acquire, [@cluster, "l", [timeout: 20_000]]])

    waiting =
      Beam.on(hd(others), Holder, :start_waiting, [Lock, :acquire, [@cluster, "l", [timeout: 60_000]]])

    cut(one, others)
    {granted_at, {:ok, next}} = Beam.on(hd(others), Holder, :answered, [waiting], 60_000)
    assert next > token

    [{lost_at, {:lost, :lock, "l", ^token}}] =
      eventually(fn -> with [] <- Beam.on(one, Holder, :told_at, [holder]), do: nil end)

    IO.puts(
      "\nlock of a node that was cut off: known there #{div(granted_at - lost_at, 1000)} ms before it was granted anew"
    )

    assert lost_at < granted_at or Beam.on(one, Holder, :longest_pause, [holder]) > @stall

    # It cannot do anything, and says so; what it has it shows.
    for {function, arguments} <- [put: ["a", 1], get: ["a"]] do
      assert {:error, reason} = on(one, KV, function, arguments ++ [[timeout: 500]])
      assert reason in [:no_quorum, :unknown]
    end

    assert on(one, KV, :get, ["a", [consistency: :local]]) == :not_found
    assert on(one, Leader, :leader?, []) == false

    heal(one, others)
    agreed(nodes)
    {:ok, _} = put(one, "a", 1)
  end

  test "a singleton is never active twice" do
    # Counted, not named.
    nodes = start([:beam, :beam, :beam], &{:expect, &1})
    file = Path.join(System.tmp_dir!(), "tiebeam_beats_#{System.pid()}_#{System.unique_integer([:positive])}")
    File.write!(file, "")
    on_exit(fn -> File.rm(file) end)
    for node <- nodes, do: :ok = Beam.on(node, Beater, :start_singleton, [@cluster, "s", file])

    # The node that is active under another token than those before.
    active = fn nodes, before ->
      {_time, token, name} =
        eventually(fn -> Enum.find(Beater.beats(file), fn {_, token, _} -> token > before end) end, 60_000)

      {Enum.find(nodes, &("#{&1.node}" == name)), token}
    end

    {one, token} = active.(nodes, 0)
    for node <- nodes, do: eventually(fn -> on(node, Singleton, :whereis, ["s"]) == {one.node, token} end)

    # In good order.
    assert on(one, Singleton, :step_down, ["s"]) == :ok
    {two, token} = active.(nodes, token)
    assert two != one

    # Cut off: it stops by itself.
    others = List.delete(nodes, two)
    cut(two, others)
    {three, token} = active.(others, token)
    heal(two, others)
    agreed(nodes)

    # The cluster on its node stops.
    BeamMember.stop_cluster(three)
    {four, token} = active.(List.delete(nodes, three), token)

    {:ok, _} = BeamMember.start_tiebeam(three, options({:expect, Enum.map(nodes, & &1.node)}))
    # It is another member now, and votes.
    all_vote(nodes)

    # The node is killed.
    OsProcess.send_signal(four.os_pid, :KILL)
    {_five, _token} = active.(List.delete(nodes, four), token)

    # Everything that ran under a token ran before anything under a later one.
    runs = file |> Beater.beats() |> Enum.group_by(fn {_, token, _} -> token end, fn {time, _, _} -> time end)
    runs = for {_token, times} <- Enum.sort(runs), do: Enum.sort(times)
    assert length(runs) >= 5

    for {run, [started | _]} <- Enum.zip(runs, tl(runs)) do
      pauses = for {time, next} <- Enum.zip(run, tl(run)), do: next - time
      stopped = List.last(run)
      stalled? = Enum.max(pauses, fn -> 0 end) > @stall
      assert stopped < started or stalled?, "active twice for #{stopped - started} µs"
    end
  end

  if :rust in Target.kinds() do
    test "a BEAM and a Rust node are each other's standby" do
      [beam, rust, _] = start([:beam, :rust, :rust])

      file =
        Path.join(System.tmp_dir!(), "tiebeam_beats_#{System.pid()}_#{System.unique_integer([:positive])}")

      File.write!(file, "")
      on_exit(fn -> File.rm(file) end)
      :ok = Beam.on(beam, Beater, :start_singleton, [@cluster, "s", file])
      {_, first, _} = eventually(fn -> List.first(Beater.beats(file)) end, 60_000)

      true = :net_kernel.hidden_connect_node(rust.node)
      pid = :erpc.call(rust.node, :fixture, :stand_by, ["s", self()], @deadline)
      assert GenServer.call(pid, :status, @deadline) == :passive
      refute_received {:active, _, _}
      assert on(beam, Singleton, :step_down, ["s"]) == :ok
      rust_node = rust.node
      assert_receive {:active, ^rust_node, second}, @deadline
      assert second > first
      beats = Beater.beats(file)
      eventually(fn -> on(beam, Singleton, :whereis, ["s"]) == {rust.node, second} end)

      # Asked on the BEAM, done on the Rust node.
      assert on(beam, Singleton, :step_down, ["s"]) == :ok
      assert_receive {:passive, ^rust_node, :step_down}, @deadline

      {_, third, _} =
        eventually(fn -> Enum.find(Beater.beats(file), fn {_, token, _} -> token > second end) end)

      assert Enum.filter(Beater.beats(file), fn {_, token, _} -> token < third end) == beats

      OsProcess.send_signal(beam.os_pid, :KILL)
      assert_receive {:active, ^rust_node, fourth}, 60_000
      assert fourth > third
    end
  end

  if :rust in Target.kinds() do
    test "partitions move between a BEAM and a Rust node, and calls find them" do
      [beam, rust, _] = start([:beam, :rust, :rust])

      file =
        Path.join(System.tmp_dir!(), "tiebeam_ring_#{System.pid()}_#{System.unique_integer([:positive])}")

      File.write!(file, "")
      on_exit(fn -> File.rm(file) end)
      options = [cluster: @cluster, name: "r", partitions: 12, handler: {RingDiary, file}]
      :ok = Beam.on(beam, RingDiary, :start_ring, [options])
      ring = fn function, arguments -> Beam.on(beam, Ring, function, [{@cluster, "r"} | arguments]) end
      count = fn node -> length(ring.(:partitions, [node.node])) end
      eventually(fn -> count.(beam) == 12 and length(RingDiary.read(file)) == 12 end, 60_000)

      # The Rust node gets its share, once the BEAM has released it.
      true = :net_kernel.hidden_connect_node(rust.node)
      pid = :erpc.call(rust.node, :fixture, :take_part, ["r", 12, self()], @deadline)
      rust_node = rust.node

      owned =
        for _ <- 1..6 do
          assert_receive {:owned, ^rust_node, partition, token}, @deadline
          assert Enum.any?(RingDiary.read(file), &match?({_, :release, ^partition, _, _, _}, &1))
          {partition, token}
        end

      eventually(fn -> count.(beam) == 6 and count.(rust) == 6 end, 60_000)
      assert Enum.sort(for {partition, _} <- owned, do: partition) == ring.(:partitions, [rust.node])

      # Both find the owner of a key.
      for key <- 1..20 do
        partition = ring.(:partition_for, [key])

        if List.keymember?(owned, partition, 0) do
          assert ring.(:call, [key, :hello]) == {:ok, {rust.node, :hello}}
          assert :erpc.call(rust.node, :fixture, :call_ring, ["r", 12, key, :hello]) == {rust.node, :hello}
        else
          assert :erpc.call(rust.node, :fixture, :call_ring, ["r", 12, key, {:put, 1}]) ==
                   {:put, partition, beam.node}

          assert ring.(:call, [key, :get]) == {:ok, 1}
        end
      end

      # Orders of a BEAM are obeyed by the Rust node, and what it says of itself is read by the BEAM.
      order = fn function, arguments ->
        Beam.on(beam, Placement, function, [{@cluster, {:ring, "r"}} | arguments], @deadline)
      end

      assert order.(:label, [rust.node, [zone: "b"]]) == :ok
      assert order.(:weight, [rust.node, 200]) == :ok
      says = fn -> order.(:participants, [])[rust.node] end
      eventually(fn -> match?(%{weight: 200, labels: %{"zone" => "b"}}, says.()) end)
      eventually(fn -> count.(beam) == 4 and count.(rust) == 8 end, 60_000)
      [moved | _] = ring.(:partitions, [rust.node])
      assert order.(:move, [moved, beam.node]) == :ok
      eventually(fn -> moved in ring.(:partitions, [beam.node]) end, 60_000)
      assert order.(:cordon, [rust.node]) == :ok
      assert order.(:move, [moved, rust.node]) == {:error, :cordoned}

      # The Rust node loses them all when its process ends; the BEAM goes on.
      true = Process.exit(pid, :kill)
      eventually(fn -> count.(beam) == 12 end, 60_000)
    end
  end

  # The leader hears of all voters, under the identities that they have now.
  defp all_vote(nodes) do
    eventually(
      fn ->
        with {:ok, members} <- on(agreed(nodes), Leader, :members, []),
             do: length(members) == length(nodes) and Enum.all?(members, &(&1.voter and &1.heard == true))
      end,
      60_000
    )
  end

  # Who votes and who follows, as all of `nodes` know it.
  defp voters(nodes, voters, learners) do
    expected =
      Enum.sort(for(node <- voters, do: {node.node, true}) ++ for(node <- learners, do: {node.node, false}))

    for node <- nodes do
      eventually(fn ->
        with {:ok, members} <- on(node, Leader, :members, []),
             do: Enum.sort(for member <- members, do: {member.node, member.voter}) == expected
      end)
    end
  end

  test "nodes follow, become voters and are voters no more; what is left of a group can be one again" do
    [a, b, c] = start([:beam, :beam, :beam])
    names = for node <- [a, b, c], do: node.node
    {:ok, revision} = put(a, "kept", 1)

    # A fourth node follows: it has what the others have, and asks the leader through its own server.
    d = start_node(:beam, Net.name("b"), names)
    nodes = [a, b, c, d]
    agreed(nodes)
    voters(nodes, [a, b, c], [d])
    assert on(d, KV, :get, ["kept", [min_revision: revision]]) == {:ok, 1, revision}
    assert {:ok, _} = put(d, "by the fourth", 1)
    assert on(d, Leader, :leader?, []) == false

    assert settled(fn -> on(a, Leader, :add_voter, [d.node, [timeout: 30_000]]) end) == :ok
    voters(nodes, nodes, [])
    assert settled(fn -> on(d, Leader, :remove_voter, [a.node, [timeout: 30_000]]) end) == :ok
    voters(nodes, [b, c, d], [a])
    assert agreed(nodes).node != a.node
    add_nobody = fn -> on(a, Leader, :add_voter, [:"nobody@127.0.0.1"]) end
    assert settled(add_nobody) == {:error, {:no_member, :"nobody@127.0.0.1"}}

    # Two of three voters are gone for good.
    {:ok, revision} = put(d, "last", 2)
    assert on(d, KV, :get, ["last", [min_revision: revision]]) == {:ok, 2, revision}
    for node <- [b, c], do: OsProcess.send_signal(node.os_pid, :KILL)
    eventually(fn -> leader(d) == :none end)
    assert {:error, _} = on(d, KV, :put, ["a", 1, [timeout: 500]])
    assert on(d, Leader, :force_new_cluster, [[i_know: true]]) == :ok
    assert agreed([d]) == d
    assert get(d, "last") == {:ok, 2, revision}
    assert {:ok, _} = put(d, "last", 3)
  end
end
