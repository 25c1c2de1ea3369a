//! Messages with versions between nodes of two releases, batches, and what goes around calls.

use tiebeam_node::{
    ActorRef, BreakerError, BreakerSettings, BreakerState, CallError, ChildSpec, CircuitBreaker,
    Failure, Message, MessageVersion, Migration, Misfit, ReceiveError, RetryPolicy, SendError,
    Strategy, Supervisor, Versioned, from_term, to_term,
};

use super::*;

/// The types of release 2 of a shop.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Order {
    item: String,
    count: u32,
}

impl Message for Order {
    const TAG: &'static str = "shop.order";
    const VERSION: u32 = 2;
    const MIGRATIONS: &'static [Migration] = &[Migration {
        from: 1,
        with: |item| {
            let item = from_term(&item)?;
            to_term(&Order { item, count: 1 })
        },
    }];
}

/// Those of release 1.
#[derive(Serialize, Deserialize, Debug)]
struct OldOrder(String);

impl Message for OldOrder {
    const TAG: &'static str = "shop.order";
    const VERSION: u32 = 1;
}

/// Those of release 3.
#[derive(Serialize, Deserialize, Debug)]
struct NewOrder {
    items: Vec<String>,
}

impl Message for NewOrder {
    const TAG: &'static str = "shop.order";
    const VERSION: u32 = 3;
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Receipt {
    total: u32,
}

impl Message for Receipt {
    const TAG: &'static str = "shop.receipt";
    const VERSION: u32 = 1;
}

/// A server of release 2.
#[derive(Default)]
struct Shop {
    total: u32,
    /// Casts that it could not read.
    unread: usize,
}

impl GenServer for Shop {
    type Call = Versioned<Order>;
    type Cast = Versioned<Order>;
    type Reply = Versioned<Receipt>;

    async fn handle_call(
        &mut self,
        Versioned(order): Versioned<Order>,
        _: &ReplyTo,
        _: &Process,
    ) -> Answer<Versioned<Receipt>> {
        self.total += order.count;
        Answer::Reply(Versioned(Receipt { total: self.total }))
    }

    async fn handle_cast(&mut self, Versioned(order): Versioned<Order>, _: &Process) -> Flow {
        self.total += order.count;
        Flow::Continue
    }

    async fn handle_info(&mut self, signal: Signal, _: &Process) -> Flow {
        if let Signal::Cast(_) = signal {
            self.unread += 1;
        }
        Flow::Continue
    }

