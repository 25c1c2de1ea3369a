//! Questions to name servers: all addresses, or all SRV targets, of a name.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::timeout;

use super::DiscoveryError;
use crate::node::Node;

/// How long one name server may take to answer one question, and how often it is asked again.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const RETRIES: usize = 1;

/// How long a look-up may take in all: some servers, and a search list.
const TOTAL_TIME: Duration = Duration::from_secs(15);

/// Which name servers are asked. Default those of the system: on Unix, `/etc/resolv.conf` as it is at each look, with its
/// search list. Nothing is cached, and `/etc/hosts` is not read: names are asked for because they change.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    name_servers: Vec<SocketAddr>,
}

/// The settings of all discoveries that ask name servers.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    pub(super) basename: Option<String>,
    pub(super) resolver: Resolver,
}

impl Asking {
    pub(super) fn basename<'a>(&'a self, node: &'a Node) -> &'a str {
        self.basename.as_deref().unwrap_or(node.alive())
    }
}

/// The methods that change a field `asking`, for a discovery's own `impl`.
macro_rules! asking_settings {
    () => {
        /// What is before the `@`. Default: that of the node itself.
        pub fn basename(mut self, basename: impl Into<String>) -> Self {
            self.asking.basename = Some(basename.into());
            self
        }

        /// Asks these name servers.
        pub fn resolver(mut self, resolver: Resolver) -> Self {
            self.asking.resolver = resolver;
            self
        }
    };
}
pub(super) use asking_settings;

/// What name servers say of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<T> {
    pub(super) records: Vec<T>,
    /// Every question was answered, if only with "there is none".
    pub(super) complete: bool,
}

impl Resolver {
    /// Asks these servers, with no search list, instead of the system's.
    pub fn name_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            name_servers: servers.into_iter().collect(),
        }
    }

    fn build(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.name_servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.name_servers.iter().map(|server| {
                let connections =
                    [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                        connection.port = server.port();
                        connection
                    });
                NameServerConfig::new(server.ip(), true, connections.to_vec())
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = ANSWER_TIME;
        options.attempts = RETRIES;
        builder.build()
    }

    /// All IPv4 and IPv6 addresses of a name. Fails if neither question is answered.
    pub(super) async fn addresses(&self, name: &str) -> Result<Answer<IpAddr>, DiscoveryError> {
        let resolver = self.build()?;
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        let (v4, v6) = tokio::join!(
            ask(&resolver, name, RecordType::A, address),
            ask(&resolver, name, RecordType::AAAA, address)
        );
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                Ok(Answer {
                    records: v4,
                    complete: true,
                })
            }
            (Ok(records), Err(_)) | (Err(_), Ok(records)) if !records.is_empty() => Ok(Answer {
                records,
                complete: false,
            }),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// The targets of all SRV records of a name.
    pub(super) async fn targets(&self, name: &str) -> Result<Answer<String>, DiscoveryError> {
        let resolver = self.build()?;
        let target = |data: &RData| match data {
            RData::SRV(service) => Some(service.target.to_ascii()),
            _ => None,
        };
        let records = ask(&resolver, name, RecordType::SRV, target).await?;
        Ok(Answer {
            records,
            complete: true,
        })
    }
}

/// The records of one type; none if the servers say that there are none.
async fn ask<T>(
    resolver: &TokioResolver,
    name: &str,
    kind: RecordType,
    read: impl Fn(&RData) -> Option<T>,
) -> Result<Vec<T>, DiscoveryError> {
    match timeout(TOTAL_TIME, resolver.lookup(name, kind)).await {
        Ok(Ok(found)) => Ok(found
            .answers()
            .iter()
            .filter_map(|record| read(&record.data))
            .collect()),
        Ok(Err(error)) if error.is_no_records_found() => Ok(Vec::new()),
        Ok(Err(error)) => Err(format!("no answer for {name} {kind}: {error}").into()),
        Err(_) => Err(format!(
            "no answer for {name} {kind} within {} s",
            TOTAL_TIME.as_secs()
        )
        .into()),
    }
}
