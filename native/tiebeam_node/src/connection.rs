//! One connection to a peer: a reader, a writer with one buffer, and ticks.
//!
//! Senders encode straight into the buffer of the connection, under the lock that orders its bytes (the sender's atom
//! cache demands that order); the writer takes the whole buffer at once and writes it in one call. A large message
//! waits beside the buffer, in a lane of its own, and goes out a fragment at a time between the buffers: what other
//! processes send does not wait behind it, what its own sender sends does.

mod pacing;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiebeam_wire::control::{Control, Target};
use tiebeam_wire::flags::Flags;
use tiebeam_wire::frame::{Encoded, Frame, FrameDecoder, FrameEncoder, FrameLimits, LargeMessage};
use tiebeam_wire::{Atom, Pid, Term};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::connection::pacing::{PAUSE, Pacing};
use crate::router::Router;

#[cfg(test)]
mod tests;
use crate::transport::ConnectionId;

/// OTP's `net_tickintensity`: a tick interval is this part of the tick time.
const TICK_INTENSITY: u32 = 4;

/// The shortest time between ticks, whatever the tick time.
const TICK_MIN: Duration = Duration::from_millis(1);

/// How much the reader delivers before others have their turn, some nine hundred small messages. The process that it
/// woke last waits for its thread: no other thread takes over such a task.
const TURN: usize = 64 << 10;

/// A buffer larger than this is given back after a burst.
const SPARE_MAX: usize = 1 << 20;

/// How long a connection that ends may take to write what waits.
const LAST_WRITE: Duration = Duration::from_millis(500);

/// Large messages that may be under way at once. Each is bounded by the send queue; the count bounds the work of
/// taking turns. Large exit reasons may go beyond it: they must not be lost, and the queue bounds them too.
const LANES_MAX: usize = 1024;

/// A connection that is up.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: Atom,
    pub(crate) creation: u32,
    pub(crate) visible: bool,
    pub(crate) flags: Flags,
    send_buffer: usize,
    send_queue: usize,
    outbox: Mutex<Outbox>,
    /// There is something to write.
    wake: Notify,
    /// Some of it was written.
    drained: Notify,
    read: AtomicU64,
    written: AtomicU64,
    closing: watch::Sender<Option<Reason>>,
    ended: watch::Sender<bool>,
}

/// Why a connection ends: the reason that `nodedown` carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The peer closed it.
    Closed,
    /// We closed it: a `disconnect`, or the end of this node.
    Disconnect,
    /// A newer connection to the same peer takes its place.
    Superseded,
    /// Nothing was heard for the tick time.
    TickTimeout,
    /// The peer sent what it may not send.
    Protocol(String),
    /// The peer does not read.
    SendQueueFull(usize),
    /// The system reports an error.
    Io(String),
}

impl Reason {
    /// As `net_kernel` names it.
    pub(crate) fn to_term(&self) -> Term {
        Term::atom(match self {
            Self::Closed | Self::Superseded | Self::Io(_) => "connection_closed",
            Self::Disconnect => "disconnect",
            Self::TickTimeout => "net_tick_timeout",
            Self::Protocol(_) => "get_status_failed",
            Self::SendQueueFull(_) => "send_net_tick_failed",
        })
    }
}

#[derive(Debug)]
struct Outbox {
    encoder: FrameEncoder,
    buffer: Vec<u8>,
    /// Bytes taken by the writer and not written yet.
    in_flight: usize,
    lanes: VecDeque<Lane>,
    /// Bytes that wait in lanes.
    waiting: usize,
    closed: bool,
}

/// A large message under way, and what its sender sent after it.
#[derive(Debug)]
struct Lane {
    from: Option<Pid>,
    large: LargeMessage,
    then: VecDeque<Waiting>,
}

/// A message that waits behind a large one of its sender. It is encoded when its turn comes: the atom
/// cache is of that moment.
#[derive(Debug)]
struct Waiting {
    control: Control,
    payload: Option<Term>,
    weight: usize,
}

/// A message was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    Busy {
        queued: usize,
    },
    Closed,
    Encode(String),
    /// It is for a process of an earlier incarnation of the peer, which would close the connection.
    Stale,
}

/// A message that was not taken, and why.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) control: Control,
    pub(crate) refused: Refused,
}

impl Rejected {
    pub(crate) fn new(control: Control, refused: Refused) -> Box<Self> {
        Box::new(Self { control, refused })
    }
}

