//! What waits to be passed on, and what is sent, stays within its limits. (Memory and packets of SWIM, section 4.1: one
//! word per member.)

use tiebeam_core::{Action, MAX_DATAGRAM_BYTES, MAX_MESSAGE_BYTES, Metrics};

use super::{Broken, Stepped};

/// Broadcasts that may wait beside the words about members.
const BROADCASTS: u64 = 256;

pub(crate) fn bounds(step: &Stepped<'_>, metrics: &Metrics) -> Result<(), Broken> {
    let broken = |seen| Broken {
        property: "bounds",
        seen,
    };
    let most = step.after.len() as u64 + BROADCASTS;
    if metrics.queued > most {
        return Err(broken(format!(
            "{} words wait at {}",
            metrics.queued, step.node
        )));
    }
    for action in step.actions {
        if let Action::Send { to, bytes } = action {
            let most = if small(bytes) {
                MAX_DATAGRAM_BYTES
            } else {
                MAX_MESSAGE_BYTES
            };
            if bytes.len() > most {
                let length = bytes.len();
                return Err(broken(format!(
                    "{} sends {length} bytes to {to}, of at most {most}",
                    step.node
                )));
            }
        }
    }
    Ok(())
}

/// It is a ping, an ack, a request to ping, a nack or gossip (`tiebeam_core`, `message/codec.rs`: tags 5 to 9).
pub(crate) fn small(bytes: &[u8]) -> bool {
    matches!(bytes, [_, 5..=9, ..])
}
