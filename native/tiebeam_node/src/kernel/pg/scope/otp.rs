//! A scope as OTP 25 runs it, as far as its peers can tell: what it says, what it keeps, and on what it ends.
//!
//! It is unforgiving in the places where OTP is. Source: `pg` of OTP's kernel, 25.2.

use std::collections::{BTreeMap, HashMap};

use tiebeam_wire::{Atom, Pid, Term};

/// What an OTP scope does in answer.
#[derive(Debug)]
pub(super) enum Effect {
    Send(Pid, Term),
    Discover(Atom),
    Monitor(Pid),
}

/// Why it ended.
#[derive(Debug)]
pub(super) struct Crash(pub(super) String);

/// The members of one group, of all nodes and of this one, each as often as it joined.
type Row = (Vec<Pid>, Vec<Pid>);

#[derive(Debug)]
pub(super) struct Otp {
    own: Pid,
    local: BTreeMap<Pid, Vec<Term>>,
    remote: BTreeMap<Pid, HashMap<Term, Vec<Pid>>>,
    table: HashMap<Term, Row>,
}

fn badarg(what: &Term) -> Crash {
    Crash(format!("badarg: {what}"))
}

/// `List -- Pids`.
fn subtract(list: &mut Vec<Pid>, pids: &[Pid]) {
    for pid in pids {
        if let Some(at) = list.iter().position(|other| other == pid) {
            list.remove(at);
        }
    }
}

/// A pid or a list of pids; anything else fits no clause.
fn pids(term: &Term) -> Result<Vec<Pid>, Crash> {
    let pid = |term: &Term| term.as_pid().cloned().ok_or_else(|| badarg(term));
    match term {
        Term::List(list) => list.iter().map(pid).collect(),
        single => Ok(vec![pid(single)?]),
    }
}

impl Otp {
    pub(super) fn new(own: Pid) -> Self {
        Self {
            own,
            local: BTreeMap::new(),
            remote: BTreeMap::new(),
            table: HashMap::new(),
        }
    }

