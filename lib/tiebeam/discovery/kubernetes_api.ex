defmodule Tiebeam.Discovery.KubernetesAPI do
  @moduledoc """
  The nodes in the pods that Kubernetes' API lists for a label selector, as libcluster's `Cluster.Strategy.Kubernetes` finds them.

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.KubernetesAPI, selector: "app=my_app"}]}

  The pod's service account must be allowed to `list` the resource in the namespace (a `Role` and a `RoleBinding`). Where a headless
  service can be made, `Tiebeam.Discovery.Kubernetes` needs neither.

  ## Options

  - `:selector` (a string) - The label selector: `"app=my_app,tier in (web,worker)"`. Required.
  - `:namespace` (a string) - The namespace that is looked in. Default: the service account's.
  - `:resource` (an atom) - What is listed:
      - `:endpoints` - the endpoints of services that have these labels: the pods that are ready. The default.
      - `:endpoint_slices` - the same from endpoint slices, which Kubernetes 1.33 and later prefer.
      - `:pods` - the pods that have these labels and have not ended, ready or not.
  - `:names` (an atom) - How nodes are named:
      - `:address` - `app@10.0.0.5`, the address of the pod. The default.
      - `:pod` - `app@10-0-0-5.namespace.pod.cluster.local`.
      - `:hostname` - `app@app-0.service.namespace.svc.cluster.local`; only pods that have a host name, as those of a stateful set.
  - `:domain` (a string) - The domain of the cluster. Default: `"cluster.local"`.
  - `:basename` (a string) - What is before the `@`. Default: that of this node.
  - `:server` (a string) - The API's address, `"https://10.96.0.1:443"`; nothing is sent without TLS. Default: the variables
    `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, which every pod has.
  - `:service_account` (a string) - The directory with the files `token`, `ca.crt` and `namespace`, which are read at each look: tokens
    expire. Default: `"/var/run/secrets/kubernetes.io/serviceaccount"`.

  And those of all: see `Tiebeam.Discovery`. It uses OTP's applications `:inets` and `:ssl`: list them in `:extra_applications` of
  your `mix.exs`, so that a release has them.
  """

  @behaviour Tiebeam.Discovery

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.{JSON, Name}
  alias Tiebeam.Discovery.KubernetesAPI.Client

  @service_account "/var/run/secrets/kubernetes.io/serviceaccount"

  # How much of the server's own words is in an error.
  @max_message 512

  @impl true
  def init(options) do
    text = &(&1 == nil or is_binary(&1))

    Discovery.options!(__MODULE__, options, [
      {:selector, nil, &is_binary/1, "a string"},
      {:namespace, nil, text, "a string"},
      {:resource, :endpoints, &(&1 in [:endpoints, :endpoint_slices, :pods]),
       ":endpoints, :endpoint_slices or :pods"},
      {:names, :address, &(&1 in [:address, :pod, :hostname]), ":address, :pod or :hostname"},
      {:domain, "cluster.local", &is_binary/1, "a string"},
      {:basename, nil, &Name.basename?/1, "the name of a node before the @"},
      {:server, nil, &server?/1, "an address that begins with https://"},
      {:service_account, @service_account, &is_binary/1, "a directory"}
    ])
  end

  defp server?(nil), do: true

  defp server?(server),
    do: is_binary(server) and match?(%{scheme: "https", host: <<_, _::binary>>}, URI.parse(server))

  @impl true
  def find(state) do
    with {:ok, server} <- server(state.server),
         {:ok, token} <- account(state, "token"),
         {:ok, namespace} <- namespace(state),
         url = server <> path(state.resource, namespace, state.selector),
         {:ok, answer} <- ask(url, token, Path.join(state.service_account, "ca.crt")),
         {:ok, list} <- JSON.decode(answer) do
      {:ok, nodes(list, state, state.basename || Name.own()), state}
    else
      {:error, reason} -> {:error, reason, state}
    end
  end

  defp server(nil) do
    case {System.get_env("KUBERNETES_SERVICE_HOST"), System.get_env("KUBERNETES_SERVICE_PORT", "443")} do
      {nil, _port} -> {:error, "KUBERNETES_SERVICE_HOST is not set, as it is in every pod: give :server"}
      {host, port} -> {:ok, "https://#{if String.contains?(host, ":"), do: "[#{host}]", else: host}:#{port}"}
    end
  end

  defp server(server), do: {:ok, String.trim_trailing(server, "/")}

  defp namespace(%{namespace: nil} = state), do: account(state, "namespace")
  defp namespace(%{namespace: namespace}), do: {:ok, namespace}

  defp account(state, file) do
    path = Path.join(state.service_account, file)

    case File.read(path) do
      {:ok, text} -> {:ok, String.trim(text)}
      {:error, reason} -> {:error, {:service_account, path, reason}}
    end
  end

  defp ask(url, token, authorities) do
    case Client.get(url, token, authorities) do
      {:ok, answer} -> {:ok, answer}
      {:error, {:status, status, body}} -> {:error, {:status, status, message(body)}}
      {:error, reason} -> {:error, {:request, reason}}
    end
  end

  # A failure is an object of kind `Status`.
  defp message(body) do
    case JSON.decode(body) do
      {:ok, %{"message" => message}} when is_binary(message) -> String.slice(message, 0, @max_message)
      _other -> binary_part(body, 0, min(byte_size(body), @max_message))
    end
  end

  @doc """
  What is asked for.

      iex> Tiebeam.Discovery.KubernetesAPI.path(:pods, "prod", "app=my_app")
      "/api/v1/namespaces/prod/pods?labelSelector=app%3Dmy_app"
      iex> Tiebeam.Discovery.KubernetesAPI.path(:endpoint_slices, "prod", "a")
      "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices?labelSelector=a"
  """
  @spec path(:endpoints | :endpoint_slices | :pods, String.t(), String.t()) :: String.t()
  def path(resource, namespace, selector) do
    {api, name} =
      case resource do
        :endpoints -> {"api/v1", "endpoints"}
        :endpoint_slices -> {"apis/discovery.k8s.io/v1", "endpointslices"}
        :pods -> {"api/v1", "pods"}
      end

    encode = &URI.encode(&1, fn character -> URI.char_unreserved?(character) end)
    "/#{api}/namespaces/#{encode.(namespace)}/#{name}?labelSelector=#{encode.(selector)}"
  end

  @doc """
  The names of nodes in a list of the resource, decoded. What is not as it should be is passed over.

      iex> list = %{"items" => [%{"metadata" => %{"namespace" => "prod", "name" => "app"},
      ...>   "subsets" => [%{"addresses" => [%{"ip" => "10.0.0.5", "hostname" => "app-0"}]}]}]}
      iex> for names <- [:address, :pod, :hostname] do
      ...>   state = Tiebeam.Discovery.KubernetesAPI.init(selector: "app", names: names)
      ...>   Tiebeam.Discovery.KubernetesAPI.nodes(list, state, "x")
      ...> end
      [["x@10.0.0.5"], ["x@10-0-0-5.prod.pod.cluster.local"], ["x@app-0.app.prod.svc.cluster.local"]]
  """
  @spec nodes(term, map, String.t()) :: [String.t()]
  def nodes(%{"items" => items}, state, basename) when is_list(items) do
    for item <- items,
        {address, hostname, service} <- pods(state.resource, item),
        {:ok, address} <- [parse(address)],
        name <- name(state, basename, address, hostname, service, at(item, ["metadata", "namespace"])),
        uniq: true,
        do: name
  end

  def nodes(_other, _state, _basename), do: []

  # The address, the host name and the service of each pod in an item.
  defp pods(:endpoints, item) do
    for subset <- list(item, "subsets"), pod <- list(subset, "addresses") do
      {at(pod, ["ip"]), at(pod, ["hostname"]), at(item, ["metadata", "name"])}
    end
  end

  defp pods(:endpoint_slices, item) do
    service = at(item, ["metadata", "labels", "kubernetes.io/service-name"])

    for endpoint <- list(item, "endpoints"),
        # Not told is ready.
        at(endpoint, ["conditions", "ready"]) != false,
        address <- list(endpoint, "addresses"),
        do: {address, at(endpoint, ["hostname"]), service}
  end

  defp pods(:pods, item) do
    # The address of one that has ended may be another's.
    if at(item, ["status", "phase"]) in ["Succeeded", "Failed"],
      do: [],
      else: [{at(item, ["status", "podIP"]), at(item, ["spec", "hostname"]), at(item, ["spec", "subdomain"])}]
  end

  defp list(value, key), do: with(list when not is_list(list) <- at(value, [key]), do: [])

  defp at(value, []), do: value
  defp at(%{} = map, [key | keys]), do: at(map[key], keys)
  defp at(_other, _keys), do: nil

  defp parse(address) when is_binary(address), do: :inet.parse_strict_address(to_charlist(address))
  defp parse(_other), do: :error

  defp name(%{names: :address}, basename, address, _hostname, _service, _namespace),
    do: [Name.at_address(basename, address)]

  defp name(%{names: :pod} = state, basename, address, _hostname, _service, namespace)
       when is_binary(namespace),
       do: [Name.at_host(basename, Name.pod_host(address, namespace, state.domain))]

  defp name(%{names: :hostname} = state, basename, _address, hostname, service, namespace)
       when is_binary(hostname) and is_binary(service) and is_binary(namespace) do
    domain = String.trim_trailing(state.domain, ".")
    [Name.at_host(basename, "#{hostname}.#{service}.#{namespace}.svc.#{domain}")]
  end

  defp name(_state, _basename, _address, _hostname, _service, _namespace), do: []
end