/// Whether a message may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A message of a process: refused when the queue is full.
    Ordinary,
    /// A signal that must not be lost while the connection lives.
    Must,
}

pub(crate) struct ConnectionConfig {
    pub(crate) send_buffer: usize,
    pub(crate) send_queue: usize,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        peer: Atom,
        creation: u32,
        visible: bool,
        flags: Flags,
        config: &ConnectionConfig,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            creation,
            visible,
            flags,
            send_buffer: config.send_buffer,
            send_queue: config.send_queue,
            outbox: Mutex::new(Outbox {
                encoder: FrameEncoder::new(flags),
                buffer: Vec::new(),
                in_flight: 0,
                lanes: VecDeque::new(),
                waiting: 0,
                closed: false,
            }),
            wake: Notify::new(),
            drained: Notify::new(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            closing: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        })
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message. Does not block. What one process sends arrives in order: `sender` is that process where the
    /// message names another one, or none.
    pub(crate) fn enqueue(
        &self,
        control: Control,
        payload: Option<Term>,
        sender: Option<&Pid>,
        urgency: Urgency,
    ) -> Result<(), Box<Rejected>> {
        if particular_addressee(&control).is_some_and(|to| to.creation != self.creation) {
            return Err(Rejected::new(control, Refused::Stale));
        }
        let mut outbox = self.outbox();
        if outbox.closed {
            return Err(Rejected::new(control, Refused::Closed));
        }
        let queued = outbox.queued();
        match urgency {
            Urgency::Ordinary if queued > self.send_queue => {
                return Err(Rejected::new(control, Refused::Busy { queued }));
            }
            Urgency::Must if queued > 2 * self.send_queue => {
                drop(outbox);
                self.close(Reason::SendQueueFull(queued));
                return Err(Rejected::new(control, Refused::Closed));
            }
            _ => {}
        }
        // The writer was woken when the first bytes came; it takes whatever is there by then.
        let idle = outbox.buffer.is_empty() && outbox.lanes.is_empty();
        let result = outbox.add(control, payload, sender, urgency);
        drop(outbox);
        if idle {
            self.wake.notify_one();
        }
        result
    }

    /// Bytes that wait to be written.
    pub(crate) fn queued(&self) -> usize {
        self.outbox().queued()
    }

    /// Bytes that would go before a small message: large ones of other processes let it pass between two fragments.
    pub(crate) fn ahead(&self) -> usize {
        let outbox = self.outbox();
        outbox.buffer.len() + outbox.in_flight
    }

    /// Bytes that came from the peer since the connection is up, ticks included: a process that stands still sends
    /// none, and what the system acknowledges for it has no bytes.
    pub(crate) fn received(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Waits until fewer bytes wait than a sender may leave behind, or the connection closes.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            let drained = self.drained.notified();
            if self.has_room() {
                return;
            }
            drained.await;
        }
    }

    fn has_room(&self) -> bool {
        let outbox = self.outbox();
        outbox.closed || outbox.queued() <= self.send_buffer
    }

    /// Begins to close; [`Connection::ended`] tells when it is done. Only the first reason counts.
    pub(crate) fn close(&self, reason: Reason) {
        self.outbox().closed = true;
        self.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            if first {
                *closing = Some(reason);
            }
            first
        });
        self.wake.notify_one();
        self.drained.notify_waiters();
    }

    /// Waits until nothing waits to be written, or the connection closes.
    pub(crate) async fn flushed(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let outbox = self.outbox();
                if outbox.closed || outbox.queued() == 0 {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Whether it ends or has ended: nothing is taken any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.outbox().closed
    }

    /// Waits until the connection has ended and everybody has been told.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as self.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(crate) fn set_ended(&self) {
        self.ended.send_replace(true);
    }

    /// Runs the connection until it ends, and says why.
    pub(crate) async fn run<R, W>(
        self: Arc<Self>,
        reader: R,
        writer: W,
        leftover: &[u8],
        net_ticktime: Duration,
        router: Arc<Router>,
    ) -> Reason
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let mut decoder = FrameDecoder::new(self.flags, FrameLimits::default());
        decoder.push(leftover);
        let writing = tokio::spawn(Arc::clone(&self).write(writer));
        let ticking = tokio::spawn(Arc::clone(&self).tick(net_ticktime));
        // A panic while reading costs this connection, not the node.
        let reading = tokio::spawn(Arc::clone(&self).read(reader, decoder, router));
        let reason = match reading.await {
            Ok(reason) => reason,
            Err(error) => Reason::Protocol(format!("the reader panicked: {error}")),
        };
        self.close(reason);
        ticking.abort();
        // Bytes that were queued before a deliberate end may still go out, but a peer that does not
        // read is not waited for.
        let abort = writing.abort_handle();
        if tokio::time::timeout(LAST_WRITE, writing).await.is_err() {
            abort.abort();
        }
        let reason = self.closing.borrow().clone();
        reason.unwrap_or(Reason::Closed)
    }

    async fn read<R: AsyncRead + Unpin>(
        self: Arc<Self>,
        mut reader: R,
        mut decoder: FrameDecoder,
        router: Arc<Router>,
    ) -> Reason {
        let mut closing = self.closing.subscribe();
        let mut pacing = Pacing::new(Instant::now());
        let mut pause = false;
        let mut delivered = 0;
        loop {
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(Frame::Tick)) => {}
                    Ok(Some(Frame::Message { control, payload })) => {
                        if let Err(violation) = router.incoming(&self, control, payload) {
                            warn!(peer = %self.peer, "closing the connection: {violation}");
                            return Reason::Protocol(violation);
                        }
                    }
                    Err(error) => {
                        warn!(peer = %self.peer, "closing the connection: {error}");
                        return Reason::Protocol(error.to_string());
                    }
                }
            }
            if pause {
                tokio::time::sleep(PAUSE).await;
            } else if delivered >= TURN {
                tokio::task::yield_now().await;
                delivered = 0;
            }
            let buffer = decoder.buffer();
            let read = tokio::select! {
                read = reader.read_buf(buffer) => read,
                Ok(reason) = closing.wait_for(Option::is_some) => return reason.clone().unwrap_or(Reason::Closed),
            };
            match read {
                Ok(0) => return Reason::Closed,
                Ok(read) => {
                    self.read.fetch_add(read as u64, Ordering::Relaxed);
                    delivered += read;
                    let written = self.written.load(Ordering::Relaxed);
                    pause = pacing.pauses(Instant::now(), read, written);
                }
                // TLS that ends without its own farewell: the peer was killed, or is of a kind that sends none.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Reason::Closed,
                Err(error) => return Reason::Io(error.to_string()),
            }
        }
    }

    async fn write<W: AsyncWrite + Unpin>(self: Arc<Self>, mut writer: W) {
        let _ending = Ending(&self);
        let mut chunk = Vec::new();
        loop {
            let closed = {
                let mut outbox = self.outbox();
                outbox.in_flight = 0;
                std::mem::swap(&mut outbox.buffer, &mut chunk);
                if let Some(reason) = outbox.turn(&mut chunk) {
                    warn!(peer = %self.peer, "a message could not be encoded: {reason}");
                }
                outbox.in_flight = chunk.len();
                outbox.closed
            };
            self.drained.notify_waiters();
            if chunk.is_empty() {
                if closed {
                    break;
                }
                self.wake.notified().await;
                continue;
            }
            let mut written = writer.write_all(&chunk).await;
            if written.is_ok() {
                // A TLS stream may keep what the system did not take at once.
                written = writer.flush().await;
            }
            if let Err(error) = written {
                debug!(peer = %self.peer, "cannot write: {error}");
                self.close(Reason::Io(error.to_string()));
                return;
            }
            self.written
                .fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if chunk.capacity() > SPARE_MAX {
                chunk = Vec::new();
            } else {
                chunk.clear();
            }
        }
        let _ = writer.shutdown().await;
    }

    /// Every quarter of the tick time: tells the peer that we live, and checks that it does.
    async fn tick(self: Arc<Self>, net_ticktime: Duration) {
        let _ending = Ending(&self);
        let mut interval = tokio::time::interval((net_ticktime / TICK_INTENSITY).max(TICK_MIN));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        let (mut read, mut written, mut silent) = (0, 0, 0);
        loop {
            interval.tick().await;
            let (read_now, written_now) = (
                self.read.load(Ordering::Relaxed),
                self.written.load(Ordering::Relaxed),
            );
            silent = if read_now == read { silent + 1 } else { 0 };
            if silent > TICK_INTENSITY {
                return self.close(Reason::TickTimeout);
            }
            if written_now == written {
                let mut outbox = self.outbox();
                // Where bytes wait already, a tick among them would say nothing more.
                if outbox.queued() == 0 {
                    FrameEncoder::tick(&mut outbox.buffer);
                    drop(outbox);
                    self.wake.notify_one();
                }
            }
            (read, written) = (read_now, written_now);
        }
    }
}

