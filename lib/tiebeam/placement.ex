defmodule Tiebeam.Placement do
  @moduledoc """
  Where work goes: keys to partitions and nodes, slots to nodes. What `Tiebeam.Ring` and `Tiebeam.Pool` decide by.

  All of it are functions of their arguments, the same on all nodes and in both languages. Nothing here asks anybody.

  Hashes are SipHash-2-4 with the key zero. Keys and names are those of `Tiebeam.Registry`; hashed are their bytes in the external
  term format, as `:erlang.term_to_binary(key, minor_version: 2)` writes them.

      iex> Tiebeam.Placement.partition("user:1", 256)
      99
      iex> Tiebeam.Placement.rank("user:4", [:n1@host, :n2@host, :n3@host])
      [:n2@host, :n1@host, :n3@host]

  These, of bytes, are the same in all releases:

      iex> {Tiebeam.Native.partition("", 256), Tiebeam.Native.partition("user:1", 256)}
      {30, 35}
      iex> Tiebeam.Native.score("user:1", :n1@host) == 0x70C7228A99C6EA5B
      true
  """

  alias Tiebeam.{Native, Registry}
  alias Tiebeam.Placement.Manager
  alias Tiebeam.Registry.Name

  # As in the core, where the reason is.
  @max_slots 4096

  # A day.
  @max_duration 86_400_000

  # For `Tiebeam.Ring` and `Tiebeam.Pool`.

  @doc false
  def max_slots, do: @max_slots

  @doc false
  # Raises unless the options that both have are right; `durations` are milliseconds, `timeouts` may be `:infinity`.
  def check!(options, durations, timeouts) do
    unless is_atom(options.cluster) and options.cluster != nil do
      raise ArgumentError,
            "the option :cluster is required: the name of a cluster, got: #{inspect(options.cluster)}"
    end

    if options.name == nil, do: raise(ArgumentError, "the option :name is required")
    # The longest name that is made of it.
    encode!({:tiebeam, :workers, {options.name, @max_slots}})

    for key <- durations, value = options[key], not (is_integer(value) and value in 0..@max_duration) do
      raise ArgumentError, "the option #{inspect(key)} must be milliseconds, got: #{inspect(value)}"
    end

    for key <- timeouts, value = options[key], value != :infinity do
      unless is_integer(value) and value in 1..@max_duration do
        raise ArgumentError,
              "the option #{inspect(key)} must be milliseconds or :infinity, got: #{inspect(value)}"
      end
    end

    for key <- [:max_restarts, :max_seconds], value = options[key] do
      unless is_integer(value) and value >= if(key == :max_seconds, do: 1, else: 0) do
        raise ArgumentError, "the option #{inspect(key)} must be a number, got: #{inspect(value)}"
      end
    end

    :ok
  end

  @doc false
  def drain(cluster, kind, name, timeout) do
    case Manager.of_this_node(cluster, kind, name) do
      nil -> {:error, :not_started}
      pid -> GenServer.call(pid, :drain, timeout)
    end
  end

  @doc """
  The partition of a key, from 0 to `partitions - 1`.

      iex> Tiebeam.Placement.partition({:user, 7}, 1)
      0
  """
  @spec partition(Registry.name(), pos_integer) :: non_neg_integer
  def partition(key, partitions) when is_integer(partitions) and partitions in 1..0xFFFFFFFF,
    do: Native.partition(encode!(key), partitions)

  @doc """
  The nodes, the one that is most meant for the key first ("rendezvous hashing"). When a node comes or goes, only the keys that it
  gets or had change their first node.

      iex> nodes = [:n1@host, :n2@host, :n3@host]
      iex> [first, second, third] = Tiebeam.Placement.rank(:key, nodes)
      iex> Tiebeam.Placement.rank(:key, [third, second])
      [second, third]
      iex> first in nodes
      true
  """
  @spec rank(Registry.name(), [node]) :: [node]
  def rank(key, nodes), do: Native.rank(encode!(key), nodes)

  @doc """
  What the node `me` should do about the slots of the task `name`, where `holders` has who holds each, and `nodes` can take slots: the
  numbers of those to let go, and of free ones to ask for. The option `:most` is how many slots a node takes at most.

  Each node gets its even share. If all follow their plans nothing is left to do soon, and no slot moves but those that must:
  twelve over three nodes are four each, and after one has left six each, where the others keep what they had.

      iex> follow = fn holders, nodes ->
      ...>   Enum.reduce(nodes, holders, fn me, holders ->
      ...>     {_release, acquire} = Tiebeam.Placement.plan("ring", holders, nodes, me)
      ...>     Enum.reduce(acquire, holders, &List.replace_at(&2, &1, me))
      ...>   end)
      ...> end
      iex> three = follow.(List.duplicate(nil, 12), [:n1@host, :n2@host, :n3@host])
      iex> Enum.frequencies(three)
      %{n1@host: 4, n2@host: 4, n3@host: 4}
      iex> left = Enum.map(three, &if(&1 != :n3@host, do: &1))
      iex> two = follow.(left, [:n1@host, :n2@host])
      iex> Enum.frequencies(two)
      %{n1@host: 6, n2@host: 6}
      iex> Enum.all?(Enum.zip(left, two), fn {was, is} -> was in [nil, is] end)
      true
  """
  @spec plan(Registry.name(), [node | nil], [node], me :: node, keyword) ::
          {release :: [non_neg_integer], acquire :: [non_neg_integer]}
  def plan(name, holders, nodes, me, options \\ []) when length(holders) <= @max_slots,
    do: Native.plan(encode!(name), Keyword.get(options, :most, @max_slots), holders, nodes, me)

  defp encode!(name) do
    case Name.encode(name) do
      {:ok, bytes} -> bytes
      {:error, reason} -> raise ArgumentError, Registry.describe(reason)
    end
  end
end
