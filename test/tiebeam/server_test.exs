defmodule Tiebeam.ServerTest do
  use ExUnit.Case

  import ExUnit.CaptureLog

  alias Tiebeam.{Member, Native}

  @cluster MyApp.Cluster
  @process :server_test
  # Never connected: what is sent to it is lost, and what it "sends" the test sends.
  @peer :"nobody@127.0.0.1"

  setup do
    start_supervised!({Tiebeam, name: @cluster, process: @process, timing: [sync_every: 1_000_000]})
    :ok = Tiebeam.subscribe(@cluster)
    %{peer: peer()}
  end

  # The core of another node, played by the test.
  defp peer(settings \\ %{}) do
    {:ok, core} =
      Native.new(
        Map.merge(
          %{
            node: @peer,
            creation: 1,
            incarnation: 1,
            cluster: "default",
            join: [],
            seed: 1,
            timing: %{greet_first: 1_000, greet_max: 1_000, sync_every: 1_000, forget_after: 1_000}
          },
          settings
        )
      )

    core
  end

  defp nodeup, do: send(@process, {:nodeup, @peer, []})
  defp nodedown, do: send(@process, {:nodedown, @peer, []})
  defp received(bytes), do: send(@process, {:"$tiebeam", @peer, bytes})

  defp hello(core) do
    {actions, _} = Native.step(core, 0, [{:connected, node()}])
    {:send, _node, bytes} = List.keyfind!(actions, :send, 0)
    bytes
  end

  # A call is answered behind everything that was sent before.
  defp settle, do: GenServer.call(@process, :members)

  test "a member comes, goes and comes back", %{peer: peer} do
    nodeup()
    received(hello(peer))
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: @peer, status: :alive} = member}}
    assert Tiebeam.member(@cluster, @peer) == member

    nodedown()
    assert_receive {:tiebeam, @cluster, {:member, :down, %Member{node: @peer, status: :dead}}}
    assert Tiebeam.member(@cluster, @peer).status == :dead

    nodeup()
    received(hello(peer(%{creation: 2})))
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: @peer, creation: 2}}}
  end

  test "what waits in the mailbox is taken in its order", %{peer: peer} do
    :sys.suspend(@process)
    nodeup()
    received(hello(peer))
    nodedown()
    nodeup()
    received(hello(peer(%{creation: 2})))
    :sys.resume(@process)
    settle()

    for {change, creation} <- [up: 1, down: 1, up: 2] do
      assert_received {:tiebeam, @cluster, {:member, first_change, %Member{creation: first_creation}}}
      assert {first_change, first_creation} == {change, creation}
    end
  end

  test "more than one batch is taken completely", %{peer: peer} do
    :sys.suspend(@process)
    nodeup()
    hello = hello(peer)
    for _ <- 1..1000, do: received(hello)
    nodedown()
    :sys.resume(@process)
    assert_receive {:tiebeam, @cluster, {:member, :up, _}}
    assert_receive {:tiebeam, @cluster, {:member, :down, _}}
  end

  test "another cluster is told to subscribers and to the log" do
    log =
      capture_log(fn ->
        nodeup()
        received(hello(peer(%{cluster: "blue"})))
        assert_receive {:tiebeam, @cluster, {:refused, @peer, "blue"}}
        settle()
      end)

    assert log =~ ~S[is connected but in another cluster ("blue")]
    assert Tiebeam.member(@cluster, @peer) == nil
  end

  test "bytes that mean nothing are logged and change nothing", %{peer: peer} do
    nodeup()
    received(hello(peer))
    before = settle()

    log =
      capture_log(fn ->
        received("garbage")
        assert settle() == before
      end)

    assert log =~ "ignored a message of #{@peer}: malformed: version 103"
  end

  test "messages that are none of its business are dropped" do
    pid = Process.whereis(@process)
    before = settle()

    for message <- [:hello, {:"$tiebeam", "a@h", ""}, {:"$tiebeam", @peer, :a}, {make_ref(), 1}] do
      send(pid, message)
    end

    GenServer.cast(pid, :stop)

    for request <- [:stop, {:subscribe, :me}, {:unsubscribe, 1}, {:leave, :now}] do
      assert GenServer.call(pid, request) == {:error, :unknown_request}
    end

    assert settle() == before
    assert Process.whereis(@process) == pid
  end

  test "a crash starts a fresh core, and subscribers can follow", %{peer: peer} do
    nodeup()
    received(hello(peer))
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: @peer}}}

    pid = Process.whereis(@process)
    reference = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^reference, _, _, :killed}

    assert_receive {:tiebeam, @cluster, {:member, :down, %Member{node: @peer, status: :dead}}}
    assert_receive {:tiebeam, @cluster, {:member, :up, %Member{node: me}}} when me == node()
    assert [%Member{status: :alive}] = Tiebeam.members(@cluster)
  end
end
