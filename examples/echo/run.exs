# Calls the Rust process of main.rs, which calls the counter here.

defmodule Counter do
  use GenServer

  @impl true
  def init(number), do: {:ok, number}

  @impl true
  def handle_call(:next, _from, number), do: {:reply, number, number + 1}
end

{:ok, _counter} = GenServer.start_link(Counter, 1, name: :counter)

for text <- ["hello", "is anybody there?"] do
  IO.inspect(GenServer.call({:echo, :"echo@127.0.0.1"}, text))
end
