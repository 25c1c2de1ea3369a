//! The core's events, actions and members as Elixir terms. The typespecs are in `lib/tiebeam/native.ex`.

use rustler::{Atom, Binary, Encoder, Env, Error, NewBinary, NifMap, NifResult, NifStruct, Term};
use tiebeam_core::{
    Action, Answer, CallId, Command, Config, Duration, Event, Kind, Member, NodeName, Notice,
    Status, Timing,
};

mod atoms {
    rustler::atoms! {
        // Events.
        received, connected, disconnected, asked, woke, leave,
        // Actions.
        send, answer, notify,
        // Notices.
        up, down, left, refreshed, forgotten, refused, ignored,
        // Members.
        beam, rust, alive, suspect, dead,
    }
}

/// The argument of `new/1`.
#[derive(NifMap)]
pub(crate) struct Settings<'a> {
    node: Atom,
    creation: u32,
    incarnation: u64,
    cluster: &'a str,
    join: Vec<Atom>,
    seed: u64,
    timing: Times,
}

/// Milliseconds; see [`Timing`].
#[derive(NifMap)]
struct Times {
    greet_first: u64,
    greet_max: u64,
    sync_every: u64,
    forget_after: u64,
}

impl Settings<'_> {
    pub(crate) fn into_config(self, env: Env<'_>) -> Result<Config, String> {
        let name = |atom: Atom| {
            let text: String = atom
                .to_term(env)
                .atom_to_string()
                .map_err(|_| "not an atom".to_owned())?;
            NodeName::parse(&text).map_err(|error| error.to_string())
        };
        Ok(Config {
            node: name(self.node)?,
            creation: self.creation,
            incarnation: self.incarnation,
            kind: Kind::Beam,
            cluster: self.cluster.to_owned(),
            join: self.join.into_iter().map(name).collect::<Result<_, _>>()?,
            seed: self.seed,
            timing: Timing {
                greet_first: Duration::from_millis(self.timing.greet_first),
                greet_max: Duration::from_millis(self.timing.greet_max),
                sync_every: Duration::from_millis(self.timing.sync_every),
                forget_after: Duration::from_millis(self.timing.forget_after),
            },
        })
    }
}

/// An event; `None` for one about a node whose name the core cannot take for a name. No node of a cluster has one, and
/// a stranger's odd name must not stop the driver.
pub(crate) fn event(term: Term<'_>) -> NifResult<Option<Event>> {
    if term.is_atom() {
        return if atoms::woke() == term {
            Ok(Some(Event::Woke))
        } else {
            Err(Error::BadArg)
        };
    }
    if let Ok((tag, node, bytes)) = term.decode::<(Atom, Term<'_>, Term<'_>)>() {
        if tag == atoms::received() {
            let bytes = bytes.decode::<Binary<'_>>()?.as_slice().to_vec();
            return Ok(node_name(node)?.map(|from| Event::Received { from, bytes }));
        }
        if tag == atoms::asked() && atoms::leave() == bytes {
            return Ok(Some(Event::Asked {
                call: CallId(node.decode()?),
                command: Command::Leave,
            }));
        }
        return Err(Error::BadArg);
    }
    let (tag, node) = term.decode::<(Atom, Term<'_>)>()?;
    if tag == atoms::connected() {
        Ok(node_name(node)?.map(|to| Event::Connected { to }))
    } else if tag == atoms::disconnected() {
        Ok(node_name(node)?.map(|from| Event::Disconnected { from }))
    } else {
        Err(Error::BadArg)
    }
}

fn node_name(term: Term<'_>) -> NifResult<Option<NodeName>> {
    Ok(NodeName::parse(&term.atom_to_string()?).ok())
}

pub(crate) fn action<'a>(env: Env<'a>, action: &Action) -> NifResult<Term<'a>> {
    Ok(match action {
        Action::Send { to, bytes } => {
            let mut binary = NewBinary::new(env, bytes.len());
            binary.as_mut_slice().copy_from_slice(bytes);
            (atoms::send(), node_atom(env, to)?, Binary::from(binary)).encode(env)
        }
        Action::Answer { call, answer } => {
            let answer = match answer {
                Answer::Left => atoms::left(),
            };
            (atoms::answer(), call.0, answer).encode(env)
        }
        Action::Notify(notice) => (atoms::notify(), self::notice(env, notice)?).encode(env),
    })
}

fn notice<'a>(env: Env<'a>, notice: &Notice) -> NifResult<Term<'a>> {
    Ok(match notice {
        Notice::Up(member) => (atoms::up(), self::member(env, member)?).encode(env),
        Notice::Down(member) => (atoms::down(), self::member(env, member)?).encode(env),
        Notice::Left(member) => (atoms::left(), self::member(env, member)?).encode(env),
        Notice::Refreshed(member) => (atoms::refreshed(), self::member(env, member)?).encode(env),
        Notice::Forgotten(member) => (atoms::forgotten(), self::member(env, member)?).encode(env),
        Notice::Refused { node, cluster } => {
            (atoms::refused(), node_atom(env, node)?, cluster).encode(env)
        }
        Notice::Ignored { from, why } => {
            (atoms::ignored(), node_atom(env, from)?, why.to_string()).encode(env)
        }
    })
}

#[derive(NifStruct)]
#[module = "Tiebeam.Member"]
struct MemberStruct {
    node: Atom,
    kind: Atom,
    status: Atom,
    creation: u32,
    incarnation: u64,
}

pub(crate) fn member<'a>(env: Env<'a>, member: &Member) -> NifResult<Term<'a>> {
    let fields = MemberStruct {
        node: node_atom(env, &member.node)?,
        kind: match member.kind {
            Kind::Beam => atoms::beam(),
            Kind::Rust => atoms::rust(),
        },
        status: match member.status {
            Status::Alive => atoms::alive(),
            Status::Suspect => atoms::suspect(),
            Status::Dead => atoms::dead(),
            Status::Left => atoms::left(),
        },
        creation: member.creation,
        incarnation: member.incarnation,
    };
    Ok(fields.encode(env))
}

/// Every node name fits an atom: see `NodeName::parse`.
fn node_atom(env: Env<'_>, name: &NodeName) -> NifResult<Atom> {
    Atom::from_utf8_bytes(env, name.as_str().as_bytes())
}
