//! Where the writes of the group go: a thread with the store of this node, or nowhere.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tiebeam_core::leadership::group::{Disk, Stored};
use tiebeam_core::leadership::{MemberId, PersistToken};
use tiebeam_core::{Event, NodeName};
use tiebeam_store::{Store, StoreError};
use tokio::sync::mpsc;
use tracing::error;

use crate::cluster::config::ClusterError;

/// How long a start waits for the process that had the store before: it may be about to end.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_STEP: Duration = Duration::from_millis(20);

/// The writes that this node's core wants, in order.
///
/// While one write is under way those that come next wait here, and are then written at once: the disk syncs once for all of
/// them. How many there can be is bounded by the core: what it promises waits for its write, so neither do its proposals go on
/// without end nor does a leader send more to a member that does not confirm.
#[derive(Debug)]
pub(super) enum Writer {
    /// Nothing is kept: what is written is told at once, and the node is another member at each start.
    Memory,
    /// A thread writes.
    Thread(Thread),
}

#[derive(Debug)]
pub(super) struct Thread {
    /// To the thread; room for one batch, and one is under way at most.
    batches: Option<std::sync::mpsc::SyncSender<Vec<Disk>>>,
    /// From the thread: one for each batch.
    results: mpsc::UnboundedReceiver<Result<PersistToken, String>>,
    waiting: Vec<Disk>,
    writing: bool,
    thread: Option<JoinHandle<()>>,
}

/// What a start found.
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) member: MemberId,
    pub(super) stored: Stored,
}

impl Writer {
    /// A node that keeps nothing.
    pub(super) fn memory() -> Opened {
        Opened {
            writer: Self::Memory,
            member: MemberId(rand::random()),
            stored: Stored::default(),
        }
    }

    /// The store of this node in `directory`, and a thread that writes it.
    pub(super) async fn open(
        directory: std::path::PathBuf,
        node: NodeName,
        cluster: String,
    ) -> Result<Opened, ClusterError> {
        // A file of some megabytes is read and checked.
        let open = move || {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let fresh = || MemberId(rand::random());
                match Store::open(&directory, &node, &cluster, fresh) {
                    Err(StoreError::InUse { .. }) if Instant::now() < deadline => {
                        std::thread::sleep(PATIENCE_STEP);
                    }
                    opened => return opened,
                }
            }
        };
        let opened = match tokio::task::spawn_blocking(open).await {
            Ok(opened) => opened.map_err(ClusterError::store)?,
            // The runtime ends, and the node with it.
            Err(_) => return Err(ClusterError::Stopped),
        };
        let mut store = opened.store;
        let write = move |batch: &[Disk]| store.write_all(batch).map_err(|error| error.to_string());
        Ok(Opened {
            writer: Self::Thread(Thread::start(write).map_err(ClusterError::thread)?),
            member: opened.member,
            stored: opened.stored,
        })
    }

    /// Writes in the order of the calls. What is on disk at once is answered here, the rest by [`Writer::written`].
    pub(super) fn write(&mut self, disk: Box<Disk>) -> Option<Event> {
        match self {
            Self::Memory => Some(Event::Persisted {
                token: disk.write.token,
            }),
            Self::Thread(thread) => {
                thread.waiting.push(*disk);
                thread.next();
                None
            }
        }
    }

    /// Waits until something is on disk, or the disk fails; for ever if nothing is to be written.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn written(&mut self) -> Event {
        let Self::Thread(thread) = self else {
            return std::future::pending().await;
        };
        if !thread.writing {
            return std::future::pending().await;
        }
        let result = thread.results.recv().await;
        thread.writing = false;
        match result {
            Some(Ok(token)) => {
                thread.next();
                Event::Persisted { token }
            }
            Some(Err(why)) => {
                thread.stop();
                Event::Unpersisted { why }
            }
            None => {
                thread.stop();
                let why = "the thread that writes has ended".to_owned();
                Event::Unpersisted { why }
            }
        }
    }
}

