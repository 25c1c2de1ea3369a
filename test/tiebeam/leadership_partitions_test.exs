# Leadership of five real nodes, BEAM and Rust, in network namespaces whose links are cut: `bin/test partitions`. What each
# node says and is answered is recorded, and judged afterwards.
defmodule Tiebeam.LeadershipPartitionsTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{
    Beam,
    BeamMember,
    Cluster,
    GroupHistory,
    Holder,
    Listener,
    Namespaces,
    Net,
    OsProcess,
    RustMember
  }

  alias Tiebeam.{Leader, Lock}
  alias Tiebeam.Test.Pause

  @cluster BeamMember.cluster()
  @moduletag :partitions
  @moduletag timeout: 300_000

  @kinds [:beam, :beam, :beam, :rust, :rust]

  # Milliseconds. Long enough for elections and for the end of sessions.
  @cut 10_000
  @deadline 120_000
  @session_ttl 2_000

  # A node that stands still for so many microseconds may hear of its loss too late; then tokens are what protects.
  @stall 100_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    hosts = Namespaces.start(length(@kinds))
    for host <- hosts, do: start_epmd(host)

    names =
      for {kind, host} <- Enum.zip(@kinds, hosts),
          do: Net.name(if(kind == :rust, do: "r", else: "b"), host.host)

    nodes =
      for {kind, name, host} <- Enum.zip([@kinds, names, hosts]), do: start_node(kind, name, names, host)

    agreed(nodes)
    %{hosts: hosts, nodes: nodes}
  end

  # The one that nodes of a host find each other by.
  defp start_epmd(%{through: [command | arguments]}) do
    arguments = arguments ++ ["epmd", "-port", "#{Net.epmd_port()}"]
    start_supervised!({OsProcess, {command, arguments, label: "epmd"}})
  end

  # Each with the BEAM that records it, and how that asks it.
  defp start_node(:beam, name, voters, host) do
    options = [join: voters, voters: voters, profile: :fast, session_ttl: @session_ttl, through: host.through]
    peer = BeamMember.start(name, options)
    Map.merge(peer, %{kind: :beam, place: host, recorder: peer, target: {:beam, @cluster}})
  end

  defp start_node(:rust, name, voters, host) do
    args = ["--profile", "fast", "--voters", Enum.join(voters, ","), "--fixture"]
    member = RustMember.start(name, join: voters -- [name], through: host.through, args: args)
    %{listener: listener} = Cluster.place(host.host, host.through)
    Map.merge(member, %{place: host, recorder: listener, target: {:rust, name}})
  end

  defp leader(%{kind: :beam} = node), do: Beam.on(node, Leader, :leader, [@cluster])
  defp leader(%{kind: :rust} = node), do: Listener.ask(node.recorder, {:tiebeam, node.node}, :leader)

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
        @deadline
      )

    Enum.find(nodes, &(&1.node == leader))
  end

  # Hands over until a node of that kind leads.
  defp led_by(nodes, kind) do
    eventually(
      fn ->
        case agreed(nodes) do
          %{kind: ^kind} = leader ->
            leader

          _ ->
            to = Enum.find(nodes, &(&1.kind == kind))
            _ = Beam.on(hd(nodes), Leader, :step_down, [@cluster, to.node])
            nil
        end
      end,
      @deadline
    )
  end

  defp put(node, key, value),
    do: Beam.on(node.recorder, GroupHistory, :put, [node.target, key, value], 60_000)

  defp list(node), do: Beam.on(node.recorder, GroupHistory, :list, [node.target], 60_000)

  defp places(nodes), do: Enum.map(nodes, & &1.place)

  # What the switch drops while `some` are apart from `others`.
  defp cuts(:both_ways, some, others), do: cuts(:from, some, others) ++ cuts(:to, some, others)
  defp cuts(:from, some, others), do: [{:cut, places(some), places(others)}]
  defp cuts(:to, some, others), do: [{:cut, places(others), places(some)}]

  for {what, kind, size, way} <- [
        {"a BEAM node that leads is cut off", :beam, 1, :both_ways},
        {"a Rust node that leads is cut off", :rust, 1, :both_ways},
        {"two nodes, one of which leads, are apart from three", :beam, 2, :both_ways},
        {"nothing arrives that the leader sends", :beam, 1, :from},
        {"nothing arrives at the leader", :rust, 1, :to}
      ] do
    test "#{what}: one leader at every instant, and nothing that was acknowledged is lost", %{
      hosts: hosts,
      nodes: nodes
    } do
      first = led_by(nodes, unquote(kind))
      # Of both kinds, if there are two.
      some = [first | Enum.take(Enum.filter(nodes, &(&1.kind != first.kind)), unquote(size) - 1)]
      others = nodes -- some
      recorders = for node <- nodes, do: {node, Beam.on(node.recorder, GroupHistory, :start, [node.target])}
      kept = if first.kind == :beam, do: keep_lock(first, Enum.find(others, &(&1.kind == :beam)))

      Process.sleep(1_000)
      Namespaces.drop(hosts, cuts(unquote(way), some, others))
      cut_at = Beam.on(first.recorder, GroupHistory, :now, [])
      Process.sleep(@cut)
      assert Namespaces.dropped(hosts) > 0
      next = agreed(others)
      assert next in others
      healed_at = Beam.on(first.recorder, GroupHistory, :now, [])
      Namespaces.drop(hosts, [])

      # There is a leader again, and all are served.
      agreed(nodes)
      for node <- nodes, do: eventually(fn -> match?({:ok, _}, put(node, "healed", 1)) end, @deadline)
      Process.sleep(1_000)

      histories =
        for {node, pids} <- recorders,
            do: {node.node, Beam.on(node.recorder, GroupHistory, :stop, [pids], 60_000)}

      had = GroupHistory.judge(histories)
      IO.puts("\n#{unquote(what)}: #{inspect(had)}")
      if kept, do: lost_in_time(kept)

      # It was led on both sides of the cut, and written while it lasted, by the larger side only.
      for node <- [first, next], do: assert(List.keymember?(had.leaders, node.node, 0))
      assert had.reads > 0 and had.turns > 0

      for {node, history} <- histories do
        within =
          for {_, _, since, until, {:ok, _}} <- history.writes,
              since > cut_at and until < healed_at,
              do: until

        larger? = node in Enum.map(others, & &1.node)

        if larger?, do: assert(within != [], "#{node} wrote nothing")
        # A link that is cut in one direction need not part.
        if unquote(way == :both_ways) and not larger?,
          do: assert(within == [], "a side without a majority wrote")
      end

      # All that was acknowledged is there, wherever it is read.
      for node <- nodes do
        {:ok, rows} = eventually(fn -> with {:error, _} <- list(node), do: nil end, @deadline)
        registers = Map.new(rows, fn {key, value, _revision} -> {key, value} end)

        for {_, history} <- histories, {key, number, _, _, {:ok, _}} <- history.writes do
          assert Map.get(registers, key, 0) >= number,
                 "#{key}: #{number} was acknowledged, read: #{inspect(registers[key])}"
        end
      end
    end
  end

  # Whoever asks it may be the first to run when it goes on, before the cluster's own process.
  for kind <- [:beam, :rust] do
    test "a #{kind} node that leads stands still and is cut off: when it goes on it never says that it leads",
         %{
           hosts: hosts,
           nodes: nodes
         } do
      first = led_by(nodes, unquote(kind))
      others = nodes -- [first]
      recorders = for node <- nodes, do: {node, Beam.on(node.recorder, GroupHistory, :start, [node.target])}
      hasty = Beam.on(first.recorder, GroupHistory, :start_hasty, [first.target])
      Process.sleep(300)
      os_pid = os_pid(first)
      start_supervised!({Pause, os_pid})
      Namespaces.drop(hosts, cuts(:both_ways, [first], others))
      next = agreed(others)
      # It says so itself, and goes on to.
      Process.sleep(300)
      thawed_at = Beam.on(next.recorder, GroupHistory, :now, [])
      stop_supervised!({Pause, os_pid})
      Process.sleep(500)
      leads = Beam.on(first.recorder, GroupHistory, :stop_hasty, [hasty], 60_000)
      assert Namespaces.dropped(hosts) > 0
      Namespaces.drop(hosts, [])
      agreed(nodes)

      histories =
        for {node, pids} <- recorders do
          history = Beam.on(node.recorder, GroupHistory, :stop, [pids], 60_000)
          more = if node == first, do: leads, else: []
          {node.node, %{history | leads: history.leads ++ more}}
        end

      had = GroupHistory.judge(histories)
      IO.puts("\n#{unquote(kind)} stands still: #{inspect(had)}")

      # It led before, and another one did while it stood still.
      assert Enum.any?(leads, fn {:leads, since, _until, _token} -> since < thawed_at end)
      {_node, %{leads: said}} = List.keyfind(histories, next.node, 0)
      assert Enum.any?(said, &match?({:leads, _since, until, _token} when until < thawed_at, &1))
    end
  end

  defp os_pid(%{kind: :beam} = node), do: Beam.os_pid(node)
  defp os_pid(%{kind: :rust} = node), do: "#{OsProcess.os_pid(node.process)}"

  # A process of one node has a lock, and one of another waits for it.
  defp keep_lock(one, other) do
    {holder, {:ok, token}} =
      eventually(fn ->
        with {_pid, {:error, _}} <-
               Beam.on(one, Holder, :start, [Lock, :acquire, [@cluster, "kept", [timeout: 20_000]]], 60_000),
             do: nil
      end)

    waiting = Beam.on(other, Holder, :start_waiting, [Lock, :acquire, [@cluster, "kept", [timeout: 120_000]]])
    %{one: one, holder: holder, token: token, other: other, waiting: waiting}
  end

  # It was told of its loss before the other one had the lock.
  defp lost_in_time(%{one: one, other: other, holder: holder, token: token} = kept) do
    {granted_at, {:ok, next}} = Beam.on(other, Holder, :answered, [kept.waiting], 150_000)
    assert next > token
    [{lost_at, {:lost, :lock, "kept", ^token}}] = Beam.on(one, Holder, :told_at, [holder])
    assert lost_at < granted_at or Beam.on(one, Holder, :longest_pause, [holder]) > @stall
  end
end
