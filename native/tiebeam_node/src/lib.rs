//! tiebeam_node

pub mod epmd;
#[allow(dead_code, reason = "the node, its user, follows")]
mod transport;
mod waiting_room;

pub use transport::{ConnectError, ConnectionId, HandshakeFailure, StartError};
