# The registry of three real nodes in network namespaces, one of which is cut off: `bin/test partitions`.
defmodule Tiebeam.RegistryPartitionsTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Cluster, Names, Namespaces, Net, OsProcess}
  alias Tiebeam.Registry

  @cluster BeamMember.cluster()
  @moduletag :partitions
  @moduletag timeout: 300_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    hosts = Namespaces.start(3)
    for host <- hosts, do: start_epmd(host)
    places = for host <- hosts, do: Cluster.place(host.host, host.through)
    %{hosts: hosts, nodes: Cluster.start([:beam, :beam, :beam], places: places)}
  end

  # The one that nodes of a host find each other by.
  defp start_epmd(%{through: [command | arguments]}) do
    arguments = arguments ++ ["epmd", "-port", "#{Net.epmd_port()}"]
    start_supervised!({OsProcess, {command, arguments, label: "epmd"}})
  end

  defp register(peer, names), do: Beam.on(peer, Names, :register, [@cluster, names])
  defp view(peer, names), do: Beam.on(peer, Names, :view, [@cluster, names])
  defp count(peer), do: Beam.on(peer, Registry, :count, [@cluster])
  defp told(peer), do: Beam.on(peer, Names, :told, [])

  # The same for a cut that nobody had time to notice, and for one after which the larger side took the other for dead.
  for {what, noticed?} <- ["a short cut": false, "a cut that was noticed": true] do
    test "#{what}: one process per name, every loser told, and what one side had is everywhere", %{
      hosts: [host | others] = hosts,
      nodes: [a, b, c] = nodes
    } do
      Namespaces.drop(hosts, [{:cut, [host], others}, {:cut, others, [host]}])
      both = for n <- 1..1_000, do: {:both, n}
      ours = for n <- 1..200, do: {:ours, n}
      theirs = for n <- 1..200, do: {:theirs, n}
      on_a = register(a, both)
      on_b = register(b, both)
      one_side = register(a, ours) ++ register(c, theirs)
      for {_name, _pid, answer} <- on_a ++ on_b ++ one_side, do: assert(answer == :ok)
      if unquote(noticed?), do: Cluster.complete([b, c])
      assert Namespaces.dropped(hosts) > 0

      Namespaces.drop(hosts, [])
      Cluster.complete(nodes)

      views =
        eventually(
          fn ->
            [view | views] = for node <- nodes, do: view(node, both)
            if nil not in view and Enum.all?(views, &(&1 == view)), do: view
          end,
          120_000
        )

      rivals = Enum.zip([both, views, on_a, on_b])

      losses =
        for {name, winner, {name, one, :ok}, {name, other, :ok}} <- rivals do
          assert [loser] = [one, other] -- [winner]
          {loser, {:lost, :default, name, winner}}
        end

      eventually(fn -> length(told(a) ++ told(b)) >= 1_000 end, 120_000)
      assert Enum.sort(told(a) ++ told(b)) == Enum.sort(losses)
      assert told(c) == []

      for node <- nodes do
        pids = for {_name, pid, :ok} <- one_side, do: pid
        eventually(fn -> view(node, ours ++ theirs) == pids end, 120_000)
        eventually(fn -> count(node) == 1_400 end, 120_000)
      end

      # No name is left of a process that ends after it all.
      for {loser, _event} <- losses, do: Beam.on(a, :erlang, :exit, [loser, :kill])
      for winner <- views, do: Beam.on(a, :erlang, :exit, [winner, :kill])
      for node <- nodes, do: eventually(fn -> count(node) == 400 end, 120_000)
    end
  end
end
