defmodule Tiebeam.Discovery.Static do
  @moduledoc """
  Nodes that are named: looked for until they are there, and again when they are lost.

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.Static, nodes: [:"a@10.0.0.1", :"b@10.0.0.2"]}]}

  The option `:join` of `Tiebeam.start_link/1` does nearly the same, and forgets a member that said goodbye; this one dials it again.
  The own name is passed over, so that all nodes can share one list.

  ## Options

  - `:nodes` (a list of node names) - Required.

  And those of all: see `Tiebeam.Discovery`.
  """

  @behaviour Tiebeam.Discovery

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.Name

  @doc """
      iex> Tiebeam.Discovery.Static.init(nodes: [:a@h])
      [:a@h]
  """
  @impl true
  def init(options) do
    schema = [{:nodes, nil, &nodes?/1, "a list of node names"}]
    Discovery.options!(__MODULE__, options, schema).nodes
  end

  @impl true
  def find(nodes), do: {:ok, nodes, nodes}

  defp nodes?(nodes), do: is_list(nodes) and Enum.all?(nodes, &(is_atom(&1) and Name.parse(&1) != :error))
end
