defmodule Tiebeam.Leadership.Question do
  @moduledoc false
  # What any node may ask about the leader, keys and locks, and what it is told; a Rust node answers the same. What waits for the
  # group is asked by a process of its own.

  alias Tiebeam.{KV, Leader, Lock}

  # Processes that wait for the group on behalf of other nodes; each has at most a value. More are told to try again.
  @max_waiting 1024

  @type waiting :: :counters.counters_ref()

  @doc "What counts those that wait."
  @spec waiting() :: waiting
  def waiting, do: :counters.new(1, [])

  @spec answer(term, GenServer.from(), Tiebeam.name(), waiting) :: {:reply, term} | :later
  def answer(:leader, _from, cluster, _waiting), do: {:reply, Leader.leader(cluster)}

  def answer(request, from, cluster, waiting) do
    case question(request, cluster) do
      nil -> {:reply, {:error, :unknown_request}}
      work -> later(from, waiting, work)
    end
  end

  defp question(:locks, cluster) do
    fn ->
      for %{name: name, token: token, pid: pid, metadata: meta} <- Lock.list(cluster),
          do: {name, token, pid, meta}
    end
  end

  defp question({:kv, :put, key, value}, cluster) when is_binary(key),
    do: fn -> KV.put(cluster, key, value) end

  defp question({:kv, :get, key}, cluster) when is_binary(key), do: fn -> KV.get(cluster, key) end
  defp question({:kv, :delete, key}, cluster) when is_binary(key), do: fn -> KV.delete(cluster, key) end
  defp question({:kv, :list, prefix}, cluster) when is_binary(prefix), do: fn -> KV.list(cluster, prefix) end
  defp question(_request, _cluster), do: nil

  defp later(from, waiting, work) do
    if :counters.get(waiting, 1) >= @max_waiting do
      {:reply, {:error, {:busy, @max_waiting}}}
    else
      :counters.add(waiting, 1, 1)

      spawn(fn ->
        try do
          GenServer.reply(from, work.())
        after
          :counters.sub(waiting, 1, 1)
        end
      end)

      :later
    end
  end
end
