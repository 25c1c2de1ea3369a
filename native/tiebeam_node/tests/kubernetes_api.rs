//! Kubernetes' API, as a server of the test's own speaks it on loopback, and what is found through it.

mod certificates;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use certificates::Authority;
use tiebeam_node::discovery::{Discovery, Found, KubernetesApi, KubernetesResource, PodNames};
use tiebeam_node::{Config, Cookie, EpmdMode, Node, TlsConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TOKEN: &str = "a token";

const ENDPOINTS: &str = r#"
{"kind": "EndpointsList", "apiVersion": "v1", "metadata": {"resourceVersion": "1234"}, "items": [
  {"metadata": {"name": "app-headless", "namespace": "prod"},
   "subsets": [{"addresses": [{"ip": "10.0.0.5", "hostname": "app-0",
                               "targetRef": {"kind": "Pod", "namespace": "prod", "name": "app-0"}},
                              {"ip": "fd00::6"}],
                "notReadyAddresses": [{"ip": "10.0.0.7"}],
                "ports": [{"port": 4369, "protocol": "TCP"}]}]},
  {"metadata": {"name": "empty", "namespace": "prod"}}]}"#;

const SLICES: &str = r#"
{"kind": "EndpointSliceList", "items": [
  {"metadata": {"name": "app-x7k2p", "namespace": "prod", "labels": {"kubernetes.io/service-name": "app-headless"}},
   "addressType": "IPv4",
   "endpoints": [{"addresses": ["10.0.0.5"], "conditions": {"ready": true}, "hostname": "app-0"},
                 {"addresses": ["10.0.0.6"]},
                 {"addresses": ["10.0.0.7"], "conditions": {"ready": false}}]},
  {"metadata": {"name": "empty", "namespace": "prod"}, "addressType": "IPv4", "endpoints": null}]}"#;

const PODS: &str = r#"
{"kind": "PodList", "items": [
  {"metadata": {"name": "app-0", "namespace": "prod"}, "spec": {"hostname": "app-0", "subdomain": "app-headless"},
   "status": {"phase": "Running", "podIP": "10.0.0.5"}},
  {"metadata": {"name": "app-1", "namespace": "prod"}, "spec": {}, "status": {"phase": "Pending"}},
  {"metadata": {"name": "job", "namespace": "prod"}, "spec": {}, "status": {"phase": "Succeeded", "podIP": "10.0.0.8"}}]}"#;

const OF_ENDPOINTS: &str = "/api/v1/namespaces/prod/endpoints?labelSelector=app%3Dmy_app";

/// Answers from a table, to whoever shows the token.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<HashMap<String, (u16, String)>>>);

impl Server {
    fn set(&self, path: &str, status: u16, body: impl Into<String>) {
        let mut answers = self.0.lock().unwrap();
        answers.insert(path.to_owned(), (status, body.into()));
    }

    /// Listens with the certificate of these settings; gives the address.
    async fn start(&self, tls: &TlsConfig) -> String {
        let (certificate, key) = tls.identity.clone().unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(certificate).unwrap()],
                PrivateKeyDer::from_pem_file(key).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((HOST, 0)).await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    // A client that does not trust this server ends the handshake.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        server.serve(stream).await;
                    }
                });
            }
        });
        address
    }

    async fn serve(&self, mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let known = head.contains(&format!("authorization: Bearer {TOKEN}\r\n"));
        let answer = self.0.lock().unwrap().get(path).cloned();
        let (status, body) = match answer {
            _ if !known => (
                401,
                r#"{"kind": "Status", "message": "Unauthorized"}"#.to_owned(),
            ),
            None => (404, "404 page not found".to_owned()),
            Some(answer) => answer,
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
        // Whoever finds it too long goes.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// A pod's service account: its files.
struct Account(PathBuf);

impl Account {
    fn new(authority: &TlsConfig) -> Self {
        let name = format!(
            "tiebeam_account_{}_{:x}",
            std::process::id(),
            rand::random::<u64>()
        );
        let account = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&account.0).unwrap();
        account.write("token", &format!("{TOKEN}\n"));
        account.write("namespace", "prod");
        account.trust(authority);
        account
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap();
    }

    fn trust(&self, authority: &TlsConfig) {
        std::fs::copy(&authority.ca, self.0.join("ca.crt")).unwrap();
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Left behind in the folder for such things at worst.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A node without others, a server and an account for it.
async fn pod(authority: &Authority) -> (Node, Server, Account, KubernetesApi) {
    let config = Config::new("x@127.0.0.1", Cookie::new("secret"))
        .listen(IpAddr::V4(HOST))
        .epmd(EpmdMode::None, 0);
    let node = Node::start(config).await.unwrap();
    let server = Server::default();
    let address = server.start(&authority.member(&["127.0.0.1"])).await;
    let account = Account::new(&authority.trust());
    let api = KubernetesApi::new("app=my_app")
        .server(address)
        .service_account(&account.0);
    (node, server, account, api)
}

#[tokio::test]
async fn endpoints_and_pods_are_names_of_nodes() {
    use KubernetesResource::{EndpointSlices, Endpoints, Pods};
    use PodNames::{Address, Hostname, Pod};
    let authority = Authority::new();
    let (node, server, _account, api) = pod(&authority).await;
    server.set(OF_ENDPOINTS, 200, ENDPOINTS);
    let query = "labelSelector=app%3Dmy_app";
    let slices = "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices";
    server.set(&format!("{slices}?{query}"), 200, SLICES);
    server.set(&format!("/api/v1/namespaces/prod/pods?{query}"), 200, PODS);
    let by_address = "x@10-0-0-5.prod.pod.cluster.local";
    let by_host = "x@app-0.app-headless.prod.svc.cluster.local";
    for (resource, names, expected) in [
        (Endpoints, Address, vec!["x@10.0.0.5", "x@fd00::6"]),
        (
            Endpoints,
            Pod,
            vec![by_address, "x@fd00--6.prod.pod.cluster.local"],
        ),
        (Endpoints, Hostname, vec![by_host]),
        (EndpointSlices, Address, vec!["x@10.0.0.5", "x@10.0.0.6"]),
        (EndpointSlices, Hostname, vec![by_host]),
        (Pods, Address, vec!["x@10.0.0.5"]),
        (Pods, Pod, vec![by_address]),
        (Pods, Hostname, vec![by_host]),
    ] {
        let mut api = api.clone().resource(resource).names(names);
        assert_eq!(api.find(&node).await.unwrap(), Found::all(expected));
    }
    // None is an answer, too.
    for empty in [r#"{"items": []}"#, r#"{"items": null}"#] {
        server.set(OF_ENDPOINTS, 200, empty);
        let none = Found::all(Vec::<String>::new());
        assert_eq!(api.clone().find(&node).await.unwrap(), none);
    }
    node.stop().await;
}

#[tokio::test]
async fn the_token_is_read_anew_at_each_look_and_shown_to_the_right_server_alone() {
    let authority = Authority::new();
    let (node, server, account, mut api) = pod(&authority).await;
    server.set(OF_ENDPOINTS, 200, ENDPOINTS);
    account.write("token", "an old one");
    let error = api.find(&node).await.unwrap_err().to_string();
    assert!(
        error.contains("401") && error.contains("Unauthorized"),
        "{error}"
    );
    account.write("token", TOKEN);
    assert_eq!(api.find(&node).await.unwrap().nodes.len(), 2);
    account.trust(&Authority::new().trust());
    let error = api.find(&node).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn an_error_says_what_is_wrong() {
    let authority = Authority::new();
    let (node, server, account, mut api) = pod(&authority).await;
    let says = async |api: &mut KubernetesApi, words: &str| {
        let error = api.find(&node).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    };
    says(&mut api, "404 page not found").await;
    let forbidden = r#"{"kind": "Status", "message": "endpoints is forbidden", "code": 403}"#;
    server.set(OF_ENDPOINTS, 403, forbidden);
    says(&mut api, "endpoints is forbidden").await;
    server.set(OF_ENDPOINTS, 200, "[");
    says(&mut api, "no list").await;
    server.set(OF_ENDPOINTS, 200, " ".repeat(17 * 1024 * 1024));
    says(&mut api, "longer than 16777216 bytes").await;
    says(
        &mut api.clone().server("https://127.0.0.1:1"),
        "127.0.0.1:1",
    )
    .await;
    says(&mut api.clone().namespace("other"), "404").await;
    std::fs::remove_file(account.0.join("namespace")).unwrap();
    says(&mut api, "namespace").await;
    node.stop().await;
}
