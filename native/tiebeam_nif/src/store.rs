//! The disk of this node's part in the group. All of it blocks, so it runs on dirty schedulers.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustler::{Atom, ResourceArc};
use tiebeam_core::NodeName;
use tiebeam_core::leadership::MemberId;
use tiebeam_store::{Opened, Store};

use crate::leadership::{Loaded, Pending};

mod atoms {
    rustler::atoms! { ok }
}

/// A disk that is open; `None` once it is closed.
struct Disk(Mutex<Option<Store>>);

#[rustler::resource_impl]
impl rustler::Resource for Disk {}

/// `store_open(directory, node, cluster, fresh) :: {:ok, {store, loaded}} | {:error, why}`
#[rustler::nif(schedule = "DirtyIo")]
fn store_open(
    directory: &str,
    node: &str,
    cluster: &str,
    fresh: u64,
) -> Result<(ResourceArc<Disk>, ResourceArc<Loaded>), String> {
    let node = NodeName::parse(node).map_err(|error| error.to_string())?;
    let opened = Store::open(Path::new(directory), &node, cluster, || MemberId(fresh));
    let Opened {
        store,
        member,
        stored,
    } = opened.map_err(|error| error.to_string())?;
    Ok((
        ResourceArc::new(Disk(Mutex::new(Some(store)))),
        ResourceArc::new(Loaded(Mutex::new(Some((member, stored))))),
    ))
}

/// `store_write(store, pending) :: {:ok, count} | {:error, why}`
///
/// All of it is on disk then, or nothing.
#[rustler::nif(schedule = "DirtyIo")]
fn store_write(
    store: ResourceArc<Disk>,
    pending: Vec<ResourceArc<Pending>>,
) -> Result<usize, String> {
    let mut store = store.0.lock().unwrap_or_else(PoisonError::into_inner);
    let store = store.as_mut().ok_or("the store is closed")?;
    store
        .write_all(pending.iter().map(|pending| &*pending.0))
        .map_err(|error| error.to_string())?;
    Ok(pending.len())
}

/// `store_close(store) :: :ok`
#[rustler::nif(schedule = "DirtyIo")]
fn store_close(store: ResourceArc<Disk>) -> Atom {
    let mut store = store.0.lock().unwrap_or_else(PoisonError::into_inner);
    *store = None;
    atoms::ok()
}
