//! What name servers say to each other, as terms.
//!
//! A *cast* is `{'$gen_cast', Message}`, a *plain* message is the message itself; all go to the registered name
//! `global_name_server`, but for the one answer between lockers that has no session. What does not have exactly the
//! shape of one of them is refused as a whole. Source: `global.erl` of OTP 25, the comment "Messages in the protocol".

use std::fmt;

use tiebeam_wire::{Atom, Export, Map, Pid, Term};

/// The protocol version that this node speaks.
pub(super) const VERSION: i64 = 8;

/// From this version on, nodes know `init_connect_ack` and `cancel_connect`, and `lock_set` has a tag.
pub(super) const VERSION_VERIFY: i64 = 8;

/// From this version on, nodes know `lost_connection` and `remove_connection`, and lists of nodes have versions.
pub(super) const VERSION_PARTITIONS: i64 = 7;

/// A node, and the protocol version that it speaks; 0 where nobody said.
pub(super) type NodeVersion = (Atom, i64);

/// A registered name, as it travels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NameEntry {
    pub(crate) name: Term,
    pub(crate) pid: Pid,
    /// The function that decides conflicts: a fun of arity 3.
    pub(crate) method: Term,
}

/// A name of a process on a node without `global`, and the node that registered it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExternalName {
    pub(crate) name: Term,
    pub(crate) pid: Pid,
    pub(crate) node: Atom,
}

/// A change of the table of names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Insert(NameEntry),
    Delete(Term),
}

/// Names a lock: a resource, and who asks for it. Whoever asks with the same requester shares the lock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LockId {
    pub(crate) resource: Term,
    pub(crate) requester: Term,
}

/// What the nodes of a partition learn when it was joined with another one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewNodes {
    pub(crate) node: Atom,
    pub(crate) ops: Vec<Op>,
    pub(crate) external: Vec<ExternalName>,
    pub(crate) nodes: Vec<NodeVersion>,
    pub(crate) version: i64,
    /// The requester of the lock under which all this was decided.
    pub(crate) requester: Option<Term>,
}

/// A message between name servers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// cast: the hello.
    InitConnect {
        version: i64,
        tag: Term,
        node: Atom,
        locker: Pid,
    },
    /// plain: "your tag is `his_tag`, mine is `my_tag`", as the sender sees it.
    InitConnectAck {
        node: Atom,
        his_tag: Term,
        my_tag: Term,
    },
    /// plain: the session in which the receiver's tag is this one is over.
    CancelConnect { node: Atom, his_tag: Term },
    /// cast: whether the sender's partition is locked. Without a tag from nodes before version 8, and from a locker to
    /// a locker.
    LockSet {
        locker: Pid,
        set: bool,
        known: Vec<NodeVersion>,
        tag: Option<Term>,
    },
    /// cast: all names of the sender's partition.
    Exchange {
        node: Atom,
        names: Vec<NameEntry>,
        tag: Term,
    },
    /// cast: what the receiver's partition must change.
    Resolved {
        node: Atom,
        ops: Vec<Op>,
        known: Vec<NodeVersion>,
        external: Vec<ExternalName>,
        tag: Term,
    },
    /// cast: the partition has grown.
    NewNodes(NewNodes),
    /// cast: the sender, of the other partition, knows the receiver.
    InSync { node: Atom },
    /// plain: `reporter` lost its connection to `lost`.
    LostConnection {
        reporter: Atom,
        /// Unique to the incarnation of the reporter.
        creation: Term,
        /// Increases with each report of that incarnation.
        operation: i64,
        lost: Atom,
    },
    /// plain: the sender has removed the receiver, which closes the connection.
    RemoveConnection { node: Atom },
}

/// What a name server is called for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    SetLock(LockId),
    DelLock(LockId),
    Register(NameEntry),
    RegisterExternal(NameEntry, Atom),
    Unregister(Term),
    GetKnown,
    GetSynced,
    GetProtocolVersion,
    GetNamesExternal,
    Sync(Vec<Atom>),
}

/// A term that is none of the messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Malformed {
    /// Which part of it is wrong.
    pub(crate) part: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its {} is none", self.part)
    }
}

type Decoded<T> = Result<T, Malformed>;

