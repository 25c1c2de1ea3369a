//! Nodes that tell of themselves by multicast, on the wire that libcluster's `Cluster.Strategy.Gossip` speaks.

mod packet;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use tracing::trace;

use self::packet::{Key, MAX_PACKET};
use super::{Discovery, DiscoveryError, Found};
use crate::node::Node;

/// The port of libcluster's gossip, unless it is configured.
pub const GOSSIP_PORT: u16 = 45892;

/// The multicast group of libcluster's gossip, unless it is configured. (Releases before 3.3.0 used 230.1.1.251.)
pub const GOSSIP_ADDRESS: Ipv4Addr = Ipv4Addr::new(233, 252, 1, 32);

/// The longest pause between two heartbeats, as libcluster's: each is anything from a millisecond to this.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Packets that are taken at once. The pause between two batches bounds what a flood of them costs.
const BATCH: usize = 64;

/// Multicasts the own name, and finds whoever does so, too: Rust nodes, and BEAM nodes with libcluster's `Gossip` or with
/// `Tiebeam.Discovery.Gossip`, in the same group and port and with the same secret. IPv4 only.
///
/// The secret keeps clusters on one network apart and their names unseen. It proves nothing: old packets can be sent again.
/// Who belongs to a cluster is decided by its cookie.
#[derive(Debug)]
pub struct Gossip {
    port: u16,
    listen: Ipv4Addr,
    group: Ipv4Addr,
    interface: Option<Ipv4Addr>,
    ttl: u32,
    broadcast: bool,
    key: Option<Key>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    socket: UdpSocket,
    /// When the next heartbeat is due.
    next: Instant,
}

impl Default for Gossip {
    fn default() -> Self {
        Self::new()
    }
}

impl Gossip {
    /// With libcluster's defaults: port 45892, group 233.252.1.32, a hop limit of 1, no secret.
    pub fn new() -> Self {
        Self {
            port: GOSSIP_PORT,
            listen: Ipv4Addr::UNSPECIFIED,
            group: GOSSIP_ADDRESS,
            interface: None,
            ttl: 1,
            broadcast: false,
            key: None,
            open: None,
        }
    }

    /// The port that all nodes send to and listen on: libcluster's `port`.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Encrypts what is sent, and hears only what is encrypted with the same: libcluster's `secret`.
    pub fn secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.key = Some(Key::new(secret.as_ref()));
        self
    }

    /// The group that all nodes join and send to: libcluster's `multicast_addr`.
    pub fn multicast(mut self, group: Ipv4Addr) -> Self {
        self.group = group;
        self.broadcast = false;
        self
    }

    /// Broadcasts to this address instead, `255.255.255.255` or a subnet's own: libcluster's `broadcast_only` with that
    /// `multicast_addr`.
    pub fn broadcast(mut self, address: Ipv4Addr) -> Self {
        self.group = address;
        self.broadcast = true;
        self
    }

    /// Sends through the interface with this address, and joins the group there: libcluster's `multicast_if`. Default: what
    /// the system chooses.
    pub fn interface(mut self, address: Ipv4Addr) -> Self {
        self.interface = Some(address);
        self
    }

    /// Over how many routers a packet may go: libcluster's `multicast_ttl`. Default 1, the local network.
    pub fn ttl(mut self, ttl: u32) -> Self {
        self.ttl = ttl;
        self
    }

    /// The address to listen on: libcluster's `if_addr`. Default all; most systems hand out multicasts only there.
    pub fn listen(mut self, address: Ipv4Addr) -> Self {
        self.listen = address;
        self
    }

    fn open(&self) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Nodes of one host share the port, those with libcluster included.
        socket.set_reuse_address(true)?;
        #[cfg(all(
            unix,
            not(any(
                target_os = "linux",
                target_os = "android",
                target_os = "solaris",
                target_os = "illumos"
            ))
        ))]
        socket.set_reuse_port(true)?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        if !self.broadcast {
            let interface = self.interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
            if self.interface.is_some() {
                socket.set_multicast_if_v4(&interface)?;
            }
            socket.set_multicast_ttl_v4(self.ttl)?;
            socket.set_multicast_loop_v4(true)?;
            socket.join_multicast_v4(&self.group, &interface)?;
        }
        socket.bind(&SockAddr::from(SocketAddrV4::new(self.listen, self.port)))?;
        UdpSocket::from_std(socket.into())
    }

    fn target(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.group), self.port)
    }
}

impl Discovery for Gossip {
    fn describe(&self) -> String {
        format!("gossip {}", self.target())
    }

    fn interval(&self) -> Duration {
        // It waits for packets.
        Duration::ZERO
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let target = self.target();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open {
                socket: self
                    .open()
                    .map_err(|error| format!("cannot listen for gossip at {target}: {error}"))?,
                next: Instant::now(),
            },
        };
        let mut buffer = [0; MAX_PACKET + 1];
        // A socket that failed is not used again: the next look opens one.
        let first = loop {
            tokio::select! {
                () = sleep_until(open.next) => {
                    open.next = Instant::now() + MAX_PAUSE.mul_f64(rand::random());
                    let encryption = self.key.as_ref().map(|key| (key, rand::random()));
                    let packet = packet::write(node.name(), encryption);
                    open.socket
                        .send_to(&packet, target)
                        .await
                        .map_err(|error| format!("cannot send to {target}: {error}"))?;
                }
                received = open.socket.recv(&mut buffer) => break received?,
            }
        };
        let mut found = Found::default();
        self.take(&buffer[..first], node, &mut found);
        for _ in 1..BATCH {
            match open.socket.try_recv(&mut buffer) {
                Ok(length) => self.take(&buffer[..length], node, &mut found),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.open = Some(open);
        Ok(found)
    }
}

impl Gossip {
    fn take(&self, bytes: &[u8], node: &Node, found: &mut Found) {
        match packet::read(bytes, self.key.as_ref()) {
            Ok(name) if name.as_str() == node.name().as_str() => {}
            Ok(name) => {
                let name = name.as_str().to_owned();
                if !found.nodes.contains(&name) {
                    found.nodes.push(name);
                }
            }
            // Anybody may send anything here.
            Err(ignored) => trace!(
                ?ignored,
                length = bytes.len(),
                "a packet of gossip says nothing"
            ),
        }
    }
}
