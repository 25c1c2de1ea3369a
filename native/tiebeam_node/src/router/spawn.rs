//! Processes started by request: of a peer here, and of this node on a peer.
//!
//! Source: *Distribution Protocol*, `SPAWN_REQUEST` and `SPAWN_REPLY`.

use std::collections::VecDeque;
use std::sync::Arc;

use tiebeam_wire::control::{Control, SpawnResult};
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::sync::oneshot;

use crate::error::SpawnError;
use crate::process::Target;
use crate::process::entry::Entry;
use crate::process::mailbox::Mailbox;
use crate::router::{Outcome, Routed, Router};

/// How a process is started on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpawnOptions {
    /// Link it to its parent.
    pub link: bool,
    /// Monitor it.
    pub monitor: bool,
}

/// A request that was not answered yet.
#[derive(Debug)]
pub(crate) struct Spawning {
    /// Where it was sent.
    pub(super) node: Atom,
    parent: Arc<Entry>,
    /// Who waits for the pid; nobody does for a remote call, which waits for the exit.
    reply: Option<oneshot::Sender<Result<Pid, Atom>>>,
}

/// A request of a peer.
pub(super) struct Request {
    pub(super) reference: Reference,
    pub(super) from: Pid,
    pub(super) group_leader: Pid,
    pub(super) module: Atom,
    pub(super) function: Atom,
    pub(super) options: Term,
    pub(super) args: Term,
}

impl Router {
    /// Starts a function here because a peer asked, and answers the peer before anything else is heard of it.
    pub(super) fn spawn_requested(&self, request: Request) {
        let Request {
            reference,
            from,
            group_leader,
            module,
            function,
            options,
            args,
        } = request;
        let node = from.node.clone();
        let reply = |linked, monitored, result| Control::SpawnReply {
            reference: reference.clone(),
            to: from.clone(),
            linked,
            monitored,
            result,
        };
        let refuse = |reason| {
            let control = reply(false, false, SpawnResult::Error(Atom::of(reason)));
            self.route(node.clone(), control, None);
        };
        let Some(SpawnOptions { link, monitor }) = read_options(&options) else {
            return refuse("badopt");
        };
        let Some(starter) = self.starter.get() else {
            return refuse("notsup");
        };
        let (mailbox, receiver) = Mailbox::task(self.limits().mailbox);
        let Ok(entry) = self.add_process(mailbox, group_leader) else {
            return refuse("system_limit");
        };
        {
            let mut state = entry.state();
            if monitor {
                let target = Target::Pid(entry.pid.clone());
                state
                    .watched_by
                    .insert(reference.clone(), (from.clone(), target));
            }
            if link {
                state.links.linked_by(from.clone());
            }
        }
        self.route(
            node.clone(),
            reply(link, monitor, SpawnResult::Pid(entry.pid.clone())),
            None,
        );
        starter(entry, receiver, module, function, args);
    }

    /// Notes a request to a peer, so that its answer finds the parent.
    pub(crate) fn spawn_asked(
        &self,
        reference: &Reference,
        node: Atom,
        parent: &Arc<Entry>,
    ) -> oneshot::Receiver<Result<Pid, Atom>> {
        let (sender, receiver) = oneshot::channel();
        let spawning = Spawning {
            node,
            parent: Arc::clone(parent),
            reply: Some(sender),
        };
        self.spawning.insert(reference.clone(), spawning);
        receiver
    }

