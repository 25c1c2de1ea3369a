defmodule Support.WhichNode do
  @moduledoc "A worker that answers on which node it is."
  use GenServer

  def start_link(_), do: GenServer.start_link(__MODULE__, nil)

  @impl true
  def init(nil), do: {:ok, nil}

  @impl true
  def handle_call(:node, _from, nil), do: {:reply, node(), nil}
end
