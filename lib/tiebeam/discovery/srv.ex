defmodule Tiebeam.Discovery.SRV do
  @moduledoc """
  Nodes called `basename@host`, for the targets of all SRV records of a name (RFC 2782).

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.SRV, query: "_app._tcp.example.org"}]}

  Port, priority and weight of the records are not used: nodes are asked for at epmd as usual.

  ## Options

  - `:query` (a string) - The name to ask for. Required. Without a dot at its end the system's search list is tried as well.
  - `:basename` (a string) - What is before the `@`. Default: that of this node.
  - `:nameservers` (a list of addresses and ports) - Name servers to ask instead of the system's: `[{{127, 0, 0, 1}, 53}]`.

  And those of all: see `Tiebeam.Discovery`.
  """

  @behaviour Tiebeam.Discovery

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.{Name, Resolver}

  @impl true
  def init(options) do
    Discovery.options!(__MODULE__, options, [{:query, nil, &is_binary/1, "a string"} | Resolver.options()])
  end

  @impl true
  def find(state) do
    case Resolver.targets(state.query, state.nameservers) do
      {:ok, targets} -> {:ok, names(targets, state.basename || Name.own()), state}
      {:error, reason} -> {:error, {state.query, reason}, state}
    end
  end

  @doc """
  The names of nodes on these hosts.

      iex> Tiebeam.Discovery.SRV.names(["app-0.example.org."], "app")
      ["app@app-0.example.org"]
  """
  @spec names([String.t()], String.t()) :: [String.t()]
  def names(targets, basename), do: Enum.map(targets, &Name.at_host(basename, &1))
end
