defmodule Support.Listener do
  @moduledoc """
  What members of a cluster tell, with the time at which it came: runs on a hidden node of its own, which no member counts
  in, and subscribes as any node may.
  """
  use GenServer

  alias Support.{Beam, Net}

  @doc "A hidden node with a listener. Options as for `Support.Beam.start_peer/2`."
  def start_node(node \\ Net.name("l"), opts \\ []) do
    no_mesh = ["-kernel", "connect_all", "false", "-kernel", "prevent_overlapping_partitions", "false"]
    peer = Beam.start_peer(node, [hidden: true, args: no_mesh] ++ opts)
    {:ok, _} = Beam.on(peer, :supervisor, :start_child, [:kernel_safe_sup, child_spec([])])
    peer
  end

  @doc "Listens to what the member `node` tells, from now on."
  def listen(peer, node),
    do: :ok = Beam.on(peer, GenServer, :call, [__MODULE__, {:listen, node}, 40_000], 50_000)

  @doc "All that was told so far, oldest first: `{milliseconds, member, event}`, in the operating system's time."
  def history(peer), do: Beam.on(peer, GenServer, :call, [__MODULE__, :history])

  @doc "Asks any node something over the listener's connections."
  def ask(peer, destination, request), do: Beam.on(peer, GenServer, :call, [destination, request, 30_000])

  def start_link([]), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init([]), do: {:ok, []}

  # A process for each member, because a message does not say where it is from.
  @impl true
  def handle_call({:listen, node}, _from, history) do
    listener = self()

    subscriber =
      spawn_link(fn ->
        receive do: (:subscribed -> relay(listener, node))
      end)

    reply = GenServer.call({:tiebeam, node}, {:subscribe, subscriber}, 30_000)
    send(subscriber, :subscribed)
    {:reply, reply, history}
  end

  def handle_call(:history, _from, history), do: {:reply, Enum.reverse(history), history}

  @impl true
  def handle_info({:told, entry}, history), do: {:noreply, [entry | history]}

  defp relay(listener, node) do
    receive do
      {:tiebeam, _cluster, event} -> send(listener, {:told, {:os.system_time(:millisecond), node, event}})
    end

    relay(listener, node)
  end
end
