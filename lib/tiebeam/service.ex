defmodule Tiebeam.Service do
  @moduledoc """
  A process that offers something, as this node sees it: what `Tiebeam.Services` lists.
  """

  alias Tiebeam.{Registry, Table}

  @enforce_keys [:name, :pid, :node, :tags, :meta, :status]
  defstruct @enforce_keys

  @typedoc """
  - `:name` - of the service; many processes may offer one.
  - `:pid` - the process.
  - `:node` - where it runs.
  - `:tags` - what it can do, as it said when it was registered.
  - `:meta` - what else it said, or `nil`.
  - `:status` - that of its node: `:suspect` if the node did not answer lately and may still.
  """
  @type t :: %__MODULE__{
          name: Registry.name(),
          pid: pid,
          node: node,
          tags: [Registry.name()],
          meta: term,
          status: :alive | :suspect
        }

  @doc false
  # The service that a row of a group is, or `nil` if its node, or the process here, is gone. Metadata that was not made by
  # `Tiebeam.Services` says nothing.
  @spec of_row(cluster :: atom, {Registry.name(), pid, Registry.metadata(), owner :: node}) :: t | nil
  def of_row(cluster, {name, pid, metadata, owner}) do
    status = status(cluster, pid, owner)

    if status in [:alive, :suspect] and (node(pid) != node() or Process.alive?(pid)) do
      {tags, meta} = read(metadata)
      %__MODULE__{name: name, pid: pid, node: node(pid), tags: tags, meta: meta, status: status}
    end
  end

  # A node that is no member is as alive as the one that watches its process.
  defp status(cluster, pid, owner) do
    member = Table.member(cluster, node(pid)) || Table.member(cluster, owner)
    member && member.status
  end

  defp read(%{} = metadata) do
    tags = with tags when is_list(tags) <- metadata[:tags], do: proper(tags), else: (_ -> [])
    {tags, metadata[:meta]}
  end

  defp read(_metadata), do: {[], nil}

  defp proper([tag | tags]), do: [tag | proper(tags)]
  defp proper(_end), do: []
end
