defmodule Tiebeam.Ring.Follower do
  @moduledoc false
  # The process in which a node is told which partitions of a `Tiebeam.Ring` it follows, one word after the other. The manager tells it
  # all of them whenever they changed.

  use GenServer

  @enforce_keys [:module, :argument]
  defstruct @enforce_keys ++ [followed: []]

  @doc "Starts it, linked to the caller."
  @spec start_link(module, argument :: term) :: pid
  def start_link(module, argument) do
    {:ok, pid} = GenServer.start_link(__MODULE__, %__MODULE__{module: module, argument: argument})
    pid
  end

  @doc "The partitions that this node follows now, in order."
  @spec follow(pid, [Tiebeam.Ring.partition()]) :: :ok
  def follow(pid, partitions), do: GenServer.cast(pid, {:follow, partitions})

  @impl true
  def init(follower) do
    # The ring may end in good order.
    Process.flag(:trap_exit, true)
    {:ok, follower}
  end

  @impl true
  def handle_cast({:follow, partitions}, follower), do: {:noreply, tell(follower, partitions)}

  @impl true
  def handle_info({:EXIT, _pid, reason}, follower), do: {:stop, reason, follower}
  def handle_info(_message, follower), do: {:noreply, follower}

  @impl true
  def terminate(reason, follower) do
    if reason in [:normal, :shutdown] or match?({:shutdown, _reason}, reason), do: tell(follower, [])
    :ok
  end

  defp tell(%{module: module, argument: argument, followed: followed} = follower, partitions) do
    for partition <- followed -- partitions, do: module.on_unfollow(partition, argument)
    for partition <- partitions -- followed, do: module.on_follow(partition, argument)
    %{follower | followed: partitions}
  end
end
