defmodule Tiebeam.Registry.Strong do
  @moduledoc false
  # The scope `:strong`: names that the group of `Tiebeam.Leader` agrees on, each a claim.

  alias Tiebeam.{Leadership, Table}
  alias Tiebeam.Registry.Name

  # How often a name that was held and is free a moment later is tried for: each time another process had it.
  @max_attempts 10

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

  @doc "The same, in a process of its own: the answer is sent to the caller as `{reference, answer}`."
  @spec register_async(atom, term, pid, term, timeout :: pos_integer) :: reference
  def register_async(cluster, name, pid, metadata, timeout) do
    {caller, reference} = {self(), make_ref()}
    spawn(fn -> send(caller, {reference, register(cluster, name, pid, metadata, timeout)}) end)
    reference
  end

  @doc "Replaces the metadata of a name whose process is one of this node. Its token stays."
  @spec update_meta(atom, term, term, timeout :: pos_integer) :: :ok | {:error, term}
  def update_meta(cluster, name, metadata, timeout) do
    with {:ok, bytes} <- Name.encode(name), {:ok, _bytes} <- Name.encode_meta(metadata) do
      case :ets.lookup(Table.agreed_of(cluster), {:name, name}) do
        [{_key, token, pid, _meta}] when node(pid) == node() ->
          update(cluster, bytes, token, Leadership.holder(pid, metadata), timeout)

        [{_key, _token, pid, _meta}] when is_pid(pid) ->
          {:error, {:taken, pid}}

        _ ->
          {:error, :unknown}
      end
    end
  end

  defp update(cluster, bytes, token, value, timeout) do
    # The core answers when this node's table shows it.
    case Leadership.ask(cluster, {:update, :name, bytes, token, value}, timeout) do
      {:done, _token} -> :ok
      :not_held -> {:error, :unknown}
      other -> Leadership.error(other)
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

  @doc "All names, as `{name, pid, metadata}`."
  @spec names(atom) :: [{term, pid, term}]
  def names(cluster) do
    :ets.select(Table.agreed_of(cluster), [
      {{{:name, :"$1"}, :_, :"$2", :"$3"}, [{:is_pid, :"$2"}], [{{:"$1", :"$2", :"$3"}}]}
    ])
  end
end
