defmodule TiebeamTest do
  use ExUnit.Case

  alias Tiebeam.Member

  @cluster MyApp.Cluster

  setup do
    %{supervisor: start_supervised!({Tiebeam, name: @cluster})}
  end

  doctest Tiebeam

  test "a node alone lists itself at once" do
    assert [%Member{kind: :beam, status: :alive} = me] = Tiebeam.members(@cluster)
    assert me.node == node()
    assert me.creation == :erlang.system_info(:creation)
    assert Tiebeam.member(@cluster, node()) == me
  end

  test "an unknown cluster is refused with words that help" do
    message =
      "there is no cluster Nobody on this node. Start it in a supervision tree: {Tiebeam, name: Nobody}"

    for fun <- ~w(members health metrics subscribe unsubscribe leave)a do
      assert_raise ArgumentError, message, fn -> apply(Tiebeam, fun, [Nobody]) end
    end

    for fun <- ~w(set_metadata broadcast)a do
      assert_raise ArgumentError, message, fn -> apply(Tiebeam, fun, [Nobody, ""]) end
    end

    assert_raise ArgumentError, message, fn -> Tiebeam.member(Nobody, node()) end
    assert_raise ArgumentError, ~s(a cluster is named by an atom, got: "x"), fn -> Tiebeam.members("x") end
  end

  test "a second cluster needs another registered name, and the error says so" do
    Process.flag(:trap_exit, true)

    assert {:error, {:shutdown, {:failed_to_start_child, Tiebeam.Server, %Tiebeam.Error{} = error}}} =
             Tiebeam.start_link(name: Another.Cluster)

    assert {:process_taken, :tiebeam, pid} = error.reason
    assert pid == Process.whereis(:tiebeam)
    assert Exception.message(error) =~ "process: :another"

    start_supervised!({Tiebeam, name: Another.Cluster, process: :another})
    assert [%Member{}] = Tiebeam.members(Another.Cluster)
  end

  test "the same name twice is an error of its supervisor", %{supervisor: supervisor} do
    assert Tiebeam.start_link(name: @cluster, process: :another) == {:error, {:already_started, supervisor}}
  end

  test "too much metadata is the caller's mistake" do
    assert_raise ArgumentError, "set_metadata: 513 bytes are too many, the limit is 512", fn ->
      Tiebeam.set_metadata(@cluster, String.duplicate("x", 513))
    end

    assert_raise ArgumentError, ~r/^broadcast: 5000 bytes are too many/, fn ->
      Tiebeam.broadcast(@cluster, String.duplicate("x", 5000))
    end

    assert Tiebeam.member(@cluster, node()).metadata == ""
  end

  test "more broadcasts than can be under way are refused with words" do
    answers = for n <- 1..2_000, do: Tiebeam.broadcast(@cluster, "#{n}")
    assert {:error, %Tiebeam.Error{reason: {:busy, limit}} = error} = Enum.find(answers, &(&1 != :ok))
    assert Enum.count(answers, &(&1 == :ok)) >= limit
    assert Exception.message(error) =~ "Try again in a second"
  end

  test "who has left says nothing any more" do
    :ok = Tiebeam.leave(@cluster)
    assert {:error, %Tiebeam.Error{reason: :left} = error} = Tiebeam.broadcast(@cluster, "x")
    assert {:error, %Tiebeam.Error{reason: :left}} = Tiebeam.set_metadata(@cluster, "x")
    assert Exception.message(error) =~ "has left"
  end

  test "leaving is told, final, and the same when repeated" do
    :ok = Tiebeam.subscribe(@cluster)
    assert Tiebeam.leave(@cluster) == :ok
    assert_received {:tiebeam, @cluster, {:member, :left, %Member{status: :left}}}
    assert [%Member{status: :left}] = Tiebeam.members(@cluster)
    assert Tiebeam.leave(@cluster) == :ok
    refute_received {:tiebeam, @cluster, _}
  end

  test "a subscriber is told once however often it subscribed, and not after it unsubscribed" do
    :ok = Tiebeam.subscribe(@cluster)
    :ok = Tiebeam.subscribe(@cluster)
    :ok = Tiebeam.leave(@cluster)
    assert_received {:tiebeam, @cluster, {:member, :left, _}}
    refute_received {:tiebeam, @cluster, _}

    stop_supervised!({Tiebeam, @cluster})
    start_supervised!({Tiebeam, name: @cluster})
    :ok = Tiebeam.subscribe(@cluster)
    :ok = Tiebeam.unsubscribe(@cluster)
    :ok = Tiebeam.leave(@cluster)
    refute_received {:tiebeam, @cluster, _}
  end

  test "a subscription ends with its process" do
    {pid, monitor} = spawn_monitor(fn -> Tiebeam.subscribe(@cluster) end)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}
    # The server hears of it at about the same time.
    assert Enum.any?(1..1000, fn _ -> :sys.get_state(:tiebeam).subscribers == %{} end)
    assert Tiebeam.Table.subscribers(@cluster) == []
  end

  test "a subscriber outlives the cluster" do
    :ok = Tiebeam.subscribe(@cluster)
    stop_supervised!({Tiebeam, @cluster})
    assert_received {:tiebeam, @cluster, {:member, :left, _}}
  end

  test "plain nodes ask the registered name" do
    assert GenServer.call(:tiebeam, :members) == Tiebeam.members(@cluster)
    assert GenServer.call(:tiebeam, :health) == Tiebeam.health(@cluster)
    assert Map.keys(GenServer.call(:tiebeam, :metrics)) == Map.keys(Tiebeam.metrics(@cluster))
    assert GenServer.call(:tiebeam, {:subscribe, self()}) == :ok
    assert GenServer.call(:tiebeam, {:unsubscribe, self()}) == :ok
    assert GenServer.call({:tiebeam, node()}, {:of_a_later_release, 1}) == {:error, :unknown_request}
    assert [%Member{status: :alive}] = Tiebeam.members(@cluster)
  end

  test "a restarted member is another incarnation" do
    [%{incarnation: first}] = Tiebeam.members(@cluster)
    stop_supervised!({Tiebeam, @cluster})
    # One that starts within the same millisecond would have the same one.
    wait_a_millisecond()
    start_supervised!({Tiebeam, name: @cluster})
    [%{incarnation: second}] = Tiebeam.members(@cluster)
    assert second > first
  end

  defp wait_a_millisecond do
    now = System.monotonic_time(:millisecond)
    Stream.repeatedly(fn -> System.monotonic_time(:millisecond) end) |> Enum.find(&(&1 > now))
  end
end
