defmodule Support.Bank do
  @moduledoc """
  A machine with accounts. Transfers have a number, which is done once. A Rust node has the same: `examples/machine/main.rs`.
  """
  use Tiebeam.StateMachine

  @doc "Starts it under a supervisor of OTP's own, on this node."
  def start(options) do
    {:ok, _} = :supervisor.start_child(:kernel_safe_sup, child_spec(options))
    :ok
  end

  def stop do
    :ok = :supervisor.terminate_child(:kernel_safe_sup, __MODULE__)
    :ok = :supervisor.delete_child(:kernel_safe_sup, __MODULE__)
  end

  @impl true
  def init(_argument), do: {:ok, %{"accounts" => %{}, "seen" => 0}}

  @impl true
  def handle_command({:deposit, account, amount}, bank) do
    {:reply, :ok, add(bank, account, amount)}
  end

  def handle_command({:transfer, from, to, amount}, bank) do
    if bank["accounts"][from] >= amount do
      {:reply, :ok, bank |> add(from, -amount) |> add(to, amount) |> Map.update!("seen", &(&1 + 1))}
    else
      {:reply, :insufficient, bank}
    end
  end

  def handle_command(:node, bank), do: {:reply, :ok, Map.put(bank, "node", node())}
  def handle_command(:odd, bank), do: {:reply, :ok, Map.put(bank, "odd", make_ref())}

  def handle_command({:fill, bytes}, bank),
    do: {:reply, :ok, Map.put(bank, "filled", String.duplicate("x", bytes))}

  def handle_command({:size, bytes}, bank), do: {:reply, byte_size(bytes), bank}
  def handle_command(:poison, _bank), do: raise("on purpose")

  defp add(bank, account, amount), do: update_in(bank["accounts"][account], &((&1 || 0) + amount))

  @impl true
  def handle_query({:balance, account}, bank), do: Map.get(bank["accounts"], account, 0)
  def handle_query(:total, bank), do: bank["accounts"] |> Map.values() |> Enum.sum()
  def handle_query(:seen, bank), do: bank["seen"]
  def handle_query(:all, bank), do: bank
end
