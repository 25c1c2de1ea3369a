defmodule Carts do
  @moduledoc "The carts of a shop, by customer. Each partition is one node's; when it moves, its carts move by way of the keys."

  use Tiebeam.Ring

  @impl true
  def on_own(partition, _token, cluster) do
    case Tiebeam.KV.get(cluster, key(partition)) do
      {:ok, carts, _revision} -> {:ok, {cluster, carts}}
      :not_found -> {:ok, {cluster, %{}}}
    end
  end

  # Its next owner comes after this; but for `:lost`, which is too late to write.
  @impl true
  def on_release(_partition, :lost, _state), do: :ok

  def on_release(partition, _reason, {cluster, carts}),
    do: {:ok, _} = Tiebeam.KV.put(cluster, key(partition), carts)

  @impl true
  def handle_call(_partition, customer, request, {cluster, carts}) do
    cart = Map.get(carts, customer, []) ++ items(request)
    {:reply, cart, {cluster, Map.put(carts, customer, cart)}}
  end

  defp items(:show), do: []
  defp items({:add, item}), do: [item]

  defp key(partition), do: "carts:#{partition}"
end
