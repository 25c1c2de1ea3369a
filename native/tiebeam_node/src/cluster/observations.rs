//! Questions to the kernels of nodes that do not run Tiebeam.
//!
//! A question is OTP's own, that of `net_adm:ping/1`, but nobody waits for its answer: `{'$gen_call', {Pid, Ref}, {is_auth,
//! node()}}` goes to `net_kernel`, and `{Ref, yes}` may come back. Source: `gen:call/4`, `net_kernel`.

use std::collections::VecDeque;

use tiebeam_core::{Event, NodeName};
use tiebeam_wire::control::Control;
use tiebeam_wire::{Atom, Reference, Term};

use crate::process::Process;
use crate::router::NotSent;

/// Questions whose answer may still come. The core asks a few per period, so the oldest of these is minutes old; an
/// answer that comes after it was forgotten is dropped.
pub(super) const MAX_OBSERVATIONS: usize = 1024;

/// The questions asked, oldest first.
#[derive(Debug, Default)]
pub(super) struct Observations(VecDeque<Observation>);

#[derive(Debug)]
struct Observation {
    reference: Reference,
    node: NodeName,
    probe: u64,
}

impl Observations {
    /// Asks the kernel of a node, over the connection that is there.
    pub(super) fn ask(
        &mut self,
        node: NodeName,
        probe: u64,
        process: &Process,
    ) -> Result<(), NotSent> {
        let router = process.node().router();
        let Ok(peer) = Atom::new(node.as_str()) else {
            return Err(NotSent::NoConnection);
        };
        let reference = router.make_reference();
        let from = Term::tuple([Term::from(process.pid()), Term::from(&reference)]);
        let request = Term::tuple([Term::atom("is_auth"), Term::from(router.name().clone())]);
        let control = Control::RegSend {
            from: process.pid().clone(),
            name: Atom::of("net_kernel"),
        };
        let call = Term::tuple([Term::atom("$gen_call"), from, request]);
        router.send_at_once(process.entry(), &peer, control, Some(call))?;
        if self.0.len() == MAX_OBSERVATIONS {
            self.0.pop_front();
        }
        self.0.push_back(Observation {
            reference,
            node,
            probe,
        });
        Ok(())
    }

    /// What `{Ref, Reply}` is to the core; `None` if nobody asked.
    pub(super) fn answered(&mut self, reference: &Reference) -> Option<Event> {
        let at = self
            .0
            .iter()
            .position(|asked| asked.reference == *reference)?;
        let Observation { node, probe, .. } = self.0.remove(at)?;
        Some(Event::Observed { node, probe })
    }

    /// The connection to a node is gone, and with it what it might have answered.
    pub(super) fn forget(&mut self, node: &NodeName) {
        self.0.retain(|asked| asked.node != *node);
    }
}
