# Where partitions and workers are, on one node: options, orders, and what a node says of itself.
defmodule Tiebeam.PlacementTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.Placed
  alias Tiebeam.{Leader, Native, Placement, Pool, Ring}
  alias Tiebeam.Placement.{Participant, Policy, View}

  @cluster MyApp.Cluster
  @ring {@cluster, "placed"}
  @task {@cluster, {:ring, "placed"}}
  @vectors Path.expand("../../native/tiebeam_node/tests/vectors/placement.txt", __DIR__)
  @moduletag timeout: 120_000

  setup_all do
    start_supervised!({Tiebeam, name: @cluster, voters: [node()]})
    eventually(fn -> Leader.leader?(@cluster) end)
    :ok
  end

  setup context do
    Support.FailureLog.enter(context.module, context.test)
    :ok
  end

  defp options(options),
    do: Keyword.merge([cluster: @cluster, name: "placed", partitions: 4, settle: 50], options)

  defp start(options \\ []),
    do: start_supervised!({Ring, options([{:handler, {Placed, "placed"}} | options])})

  defp owned?(partitions),
    do: eventually(fn -> not Ring.rebalancing?(@ring) and Ring.owned(@ring) == partitions end)

  test "what a node says of itself is read as on Rust nodes" do
    lines =
      @vectors |> File.read!() |> String.split("\n", trim: true) |> Enum.reject(&String.starts_with?(&1, "#"))

    assert length(lines) > 30

    for [hex, meant] <- Enum.chunk_every(lines, 2) do
      said = hex |> Base.decode16!(case: :lower) |> :erlang.binary_to_term() |> Participant.of()
      labels = said.labels |> Enum.sort() |> Enum.map_join(",", fn {key, value} -> "#{key}:#{value}" end)
      %{weight: weight, draining: draining, cordoned: cordoned, pinned: pinned} = said

      assert meant ==
               "weight=#{weight} labels=#{labels} draining=#{draining} cordoned=#{cordoned} pinned=#{Enum.join(pinned, ",")}"

      # And it is said so that it is read.
      assert Participant.of(Participant.metadata(said)) == said
    end
  end

  test "the core is asked in the right words" do
    [a, b, c] = nodes = [:a@h, :b@h, :c@h]

    turns = fn policy, said ->
      participants = for node <- nodes, into: %{}, do: {node, Participant.of(said[node] || %{})}
      view = View.new({:ring, "r"}, 8, 8, Policy.of!(policy, []), %{0 => b}, participants)

      for node <- nodes do
        {release, acquire, again, {last, under_way, by_hand}} =
          Native.turn(view, node, 1_000, {nil, [], false}, false)

        assert {again, last, by_hand} == {nil, nil, false}
        assert under_way == release
        {length(release), length(acquire)}
      end
    end

    assert turns.([], %{a => %{weight: 300}, b => %{weight: 400}}) == [{0, 3}, {0, 3}, {0, 1}]
    assert turns.([on: [a, c]], %{}) == [{0, 4}, {1, 0}, {0, 3}]
    assert turns.([label: [zone: "x"]], %{b => %{labels: %{"zone" => "x"}}}) == [{0, 0}, {0, 7}, {0, 0}]

    assert turns.([label: [zone: "x", zone: "y"]], %{b => %{labels: %{"zone" => "y"}}}) == [
             {0, 0},
             {0, 7},
             {0, 0}
           ]

    # As if only the others were there.
    assert turns.([avoid: %{"zone" => "x"}], %{b => %{labels: %{"zone" => "x"}}}) == turns.([on: [a, c]], %{})

    assert turns.([], %{a => %{cordoned: true}, c => %{draining: true}}) == [{0, 0}, {0, 7}, {0, 0}]
    assert [_, {1, _}, _] = turns.([], %{c => %{pinned: [0]}})
    two = %{a => %{labels: %{"zone" => "x"}}, c => %{labels: %{"zone" => "x"}}}
    assert turns.([prefer: [zone: "x"]], two) == [{0, 3}, {0, 1}, {0, 3}]
  end

  test "one of two that start at the same time is told that there is another" do
    options = options(handler: {Placed, "placed"})

    for start <- [
          fn -> Ring.start_link(options) end,
          fn -> Pool.start_link(cluster: @cluster, name: "placed", child: {Agent, fn -> 1 end}) end
        ] do
      me = self()

      pids =
        for _ <- 1..4 do
          spawn(fn ->
            Process.flag(:trap_exit, true)
            send(me, {self(), start.()})
            # What it started is linked to it.
            receive do: (:stop -> exit(:shutdown))
          end)
        end

      answers = for pid <- pids, do: receive(do: ({^pid, answer} -> answer))
      assert [{:ok, started}] = Enum.filter(answers, &match?({:ok, _}, &1))
      assert Enum.count(answers, &(&1 == {:error, {:already_started, started}})) == 3
      monitor = Process.monitor(started)
      for pid <- pids, do: send(pid, :stop)
      assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
    end

    # The name is free again.
    start()
    owned?([0, 1, 2, 3])
  end

  test "a ring is only where its labels are, and moves when they change" do
    start(placement: [label: [zone: "a"]])
    eventually(fn -> Ring.members(@ring) == [node()] end)
    assert Placement.move(@task, 1, node()) == {:error, :not_eligible}
    assert Ring.owned(@ring) == []
    assert Placement.label(@task, node(), zone: "a") == :ok
    owned?([0, 1, 2, 3])
    assert Placement.participants(@task)[node()].labels == %{"zone" => "a"}
    assert Placement.label(@task, node(), %{"zone" => "b"}) == :ok
    eventually(fn -> Ring.owned(@ring) == [] end)
  end

  test "a cordoned node keeps what it has, and nothing is moved to it" do
    start()
    owned?([0, 1, 2, 3])
    assert Placement.cordon(@cluster, node()) == :ok
    assert Placement.move(@task, 1, node()) == {:error, :cordoned}
    assert Placement.participants(@task)[node()].cordoned
    assert Ring.owned(@ring) == [0, 1, 2, 3]
    assert Placement.uncordon(@cluster, node()) == :ok
    assert Placement.move(@task, 1, node()) == :ok
    assert Placement.move(@task, 4, node()) == {:error, :no_such_slot}
    assert Placement.participants(@task)[node()].pinned == [1]
    assert Placement.unpin(@task, 1) == :ok
    eventually(fn -> Placement.participants(@task)[node()].pinned == [] end)
    assert Placement.rebalance(@task) == :ok
    assert Ring.rebalance(@ring) == :ok
    assert Placement.drain(@cluster, node()) == :ok
    assert Ring.owned(@ring) == []
    assert Placement.move(@task, 1, node()) == {:error, :draining}
  end

  test "orders that cannot be carried out say why" do
    start_supervised!({Pool, cluster: @cluster, name: "placed", child: {Agent, fn -> 1 end}})
    pool = {@cluster, {:pool, "placed"}}
    eventually(fn -> Map.has_key?(Placement.participants(pool), node()) end)
    assert Placement.move(pool, 0, node()) == {:error, :no_such_slot}
    assert Placement.move(@task, 0, node()) == {:error, :not_started}
    assert Placement.weight(pool, node(), 1_001) == {:error, {:bad_request, {:weight, 1_001}}}

    assert Placement.weight(@cluster, node(), 0) ==
             {:error, [{{:pool, "placed"}, {:bad_request, {:weight, 0}}}]}

    assert Placement.weight(@cluster, node(), 5) == :ok
    assert_raise ArgumentError, ~r/labels/, fn -> Placement.label(pool, node(), [1]) end
    [{manager, _}] = Tiebeam.Placement.Manager.all(@cluster, :pool, "placed")

    assert GenServer.call(manager, {:of_a_later_release, 1}) ==
             {:error, {:bad_request, {:of_a_later_release, 1}}}
  end

  test "options that cannot be are refused" do
    for {options, pattern} <- [
          {[weight: 0], ~r/:weight/},
          {[labels: [zone: 5]], ~r/:labels/},
          {[labels: for(i <- 1..17, do: {"#{i}", "v"})], ~r/at most 16/},
          {[placement: [on: []]], ~r/:placement/},
          {[placement: [near: :a@h]], ~r/:placement/},
          {[placement: [label: "a"]], ~r/:label/},
          {[placement: :a], ~r/:placement/},
          {[rebalance: [threshold: -1]], ~r/:rebalance/},
          {[rebalance: [max_concurrent: 0]], ~r/:rebalance/},
          {[rebalance: [cooldown: :never]], ~r/:rebalance/},
          {[followers: -1], ~r/:followers/}
        ] do
      assert_raise ArgumentError, pattern, fn -> Ring.start_link(options([{:handler, Placed} | options])) end
    end

    pool = [cluster: @cluster, name: "placed", child: {Agent, fn -> 1 end}]

    assert_raise ArgumentError, ~r/:replicas/, fn ->
      Pool.start_link([{:placement, [on: [node()]]} | pool])
    end

    twice = [replicas: 1, away_from: "a", placement: [away_from: "b"]]
    assert_raise ArgumentError, ~r/twice/, fn -> Pool.start_link(twice ++ pool) end
  end
end
