//! What the program can be told to do, a file per command.

pub(crate) mod demo;
pub(crate) mod groups;
pub(crate) mod kv;
pub(crate) mod leader;
pub(crate) mod locks;
pub(crate) mod members;
pub(crate) mod names;
pub(crate) mod node;
pub(crate) mod ping;
pub(crate) mod placement;
pub(crate) mod rpc;
pub(crate) mod stepdown;
pub(crate) mod watch;