impl Message {
    /// The message as it is sent to a peer that speaks `version`, the wrapping of a cast included.
    pub(crate) fn to_term(&self, version: i64) -> Term {
        let with_versions = version >= VERSION_PARTITIONS;
        let name = Term::from;
        match self {
            Self::InitConnect {
                version,
                tag,
                node,
                locker,
            } => {
                let init = Term::tuple([
                    Term::atom("locker"),
                    Term::atom("no_longer_a_pid"),
                    // The table of known nodes of the sender, which no receiver reads.
                    Term::from(Map::new()),
                    Term::from(locker),
                ]);
                cast([
                    Term::atom("init_connect"),
                    Term::tuple([Term::from(*version), tag.clone()]),
                    name(node.clone()),
                    init,
                ])
            }
            Self::InitConnectAck {
                node,
                his_tag,
                my_tag,
            } => Term::tuple([
                Term::atom("init_connect_ack"),
                name(node.clone()),
                his_tag.clone(),
                my_tag.clone(),
            ]),
            Self::CancelConnect { node, his_tag } => Term::tuple([
                Term::atom("cancel_connect"),
                name(node.clone()),
                his_tag.clone(),
            ]),
            Self::LockSet {
                locker,
                set,
                known,
                tag,
            } => {
                let mut elements = vec![
                    Term::atom("lock_set"),
                    Term::from(locker),
                    Term::from(*set),
                    Term::List(known.iter().map(|(node, _)| name(node.clone())).collect()),
                ];
                elements.extend(tag.clone());
                cast(elements)
            }
            Self::Exchange { node, names, tag } => cast([
                Term::atom("exchange"),
                name(node.clone()),
                Term::List(names.iter().map(entry_term).collect()),
                Term::list([]),
                tag.clone(),
            ]),
            Self::Resolved {
                node,
                ops,
                known,
                external,
                tag,
            } => cast([
                Term::atom("resolved"),
                name(node.clone()),
                ops_term(ops),
                nodes_term(known, with_versions),
                Term::atom("unused"),
                external_term(external),
                tag.clone(),
            ]),
            Self::NewNodes(new) => {
                let mut info = vec![Term::tuple([Term::atom("vsn"), Term::from(new.version)])];
                if let Some(requester) = &new.requester {
                    let id = Term::tuple([Term::atom("global"), requester.clone()]);
                    info.push(Term::tuple([Term::atom("lock"), id]));
                }
                cast([
                    Term::atom("new_nodes"),
                    name(new.node.clone()),
                    ops_term(&new.ops),
                    external_term(&new.external),
                    nodes_term(&new.nodes, with_versions),
                    Term::List(info),
                ])
            }
            Self::InSync { node } => {
                cast([Term::atom("in_sync"), name(node.clone()), Term::from(true)])
            }
            Self::LostConnection {
                reporter,
                creation,
                operation,
                lost,
            } => Term::tuple([
                Term::atom("lost_connection"),
                name(reporter.clone()),
                creation.clone(),
                Term::from(*operation),
                name(lost.clone()),
            ]),
            Self::RemoveConnection { node } => {
                Term::tuple([Term::atom("remove_connection"), name(node.clone())])
            }
        }
    }

    /// The answer of a locker that knows of no session, sent to the other locker itself.
    pub(crate) fn no_session(locker: &Pid, known: Vec<NodeVersion>) -> Term {
        let message = Self::LockSet {
            locker: locker.clone(),
            set: false,
            known,
            tag: None,
        };
        match message.to_term(VERSION) {
            Term::Tuple(mut cast) => cast.pop().unwrap_or(Term::Tuple(cast)),
            other => other,
        }
    }

