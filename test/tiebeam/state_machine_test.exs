defmodule Tiebeam.StateMachineTest do
  use ExUnit.Case

  import ExUnit.CaptureLog
  import Support.Eventually

  alias Support.Bank
  alias Tiebeam.{KV, StateMachine}
  alias Tiebeam.StateMachine.{Encoding, Log}

  @cluster __MODULE__.Cluster

  setup_all do
    start_supervised!({Tiebeam, name: @cluster, voters: [node()]})
    eventually(fn -> Tiebeam.Leader.leader?(@cluster) end)
    :ok
  end

  setup do
    %{name: "bank#{System.unique_integer([:positive])}"}
  end

  defp bank(name, options \\ []), do: start_supervised!({Bank, [cluster: @cluster, name: name] ++ options})

  defp keys(name) do
    {:ok, rows} = KV.list(@cluster, "tiebeam/machine/#{name}/")
    for {key, _value, _revision} <- rows, do: key
  end

  test "commands are done in order, and answered; queries see them", %{name: name} do
    bank(name)
    assert Bank.command({:deposit, "a", 5}) == {:ok, :ok}
    assert Bank.command({:transfer, "a", "b", 2}) == {:ok, :ok}
    assert Bank.command({:transfer, "a", "b", 9}, timeout: 10_000) == {:ok, :insufficient}
    assert Bank.query({:balance, "a"}) == {:ok, 3}
    assert Bank.query({:balance, "b"}, consistency: :linear) == {:ok, 2}
    assert {:error, {:failed, text}} = Bank.query(:what)
    assert text =~ "FunctionClauseError"
    assert %{commands: 3, snapshot: nil} = StateMachine.info(Bank)
  end

  test "commands of many callers share batches, and each has its own reply", %{name: name} do
    bank(name, snapshot_every: 100_000)
    bytes = for n <- 1..300, do: String.duplicate("b", n)
    replies = bytes |> Task.async_stream(&Bank.command({:size, &1}), max_concurrency: 300) |> Enum.to_list()
    assert replies == for(n <- 1..300, do: {:ok, {:ok, n}})
    assert length(keys(name)) < 300
    # As large as a batch may be, several at once.
    large = for _ <- 1..10, do: String.duplicate("l", 100_000)

    for reply <- Task.async_stream(large, &Bank.command({:size, &1})),
        do: assert(reply == {:ok, {:ok, 100_000}})

    assert {:error, {:too_long, :command, _, limit}} = Bank.command({:size, String.duplicate("l", 120_000)})
    assert {:ok, _} = Bank.command({:size, String.duplicate("l", limit - 30)})
  end

  test "a snapshot stands for the commands before it, and a machine begins with it", %{name: name} do
    bank(name, snapshot_every: 20)
    for _ <- 1..50, do: {:ok, :ok} = Bank.command({:deposit, "a", 1})
    eventually(fn -> match?(%{snapshot: 40}, StateMachine.info(Bank)) and length(keys(name)) == 11 end)
    before = StateMachine.info(Bank)

    stop_supervised!(Bank)
    bank(name, snapshot_every: 20)
    assert StateMachine.info(Bank) == before
    assert Bank.query({:balance, "a"}) == {:ok, 50}
    for _ <- 1..10, do: {:ok, :ok} = Bank.command({:deposit, "a", 1})
    eventually(fn -> match?(%{snapshot: 60}, StateMachine.info(Bank)) and length(keys(name)) == 1 end)
  end

  test "a snapshot of many parts is read again, and no parts are left of earlier ones", %{name: name} do
    bank(name, snapshot_every: 1)
    {:ok, :ok} = Bank.command({:fill, 700_000})
    {:ok, :ok} = Bank.command({:fill, 600_000})
    {:ok, :ok} = Bank.command({:deposit, "a", 1})
    parts = fn -> @cluster |> KV.list("tiebeam/snapshot/#{name}/") |> elem(1) |> length() end
    eventually(fn -> match?(%{snapshot: 3}, StateMachine.info(Bank)) and parts.() == 6 end)
    stop_supervised!(Bank)
    bank(name, snapshot_every: 1)
    assert {:ok, %{"filled" => filled}} = Bank.query(:all)
    assert byte_size(filled) == 600_000
  end

  @tag capture_log: true
  test "a command that fails ends the machine, again and again", %{name: name} do
    Process.flag(:trap_exit, true)
    options = [cluster: @cluster, name: name]
    {:ok, pid} = Bank.start_link(options)
    {:ok, :ok} = Bank.command({:deposit, "a", 1})
    assert {{%RuntimeError{message: "on purpose"}, _}, _} = catch_exit(Bank.command(:poison))
    assert_receive {:EXIT, ^pid, _}
    assert {:error, {%RuntimeError{}, _}} = Bank.start_link(options)
  end

  test "a machine whose state is another one than the snapshot's says so, and begins anew with that", %{
    name: name
  } do
    Process.flag(:trap_exit, true)
    {:ok, first} = Bank.start_link(cluster: @cluster, name: name, snapshot_every: 2)
    {:ok, second} = Bank.start_link(cluster: @cluster, name: name, snapshot_every: 2, process: :second_bank)

    log =
      capture_log(fn ->
        assert StateMachine.command(first, :odd) == {:ok, :ok}
        assert StateMachine.command(first, {:deposit, "a", 1}) == {:ok, :ok}
        assert_receive {:EXIT, ^second, {:diverged, 2}}, 30_000
      end)

    assert log =~ "has another state after 2 commands"
    {:ok, second} = Bank.start_link(cluster: @cluster, name: name, snapshot_every: 2, process: :second_bank)
    assert StateMachine.info(second) == StateMachine.info(first)
    for pid <- [first, second], do: GenServer.stop(pid)
  end

  test "who writes the snapshot may be gone: another one does", %{name: name} do
    {:ok, first} = Bank.start_link(cluster: @cluster, name: name, snapshot_every: 5)
    {:ok, second} = Bank.start_link(cluster: @cluster, name: name, snapshot_every: 5, process: :second_bank)
    # The first one seems to be busy with it for ever, and the second one does not wait for long.
    :sys.replace_state(first, &%{&1 | writer: self()})
    :sys.replace_state(second, &%{&1 | takeover: 50})
    for _ <- 1..5, do: {:ok, :ok} = StateMachine.command(first, {:deposit, "a", 1})
    eventually(fn -> match?(%{snapshot: 5}, StateMachine.info(second)) end)
    for pid <- [first, second], do: GenServer.stop(pid)
  end

  @tag capture_log: true
  test "when the cluster's server crashes the machine begins anew and goes on", %{name: name} do
    bank(name)
    {:ok, :ok} = Bank.command({:deposit, "a", 5})
    server = Process.whereis(Tiebeam.Table.process(@cluster))
    Process.exit(server, :kill)
    eventually(fn -> Process.whereis(Tiebeam.Table.process(@cluster)) not in [nil, server] end)
    # Nothing is on disk, and the group of one is founded anew.
    eventually(fn -> Bank.command({:deposit, "b", 7}) == {:ok, :ok} end)
    assert {:ok, b} = Bank.query({:balance, "b"}, consistency: :linear)
    assert b >= 7 and rem(b, 7) == 0
    assert Bank.query({:balance, "a"}) == {:ok, 0}
  end

  test "a state is written as a Rust node writes it" do
    lines = "native/tiebeam_node/tests/vectors/states.txt" |> File.read!() |> String.split("\n", trim: true)

    for line <- lines, not String.starts_with?(line, "#") do
      [text, hex] = String.split(line, " = ")
      {:ok, tokens, _} = :erl_scan.string(String.to_charlist(text <> "."))
      {:ok, expressions} = :erl_parse.parse_exprs(tokens)
      {:value, term, _} = :erl_eval.exprs(expressions, [])
      assert Base.encode16(Encoding.encode(term), case: :lower) == hex, text
    end

    # As term_to_binary/1, where that has one way only.
    for term <- [self(), make_ref(), {:a, [self()]}],
        do: assert(:erlang.binary_to_term(Encoding.encode(term)) == term)

    assert_raise ArgumentError, ~r/is data/, fn -> Encoding.encode([fn -> 1 end]) end
  end

  test "commands that were never told, for a snapshot stands for them, are missed" do
    batch = &%{key: "k", revision: &1, commands: [:c], bytes: 10}
    snapshot = &%{at: 9, revision: &1, count: &2, id: "i", parts: 1, bytes: 1, digest: "d"}
    {false, log} = Log.applied(Log.new(10, nil), batch.(4))
    # In the order of keys, as a node is told that was sent the state of the group.
    assert {:ok, batches} = Log.next(log, [batch.(8), batch.(4), batch.(5)], nil)
    assert for(batch <- batches, do: batch.revision) == [5, 8]
    assert {:ok, _} = Log.next(log, [batch.(8), batch.(5)], snapshot.(5, 2))
    assert :behind == Log.next(log, [batch.(8), batch.(5)], snapshot.(7, 3))
    # An older one says nothing of what is to come.
    assert {:ok, _} = Log.next(log, [batch.(8)], snapshot.(4, 1))
  end

  test "options are checked", %{name: name} do
    for {options, message} <- [
          {[name: name], ~r/:cluster must be/},
          {[cluster: @cluster], ~r/:name must be/},
          {[cluster: @cluster, name: "a/b"], ~r/without "\/"/},
          {[cluster: @cluster, name: name, snapshot_every: 0], ~r/:snapshot_every must be/},
          {[cluster: @cluster, name: name, nome: 1], ~r/unknown option :nome/}
        ] do
      assert_raise ArgumentError, message, fn -> Bank.start_link(options) end
    end

    Process.flag(:trap_exit, true)
    start_supervised!({Tiebeam, name: @cluster.Without, process: :tiebeam_without})
    assert {:error, {:no_group, text}} = Bank.start_link(cluster: @cluster.Without, name: name)
    assert text =~ ":voters"
  end
end
