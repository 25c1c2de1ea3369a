defmodule Tiebeam.Leadership.Store do
  @moduledoc false
  # The disk of this node's part in the group: writes in order, those that wait together, and says what is on disk.
  #
  # A process of its own, because a write takes milliseconds. If it ends the server ends as well and begins anew from the
  # disk; if the server ends, what it had handed over is written before the next one reads.

  use GenServer

  alias Tiebeam.Native

  # Writes that are made together; each has at most a message of entries, or a snapshot.
  @max_together 256

  @spec start_link({cluster :: atom, directory :: Path.t()}) :: GenServer.on_start()
  def start_link({cluster, directory}),
    do: GenServer.start_link(__MODULE__, directory, name: process(cluster))

  @spec process(cluster :: atom) :: atom
  def process(cluster), do: Module.concat(cluster, Store)

  @doc """
  Opens the disk for a new core, after everything that an earlier one wrote. `fresh` is who the node is if nothing was ever
  written. What is written for earlier cores from now on is dropped.
  """
  @spec load(atom, node, String.t(), non_neg_integer) ::
          {:ok, life :: reference, Native.loaded()} | {:error, String.t()}
  def load(process, node, cluster, fresh),
    do: GenServer.call(process, {:load, node, cluster, fresh}, :infinity)

  @doc "Answers at once; the caller is told `{:tiebeam_store, life, {:persisted, token} | {:unpersisted, why}}`."
  @spec write(atom, reference, non_neg_integer, Native.pending()) :: :later
  def write(process, life, token, pending) do
    send(process, {:write, self(), life, token, pending})
    :later
  end

  @impl true
  def init(directory), do: {:ok, %{directory: directory, store: nil, life: nil}}

  @impl true
  def handle_call({:load, node, cluster, fresh}, _from, state) do
    # Two at a time have the file for nobody.
    if state.store, do: Native.store_close(state.store)
    state = %{state | store: nil, life: nil}

    case Native.store_open(state.directory, Atom.to_string(node), cluster, fresh) do
      {:ok, {store, loaded}} ->
        life = make_ref()
        {:reply, {:ok, life, loaded}, %{state | store: store, life: life}}

      {:error, why} ->
        {:reply, {:error, why}, state}
    end
  end

  @impl true
  def handle_info({:write, server, life, token, pending}, %{life: life} = state) do
    {token, pending} = together(life, token, [pending], @max_together - 1)

    case Native.store_write(state.store, Enum.reverse(pending)) do
      {:ok, _count} ->
        send(server, {:tiebeam_store, life, {:persisted, token}})
        {:noreply, state}

      {:error, why} ->
        # The core stops, so nothing more comes; what is under way would be refused by the store.
        send(server, {:tiebeam_store, life, {:unpersisted, why}})
        {:noreply, %{state | life: nil}}
    end
  end

  # Of an earlier core, or after a failure.
  def handle_info(_message, state), do: {:noreply, state}

  defp together(_life, token, pending, 0), do: {token, pending}

  defp together(life, token, pending, left) do
    receive do
      {:write, _server, ^life, token, more} -> together(life, token, [more | pending], left - 1)
    after
      0 -> {token, pending}
    end
  end
end