    /// Reads what came as `{'$gen_cast', Term}`; `None` for a message of an older protocol that means nothing any more.
    pub(crate) fn of_cast(term: Term) -> Decoded<Option<Self>> {
        let elements = tuple(term, "cast")?;
        let kind = kind(&elements)?;
        Ok(Some(match kind.as_str() {
            "init_connect" => {
                let [_, version, node, init] = exactly(elements)?;
                let mut version = tuple(version, "version")?.into_iter();
                let (Some(number), Some(tag)) = (version.next(), version.next()) else {
                    return Err(malformed("version"));
                };
                let (number, node) = (integer(&number, "version")?, atom(node, "node")?);
                let [_, _, _, locker] = exactly(tuple(init, "locker")?)?;
                let locker = pid(locker, "locker")?;
                if locker.node != node {
                    return Err(malformed("locker"));
                }
                Self::InitConnect {
                    version: number,
                    tag,
                    node,
                    locker,
                }
            }
            "lock_set" => Self::lock_set(elements)?,
            "exchange" => {
                let [_, node, names, _, tag] = exactly(elements)?;
                let names = list(names, "list of names")?;
                Self::Exchange {
                    node: atom(node, "node")?,
                    names: names.into_iter().map(entry).collect::<Decoded<_>>()?,
                    tag,
                }
            }
            "resolved" => {
                let [_, node, ops, known, _, external, tag] = exactly(elements)?;
                Self::Resolved {
                    node: atom(node, "node")?,
                    ops: operations(ops)?,
                    known: nodes(known)?,
                    external: external_names(external)?,
                    tag,
                }
            }
            "new_nodes" => {
                let [_, node, ops, external, new, info] = exactly(elements)?;
                let (version, requester) = extra_info(info)?;
                Self::NewNodes(NewNodes {
                    node: atom(node, "node")?,
                    ops: operations(ops)?,
                    external: external_names(external)?,
                    nodes: nodes(new)?,
                    version,
                    requester,
                })
            }
            "in_sync" => {
                let [_, node, _] = exactly(elements)?;
                Self::InSync {
                    node: atom(node, "node")?,
                }
            }
            "async_del_name" | "async_del_lock" => return Ok(None),
            _ => return Err(malformed("kind")),
        }))
    }

    /// Reads what came as the message itself, to the name server or to its locker.
    pub(crate) fn of_plain(term: Term) -> Decoded<Self> {
        let elements = tuple(term, "message")?;
        let kind = kind(&elements)?;
        Ok(match kind.as_str() {
            "init_connect_ack" => {
                let [_, node, his_tag, my_tag] = exactly(elements)?;
                Self::InitConnectAck {
                    node: atom(node, "node")?,
                    his_tag,
                    my_tag,
                }
            }
            "cancel_connect" => {
                let [_, node, his_tag] = exactly(elements)?;
                Self::CancelConnect {
                    node: atom(node, "node")?,
                    his_tag,
                }
            }
            "lost_connection" => {
                let [_, reporter, creation, operation, lost] = exactly(elements)?;
                Self::LostConnection {
                    reporter: atom(reporter, "node")?,
                    creation,
                    operation: integer(&operation, "operation")?,
                    lost: atom(lost, "node")?,
                }
            }
            "remove_connection" => {
                let [_, node] = exactly(elements)?;
                Self::RemoveConnection {
                    node: atom(node, "node")?,
                }
            }
            "lock_set" => Self::lock_set(elements)?,
            _ => return Err(malformed("kind")),
        })
    }

    fn lock_set(mut elements: Vec<Term>) -> Decoded<Self> {
        let tag = match elements.len() {
            5 => elements.pop(),
            _ => None,
        };
        let [_, locker, set, known] = exactly(elements)?;
        Ok(Self::LockSet {
            locker: pid(locker, "locker")?,
            set: match atom(set, "flag")?.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(malformed("flag")),
            },
            known: nodes(known)?,
            tag,
        })
    }
}

impl Request {
    pub(crate) fn to_term(&self) -> Term {
        let id = |id: &LockId| Term::tuple([id.resource.clone(), id.requester.clone()]);
        let named = |kind, entry: &NameEntry| {
            vec![
                Term::atom(kind),
                entry.name.clone(),
                Term::from(&entry.pid),
                entry.method.clone(),
            ]
        };
        match self {
            Self::SetLock(lock) => Term::tuple([Term::atom("set_lock"), id(lock)]),
            Self::DelLock(lock) => Term::tuple([Term::atom("del_lock"), id(lock)]),
            Self::Register(entry) => Term::Tuple(named("register", entry)),
            Self::RegisterExternal(entry, node) => {
                let mut elements = named("register_ext", entry);
                elements.push(Term::from(node.clone()));
                Term::Tuple(elements)
            }
            Self::Unregister(name) => Term::tuple([Term::atom("unregister"), name.clone()]),
            Self::GetKnown => Term::atom("get_known"),
            Self::GetSynced => Term::atom("get_synced"),
            Self::GetProtocolVersion => Term::atom("get_protocol_version"),
            Self::GetNamesExternal => Term::atom("get_names_ext"),
            Self::Sync(nodes) => {
                let nodes = nodes.iter().cloned().map(Term::from).collect();
                Term::tuple([Term::atom("sync"), Term::List(nodes)])
            }
        }
    }

