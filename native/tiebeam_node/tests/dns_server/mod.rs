//! A name server of the tests' own on loopback: answers from a table, over UDP and TCP (RFC 1035).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

#[derive(Default)]
struct Zone {
    addresses: HashMap<String, Vec<IpAddr>>,
    targets: HashMap<String, Vec<String>>,
    /// Every question gets SERVFAIL.
    broken: bool,
    /// Every question over UDP gets an answer that is cut.
    cut: bool,
}

/// A server; it ends when it is dropped.
pub(crate) struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

impl DnsServer {
    pub(crate) async fn start() -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&zone)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Self {
            address,
            zone,
            _tasks: tasks,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        let mut zone = self.zone.lock().unwrap();
        zone.addresses.insert(name.to_owned(), addresses.collect());
    }

    pub(crate) fn set_targets(&self, name: &str, targets: &[&str]) {
        let targets = targets.iter().map(|&target| target.to_owned());
        let mut zone = self.zone.lock().unwrap();
        zone.targets.insert(name.to_owned(), targets.collect());
    }

    pub(crate) fn set_broken(&self, broken: bool) {
        self.zone.lock().unwrap().broken = broken;
    }

    pub(crate) fn set_cut(&self, cut: bool) {
        self.zone.lock().unwrap().cut = cut;
    }
}

/// The same port for both.
async fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((HOST, 0)).await.unwrap();
        let address = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(address).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    loop {
        // An error is one of an earlier answer whose asker is gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = answer(&buffer[..length], &zone.lock().unwrap(), true) {
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let zone = Arc::clone(&zone);
        connections.spawn(async move {
            loop {
                let length = stream.read_u16().await?;
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await?;
                let answer = answer(&question, &zone.lock().unwrap(), false);
                let answer = answer.ok_or(io::ErrorKind::InvalidData)?;
                stream.write_u16(answer.len() as u16).await?;
                stream.write_all(&answer).await?;
            }
            #[allow(unreachable_code)]
            io::Result::Ok(())
        });
    }
}

/// `None` for what is no question.
fn answer(packet: &[u8], zone: &Zone, udp: bool) -> Option<Vec<u8>> {
    let (name, end) = name(packet, 12)?;
    let kind = u16::from_be_bytes(packet.get(end..end + 2)?.try_into().ok()?);
    let question = packet.get(12..end + 4)?;
    let mut records = Vec::new();
    for address in zone.addresses.get(&name).into_iter().flatten() {
        match (kind, address) {
            (A, IpAddr::V4(address)) => records.push(address.octets().to_vec()),
            (AAAA, IpAddr::V6(address)) => records.push(address.octets().to_vec()),
            _ => {}
        }
    }
    if kind == SRV {
        for target in zone.targets.get(&name).into_iter().flatten() {
            let mut data = [10_u16, 50, 4369].map(u16::to_be_bytes).concat();
            for label in target.trim_end_matches('.').split('.') {
                data.push(label.len() as u8);
                data.extend(label.as_bytes());
            }
            data.push(0);
            records.push(data);
        }
    }
    let known = zone.addresses.contains_key(&name) || zone.targets.contains_key(&name);
    // SERVFAIL, no error, NXDOMAIN.
    let code = match (zone.broken, known) {
        (true, _) => 2,
        (false, true) => 0,
        (false, false) => 3,
    };
    let cut = zone.cut && udp;
    if code != 0 || cut {
        records.clear();
    }
    let mut answer = packet[..2].to_vec();
    // A response that is authoritative, maybe cut, where recursion is to be had.
    answer.extend([0x85 | u8::from(cut) << 1, 0x80 | code]);
    answer.extend(
        [1, records.len() as u16, 0, 0]
            .map(u16::to_be_bytes)
            .concat(),
    );
    answer.extend(question);
    for data in records {
        // The name of the question, class IN, for a second.
        answer.extend(
            [0xc00c, kind, 1, 0, 1, data.len() as u16]
                .map(u16::to_be_bytes)
                .concat(),
        );
        answer.extend(data);
    }
    Some(answer)
}

/// The name at `at`, with dots and without the last one, and where it ends.
fn name(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = packet.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
}
