//! From what a name server says to names of nodes. Pure.

#[cfg(feature = "discovery")]
use std::net::IpAddr;

/// `basename@address`, with the address as OTP's `inet:ntoa/1` writes it: names compare by their bytes.
#[cfg(feature = "discovery")]
pub(super) fn at_address(basename: &str, address: IpAddr) -> String {
    format!("{basename}@{address}")
}

/// `basename@host`, without the dot that ends a full domain name.
pub(super) fn at_host(basename: &str, host: &str) -> String {
    format!("{basename}@{}", host.strip_suffix('.').unwrap_or(host))
}

/// The name of a pod by its address, as Kubernetes' DNS has it: `10-0-0-5.namespace.pod.cluster.local`.
///
/// Source: *Kubernetes DNS-Based Service Discovery*, and libcluster's `Cluster.Strategy.Kubernetes` with `mode: :dns`.
#[cfg(feature = "discovery")]
pub(super) fn pod_host(address: IpAddr, namespace: &str, domain: &str) -> String {
    let dashed = address.to_string().replace(['.', ':'], "-");
    let domain = domain.trim_end_matches('.');
    format!("{dashed}.{namespace}.pod.{domain}")
}

/// Whether the name before the `@` is meant: `app` is that name, `app*` all that begin so.
pub(super) fn matches(pattern: &str, alive: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => alive.starts_with(prefix),
        None => alive == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses as `inet:ntoa/1` of OTP 25 writes them.
    #[cfg(feature = "discovery")]
    #[test]
    fn addresses_are_written_as_otp_writes_them() {
        for (given, written) in [
            ("10.0.0.5", "10.0.0.5"),
            ("fd00::5", "fd00::5"),
            ("fdaa:0:1a2b:a7b:7b:0:a:2", "fdaa:0:1a2b:a7b:7b:0:a:2"),
            ("fdaa:0:0:1:0:0:0:2", "fdaa:0:0:1::2"),
            ("1:0:0:2:0:0:3:4", "1::2:0:0:3:4"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("::", "::"),
            ("::1", "::1"),
            ("1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7:0"),
            ("0:2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
            ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
            ("FD00:ABCD::F", "fd00:abcd::f"),
        ] {
            let address = given.parse().unwrap();
            assert_eq!(at_address("app", address), format!("app@{written}"));
        }
    }

    #[test]
    fn hosts_lose_the_dot_of_the_root() {
        assert_eq!(at_host("app", "a.example."), "app@a.example");
        assert_eq!(at_host("app", "a.example"), "app@a.example");
    }

    #[cfg(feature = "discovery")]
    #[test]
    fn pods_are_named_by_their_address() {
        let host = |address: &str, domain| pod_host(address.parse().unwrap(), "prod", domain);
        assert_eq!(
            host("10.0.0.5", "cluster.local"),
            "10-0-0-5.prod.pod.cluster.local"
        );
        assert_eq!(
            host("10.0.0.5", "k.example."),
            "10-0-0-5.prod.pod.k.example"
        );
        assert_eq!(
            host("fd00::5", "cluster.local"),
            "fd00--5.prod.pod.cluster.local"
        );
    }

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_one() {
        assert!(matches("app", "app") && !matches("app", "app1") && !matches("app", "ap"));
        assert!(matches("app*", "app") && matches("app*", "app1") && !matches("app*", "ap"));
        assert!(matches("*", "anything"));
    }
}