    /// A peer answered. The link and the monitor exist from now on, before anything the child sends is read.
    pub(super) fn spawn_replied(
        &self,
        reference: &Reference,
        to: Pid,
        linked: bool,
        monitored: bool,
        result: SpawnResult,
        work: &mut VecDeque<Routed>,
    ) {
        let child = match result {
            SpawnResult::Error(reason) => return self.spawn_refused(reference, reason),
            SpawnResult::Pid(child) => child,
        };
        let spawning = self
            .spawning
            .remove(reference)
            .map(|(_, spawning)| spawning);
        let parent = spawning
            .as_ref()
            .map(|spawning| Arc::clone(&spawning.parent));
        let adopted = parent.is_some_and(|parent| {
            let mut state = parent.state();
            if state.exited.is_some() {
                return false;
            }
            if linked {
                state.links.linked_by(child.clone());
            }
            if monitored {
                let target = Target::Pid(child.clone());
                state
                    .monitoring
                    .insert(reference.clone(), (target, child.node.clone()));
            }
            true
        });
        if adopted {
            // For a remote call nobody waits for the pid, only for the exit.
            if let Some(reply) = spawning.and_then(|spawning| spawning.reply) {
                let _ = reply.send(Ok(child));
            }
        } else {
            // The parent died meanwhile: the child must learn of it.
            if monitored {
                let control = Control::Demonitor {
                    from: to.clone(),
                    target: tiebeam_wire::control::Target::Pid(child.clone()),
                    reference: reference.clone(),
                };
                work.push_back(Routed::new(child.node.clone(), control, None));
            }
            if linked {
                let control = Control::Exit {
                    from: to,
                    to: child.clone(),
                };
                let reason = Some(Term::atom("noproc"));
                work.push_back(Routed::new(child.node, control, reason));
            }
        }
    }

    /// The peer would not start it, or cannot be reached.
    pub(super) fn spawn_refused(&self, reference: &Reference, reason: Atom) {
        if let Some((_, spawning)) = self.spawning.remove(reference)
            && let Some(reply) = spawning.reply
        {
            let _ = reply.send(Err(reason.clone()));
        }
        self.answer(reference, Outcome::Refused(reason));
    }

    pub(crate) fn spawn_forgotten(&self, reference: &Reference) {
        self.spawning.remove(reference);
    }

    /// A new process read by a task.
    pub(crate) fn new_task_process(
        &self,
    ) -> Result<
        (
            Arc<Entry>,
            tokio::sync::mpsc::UnboundedReceiver<crate::process::mailbox::Item>,
        ),
        SpawnError,
    > {
        let (mailbox, receiver) = Mailbox::task(self.limits().mailbox);
        Ok((self.add_process(mailbox, self.group_leader())?, receiver))
    }
}

/// The options that OTP sends. `None` for a list that is improper, or has an option that OTP does not know.
fn read_options(options: &Term) -> Option<SpawnOptions> {
    let mut read = SpawnOptions::default();
    for option in options.as_list()? {
        match option {
            Term::Atom(atom) => match atom.as_str() {
                "link" => read.link = true,
                "monitor" => read.monitor = true,
                _ => return None,
            },
            Term::Tuple(pair) if pair.len() == 2 => match pair[0].as_atom()?.as_str() {
                "monitor" => read.monitor = true,
                setting if is_setting(setting, &pair[1]) => {}
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(read)
}

/// Whether it is a setting of how the BEAM runs a process. A Rust process has none of them.
fn is_setting(name: &str, value: &Term) -> bool {
    let size = value.as_integer().is_some_and(|size| size >= 0);
    let one_of = |values: &[&str]| values.iter().any(|known| value.is_atom(known));
    match name {
        "priority" => one_of(&["low", "normal", "high", "max"]),
        "fullsweep_after" | "min_heap_size" | "min_bin_vheap_size" => size,
        "max_heap_size" => size || value.as_map().is_some(),
        "message_queue_data" => one_of(&["on_heap", "off_heap", "mixed"]),
        "async_dist" => one_of(&["true", "false"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_otp_are_read() {
        let options = Term::list([
            Term::atom("link"),
            Term::tuple([Term::atom("priority"), Term::atom("high")]),
            Term::atom("monitor"),
        ]);
        assert_eq!(
            read_options(&options),
            Some(SpawnOptions {
                link: true,
                monitor: true
            })
        );
        assert_eq!(read_options(&Term::list([])), Some(SpawnOptions::default()));
    }

    #[test]
    fn other_options_are_refused() {
        assert_eq!(read_options(&Term::list([Term::atom("fast")])), None);
        let priority = Term::tuple([Term::atom("priority"), Term::atom("none")]);
        assert_eq!(read_options(&Term::list([priority])), None);
        assert_eq!(read_options(&Term::atom("link")), None);
    }
}
