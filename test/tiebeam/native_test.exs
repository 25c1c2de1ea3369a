defmodule Tiebeam.NativeTest do
  # The core behind the NIFs, on the test's own clock: event in, actions out.
  use ExUnit.Case, async: true

  alias Tiebeam.{Member, Native}

  @settings %{
    node: :a@h,
    creation: 1,
    incarnation: 5,
    cluster: "default",
    join: [],
    seed: 7,
    metadata: "",
    evict: false,
    entries_per_scope: 1024,
    timing: Native.timing(:lan),
    leadership: nil
  }

  defp new(settings \\ %{}) do
    {:ok, cluster} = Native.new(Map.merge(@settings, settings))
    {[notify: {:up, %Member{}}], _deadline} = Native.step(cluster, 0, [:woke])
    cluster
  end

  # What is sent to `node`, in order.
  defp sent(actions, node), do: for({:send, ^node, bytes} <- actions, do: bytes)
  defp notices(actions), do: for({:notify, notice} <- actions, do: notice)

  # Connects :a@h and :b@h and carries messages until both are silent; answers the notices of both.
  defp connect(a, b, now) do
    {for_b, _} = Native.step(a, now, [{:connected, :b@h, true}])
    {for_a, _} = Native.step(b, now, [{:connected, :a@h, true}])
    carry({a, for_b}, {b, for_a}, now, {notices(for_b), notices(for_a)})
  end

  defp carry({a, from_a}, {b, from_b}, now, {told_a, told_b} = told) do
    case {sent(from_a, :b@h), sent(from_b, :a@h)} do
      {[], []} ->
        told

      {for_b, for_a} ->
        {from_a, _} = Native.step(a, now, Enum.map(for_a, &{:received, :b@h, &1}))
        {from_b, _} = Native.step(b, now, Enum.map(for_b, &{:received, :a@h, &1}))
        carry({a, from_a}, {b, from_b}, now, {told_a ++ notices(from_a), told_b ++ notices(from_b)})
    end
  end

  test "a batch of events gives actions in order and the next deadline, in microseconds" do
    cluster = new()

    assert {[{:send, :b@h, <<1, 1, _::binary>>}, {:send, :c@h, <<1, 1, _::binary>>}], deadline} =
             Native.step(cluster, 10_000, [{:connected, :b@h, true}, {:connected, :c@h, false}])

    assert deadline in 10_000..1_010_000
    assert {[], ^deadline} = Native.step(cluster, 10_001, [])
  end

  test "two cores find each other, and tell what they are" do
    a = new(%{metadata: "zone=1"})
    b = new(%{node: :b@h, incarnation: 6})
    {told_a, told_b} = connect(a, b, 1_000)

    assert [{:up, %Member{node: :b@h, kind: :beam, status: :alive, creation: 1, incarnation: 6}}] = told_a
    assert [{:up, %Member{node: :a@h, incarnation: 5, metadata: "zone=1", round_trip: nil}}] = told_b
    assert Native.view(a) == Native.view(b)
  end

  test "another cluster is refused with its name" do
    {told_a, told_b} = connect(new(), new(%{node: :b@h, cluster: "blue"}), 1)
    assert told_a == [{:refused, :b@h, "blue"}]
    assert told_b == [{:refused, :a@h, "default"}]
  end

  test "who goes without a word is a suspect, then down" do
    [a, b] = [new(), new(%{node: :b@h})]
    connect(a, b, 1_000)
    {actions, deadline} = Native.step(a, 2_000, [{:disconnected, :b@h}])
    told = notices(actions) ++ wake(a, deadline, 60_000_000)
    assert [{:suspect, %Member{node: :b@h}}, {:down, %Member{node: :b@h, status: :dead}} | _] = told
  end

  # Wakes at every deadline until `until`; answers the notices.
  defp wake(cluster, deadline, until, told \\ []) do
    if deadline > until do
      told
    else
      {actions, next} = Native.step(cluster, deadline, [:woke])
      wake(cluster, next, until, told ++ notices(actions))
    end
  end

  test "a node without the package is observed, and a member once its kernel answers" do
    cluster = new()
    {_hello, deadline} = Native.step(cluster, 1_000, [{:connected, :p@h, true}])
    {now, probe} = until_observed(cluster, deadline)

    assert {actions, _} = Native.step(cluster, now, [{:observed, :p@h, probe}])
    assert [{:up, %Member{node: :p@h, kind: :plain, status: :alive}}] = notices(actions)
  end

  defp until_observed(cluster, deadline) do
    {actions, next} = Native.step(cluster, deadline, [:woke])

    case List.keyfind(actions, :observe, 0) do
      {:observe, :p@h, probe} -> {deadline, probe}
      nil -> until_observed(cluster, next)
    end
  end

  test "a hidden node is not observed" do
    cluster = new()
    {_hello, deadline} = Native.step(cluster, 1_000, [{:connected, :p@h, false}])

    for _ <- 1..20, reduce: deadline do
      deadline ->
        {actions, next} = Native.step(cluster, deadline, [:woke])
        refute List.keyfind(actions, :observe, 0)
        next
    end
  end

  test "a dead member that is still connected is sampled and, in the end, evicted" do
    timing = Native.timing(:fast)
    [a, b, c] = for node <- [:a@h, :b@h, :c@h], do: new(%{node: node, evict: true, timing: timing})
    connect(a, b, 1_000)
    # The third is alive for the whole time, so that the first has a majority.
    {from_a, _} = Native.step(a, 1_500, [{:connected, :c@h, true}])
    {from_c, _} = Native.step(c, 1_500, [{:connected, :a@h, true}])
    trial(a, c, from_a, from_c, 1_500, [])
  end

  # Plays the third node, which answers, and the driver of the first, whose connection to the second carries nothing.
  defp trial(a, c, from_a, from_c, now, seen) do
    seen = Enum.uniq(seen ++ for(action <- from_a, elem(action, 0) in [:sample, :evict], do: action))

    cond do
      {:evict, :b@h} in seen ->
        assert seen == [{:sample, :b@h}, {:evict, :b@h}]

      now > 20_000_000 ->
        flunk("not evicted: #{inspect(seen)}")

      true ->
        sampled = for {:sample, node} <- from_a, do: {:sampled, node, 7}
        for_a = sampled ++ for(bytes <- sent(from_c, :a@h), do: {:received, :c@h, bytes})
        for_c = for bytes <- sent(from_a, :c@h), do: {:received, :a@h, bytes}
        now = now + 5_000
        {from_a, _} = Native.step(a, now, [:woke | for_a])
        {from_c, _} = Native.step(c, now, [:woke | for_c])
        trial(a, c, from_a, from_c, now, seen)
    end
  end

  test "commands are answered, each call once" do
    assert {actions, _} =
             Native.step(new(), 1, [
               {:asked, 7, {:set_metadata, "x"}},
               {:asked, 8, {:set_metadata, String.duplicate("x", 513)}},
               {:asked, 9, {:broadcast, "news"}}
             ])

    assert [{:answer, 7, :done}, {:answer, 8, {:too_long, 513, 512}}, {:answer, 9, :done}] =
             Enum.filter(actions, &(elem(&1, 0) == :answer))

    assert [{:updated, %Member{node: :a@h, metadata: "x"}}] = notices(actions)
  end

  test "a broadcast is a notice at the others" do
    [a, b] = [new(), new(%{node: :b@h})]
    connect(a, b, 1_000)
    {actions, deadline} = Native.step(a, 2_000, [{:asked, 1, {:broadcast, <<0, 255>>}}])
    {later, _} = Native.step(a, deadline, [:woke])
    events = for bytes <- sent(actions ++ later, :b@h), do: {:received, :a@h, bytes}
    {actions, _} = Native.step(b, deadline, events)
    assert {:broadcast, :a@h, <<0, 255>>} in notices(actions)
  end

  test "a late timer is a stall, in milliseconds, and costs health" do
    cluster = new()
    {_, deadline} = Native.step(cluster, 1_000, [])
    {actions, _} = Native.step(cluster, deadline + 3_000_999, [:woke])
    assert [{:stalled, 3_000}, {:health, multiplier}] = notices(actions)
    assert Native.health(cluster) == %{multiplier: multiplier, stalls: 1, minority: false, group: :none}
    assert multiplier > 1
  end

  test "metrics are counts" do
    [a, b] = [new(), new(%{node: :b@h})]
    connect(a, b, 1_000)
    metrics = Native.metrics(a)
    assert map_size(metrics) == 17 and Enum.all?(Map.values(metrics), &is_integer/1)
    assert metrics.sent > 0 and metrics.received > 0 and metrics.received_bytes > 0
  end

  test "bad bytes are a notice" do
    assert {[_hello, {:notify, {:ignored, :b@h, "malformed: ends too early (at byte 0)"}}], _} =
             Native.step(new(), 1, [{:connected, :b@h, true}, {:received, :b@h, ""}])
  end

  test "leaving answers the call and needs no deadline any more" do
    assert {[{:notify, {:left, %Member{status: :left}}}, {:answer, 42, :left}, {:answer, 43, :left}], nil} =
             Native.step(new(), 1, [{:asked, 42, :leave}, {:asked, 43, {:set_metadata, ""}}])
  end

  test "a node whose name the core cannot take is passed over" do
    assert {[{:send, :b@h, _}], _} =
             Native.step(new(), 1, [{:connected, :odd, true}, {:sampled, :odd, 5}, {:connected, :b@h, true}])
  end

  test "settings that cannot be used are an error in words" do
    assert Native.new(%{@settings | cluster: ""}) == {:error, "cluster must have 1 to 255 bytes, it has 0"}
    assert {:error, "node name \"a\" is not" <> _} = Native.new(%{@settings | node: :a})
  end

  test "misuse raises and leaves the cluster usable" do
    cluster = new()

    for event <- [
          :slept,
          {:connected, "b@h", true},
          {:connected, :b@h},
          {:connected, :b@h, 1},
          {:received, :b@h, :bytes},
          {:observed, :b@h, -1},
          {:sampled, :b@h, :none},
          {:asked, -1, :leave},
          {:asked, 1, :stay},
          {:asked, 1, {:broadcast, :a}},
          {:asked, 1, {:tell, ""}},
          5
        ] do
      assert_raise ArgumentError, fn -> Native.step(cluster, 1, [event]) end
    end

    assert_raise ArgumentError, fn -> Native.step(make_ref(), 1, []) end
    assert_raise ArgumentError, fn -> Native.new(%{}) end
    assert_raise ArgumentError, fn -> Native.timing(:slow) end
    assert [%Member{node: :a@h}] = Native.view(cluster)
  end
end
