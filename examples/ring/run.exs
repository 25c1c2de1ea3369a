# Fills carts that are spread over the nodes a and b, then takes its share of them, and gives it back.

Code.require_file("carts.exs", __DIR__)

carts = {Shop, "carts"}
voters = [a, b, app] = [:"a@127.0.0.1", :"b@127.0.0.1", :"app@127.0.0.1"]

{:ok, supervisor} =
  Supervisor.start_link([{Tiebeam, name: Shop, join: voters, voters: voters}], strategy: :rest_for_one)

defmodule Spread do
  # Who owns which partition, once these nodes have even shares.
  def over(ring, nodes) do
    if Tiebeam.Ring.members(ring) == nodes and not Tiebeam.Ring.rebalancing?(ring) do
      for partition <- 0..11, {node, _token} <- [Tiebeam.Ring.owner(ring, partition)], do: {partition, node}
    else
      Process.sleep(10)
      over(ring, nodes)
    end
  end

  def shares(owners), do: owners |> Enum.frequencies_by(&elem(&1, 1)) |> Map.values()
end

customers = for number <- 1..20, do: "customer:#{number}"
filled = fn -> Enum.count(customers, &(Tiebeam.Ring.call(carts, &1, :show, 30_000) == {:ok, ["apple"]})) end

two = Spread.over(carts, [a, b])
IO.puts("partitions of a and b: #{inspect(Spread.shares(two))}")
for customer <- customers, do: {:ok, ["apple"]} = Tiebeam.Ring.call(carts, customer, {:add, "apple"}, 30_000)
IO.puts("carts filled: #{filled.()}")

# Only what must move does: a third of the partitions.
ring = {Tiebeam.Ring, cluster: Shop, name: "carts", partitions: 12, handler: {Carts, Shop}}
{:ok, _} = Supervisor.start_child(supervisor, ring)
three = Spread.over(carts, [a, app, b])
IO.puts("with this node: #{inspect(Spread.shares(three))}, moved: #{length(three -- two)}")
IO.puts("carts filled: #{filled.()}")

:ok = Tiebeam.Ring.drain(carts)
back = Spread.over(carts, [a, b])
IO.puts("without it: #{inspect(Spread.shares(back))}, moved: #{length(back -- three)}")
IO.puts("carts filled: #{filled.()}")