/// Without its writer or its ticks a connection is none: closes it when they end for whatever reason, a panic included.
struct Ending<'a>(&'a Connection);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0
            .close(Reason::Io("a task of the connection ended".to_owned()));
    }
}

impl Outbox {
    fn queued(&self) -> usize {
        self.buffer.len() + self.in_flight + self.waiting
    }

    fn add(
        &mut self,
        control: Control,
        payload: Option<Term>,
        sender: Option<&Pid>,
        urgency: Urgency,
    ) -> Result<(), Box<Rejected>> {
        if !self.lanes.is_empty() {
            let from = sender.or(control.from());
            if let Some(lane) = self
                .lanes
                .iter_mut()
                .find(|lane| lane.from.as_ref() == from)
            {
                let weight = weight(payload.as_ref());
                lane.then.push_back(Waiting {
                    control,
                    payload,
                    weight,
                });
                self.waiting += weight;
                return Ok(());
            }
        }
        match self
            .encoder
            .encode(&control, payload.as_ref(), &mut self.buffer)
        {
            Ok(Encoded::Whole) => Ok(()),
            Ok(Encoded::Large(_))
                if urgency == Urgency::Ordinary && self.lanes.len() >= LANES_MAX =>
            {
                let queued = self.queued();
                Err(Rejected::new(control, Refused::Busy { queued }))
            }
            Ok(Encoded::Large(large)) => {
                self.waiting += large.remaining();
                self.lanes.push_back(Lane {
                    from: sender.or(control.from()).cloned(),
                    large,
                    then: VecDeque::new(),
                });
                Ok(())
            }
            Err(error) => Err(Rejected::new(control, Refused::Encode(error.to_string()))),
        }
    }

