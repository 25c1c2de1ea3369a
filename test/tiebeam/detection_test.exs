# Who is alive: real nodes of all kinds in one mesh, where a verdict closes connections.
defmodule Tiebeam.DetectionTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, Cluster, Target}

  @moduletag timeout: 180_000

  @rust if :rust in Target.kinds(), do: [:rust, :rust], else: [:beam]
  @kinds [:beam, :beam, :plain] ++ @rust

  # The promise of the profile `:fast`, in milliseconds. It is kept to on a virtual clock (`tiebeam_core`, tests of membership): here the
  # machine has a say, so that the figure is printed, and what is asserted is that it was not OTP's net ticks, 45 s at the earliest.
  @promised 3_000
  @before_ticks 40_000

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

      known =
        for member <- Cluster.members(others) do
          told = fn -> Enum.find(Cluster.told(member, victim, since), &match?({_, :down}, &1)) end
          assert {within, :down} = eventually(told)
          assert within < @before_ticks, "#{member.node} knew after #{within} ms"
          within
        end

      IO.puts(
        "A frozen node (#{unquote(kind)}): all knew after #{Enum.max(known)} ms; promised: #{@promised}"
      )

      # Its connections are closed, by whoever had one, and no other.
      Cluster.complete(others, @before_ticks)
      for node <- others, do: assert(Enum.uniq(Cluster.lost(node, nodes)) -- [victim.node] == [])

      Cluster.thaw(victim)
      Cluster.complete(nodes)

      for member <- Cluster.members(others) do
        # A suspicion more is no news: on a busy machine there is one now and then.
        changes = for {_, change} <- Cluster.told(member, victim, since), do: change
        assert for(change <- changes, change in [:down, :up, :left], do: change) == [:down, :up]
        assert :suspect in changes
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
    Process.sleep(3 * @promised)
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
