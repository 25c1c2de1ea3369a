defmodule Tiebeam.Leadership.Question do
  @moduledoc false
  # What any node may ask about the leader, keys and locks, and what it is told; a Rust node answers the same. What waits
  # for the group is asked by a process of its own.

  alias Tiebeam.{KV, Leader, Lock}

  # Processes that wait for the group on behalf of other nodes; each has at most a value. More are told to try again.
  @max_waiting 1024

  # Less than `GenServer.call/2` waits, in milliseconds, so that who asks hears what became of it.
  @timeout [timeout: 4_000]

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

  defp question(:step_down, cluster), do: fn -> step_down(cluster, nil) end

  defp question({:step_down, to}, cluster) when is_atom(to), do: fn -> step_down(cluster, to) end

  defp question({:kv, :put, key, value}, cluster),
    do: about(key, fn -> KV.put(cluster, key, value, @timeout) end)

  defp question({:kv, :get, key}, cluster), do: about(key, fn -> KV.get(cluster, key, @timeout) end)
  defp question({:kv, :delete, key}, cluster), do: about(key, fn -> KV.delete(cluster, key, @timeout) end)

  defp question({:kv, :list, prefix}, cluster),
    do: about(prefix, fn -> KV.list(cluster, prefix, @timeout) end)

  defp question(_request, _cluster), do: nil

  defp step_down(cluster, to) do
    with {:error, reason} <- Leader.step_down(cluster, to, @timeout), do: {:error, reason(reason)}
  end

  defp about(key, ask) when is_binary(key) do
    fn ->
      case ask.() do
        {:error, reason} -> {:error, reason(reason)}
        answer -> answer
      end
    end
  end

  defp about(_key, _ask), do: fn -> {:error, {:invalid, "a key is a binary"}} end

  # As a Rust node says it.
  defp reason({:busy, _limit}), do: :busy
  defp reason({:full, _what}), do: :full

  defp reason({:too_long, part, bytes, limit}),
    do: {:invalid, "a #{part} of #{bytes} bytes is too long, the limit is #{limit}"}

  defp reason(reason), do: reason

  defp later(from, waiting, work) do
    if :counters.get(waiting, 1) >= @max_waiting do
      {:reply, {:error, :busy}}
    else
      :counters.add(waiting, 1, 1)

      spawn(fn ->
        try do
          GenServer.reply(from, work.())
        rescue
          # A value that this node cannot make a term of.
          error in ArgumentError -> GenServer.reply(from, {:error, {:invalid, Exception.message(error)}})
        after
          :counters.sub(waiting, 1, 1)
        end
      end)

      :later
    end
  end
end
