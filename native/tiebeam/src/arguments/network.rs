//! How nodes are reached: where they listen, and what connections go through.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tiebeam_node::wire::handshake::NodeName;
use tiebeam_node::{Config, TlsConfig};

/// What a node and a visitor have in common.
#[derive(Debug, Args)]
pub(crate) struct NetworkArguments {
    /// Where a node listens, so that no epmd is asked for it; may be repeated.
    #[arg(long, value_name = "NAME@HOST=IP:PORT", value_parser = address)]
    address: Vec<(String, SocketAddr)>,
    /// The port on which all nodes listen, each on its own host, so that no epmd is needed: as erl -erl_epmd_port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) common_port: Option<u16>,
    /// Connect through TLS, with nodes whose certificate an authority in this PEM file has signed: as erl -proto_dist
    /// inet_tls.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The certificate of this node, a PEM file; needed where a node asks for it, and by every node that is dialled.
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// The key of this node's certificate, a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Take a certificate for any host, not only for the one in the name of the node that is dialled.
    #[arg(long, requires = "tls_ca")]
    tls_any_host: bool,
}

impl NetworkArguments {
    pub(crate) fn apply_to(&self, mut config: Config) -> Config {
        config.addresses.extend(self.address.iter().cloned());
        config.common_port = self.common_port;
        if let Some(ca) = &self.tls_ca {
            let mut tls = TlsConfig::new(ca).verify_host(!self.tls_any_host);
            tls.identity = self.tls_cert.clone().zip(self.tls_key.clone());
            config.tls = Some(tls);
        }
        config
    }
}

fn address(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text
        .rsplit_once('=')
        .ok_or("write it as name@host=127.0.0.1:9100")?;
    let name = NodeName::parse(name).map_err(|error| error.to_string())?;
    let address = address
        .parse()
        .map_err(|_| format!("'{address}' is no IP:PORT: write 127.0.0.1:9100 or [::1]:9100"))?;
    Ok((name.as_str().to_owned(), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families() {
        for (text, name, port) in [
            ("b@127.0.0.1=127.0.0.1:9100", "b@127.0.0.1", 9100),
            ("b@::1=[::1]:1", "b@::1", 1),
            ("b@h=x=10.0.0.1:2", "b@h=x", 2),
        ] {
            let (parsed, address) = address(text).unwrap();
            assert_eq!((parsed.as_str(), address.port()), (name, port));
        }
        for text in [
            "b@h",
            "b@h=9100",
            "b@h=::1:9100:x",
            "b=127.0.0.1:1",
            "=127.0.0.1:1",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
