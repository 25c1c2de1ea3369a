defmodule Tiebeam.KV do
  @moduledoc """
  A small store that all nodes of a cluster agree on, BEAM or Rust.

      iex> {:ok, revision} = Tiebeam.KV.put(MyApp.Cluster, "user:1", "Alice")
      iex> Tiebeam.KV.get(MyApp.Cluster, "user:1") == {:ok, "Alice", revision}
      true

  It is for settings and coordination: all of it is in the memory of every node that takes part, at most 64 MiB. A key is a
  binary of at most 1,024 bytes, a value any term of at most 120 KiB in the external term format. Every change has a revision,
  which is greater than those of all changes before, of any key.

  ## Consistency

  Changes, and reads unless they say otherwise, are linearizable: each takes effect at one instant between the call and its
  answer, on a majority of the voters. They go to the leader, and need a majority. A change is done once, however often it is
  repeated on the way.

  - `consistency: :local` reads what this node has: never waits, works without a majority, and may be old (nothing at all, for
    a moment after the cluster's server restarted on this node).
  - `min_revision: revision` reads what this node has as soon as that is as new: with the revision of an own change, at least
    that change. It asks nobody else.

  ## On a node that does not lead

  Any node takes a change, and forwards it to the leader. With `on_follower: :error` a node that does not lead answers `{:error,
  {:not_leader, node}}` instead, without waiting and with nothing done; `node` is who leads as far as is known, or `nil`. It looks when
  the change is asked for: one that is under way when another node is elected is brought to that.

  The errors are those of `t:Tiebeam.Leader.error/0`. The option `:timeout` of all functions is in milliseconds, by default
  5,000.
  """

  alias Tiebeam.{Leader, Leadership, Table}

  @typedoc "A binary of at most 1,024 bytes."
  @type key :: binary

  @typedoc "Any term of at most 120 KiB in the external term format."
  @type value :: term

  @typedoc "The number of a change: greater than those of all before."
  @type revision :: non_neg_integer

  @typedoc "Why there was no change: the first one only with the option `on_follower: :error`."
  @type refusal :: {:not_leader, node | nil} | Leader.error()

  # As in the core: a page of an answer.
  @page 1000

  @doc """
  Gives a key a value. Linearizable. The option `:on_follower` is [above](#module-on-a-node-that-does-not-lead).

      iex> {:ok, first} = Tiebeam.KV.put(MyApp.Cluster, "color", :red)
      iex> {:ok, second} = Tiebeam.KV.put(MyApp.Cluster, "color", :green)
      iex> second > first
      true
  """
  @spec put(Tiebeam.name(), key, value, keyword) :: {:ok, revision} | {:error, refusal}
  def put(cluster, key, value, options \\ []) when is_binary(key) do
    write(cluster, {:put, key, Leadership.encode(value), :anything}, options)
  end

  @doc """
  Gives a key a value if it is as expected: it has that revision, it is not there (`:absent`), or it has a value (`{:value,
  term}`). Otherwise `{:error, {:differs, revision}}` says which revision it has, 0 for none: read it and decide anew.
  Linearizable.

      iex> {:ok, revision} = Tiebeam.KV.cas(MyApp.Cluster, "counter", :absent, 1)
      iex> {:ok, second} = Tiebeam.KV.cas(MyApp.Cluster, "counter", revision, 2)
      iex> Tiebeam.KV.cas(MyApp.Cluster, "counter", revision, 3) == {:error, {:differs, second}}
      true
      iex> {:ok, _third} = Tiebeam.KV.cas(MyApp.Cluster, "counter", {:value, 2}, 3)
  """
  @spec cas(Tiebeam.name(), key, expected :: revision | :absent | {:value, value}, value, keyword) ::
          {:ok, revision} | {:error, {:differs, revision} | refusal}
  def cas(cluster, key, expected, value, options \\ []) when is_binary(key) do
    write(cluster, {:put, key, Leadership.encode(value), expect!(expected)}, options)
  end

  @doc """
  Removes a key. One that is not there is no error. The option `:expect` is as the third argument of `cas/5`. Linearizable.

  The answer's revision is that of the removal, for `:min_revision`.

      iex> {:ok, _} = Tiebeam.KV.put(MyApp.Cluster, "gone", 1)
      iex> {:ok, revision} = Tiebeam.KV.delete(MyApp.Cluster, "gone")
      iex> Tiebeam.KV.get(MyApp.Cluster, "gone", min_revision: revision)
      :not_found
  """
  @spec delete(Tiebeam.name(), key, keyword) ::
          {:ok, revision} | {:error, {:differs, revision} | refusal}
  def delete(cluster, key, options \\ []) when is_binary(key) do
    {expect, options} = Keyword.pop(options, :expect)
    expect = if expect == nil, do: :anything, else: expect!(expect)
    write(cluster, {:delete, key, expect}, options)
  end

  defp expect!(:absent), do: {:revision, 0}
  defp expect!({:value, value}), do: {:value, Leadership.encode(value)}

  defp expect!(revision) do
    if Leadership.revision?(revision) do
      {:revision, revision}
    else
      raise ArgumentError,
            "expected a revision, :absent or {:value, term} to be expected of the key, got: #{inspect(revision)}"
    end
  end

  defp write(cluster, command, options) do
    options = Leadership.options!(options, timeout: Leadership.timeout(), on_follower: :forward)

    with :ok <- here(cluster, options.on_follower) do
      case Leadership.ask(cluster, command, options.timeout) do
        {:done, revision} -> {:ok, revision}
        other -> Leadership.error(other)
      end
    end
  end

  defp here(_cluster, :forward), do: :ok

  defp here(cluster, :error) do
    case Table.leader(cluster) do
      {leader, _term} when leader == node() -> :ok
      {leader, _term} -> {:error, {:not_leader, leader}}
    end
  end

  @doc """
  The value of a key, and its revision. Linearizable; the options `:consistency` and `:min_revision` are
  [above](#module-consistency).

  Raises `ArgumentError` for a value that is no term, or has atoms for which this node has no room.

      iex> Tiebeam.KV.get(MyApp.Cluster, "nothing")
      :not_found
      iex> {:ok, revision} = Tiebeam.KV.put(MyApp.Cluster, "seen", %{at: 1})
      iex> Tiebeam.KV.get(MyApp.Cluster, "seen", min_revision: revision)
      {:ok, %{at: 1}, revision}
      iex> Tiebeam.KV.get(MyApp.Cluster, "seen", consistency: :local)
      {:ok, %{at: 1}, revision}
  """
  @spec get(Tiebeam.name(), key, keyword) :: {:ok, value, revision} | :not_found | {:error, Leader.error()}
  def get(cluster, key, options \\ []) when is_binary(key) do
    {read, timeout} = read!(options)

    if read == :local do
      case :ets.lookup(Table.agreed_of(cluster), {:key, key}) do
        [{_key, revision, value}] -> {:ok, Leadership.decode!(value), revision}
        [] -> :not_found
      end
    else
      case Leadership.ask(cluster, {:get, key, read}, timeout) do
        {:value, {revision, value}} -> {:ok, Leadership.decode!(value), revision}
        {:value, nil} -> :not_found
        other -> Leadership.error(other)
      end
    end
  end

  @doc """
  The keys that begin with `prefix`, in the order of their bytes, with their values. Options and errors as for `get/3`.

  Up to 1,000 keys are of one instant. More are read in several steps, each of which is linearizable (or local) by itself.

      iex> for n <- 1..3, do: {:ok, _} = Tiebeam.KV.put(MyApp.Cluster, "list:\#{n}", n)
      iex> {:ok, rows} = Tiebeam.KV.list(MyApp.Cluster, "list:")
      iex> for {key, value, _revision} <- rows, do: {key, value}
      [{"list:1", 1}, {"list:2", 2}, {"list:3", 3}]
  """
  @spec list(Tiebeam.name(), prefix :: binary, keyword) ::
          {:ok, [{key, value, revision}]} | {:error, Leader.error()}
  def list(cluster, prefix \\ "", options \\ []) when is_binary(prefix) do
    case read!(options) do
      {:local, _timeout} ->
        table = Table.agreed_of(cluster)
        {:ok, local(table, {:key, prefix}, prefix, :ets.lookup(table, {:key, prefix}), [])}

      {read, timeout} ->
        pages(cluster, prefix, nil, read, timeout, [])
    end
  end

  # The table is ordered: keys that begin with a prefix are together, behind it.
  defp local(table, last, prefix, found, rows) do
    rows =
      for({{:key, key}, revision, value} <- found, do: {key, Leadership.decode!(value), revision}) ++ rows

    case :ets.next(table, last) do
      {:key, key} = next ->
        if String.starts_with?(key, prefix),
          do: local(table, next, prefix, :ets.lookup(table, next), rows),
          else: Enum.reverse(rows)

      _ ->
        Enum.reverse(rows)
    end
  end

  defp pages(cluster, prefix, last, read, timeout, pages) do
    case Leadership.ask(cluster, {:list, prefix, last, @page, read}, timeout) do
      {:values, rows, more} ->
        page = for {key, {revision, value}} <- rows, do: {key, Leadership.decode!(value), revision}

        if more and page != [] do
          {last, _value, _revision} = List.last(page)
          pages(cluster, prefix, last, read, timeout, [page | pages])
        else
          {:ok, [page | pages] |> Enum.reverse() |> Enum.concat()}
        end

      other ->
        Leadership.error(other)
    end
  end

  defp read!(options) do
    options =
      Leadership.options!(options, consistency: :linear, min_revision: nil, timeout: Leadership.timeout())

    case options do
      %{min_revision: nil, consistency: consistency} -> {consistency, options.timeout}
      %{min_revision: revision} -> {{:at_least, revision}, options.timeout}
    end
  end

  @doc """
  Tells the calling process of each change of a key that begins with `prefix`, as far as this node learns of it, until it
  ends:

      {:tiebeam, cluster, {:kv, :put, key, value, revision}}
      {:tiebeam, cluster, {:kv, :delete, key, revision}}

  The answer is the revision after which changes are told. To miss nothing: watch, then `list(cluster, prefix, min_revision:
  revision)`, then take only messages of greater revisions. Asks nobody else. Changes come in the order of their revisions; a
  node that was away for long may see only the latest of several changes of one key.

  A watch ends when the cluster's server crashes: the process is told `{:tiebeam, cluster, {:kv, :unwatched, prefix}}` and may
  watch again. At most 4,096 of a node: then `{:error, {:busy, limit}}`.

      iex> {:ok, _revision} = Tiebeam.KV.watch(MyApp.Cluster, "watched:")
      iex> {:ok, revision} = Tiebeam.KV.put(MyApp.Cluster, "watched:1", :new)
      iex> receive do: ({:tiebeam, MyApp.Cluster, {:kv, :put, "watched:1", :new, ^revision}} -> :told)
      :told
  """
  @spec watch(Tiebeam.name(), prefix :: binary) :: {:ok, revision} | {:error, Leader.error()}
  def watch(cluster, prefix) when is_binary(prefix) do
    case Leadership.ask(cluster, {:watch, prefix}, Leadership.timeout()) do
      {:done, revision} -> {:ok, revision}
      other -> Leadership.error(other)
    end
  end

  @doc "Ends a watch of the calling process. What was sent before may still be in its mailbox."
  @spec unwatch(Tiebeam.name(), prefix :: binary) :: :ok | {:error, Leader.error()}
  def unwatch(cluster, prefix) when is_binary(prefix) do
    case Leadership.ask(cluster, {:unwatch, prefix}, Leadership.timeout()) do
      {:done, _revision} -> :ok
      other -> Leadership.error(other)
    end
  end
end
