# Names that callers take from this node's table before the server knows: between callers, and when callers die.
defmodule Tiebeam.RegistryClaimTest do
  use ExUnit.Case

  import Support.Eventually

  alias Tiebeam.{Registry, Table}

  @cluster Tiebeam.RegistryClaimTest.Cluster

  setup context do
    start_supervised!({Tiebeam, Keyword.merge([name: @cluster], context[:options] || [])})
    :ok
  end

  defp idle, do: spawn_link(fn -> Process.sleep(:infinity) end)

  defp under_way do
    {_process, counter, _open} = Table.claims(@cluster)
    :atomics.get(counter, 1)
  end

  defp claimed, do: :ets.select_count(@cluster, [{{{:_, :_}, :_, :_, {:claim, :_}}, [], [true]}])

  test "of many callers at once one has the name, and the others are told who" do
    for round <- 1..100 do
      parent = self()

      callers =
        for _ <- 1..8 do
          spawn_link(fn ->
            receive do: (:go -> :ok)
            send(parent, {self(), Registry.register(@cluster, {:race, round}, self())})
            Process.sleep(:infinity)
          end)
        end

      for caller <- callers, do: send(caller, :go)
      answers = for caller <- callers, do: assert_receive({^caller, _answer}, 30_000)
      assert [{winner, :ok}] = for({_caller, :ok} = answer <- answers, do: answer)

      for {caller, answer} <- answers,
          caller != winner,
          do: assert(answer == {:error, {:taken, winner}})

      assert Registry.whereis(@cluster, {:race, round}) == winner
    end
  end

  test "what a caller does next is done after its registration" do
    pid = idle()

    for n <- 1..200 do
      assert :ok = Registry.register(@cluster, n, pid)
      assert {^pid, nil} = Registry.lookup(@cluster, n)
      assert Registry.count(@cluster) == 1
      assert n in Registry.local_names(@cluster)
      assert :ok = Registry.update_meta(@cluster, n, :new)
      assert {^pid, :new} = Registry.lookup(@cluster, n)
      assert :ok = Registry.unregister(@cluster, n)
      assert Registry.whereis(@cluster, n) == nil
      assert Registry.count(@cluster) == 0
    end
  end

  test "callers that are killed at any moment leave no row behind that the server does not know" do
    holder = idle()

    for round <- 1..300 do
      caller = spawn(fn -> for n <- 1..10_000, do: Registry.register(@cluster, {round, n}, holder) end)
      for _ <- 1..:rand.uniform(2_000), do: :erlang.bump_reductions(1)
      Process.exit(caller, :kill)
    end

    eventually(fn -> under_way() == 0 and claimed() == 0 end)
    names = Registry.names(@cluster)
    assert Registry.count(@cluster) == length(names)
    # The core knows each of them: it lets them go one by one.
    for name <- names, do: assert(Registry.unregister(@cluster, name) == :ok)
    assert Registry.names(@cluster) == []
  end

  test "the row of a caller that never told the server goes, at once if somebody wants the name" do
    {_process, counter, _open} = Table.claims(@cluster)
    {dead, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, ^dead, _reason}, 5_000

    for name <- [:wanted, :forgotten] do
      :atomics.add(counter, 1, 1)
      assert :ets.insert_new(@cluster, {{:default, name}, self(), nil, {:claim, dead}})
    end

    other = idle()
    assert :ok = Registry.register(@cluster, :wanted, other)
    assert Registry.whereis(@cluster, :wanted) == other
    eventually(fn -> Registry.names(@cluster) == [:wanted] end)
    eventually(fn -> under_way() == 0 end)
  end

  @tag :capture_log
  test "a server that crashes with claims in its mailbox finds them in the table" do
    pid = idle()
    server = Process.whereis(Table.process(@cluster))
    eventually(fn -> elem(Table.claims(@cluster), 2) end)
    :erlang.suspend_process(server)
    names = for n <- 1..100, do: {:kept, n}
    for name <- names, do: assert(:ok = Registry.register(@cluster, name, pid))
    assert under_way() == 100
    Process.exit(server, :kill)
    eventually(fn -> Process.whereis(Table.process(@cluster)) not in [nil, server] end)
    eventually(fn -> claimed() == 0 and Enum.sort(Registry.names(@cluster)) == Enum.sort(names) end)
    assert Registry.count(@cluster) == 100
    for name <- names, do: assert(Registry.unregister(@cluster, name) == :ok)
    eventually(fn -> under_way() == 0 end)
  end

  @tag options: [entries_per_scope: 600]
  test "a table that is nearly full is closed to claims: the limit is exact" do
    pid = idle()

    answers =
      1..16
      |> Enum.map(fn caller ->
        Task.async(fn -> for n <- 1..100, do: Registry.register(@cluster, {caller, n}, pid) end)
      end)
      |> Task.await_many(60_000)
      |> Enum.concat()
      |> Enum.frequencies()

    assert answers == %{:ok => 600, {:error, {:scope_full, 600}} => 1000}
    assert Registry.count(@cluster) == 600
    assert length(Registry.names(@cluster)) == 600
  end

  test "a node that left claims nothing more" do
    assert :ok = Registry.register(@cluster, :before, self())
    :ok = Tiebeam.leave(@cluster)
    assert {:error, :left} = Registry.register(@cluster, :after, self())
    assert Registry.whereis(@cluster, :after) == nil
  end
end
