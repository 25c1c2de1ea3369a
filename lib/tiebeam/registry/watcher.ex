defmodule Tiebeam.Registry.Watcher do
  @moduledoc false
  # Monitors the processes of this node that have or had entries, beside the server: a monitor costs as much as all else
  # that the server does for a registration. Linked to the server, which tells a new one all there is.
  #
  # The server sends `{:watch, pids}` after it told the core of them, and gets `{:exited, watcher, pids}`. A process that ended
  # before it was watched is told like any other, only later; look-ups on its own node never show it.

  # Processes that are told to the server in one message at most, so that its turns stay short.
  @max_exited 256

  @doc "Starts a watcher for the calling process, and links to it."
  @spec start_link() :: pid
  def start_link do
    server = self()

    spawn_link(fn ->
      # One that ends as it should takes no links with it.
      Process.monitor(server)
      loop(server, :ets.new(__MODULE__, [:set, :private]), [], 0)
    end)
  end

  @doc "Lets it watch processes of this node, each once."
  @spec watch(pid, [pid]) :: :ok
  def watch(watcher, pids) do
    send(watcher, {:watch, pids})
    :ok
  end

  # `exited` are to be told.
  defp loop(server, watched, exited, @max_exited), do: tell(server, watched, exited)

  defp loop(server, watched, exited, count) do
    receive do
      {:watch, pids} ->
        for pid <- pids, :ets.insert_new(watched, {pid}), do: Process.monitor(pid)
        loop(server, watched, exited, count)

      {:DOWN, _monitor, :process, ^server, _reason} ->
        :ok

      {:DOWN, _monitor, :process, pid, _reason} ->
        :ets.delete(watched, pid)
        loop(server, watched, [pid | exited], count + 1)
    after
      if(exited == [], do: :infinity, else: 0) -> tell(server, watched, exited)
    end
  end

  defp tell(server, watched, exited) do
    send(server, {:exited, self(), exited})
    loop(server, watched, [], 0)
  end
end
