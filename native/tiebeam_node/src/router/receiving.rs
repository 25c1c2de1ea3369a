//! What a signal does that has reached this node, and what a death causes.

use std::collections::VecDeque;
use std::sync::Arc;

use tiebeam_wire::control::{Control, ExitTarget};
use tiebeam_wire::{Pid, Reference, Term};
use tracing::{debug, warn};

use crate::connection::Connection;
use crate::process::Target;
use crate::process::entry::{Entry, Remains, State};
use crate::process::mailbox::Item;
use crate::router::{Outcome, Routed, Router, spawn};

impl Router {
    /// A signal came over a connection. An error names what the peer may not send; the connection must be closed.
    pub(crate) fn incoming(
        &self,
        connection: &Connection,
        control: Control,
        payload: Option<Term>,
    ) -> Result<(), String> {
        // The rules by which OTP closes a connection: these must come from a process of the peer,
        let own = match &control {
            Control::Link { from, .. }
            | Control::UnlinkId { from, .. }
            | Control::UnlinkIdAck { from, .. }
            | Control::Unlink { from, .. }
            | Control::Exit { from, .. }
            | Control::Exit2 { from, .. }
            | Control::Monitor { from, .. }
            | Control::Demonitor { from, .. } => from.node == connection.peer,
            _ => true,
        };
        if !own {
            return Err(format!(
                "{} sent a signal in the name of another node: {control:?}",
                connection.peer
            ));
        }
        // and these must go to one of ours. An earlier life of this node counts: OTP closes the connection on some of
        // these, yet sends them itself (`unlink/1` of a pid that was kept over a restart), and the answer is the same
        // as for a process that has ended.
        let ours = match &control {
            Control::Link { to, .. }
            | Control::UnlinkId { to, .. }
            | Control::UnlinkIdAck { to, .. }
            | Control::Unlink { to, .. }
            | Control::Exit { to, .. }
            | Control::Monitor {
                target: tiebeam_wire::control::Target::Pid(to),
                ..
            } => to.node == self.name,
            _ => true,
        };
        if !ours {
            return Err(format!(
                "{} sent a signal for another node: {control:?}",
                connection.peer
            ));
        }
        let mut work = VecDeque::new();
        self.receive(control, payload, &mut work);
        if !work.is_empty() {
            self.work_off(work);
        }
        Ok(())
    }

