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
    timing: %{greet_first: 1_000, greet_max: 30_000, sync_every: 10_000, forget_after: 60_000}
  }

  defp new(settings \\ %{}) do
    {:ok, cluster} = Native.new(Map.merge(@settings, settings))
    {[notify: {:up, %Member{}}], _deadline} = Native.step(cluster, 0, [:woke])
    cluster
  end

  test "a batch of events gives actions in order and the next deadline" do
    cluster = new()

    assert {[{:send, :b@h, <<1, 1, _::binary>>}, {:send, :c@h, <<1, 1, _::binary>>}], deadline} =
             Native.step(cluster, 10, [{:connected, :b@h}, {:connected, :c@h}])

    assert deadline in 510..1010
    assert {[], ^deadline} = Native.step(cluster, 11, [])
  end

  test "two cores find each other" do
    a = new()
    b = new(%{node: :b@h, incarnation: 6})
    {[{:send, :b@h, hello}], _} = Native.step(a, 1, [{:connected, :b@h}])

    {[{:send, :a@h, _}, {:notify, {:up, up}}, {:send, :a@h, welcome}], _} =
      Native.step(b, 1, [{:connected, :a@h}, {:received, :a@h, hello}])

    assert up == %Member{node: :a@h, kind: :beam, status: :alive, creation: 1, incarnation: 5}
    {[{:notify, {:up, %Member{node: :b@h}}}], _} = Native.step(a, 2, [{:received, :b@h, welcome}])
    assert Native.view(a) == Native.view(b)

    assert {[{:notify, {:down, %Member{node: :b@h, status: :dead}}}], _} =
             Native.step(a, 3, [{:disconnected, :b@h}])
  end

  test "another cluster is refused with its name" do
    a = new()
    blue = new(%{node: :b@h, cluster: "blue"})
    {[{:send, :a@h, hello}], _} = Native.step(blue, 1, [{:connected, :a@h}])
    {actions, _} = Native.step(a, 1, [{:connected, :b@h}, {:received, :b@h, hello}])
    assert [{:send, :b@h, _}, {:send, :b@h, refusal}, {:notify, {:refused, :b@h, "blue"}}] = actions

    assert {[{:notify, {:refused, :a@h, "default"}}], _} = Native.step(blue, 2, [{:received, :a@h, refusal}])
  end

  test "bad bytes are a notice" do
    assert {[_hello, {:notify, {:ignored, :b@h, "malformed: ends too early (at byte 0)"}}], _} =
             Native.step(new(), 1, [{:connected, :b@h}, {:received, :b@h, ""}])
  end

  test "leaving answers the call and needs no deadline any more" do
    assert {[{:notify, {:left, %Member{status: :left}}}, {:answer, 42, :left}], nil} =
             Native.step(new(), 1, [{:asked, 42, :leave}])
  end

  test "a node whose name the core cannot take is passed over" do
    assert {[{:send, :b@h, _}], _} = Native.step(new(), 1, [{:connected, :odd}, {:connected, :b@h}])
  end

  test "settings that cannot be used are an error in words" do
    assert Native.new(%{@settings | cluster: ""}) == {:error, "cluster must have 1 to 255 bytes, it has 0"}
    assert {:error, "node name \"a\" is not" <> _} = Native.new(%{@settings | node: :a})
  end

  test "misuse raises and leaves the cluster usable" do
    cluster = new()

    for event <- [
          :slept,
          {:connected, "b@h"},
          {:received, :b@h, :bytes},
          {:asked, -1, :leave},
          {:asked, 1, :stay},
          5
        ] do
      assert_raise ArgumentError, fn -> Native.step(cluster, 1, [event]) end
    end

    assert_raise ArgumentError, fn -> Native.step(make_ref(), 1, []) end
    assert_raise ArgumentError, fn -> Native.new(%{}) end
    assert [%Member{node: :a@h}] = Native.view(cluster)
  end
end
