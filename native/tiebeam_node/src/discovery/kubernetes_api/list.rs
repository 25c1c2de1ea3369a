//! From what the API server answers to names of nodes. Pure.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::{DiscoveryError, PodNames, names};
use super::KubernetesResource;

/// A pod, as far as names of nodes need it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pod {
    address: IpAddr,
    namespace: String,
    hostname: Option<String>,
    service: Option<String>,
}

impl Pod {
    /// `None` where it has no such name.
    pub(super) fn node(&self, basename: &str, names: PodNames, domain: &str) -> Option<String> {
        let Self {
            address, namespace, ..
        } = self;
        match names {
            PodNames::Address => Some(names::at_address(basename, *address)),
            PodNames::Pod => Some(names::at_host(
                basename,
                &names::pod_host(*address, namespace, domain),
            )),
            PodNames::Hostname => {
                let (hostname, service) = (self.hostname.as_ref()?, self.service.as_ref()?);
                let domain = domain.trim_end_matches('.');
                Some(format!(
                    "{basename}@{hostname}.{service}.{namespace}.svc.{domain}"
                ))
            }
        }
    }
}

#[derive(Deserialize)]
struct List<T> {
    /// An empty list may be null, here and in a slice.
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: Option<String>,
}

#[derive(Deserialize)]
struct Endpoints {
    metadata: Metadata,
    #[serde(default)]
    subsets: Vec<Subset>,
}

#[derive(Deserialize)]
struct Subset {
    /// The ready ones.
    #[serde(default)]
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    ip: String,
    hostname: Option<String>,
}

#[derive(Deserialize)]
struct Slice {
    metadata: Metadata,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    hostname: Option<String>,
}

#[derive(Default, Deserialize)]
struct Conditions {
    /// Not told is ready.
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct ListedPod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Spec {
    hostname: Option<String>,
    subdomain: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

/// The pods in a list of a resource. What has no address is passed over.
pub(super) fn pods(resource: KubernetesResource, json: &[u8]) -> Result<Vec<Pod>, DiscoveryError> {
    let mut pods = Vec::new();
    let mut add = |address: &str,
                   metadata: &Metadata,
                   hostname: &Option<String>,
                   service: Option<&String>| {
        if let Ok(address) = address.parse() {
            pods.push(Pod {
                address,
                namespace: metadata.namespace.clone(),
                hostname: hostname.clone(),
                service: service.cloned(),
            });
        }
    };
    match resource {
        KubernetesResource::Endpoints => {
            for Endpoints { metadata, subsets } in items(json)? {
                for Address { ip, hostname } in subsets.iter().flat_map(|subset| &subset.addresses)
                {
                    add(ip, &metadata, hostname, Some(&metadata.name));
                }
            }
        }
        KubernetesResource::EndpointSlices => {
            for Slice {
                metadata,
                endpoints,
            } in items(json)?
            {
                let ready = |endpoint: &&Endpoint| endpoint.conditions.ready != Some(false);
                for endpoint in endpoints.iter().flatten().filter(ready) {
                    for address in &endpoint.addresses {
                        add(
                            address,
                            &metadata,
                            &endpoint.hostname,
                            metadata.labels.service.as_ref(),
                        );
                    }
                }
            }
        }
        KubernetesResource::Pods => {
            for ListedPod {
                metadata,
                spec,
                status,
            } in items(json)?
            {
                // The address of one that has ended may be another's.
                let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
                if let Some(address) = status.pod_ip.filter(|_| !ended) {
                    add(&address, &metadata, &spec.hostname, spec.subdomain.as_ref());
                }
            }
        }
    }
    Ok(pods)
}

fn items<T: DeserializeOwned>(json: &[u8]) -> Result<Vec<T>, DiscoveryError> {
    let list: List<T> = serde_json::from_slice(json)
        .map_err(|error| format!("what the server answers is no list of the resource: {error}"))?;
    Ok(list.items.unwrap_or_default())
}
