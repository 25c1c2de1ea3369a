defmodule Tiebeam.StateMachine.Log do
  @moduledoc false
  # What a machine's node knows of its commands: a value, the rules of `Tiebeam.StateMachine` without a process. The same is
  # `native/tiebeam_node/src/patterns/machine/log.rs`.
  #
  # | key | value |
  # |---|---|
  # | `tiebeam/machine/NAME/c/CLIENT/NUMBER` | a batch of commands: a binary, the external term format of their list. Its revision is its place in the order |
  # | `tiebeam/machine/NAME/snapshot` | the present snapshot: `{1, revision, count, id, parts, bytes, digest}` |
  # | `tiebeam/snapshot/NAME/ID/PART` | its state, in binaries |
  #
  # A batch has a key of its own, never written again, and is removed only after a snapshot stands for it. So at any instant the keys have
  # a snapshot and all batches behind it. What is told of changes has each batch, in order, unless this node was sent
  # the state of the group: then what was removed meanwhile was never told, and the rest comes in the order of keys. Both are
  # known from `count`, the number of all commands up to a snapshot: if the batches that were told do not add up to it, some are
  # missing. Batches are looked at together up to an answer of the cluster's server: it sends the changes of a state that it was sent
  # before any answer, so none is ever taken for the next one that is not.
  #
  # After every so many commands there is a *point*: all machines note the digest of their state there, and one of them writes it as
  # the next snapshot, so that a machine that differs is found.

  # A point comes after so many bytes of commands, too: what is told again to a machine that starts.
  @point_bytes 4 * 1024 * 1024

  # What a batch takes in the store besides its bytes, at most.
  @overhead 512

  # Commands are refused while so many bytes of them have no snapshot: a quarter of the room of the store.
  @max_bytes 16 * 1024 * 1024

  @enforce_keys [:every]
  defstruct [:every, :snapshot, revision: 0, count: 0, since: 0, bytes: 0, reached: 0, points: []]

  @typedoc "A batch that was told: its commands are decoded, `bytes` is how many they were."
  @type batch :: %{
          key: binary,
          revision: pos_integer,
          commands: [term, ...],
          bytes: pos_integer
        }

  @typedoc "`at` is the revision of the key, `revision` that of the last batch that the snapshot has."
  @type snapshot :: %{
          at: pos_integer,
          revision: pos_integer,
          count: pos_integer,
          id: binary,
          parts: pos_integer,
          bytes: pos_integer,
          digest: binary
        }

  @type t :: %__MODULE__{
          every: pos_integer,
          snapshot: snapshot | nil,
          revision: non_neg_integer,
          count: non_neg_integer,
          since: non_neg_integer,
          bytes: non_neg_integer,
          reached: non_neg_integer,
          points: [{count :: pos_integer, digest :: binary, bytes :: pos_integer}]
        }

  @doc "The keys of a machine begin so; the parts of its snapshots with the second."
  @spec prefixes(name :: binary) :: {binary, binary}
  def prefixes(name), do: {"tiebeam/machine/#{name}/", "tiebeam/snapshot/#{name}/"}

  @doc "What is at a key."
  @spec read(binary, key :: binary, value :: term, revision :: pos_integer) ::
          {:batch, key :: binary, binary, revision :: pos_integer} | {:snapshot, snapshot} | :other
  def read(prefix, key, value, at) do
    case {binary_part(key, byte_size(prefix), byte_size(key) - byte_size(prefix)), value} do
      {"c/" <> _, bytes} when is_binary(bytes) ->
        {:batch, key, bytes, at}

      {"snapshot", {1, revision, count, id, parts, bytes, digest}}
      when is_integer(revision) and is_integer(count) and is_binary(id) and is_integer(parts) and
             is_integer(bytes) and is_binary(digest) ->
        {:snapshot,
         %{
           at: at,
           revision: revision,
           count: count,
           id: id,
           parts: parts,
           bytes: bytes,
           digest: digest
         }}

      {"snapshot", other} ->
        raise ArgumentError, "the snapshot of a machine is of another version: #{inspect(other, limit: 3)}"

      _ ->
        :other
    end
  end

  @doc "A log that begins with a snapshot, or without one."
  @spec new(every :: pos_integer, snapshot | nil) :: t
  def new(every, nil), do: %__MODULE__{every: every}

  def new(every, snapshot) do
    %__MODULE__{every: every, snapshot: snapshot, revision: snapshot.revision, count: snapshot.count}
  end

  @doc """
  Which of the batches are next, in order. `:behind` if what the latest snapshot stands for is not among them: then begin with that.
  """
  @spec next(t, [batch], snapshot | nil) :: {:ok, [batch]} | :behind
  def next(log, batches, snapshot) do
    batches =
      batches
      |> Enum.filter(&(&1.revision > log.revision))
      |> Enum.sort_by(& &1.revision)
      |> Enum.dedup_by(& &1.revision)

    if snapshot != nil and snapshot.revision > log.revision and
         log.count + count(batches, snapshot.revision) != snapshot.count,
       do: :behind,
       else: {:ok, batches}
  end

  defp count(batches, revision),
    do: Enum.sum(for batch <- batches, batch.revision <= revision, do: length(batch.commands))

  @doc "A batch was applied; whether there is a point behind it."
  @spec applied(t, batch) :: {point? :: boolean, t}
  def applied(log, batch) do
    count = length(batch.commands)
    {since, bytes} = {log.since + count, log.bytes + batch.bytes + @overhead}
    point? = since >= log.every or bytes >= @point_bytes
    log = %{log | revision: batch.revision, count: log.count + count, since: since, bytes: bytes}
    {point?, if(point?, do: %{log | since: 0, bytes: 0, reached: bytes}, else: log)}
  end

  @doc "The digest of the state at the point that was reached."
  @spec point(t, digest :: binary) :: t
  def point(log, digest), do: %{log | points: [{log.count, digest, log.reached} | log.points]}

  @doc "There is another snapshot. `:diverged` if this machine had another state there."
  @spec snapshot(t, snapshot | nil) :: {:ok, t} | :diverged
  def snapshot(log, nil), do: {:ok, log}

  def snapshot(%{snapshot: %{at: known}} = log, %{at: at}) when at <= known, do: {:ok, log}

  def snapshot(log, snapshot) do
    case List.keyfind(log.points, snapshot.count, 0) do
      {_count, digest, _bytes} when digest != snapshot.digest ->
        :diverged

      _ ->
        points = for {count, _, _} = point <- log.points, count > snapshot.count, do: point
        {:ok, %{log | snapshot: snapshot, points: points}}
    end
  end

  @doc "Whether no more commands may come until there is a snapshot; how many bytes of them may be without one."
  @spec full(t) :: nil | pos_integer
  def full(log) do
    if log.bytes + Enum.sum(for {_, _, bytes} <- log.points, do: bytes) >= @max_bytes, do: @max_bytes
  end

  @doc "How many commands the latest snapshot has."
  @spec covered(t) :: non_neg_integer
  def covered(%{snapshot: nil}), do: 0
  def covered(%{snapshot: snapshot}), do: snapshot.count
end
