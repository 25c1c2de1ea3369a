defmodule Tiebeam.Registry.Strong do
  @moduledoc false
  # The scope `:strong`: names that the group of `Tiebeam.Leader` agrees on, each a claim.

  alias Tiebeam.{Leadership, Table}
  alias Tiebeam.Registry.Name

  # How often a name that was held and is free a moment later is tried for: each time another process had it.
  @max_attempts 10

  # The pause between two looks of who waits for a name, in milliseconds.
  @look 20

  @spec register(atom, term, pid, term, timeout :: pos_integer) :: :ok | {:error, term}
  def register(cluster, name, pid, metadata, timeout) do
    with {:ok, bytes} <- Name.encode(name), {:ok, _bytes} <- Name.encode_meta(metadata) do
      value = Leadership.holder(pid, metadata)
      command = {:acquire, :name, bytes, value, nil, Name.encode_pid(pid), false}
      register(cluster, bytes, pid, command, timeout, @max_attempts)
    end
  end

  defp register(cluster, bytes, pid, command, timeout, attempts) do
    case Leadership.ask(cluster, command, timeout, pid) do
      {:done, token} ->
        # This node's table shows it when it is answered.
        Leadership.ask(cluster, {:holder, :name, bytes, {:at_least, token}}, timeout)
        :ok

      {:held, _value, token} ->
        case Leadership.ask(cluster, {:holder, :name, bytes, {:at_least, token}}, timeout) do
          {:holder, {_token, value}} -> taken(value, pid)
          {:holder, nil} when attempts > 1 -> register(cluster, bytes, pid, command, timeout, attempts - 1)
          {:holder, nil} -> {:error, {:busy, @max_attempts}}
          other -> Leadership.error(other)
        end

      other ->
        Leadership.error(other)
    end
  end

  defp taken(value, pid) do
    case Name.decode(value) do
      {:ok, {^pid, _meta}} -> :ok
      {:ok, {holder, _meta}} when is_pid(holder) -> {:error, {:taken, holder}}
      _ -> {:error, {:taken, nil}}
    end
  end

  @spec unregister(atom, term, pid | nil, timeout :: pos_integer) :: :ok | {:error, term}
  def unregister(cluster, name, pid, timeout) do
    with {:ok, bytes} <- Name.encode(name) do
      case :ets.lookup(Table.agreed_of(cluster), {:name, name}) do
        [{_key, token, holder, _meta}] when (pid == nil or pid == holder) and node(holder) == node() ->
          release(cluster, bytes, token, timeout)

        [{_key, _token, holder, _meta}] when is_pid(holder) ->
          {:error, {:taken, holder}}

        _ ->
          {:error, :unknown}
      end
    end
  end

  defp release(cluster, bytes, token, timeout) do
    case Leadership.ask(cluster, {:release, :name, bytes, token}, timeout) do
      {:done, entry} ->
        Leadership.ask(cluster, {:holder, :name, bytes, {:at_least, entry}}, timeout)
        :ok

      :not_held ->
        {:error, :unknown}

      other ->
        Leadership.error(other)
    end
  end

  @doc "The process, its metadata and its token; a process of this node that ended is none."
  @spec row(atom, term) :: {pid, term, pos_integer} | nil
  def row(cluster, name) do
    case :ets.lookup(Table.agreed_of(cluster), {:name, name}) do
      [{_key, token, pid, meta}] when is_pid(pid) ->
        if node(pid) != node() or Process.alive?(pid), do: {pid, meta, token}

      _ ->
        nil
    end
  end

  @spec await(atom, term, timeout) :: {:ok, pid, term} | {:error, :timeout}
  def await(cluster, name, timeout) do
    case row(cluster, name) do
      {pid, meta, _token} ->
        {:ok, pid, meta}

      nil when timeout == 0 ->
        {:error, :timeout}

      nil ->
        pause = min(timeout, @look)
        Process.sleep(pause)
        await(cluster, name, if(timeout == :infinity, do: :infinity, else: timeout - pause))
    end
  end

  @doc "All names, as `{name, pid, metadata}`."
  @spec names(atom) :: [{term, pid, term}]
  def names(cluster) do
    :ets.select(Table.agreed_of(cluster), [
      {{{:name, :"$1"}, :_, :"$2", :"$3"}, [{:is_pid, :"$2"}], [{{:"$1", :"$2", :"$3"}}]}
    ])
  end
end
