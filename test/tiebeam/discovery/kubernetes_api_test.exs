# Kubernetes' API, as a server of the tests' own speaks it, and what is made of its answers.
defmodule Tiebeam.Discovery.KubernetesAPITest do
  use ExUnit.Case, async: true

  alias Support.{Certificates, KubernetesServer}
  alias Tiebeam.Discovery.{JSON, KubernetesAPI}

  doctest JSON
  doctest KubernetesAPI

  @token "a token"

  @endpoints """
  {"kind": "EndpointsList", "apiVersion": "v1", "metadata": {"resourceVersion": "1234"}, "items": [
    {"metadata": {"name": "app-headless", "namespace": "prod"},
     "subsets": [{"addresses": [{"ip": "10.0.0.5", "hostname": "app-0",
                                 "targetRef": {"kind": "Pod", "namespace": "prod", "name": "app-0"}},
                                {"ip": "fd00::6"}],
                  "notReadyAddresses": [{"ip": "10.0.0.7"}],
                  "ports": [{"port": 4369, "protocol": "TCP"}]}]},
    {"metadata": {"name": "empty", "namespace": "prod"}}]}
  """

  @slices """
  {"kind": "EndpointSliceList", "items": [
    {"metadata": {"name": "app-x7k2p", "namespace": "prod", "labels": {"kubernetes.io/service-name": "app-headless"}},
     "addressType": "IPv4",
     "endpoints": [{"addresses": ["10.0.0.5"], "conditions": {"ready": true}, "hostname": "app-0"},
                   {"addresses": ["10.0.0.6"]},
                   {"addresses": ["10.0.0.7"], "conditions": {"ready": false}}]}]}
  """

  @pods """
  {"kind": "PodList", "items": [
    {"metadata": {"name": "app-0", "namespace": "prod"}, "spec": {"hostname": "app-0", "subdomain": "app-headless"},
     "status": {"phase": "Running", "podIP": "10.0.0.5"}},
    {"metadata": {"name": "app-1", "namespace": "prod"}, "spec": {}, "status": {"phase": "Pending"}},
    {"metadata": {"name": "job", "namespace": "prod"}, "spec": {}, "status": {"phase": "Succeeded", "podIP": "10.0.0.8"}}]}
  """

  @paths %{
    endpoints: "/api/v1/namespaces/prod/endpoints?labelSelector=app%3Dmy_app",
    endpoint_slices: "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices?labelSelector=app%3Dmy_app",
    pods: "/api/v1/namespaces/prod/pods?labelSelector=app%3Dmy_app"
  }

  setup_all do
    authority = Certificates.authority("a cluster's authority")
    %{authority: authority, certificate: Certificates.certificate(authority, ["127.0.0.1"])}
  end

  # The files of a service account, and the options that use them.
  setup %{authority: authority, certificate: certificate} do
    server = start_supervised!({KubernetesServer, certificate: certificate, token: @token})
    account = Path.join(authority.folder, "account#{System.unique_integer([:positive])}")
    File.mkdir_p!(account)
    File.write!(Path.join(account, "token"), @token <> "\n")
    File.write!(Path.join(account, "namespace"), "prod")
    File.cp!(authority.ca, Path.join(account, "ca.crt"))

    options = [
      selector: "app=my_app",
      basename: "x",
      server: KubernetesServer.url(server),
      service_account: account
    ]

    %{server: server, account: account, options: options}
  end

  defp find(options), do: options |> KubernetesAPI.init() |> KubernetesAPI.find()

  test "endpoints and pods are names of nodes", %{server: server, options: options} do
    for {resource, body} <- [endpoints: @endpoints, endpoint_slices: @slices, pods: @pods],
        do: KubernetesServer.set(server, @paths[resource], body)

    pod = "x@10-0-0-5.prod.pod.cluster.local"
    hostname = "x@app-0.app-headless.prod.svc.cluster.local"

    for {resource, names, expected} <- [
          {:endpoints, :address, ["x@10.0.0.5", "x@fd00::6"]},
          {:endpoints, :pod, [pod, "x@fd00--6.prod.pod.cluster.local"]},
          {:endpoints, :hostname, [hostname]},
          {:endpoint_slices, :address, ["x@10.0.0.5", "x@10.0.0.6"]},
          {:endpoint_slices, :hostname, [hostname]},
          {:pods, :address, ["x@10.0.0.5"]},
          {:pods, :pod, [pod]},
          {:pods, :hostname, [hostname]}
        ] do
      assert {:ok, ^expected, _state} = find([resource: resource, names: names] ++ options)
    end

    # None is an answer, too.
    KubernetesServer.set(server, @paths.endpoints, ~s({"items": []}))
    assert {:ok, [], _state} = find(options)
  end

  test "the token is read anew at each look", %{server: server, account: account, options: options} do
    KubernetesServer.set(server, @paths.endpoints, @endpoints)
    state = KubernetesAPI.init(options)
    File.write!(Path.join(account, "token"), "an old one")
    assert {:error, {:status, 401, "Unauthorized"}, state} = KubernetesAPI.find(state)
    File.write!(Path.join(account, "token"), @token)
    assert {:ok, [_, _], _state} = KubernetesAPI.find(state)
  end

  test "an error says what is wrong", %{server: server, account: account, options: options} do
    assert {:error, {:status, 404, "404 page not found"}, _state} = find(options)
    forbidden = ~s({"kind": "Status", "message": "endpoints is forbidden", "code": 403})
    KubernetesServer.set(server, @paths.endpoints, {403, forbidden})
    assert {:error, {:status, 403, "endpoints is forbidden"}, _state} = find(options)
    KubernetesServer.set(server, @paths.endpoints, "[")
    assert {:error, {:json, 1}, _state} = find(options)
    KubernetesServer.set(server, @paths.endpoints, String.duplicate(" ", 17 * 1024 * 1024))
    assert {:error, {:request, {:too_long, 16_777_216}}, _state} = find(options)
    assert {:error, {:request, _reason}, _state} = find(Keyword.put(options, :server, "https://127.0.0.1:1"))
    File.rm!(Path.join(account, "namespace"))
    path = Path.join(account, "namespace")
    assert {:error, {:service_account, ^path, :enoent}, _state} = find(options)
    assert {:error, {:status, 404, _}, _state} = find([namespace: "other"] ++ options)
  end

  @tag :capture_log
  test "a server of another authority gets no token", %{account: account, options: options} do
    stranger = Certificates.authority("another authority")
    File.cp!(stranger.ca, Path.join(account, "ca.crt"))
    assert {:error, {:request, {:failed_connect, reason}}, _state} = find(options)
    assert inspect(reason) =~ "tls_alert"
  end

  test "what is not as it should be is passed over" do
    for resource <- [:endpoints, :endpoint_slices, :pods],
        names <- [:address, :pod, :hostname],
        state = KubernetesAPI.init(selector: "a", resource: resource, names: names),
        list <- [
          nil,
          [],
          %{},
          %{"items" => nil},
          %{"items" => [nil, "x", %{}, %{"metadata" => 1, "subsets" => [1, %{"addresses" => [%{}, 2]}]}]},
          %{
            "items" => [
              %{"endpoints" => [%{"addresses" => ["no address", 5]}], "status" => %{"podIP" => "x"}}
            ]
          }
        ] do
      assert KubernetesAPI.nodes(list, state, "x") == []
    end
  end
end
