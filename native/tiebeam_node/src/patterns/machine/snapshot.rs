//! Writes the state of a machine, and removes what it stands for. It may end at any moment, and the next one removes what it left. Of two that
//! write at a time one has the key `snapshot`, and the other removes its parts.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_wire::{Binary, Term};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::log::{Digest, Snapshot, prefixes};
use crate::cluster::{Consistency, Expected, Kv, LeadershipError};

/// The most bytes of a state: two of them, and the commands without a snapshot, are half of the store.
pub(super) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A part is a value.
const PART: usize = 100 * 1024;

/// Writes under way at a time.
const IN_FLIGHT: usize = 16;

/// A pause while the leader changes is not the end of it.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A state that may be written: after so many commands, the last of them in the batch of `revision`.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) revision: u64,
    pub(super) count: u64,
    pub(super) bytes: Arc<[u8]>,
    pub(super) digest: Digest,
}

/// Writes a point in place of a snapshot, which is the latest, or is none.
pub(super) async fn write(
    kv: Kv,
    name: String,
    point: Point,
    latest: Option<Snapshot>,
) -> Result<(), LeadershipError> {
    let kv = kv.timeout(TIMEOUT);
    let (prefix, parts) = prefixes(&name);
    let id = format!("{:016x}", rand::random::<u64>());
    let chunks: Vec<Term> = point.bytes.chunks(PART).map(Term::binary).collect();
    let snapshot = Snapshot {
        at: 0,
        revision: point.revision,
        count: point.count,
        id: id.clone(),
        parts: chunks.len() as u64,
        bytes: point.bytes.len() as u64,
        digest: point.digest,
    };
    let expected = latest.map_or(Expected::Absent, |latest| Expected::Revision(latest.at));
    let puts = chunks.into_iter().enumerate().map(|(index, chunk)| {
        let (kv, key) = (kv.clone(), format!("{parts}{id}/{index:04}"));
        async move { kv.put_term(key, &chunk).await.map(drop) }
    });
    let written = match all(puts).await {
        Ok(()) => {
            kv.cas(format!("{prefix}snapshot"), expected, &snapshot.to_term())
                .await
        }
        Err(error) => Err(error),
    };
    match written {
        Ok(at) => {
            let old = keys(&kv, &format!("{prefix}c/"), at).await?;
            let old = old.into_iter().filter(|(_, at)| *at <= point.revision);
            delete(&kv, old.map(|(key, _)| key).collect()).await?;
            // Parts that are newer than this snapshot may be those of the next one, which is being written.
            let own = format!("{parts}{id}/");
            let others = keys(&kv, &parts, at).await?;
            let others = others
                .into_iter()
                .filter(|(key, of)| *of < at && !key.starts_with(own.as_bytes()));
            delete(&kv, others.map(|(key, _)| key).collect()).await
        }
        Err(error) => {
            // After `Unknown` it may be there: whoever writes the next one sees that.
            if !matches!(error, LeadershipError::Unknown) {
                let own = keys(&kv, &format!("{parts}{id}/"), 0).await?;
                delete(&kv, own.into_iter().map(|(key, _)| key).collect()).await?;
            }
            Err(error)
        }
    }
}

async fn keys(kv: &Kv, prefix: &str, at: u64) -> Result<Vec<(Vec<u8>, u64)>, LeadershipError> {
    let listed = kv
        .consistency(Consistency::AtLeast(at))
        .list(prefix)
        .await?;
    Ok(listed
        .into_iter()
        .map(|entry| (entry.key, entry.revision))
        .collect())
}

async fn delete(kv: &Kv, keys: Vec<Vec<u8>>) -> Result<(), LeadershipError> {
    all(keys.into_iter().map(|key| {
        let kv = kv.clone();
        async move { kv.delete(key).await.map(drop) }
    }))
    .await
}

/// All of them, some at a time; the first error.
async fn all<F>(work: impl Iterator<Item = F>) -> Result<(), LeadershipError>
where
    F: Future<Output = Result<(), LeadershipError>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = JoinSet::new();
    for future in work {
        let room = Arc::clone(&room);
        tasks.spawn(async move {
            let _turn = room.acquire().await;
            future.await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|_| LeadershipError::Ended)??;
    }
    Ok(())
}

/// The state of a snapshot, as bytes; `None` if not all of it is there any more.
pub(super) async fn read(
    kv: &Kv,
    name: &str,
    snapshot: &Snapshot,
) -> Result<Option<Vec<u8>>, LeadershipError> {
    let (_, parts) = prefixes(name);
    let here = kv.consistency(Consistency::Local);
    let rows = here.list(format!("{parts}{}/", snapshot.id)).await?;
    let mut bytes = Vec::new();
    for row in &rows {
        match row.value_term() {
            Ok(Term::Binary(part)) => bytes.extend_from_slice(Binary::as_slice(&part)),
            _ => return Ok(None),
        }
    }
    let whole = rows.len() as u64 == snapshot.parts && digest(&bytes) == snapshot.digest;
    Ok(whole.then_some(bytes))
}

/// The digest of a state.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    use md5::Digest as _;
    md5::Md5::digest(bytes).into()
}
