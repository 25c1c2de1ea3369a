//! TCP sockets as this crate wants them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the system may hold for a listener that is busy: the size OTP asks for.
const BACKLOG: u32 = 128;

/// How long an accept loop rests after an error such as "too many open files", which the next call would return too.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address`; port 0 means any free port. The port of a listener that has just ended can be used at once.
/// The unspecified address of IPv6 takes IPv4 as well, whatever the system's default is.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// No delay for small messages, and a sign of life from the system on idle connections, as OTP sets them.
pub(super) fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_keepalive(true)
}
