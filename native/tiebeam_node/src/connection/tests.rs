//! Bytes to processes without a network: the test is the peer, the clock is Tokio's, paused.

use std::sync::Arc;
use std::time::Duration;

use tiebeam_wire::control::{Control, ExitTarget, SpawnResult, Target};
use tiebeam_wire::flags::Flags;
use tiebeam_wire::frame::{Encoded, Frame, FrameDecoder, FrameEncoder, FrameLimits};
use tiebeam_wire::slot::ConnectionId;
use tiebeam_wire::{Atom, Pid, Reference, Term};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Limits;
use crate::connection::{Connection, ConnectionConfig, Reason};
use crate::node::NodeEvent;
use crate::process::Destination;
use crate::process::entry::Entry;
use crate::process::mailbox::Item;
use crate::router::Router;

const TICK_TIME: Duration = Duration::from_secs(60);

/// A node with one connection, whose other end is the test.
struct Scene {
    router: Arc<Router>,
    connection: Arc<Connection>,
    running: JoinHandle<Reason>,
    stream: DuplexStream,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    creation: u32,
}

fn limits() -> Limits {
    Limits {
        mailbox: 1000,
        ..Limits::default()
    }
}

impl Scene {
    fn new() -> Self {
        let router = Router::new(Atom::of("rust@h"), 7, false, limits(), 1);
        let config = ConnectionConfig {
            send_buffer: 1 << 20,
            send_queue: 4 << 20,
        };
        let flags = Flags::OFFERED;
        let creation = 9;
        let connection = Connection::new(
            ConnectionId(1),
            Atom::of("beam@h"),
            creation,
            true,
            flags,
            &config,
        );
        router.node_up(&connection);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (reader, writer) = tokio::io::split(ours);
        let run = Arc::clone(&connection);
        let of_run = Arc::clone(&router);
        let running =
            tokio::spawn(async move { run.run(reader, writer, &[], TICK_TIME, of_run).await });
        Self {
            router,
            connection,
            running,
            stream: theirs,
            encoder: FrameEncoder::new(flags),
            decoder: FrameDecoder::new(flags, FrameLimits::default()),
            creation,
        }
    }

    /// A process of the peer.
    fn theirs(&self, id: u32) -> Pid {
        let node = Atom::of("beam@h");
        Pid {
            node,
            id,
            serial: 0,
            creation: self.creation,
        }
    }

    fn reference(&self, word: u32) -> Reference {
        Reference::new(Atom::of("beam@h"), self.creation, &[word, 0, 0])
    }

    /// A process of the node.
    fn process(&self) -> (Arc<Entry>, mpsc::UnboundedReceiver<Item>) {
        self.router.new_task_process().unwrap()
    }

    async fn send(&mut self, control: Control, payload: Option<Term>) {
        let mut bytes = Vec::new();
        let encoded = self
            .encoder
            .encode(&control, payload.as_ref(), &mut bytes)
            .unwrap();
        assert!(matches!(encoded, Encoded::Whole));
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message of the node; ticks are skipped.
    async fn next(&mut self) -> (Control, Option<Term>) {
        loop {
            match self.frame().await {
                Frame::Tick => {}
                Frame::Message { control, payload } => return (control, payload),
            }
        }
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return frame;
            }
            let read = self.stream.read_buf(self.decoder.buffer()).await.unwrap();
            assert_ne!(read, 0, "the node closed the connection");
        }
    }

    /// What `item` is once the node has handled everything that the peer sent.
    async fn received(receiver: &mut mpsc::UnboundedReceiver<Item>) -> Item {
        receiver.recv().await.unwrap()
    }
}

fn noproc() -> Option<Term> {
    Some(Term::atom("noproc"))
}