    /// Reads the request of a `gen_server` call.
    pub(crate) fn of_term(term: Term) -> Decoded<Self> {
        if let Term::Atom(request) = &term {
            return Ok(match request.as_str() {
                "get_known" => Self::GetKnown,
                "get_synced" => Self::GetSynced,
                "get_protocol_version" => Self::GetProtocolVersion,
                "get_names_ext" => Self::GetNamesExternal,
                _ => return Err(malformed("request")),
            });
        }
        let elements = tuple(term, "request")?;
        let lock = |term| {
            let [resource, requester] = exactly(tuple(term, "lock")?)?;
            Ok(LockId {
                resource,
                requester,
            })
        };
        let kind = kind(&elements)?;
        Ok(match kind.as_str() {
            "set_lock" => {
                let [_, id] = exactly(elements)?;
                Self::SetLock(lock(id)?)
            }
            "del_lock" => {
                let [_, id] = exactly(elements)?;
                Self::DelLock(lock(id)?)
            }
            "register" => {
                let [_, name, pid, method] = exactly(elements)?;
                Self::Register(entry_of(name, pid, method)?)
            }
            "register_ext" => {
                let [_, name, pid, method, node] = exactly(elements)?;
                Self::RegisterExternal(entry_of(name, pid, method)?, atom(node, "node")?)
            }
            "unregister" => {
                let [_, name] = exactly(elements)?;
                Self::Unregister(name)
            }
            "sync" => {
                let [_, wanted] = exactly(elements)?;
                let wanted = nodes(wanted)?;
                Self::Sync(wanted.into_iter().map(|(node, _)| node).collect())
            }
            _ => return Err(malformed("request")),
        })
    }
}

/// `fun global:random_exit_name/3`, the resolver of a name for which nobody named another one.
pub(super) fn default_method() -> Term {
    method(Atom::of("global"), Atom::of("random_exit_name"))
}

/// `fun Module:Function/3`.
pub(super) fn method(module: Atom, function: Atom) -> Term {
    Term::Export(Box::new(Export {
        module,
        function,
        arity: 3,
    }))
}

/// `[{Node, Version}]`, or `[Node]` for those that know no versions.
pub(super) fn nodes_term(nodes: &[NodeVersion], with_versions: bool) -> Term {
    let term = |(node, version): &NodeVersion| match with_versions {
        true => Term::tuple([Term::from(node.clone()), Term::from(*version)]),
        false => Term::from(node.clone()),
    };
    Term::List(nodes.iter().map(term).collect())
}

/// `[{Name, Pid, Node}]`.
pub(super) fn external_term(names: &[ExternalName]) -> Term {
    let term = |external: &ExternalName| {
        Term::tuple([
            external.name.clone(),
            Term::from(&external.pid),
            Term::from(external.node.clone()),
        ])
    };
    Term::List(names.iter().map(term).collect())
}

fn cast(message: impl Into<Vec<Term>>) -> Term {
    Term::tuple([Term::atom("$gen_cast"), Term::Tuple(message.into())])
}

fn entry_term(entry: &NameEntry) -> Term {
    Term::tuple([
        entry.name.clone(),
        Term::from(&entry.pid),
        entry.method.clone(),
    ])
}

fn ops_term(ops: &[Op]) -> Term {
    let term = |op: &Op| match op {
        Op::Insert(entry) => Term::tuple([Term::atom("insert"), entry_term(entry)]),
        Op::Delete(name) => Term::tuple([Term::atom("delete"), name.clone()]),
    };
    Term::List(ops.iter().map(term).collect())
}

fn malformed(part: &'static str) -> Malformed {
    Malformed { part }
}

fn exactly<const N: usize>(elements: Vec<Term>) -> Decoded<[Term; N]> {
    elements.try_into().map_err(|_| malformed("size"))
}

