# Orders to the nodes of a ring, on three real nodes.
defmodule Tiebeam.PlacementClusterTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Net, Placed}
  alias Tiebeam.{Leader, Placement, Ring}

  @cluster BeamMember.cluster()
  @moduletag timeout: 180_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    names = for _ <- 1..3, do: Net.name("b")
    options = [join: names, voters: names, profile: :fast]
    nodes = for name <- names, do: BeamMember.start(name, options)
    eventually(fn -> nodes |> Enum.map(&leader/1) |> Enum.uniq() |> agreed?() end)
    %{nodes: nodes, names: names}
  end

  defp leader(node), do: Beam.on(node, Leader, :leader, [@cluster])
  defp agreed?([{:ok, _, _}]), do: true
  defp agreed?(_), do: false

  defp ring(node, name, function, arguments \\ []),
    do: Beam.on(node, Ring, function, [{@cluster, name} | arguments], 60_000)

  defp order(node, name, function, arguments),
    do: Beam.on(node, Placement, function, [{@cluster, {:ring, name}} | arguments], 60_000)

  # All nodes say that nothing is left to do, and that each has so many partitions: which.
  defp shares(nodes, name, counts) do
    eventually(fn ->
      with true <- Enum.all?(nodes, &(not ring(&1, name, :rebalancing?))),
           [owned] <- nodes |> Enum.map(&owned(&1, nodes, name)) |> Enum.uniq(),
           true <- Enum.map(owned, &length/1) == counts,
           do: owned,
           else: (_ -> nil)
    end)
  end

  defp owned(at, nodes, name), do: for(node <- nodes, do: ring(at, name, :partitions, [node.node]))

  test "weights, moves, cordons, drains and followers, ordered from any node",
       %{nodes: [one, _two, three] = nodes, names: [_, second, third]} do
    options = [cluster: @cluster, name: "r", partitions: 12, settle: 100, followers: 1]
    for node <- nodes, do: :ok = Beam.on(node, Placed, :start_ring, [options])
    first = shares(nodes, "r", [4, 4, 4])

    # Each partition has one follower, which does not own it; all nodes agree on it, and it was told.
    followers = for partition <- 0..11, do: ring(one, "r", :followers, [partition])

    for node <- nodes,
        do: assert(for(partition <- 0..11, do: ring(node, "r", :followers, [partition])) == followers)

    for {node, owned} <- Enum.zip(nodes, first) do
      followed =
        for {[follower], partition} <- Enum.with_index(followers), follower == node.node, do: partition

      assert followed -- owned == followed
      eventually(fn -> Beam.on(node, Placed, :followed, ["r"]) == followed end)
    end

    # Twice the weight is twice the share, and the others only give.
    assert order(one, "r", :weight, [third, 200]) == :ok
    [_, _, more] = second_shares = shares(nodes, "r", [3, 3, 6])
    for {was, is} <- Enum.zip(Enum.take(first, 2), second_shares), do: assert(is -- was == [])
    assert List.last(first) -- more == []

    # What is moved by hand stays.
    moved = hd(more)
    assert order(one, "r", :move, [moved, second]) == :ok
    eventually(fn -> match?({^second, _}, ring(one, "r", :owner, [moved])) end)
    assert order(three, "r", :weight, [third, 100]) == :ok
    [_, with_moved, _] = shares(nodes, "r", [4, 4, 4])
    assert moved in with_moved

    # A cordoned node keeps what it has when another one drains.
    assert order(three, "r", :cordon, [second]) == :ok
    assert Beam.on(one, Placement, :drain, [@cluster, third], 60_000) == :ok
    [_, kept, _] = shares(nodes, "r", [8, 4, 0])
    assert kept == with_moved
    assert order(one, "r", :uncordon, [second]) == :ok
    shares(nodes, "r", [6, 6, 0])
    # Who drains follows nothing.
    eventually(fn -> Beam.on(three, Placed, :followed, ["r"]) == [] end)
  end

  test "labels say where a ring may be, and a threshold when it moves",
       %{nodes: [one, two, _three] = nodes, names: [_, second, third]} do
    label = [cluster: @cluster, name: "z", partitions: 8, settle: 100, placement: [label: [zone: "b"]]]

    for {node, zone} <- Enum.zip(nodes, ~w(a b c)),
        do: :ok = Beam.on(node, Placed, :start_ring, [[labels: [zone: zone]] ++ label])

    shares(nodes, "z", [0, 8, 0])
    assert order(one, "z", :label, [third, [zone: "b"]]) == :ok
    shares(nodes, "z", [0, 4, 4])
    assert order(one, "z", :label, [second, [zone: "a"]]) == :ok
    shares(nodes, "z", [0, 0, 8])

    # Until it is ordered nothing moves within the threshold.
    options = [
      cluster: @cluster,
      name: "t",
      partitions: 8,
      settle: 100,
      rebalance: [threshold: 8, max_concurrent: 3]
    ]

    :ok = Beam.on(one, Placed, :start_ring, [options])
    eventually(fn -> ring(one, "t", :owned) == Enum.to_list(0..7) end)
    :ok = Beam.on(two, Placed, :start_ring, [options])
    eventually(fn -> length(ring(one, "t", :members)) == 2 end)
    assert ring(one, "t", :owned) == Enum.to_list(0..7)
    refute ring(one, "t", :rebalancing?)
    eventually(fn -> length(ring(two, "t", :members)) == 2 end)
    assert order(two, "t", :rebalance, []) == :ok
    shares(Enum.take(nodes, 2), "t", [4, 4])
  end
end
