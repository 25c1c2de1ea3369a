# The bank, as every BEAM node has it; main.rs has the same.
defmodule Bank do
  use Tiebeam.StateMachine

  @impl true
  def init(_argument), do: {:ok, %{}}

  @impl true
  def handle_command({:deposit, to, amount}, accounts), do: {:reply, :ok, add(accounts, to, amount)}

  def handle_command({:transfer, from, to, amount}, accounts) do
    if Map.get(accounts, from, 0) >= amount,
      do: {:reply, :ok, accounts |> add(from, -amount) |> add(to, amount)},
      else: {:reply, :insufficient, accounts}
  end

  defp add(accounts, account, amount), do: Map.update(accounts, account, amount, &(&1 + amount))

  @impl true
  def handle_query({:balance, account}, accounts), do: Map.get(accounts, account, 0)
  def handle_query(:total, accounts), do: accounts |> Map.values() |> Enum.sum()
end
