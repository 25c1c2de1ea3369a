//! `--discover SPEC`: where a node looks for others.
//!
//! ```text
//! KIND[:WHERE][?KEY=VALUE[&KEY=VALUE]..]
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tiebeam_node::Node;
use tiebeam_node::discovery::{
    Discovery, Dns, EpmdHosts, ErlangHosts, GOSSIP_PORT, Gossip, Kubernetes, KubernetesApi,
    KubernetesResource, NodeList, PodNames, Resolver, Search, Srv,
};
use tiebeam_node::wire::handshake::NodeName;

/// What `--help` says of it.
pub(crate) const HELP: &str = "\
Look for nodes and connect to those that are found; may be repeated. One that vanishes stays connected.

  static:N@H[,N@H..]    the nodes named
  epmd:HOST[,HOST..]    the nodes that epmd knows on these hosts; ?name=app* for some of them,
                        ?port=4369
  hosts[:FILE]          the same, on the hosts in FILE; if not given, .hosts.erlang here or in HOME
  dns:NAME              basename@address for the addresses of NAME, as libcluster's DNSPoll
  srv:NAME              basename@host for the targets of the SRV records of NAME
  k8s:SERVICE           the pods of a headless service; ?namespace=NS, ?domain=cluster.local,
                        ?names=address (app@10.0.0.5, the default), pod (app@10-0-0-5.NS.pod.DOMAIN)
                        or hostname (app@app-0.SERVICE.NS.svc.DOMAIN)
  k8s-api:SELECTOR      the pods that Kubernetes' API lists for these labels, such as app=my_app;
                        ?resource=endpoints (the default), endpoint-slices or pods, ?namespace=NS (default:
                        the service account's), ?names= and ?domain= as above, ?server=https://IP:PORT,
                        ?service-account=DIR
  gossip[:PORT]         whoever multicasts, libcluster's Gossip included; ?secret-file=FILE,
                        ?group=IP, ?interface=IP, ?ttl=N, ?broadcast=IP instead of multicast

dns, srv, k8s and k8s-api take ?basename=app (default: that of --name), and all but the last one
?nameserver=IP:PORT (default: those of the system). All but gossip take ?interval=SECONDS (default: 5) and, to disconnect nodes that
vanish, ?disconnect=true; several are joined by &.

Examples: --discover 'dns:app.internal?basename=app&interval=10'
          --discover 'gossip?secret-file=/run/secrets/gossip'";

/// A checked specification.
#[derive(Clone, Debug)]
pub(crate) struct Discover {
    kind: Kind,
    interval: Option<Duration>,
    disconnect: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Static(NodeList),
    Epmd(EpmdHosts),
    Hosts(ErlangHosts),
    Dns(Dns),
    Srv(Srv),
    Kubernetes(Kubernetes),
    KubernetesApi(KubernetesApi),
    Gossip(GossipSettings),
}

#[derive(Clone, Debug)]
struct GossipSettings {
    port: u16,
    /// What the file holds.
    secret: Option<Secret>,
    group: Option<Ipv4Addr>,
    interface: Option<Ipv4Addr>,
    ttl: Option<u32>,
    broadcast: Option<Ipv4Addr>,
}

#[derive(Clone)]
struct Secret(String);

/// Does not print it.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Discover {
    /// Looks as long as the node runs.
    pub(crate) fn start(self, node: &Node) {
        match self.kind.clone() {
            Kind::Static(nodes) => self.run(node, nodes),
            Kind::Epmd(hosts) => self.run(node, hosts),
            Kind::Hosts(hosts) => self.run(node, hosts),
            Kind::Dns(dns) => self.run(node, dns),
            Kind::Srv(srv) => self.run(node, srv),
            Kind::Kubernetes(service) => self.run(node, service),
            Kind::KubernetesApi(api) => self.run(node, api),
            Kind::Gossip(settings) => self.run(node, settings.gossip()),
        }
    }

    fn run<D: Discovery>(&self, node: &Node, discovery: D) {
        let mut search = Search::new(discovery).disconnect_vanished(self.disconnect);
        if let Some(interval) = self.interval {
            search = search.interval(interval);
        }
        node.discover(search).detach();
    }
}

