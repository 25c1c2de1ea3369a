//! The pods behind a headless service, by the cluster's DNS: no access to the API is needed.
//!
//! Source: *Kubernetes DNS-Based Service Discovery*; libcluster's `Cluster.Strategy.Kubernetes.DNS` (names by address),
//! `Kubernetes` with `mode: :dns` (names of pods) and `Kubernetes.DNSSRV` (host names of a stateful set).

use super::resolver::{Answer, Asking, asking_settings};
use super::{Discovery, DiscoveryError, Found, Resolver, names};
use crate::node::Node;

/// What is after the `@` in the names of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNames {
    /// The address of the pod: `app@10.0.0.5`.
    #[default]
    Address,
    /// The pod's name by its address: `app@10-0-0-5.namespace.pod.cluster.local`.
    Pod,
    /// The host name of a stateful set's pod: `app@app-0.service.namespace.svc.cluster.local`.
    Hostname,
}

/// The nodes in the pods of a headless service (`clusterIP: None`).
#[derive(Clone, Debug)]
pub struct Kubernetes {
    service: String,
    namespace: Option<String>,
    domain: String,
    names: PodNames,
    asking: Asking,
}

impl Kubernetes {
    /// Asks for the pods of this service, in the pod's own namespace (by the search list of its `resolv.conf`).
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            namespace: None,
            domain: "cluster.local".to_owned(),
            names: PodNames::default(),
            asking: Asking::default(),
        }
    }

    /// The namespace of the service; needed for [`PodNames::Pod`], whose names have it.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The domain of the cluster, where it is not `cluster.local`. Used with a namespace only.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// How nodes are named. Default [`PodNames::Address`].
    pub fn names(mut self, names: PodNames) -> Self {
        self.names = names;
        self
    }

    asking_settings!();

    fn query(&self) -> String {
        match &self.namespace {
            Some(namespace) => {
                let domain = self.domain.trim_end_matches('.');
                format!("{}.{namespace}.svc.{domain}.", self.service)
            }
            None => self.service.clone(),
        }
    }
}

impl Discovery for Kubernetes {
    fn describe(&self) -> String {
        format!("kubernetes {}", self.query())
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let basename = self.asking.basename(node);
        let query = self.query();
        if self.names == PodNames::Hostname {
            let Answer { records, complete } = self.asking.resolver.targets(&query).await?;
            let nodes = records.iter().map(|host| names::at_host(basename, host));
            return Ok(Found {
                nodes: nodes.collect(),
                complete,
            });
        }
        let Answer { records, complete } = self.asking.resolver.addresses(&query).await?;
        let nodes = match (self.names, &self.namespace) {
            (PodNames::Pod, Some(namespace)) => {
                let host = |address| names::pod_host(address, namespace, &self.domain);
                let hosts = records.into_iter().map(host);
                hosts.map(|host| names::at_host(basename, &host)).collect()
            }
            (PodNames::Pod, None) => {
                return Err("the names of pods have their namespace in them: give it".into());
            }
            _ => {
                let nodes = records.into_iter();
                nodes
                    .map(|address| names::at_address(basename, address))
                    .collect()
            }
        };
        Ok(Found { nodes, complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_for_by_its_full_name_where_the_namespace_is_known() {
        assert_eq!(Kubernetes::new("app").query(), "app");
        let service = Kubernetes::new("app").namespace("prod");
        assert_eq!(service.query(), "app.prod.svc.cluster.local.");
        assert_eq!(
            service.domain("k.example.").query(),
            "app.prod.svc.k.example."
        );
    }
}
