# A machine on three real nodes.
defmodule Tiebeam.StateMachineClusterTest do
  use ExUnit.Case

  import Support.Eventually

  alias Support.{Bank, Beam, BeamMember, Net, OsProcess}
  alias Tiebeam.{Leader, StateMachine}

  @cluster BeamMember.cluster()
  @accounts ~w(a b c d)
  @moduletag timeout: 180_000

  defp on(node, module, function, arguments), do: Beam.on(node, module, function, arguments, 60_000)
  defp query(node, query, options \\ []), do: on(node, Bank, :query, [query, options])
  defp info(node), do: on(node, StateMachine, :info, [Bank])

  defp start_machine(node),
    do: :ok = on(node, Bank, :start, [[cluster: @cluster, name: "bank", snapshot_every: 40]])

  # A client of one node: transfers one after the other, until it is told to stop or its node is gone. What it knows
  # of each: done, not done, or unknown.
  defp client(node, seed) do
    Task.async(fn ->
      :rand.seed(:exsss, seed)
      transfer(node, %{done: 0, unknown: 0})
    end)
  end

  defp transfer(node, known) do
    receive do
      :stop -> known
    after
      0 ->
        [from, to] = Enum.take_random(@accounts, 2)

        case attempt(node, {:transfer, from, to, :rand.uniform(9)}) do
          {:ok, :ok} -> transfer(node, %{known | done: known.done + 1})
          {:ok, :insufficient} -> transfer(node, known)
          {:error, :unknown} -> transfer(node, %{known | unknown: known.unknown + 1})
          {:error, _not_done} -> transfer(node, known)
          :gone -> %{known | unknown: known.unknown + 1}
        end
    end
  end

  defp attempt(node, command) do
    Beam.on(node, Bank, :command, [command], 60_000)
  catch
    _kind, _reason -> :gone
  end

  test "the leader is killed under way: no command is lost or done twice, all states are equal, and a new node gets a snapshot",
       context do
    Support.FailureLog.enter(context.module, context.test)
    names = for _ <- 1..3, do: Net.name("b")
    options = [join: names, voters: names, profile: :fast, session_ttl: 1_000]

    nodes =
      for name <- names do
        peer = BeamMember.start(name, options)
        Map.put(peer, :os_pid, Beam.os_pid(peer))
      end

    for node <- nodes, do: eventually(fn -> match?({:ok, _, _}, on(node, Leader, :leader, [@cluster])) end)
    for node <- nodes, do: start_machine(node)

    for account <- @accounts do
      eventually(fn ->
        on(hd(nodes), Bank, :command, [{:deposit, account, 100}])
        query(hd(nodes), {:balance, account}) != {:ok, 0}
      end)
    end

    {:ok, total} = query(hd(nodes), :total, consistency: :linear)
    clients = for {node, seed} <- Enum.with_index(nodes), do: client(node, seed)
    eventually(fn -> info(hd(nodes)).commands > 60 end)

    {:ok, leader, _term} = on(hd(nodes), Leader, :leader, [@cluster])
    {[killed], rest} = Enum.split_with(nodes, &(&1.node == leader))
    OsProcess.send_signal(killed.os_pid, :KILL)

    # The others go on, and keep further snapshots.
    before = info(hd(rest)).commands
    eventually(fn -> info(hd(rest)).commands > before + 100 end)
    for client <- clients, do: send(client.pid, :stop)
    known = Task.await_many(clients, 120_000)

    joined = BeamMember.start(Net.name("b"), Keyword.put(options, :join, for(node <- rest, do: node.node)))
    start_machine(joined)
    all = [joined | rest]
    for node <- all, do: eventually(fn -> query(node, :total, consistency: :linear) == {:ok, total} end)

    [{commands, _digest}] =
      eventually(fn ->
        states = all |> Enum.map(&info/1) |> Enum.map(&{&1.commands, &1.digest}) |> Enum.uniq()
        if length(states) == 1, do: states
      end)

    assert %{snapshot: snapshot} = info(joined)
    assert snapshot > 0 and snapshot <= commands

    # Each transfer that was answered was done, and none that is not known of, twice.
    {:ok, seen} = query(joined, :seen)
    done = Enum.sum(for client <- known, do: client.done)
    unknown = Enum.sum(for client <- known, do: client.unknown)
    assert seen in done..(done + unknown)
    {:ok, %{"accounts" => accounts}} = query(joined, :all)
    assert Enum.all?(accounts, fn {_account, balance} -> balance >= 0 end)
  end
end
