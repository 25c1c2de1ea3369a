# Five real nodes in network namespaces, whose links are cut: `bin/test partitions`. What every member was told is
# recorded, and judged afterwards.
defmodule Tiebeam.PartitionsTest do
  use ExUnit.Case

  alias Support.{Cluster, Namespaces, Net, OsProcess}

  @moduletag :partitions
  @moduletag timeout: 300_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    hosts = Namespaces.start(5)
    for host <- hosts, do: start_epmd(host)
    places = for host <- hosts, do: Cluster.place(host.host, host.through)
    nodes = Cluster.start([:beam, :beam, :plain, :rust, :rust], places: places)
    %{hosts: hosts, nodes: Enum.zip_with(nodes, hosts, &Map.put(&1, :place, &2))}
  end

  # The one that nodes of a host find each other by.
  defp start_epmd(%{through: [command | arguments]}) do
    arguments = arguments ++ ["epmd", "-port", "#{Net.epmd_port()}"]
    start_supervised!({OsProcess, {command, arguments, label: "epmd"}})
  end

  defp places(nodes), do: Enum.map(nodes, & &1.place)

  # What has to come true before OTP's net ticks could do it: 45 s at the earliest.
  @before_ticks 40_000

  # Long enough for any verdict that is wrongly under way: several times what a frozen node takes.
  @watched 12_000

  # Which of `nodes` the members among `judges` declared dead since then: `[{judge, judged}]`.
  defp verdicts(judges, nodes, since) do
    for judge <- Cluster.members(judges),
        node <- nodes,
        {_, :down} <- Cluster.told(judge, node, since),
        do: {judge.node, node.node}
  end

  # All list all, are connected to all, and stay so.
  defp heal(hosts, nodes) do
    assert Namespaces.dropped(hosts) > 0
    Namespaces.drop(hosts, [])
    Cluster.complete(nodes)
    since = Cluster.now()
    Process.sleep(3_000)
    assert verdicts(nodes, nodes, since) == []
    assert Cluster.complete?(nodes)
  end

  test "a link that is cut is nobody's death", %{hosts: hosts, nodes: [a, _, _, d, _] = nodes} do
    since = Cluster.now()
    Namespaces.drop(hosts, [{:cut, places([a]), places([d])}, {:cut, places([d]), places([a])}])
    Process.sleep(@watched)
    assert verdicts(nodes, nodes, since) == []
    for node <- nodes, do: assert(Cluster.lost(node, nodes) == [])
    heal(hosts, nodes)
  end

  test "a link that is cut in one direction is nobody's death", %{
    hosts: hosts,
    nodes: [a, _, _, d, _] = nodes
  } do
    since = Cluster.now()
    Namespaces.drop(hosts, [{:cut, places([a]), places([d])}])
    Process.sleep(@watched)
    assert verdicts(nodes, nodes, since) == []
    for node <- nodes, do: assert(Cluster.lost(node, nodes) == [])
    heal(hosts, nodes)
  end

  test "a tenth of all packets lost is nobody's death", %{hosts: hosts, nodes: nodes} do
    since = Cluster.now()
    Namespaces.drop(hosts, [{:lose, 10}])
    Process.sleep(2 * @watched)
    assert verdicts(nodes, nodes, since) == []
    for node <- nodes, do: assert(Cluster.lost(node, nodes) == [])
    heal(hosts, nodes)
  end

  # The two sides: the members of the smaller one are a BEAM node and a Rust node.
  test "a partition: the majority knows, the minority waits, and all agree afterwards", %{
    hosts: hosts,
    nodes: nodes
  } do
    [a, b, c, d, e] = nodes
    {minority, majority} = {[b, e], [a, c, d]}
    since = Cluster.now()

    Namespaces.drop(hosts, [
      {:cut, places(minority), places(majority)},
      {:cut, places(majority), places(minority)}
    ])

    Cluster.complete(majority, @before_ticks)
    Process.sleep(3_000)
    # Each side keeps its own, and the smaller one evicts nobody: it may be the one that is cut off.
    assert verdicts(majority, majority, since) == []
    assert verdicts(minority, nodes, since) == []
    assert length(verdicts(majority, minority, since)) == 4
    for node <- majority, do: assert(Cluster.lost(node, majority) == [])

    # Each of the smaller side comes to its own verdict, and does not act on it.
    for member <- minority, other <- Cluster.members(majority) do
      Support.Eventually.eventually(fn ->
        Enum.any?(Cluster.events(member, since), fn {_, event} ->
          match?({:contested, %{node: node}, :minority} when node == other.node, event)
        end)
      end)
    end

    heal(hosts, nodes)
    assert verdicts(majority, majority, since) == []
  end

  test "one node alone: the others know, it evicts nobody, and it returns", %{hosts: hosts, nodes: nodes} do
    [lonely | others] = [Enum.at(nodes, 1) | List.delete_at(nodes, 1)]
    since = Cluster.now()

    Namespaces.drop(hosts, [
      {:cut, places([lonely]), places(others)},
      {:cut, places(others), places([lonely])}
    ])

    Cluster.complete(others, @before_ticks)
    assert verdicts(others, others, since) == []
    assert verdicts([lonely], nodes, since) == []
    heal(hosts, nodes)
    assert verdicts(others, others, since) == []
  end
end
