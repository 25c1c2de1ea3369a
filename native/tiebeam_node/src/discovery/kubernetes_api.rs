//! The pods that Kubernetes' API lists for a label selector, as libcluster's `Cluster.Strategy.Kubernetes` finds them.
//!
//! Source: the *Kubernetes API* reference (`v1` endpoints and pods, `discovery.k8s.io/v1` endpoint slices); *Accessing the Kubernetes
//! API from a Pod* for the variables and the files of the service account.

mod client;
mod list;

use std::path::{Path, PathBuf};

use hyper::Uri;

use super::{Discovery, DiscoveryError, Found, PodNames};
use crate::node::Node;

/// Where Kubernetes puts the files of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KubernetesResource {
    /// The endpoints of services that have the labels: the pods that are ready.
    #[default]
    Endpoints,
    /// The same from endpoint slices, which Kubernetes 1.33 and later prefer.
    EndpointSlices,
    /// The pods that have the labels and have not ended, ready or not.
    Pods,
}

/// The nodes in the pods of a label selector.
///
/// The pod's service account must be allowed to `list` the resource in the namespace. Where a headless service can be made,
/// [`Kubernetes`](super::Kubernetes) needs no such rights.
#[derive(Clone, Debug)]
pub struct KubernetesApi {
    selector: String,
    namespace: Option<String>,
    resource: KubernetesResource,
    names: PodNames,
    domain: String,
    basename: Option<String>,
    server: Option<String>,
    service_account: PathBuf,
}

impl KubernetesApi {
    /// Asks for what this label selector selects, `app=my_app,tier in (web,worker)`, in the service account's namespace.
    pub fn new(selector: impl Into<String>) -> Self {
        Self {
            selector: selector.into(),
            namespace: None,
            resource: KubernetesResource::default(),
            names: PodNames::default(),
            domain: "cluster.local".to_owned(),
            basename: None,
            server: None,
            service_account: SERVICE_ACCOUNT.into(),
        }
    }

    /// Looks in this namespace.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// What is listed. Default [`KubernetesResource::Endpoints`].
    pub fn resource(mut self, resource: KubernetesResource) -> Self {
        self.resource = resource;
        self
    }

    /// How nodes are named. Default [`PodNames::Address`]. [`PodNames::Hostname`] finds only pods that have a host name, as
    /// those of a stateful set.
    pub fn names(mut self, names: PodNames) -> Self {
        self.names = names;
        self
    }

    /// The domain of the cluster, where it is not `cluster.local`.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// What is before the `@`. Default: that of the node itself.
    pub fn basename(mut self, basename: impl Into<String>) -> Self {
        self.basename = Some(basename.into());
        self
    }

    /// The API's address, `https://10.96.0.1:443`; nothing is sent without TLS. Default: the variables
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, which every pod has.
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// The directory with the files `token`, `ca.crt` and `namespace`, which are read at each look: tokens expire. Default:
    /// where Kubernetes puts them in a pod.
    pub fn service_account(mut self, directory: impl Into<PathBuf>) -> Self {
        self.service_account = directory.into();
        self
    }

    /// Where the API is.
    fn address(&self) -> Result<Uri, DiscoveryError> {
        let server = match &self.server {
            Some(server) => server.clone(),
            None => {
                let host = std::env::var("KUBERNETES_SERVICE_HOST").map_err(
                    |_| "KUBERNETES_SERVICE_HOST is not set, as it is in every pod: give the address of the server",
                )?;
                let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or("443".to_owned());
                match host.contains(':') {
                    true => format!("https://[{host}]:{port}"),
                    false => format!("https://{host}:{port}"),
                }
            }
        };
        let server: Uri = server
            .parse()
            .map_err(|error| format!("'{server}' is no address of an API server: {error}"))?;
        match server.scheme_str() {
            Some("https") => Ok(server),
            _ => Err(format!("'{server}' must begin with https://").into()),
        }
    }

    fn path(&self, namespace: &str) -> String {
        let (api, resource) = match self.resource {
            KubernetesResource::Endpoints => ("api/v1", "endpoints"),
            KubernetesResource::EndpointSlices => ("apis/discovery.k8s.io/v1", "endpointslices"),
            KubernetesResource::Pods => ("api/v1", "pods"),
        };
        let (namespace, selector) = (encoded(namespace), encoded(&self.selector));
        format!("/{api}/namespaces/{namespace}/{resource}?labelSelector={selector}")
    }
}

impl Discovery for KubernetesApi {
    fn describe(&self) -> String {
        format!("kubernetes api {}", self.selector)
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let server = self.address()?;
        let token = account(&self.service_account, "token")?;
        let namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => account(&self.service_account, "namespace")?,
        };
        let authorities = self.service_account.join("ca.crt");
        let answer = client::get(&server, &self.path(&namespace), &token, authorities).await?;
        let pods = list::pods(self.resource, &answer)?;
        let basename = self.basename.as_deref().unwrap_or(node.alive());
        let nodes = pods
            .iter()
            .filter_map(|pod| pod.node(basename, self.names, &self.domain));
        let mut nodes: Vec<String> = nodes.collect();
        nodes.sort();
        nodes.dedup();
        Ok(Found::all(nodes))
    }
}

/// A file of the service account, without the space around its text. It is small, and read without a thread of its own.
fn account(directory: &Path, file: &str) -> Result<String, DiscoveryError> {
    let path = directory.join(file);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        format!(
            "cannot read the service account's {}: {error}",
            path.display()
        )
    })?;
    Ok(text.trim().to_owned())
}

/// As part of a URL (RFC 3986, section 2).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into())
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_its_place() {
        let api = KubernetesApi::new("app=a,tier in (b)");
        assert_eq!(
            api.path("prod"),
            "/api/v1/namespaces/prod/endpoints?labelSelector=app%3Da%2Ctier%20in%20%28b%29"
        );
        let api = KubernetesApi::new("a");
        assert_eq!(
            api.clone().resource(KubernetesResource::Pods).path("a/b"),
            "/api/v1/namespaces/a%2Fb/pods?labelSelector=a"
        );
        assert_eq!(
            api.resource(KubernetesResource::EndpointSlices)
                .path("prod"),
            "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices?labelSelector=a"
        );
    }

    #[test]
    fn nothing_is_asked_without_tls() {
        let server = |server: &str| KubernetesApi::new("a").server(server).address();
        assert!(server("https://10.96.0.1:443").is_ok() && server("https://[fd00::1]").is_ok());
        for refused in [
            "http://10.96.0.1",
            "10.96.0.1:443",
            "https://",
            "no address",
        ] {
            assert!(server(refused).is_err(), "{refused}");
        }
    }
}