#[tokio::test(start_paused = true)]
async fn a_monitor_on_nobody_is_answered_noproc() {
    let mut scene = Scene::new();
    let (from, reference) = (scene.theirs(1), scene.reference(1));
    for target in [
        Target::Name(Atom::of("nobody")),
        Target::Pid(Pid {
            node: Atom::of("rust@h"),
            id: 99,
            serial: 0,
            creation: 7,
        }),
        // Of an earlier incarnation of this node: the answer repeats the stale pid.
        Target::Pid(Pid {
            node: Atom::of("rust@h"),
            id: 1,
            serial: 0,
            creation: 6,
        }),
    ] {
        let monitor = Control::Monitor {
            from: from.clone(),
            target: target.clone(),
            reference: reference.clone(),
        };
        scene.send(monitor, None).await;
        let down = Control::Down {
            target,
            to: from.clone(),
            reference: reference.clone(),
        };
        assert_eq!(scene.next().await, (down, noproc()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_to_nobody_is_answered_by_an_exit() {
    let mut scene = Scene::new();
    let from = scene.theirs(1);
    let to = Pid {
        node: Atom::of("rust@h"),
        id: 99,
        serial: 0,
        creation: 7,
    };
    scene
        .send(
            Control::Link {
                from: from.clone(),
                to: to.clone(),
            },
            None,
        )
        .await;
    assert_eq!(
        scene.next().await,
        (Control::Exit { from: to, to: from }, noproc())
    );
}

#[tokio::test(start_paused = true)]
async fn an_unlink_is_acknowledged_even_without_a_link() {
    let mut scene = Scene::new();
    let from = scene.theirs(1);
    let to = Pid {
        node: Atom::of("rust@h"),
        id: 99,
        serial: 0,
        creation: 7,
    };
    let unlink = Control::UnlinkId {
        id: 5,
        from: from.clone(),
        to: to.clone(),
    };
    scene.send(unlink, None).await;
    let acknowledgement = Control::UnlinkIdAck {
        id: 5,
        from: to,
        to: from,
    };
    assert_eq!(scene.next().await, (acknowledgement, None));
}

#[tokio::test(start_paused = true)]
async fn a_death_tells_links_before_monitors() {
    let mut scene = Scene::new();
    let (entry, _receiver) = scene.process();
    let (from, reference) = (scene.theirs(1), scene.reference(1));
    let target = Target::Pid(entry.pid.clone());
    let link = Control::Link {
        from: from.clone(),
        to: entry.pid.clone(),
    };
    let monitor = Control::Monitor {
        from: from.clone(),
        target: target.clone(),
        reference: reference.clone(),
    };
    scene.send(link, None).await;
    scene.send(monitor, None).await;
    scene
        .send(
            Control::Exit2 {
                from: from.clone(),
                to: ExitTarget::Pid(entry.pid.clone()),
            },
            Some(Term::atom("why")),
        )
        .await;
    let why = Some(Term::atom("why"));
    let exit = Control::Exit {
        from: entry.pid.clone(),
        to: from.clone(),
    };
    assert_eq!(scene.next().await, (exit, why.clone()));
    assert_eq!(
        scene.next().await,
        (
            Control::Down {
                target,
                to: from,
                reference
            },
            why
        )
    );
    assert!(!entry.is_alive());
}

#[tokio::test(start_paused = true)]
async fn kill_cannot_be_trapped_and_is_seen_as_killed() {
    let mut scene = Scene::new();
    let (entry, _receiver) = scene.process();
    entry.state().trap_exit = true;
    let (from, reference) = (scene.theirs(1), scene.reference(1));
    let target = Target::Pid(entry.pid.clone());
    let monitor = Control::Monitor {
        from: from.clone(),
        target,
        reference,
    };
    scene.send(monitor, None).await;
    scene
        .send(
            Control::Exit2 {
                from,
                to: ExitTarget::Pid(entry.pid.clone()),
            },
            Some(Term::atom("kill")),
        )
        .await;
    assert_eq!(scene.next().await.1, Some(Term::atom("killed")));
}

#[tokio::test(start_paused = true)]
async fn kill_over_a_link_is_an_ordinary_reason() {
    let mut scene = Scene::new();
    let (entry, mut receiver) = scene.process();
    entry.state().trap_exit = true;
    let from = scene.theirs(1);
    scene
        .send(
            Control::Link {
                from: from.clone(),
                to: entry.pid.clone(),
            },
            None,
        )
        .await;
    let exit = Control::Exit {
        from: from.clone(),
        to: entry.pid.clone(),
    };
    scene.send(exit, Some(Term::atom("kill"))).await;
    match Scene::received(&mut receiver).await {
        Item::Exit { from: by, reason } => assert_eq!((by, reason), (from, Term::atom("kill"))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_a_spawn_comes_before_anything_of_the_child() {
    let mut scene = Scene::new();
    let router = Arc::clone(&scene.router);
    scene.router.set_starter(Box::new(
        move |entry, _receiver, _module, _function, _args| {
            // The fastest child there is.
            router.exit(&entry, Term::atom("normal"));
        },
    ));
    let (from, reference) = (scene.theirs(1), scene.reference(1));
    let request = Control::SpawnRequest {
        reference: reference.clone(),
        from: from.clone(),
        group_leader: from.clone(),
        module: Atom::of("m"),
        function: Atom::of("f"),
        arity: 0,
        options: Term::list([Term::atom("link"), Term::atom("monitor")]),
    };
    scene.send(request, Some(Term::list([]))).await;
    let Control::SpawnReply {
        linked: true,
        monitored: true,
        result: SpawnResult::Pid(child),
        ..
    } = scene.next().await.0
    else {
        panic!("no reply first")
    };
    assert_eq!(
        scene.next().await.0,
        Control::Exit {
            from: child.clone(),
            to: from.clone()
        }
    );
    assert_eq!(
        scene.next().await.0,
        Control::Down {
            target: Target::Pid(child),
            to: from,
            reference
        }
    );
}

#[tokio::test(start_paused = true)]
async fn signals_in_the_name_of_another_node_close_the_connection() {
    let mut scene = Scene::new();
    let (entry, _receiver) = scene.process();
    let foreign = Pid {
        node: Atom::of("third@h"),
        id: 1,
        serial: 0,
        creation: 1,
    };
    scene
        .send(
            Control::Link {
                from: foreign,
                to: entry.pid.clone(),
            },
            None,
        )
        .await;
    assert!(matches!(scene.running.await.unwrap(), Reason::Protocol(_)));
}

#[tokio::test(start_paused = true)]
async fn signals_to_an_earlier_incarnation_of_the_peer_are_not_sent() {
    let mut scene = Scene::new();
    let (entry, mut receiver) = scene.process();
    entry.state().trap_exit = true;
    let stale = Pid {
        creation: scene.creation - 1,
        ..scene.theirs(1)
    };
    scene.router.link(&entry, &stale);
    match Scene::received(&mut receiver).await {
        Item::Exit { from, reason } => {
            assert_eq!((from, reason), (stale.clone(), Term::atom("noproc")))
        }
        other => panic!("{other:?}"),
    }
    scene.router.monitor(&entry, Destination::Pid(stale));
    match Scene::received(&mut receiver).await {
        Item::Down { reason, .. } => assert_eq!(reason, Term::atom("noproc")),
        other => panic!("{other:?}"),
    }
    // The peer sees only what comes after.
    let to = scene.theirs(2);
    scene
        .router
        .send(
            &entry.pid,
            Destination::Pid(to.clone()),
            Term::atom("hello"),
        )
        .unwrap();
    let sent = Control::Send {
        from: Some(entry.pid.clone()),
        to,
    };
    assert_eq!(scene.next().await, (sent, Some(Term::atom("hello"))));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ticks_and_a_silent_peer_is_closed() {
    let mut scene = Scene::new();
    let start = tokio::time::Instant::now();
    assert_eq!(scene.frame().await, Frame::Tick);
    assert_eq!(start.elapsed(), TICK_TIME / 4);
    let reason = scene.running.await.unwrap();
    assert_eq!(reason, Reason::TickTimeout);
    let silent = start.elapsed();
    assert!(
        silent >= TICK_TIME && silent <= TICK_TIME * 5 / 4 + Duration::from_secs(1),
        "{silent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_tick_in_time_keeps_a_peer() {
    let mut scene = Scene::new();
    for _ in 0..10 {
        tokio::time::sleep(TICK_TIME * 9 / 10).await;
        scene.stream.write_all(&[0; 4]).await.unwrap();
    }
    assert!(!scene.running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_keep_up_ends_and_its_monitors_see_it() {
    let mut scene = Scene::new();
    let (entry, _receiver) = scene.process();
    let (from, reference) = (scene.theirs(1), scene.reference(1));
    let monitor = Control::Monitor {
        from: from.clone(),
        target: Target::Pid(entry.pid.clone()),
        reference,
    };
    scene.send(monitor, None).await;
    for _ in 0..=limits().mailbox {
        let message = Control::Send {
            from: Some(from.clone()),
            to: entry.pid.clone(),
        };
        scene.send(message, Some(Term::atom("x"))).await;
    }
    assert_eq!(scene.next().await.1, Some(Term::atom("mailbox_full")));
}

#[tokio::test(start_paused = true)]
async fn a_large_message_does_not_hold_up_other_senders() {
    let mut scene = Scene::new();
    let (slow, _keep_slow) = scene.process();
    let (quick, _keep_quick) = scene.process();
    let to = scene.theirs(1);
    for (from, message) in [
        (&slow, Term::from(bytes::Bytes::from(vec![7u8; 2 << 20]))),
        (&slow, Term::atom("later")),
        (&quick, Term::atom("quick")),
    ] {
        scene
            .router
            .send(&from.pid, Destination::Pid(to.clone()), message)
            .unwrap();
    }
    let mut order = Vec::new();
    while order.len() < 3 {
        let (_, payload) = scene.next().await;
        order.push(match payload {
            Some(Term::Binary(binary)) => format!("{} bytes", binary.len()),
            Some(other) => other.to_string(),
            None => "nothing".to_owned(),
        });
    }
    assert_eq!(order, ["quick", "2097152 bytes", "later"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_messages_and_says_how_full() {
    let scene = Scene::new();
    let (entry, _receiver) = scene.process();
    let to = Destination::Pid(scene.theirs(1));
    let megabyte = Term::from(bytes::Bytes::from(vec![0u8; 1 << 20]));
    // Nobody reads: the queue of 4 MiB fills.
    let mut taken = 0;
    let error = loop {
        match scene.router.send(&entry.pid, to.clone(), megabyte.clone()) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 10);
    };
    assert!(
        matches!(error, crate::SendError::Busy { queued, .. } if queued > 4 << 20),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_told_in_order() {
    let scene = Scene::new();
    let mut events = scene.router.subscribe();
    let (entry, mut receiver) = scene.process();
    entry.state().trap_exit = true;
    scene.router.link(&entry, &scene.theirs(1));
    scene.router.monitor(
        &entry,
        Destination::Name {
            name: Atom::of("n"),
            node: Atom::of("beam@h"),
        },
    );
    scene
        .router
        .monitor(&entry, Destination::Pid(scene.theirs(2)));
    drop(scene.stream);
    let reason = scene.running.await.unwrap();
    scene.router.node_down(&scene.connection, &reason);

    let noconnection = Term::atom("noconnection");
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(match Scene::received(&mut receiver).await {
            Item::Exit { reason, .. } if reason == noconnection => "exit",
            Item::Down {
                target: crate::Target::Pid(_),
                reason,
                ..
            } if reason == noconnection => "down of a pid",
            Item::Down { reason, .. } if reason == noconnection => "down of a name",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(order, ["exit", "down of a pid", "down of a name"]);
    assert!(matches!(
        events.try_recv(),
        Ok(NodeEvent::Down { visible: true, .. })
    ));
    assert_eq!(entry.state().links.active().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_links_dies_without_recursion() {
    let scene = Scene::new();
    let mut chain = Vec::new();
    for _ in 0..100_000 {
        chain.push(scene.process());
    }
    for pair in chain.windows(2) {
        scene.router.link(&pair[0].0, &pair[1].0.pid);
    }
    scene.router.exit(&chain[0].0, Term::atom("boom"));
    assert!(chain.iter().all(|(entry, _)| !entry.is_alive()));
}

#[tokio::test(start_paused = true)]
async fn broken_bytes_cost_the_connection_and_nothing_else() {
    let mut scene = Scene::new();
    let (entry, _receiver) = scene.process();
    scene
        .stream
        .write_all(&[0, 0, 0, 3, 131, 99, 99])
        .await
        .unwrap();
    assert!(matches!(scene.running.await.unwrap(), Reason::Protocol(_)));
    assert!(entry.is_alive());
}
