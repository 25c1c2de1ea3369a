defmodule Tiebeam.Group do
  @moduledoc """
  Groups of processes, the same on every node of the cluster, BEAM or Rust.

      iex> Tiebeam.Group.join(MyApp.Cluster, "workers", self())
      :ok
      iex> Tiebeam.Group.members(MyApp.Cluster, "workers") == [self()]
      true
      iex> Tiebeam.Group.publish(MyApp.Cluster, "workers", :tick)
      :ok
      iex> receive do: (:tick -> :heard)
      :heard

  A process is in a group once, and in as many groups as it likes. A group is there while it has members. What a name, metadata
  and a scope are, and the errors, is said in `Tiebeam.Registry`; groups and names of one scope have nothing to do with each other
  but the limit on a node's entries.

  ## Consistency

  Each node is the authority for the memberships of its processes. Look-ups read a table of this node and never wait: what this
  node did is there when it is answered, and the other nodes show it about a round trip later. There are no conflicts. A process
  that ends is in no group any more, on all nodes; the members of a node that is down are out until it comes back.
  """

  import Tiebeam.Registry, only: [call: 2, local: 1, options!: 2, read: 2, request: 5, request: 4, scope!: 1]

  alias Tiebeam.{Registry, Table}

  @doc """
  Makes a process of this node a member of a group; one that is gets the new metadata. The option is `:scope`.

  Blocks for the time of a call, at most five seconds, then exits like `GenServer.call/2`.

      iex> Tiebeam.Group.join(MyApp.Cluster, {:shard, 3}, self(), %{weight: 2})
      :ok
      iex> Tiebeam.Group.lookup(MyApp.Cluster, {:shard, 3}) == [{self(), %{weight: 2}}]
      true
  """
  @spec join(Tiebeam.name(), Registry.name(), pid, Registry.metadata(), keyword) ::
          :ok | {:error, Registry.error()}
  def join(cluster, group, pid, metadata \\ nil, options \\ []) when is_pid(pid) do
    options = options!(options, [:scope])

    with :ok <- local(pid),
         {:ok, request} <- request(:join, options[:scope] || :default, group, pid, metadata),
         do: call(cluster, request)
  end

  @doc """
  Takes a process of this node out of a group. The option is `:scope`. Blocks as `join/5`.

      iex> Tiebeam.Group.leave(MyApp.Cluster, "strangers", self())
      {:error, :unknown}
  """
  @spec leave(Tiebeam.name(), Registry.name(), pid, keyword) :: :ok | {:error, Registry.error()}
  def leave(cluster, group, pid, options \\ []) when is_pid(pid) do
    with :ok <- local(pid),
         {:ok, request} <- request(:leave, scope!(options), group, pid),
         do: call(cluster, request)
  end

  @doc "The members of a group on all nodes, as far as this node knows. The option is `:scope`. Never waits."
  @spec members(Tiebeam.name(), Registry.name(), keyword) :: [pid]
  def members(cluster, group, options \\ []) do
    select(cluster, options, group, :_, :_, :"$1")
  end

  @doc "As `members/3`, but only those that this node answers for."
  @spec local_members(Tiebeam.name(), Registry.name(), keyword) :: [pid]
  def local_members(cluster, group, options \\ []) do
    select(cluster, options, group, :_, node(), :"$1")
  end

  @doc "The members of a group with their metadata; as `members/3`."
  @spec lookup(Tiebeam.name(), Registry.name(), keyword) :: [{pid, Registry.metadata()}]
  def lookup(cluster, group, options \\ []) do
    select(cluster, options, group, :"$2", :_, {{:"$1", :"$2"}})
  end

  @doc """
  The groups of a scope that have members, as far as this node knows, in no order. The option is `:scope`. Reads the whole table.
  """
  @spec groups(Tiebeam.name(), keyword) :: [Registry.name()]
  def groups(cluster, options \\ []) do
    cluster |> select([{{{scope!(options), :"$1", :_}, :_, :_}, [], [:"$1"]}]) |> Enum.uniq()
  end

  @doc """
  Sends a message to all members of a group that this node knows of, itself included. The option is `:scope`.

  Best effort, as `Kernel.send/2`: nothing is kept for who joins later, and it blocks while the link to a member is busy.
  """
  @spec publish(Tiebeam.name(), Registry.name(), message :: term, keyword) :: :ok
  def publish(cluster, group, message, options \\ []) do
    for pid <- members(cluster, group, options), do: send(pid, message)
    :ok
  end

  # The table is ordered by scope and group: a pattern that begins with both reads no other rows.
  defp select(cluster, options, group, meta, owner, result) do
    scope = scope!(options)

    if variable?(group),
      do:
        select(cluster, [{{{scope, :"$3", :"$1"}, meta, owner}, [{:"=:=", :"$3", {:const, group}}], [result]}]),
      else: select(cluster, [{{{scope, group, :"$1"}, meta, owner}, [], [result]}])
  end

  # Whether a pattern would take a part of it for a variable.
  defp variable?(group) when is_atom(group),
    do: group == :_ or String.starts_with?(Atom.to_string(group), "$")

  defp variable?(group) when is_tuple(group), do: group |> Tuple.to_list() |> Enum.any?(&variable?/1)
  defp variable?([first | rest]), do: variable?(first) or variable?(rest)
  defp variable?(_group), do: false

  defp select(cluster, spec) do
    groups = Table.groups_of(cluster)
    read(cluster, fn -> :ets.select(groups, spec) end)
  end
end
