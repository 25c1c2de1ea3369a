defmodule Tiebeam.Discovery.Kubernetes do
  @moduledoc """
  The nodes in the pods behind a headless service (`clusterIP: None`), by the cluster's DNS: no access to the API is needed.

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.Kubernetes, service: "app-headless", namespace: "prod"}]}

  ## Options

  - `:service` (a string) - The name of the service. Required.
  - `:namespace` (a string) - Its namespace. Default: the pod's own, by the search list of its `resolv.conf`.
  - `:domain` (a string) - The domain of the cluster, used with a namespace. Default: `"cluster.local"`.
  - `:names` (an atom) - How nodes are named; as in libcluster's `Kubernetes.DNS`, in `Kubernetes` with `mode: :dns`, and in
    `Kubernetes.DNSSRV`:
      - `:address` - `app@10.0.0.5`, the address of the pod. The default.
      - `:pod` - `app@10-0-0-5.namespace.pod.cluster.local`; needs the namespace.
      - `:hostname` - `app@app-0.service.namespace.svc.cluster.local`, the host name in a stateful set.
  - `:basename` (a string) - What is before the `@`. Default: that of this node.
  - `:nameservers` (a list of addresses and ports) - Name servers to ask instead of the system's: `[{{127, 0, 0, 1}, 53}]`.

  And those of all: see `Tiebeam.Discovery`.
  """

  @behaviour Tiebeam.Discovery

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.{Name, Resolver}

  @impl true
  def init(options) do
    state =
      Discovery.options!(__MODULE__, options, [
        {:service, nil, &is_binary/1, "a string"},
        {:namespace, nil, &(&1 == nil or is_binary(&1)), "a string"},
        {:domain, "cluster.local", &is_binary/1, "a string"},
        {:names, :address, &(&1 in [:address, :pod, :hostname]), ":address, :pod or :hostname"}
        | Resolver.options()
      ])

    if state.names == :pod and state.namespace == nil do
      raise ArgumentError,
            "the names of pods have their namespace in them: give #{inspect(__MODULE__)} a :namespace"
    end

    state
  end

  @impl true
  def find(%{names: :hostname} = state) do
    case Resolver.targets(query(state), state.nameservers) do
      {:ok, hosts} -> {:ok, Enum.map(hosts, &Name.at_host(basename(state), &1)), state}
      {:error, reason} -> {:error, {query(state), reason}, state}
    end
  end

  def find(state) do
    case Resolver.addresses(query(state), state.nameservers) do
      {:error, reason} -> {:error, {query(state), reason}, state}
      {known, addresses} -> {known, Enum.map(addresses, &name(state, &1)), state}
    end
  end

  @doc """
  The name that is asked for.

      iex> options = [service: "app", namespace: "prod"]
      iex> options |> Tiebeam.Discovery.Kubernetes.init() |> Tiebeam.Discovery.Kubernetes.query()
      "app.prod.svc.cluster.local."
  """
  @spec query(map) :: String.t()
  def query(%{namespace: nil, service: service}), do: service

  def query(%{service: service, namespace: namespace, domain: domain}),
    do: "#{service}.#{namespace}.svc.#{String.trim_trailing(domain, ".")}."

  defp name(%{names: :address} = state, address), do: Name.at_address(basename(state), address)

  defp name(%{names: :pod} = state, address),
    do: Name.at_host(basename(state), Name.pod_host(address, state.namespace, state.domain))

  defp basename(state), do: state.basename || Name.own()
end