    /// A signal reached this node.
    pub(super) fn receive(
        &self,
        control: Control,
        payload: Option<Term>,
        work: &mut VecDeque<Routed>,
    ) {
        // Ops with a payload always have one; a local sender passes it too.
        let payload = || payload.unwrap_or_else(|| Term::atom("undefined"));
        match control {
            Control::Send { .. } | Control::RegSend { .. } | Control::AliasSend { .. } => {
                if let Some(full) = self.deliver(control, payload()) {
                    self.overflow(&full, work);
                }
            }
            Control::Link { from, to } => {
                let refused = self.relate(self.process(&to), |_, state| {
                    state.links.linked_by(from.clone());
                });
                if let Err(reason) = refused {
                    work.push_back(Routed::new(
                        from.node.clone(),
                        Control::Exit { from: to, to: from },
                        Some(Term::atom(reason)),
                    ));
                }
            }
            Control::UnlinkId { id, from, to } => {
                // Acknowledged while the link is still there: were it removed first, its process could link again in
                // between, and the peer, not knowing that its unlink arrived, would ignore that.
                let control = Control::UnlinkIdAck {
                    id,
                    from: to.clone(),
                    to: from.clone(),
                };
                self.dispatch(Routed::new(from.node.clone(), control, None), work);
                if let Some(entry) = self.process(&to) {
                    entry.state().links.unlinked_by(&from);
                }
            }
            Control::UnlinkIdAck { id, from, to } => {
                if let Some(entry) = self.process(&to) {
                    entry.state().links.acknowledged(&from, id);
                }
            }
            Control::Unlink { from, to } => {
                if let Some(entry) = self.process(&to) {
                    entry.state().links.unlinked_by(&from);
                }
            }
            Control::Exit { from, to } => {
                if let Some(entry) = self.process(&to) {
                    self.linked_exit(&entry, from, payload(), work);
                }
            }
            Control::Exit2 { from, to } => {
                let entry = match &to {
                    ExitTarget::Pid(pid) => self.process(pid),
                    ExitTarget::Name(name) => self.whereis(name),
                    ExitTarget::Alias(alias) => {
                        self.aliases.get(alias).map(|entry| Arc::clone(&entry))
                    }
                };
                if let Some(entry) = entry {
                    self.exit_signal(&entry, from, payload(), work);
                }
            }
            Control::GroupLeader { leader, to } => {
                if let Some(entry) = self.process(&to) {
                    entry.state().group_leader = leader;
                }
            }
            Control::Monitor {
                from,
                target,
                reference,
            } => {
                let target = Target::from(target);
                let entry = match &target {
                    Target::Pid(pid) => self.process(pid),
                    Target::Name(name) => self.whereis(name),
                };
                let refused = self.relate(entry, |entry, state| {
                    if matches!(target, Target::Name(_)) {
                        self.by_name.insert(reference.clone(), Arc::clone(entry));
                    }
                    state
                        .watched_by
                        .insert(reference.clone(), (from.clone(), target.clone()));
                });
                if let Err(reason) = refused {
                    work.push_back(Routed::new(
                        from.node.clone(),
                        Control::Down {
                            target: target.into(),
                            to: from,
                            reference,
                        },
                        Some(Term::atom(reason)),
                    ));
                }
            }
            Control::Demonitor {
                target, reference, ..
            } => {
                let entry = match &target {
                    tiebeam_wire::control::Target::Pid(pid) => self.process(pid),
                    tiebeam_wire::control::Target::Name(_) => {
                        self.by_name.remove(&reference).map(|(_, entry)| entry)
                    }
                };
                if let Some(entry) = entry {
                    entry.state().watched_by.remove(&reference);
                }
            }
            Control::Down { to, reference, .. } => {
                if let Some(entry) = self.process(&to) {
                    self.down(&entry, &reference, payload(), work);
                }
            }
            Control::SpawnRequest {
                reference,
                from,
                group_leader,
                module,
                function,
                options,
                ..
            } => {
                self.spawn_requested(spawn::Request {
                    reference,
                    from,
                    group_leader,
                    module,
                    function,
                    options,
                    args: payload(),
                });
            }
            Control::SpawnReply {
                reference,
                to,
                linked,
                monitored,
                result,
            } => {
                self.spawn_replied(&reference, to, linked, monitored, result, work);
            }
        }
    }

    /// Puts a message into a mailbox of this node. Gives the process back whose mailbox is full.
    pub(super) fn deliver(&self, control: Control, message: Term) -> Option<Arc<Entry>> {
        let entry = match control {
            Control::Send { to, .. } if to.id == self.caller.pid.id && to == self.caller.pid => {
                self.caller_got(message);
                return None;
            }
            Control::Send { to, .. } => self.process(&to),
            Control::RegSend { name, .. } => {
                let entry = self.whereis(&name);
                if entry.is_none() {
                    debug!(%name, "a message to an unknown name was dropped");
                }
                entry
            }
            Control::AliasSend { alias, .. } => {
                let reply = match message {
                    Term::Tuple(ref elements) if elements.len() == 2 => Some(elements[1].clone()),
                    _ => None,
                };
                if let Some(reply) = reply
                    && self.answer(&alias, Outcome::Reply(reply))
                {
                    return None;
                }
                self.aliases.get(&alias).map(|entry| Arc::clone(&entry))
            }
            _ => None,
        }?;
        let taken = entry.mailbox.push(Item::Message(message));
        taken.is_err().then_some(entry)
    }

