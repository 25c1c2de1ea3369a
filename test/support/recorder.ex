defmodule Support.Recorder do
  @moduledoc "A subscriber of a cluster, on any node: keeps the events it was sent, in order."
  use GenServer

  def start_link(cluster), do: GenServer.start_link(__MODULE__, cluster, name: __MODULE__)

  def events, do: GenServer.call(__MODULE__, :events)

  @impl true
  def init(cluster) do
    :ok = Tiebeam.subscribe(cluster)
    {:ok, {cluster, []}}
  end

  @impl true
  def handle_call(:events, _from, {_cluster, events} = state), do: {:reply, Enum.reverse(events), state}

  @impl true
  def handle_info({:tiebeam, cluster, event}, {cluster, events}), do: {:noreply, {cluster, [event | events]}}
end