fn kind(elements: &[Term]) -> Decoded<Atom> {
    let kind = elements.first().and_then(Term::as_atom);
    kind.cloned().ok_or(malformed("kind"))
}

fn tuple(term: Term, part: &'static str) -> Decoded<Vec<Term>> {
    match term {
        Term::Tuple(elements) => Ok(elements),
        _ => Err(malformed(part)),
    }
}

fn list(term: Term, part: &'static str) -> Decoded<Vec<Term>> {
    match term {
        Term::List(elements) => Ok(elements),
        _ => Err(malformed(part)),
    }
}

fn atom(term: Term, part: &'static str) -> Decoded<Atom> {
    match term {
        Term::Atom(atom) => Ok(atom),
        _ => Err(malformed(part)),
    }
}

fn pid(term: Term, part: &'static str) -> Decoded<Pid> {
    match term {
        Term::Pid(pid) => Ok(pid),
        _ => Err(malformed(part)),
    }
}

fn integer(term: &Term, part: &'static str) -> Decoded<i64> {
    term.as_integer().ok_or(malformed(part))
}

/// `[Node]` or `[{Node, Version}]`, mixed as they may be.
fn nodes(term: Term) -> Decoded<Vec<NodeVersion>> {
    let node = |term| match term {
        Term::Atom(node) => Ok((node, 0)),
        term => {
            let [node, version] = exactly(tuple(term, "list of nodes")?)?;
            Ok((
                atom(node, "list of nodes")?,
                integer(&version, "list of nodes")?,
            ))
        }
    };
    list(term, "list of nodes")?.into_iter().map(node).collect()
}

fn entry(term: Term) -> Decoded<NameEntry> {
    let [name, pid, method] = exactly(tuple(term, "list of names")?)?;
    entry_of(name, pid, method)
}

fn entry_of(name: Term, process: Term, method: Term) -> Decoded<NameEntry> {
    Ok(NameEntry {
        name,
        pid: pid(process, "process")?,
        method: checked_method(method),
    })
}

/// A resolver that a BEAM can apply goes on as it came; anything else would delete the name there when it is needed.
fn checked_method(method: Term) -> Term {
    match is_method(&method) {
        true => method,
        false => default_method(),
    }
}

/// Whether a BEAM can apply it to a name and two pids.
pub(super) fn is_method(method: &Term) -> bool {
    match method {
        Term::Export(export) => export.arity == 3,
        Term::Fun(fun) => fun.arity == 3,
        // Kept as bytes because it nests too deep to look into.
        Term::Opaque(_) => true,
        _ => false,
    }
}

fn operations(term: Term) -> Decoded<Vec<Op>> {
    let op = |term| {
        let elements = tuple(term, "list of operations")?;
        let kind = kind(&elements)?;
        let [_, what] = exactly(elements)?;
        match kind.as_str() {
            "insert" => entry(what).map(Op::Insert),
            "delete" => Ok(Op::Delete(what)),
            _ => Err(malformed("list of operations")),
        }
    };
    list(term, "list of operations")?
        .into_iter()
        .map(op)
        .collect()
}

fn external_names(term: Term) -> Decoded<Vec<ExternalName>> {
    let external = |term| {
        let [name, process, node] = exactly(tuple(term, "list of external names")?)?;
        Ok(ExternalName {
            name,
            pid: pid(process, "list of external names")?,
            node: atom(node, "list of external names")?,
        })
    };
    list(term, "list of external names")?
        .into_iter()
        .map(external)
        .collect()
}

/// `[{vsn, Version}, {lock, {global, Requester}}]`; what else may stand in it is for later versions.
fn extra_info(term: Term) -> Decoded<(i64, Option<Term>)> {
    let (mut version, mut requester) = (VERSION, None);
    for item in list(term, "extra information")? {
        let Term::Tuple(item) = item else { continue };
        let Ok([Term::Atom(key), value]) = <[Term; 2]>::try_from(item) else {
            continue;
        };
        match key.as_str() {
            "vsn" => version = integer(&value, "extra information")?,
            "lock" => {
                let [_, lock] = exactly(tuple(value, "extra information")?)?;
                requester = Some(lock);
            }
            _ => {}
        }
    }
    Ok((version, requester))
}

#[cfg(test)]
mod tests;
