defmodule Tiebeam.StateMachine.Snapshot do
  @moduledoc false
  # Writes the state of a machine, and removes what it stands for. Runs in a process of its own; it may end at any moment, and the next
  # one removes what it left. Of two that write at a time one has the key `snapshot`, and the other removes its parts.

  alias Tiebeam.{KV, Leadership}
  alias Tiebeam.StateMachine.Log

  # The most bytes of a state: two of them, and the commands without a snapshot, are half of the store.
  @max_bytes 8 * 1024 * 1024

  # A part is a value.
  @part 100 * 1024

  # Writes under way at a time.
  @in_flight 16

  # A pause while the leader changes is not the end of it.
  @timeout [timeout: 15_000]

  @typedoc "A state that may be written: after so many commands, the last of them in the batch of `revision`."
  @type point :: %{revision: pos_integer, count: pos_integer, bytes: binary, digest: binary}

  @doc "The most bytes of a state."
  @spec max_bytes() :: pos_integer
  def max_bytes, do: @max_bytes

  @doc "Writes a point in place of a snapshot, which is the latest, or is none."
  @spec write(Tiebeam.name(), binary, point, Log.snapshot() | nil) :: :ok | {:error, term}
  def write(cluster, name, point, latest) do
    {prefix, parts} = Log.prefixes(name)
    id = Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)
    chunks = chunks(point.bytes)
    value = {1, point.revision, point.count, id, length(chunks), byte_size(point.bytes), point.digest}
    expected = if latest == nil, do: :absent, else: latest.at

    with :ok <- all(Enum.with_index(chunks), &put(cluster, parts, id, &1)),
         {:ok, revision} <- KV.cas(cluster, prefix <> "snapshot", expected, value, @timeout) do
      tidy(cluster, {prefix, parts}, revision, id, point.revision)
    else
      {:error, reason} ->
        # After `:unknown` it may be there: whoever writes the next one sees that.
        if reason != :unknown, do: delete(cluster, keys(cluster, parts <> id, 0, fn _ -> true end))
        {:error, reason}
    end
  end

  defp put(cluster, parts, id, {chunk, index}),
    do: KV.put(cluster, part(parts, id, index), chunk, @timeout)

  defp tidy(cluster, {prefix, parts}, at, id, revision) do
    with :ok <- delete(cluster, keys(cluster, prefix <> "c/", at, &(&1 <= revision))) do
      # Parts that are newer than this snapshot may be those of the next one, which is being written.
      others =
        for key <- keys(cluster, parts, at, &(&1 < at)), not String.starts_with?(key, parts <> id), do: key

      delete(cluster, others)
    end
  end

  defp keys(cluster, prefix, at, wanted) do
    case KV.list(cluster, prefix, [min_revision: at] ++ @timeout) do
      {:ok, rows} -> for {key, _value, revision} <- rows, wanted.(revision), do: key
      {:error, _} -> []
    end
  end

  defp delete(cluster, keys), do: all(keys, &KV.delete(cluster, &1, @timeout))

  defp all(items, work) do
    items
    |> Task.async_stream(work, max_concurrency: @in_flight, timeout: :infinity)
    |> Enum.reduce(:ok, fn
      {:ok, {:error, reason}}, :ok -> {:error, reason}
      {:ok, _}, result -> result
    end)
  end

  defp chunks(<<chunk::binary-size(@part), rest::binary>>) when rest != "", do: [chunk | chunks(rest)]
  defp chunks(chunk), do: [chunk]

  @doc "The state of a snapshot; `:gone` if not all of it is there."
  @spec read(Tiebeam.name(), binary, Log.snapshot()) :: {:ok, term} | :gone
  def read(cluster, name, snapshot) do
    {_prefix, parts} = Log.prefixes(name)
    {:ok, rows} = KV.list(cluster, parts <> snapshot.id <> "/", min_revision: 0)
    bytes = rows |> Enum.map(fn {_key, chunk, _revision} -> chunk end) |> IO.iodata_to_binary()

    if length(rows) == snapshot.parts and :erlang.md5(bytes) == snapshot.digest,
      do: {:ok, Leadership.decode!(bytes)},
      else: :gone
  end

  defp part(parts, id, index), do: "#{parts}#{id}/#{String.pad_leading(Integer.to_string(index), 4, "0")}"
end