impl GossipSettings {
    fn gossip(self) -> Gossip {
        let mut gossip = Gossip::new().port(self.port);
        if let Some(Secret(secret)) = self.secret {
            gossip = gossip.secret(secret);
        }
        if let Some(group) = self.group {
            gossip = gossip.multicast(group);
        }
        if let Some(interface) = self.interface {
            gossip = gossip.interface(interface);
        }
        if let Some(ttl) = self.ttl {
            gossip = gossip.ttl(ttl);
        }
        if let Some(address) = self.broadcast {
            gossip = gossip.broadcast(address);
        }
        gossip
    }
}

impl FromStr for Discover {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (subject, options) = text.split_once('?').unwrap_or((text, ""));
        let (kind, place) = match subject.split_once(':') {
            Some((kind, place)) => (kind, Some(place)),
            None => (subject, None),
        };
        let mut options = Options::parse(options)?;
        let place_of = |what: &str| match place {
            Some(place) if !place.is_empty() => Ok(place),
            _ => Err(format!("say where: {kind}:{what}")),
        };
        let kind = match kind {
            "static" => {
                let names = place_of("app@host,app@other")?.split(',');
                let names: Result<Vec<_>, _> = names
                    .map(|name| NodeName::parse(name).map(|name| name.as_str().to_owned()))
                    .collect();
                Kind::Static(NodeList::new(names.map_err(|error| error.to_string())?))
            }
            "epmd" => {
                let mut hosts = EpmdHosts::new(place_of("host,other")?.split(','));
                if let Some(pattern) = options.take("name") {
                    hosts = hosts.matching(pattern);
                }
                if let Some(port) = options.parsed("port", "a port")? {
                    hosts = hosts.port(port);
                }
                Kind::Epmd(hosts)
            }
            "hosts" => {
                let mut hosts = ErlangHosts::new();
                if let Some(path) = place.filter(|path| !path.is_empty()) {
                    hosts = hosts.file(path);
                }
                if let Some(pattern) = options.take("name") {
                    hosts = hosts.matching(pattern);
                }
                if let Some(port) = options.parsed("port", "a port")? {
                    hosts = hosts.port(port);
                }
                Kind::Hosts(hosts)
            }
            "dns" => {
                let mut dns = Dns::new(place_of("app.internal")?);
                if let Some(basename) = options.basename()? {
                    dns = dns.basename(basename);
                }
                Kind::Dns(dns.resolver(options.resolver()?))
            }
            "srv" => {
                let mut srv = Srv::new(place_of("_app._tcp.example.org")?);
                if let Some(basename) = options.basename()? {
                    srv = srv.basename(basename);
                }
                Kind::Srv(srv.resolver(options.resolver()?))
            }
            "k8s" => Kind::Kubernetes(kubernetes(place_of("app-headless")?, &mut options)?),
            "k8s-api" => {
                Kind::KubernetesApi(kubernetes_api(place_of("app=my_app")?, &mut options)?)
            }
            "gossip" => Kind::Gossip(gossip(place, &mut options)?),
            _ => {
                return Err(format!(
                    "'{kind}' is no way to look for nodes: use static, epmd, hosts, dns, srv, k8s, k8s-api or gossip"
                ));
            }
        };
        let (mut interval, mut disconnect) = (None, None);
        // Gossip has a pace of its own, and does not tell who has vanished.
        if !matches!(kind, Kind::Gossip(_)) {
            interval = options.parsed::<u32>("interval", "a number of seconds")?;
            disconnect = options.parsed("disconnect", "true or false")?;
        }
        options.none_left()?;
        Ok(Self {
            kind,
            interval: interval.map(|seconds| Duration::from_secs(seconds.into())),
            disconnect: disconnect.unwrap_or(false),
        })
    }
}

