# The examples in the documentation of leadership, in a cluster of one.

# As in the documentation of `Tiebeam.StateMachine`.
defmodule MyApp.Bank do
  use Tiebeam.StateMachine

  @impl true
  def init(_argument), do: {:ok, %{}}

  @impl true
  def handle_command({:deposit, to, amount}, accounts),
    do: {:reply, :ok, Map.update(accounts, to, amount, &(&1 + amount))}

  def handle_command({:transfer, from, to, amount}, accounts) do
    if Map.get(accounts, from, 0) < amount do
      {:reply, {:error, :insufficient}, accounts}
    else
      accounts = Map.update!(accounts, from, &(&1 - amount))
      {:reply, :ok, Map.update(accounts, to, amount, &(&1 + amount))}
    end
  end

  @impl true
  def handle_query({:balance, account}, accounts), do: Map.get(accounts, account, 0)
end

defmodule Tiebeam.LeadershipDocTest do
  use ExUnit.Case

  import Support.Eventually

  setup_all do
    start_supervised!({Tiebeam, name: MyApp.Cluster, voters: [node()]})
    eventually(fn -> Tiebeam.Leader.leader?(MyApp.Cluster) end)
    start_supervised!({MyApp.Bank, cluster: MyApp.Cluster, name: "bank"})
    :ok
  end

  doctest Tiebeam.Leader
  doctest Tiebeam.KV
  doctest Tiebeam.Lock
  doctest Tiebeam.Singleton
  doctest Tiebeam.StateMachine
end