    /// Gives the next lane its turn: one fragment. Gives a message that could not be encoded back as a reason.
    fn turn(&mut self, out: &mut Vec<u8>) -> Option<String> {
        let mut lane = self.lanes.pop_front()?;
        let before = lane.large.remaining();
        let more = lane.large.next_fragment(out);
        self.waiting = self
            .waiting
            .saturating_sub(before.saturating_sub(lane.large.remaining()));
        if more {
            self.lanes.push_back(lane);
            return None;
        }
        // The large message is out; what its sender sent after it follows, up to the next large one.
        let mut failed = None;
        while let Some(Waiting {
            control,
            payload,
            weight,
        }) = lane.then.pop_front()
        {
            self.waiting = self.waiting.saturating_sub(weight);
            match self.encoder.encode(&control, payload.as_ref(), out) {
                Ok(Encoded::Whole) => {}
                Ok(Encoded::Large(large)) => {
                    self.waiting += large.remaining();
                    self.lanes.push_back(Lane {
                        from: lane.from,
                        large,
                        then: lane.then,
                    });
                    break;
                }
                Err(error) => failed = Some(error.to_string()),
            }
        }
        failed
    }
}

/// Whom a signal is for that a BEAM does not take, or need not get, for a process of its earlier incarnation: on most of
/// these it closes the connection, on the others it answers `noproc`.
fn particular_addressee(control: &Control) -> Option<&Pid> {
    match control {
        Control::Link { to, .. }
        | Control::Monitor {
            target: Target::Pid(to),
            ..
        }
        | Control::Exit { to, .. }
        | Control::UnlinkId { to, .. }
        | Control::UnlinkIdAck { to, .. }
        | Control::Unlink { to, .. } => Some(to),
        _ => None,
    }
}

/// About how many bytes a message takes, in memory or encoded.
pub(crate) fn weight(payload: Option<&Term>) -> usize {
    let mut total = size_of::<Waiting>();
    let mut rest: Vec<&Term> = payload.into_iter().collect();
    while let Some(term) = rest.pop() {
        total += size_of::<Term>();
        match term {
            Term::Binary(binary) => total += binary.len(),
            Term::BitString(bits) => total += bits.bytes.len(),
            Term::Big(big) => total += big.bits() as usize / 8,
            Term::Opaque(opaque) => total += opaque.bytes().len(),
            Term::Tuple(elements) | Term::List(elements) => rest.extend(elements),
            Term::Improper(list) => {
                rest.extend(&list.elements);
                rest.push(&list.tail);
            }
            Term::Map(map) => rest.extend(map.iter().flat_map(|(key, value)| [key, value])),
            Term::Fun(fun) => rest.extend(&fun.free),
            _ => {}
        }
    }
    total
}
