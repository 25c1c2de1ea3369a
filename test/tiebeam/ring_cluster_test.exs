# A ring and a pool on three real nodes.
defmodule Tiebeam.RingClusterTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Beam, BeamMember, Net, OsProcess, RingDiary}
  alias Tiebeam.{Leader, Pool, Ring}

  @cluster BeamMember.cluster()
  @ring {@cluster, "r"}
  @pool {@cluster, "p"}
  @moduletag timeout: 180_000

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    names = for _ <- 1..3, do: Net.name("b")
    options = [join: names, voters: names, profile: :fast, session_ttl: 1_000]

    nodes =
      for name <- names do
        peer = BeamMember.start(name, options)
        Map.put(peer, :os_pid, Beam.os_pid(peer))
      end

    eventually(fn -> nodes |> Enum.map(&leader/1) |> Enum.uniq() |> agreed?() end)
    %{nodes: nodes}
  end

  defp leader(node), do: Beam.on(node, Leader, :leader, [@cluster])
  defp agreed?([{:ok, _, _}]), do: true
  defp agreed?(_), do: false

  defp ring(node, function, arguments \\ []), do: Beam.on(node, Ring, function, [@ring | arguments], 60_000)
  defp pool(node, function, arguments \\ []), do: Beam.on(node, Pool, function, [@pool | arguments], 60_000)

  # All of `nodes` say the same, and that nothing is left to do: who owns what.
  defp settled(nodes) do
    names = Enum.sort(for node <- nodes, do: node.node)

    eventually(fn ->
      with true <- Enum.all?(nodes, &(ring(&1, :members) == names and not ring(&1, :rebalancing?))),
           [owners] <- nodes |> Enum.map(&owners(&1, names)) |> Enum.uniq(),
           do: owners,
           else: (_ -> nil)
    end)
  end

  defp owners(node, names), do: for(name <- names, into: %{}, do: {name, ring(node, :partitions, [name])})
  defp counts(owners), do: owners |> Map.values() |> Enum.map(&length/1) |> Enum.sort()

  test "twelve partitions over three nodes are four each, six when one is gone, and the others keep their own",
       %{
         nodes: [one, two, three] = nodes
       } do
    file = diary()
    start_ring(nodes, file)

    first = settled(nodes)
    assert counts(first) == [4, 4, 4]
    assert first |> Map.values() |> List.flatten() |> Enum.sort() == Enum.to_list(0..11)

    # Each key has one owner, and a call from anywhere goes there.
    for key <- 1..20 do
      [owner] = nodes |> Enum.map(&ring(&1, :node_for, [key])) |> Enum.uniq()
      partition = ring(one, :partition_for, [key])
      assert partition in first[owner]
      assert ring(two, :call, [key, {:put, "v#{key}"}]) == {:ok, {:put, partition, owner}}
      assert ring(three, :call, [key, :get]) == {:ok, "v#{key}"}
      assert for(node <- nodes, ring(node, :owns?, [key]), do: node.node) == [owner]
    end

    # One leaves in good order.
    assert Beam.on(three, RingDiary, :stop_ring, [@cluster, "r"]) == :ok
    second = settled([one, two])
    assert counts(second) == [6, 6]
    for node <- [one, two], do: assert(first[node.node] -- second[node.node] == [])

    # It comes back, and gets no more than its share.
    :ok = Beam.on(three, :supervisor, :restart_child, [:kernel_safe_sup, {Ring, @cluster, "r"}]) |> elem(0)
    third = settled(nodes)
    assert counts(third) == [4, 4, 4]
    for node <- [one, two], do: assert(third[node.node] -- second[node.node] == [])

    # One is killed.
    OsProcess.send_signal(two.os_pid, :KILL)
    fourth = settled([one, three])
    assert counts(fourth) == [6, 6]
    for node <- [one, three], do: assert(third[node.node] -- fourth[node.node] == [])
    for key <- 1..20, do: assert({:ok, _} = ring(one, :call, [key, :get, 30_000]))

    # The one that was killed could not write it down.
    lines = never_two_owners(file, [two])
    assert Enum.any?(lines, &match?({_, :release, _, _, "rebalance", _}, &1))
    assert Enum.any?(lines, &match?({_, :release, _, _, "shutdown", _}, &1))
  end

  test "a node that is cut off loses its partitions before the others own them, and gets its share when it is back",
       %{
         nodes: [one | others] = nodes
       } do
    file = diary()
    start_ring(nodes, file)
    first = settled(nodes)

    # Known at once, unlike a cable that is pulled: neither side takes the other's connections, for each has a cookie of its own.
    both = for other <- others, pair <- [{one, other}, {other, one}], do: pair
    for {from, to} <- both, do: Beam.on(from, :erlang, :set_cookie, [to.node, from.node])
    for {from, to} <- both, do: Beam.on(from, :erlang, :disconnect_node, [to.node])

    assert counts(settled(others)) == [6, 6]
    eventually(fn -> ring(one, :owned) == [] end)
    # Each was written down unless it took too long, for then its process was killed.
    lost = for {_, :release, partition, _, "lost", _} <- RingDiary.read(file), do: partition
    assert lost -- first[one.node] == []

    for {from, to} <- both,
        do: Beam.on(from, :erlang, :set_cookie, [to.node, Beam.on(from, :erlang, :get_cookie, [])])

    assert counts(settled(nodes)) == [4, 4, 4]
    never_two_owners(file, [one])
  end

  defp diary do
    file = Path.join(System.tmp_dir!(), "tiebeam_ring_#{System.pid()}_#{System.unique_integer([:positive])}")
    File.write!(file, "")
    on_exit(fn -> File.rm(file) end)
    file
  end

  defp start_ring(nodes, file) do
    options = [cluster: @cluster, name: "r", partitions: 12, handler: {RingDiary, file}, settle: 100]
    for node <- nodes, do: :ok = Beam.on(node, RingDiary, :start_ring, [options])
  end

  # Each partition was released before it was owned under the next token.
  defp never_two_owners(file, killed) do
    lines = RingDiary.read(file)

    for partition <- 0..11 do
      owned = for {time, :own, ^partition, token, _, node} <- lines, do: {token, time, node}
      released = for {time, :release, ^partition, token, _, _} <- lines, into: %{}, do: {token, time}

      for [{token, _, node}, {_next, time, _}] <- owned |> Enum.sort() |> Enum.chunk_every(2, 1, :discard) do
        assert is_map_key(released, token) or node in Enum.map(killed, &"#{&1.node}")
        assert Map.get(released, token, 0) < time
      end
    end

    lines
  end

  test "a pool of two replicas goes on when a node of these is killed; one that spreads is on each", %{
    nodes: [one | _] = nodes
  } do
    for node <- nodes do
      start_pool(node, name: "p", replicas: 2, settle: 100)
      start_pool(node, name: "all", mode: :spread)
    end

    {:ok, workers} = two_workers(nodes, [])
    hosts = Enum.map(workers, &node/1)
    assert hosts == Enum.uniq(hosts)

    # The same key is the same worker's, from everywhere.
    for key <- 1..5 do
      assert [{:ok, host}] = nodes |> Enum.map(&pool(&1, :call, [:node, [route: {:key, key}]])) |> Enum.uniq()
      assert host in hosts
    end

    assert Enum.sort(for {_, {:ok, host}} <- pool(one, :call, [:node, [route: :all]]), do: host) ==
             Enum.sort(hosts)

    everywhere = fn nodes ->
      names = Enum.sort(for node <- nodes, do: node.node)

      eventually(fn ->
        Enum.all?(nodes, fn node ->
          all = Beam.on(node, Pool, :call, [{@cluster, "all"}, :node, [route: :all]])
          Enum.sort(for {_, {:ok, host}} <- all, do: host) == names
        end)
      end)
    end

    everywhere.(nodes)
    {:ok, leader, _term} = leader(one)
    assert Beam.on(one, Pool, :call, [{@cluster, "all"}, :node, [route: :leader]]) == {:ok, leader}

    for node <- nodes,
        do:
          assert(
            Beam.on(node, Pool, :call, [{@cluster, "all"}, :node, [route: :local_first]]) == {:ok, node.node}
          )

    victim = Enum.find(nodes, &(&1.node == hd(hosts)))
    OsProcess.send_signal(victim.os_pid, :KILL)
    rest = List.delete(nodes, victim)
    {:ok, _} = two_workers(rest, [victim.node])
    everywhere.(rest)

    # In good order the other one is told first that nobody finds it any more.
    assert pool(hd(rest), :drain) == :ok
    eventually(fn -> for(w <- pool(hd(rest), :workers), do: node(w)) == [List.last(rest).node] end)
    last = List.last(rest)
    assert pool(hd(rest), :call, [:node, [timeout: 30_000]]) == {:ok, last.node}
  end

  defp start_pool(node, options) do
    options = [cluster: @cluster, child: {Support.WhichNode, []}] ++ options
    {:ok, _} = Beam.on(node, :supervisor, :start_child, [:kernel_safe_sup, Pool.child_spec(options)])
  end

  # All see the same two workers, none of them on `gone`.
  defp two_workers(nodes, gone) do
    eventually(fn ->
      with [[_, _] = workers] <- nodes |> Enum.map(&Enum.sort(pool(&1, :workers))) |> Enum.uniq(),
           false <- Enum.any?(workers, &(node(&1) in gone)),
           do: {:ok, workers},
           else: (_ -> nil)
    end)
  end
end
