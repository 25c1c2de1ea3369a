defmodule Tiebeam.Discovery.DNS do
  @moduledoc """
  Nodes called `basename@address`, for all addresses of a name, as libcluster's `Cluster.Strategy.DNSPoll` and `dns_cluster` find them.

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.DNS, query: "app.internal"}]}

  ## Options

  - `:query` (a string) - The name to ask for, for A and AAAA records. Required. Without a dot at its end the system's search list
    is tried as well.
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
    case Resolver.addresses(state.query, state.nameservers) do
      {:error, reason} -> {:error, {state.query, reason}, state}
      {known, addresses} -> {known, names(addresses, state.basename || Name.own()), state}
    end
  end

  @doc """
  The names of nodes at these addresses.

      iex> Tiebeam.Discovery.DNS.names([{10, 0, 0, 5}, {0xfd00, 0, 0, 0, 0, 0, 0, 5}], "app")
      ["app@10.0.0.5", "app@fd00::5"]
  """
  @spec names([:inet.ip_address()], String.t()) :: [String.t()]
  def names(addresses, basename), do: Enum.map(addresses, &Name.at_address(basename, &1))
end
