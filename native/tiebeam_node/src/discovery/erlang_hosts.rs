//! The hosts in a file `.hosts.erlang`, as OTP's `net_adm:world/0` and libcluster's `Cluster.Strategy.ErlangHosts` read it.

use std::path::PathBuf;

use tiebeam_wire::Term;

use super::{Discovery, DiscoveryError, EpmdHosts, Found};
use crate::node::Node;

/// What OTP calls the file.
const NAME: &str = ".hosts.erlang";

/// Asks the epmd of each host in a file which nodes run there, as [`EpmdHosts`] does.
///
/// The file has a host per line, as an Erlang term with a dot behind it: `'h1.example.org'.` It is read at each look, so that
/// hosts can be added while nodes run.
#[derive(Clone, Debug)]
pub struct ErlangHosts {
    path: Option<PathBuf>,
    epmd: EpmdHosts,
}

impl Default for ErlangHosts {
    fn default() -> Self {
        Self::new()
    }
}

impl ErlangHosts {
    /// Reads `.hosts.erlang` in the current directory, or else in the user's home directory, where `net_adm:host_file/0` looks
    /// first.
    pub fn new() -> Self {
        Self {
            path: None,
            epmd: EpmdHosts::new(Vec::<String>::new()),
        }
    }

    /// Reads this file.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Finds only nodes with this name before the `@`, or, if it ends with `*`, with names that begin so.
    pub fn matching(mut self, pattern: impl Into<String>) -> Self {
        self.epmd = self.epmd.matching(pattern);
        self
    }

    /// The port of epmd on all these hosts. Default: that of the node itself.
    pub fn port(mut self, port: u16) -> Self {
        self.epmd = self.epmd.port(port);
        self
    }

    fn path(&self) -> Result<PathBuf, DiscoveryError> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let here = PathBuf::from(NAME);
        let at_home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(NAME));
        let mut places = [Some(here), at_home].into_iter().flatten();
        places
            .find(|path| path.is_file())
            .ok_or_else(|| format!("no file {NAME} in the current directory or in HOME").into())
    }

    fn hosts(&self) -> Result<Vec<String>, DiscoveryError> {
        let path = self.path()?;
        let read = || -> Result<_, DiscoveryError> {
            // It is small, and read without a thread of its own.
            Ok(Term::consult(&std::fs::read_to_string(&path)?)?)
        };
        let terms = read().map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(terms.iter().filter_map(host).collect())
    }
}

/// What is no host is passed over.
fn host(term: &Term) -> Option<String> {
    let host = match term {
        Term::Atom(host) => host.as_str().to_owned(),
        Term::Binary(host) => String::from_utf8(host.to_vec()).ok()?,
        // A text in quotes is a list of characters.
        Term::List(characters) => {
            let character = |term: &Term| char::from_u32(u32::try_from(term.as_integer()?).ok()?);
            characters.iter().map(character).collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(host).filter(|host| !host.is_empty())
}

impl Discovery for ErlangHosts {
    fn describe(&self) -> String {
        match &self.path {
            Some(path) => format!("hosts {}", path.display()),
            None => format!("hosts {NAME}"),
        }
    }

    async fn find(&mut self, node: &Node) -> Result<Found, DiscoveryError> {
        let hosts = self.hosts()?;
        self.epmd.with_hosts(hosts).find(node).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_atom_or_a_text() {
        let terms =
            Term::consult("'h1.example'.\n\"h2\".\n<<\"h3\">>.\nh4.\n5.\n''.\n{h6}.").unwrap();
        let hosts: Vec<_> = terms.iter().filter_map(host).collect();
        assert_eq!(hosts, ["h1.example", "h2", "h3", "h4"]);
    }
}
