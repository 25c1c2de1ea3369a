# Who is alive: real nodes of all kinds in one mesh, where a verdict closes connections.
defmodule Tiebeam.DetectionTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, Cluster, Target}

  @moduletag timeout: 180_000

  @rust if :rust in Target.kinds(), do: [:rust, :rust], else: [:beam]
  @kinds [:beam, :beam, :plain] ++ @rust

  # The promise of the profile `:fast`.
  @known_within 3_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  for kind <- Enum.uniq(@kinds) do
    test "a frozen node is known in time, nobody else is lost, and it returns: #{kind}" do
      nodes = Cluster.start(@kinds)
      # Not the one that the others joined.
      victim = nodes |> tl() |> Enum.find(&(&1.kind == unquote(kind)))
      others = List.delete(nodes, victim)
      for node <- nodes, do: Cluster.lost(node, nodes)

      since = Cluster.now()
      Cluster.freeze(victim)

      for member <- Cluster.members(others) do
        known = eventually(fn -> Enum.find(Cluster.told(member, victim, since), &match?({_, :down}, &1)) end)
        assert {within, :down} = known
        assert within < @known_within, "#{member.node} knew after #{within} ms"
      end

      # Its connections are closed, by whoever had one, and no other.
      Cluster.complete(others)
      for node <- others, do: assert(Enum.uniq(Cluster.lost(node, nodes)) -- [victim.node] == [])

      Cluster.thaw(victim)
      Cluster.complete(nodes)

      for member <- Cluster.members(others) do
        assert [:suspect, :down, :up] = for({_, change} <- Cluster.told(member, victim, since), do: change)
        for other <- others, do: refute({member.node, other.node} in downs(member, other, since))
      end
    end
  end

  defp downs(member, other, since) do
    for {_, :down} <- Cluster.told(member, other, since), do: {member.node, other.node}
  end

  test "a node whose schedulers are all busy with other work is alive" do
    nodes = Cluster.start(@kinds)
    busy = Enum.at(nodes, 1)
    since = Cluster.now()
    schedulers = Beam.on(busy, :erlang, :system_info, [:schedulers_online])
    spinning = for _ <- 1..(4 * schedulers), do: Beam.on(busy, :erlang, :spawn, [Cluster, :spin, []])
    # Several times what a frozen node takes to be declared dead.
    Process.sleep(3 * @known_within)
    for pid <- spinning, do: Beam.on(busy, :erlang, :exit, [pid, :kill])

    for member <- Cluster.members(nodes), other <- nodes, do: assert(downs(member, other, since) == [])
    assert Cluster.complete?(nodes)
  end

  # Megabytes for each pair of nodes.
  @transfer String.to_integer(System.get_env("TIEBEAM_TRANSFER_MB", "128"))

  test "a large transfer evicts nobody" do
    nodes = Cluster.start(@kinds)
    [sender | receivers] = Cluster.members(nodes)
    since = Cluster.now()

    for receiver <- receivers do
      # To the cluster's own process: nothing is nearer to the probes.
      Beam.on(sender, Cluster, :send_megabytes, [{:tiebeam, receiver.node}, @transfer], 600_000)
    end

    # What was sent has arrived when this is answered: it is behind it.
    for receiver <- receivers,
        do: assert([_ | _] = Beam.on(sender, GenServer, :call, [{:tiebeam, receiver.node}, :members, 60_000]))

    for member <- Cluster.members(nodes), other <- nodes, do: assert(downs(member, other, since) == [])
    for node <- nodes, do: assert(Cluster.lost(node, nodes) == [])
    Cluster.complete(nodes)
  end
end
