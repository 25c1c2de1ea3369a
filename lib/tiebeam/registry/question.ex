defmodule Tiebeam.Registry.Question do
  @moduledoc false
  # What any node may ask about names and groups, and what it is told; a Rust node answers the same. Where two forms have
  # the same length, the last argument tells: metadata comes behind a pid.

  alias Tiebeam.{Group, Registry, Table}

  @type t ::
          {:read, (Tiebeam.name() -> term)}
          | {:long_read, (Tiebeam.name() -> term)}
          | {:change, :register | :unregister | :join | :leave, scope :: atom, Registry.name(), pid | nil,
             Registry.metadata()}

  @doc "`nil` if it is no request about names or groups."
  @spec parse(term) :: t | {:error, {:invalid_scope, String.t()}} | nil
  def parse({:names}), do: parse({:names, :default})
  def parse(:names), do: parse({:names, :default})
  def parse(:groups), do: parse({:groups, :default})
  def parse({:names, scope}), do: read(:long_read, scope, &names(&1, &2))
  def parse({:groups, scope}), do: read(:long_read, scope, &groups(&1, &2))
  def parse({:members, group}), do: parse({:members, :default, group})
  def parse({:members, scope, group}), do: read(:long_read, scope, &Group.members(&1, group, scope: &2))
  def parse({:whereis, name}), do: parse({:whereis, :default, name})
  def parse({:whereis, scope, name}), do: read(:read, scope, &Registry.whereis(&1, name, scope: &2))
  def parse({:lookup, name}), do: parse({:lookup, :default, name})
  def parse({:lookup, scope, name}), do: read(:read, scope, &Registry.lookup(&1, name, scope: &2))

  def parse({verb, name, pid}) when verb in [:register, :join] and is_pid(pid),
    do: change(verb, :default, name, pid, nil)

  def parse({verb, scope, name, pid}) when verb in [:register, :join] and is_pid(pid),
    do: change(verb, scope, name, pid, nil)

  def parse({verb, scope, name, pid, meta}) when verb in [:register, :join] and is_pid(pid),
    do: change(verb, scope, name, pid, meta)

  def parse({:unregister, name}), do: change(:unregister, :default, name, nil, nil)
  def parse({:unregister, scope, name}), do: change(:unregister, scope, name, nil, nil)
  def parse({:leave, group, pid}) when is_pid(pid), do: change(:leave, :default, group, pid, nil)
  def parse({:leave, scope, group, pid}) when is_pid(pid), do: change(:leave, scope, group, pid, nil)
  def parse(_request), do: nil

  defp read(kind, scope, read) do
    with scope when is_atom(scope) <- scope(scope), do: {kind, &read.(&1, scope)}
  end

  defp change(verb, scope, name, pid, meta) do
    with scope when is_atom(scope) <- scope(scope), do: {:change, verb, scope, name, pid, meta}
  end

  # An atom, or its text.
  defp scope(scope) when is_atom(scope), do: scope

  defp scope(scope) when is_binary(scope) and byte_size(scope) in 1..255 do
    if String.valid?(scope), do: String.to_atom(scope), else: scope({})
  end

  defp scope(_scope), do: {:error, {:invalid_scope, "a scope is an atom, or its text of at most 255 bytes"}}

  defp names(cluster, :global) do
    for name <- :global.registered_names(),
        pid = Registry.whereis(cluster, name, scope: :global),
        do: {name, pid, nil}
  end

  defp names(cluster, :strong), do: Registry.Strong.names(cluster)

  defp names(cluster, scope) do
    :ets.select(cluster, [{{{scope, :"$1"}, :"$2", :"$3", :_}, [], [{{:"$1", :"$2", :"$3"}}]}])
  end

  defp groups(cluster, scope) do
    cluster
    |> Table.groups_of()
    |> :ets.select([{{{scope, :"$1", :"$2"}, :"$3", :_}, [], [{{:"$1", {{:"$2", :"$3"}}}}]}])
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Map.to_list()
  end
end
