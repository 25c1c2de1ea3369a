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

    for fun <- [&Tiebeam.members/1, &Tiebeam.subscribe/1, &Tiebeam.unsubscribe/1, &Tiebeam.leave/1] do
      assert_raise ArgumentError, message, fn -> fun.(Nobody) end
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
    assert GenServer.call({:tiebeam, node()}, {:whereis, :of_a_later_release}) == {:error, :unknown_request}
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
