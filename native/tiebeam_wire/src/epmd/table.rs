//! epmd's server side: who is registered.

use std::collections::{BTreeMap, VecDeque};

use super::{Alive2Response, Entry, MAX_NAME, PortResponse, RESULT_ERROR, Request};

/// Most nodes registered at a time. A host runs far fewer; at about 2 KiB each this bounds a local program that
/// registers names in a loop to 2 MiB.
pub const MAX_REGISTRATIONS: usize = 1024;

/// Most former names remembered. They are only shown by DUMP_REQ.
pub const MAX_FORMER: usize = 64;

/// The nodes registered with an epmd, and its answers. Each registration belongs to a socket, which the caller numbers.
#[derive(Debug)]
pub struct Registrations {
    port: u16,
    creation: u32,
    active: BTreeMap<Vec<u8>, (u64, Entry)>,
    former: VecDeque<(u64, Entry)>,
}

/// What to do with the socket that brought a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Write this and keep the socket: it is a registration now. When it ends, call [`Registrations::unregister`].
    Registered(Vec<u8>),
    /// Write this, if it is anything, and close.
    Close(Vec<u8>),
}

impl Registrations {
    /// No node yet. `port` is the one this epmd serves; the first node gets the creation after `creation`, which should
    /// differ from one start to the next, as a clock does.
    pub fn new(port: u16, creation: u32) -> Registrations {
        Registrations {
            port,
            creation,
            active: BTreeMap::new(),
            former: VecDeque::new(),
        }
    }

    /// Answers `request`, which came on `socket`; `local` tells whether from the loopback interface. Only local programs
    /// may register names and see the dump.
    pub fn answer(&mut self, socket: u64, local: bool, request: Request) -> Answer {
        match request {
            Request::Alive2(entry) if local => self.register(socket, entry),
            Request::PortPlease2(name) => Answer::Close(self.look_up(&name).encode()),
            Request::Names => Answer::Close(self.names()),
            Request::Dump if local => Answer::Close(self.dump()),
            // This epmd ends with the node that runs it, which is registered itself.
            Request::Kill if local => Answer::Close(b"NO".to_vec()),
            // As OTP's epmd without -relaxed_command_check.
            Request::Stop(_) | Request::Alive2(_) | Request::Dump | Request::Kill => {
                Answer::Close(Vec::new())
            }
        }
    }

    /// The registration of `socket` ends.
    pub fn unregister(&mut self, socket: u64) {
        let Some(name) = self
            .active
            .iter()
            .find(|(_, (owner, _))| *owner == socket)
            .map(|(name, _)| name.clone())
        else {
            return;
        };
        if let Some(former) = self.active.remove(&name) {
            self.former.truncate(MAX_FORMER - 1);
            self.former.push_front(former);
        }
    }

    /// How many nodes are registered.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// Whether no node is registered.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    fn register(&mut self, socket: u64, entry: Entry) -> Answer {
        if entry.name.is_empty() {
            return Answer::Close(Vec::new());
        }
        let refused = entry.name.len() > MAX_NAME
            || self.active.contains_key(&entry.name)
            || self.active.len() >= MAX_REGISTRATIONS;
        let highest = entry.highest;
        if refused {
            let result = RESULT_ERROR;
            return Answer::Close(Alive2Response::Error { result }.encode(highest));
        }
        // 0 stands for "any" and 1 to 3 for the creations of old nodes.
        self.creation = self.creation.wrapping_add(1).max(4);
        let creation = match highest {
            6.. => self.creation,
            _ => self.creation % 3 + 1,
        };
        self.active.insert(entry.name.clone(), (socket, entry));
        Answer::Registered(Alive2Response::Ok { creation }.encode(highest))
    }

    fn look_up(&self, name: &[u8]) -> PortResponse {
        match self.active.get(name) {
            Some((_, entry)) => PortResponse::Found(entry.clone()),
            None => PortResponse::Unknown,
        }
    }

    fn names(&self) -> Vec<u8> {
        let mut out = u32::from(self.port).to_be_bytes().to_vec();
        for (name, (_, entry)) in &self.active {
            out.extend_from_slice(b"name ");
            out.extend_from_slice(name);
            out.extend_from_slice(format!(" at port {}\n", entry.port).as_bytes());
        }
        out
    }

    fn dump(&self) -> Vec<u8> {
        let mut out = u32::from(self.port).to_be_bytes().to_vec();
        for (name, (socket, entry)) in &self.active {
            out.extend_from_slice(b"active name     <");
            out.extend_from_slice(name);
            let rest = format!("> at port {}, fd = {socket}\n\0", entry.port);
            out.extend_from_slice(rest.as_bytes());
        }
        for (socket, entry) in &self.former {
            out.extend_from_slice(b"old/unused name <");
            out.extend_from_slice(&entry.name);
            let rest = format!(">, port = {}, fd = {socket} \n\0", entry.port);
            out.extend_from_slice(rest.as_bytes());
        }
        out
    }
}