    pub(super) fn members(&self, group: &Term) -> Vec<Pid> {
        let row = self.table.get(group);
        row.map_or_else(Vec::new, |(all, _)| all.clone())
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Term> {
        self.table.keys()
    }

    pub(super) fn node_up(&self, node: Atom) -> Vec<Effect> {
        vec![Effect::Discover(node)]
    }

    /// A message, as it lies in the mailbox.
    pub(super) fn received(&mut self, message: &Term) -> Result<Vec<Effect>, Crash> {
        let Some([tag, rest @ ..]) = message.as_tuple() else {
            return Err(badarg(message));
        };
        match (tag.as_atom().map(Atom::as_str), rest) {
            (Some("$gen_cast"), [content]) => match content.as_tuple() {
                Some([tag, Term::Pid(peer), Term::List(groups)]) if tag.is_atom("sync") => {
                    self.sync(peer, groups)
                }
                _ => Err(badarg(message)),
            },
            (Some("discover"), [Term::Pid(peer)]) => Ok(self.discovered(peer)),
            (Some("join"), [Term::Pid(peer), group, members]) => {
                let members = pids(members)?;
                if let Some(groups) = self.remote.get_mut(peer) {
                    groups
                        .entry(group.clone())
                        .or_default()
                        .extend(members.iter().cloned());
                    let (all, _) = self.table.entry(group.clone()).or_default();
                    all.extend(members);
                }
                Ok(Vec::new())
            }
            (Some("leave"), [Term::Pid(peer), members, Term::List(groups)]) => {
                let members = pids(members)?;
                if self.remote.contains_key(peer) {
                    self.leave(peer, &members, groups)?;
                }
                Ok(Vec::new())
            }
            _ => Err(badarg(message)),
        }
    }

    fn discovered(&mut self, peer: &Pid) -> Vec<Effect> {
        let mut groups: HashMap<&Term, Vec<Term>> = HashMap::new();
        for (pid, joined) in &self.local {
            for group in joined {
                groups.entry(group).or_default().push(Term::from(pid));
            }
        }
        let pairs = groups
            .into_iter()
            .map(|(group, pids)| Term::tuple([group.clone(), Term::from(pids)]));
        let own = Term::from(&self.own);
        let pairs = Term::from(pairs.collect::<Vec<_>>());
        let sync = Term::tuple([Term::atom("sync"), own.clone(), pairs]);
        let cast = Term::tuple([Term::atom("$gen_cast"), sync]);
        let mut effects = vec![Effect::Send(peer.clone(), cast)];
        if !self.remote.contains_key(peer) {
            self.remote.insert(peer.clone(), HashMap::new());
            effects.push(Effect::Monitor(peer.clone()));
            let discover = Term::tuple([Term::atom("discover"), own]);
            effects.push(Effect::Send(peer.clone(), discover));
        }
        effects
    }

    fn sync(&mut self, peer: &Pid, groups: &[Term]) -> Result<Vec<Effect>, Crash> {
        let mut effects = Vec::new();
        let mut before = match self.remote.get(peer) {
            Some(groups) => groups.clone(),
            None => {
                effects.push(Effect::Monitor(peer.clone()));
                HashMap::new()
            }
        };
        let mut now = HashMap::new();
        for pair in groups {
            let Some([group, Term::List(_)]) = pair.as_tuple() else {
                return Err(badarg(pair));
            };
            let members = pids(&pair.as_tuple().unwrap()[1])?;
            match before.remove(group) {
                Some(old) if old == members => {}
                Some(old) => {
                    let Some((all, _)) = self.table.get_mut(group) else {
                        return Err(Crash(format!("badmatch: no group {group}")));
                    };
                    subtract(all, &old);
                    all.extend(members.iter().cloned());
                }
                // Also for a group that comes twice: then its members stay for ever.
                None => {
                    let (all, _) = self.table.entry(group.clone()).or_default();
                    all.extend(members.iter().cloned());
                }
            }
            now.insert(group.clone(), members);
        }
        for (group, members) in before {
            self.remote_left(&members, &group);
        }
        self.remote.insert(peer.clone(), now);
        Ok(effects)
    }

    fn leave(&mut self, peer: &Pid, members: &[Pid], left: &[Term]) -> Result<(), Crash> {
        for group in left {
            self.remote_left(members, group);
        }
        let groups = self.remote.get_mut(peer).expect("the caller has looked");
        for group in left {
            let Some(known) = groups.get_mut(group) else {
                return Err(Crash(format!("badkey: {group}")));
            };
            subtract(known, members);
            if known.is_empty() {
                groups.remove(group);
            }
        }
        Ok(())
    }

    fn remote_left(&mut self, members: &[Pid], group: &Term) {
        if let Some((all, local)) = self.table.get_mut(group) {
            subtract(all, members);
            if all.is_empty() && local.is_empty() {
                self.table.remove(group);
            }
        }
    }

    pub(super) fn down(&mut self, pid: &Pid) -> Vec<Effect> {
        if let Some(groups) = self.remote.remove(pid) {
            for (group, members) in groups {
                self.remote_left(&members, &group);
            }
            return Vec::new();
        }
        let Some(groups) = self.local.remove(pid) else {
            return Vec::new();
        };
        for group in &groups {
            self.local_left(group, pid);
        }
        let groups = Term::from(groups);
        self.tell(["leave"], |own| vec![own, Term::from(pid), groups.clone()])
    }

    pub(super) fn join(&mut self, group: &Term, members: &[Pid]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for pid in members {
            let groups = self.local.entry(pid.clone()).or_insert_with(|| {
                effects.push(Effect::Monitor(pid.clone()));
                Vec::new()
            });
            groups.push(group.clone());
            let (all, local) = self.table.entry(group.clone()).or_default();
            all.push(pid.clone());
            local.push(pid.clone());
        }
        let pids = Term::from(members.iter().map(Term::from).collect::<Vec<_>>());
        effects.extend(self.tell(["join"], |own| vec![own, group.clone(), pids.clone()]));
        effects
    }

    pub(super) fn leave_local(&mut self, group: &Term, pid: &Pid) -> Vec<Effect> {
        let Some(groups) = self.local.get_mut(pid) else {
            return Vec::new();
        };
        let Some(at) = groups.iter().position(|other| other == group) else {
            return Vec::new();
        };
        groups.remove(at);
        if groups.is_empty() {
            self.local.remove(pid);
        }
        self.local_left(group, pid);
        let groups = Term::list([group.clone()]);
        self.tell(["leave"], |own| vec![own, Term::from(pid), groups.clone()])
    }

    fn local_left(&mut self, group: &Term, pid: &Pid) {
        if let Some((all, local)) = self.table.get_mut(group) {
            let pid = std::slice::from_ref(pid);
            subtract(all, pid);
            subtract(local, pid);
            if all.is_empty() {
                self.table.remove(group);
            }
        }
    }

    /// To all that it knows: also to those that know nothing of its groups yet, which is OTP's race.
    fn tell(&self, [tag]: [&'static str; 1], rest: impl Fn(Term) -> Vec<Term>) -> Vec<Effect> {
        let message = || {
            let mut elements = vec![Term::atom(tag)];
            elements.extend(rest(Term::from(&self.own)));
            Term::tuple(elements)
        };
        let peers = self.remote.keys();
        peers
            .map(|peer| Effect::Send(peer.clone(), message()))
            .collect()
    }
}