    /// Gives a process that lives a link or a monitor; else says why not.
    pub(super) fn relate(
        &self,
        entry: Option<Arc<Entry>>,
        insert: impl FnOnce(&Arc<Entry>, &mut State),
    ) -> Result<(), &'static str> {
        let entry = entry.ok_or("noproc")?;
        let mut state = entry.state();
        if state.exited.is_some() {
            return Err("noproc");
        }
        if state.links.len() + state.watched_by.len() >= self.limits.relations {
            return Err("system_limit");
        }
        insert(&entry, &mut state);
        Ok(())
    }

    /// A message to the node's own caller: a reply by pid, as old servers and `net_kernel` send it.
    pub(super) fn caller_got(&self, message: Term) {
        let Term::Tuple(elements) = message else {
            return;
        };
        let Ok([tag, reply]) = <[Term; 2]>::try_from(elements) else {
            return;
        };
        let reference = match &tag {
            Term::Reference(reference) => Some(reference),
            Term::Improper(list) => list.tail.as_reference(),
            _ => None,
        };
        if let Some(reference) = reference {
            self.answer(reference, Outcome::Reply(reply));
        }
    }

    /// The monitor with this reference fires.
    pub(super) fn down(
        &self,
        entry: &Arc<Entry>,
        reference: &Reference,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        let Some((target, _)) = entry.state().monitoring.remove(reference) else {
            return;
        };
        if Arc::ptr_eq(entry, &self.caller) {
            self.answer(reference, Outcome::Down(reason));
        } else {
            self.put(
                entry,
                Item::Down {
                    reference: reference.clone(),
                    target,
                    reason,
                },
                work,
            );
        }
    }

    /// The process at the other end of a link ended.
    pub(super) fn linked_exit(
        &self,
        entry: &Arc<Entry>,
        from: Pid,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        if entry.state().links.exited(&from) {
            self.link_broken(entry, from, reason, work);
        }
    }

    /// The connection of a link is gone.
    pub(super) fn lost_link(
        &self,
        entry: &Arc<Entry>,
        from: Pid,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        if entry.state().links.end_lost(&from) {
            self.link_broken(entry, from, reason, work);
        }
    }

    fn link_broken(
        &self,
        entry: &Arc<Entry>,
        from: Pid,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        let trap = entry.state().trap_exit;
        // Over a link even `kill` is an ordinary reason.
        if trap {
            self.put(entry, Item::Exit { from, reason }, work);
        } else if !reason.is_atom("normal") {
            self.terminate(entry, reason, work);
        }
    }

    /// Somebody called `exit/2`.
    pub(super) fn exit_signal(
        &self,
        entry: &Arc<Entry>,
        from: Pid,
        reason: Term,
        work: &mut VecDeque<Routed>,
    ) {
        if reason.is_atom("kill") {
            self.terminate(entry, Term::atom("killed"), work);
        } else if entry.state().trap_exit {
            self.put(entry, Item::Exit { from, reason }, work);
        } else if !reason.is_atom("normal") || from == entry.pid {
            self.terminate(entry, reason, work);
        }
    }

    pub(super) fn put(&self, entry: &Arc<Entry>, item: Item, work: &mut VecDeque<Routed>) {
        if entry.mailbox.push(item).is_err() {
            self.overflow(entry, work);
        }
    }

    pub(super) fn overflow(&self, entry: &Arc<Entry>, work: &mut VecDeque<Routed>) {
        warn!(pid = ?entry.pid, limit = self.limits.mailbox, "a process does not keep up with its mailbox and ends");
        self.terminate(entry, Term::atom("mailbox_full"), work);
    }

    /// Ends a process: frees its names, and tells whom it concerns. Links first, then monitors, as OTP does.
    pub(super) fn terminate(&self, entry: &Arc<Entry>, reason: Term, work: &mut VecDeque<Routed>) {
        // The caller stands for the node itself: nobody can end it but the node's own end.
        if Arc::ptr_eq(entry, &self.caller) && !self.is_stopping() {
            return;
        }
        let Some(Remains {
            links,
            watched_by,
            monitoring,
            names,
            aliases,
            abort,
        }) = entry.die(&reason)
        else {
            return;
        };
        let pid = &entry.pid;
        self.processes.remove(&Self::key(pid));
        for name in names {
            self.names
                .remove_if(&name, |_, other| Arc::ptr_eq(other, entry));
        }
        for alias in aliases {
            self.aliases.remove(&alias);
        }
        for to in links {
            let control = Control::Exit {
                from: pid.clone(),
                to: to.clone(),
            };
            work.push_back(Routed::new(to.node, control, Some(reason.clone())));
        }
        for (reference, (watcher, target)) in watched_by {
            if matches!(target, Target::Name(_)) {
                self.by_name.remove(&reference);
            }
            let control = Control::Down {
                target: target.into(),
                to: watcher.clone(),
                reference,
            };
            work.push_back(Routed {
                // By name, the signal does not tell whose death it is.
                sender: Some(pid.clone()),
                ..Routed::new(watcher.node, control, Some(reason.clone()))
            });
        }
        for (reference, (target, node)) in monitoring {
            let control = Control::Demonitor {
                from: pid.clone(),
                target: target.into(),
                reference,
            };
            work.push_back(Routed::new(node, control, None));
        }
        // Wakes a receiver that waits; one that was dropped needs no waking.
        let _ = entry.mailbox.push(Item::Killed);
        if let Some(abort) = abort {
            abort.abort();
        }
    }
}
