//! Guides for both languages: how to begin, what each call promises, how to operate a cluster.
//!
//! | | |
//! |---|---|
//! | [`getting_started`] | an Elixir application and a Rust program in one cluster |
//! | [`existing_cluster`] | a Rust node in a cluster of BEAM nodes that is there already, with the package or without |
//! | [`choosing`] | which part is for what |
//! | [`consistency`] | what each call promises, and what it does while the network is split |
//! | [`operations`] | ports, cookies, TLS, restarts, sizes, lost majorities, metrics |
//! | [`programs`] | programs of the operating system that run where a singleton is active: an address, SQLite with Litestream, systemd |
//! | [`migrating`] | from `:global`, syn, Horde, libcluster and distribute, call by call |

// The texts link to one another by file name, for whoever reads them as files or in the Elixir documentation. Of two
// definitions of a link the first one counts: here, the modules.
macro_rules! guide {
    ($name:ident, $text:literal) => {
        #[doc = "[getting_started]: crate::guide::getting_started"]
        #[doc = "[existing_cluster]: crate::guide::existing_cluster"]
        #[doc = "[choosing]: crate::guide::choosing"]
        #[doc = "[consistency]: crate::guide::consistency"]
        #[doc = "[operations]: crate::guide::operations"]
        #[doc = "[programs]: crate::guide::programs"]
        #[doc = "[migrating]: crate::guide::migrating"]
        #[doc = ""]
        #[doc = include_str!($text)]
        pub mod $name {}
    };
}

guide!(getting_started, "guide/getting_started.md");
guide!(existing_cluster, "guide/existing_cluster.md");
guide!(choosing, "guide/choosing.md");
guide!(consistency, "guide/consistency.md");
guide!(operations, "guide/operations.md");
guide!(programs, "guide/programs.md");
guide!(migrating, "guide/migrating.md");