impl Thread {
    fn start(
        mut write: impl FnMut(&[Disk]) -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (batches, to_write) = std::sync::mpsc::sync_channel::<Vec<Disk>>(1);
        let (done, results) = mpsc::unbounded_channel();
        let work = move || {
            for batch in to_write {
                // Tokens grow: the last one stands for all.
                let last = batch.last().map(|disk| disk.write.token);
                let result = write(&batch).map(|()| last.unwrap_or_default());
                let failed = result.is_err();
                if done.send(result).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("tiebeam-store".to_owned());
        Ok(Self {
            thread: Some(thread.spawn(work)?),
            batches: Some(batches),
            results,
            waiting: Vec::new(),
            writing: false,
        })
    }

    /// Starts the next batch, if none is under way.
    fn next(&mut self) {
        let Some(batches) = &self.batches else {
            // The disk failed: the core was told, and what it still wants is never confirmed.
            self.waiting.clear();
            return;
        };
        if self.writing || self.waiting.is_empty() {
            return;
        }
        self.writing = true;
        // An error: the thread has ended, and `written` says so.
        let _ = batches.try_send(std::mem::take(&mut self.waiting));
    }

    fn stop(&mut self) {
        self.batches = None;
        self.waiting.clear();
    }
}

impl Drop for Thread {
    /// Waits for the write that is under way, so that the file is free for the next start.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that wrote the group's log panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tiebeam_core::leadership::Write;

    use super::*;

    fn disk(token: u64) -> Box<Disk> {
        Box::new(Disk {
            founding: None,
            clear: false,
            write: Write {
                token: PersistToken(token),
                hard: None,
                snapshot: None,
                purge: 0,
                truncate: None,
                entries: Vec::new(),
            },
        })
    }

    fn token(event: Event) -> u64 {
        match event {
            Event::Persisted { token } => token.0,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_waits_for_the_disk_is_written_at_once_and_in_order() {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let batches = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&batches);
        let thread = Thread::start(move |batch| {
            let tokens: Vec<u64> = batch.iter().map(|disk| disk.write.token.0).collect();
            seen.lock().unwrap().push(tokens);
            held.recv().map_err(|error| error.to_string())
        });
        let mut writer = Writer::Thread(thread.unwrap());
        for number in 1..=5 {
            assert_eq!(writer.write(disk(number)), None);
        }
        let_go.send(()).unwrap();
        assert_eq!(token(writer.written().await), 1);
        writer.write(disk(6));
        let_go.send(()).unwrap();
        assert_eq!(token(writer.written().await), 5);
        let_go.send(()).unwrap();
        assert_eq!(token(writer.written().await), 6);
        let nothing = tokio::time::timeout(Duration::from_millis(10), writer.written());
        assert!(nothing.await.is_err());
        drop(writer);
        assert_eq!(
            *batches.lock().unwrap(),
            [vec![1], vec![2, 3, 4, 5], vec![6]]
        );
    }

    #[tokio::test]
    async fn nothing_is_confirmed_after_a_write_that_failed() {
        let mut count = 0;
        let thread = Thread::start(move |_| {
            count += 1;
            match count {
                1 => Ok(()),
                2 => Err("the disk is full".to_owned()),
                _ => panic!("written after a failure"),
            }
        });
        let mut writer = Writer::Thread(thread.unwrap());
        writer.write(disk(1));
        writer.write(disk(2));
        assert_eq!(token(writer.written().await), 1);
        writer.write(disk(3));
        let why = "the disk is full".to_owned();
        assert_eq!(writer.written().await, Event::Unpersisted { why });
        writer.write(disk(4));
        let nothing = tokio::time::timeout(Duration::from_millis(10), writer.written());
        assert!(nothing.await.is_err());
    }

    #[tokio::test]
    async fn without_a_disk_all_is_confirmed_at_once() {
        let mut opened = Writer::memory();
        let event = opened.writer.write(disk(7)).expect("an event");
        assert_eq!(token(event), 7);
        assert!(opened.stored.is_empty());
        assert_ne!(opened.member, Writer::memory().member);
    }
}
