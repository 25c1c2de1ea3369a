//! Bytes to processes without a network: the test is the peer, the clock is Tokio's, paused.

use std::collections::HashSet;
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
        relations: 5000,
        ..Limits::default()
    }
}

impl Scene {
    fn new() -> Self {
        Self::after(4 << 20, |_| {})
    }

    /// A scene where something happens before the connection is up.
    fn after(send_queue: usize, before: impl FnOnce(&Arc<Router>)) -> Self {
        let router = Router::new(Atom::of("rust@h"), 7, false, limits(), 1);
        router.set_dial(Box::new(|_| {}));
        before(&router);
        let config = ConnectionConfig {
            send_buffer: 1 << 20,
            send_queue,
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
            &entry,
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
            .send(from, &from.pid, Destination::Pid(to.clone()), message)
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
        match scene
            .router
            .send(&entry, &entry.pid, to.clone(), megabyte.clone())
        {
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

#[tokio::test(start_paused = true)]
async fn a_death_is_told_after_what_the_dead_have_sent() {
    let mut scene = Scene::new();
    let (entry, _receiver) = scene.process();
    let name = Atom::of("name");
    scene.router.register(name.clone(), &entry).unwrap();
    let (from, to) = (scene.theirs(1), scene.theirs(2));
    let by_name = Control::Monitor {
        from: from.clone(),
        target: Target::Name(name.clone()),
        reference: scene.reference(1),
    };
    scene.send(by_name, None).await;
    let by_pid = Control::Monitor {
        from: from.clone(),
        target: Target::Pid(entry.pid.clone()),
        reference: scene.reference(2),
    };
    scene.send(by_pid, None).await;
    scene
        .send(
            Control::Link {
                from,
                to: entry.pid.clone(),
            },
            None,
        )
        .await;
    while entry.state().links.active().count() == 0 {
        tokio::task::yield_now().await;
    }
    let large = Term::from(bytes::Bytes::from(vec![7u8; 2 << 20]));
    scene
        .router
        .send(&entry, &entry.pid, Destination::Pid(to), large)
        .unwrap();
    scene.router.exit(&entry, Term::atom("done"));
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(scene.next().await.0.name());
    }
    assert_eq!(order, ["Send", "Exit", "Down", "Down"]);
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_the_connection_is_not_sent_to_an_earlier_incarnation() {
    let stale = |id| Pid {
        node: Atom::of("beam@h"),
        id,
        serial: 0,
        creation: 8,
    };
    let mut kept = None;
    let mut scene = Scene::after(4 << 20, |router| {
        // Links, unlinks and an exit: for each of the last two a BEAM would close the connection.
        let (dies, _receiver) = router.new_task_process().unwrap();
        router.link(&dies, &stale(1));
        router.link(&dies, &stale(2));
        router.unlink(&dies, &stale(2));
        router.exit(&dies, Term::atom("normal"));
        let (lives, receiver) = router.new_task_process().unwrap();
        lives.state().trap_exit = true;
        router.link(&lives, &stale(3));
        router.monitor(&lives, Destination::Pid(stale(4)));
        router.link(&lives, &stale(5));
        router.unlink(&lives, &stale(5));
        kept = Some((lives, receiver));
    });
    let (lives, mut receiver) = kept.unwrap();
    for _ in 0..2 {
        match Scene::received(&mut receiver).await {
            Item::Exit { from, reason } if from == stale(3) => {
                assert_eq!(reason, Term::atom("noproc"));
            }
            Item::Down { reason, .. } => assert_eq!(reason, Term::atom("noproc")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lives.state().links.len(), 0, "nobody will acknowledge");
    let to = scene.theirs(1);
    scene
        .router
        .send(
            &lives,
            &lives.pid,
            Destination::Pid(to),
            Term::atom("hello"),
        )
        .unwrap();
    assert_eq!(scene.next().await.1, Some(Term::atom("hello")));
}

/// The killer is another thread, as the reader of a connection is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_death_while_linking_is_told_after_the_link() {
    let mut scene = Scene::after(256 << 20, |_| {});
    let rounds: u32 = 2_000;
    let router = Arc::clone(&scene.router);
    let to = scene.theirs(1);
    let racing = tokio::task::spawn_blocking(move || {
        for _ in 0..rounds {
            let (entry, _receiver) = router.new_task_process().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| router.exit(&entry, Term::atom("killed")));
                router.link(&entry, &to);
                router.monitor(&entry, Destination::Pid(to.clone()));
            });
        }
        // The last of all, so that the test knows when to stop.
        let (last, _receiver) = router.new_task_process().unwrap();
        router
            .send(&last, &last.pid, Destination::Pid(to), Term::atom("end"))
            .unwrap();
    });
    let (mut links, mut monitors) = (HashSet::new(), HashSet::new());
    loop {
        match scene.next().await {
            (Control::Link { from, .. }, _) => assert!(links.insert(from)),
            (Control::Exit { from, .. }, _) => drop(links.remove(&from)),
            (Control::Monitor { reference, .. }, _) => assert!(monitors.insert(reference)),
            (Control::Demonitor { reference, .. }, _) => drop(monitors.remove(&reference)),
            (Control::Send { .. }, _) => break,
            other => panic!("{other:?}"),
        }
    }
    racing.await.unwrap();
    assert_eq!((links.len(), monitors.len()), (0, 0), "what the dead hold");
}

/// The killer is another thread, as the reader of a connection is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_gets_a_message_of_the_dead() {
    let mut scene = Scene::after(256 << 20, |_| {});
    let router = Arc::clone(&scene.router);
    let to = scene.theirs(1);
    let racing = tokio::task::spawn_blocking(move || {
        let (witness, mut seen) = router.new_task_process().unwrap();
        witness.state().trap_exit = true;
        for _ in 0..500 {
            let (entry, _receiver) = router.new_task_process().unwrap();
            router.link(&entry, &to);
            router.link(&entry, &witness.pid);
            std::thread::scope(|scope| {
                scope.spawn(|| router.exit(&entry, Term::atom("killed")));
                for _ in 0..limits().mailbox / 2 {
                    for pid in [&to, &witness.pid] {
                        let to = Destination::Pid(pid.clone());
                        let message = Term::from(&entry.pid);
                        router.send(&entry, &entry.pid, to, message).unwrap();
                    }
                }
            });
            let mut dead = false;
            while let Ok(item) = seen.try_recv() {
                match item {
                    Item::Message(_) => assert!(!dead, "a message of the dead"),
                    Item::Exit { .. } => dead = true,
                    other => panic!("{other:?}"),
                }
                witness.mailbox.taken();
            }
            assert!(dead);
        }
        let (last, _receiver) = router.new_task_process().unwrap();
        router
            .send(&last, &last.pid, Destination::Pid(to), Term::atom("end"))
            .unwrap();
    });
    let mut dead = HashSet::new();
    loop {
        match scene.next().await {
            (Control::Exit { from, .. }, _) => assert!(dead.insert(from)),
            (Control::Send { from, .. }, Some(Term::Pid(pid))) => {
                assert_eq!(from, Some(pid.clone()));
                assert!(!dead.contains(&pid), "a message of the dead");
            }
            (Control::Send { .. }, _) => break,
            (Control::Link { .. }, _) => {}
            other => panic!("{other:?}"),
        }
    }
    racing.await.unwrap();
    assert_eq!(dead.len(), 500);
}

#[tokio::test(start_paused = true)]
async fn signals_that_wait_behind_a_large_message_take_room() {
    let scene = Scene::new();
    let (entry, _receiver) = scene.process();
    let large = Term::from(bytes::Bytes::from(vec![7u8; 2 << 20]));
    let to = Destination::Pid(scene.theirs(1));
    scene.router.send(&entry, &entry.pid, to, large).unwrap();
    // Nobody reads.
    for id in 0..200_000 {
        scene
            .router
            .monitor(&entry, Destination::Pid(scene.theirs(id)));
        if scene.connection.is_closing() {
            return;
        }
    }
    panic!("{} bytes are queued", scene.connection.queued());
}

#[tokio::test(start_paused = true)]
async fn no_exit_is_lost_among_many_large_ones() {
    let mut scene = Scene::after(256 << 20, |_| {});
    let reason = Term::from(bytes::Bytes::from(vec![7u8; 70_000]));
    let deaths: u32 = 1_100;
    for id in 0..deaths {
        let (entry, _receiver) = scene.process();
        scene.router.link(&entry, &scene.theirs(id));
        scene.router.exit(&entry, reason.clone());
    }
    let mut exits = 0;
    while exits < deaths {
        if let (Control::Exit { .. }, Some(told)) = scene.next().await {
            assert_eq!(told, reason);
            exits += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_connection_is_bounded_by_its_size() {
    let mut refused = None;
    let mut scene = Scene::after(128 << 20, |router| {
        let (entry, _receiver) = router.new_task_process().unwrap();
        let to = Destination::Pid(Pid {
            node: Atom::of("beam@h"),
            id: 1,
            serial: 0,
            creation: 9,
        });
        let message = Term::from(bytes::Bytes::from(vec![0u8; 32 << 20]));
        let mut sent = 0;
        refused = Some(loop {
            match router.send(&entry, &entry.pid, to.clone(), message.clone()) {
                Ok(()) => sent += 1,
                Err(error) => break (sent, error),
            }
            assert!(sent < 100);
        });
        router.link(
            &entry,
            &Pid {
                node: Atom::of("beam@h"),
                id: 1,
                serial: 0,
                creation: 9,
            },
        );
        assert!(
            !entry.is_alive(),
            "a link that is not taken is lost at once"
        );
    });
    let (sent, error) = refused.unwrap();
    assert!(matches!(error, crate::SendError::Busy { .. }), "{error:?}");
    // The queue of the limits is 128 MiB.
    assert_eq!(sent, 4);
    for _ in 0..sent {
        assert_eq!(scene.next().await.0.name(), "Send");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_bears_so_many_monitors() {
    let mut scene = Scene::new();
    let (entry, _receiver) = scene.process();
    let (from, target) = (scene.theirs(1), Target::Pid(entry.pid.clone()));
    for word in 0..=limits().relations as u32 {
        let monitor = Control::Monitor {
            from: from.clone(),
            target: target.clone(),
            reference: scene.reference(word),
        };
        scene.send(monitor, None).await;
    }
    let limit = Some(Term::atom("system_limit"));
    assert_eq!(scene.next().await.1, limit);
    let link = Control::Link {
        from,
        to: entry.pid.clone(),
    };
    scene.send(link, None).await;
    let (control, reason) = scene.next().await;
    assert_eq!((control.name(), reason), ("Exit", limit));
}

/// Time grows with what is lost, not with its square.
#[tokio::test]
async fn a_lost_peer_with_many_monitors_is_forgotten_at_once() {
    let scene = Scene::new();
    let mut kept = Vec::new();
    for id in 0..1_000u32 {
        let (entry, receiver) = scene.process();
        let name = Atom::new(&format!("name_{id}")).unwrap();
        scene.router.register(name.clone(), &entry).unwrap();
        for word in 0..100 {
            let target = if word % 2 == 0 {
                Target::Name(name.clone())
            } else {
                Target::Pid(entry.pid.clone())
            };
            let monitor = Control::Monitor {
                from: scene.theirs(id),
                target,
                reference: scene.reference(id * 100 + word),
            };
            scene
                .router
                .incoming(&scene.connection, monitor, None)
                .unwrap();
        }
        scene
            .router
            .monitor(&entry, Destination::Pid(scene.theirs(id)));
        kept.push((entry, receiver));
    }
    let start = std::time::Instant::now();
    scene.connection.close(Reason::Closed);
    scene.router.node_down(&scene.connection, &Reason::Closed);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for (entry, receiver) in &mut kept {
        assert_eq!(entry.state().watched_by.len(), 0);
        assert!(matches!(receiver.try_recv(), Ok(Item::Down { .. })));
        assert!(receiver.try_recv().is_err());
    }
    assert_eq!(scene.router.monitored_names(), 0);
}
