//! A node that lives for one question: hidden, unregistered, with a name that nobody else has.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use tiebeam_node::wire::handshake::NodeName;
use tiebeam_node::{Config, EpmdMode, Node};

use crate::arguments::{CookieArguments, NetworkArguments};
use crate::failure::Failure;

pub(crate) struct Visitor {
    node: Node,
}

impl Visitor {
    /// A node that may visit `host`. Does not connect yet.
    pub(crate) async fn to(
        host: &str,
        cookie: &CookieArguments,
        network: &NetworkArguments,
    ) -> Result<Self, Failure> {
        let host = NodeName::parse(host)?;
        // Nobody dials a visitor, so the host in its name need not be this one; it must only be of the same form.
        let name = format!(
            "tiebeam-{}-{:08x}@{}",
            std::process::id(),
            rand::random::<u32>(),
            host.host()
        );
        let config = Config::new(name, cookie.read()?)
            .hidden(true)
            .listen(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut config = network.apply_to(config);
        config.epmd = EpmdMode::LookUpOnly;
        Ok(Self {
            node: Node::start(config).await?,
        })
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) async fn leave(self) {
        self.node.stop().await;
    }
}

/// Prints a line for the user. A reader that is gone is a failure, not a panic.
pub(crate) fn print(line: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(format!("cannot write to stdout: {error}")))
}
