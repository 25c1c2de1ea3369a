defmodule Tiebeam.Table do
  @moduledoc false
  # The ETS table that callers read, one per cluster and named after it. The supervisor owns it, so that it outlives a
  # crash of the server; the server alone writes. Rows: `{node, member}`, `{{:vital, :health | :metrics}, map}`,
  # `{{:subscriber, pid}}` and `{{:option, key}, value}`.

  alias Tiebeam.Member

  @spec new(name :: atom, process :: atom, metadata :: binary) :: :ok
  def new(name, process, metadata) do
    :ets.new(name, [:named_table, :ordered_set, :public, read_concurrency: true])
    :ets.insert(name, [{{:option, :process}, process}, {{:option, :metadata}, metadata}])
    :ok
  end

  @doc "All members in the order of their names."
  @spec members(atom) :: [Member.t()]
  def members(name) do
    read(name, fn -> :ets.select(name, [{{:"$1", :"$2"}, [{:is_atom, :"$1"}], [:"$2"]}]) end)
  end

  @spec member(atom, node) :: Member.t() | nil
  def member(name, node) do
    case read(name, fn -> :ets.lookup(name, node) end) do
      [{^node, member}] -> member
      [] -> nil
    end
  end

  @spec health(atom) :: Tiebeam.health()
  def health(name), do: read(name, fn -> :ets.lookup_element(name, {:vital, :health}, 2) end)

  @spec metrics(atom) :: Tiebeam.metrics()
  def metrics(name), do: read(name, fn -> :ets.lookup_element(name, {:vital, :metrics}, 2) end)

  @doc "The registered name of the cluster's server."
  @spec process(atom) :: atom
  def process(name) do
    read(name, fn -> :ets.lookup_element(name, {:option, :process}, 2) end)
  end

  @doc "What this node tells about itself: the option, or what replaced it."
  @spec metadata(atom) :: binary
  def metadata(name), do: :ets.lookup_element(name, {:option, :metadata}, 2)

  @spec put_metadata(atom, binary) :: true
  def put_metadata(name, metadata), do: :ets.insert(name, {{:option, :metadata}, metadata})

  @spec put(atom, Member.t()) :: true
  def put(name, member), do: :ets.insert(name, {member.node, member})

  @doc "What changes without a notice: round trips of members, health, metrics."
  @spec refresh(atom, [Member.t()], Tiebeam.health(), Tiebeam.metrics()) :: true
  def refresh(name, members, health, metrics) do
    vitals = [{{:vital, :health}, health}, {{:vital, :metrics}, metrics}]
    :ets.insert(name, vitals ++ for(member <- members, do: {member.node, member}))
  end

  @spec delete(atom, Member.t()) :: true
  def delete(name, member), do: :ets.delete(name, member.node)

  @spec subscribe(atom, pid) :: true
  def subscribe(name, pid), do: :ets.insert(name, {{:subscriber, pid}})

  @spec unsubscribe(atom, pid) :: true
  def unsubscribe(name, pid), do: :ets.delete(name, {:subscriber, pid})

  @spec subscribers(atom) :: [pid]
  def subscribers(name), do: :ets.select(name, [{{{:subscriber, :"$1"}}, [], [:"$1"]}])

  defp read(name, read) when is_atom(name) do
    read.()
  rescue
    ArgumentError ->
      reraise ArgumentError,
              "there is no cluster #{inspect(name)} on this node. " <>
                "Start it in a supervision tree: {Tiebeam, name: #{inspect(name)}}",
              __STACKTRACE__
  end

  defp read(name, _read) do
    raise ArgumentError, "a cluster is named by an atom, got: #{inspect(name)}"
  end
end
