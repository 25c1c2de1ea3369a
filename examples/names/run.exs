# Calls the Rust process of main.rs by its name, and is called back by another name.

{:ok, _} = Tiebeam.start_link(name: Shop, join: [:"names@127.0.0.1"])

defmodule Stock do
  use GenServer

  def start_link(prices) do
    GenServer.start_link(__MODULE__, prices, name: {:via, Tiebeam.Registry, {Shop, "stock"}})
  end

  @impl true
  def init(prices), do: {:ok, prices}

  @impl true
  def handle_call({:price, fruit}, _from, prices), do: {:reply, prices[fruit], prices}
end

# As soon as the cluster has it, wherever it runs.
{:ok, pricing, _metadata} = Tiebeam.Registry.await(Shop, "pricing", timeout: 30_000)
IO.puts("pricing: on #{node(pricing)}")

{:ok, stock} = Stock.start_link(%{"apple" => 20, "pear" => 35})

# "pricing" asks "stock", and its node hears of that name a moment after this one: not called before it has.
defmodule Wait do
  def until(fun), do: fun.() || (Process.sleep(10) && until(fun))
end

Wait.until(fn -> GenServer.call({:tiebeam, node(pricing)}, {:whereis, "stock"}) == stock end)

for {fruit, quantity} <- [{"apple", 3}, {"pear", 2}] do
  {:ok, price} = GenServer.call({:via, Tiebeam.Registry, {Shop, "pricing"}}, {:quote, fruit, quantity})
  IO.puts("quote:   #{quantity} times #{fruit}: #{price}")
end

{:error, {:taken, ^pricing}} = Tiebeam.Registry.register(Shop, "pricing", self())
IO.puts("taken:   \"pricing\" is that process's until it ends")

# Its end frees the name, on all nodes.
:ok = Tiebeam.Registry.subscribe(Shop)
Process.exit(pricing, :shutdown)

receive do
  {:tiebeam, Shop, {:unregistered, :default, "pricing", ^pricing, reason}} -> IO.puts("free:    #{reason}")
end

:ok = Tiebeam.Registry.register(Shop, "pricing", self())