fn kubernetes(service: &str, options: &mut Options<'_>) -> Result<Kubernetes, String> {
    let mut kubernetes = Kubernetes::new(service);
    let namespace = options.take("namespace");
    if let Some(namespace) = namespace {
        kubernetes = kubernetes.namespace(namespace);
    }
    if let Some(domain) = options.take("domain") {
        kubernetes = kubernetes.domain(domain);
    }
    let names = options.pod_names()?;
    if names == PodNames::Pod && namespace.is_none() {
        return Err("the names of pods have their namespace in them: add namespace=NS".to_owned());
    }
    if let Some(basename) = options.basename()? {
        kubernetes = kubernetes.basename(basename);
    }
    Ok(kubernetes.names(names).resolver(options.resolver()?))
}

fn kubernetes_api(selector: &str, options: &mut Options<'_>) -> Result<KubernetesApi, String> {
    let resource = match options.take("resource") {
        None | Some("endpoints") => KubernetesResource::Endpoints,
        Some("endpoint-slices") => KubernetesResource::EndpointSlices,
        Some("pods") => KubernetesResource::Pods,
        Some(other) => {
            return Err(format!(
                "resource={other}: write endpoints, endpoint-slices or pods"
            ));
        }
    };
    let mut api = KubernetesApi::new(selector).resource(resource);
    api = api.names(options.pod_names()?);
    if let Some(namespace) = options.take("namespace") {
        api = api.namespace(namespace);
    }
    if let Some(domain) = options.take("domain") {
        api = api.domain(domain);
    }
    if let Some(basename) = options.basename()? {
        api = api.basename(basename);
    }
    if let Some(server) = options.take("server") {
        if !server.starts_with("https://") {
            return Err(format!("server={server}: write https://IP:PORT"));
        }
        api = api.server(server);
    }
    if let Some(directory) = options.take("service-account") {
        api = api.service_account(directory);
    }
    Ok(api)
}

fn gossip(port: Option<&str>, options: &mut Options<'_>) -> Result<GossipSettings, String> {
    let port = match port {
        None => GOSSIP_PORT,
        Some(port) => port
            .parse()
            .map_err(|_| format!("'{port}' is no port: write gossip or gossip:{GOSSIP_PORT}"))?,
    };
    let address = "an IPv4 address";
    let group: Option<Ipv4Addr> = options.parsed("group", address)?;
    if let Some(group) = group.filter(|group| !group.is_multicast()) {
        return Err(format!(
            "group={group} is no multicast address: 224.0.0.0 to 239.255.255.255 are"
        ));
    }
    let broadcast = options.parsed("broadcast", address)?;
    if group.is_some() && broadcast.is_some() {
        return Err("group and broadcast exclude each other".to_owned());
    }
    Ok(GossipSettings {
        port,
        secret: options.take("secret-file").map(secret).transpose()?,
        group,
        interface: options.parsed("interface", address)?,
        ttl: options
            .parsed::<u8>("ttl", "a number up to 255")?
            .map(u32::from),
        broadcast,
    })
}

/// The text of a file without the line end that follows it.
fn secret(path: &str) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the secret file {path}: {error}"))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(format!("the secret file {path} is empty")),
        secret => Ok(Secret(secret.to_owned())),
    }
}

