//! Who decides about names that were registered twice, by scope.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tiebeam_core::Event;
use tiebeam_core::registry::{Entry, Keep};
use tokio::task::JoinSet;
use tracing::warn;

use crate::cluster::name::Name;
use crate::cluster::registry::Registration;
use crate::cluster::table::{Atoms, Row};

/// Two registrations of one name, made while their nodes could not hear of each other.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The scope.
    pub scope: String,
    /// The name.
    pub name: Name,
    /// The older registration, of this node.
    pub older: Registration,
    /// The younger one, of another node.
    pub younger: Registration,
}

impl Conflict {
    pub(super) fn of(older: &Entry, younger: &Entry) -> Option<Self> {
        let mut atoms = Atoms::default();
        let mut registration = |entry| Row::of(entry, &mut atoms).map(Registration::of);
        Some(Self {
            scope: older.key.scope().to_owned(),
            name: Name::of(older.key.name()),
            older: registration(older)?,
            younger: registration(younger)?,
        })
    }
}

type Verdict = Pin<Box<dyn Future<Output = Keep> + Send>>;
type Resolve = Arc<dyn Fn(Conflict) -> Verdict + Send + Sync>;

/// The functions that were given, shared by handles and driver.
#[derive(Clone, Default)]
pub(super) struct Resolvers(Arc<RwLock<HashMap<String, Resolve>>>);

impl Resolvers {
    pub(super) fn set<F, Fut>(&self, scope: &str, resolve: F)
    where
        F: Fn(Conflict) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Keep> + Send + 'static,
    {
        let resolve: Resolve = Arc::new(move |conflict| Box::pin(resolve(conflict)));
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(scope.to_owned(), resolve);
    }

    /// Whether somebody decides about the names of a scope.
    pub(super) fn has(&self, scope: &str) -> bool {
        self.get(scope).is_some()
    }

    fn get(&self, scope: &str) -> Option<Resolve> {
        let resolvers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        resolvers.get(scope).cloned()
    }
}

impl fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolvers").finish_non_exhaustive()
    }
}

/// The verdicts under way: at most one for each name of this node, and none for longer than the core waits for it.
#[derive(Debug, Default)]
pub(super) struct Verdicts(JoinSet<Event>);

impl Verdicts {
    /// Has a conflict decided. Without anybody to decide, the older registration is kept.
    pub(super) fn start(
        &mut self,
        resolvers: &Resolvers,
        id: u64,
        conflict: Option<Conflict>,
        time: Duration,
    ) {
        let resolve = conflict
            .as_ref()
            .and_then(|conflict| resolvers.get(&conflict.scope));
        self.0.spawn(async move {
            let (Some(conflict), Some(resolve)) = (conflict, resolve) else {
                let keep = Keep::Older;
                return Event::Resolved { id, keep };
            };
            let name = conflict.name.clone();
            // In a task of its own, so that a panic is this conflict's affair.
            let mut verdict = tokio::spawn(async move { resolve(conflict).await });
            let keep = match tokio::time::timeout(time, &mut verdict).await {
                Ok(Ok(keep)) => keep,
                Ok(Err(error)) => {
                    warn!(%name, "a conflict was not resolved, the older registration stays: {error}");
                    Keep::Older
                }
                Err(_) => {
                    verdict.abort();
                    warn!(%name, "no verdict within {time:?}, the older registration stays");
                    Keep::Older
                }
            };
            Event::Resolved { id, keep }
        });
    }

    /// The next verdict; never completes while none is under way.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn given(&mut self) -> Event {
        loop {
            match self.0.join_next().await {
                Some(Ok(event)) => return event,
                // The runtime ends: the core keeps the older registration by itself.
                Some(Err(_)) => {}
                None => return std::future::pending().await,
            }
        }
    }
}
