defmodule Support.Placed do
  @moduledoc "A handler of rings that says which partitions its node follows."
  use Tiebeam.Ring

  @impl true
  def on_follow(partition, name), do: :persistent_term.put({__MODULE__, name, partition}, true)

  @impl true
  def on_unfollow(partition, name), do: :persistent_term.erase({__MODULE__, name, partition})

  @doc "The partitions of the ring `name` that this node was told to follow, in order."
  def followed(name) do
    Enum.sort(for {{__MODULE__, ^name, partition}, true} <- :persistent_term.get(), do: partition)
  end

  @doc "Starts such a ring under a supervisor of OTP's own, on this node."
  def start_ring(options) do
    options = Keyword.put(options, :handler, {__MODULE__, options[:name]})
    {:ok, _} = :supervisor.start_child(:kernel_safe_sup, Tiebeam.Ring.child_spec(options))
    :ok
  end
end
