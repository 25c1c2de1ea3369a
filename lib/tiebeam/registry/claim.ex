defmodule Tiebeam.Registry.Claim do
  @moduledoc false
  # A name that this node's table shows free is taken there by who registers it, and the server told: many callers then wait
  # neither for the server nor for each other, and the server takes many registrations in a turn. `:ets.insert_new/2` decides
  # between callers of this node; the core takes a registration of another node that it heard of meanwhile for a conflict.
  #
  # caller: counts itself, inserts `{key, pid, metadata, {:claim, caller}}`, sends `{:claim, counter, row, command}`
  # server: tells the core, writes the row with its own node in the last place, discounts
  #
  # The server is asked instead where that is not enough: the name is not free, the process is not here any more, something
  # other than the defaults is wanted, or the table is closed to claims because a limit is near. It puts off what it is asked
  # about a name whose claim it was not told of yet, so that each order of events is one that could have been without claims.
  #
  # A caller that is killed between its two steps leaves a row that nobody was told of; the counter gives it away.

  alias Tiebeam.{Native, Table}

  # Claims under way at a time. Beyond it callers wait for the server, which so never has more to do than it does in two
  # milliseconds.
  @max_claims 512

  # For so many more entries there must be room: all claims under way, and what else a turn of the server may register.
  @least_room @max_claims + 64

  # The pause before the server looks again whether a claim has come, in milliseconds: the caller is between two steps.
  @pause 1

  # `counter` counts claims under way. `room` is for how many more entries there is room at least. `taken` counts the claims
  # of this turn, `turns` those since the last look for lost ones.
  @enforce_keys [:cluster, :counter]
  defstruct @enforce_keys ++ [open: false, room: 0, taken: 0, seen: 0]

  @doc "Takes a free name for a process; `:ask` if the server must be asked."
  @spec take(Tiebeam.name(), request :: tuple) :: :ok | :ask
  def take(
        cluster,
        {:registry, {:register, scope, name, pid_bytes, meta_bytes, :notify, false}, pid, nil, row}
      ) do
    with {process, counter, true} <- Table.claims(cluster),
         true <- Process.alive?(pid),
         true <- enter(counter),
         true <- insert(cluster, counter, row),
         server when is_pid(server) <- Process.whereis(process) do
      send(server, {:claim, counter, row, {:claim, scope, name, pid_bytes, meta_bytes}})
      :ok
    else
      # Where the server crashed, the row is there, and the next one finds it.
      _ -> :ask
    end
  end

  def take(_cluster, _request), do: :ask

  @doc "Returns when the server has counted what the caller claimed. Waits only while claims are under way."
  @spec settle(Tiebeam.name()) :: :ok
  def settle(cluster) do
    {process, counter, _open} = Table.claims(cluster)
    if :atomics.get(counter, 1) != 0, do: GenServer.call(process, :settle), else: :ok
  end

  defp enter(counter), do: :atomics.add_get(counter, 1, 1) <= @max_claims or leave(counter)

  defp insert(cluster, counter, {key, pid, meta, _node}),
    do: :ets.insert_new(cluster, {key, pid, meta, {:claim, self()}}) or leave(counter)

  defp leave(counter) do
    :atomics.sub(counter, 1, 1)
    false
  end

  # The server's part.

  @spec new(cluster :: atom) :: struct
  def new(cluster) do
    {_process, counter, _open} = Table.claims(cluster)
    close(%__MODULE__{cluster: cluster, counter: counter, open: true})
  end

  @doc "Claims that a new core need not be told of one by one: their rows are in the table."
  def flush(%{counter: counter} = claims) do
    receive do
      {:claim, ^counter, _row, _command} ->
        :atomics.sub(counter, 1, 1)
        flush(claims)
    after
      0 -> claims
    end
  end

  @doc "Whether the row of a name is there and the server not yet told of it: `{:claimed_by, caller}`."
  def under_way(%{counter: counter} = claims, key) do
    if :atomics.get(counter, 1) != 0 do
      case :ets.lookup(claims.cluster, key) do
        [{_key, _pid, _meta, {:claim, caller}}] -> {:claimed_by, caller}
        _ -> nil
      end
    end
  end

  @doc """
  Puts off a request about a name that is being claimed. The second time that the caller is dead its message would have been
  here: it was killed before it was sent, and the row goes.
  """
  def put_off(claims, request, caller) do
    again = {:put_off, claims.counter, not Process.alive?(caller), request}
    :erlang.send_after(@pause, self(), again)
    :ok
  end

  @doc "A claim that its caller did not live to tell of."
  def drop(claims, key) do
    with [{_key, _pid, _meta, {:claim, _caller}} = row] <- :ets.lookup(claims.cluster, key) do
      :ets.delete_object(claims.cluster, row)
      :atomics.sub(claims.counter, 1, 1)
    end

    :ok
  end

  @doc "A claim that the core refused: the row goes, unless another one has replaced it."
  def refuse(claims, {key, pid, meta, _node}) do
    case :ets.lookup(claims.cluster, key) do
      [{_key, ^pid, ^meta, {:claim, _caller}} = row] -> :ets.delete_object(claims.cluster, row)
      _ -> true
    end
  end

  @doc "The end of a turn with so many requests for new entries: opens or closes the table."
  def turn_ended(claims, core, requests) do
    if claims.taken > 0, do: :atomics.sub(claims.counter, 1, claims.taken)
    claims = %{claims | taken: 0, seen: claims.seen + claims.taken, room: claims.room - requests}
    if claims.room < @least_room, do: measure(claims, core), else: claims
  end

  @doc "Now and then: how much room there is, and whether callers were killed between their two steps."
  def refresh(claims, core) do
    if claims.seen == 0, do: sweep(claims)
    measure(%{claims | seen: 0}, core)
  end

  defp measure(claims, core) do
    claims = %{claims | room: Native.room(core)}

    cond do
      claims.room < @least_room -> close(claims)
      claims.open -> claims
      true -> set(claims, true)
    end
  end

  def close(%{open: false} = claims), do: claims
  def close(claims), do: set(claims, false)

  defp set(claims, open) do
    Table.set_claims(claims.cluster, open)
    %{claims | open: open}
  end

  # No claim came for a while, and yet some are under way: one pass over the table.
  defp sweep(%{cluster: cluster, counter: counter}) do
    lost = :atomics.get(counter, 1)

    if lost != 0 do
      for {_key, _pid, _meta, {:claim, caller}} = row <-
            :ets.select(cluster, [{{{:_, :_}, :_, :_, {:claim, :_}}, [], [:"$_"]}]),
          not Process.alive?(caller),
          do: :ets.delete_object(cluster, row)

      # One that is under way just now makes it negative, for the next time.
      :atomics.sub(counter, 1, lost)
    end
  end
end