/// What stands behind the question mark and is not taken yet.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let pair = pair.split_once('=');
            pair.ok_or_else(|| format!("'?{text}': write ?key=value&key=value"))
        });
        Ok(Self(pairs.collect::<Result<_, _>>()?))
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(given, _)| *given == key)?;
        Some(self.0.remove(at).1)
    }

    fn parsed<T: FromStr>(&mut self, key: &str, what: &str) -> Result<Option<T>, String> {
        self.take(key)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| format!("{key}={value} is not {what}"))
            })
            .transpose()
    }

    fn basename(&mut self) -> Result<Option<&'a str>, String> {
        let basename = self.take("basename");
        if let Some(basename) = basename {
            NodeName::parse(format!("{basename}@host")).map_err(|error| error.to_string())?;
        }
        Ok(basename)
    }

    fn pod_names(&mut self) -> Result<PodNames, String> {
        match self.take("names") {
            None | Some("address") => Ok(PodNames::Address),
            Some("pod") => Ok(PodNames::Pod),
            Some("hostname") => Ok(PodNames::Hostname),
            Some(other) => Err(format!("names={other}: write address, pod or hostname")),
        }
    }

    fn resolver(&mut self) -> Result<Resolver, String> {
        let server: Option<SocketAddr> =
            self.parsed("nameserver", "an address such as 127.0.0.1:53")?;
        Ok(server.map_or_else(Resolver::default, |server| Resolver::name_servers([server])))
    }

    fn none_left(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!(
                "'{key}' is unknown here, or given twice: see tiebeam node --help"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_understood() {
        for text in [
            "static:a@h,b@h",
            "epmd:h1,h2",
            "epmd:h1?name=app*&port=4400&interval=3",
            "dns:app.internal",
            "dns:app.internal?basename=app&interval=10&disconnect=true&nameserver=127.0.0.1:5353",
            "srv:_app._tcp.example.org?nameserver=[::1]:53",
            "k8s:app-headless",
            "k8s:app-headless?namespace=prod&names=pod&domain=k.example&basename=app",
            "k8s:app?names=hostname",
            "hosts",
            "hosts:/etc/my_app/hosts?name=app*&port=4400&interval=3",
            "k8s-api:app=my_app",
            "k8s-api:app=a,tier=b?resource=endpoint-slices&namespace=prod&names=pod&domain=k.example&basename=app",
            "k8s-api:app?resource=pods&server=https://10.96.0.1:443&service-account=/tmp/account&disconnect=true",
            "gossip",
            "gossip:4000?group=230.1.1.251&interface=127.0.0.1&ttl=2",
            "gossip?broadcast=255.255.255.255",
        ] {
            let discover: Result<Discover, _> = text.parse();
            assert!(discover.is_ok(), "{text}: {discover:?}");
        }
        let discover: Discover = "dns:app?interval=10&disconnect=true".parse().unwrap();
        assert_eq!(discover.interval, Some(Duration::from_secs(10)));
        assert!(discover.disconnect);
    }

    #[test]
    fn an_error_says_what_to_write() {
        for (text, says) in [
            ("", "static, epmd, hosts, dns, srv, k8s, k8s-api or gossip"),
            ("mdns:app", "'mdns' is no way"),
            ("dns", "dns:app.internal"),
            ("dns:", "dns:app.internal"),
            ("static:a", "'a'"),
            ("dns:app?basename=a b", "'a b@host'"),
            ("dns:app?colour=red", "'colour'"),
            ("dns:app?interval=1&interval=2", "given twice"),
            ("dns:app?interval", "key=value"),
            ("dns:app?interval=soon", "a number of seconds"),
            ("dns:app?nameserver=ns", "127.0.0.1:53"),
            ("k8s:app?names=pod", "namespace=NS"),
            ("k8s:app?names=colour", "address, pod or hostname"),
            ("k8s-api", "k8s-api:app=my_app"),
            (
                "k8s-api:a?resource=nodes",
                "endpoints, endpoint-slices or pods",
            ),
            ("k8s-api:a?server=http://10.96.0.1", "https://IP:PORT"),
            ("k8s-api:a?nameserver=127.0.0.1:53", "'nameserver'"),
            ("gossip:port", "gossip:45892"),
            ("gossip?interval=3", "'interval'"),
            ("gossip?group=10.0.0.1", "multicast"),
            ("gossip?group=230.1.1.1&broadcast=10.0.0.255", "exclude"),
            (
                "gossip?secret-file=/nonexistent/secret",
                "/nonexistent/secret",
            ),
        ] {
            let error = text.parse::<Discover>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_not_printed() {
        let path = std::env::temp_dir().join(format!("tiebeam-secret-{}", std::process::id()));
        std::fs::write(&path, "somepassword\n").unwrap();
        let discover: Discover = format!("gossip?secret-file={}", path.display())
            .parse()
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        match &discover.kind {
            Kind::Gossip(settings) => {
                assert_eq!(settings.secret.as_ref().unwrap().0, "somepassword")
            }
            kind => panic!("{kind:?}"),
        }
        assert!(!format!("{discover:?}").contains("somepassword"));
    }
}
