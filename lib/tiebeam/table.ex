defmodule Tiebeam.Table do
  @moduledoc false
  # The ETS tables that callers read. The supervisor owns them, so that they outlive a crash of the server; the server
  # alone writes, but for names that callers claim (`Tiebeam.Registry.Claim`). The one that is named after the cluster is read most often:
  #
  # | table | rows |
  # |---|---|
  # | names (has the cluster's name) | `{{scope, name}, pid, meta, owner or {:claim, caller}}`, `{{scope}, count}`, `{:process, atom, counter of claims, whether there may be any}`, `{:members, table}`, `{:groups, table}`, `{:agreed, table}`, `{:leader, node, term}`, `{:lease, term, until}` |
  # | groups | `{{scope, group, pid}, meta, owner}` |
  # | members | `{node, member}`, `{{:vital, :health or :metrics}, map}`, `{{:option, key}, value}`, `{{:subscriber, pid}}`, `{{:watcher, pid}}`, `{{:service_watch, reference}, pid, filter}`, `{{:choice, pid, scope, name}, on_conflict, resolve}`, `{{:manager, kind, name}, {pid, policy}}` |
  # | agreed | `{{:key, binary}, revision, value}`, `{{:lock or :singleton or :name, name}, token, pid, meta}` |
  #
  # Those of names and groups are written by `Tiebeam.Registry.Driver`, what a group agreed on by `Tiebeam.Leadership.Driver`, which
  # keeps `{{:leader_subscriber, pid}}` and `{{:key_watcher, pid, prefix}}` among the members.

  alias Tiebeam.Member

  @spec new(name :: atom, process :: atom, metadata :: binary) :: :ok
  def new(name, process, metadata) do
    :ets.new(name, [:named_table, :set, :public, read_concurrency: true, write_concurrency: true])
    members = :ets.new(Tiebeam.Members, [:ordered_set, :public, read_concurrency: true])
    groups = :ets.new(Tiebeam.Groups, [:ordered_set, :public, read_concurrency: true])
    agreed = :ets.new(Tiebeam.Agreed, [:ordered_set, :public, read_concurrency: true])
    :ets.insert(members, {{:option, :metadata}, metadata})

    :ets.insert(name, [
      {:process, process, :atomics.new(1, []), false},
      {:members, members},
      {:groups, groups},
      {:agreed, agreed}
    ])

    :ok
  end

  @doc "All members in the order of their names."
  @spec members(atom) :: [Member.t()]
  def members(name) do
    read(name, fn -> :ets.select(members_of(name), [{{:"$1", :"$2"}, [{:is_atom, :"$1"}], [:"$2"]}]) end)
  end

  @spec member(atom, node) :: Member.t() | nil
  def member(name, node) do
    case read(name, fn -> :ets.lookup(members_of(name), node) end) do
      [{^node, member}] -> member
      [] -> nil
    end
  end

  @doc "Whether a node is a suspect."
  @spec suspect?(atom, node) :: boolean
  def suspect?(name, node), do: match?(%Member{status: :suspect}, member(name, node))

  @spec health(atom) :: Tiebeam.health()
  def health(name), do: read(name, fn -> :ets.lookup_element(members_of(name), {:vital, :health}, 2) end)

  @spec metrics(atom) :: Tiebeam.metrics()
  def metrics(name), do: read(name, fn -> :ets.lookup_element(members_of(name), {:vital, :metrics}, 2) end)

  @doc "The registered name of the cluster's server."
  @spec process(atom) :: atom
  def process(name) do
    read(name, fn -> :ets.lookup_element(name, :process, 2) end)
  end

  @doc "The server, the counter of claims, and whether callers may make any: see `Tiebeam.Registry.Claim`."
  @spec claims(atom) :: {atom, :atomics.atomics_ref(), boolean}
  def claims(name) do
    [{:process, process, counter, open}] = read(name, fn -> :ets.lookup(name, :process) end)
    {process, counter, open}
  end

  @spec set_claims(atom, boolean) :: boolean
  def set_claims(name, open), do: :ets.update_element(name, :process, {4, open})

  @doc "What this node tells about itself: the option, or what replaced it."
  @spec metadata(atom) :: binary
  def metadata(name), do: :ets.lookup_element(members_of(name), {:option, :metadata}, 2)

  @spec put_metadata(atom, binary) :: true
  def put_metadata(name, metadata), do: :ets.insert(members_of(name), {{:option, :metadata}, metadata})

  @spec put(atom, Member.t()) :: true
  def put(name, member), do: :ets.insert(members_of(name), {member.node, member})

  @doc "What changes without a notice: round trips of members, health, metrics."
  @spec refresh(atom, [Member.t()], Tiebeam.health(), Tiebeam.metrics()) :: true
  def refresh(name, members, health, metrics) do
    vitals = [{{:vital, :health}, health}, {{:vital, :metrics}, metrics}]
    :ets.insert(members_of(name), vitals ++ for(member <- members, do: {member.node, member}))
  end

  @spec delete(atom, Member.t()) :: true
  def delete(name, member), do: :ets.delete(members_of(name), member.node)

  @spec subscribe(atom, pid) :: true
  def subscribe(name, pid), do: :ets.insert(members_of(name), {{:subscriber, pid}})

  @spec unsubscribe(atom, pid) :: true
  def unsubscribe(name, pid), do: :ets.delete(members_of(name), {:subscriber, pid})

  @spec subscribers(atom) :: [pid]
  def subscribers(name), do: :ets.select(members_of(name), [{{{:subscriber, :"$1"}}, [], [:"$1"]}])

  @doc "The manager of a ring or a pool on this node, which may have ended, and its policy."
  @spec manager(atom, :ring | :pool, Tiebeam.Registry.name()) :: {pid, Tiebeam.Placement.Policy.t()} | nil
  def manager(name, kind, task) do
    case read(name, fn -> :ets.lookup(members_of(name), {:manager, kind, task}) end) do
      [{_key, manager}] -> manager
      [] -> nil
    end
  end

  @doc "Puts the caller there, unless another one is there that runs."
  @spec put_new_manager(atom, :ring | :pool, Tiebeam.Registry.name(), {pid, Tiebeam.Placement.Policy.t()}) ::
          :ok | {:error, pid}
  def put_new_manager(name, kind, task, {pid, _policy} = manager) do
    members = read(name, fn -> members_of(name) end)
    key = {:manager, kind, task}

    case not :ets.insert_new(members, {key, manager}) and :ets.lookup(members, key) do
      false ->
        :ok

      [{_key, {^pid, _policy}}] ->
        :ok

      [{_key, {other, _policy}} = row] ->
        if Process.alive?(other) do
          {:error, other}
        else
          # That one alone: another caller may have been faster.
          :ets.delete_object(members, row)
          put_new_manager(name, kind, task, manager)
        end

      [] ->
        put_new_manager(name, kind, task, manager)
    end
  end

  @doc "Tells the manager of a ring or a pool that the table of claims changed, if there is one."
  @spec tell_manager(:ets.table(), :ring | :pool, Tiebeam.Registry.name()) :: :ok
  def tell_manager(members, kind, task) do
    for {_key, {pid, _policy}} <- :ets.lookup(members, {:manager, kind, task}), do: send(pid, :changed)
    :ok
  end

  @doc "Tells all managers that who takes part, or who leads, changed."
  @spec tell_managers(:ets.table()) :: :ok
  def tell_managers(members) do
    for pid <- :ets.select(members, [{{{:manager, :_, :_}, {:"$1", :_}}, [], [:"$1"]}]),
        do: send(pid, :changed)

    :ok
  end

  @spec delete_manager(atom, :ring | :pool, Tiebeam.Registry.name(), pid) :: :ok
  def delete_manager(name, kind, task, pid) do
    :ets.select_delete(members_of(name), [
      {{{:manager, kind, :"$1"}, {pid, :_}}, [{:"=:=", :"$1", {:const, task}}], [true]}
    ])

    :ok
  end

  @doc "Raises what a read of a cluster that is not there raises."
  @spec no_cluster!(term, Exception.stacktrace()) :: no_return
  def no_cluster!(name, stacktrace) when is_atom(name) do
    reraise ArgumentError,
            "there is no cluster #{inspect(name)} on this node. " <>
              "Start it in a supervision tree: {Tiebeam, name: #{inspect(name)}}",
            stacktrace
  end

  def no_cluster!(name, _stacktrace) do
    raise ArgumentError, "a cluster is named by an atom, got: #{inspect(name)}"
  end

  @doc "The table of members, options and subscribers."
  @spec members_of(atom) :: :ets.table()
  def members_of(name), do: :ets.lookup_element(name, :members, 2)

  @doc "The table of groups."
  @spec groups_of(atom) :: :ets.table()
  def groups_of(name), do: read(name, fn -> :ets.lookup_element(name, :groups, 2) end)

  @doc "The table of what a group agreed on."
  @spec agreed_of(atom) :: :ets.table()
  def agreed_of(name), do: read(name, fn -> :ets.lookup_element(name, :agreed, 2) end)

  @doc "Who leads, as far as this node knows."
  @spec leader(atom) :: {node | nil, term :: non_neg_integer}
  def leader(name) do
    case read(name, fn -> :ets.lookup(name, :leader) end) do
      [{:leader, node, term}] -> {node, term}
      [] -> {nil, 0}
    end
  end

  @doc "Until when this node may say that it leads, in the monotonic time of this VM."
  @spec lease(atom) :: {term :: pos_integer, until :: integer} | nil
  def lease(name) do
    case read(name, fn -> :ets.lookup(name, :lease) end) do
      [{:lease, term, until}] -> {term, until}
      [] -> nil
    end
  end

  defp read(name, read) when is_atom(name) do
    read.()
  rescue
    ArgumentError -> no_cluster!(name, __STACKTRACE__)
  end

  defp read(name, _read), do: no_cluster!(name, [])
end