    fn state(&self) -> Term {
        Term::tuple([Term::from(self.total), Term::from(self.unread as u64)])
    }
}

fn version(tag: &str, version: u32) -> MessageVersion {
    MessageVersion {
        tag: tag.to_owned(),
        version,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_releases_understand_each_other_or_say_why_not() {
    let shop = start_node("shop", &[]).await;
    let client = start_node("client", &[&shop]).await;
    let pid = shop.start_server("shop", Shop::default()).await.unwrap();
    let to = ("shop", "shop@127.0.0.1");

    let order = Order {
        item: "tea".to_owned(),
        count: 5,
    };
    let same: ActorRef<Versioned<Order>> = client.actor(to);
    let Versioned(receipt) = same
        .call::<Versioned<Receipt>>(&Versioned(order.clone()), DEADLINE)
        .await
        .unwrap();
    assert_eq!(receipt, Receipt { total: 5 });

    let old: ActorRef<Versioned<OldOrder>> = same.of();
    let Versioned(receipt) = old
        .call::<Versioned<Receipt>>(&Versioned(OldOrder("tea".to_owned())), DEADLINE)
        .await
        .unwrap();
    assert_eq!(receipt, Receipt { total: 6 }, "one of release 1 is lifted");

    let new: ActorRef<Versioned<NewOrder>> = same.of();
    let newer = Versioned(NewOrder {
        items: vec!["tea".to_owned()],
    });
    let refused = new.call::<Versioned<Receipt>>(&newer, DEADLINE).await;
    let Err(error @ CallError::Version(_)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        error.to_string(),
        "the server did not take the request: shop.order version 2 is taken, and shop.order version 3 came"
    );
    assert!(!error.is_retryable() && !error.is_outage());

    // Without an envelope; and to who has asked for a plain term.
    let plain = client.call::<_, Term>(to, &order, DEADLINE).await;
    let Err(CallError::Version(mismatch)) = plain else {
        panic!("{plain:?}");
    };
    assert_eq!(mismatch.expected, version("shop.order", 2));
    assert_eq!(mismatch.got, None);
    let raw = client.call_term(to, term("order"), DEADLINE).await.unwrap();
    let expected = "{error, {'$tiebeam_version', {<<\"shop.order\">>, 2}, nil}}";
    assert_eq!(raw, term(expected), "what a BEAM sees");

    // A reply of another kind than asked for.
    let reply = same
        .call::<Versioned<Order>>(&Versioned(order), DEADLINE)
        .await;
    let Err(CallError::Reply { reason, .. }) = reply else {
        panic!("{reply:?}");
    };
    let expected = "shop.order version 2 is taken, and shop.receipt version 1 came";
    assert_eq!(reason, expected);

    // Casts have nobody to tell: the server sees what came.
    new.cast(&newer).unwrap();
    old.cast(&Versioned(OldOrder("tea".to_owned()))).unwrap();
    let mut asker = client.spawn_anonymous().unwrap();
    let tag = client.make_reference();
    let from = Term::tuple([Term::from(asker.pid()), Term::from(&tag)]);
    let request = Term::tuple([Term::atom("system"), from, Term::atom("get_state")]);
    asker.send(&pid, request).unwrap();
    let (_, reply): (Term, Term) = asker.receive(DEADLINE).await.unwrap();
    // 5, 1 and 5 by call (the reply of another kind was handled), 1 by cast.
    assert_eq!(reply, term("{ok, {12, 1}}"));
    assert!(shop.is_process_alive(&pid));
    client.stop().await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_receives_what_it_waits_for() {
    let node = start_node("receiver", &[]).await;
    let mut process = node.spawn("receiver").unwrap();
    let soon = Duration::from_millis(20);
    let nothing = process.receive::<i64>(soon).await;
    assert!(matches!(nothing, Err(ReceiveError::Timeout(after)) if after == soon));

    let actor: ActorRef<i64> = node.actor("receiver");
    actor.send(&7).unwrap();
    assert_eq!(process.receive::<i64>(DEADLINE).await.unwrap(), 7);

    node.send("receiver", Term::atom("seven")).unwrap();
    let misfit = process.receive::<i64>(DEADLINE).await;
    let Err(ReceiveError::Misfit { message, misfit }) = misfit else {
        panic!("{misfit:?}");
    };
    assert!(message.is_atom("seven") && matches!(misfit, Misfit::Type(_)));

    actor.cast(&7).unwrap();
    let other = process.receive::<i64>(DEADLINE).await;
    assert!(matches!(other, Err(ReceiveError::Other(Signal::Cast(_)))));

    node.send_exit(process.pid(), Term::atom("kill"));
    let ended = process.receive::<i64>(DEADLINE).await;
    assert!(matches!(ended, Err(ReceiveError::Ended)));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_which_messages_were_not_sent() {
    let node = start_node("batch", &[]).await;
    let mut process = node.spawn("numbers").unwrap();
    let actor: ActorRef<f64> = node.actor("numbers");
    // A number that is none has no form as a term.
    let report = actor.send_all(&[1.0, f64::NAN, 2.0]);
    assert_eq!(report.sent, 2);
    assert!(!report.is_complete());
    let [(1, SendError::Encode(_))] = report.failed.as_slice() else {
        panic!("{report:?}");
    };
    for number in [1.0, 2.0] {
        assert_eq!(process.receive::<f64>(DEADLINE).await.unwrap(), number);
    }
    drop(process);
    let report = actor.cast_all(&[1.0, 2.0]);
    assert_eq!(report.sent, 0);
    assert_eq!(report.failed.len(), 2);
    node.stop().await;
}

/// A name that nobody has opens the breaker around it; once somebody has it again, one call closes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_goes_around_the_calls_to_a_name() {
    let node = start_node("breaker", &[]).await;
    let breaker = CircuitBreaker::new(BreakerSettings {
        failures: 3,
        pause: Duration::from_millis(50),
        trials: 1,
    });
    let actor: ActorRef<Request> = node.actor("counter");
    let add = || breaker.call(|| actor.call::<i64>(&Request::Add(1), DEADLINE));
    for _ in 0..3 {
        let failed = add().await;
        assert!(matches!(
            failed,
            Err(BreakerError::Failed(CallError::NoProcess))
        ));
    }
    assert!(matches!(add().await, Err(BreakerError::Open { .. })));

    let child = ChildSpec::server("counter", Counter::default).named("counter");
    let supervisor = Supervisor::new(Strategy::OneForOne).child(child);
    supervisor.start(&node).await.unwrap();
    let retry = RetryPolicy::aggressive();
    let sum = retry.run_while(|error| matches!(error, BreakerError::Open { .. }), add);
    assert_eq!(sum.await.unwrap(), 1);
    assert_eq!(breaker.state(), BreakerState::Closed);
    node.stop().await;
}
