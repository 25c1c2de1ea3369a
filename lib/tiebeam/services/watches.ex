defmodule Tiebeam.Services.Watches do
  @moduledoc false
  # Who watches services on this node: a part of the server's state. Of a scope that is watched it knows which services it has
  # told of, and whenever something may have changed it looks into the tables again: what differs is told.

  alias Tiebeam.{Group, Service, Table}
  alias Tiebeam.Services.Filter

  # Watches at a time: each change is compared with all of its scope.
  @max_watches 4096

  # `watches` are `{reference, pid, filter}` by monitor; `known` are services by scope, and by name and process, of scopes that are
  # watched.
  @enforce_keys [:cluster, :watches, :known]
  defstruct @enforce_keys

  @doc "Those of a server that crashed, with what it had told: the tables are as it left them."
  @spec new(cluster :: atom) :: struct
  def new(cluster) do
    rows = :ets.select(Table.members_of(cluster), [{{{:service_watch, :"$1"}, :"$2", :"$3"}, [], [:"$$"]}])

    for [reference, pid, filter] <- rows, reduce: %__MODULE__{cluster: cluster, watches: %{}, known: %{}} do
      state -> add(state, reference, pid, filter)
    end
  end

  @doc "A process watches from now on; answers what `Tiebeam.Services.watch/2` does."
  def watch(state, _pid, _filter) when map_size(state.watches) >= @max_watches,
    do: {{:error, {:busy, @max_watches}}, state}

  def watch(state, pid, filter) do
    reference = make_ref()
    :ets.insert(Table.members_of(state.cluster), {{:service_watch, reference}, pid, filter})
    state = add(state, reference, pid, filter)

    services = for {_key, service} <- state.known[filter.scope], Filter.passes?(filter, service), do: service

    {{:ok, reference, services}, state}
  end

  defp add(state, reference, pid, %Filter{scope: scope} = filter) do
    known = Map.put_new_lazy(state.known, scope, fn -> services(state.cluster, scope) end)
    watches = Map.put(state.watches, Process.monitor(pid), {reference, pid, filter})
    %{state | watches: watches, known: known}
  end

  @doc "A process does not watch any more."
  def unwatch(state, pid, reference) do
    case Enum.find(state.watches, &match?({_monitor, {^reference, ^pid, _filter}}, &1)) do
      {monitor, _watch} ->
        Process.demonitor(monitor, [:flush])
        ended(state, monitor)

      nil ->
        state
    end
  end

  @doc "A process that watched ended, or its watch did."
  def ended(state, monitor) do
    {{reference, _pid, filter}, watches} = Map.pop!(state.watches, monitor)
    :ets.delete(Table.members_of(state.cluster), {:service_watch, reference})
    watched? = Enum.any?(watches, fn {_monitor, {_, _, other}} -> other.scope == filter.scope end)
    known = if watched?, do: state.known, else: Map.delete(state.known, filter.scope)
    %{state | watches: watches, known: known}
  end

  @doc "A row of the table of groups was written or deleted."
  def changed(state, {scope, name, pid} = key) when is_map_key(state.known, scope) do
    service =
      with [{_key, meta, owner}] <- :ets.lookup(Table.groups_of(state.cluster), key),
           do: Service.of_row(state.cluster, {name, pid, meta, owner}),
           else: ([] -> nil)

    tell(state, scope, {name, pid}, service)
  end

  def changed(state, _key), do: state

  @doc "Anything may have changed: the status of a member, or all rows at once."
  def look(%{known: known} = state) when known == %{}, do: state

  def look(state) do
    for {scope, known} <- state.known, services = services(state.cluster, scope), reduce: state do
      state ->
        known
        |> Map.merge(services)
        |> Enum.reduce(state, fn {key, _}, state -> tell(state, scope, key, services[key]) end)
    end
  end

  defp services(cluster, scope) do
    for row <- Group.rows(cluster, scope, :any), service = Service.of_row(cluster, row), into: %{} do
      {{service.name, service.pid}, service}
    end
  end

  defp tell(state, scope, key, service) do
    {was, known} = Map.pop(state.known[scope], key)

    for {_monitor, {reference, pid, %Filter{scope: ^scope} = filter}} <- state.watches,
        {change, told} <- difference(filter, was, service) do
      send(pid, {:tiebeam, state.cluster, {:service, reference, change, told}})
    end

    known = if service, do: Map.put(known, key, service), else: known
    %{state | known: %{state.known | scope => known}}
  end

  defp difference(_filter, same, same), do: []

  defp difference(filter, was, service) do
    case {Filter.passes?(filter, was), Filter.passes?(filter, service)} do
      {false, true} -> [up: service]
      {true, true} -> [changed: service]
      {true, false} -> [down: was]
      {false, false} -> []
    end
  end
end
