//! The tables of the driver: what they hold, and when they refuse.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tiebeam_core::{Event, NodeName};
use tiebeam_wire::{Atom, Reference, Term};

use super::observations::{MAX_OBSERVATIONS, Observations};
use super::subscribers::{MAX_SUBSCRIBERS, Subscribers};
use crate::config::{Config, Cookie};
use crate::epmd::EpmdMode;
use crate::node::Node;
use crate::process::{Process, Signal};
use crate::router::NotSent;

const SOON: Duration = Duration::from_secs(10);

async fn start(name: &str, other: Option<&Node>) -> Node {
    let mut config = Config::new(format!("{name}@127.0.0.1"), Cookie::new("secret"))
        .listen(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .epmd(EpmdMode::None, 0);
    if let Some(other) = other {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, other.port()));
        config
            .addresses
            .insert(other.name().as_str().to_owned(), address);
    }
    Node::start(config).await.unwrap()
}

async fn message(process: &mut Process) -> Vec<Term> {
    match tokio::time::timeout(SOON, process.recv()).await.unwrap() {
        Some(Signal::Message(Term::Tuple(elements))) => elements,
        other => panic!("expected a message, got {other:?}"),
    }
}

/// The next answer to a question.
async fn answer(process: &mut Process) -> Reference {
    match message(process).await.as_slice() {
        [Term::Reference(reference), Term::Atom(yes)] if *yes == "yes" => reference.clone(),
        other => panic!("expected an answer, got {other:?}"),
    }
}

#[tokio::test]
async fn the_kernel_of_a_connected_node_answers_and_no_other_is_asked() {
    let a = start("a", None).await;
    let b = start("b", Some(&a)).await;
    let name = NodeName::parse("a@127.0.0.1").unwrap();
    let mut process = b.spawn_anonymous().unwrap();
    let mut observations = Observations::default();
    let asked = observations.ask(name.clone(), 1, &process);
    assert!(matches!(asked, Err(NotSent::NoConnection)), "{asked:?}");
    assert!(b.nodes().is_empty());

    b.connect(name.as_str()).await.unwrap();
    observations.ask(name.clone(), 2, &process).unwrap();
    observations.ask(name.clone(), 3, &process).unwrap();
    let second = answer(&mut process).await;
    let observed = |node: &NodeName, probe| Event::Observed {
        node: node.clone(),
        probe,
    };
    assert_eq!(observations.answered(&second), Some(observed(&name, 2)));
    assert_eq!(observations.answered(&second), None);
    // What comes after the connection was lost is nobody's.
    let third = answer(&mut process).await;
    observations.forget(&name);
    assert_eq!(observations.answered(&third), None);
    for node in [a, b] {
        node.stop().await;
    }
}

#[tokio::test]
async fn questions_without_an_answer_are_forgotten_the_oldest_first() {
    let a = start("a", None).await;
    let b = start("b", Some(&a)).await;
    let name = NodeName::parse("a@127.0.0.1").unwrap();
    let mut process = b.spawn_anonymous().unwrap();
    b.connect(name.as_str()).await.unwrap();
    let mut observations = Observations::default();
    let questions = MAX_OBSERVATIONS as u64 + 1;
    for probe in 0..questions {
        observations.ask(name.clone(), probe, &process).unwrap();
    }
    let first = answer(&mut process).await;
    assert_eq!(observations.answered(&first), None);
    for wanted in 1..questions {
        let reference = answer(&mut process).await;
        match observations.answered(&reference) {
            Some(Event::Observed { probe, .. }) => assert_eq!(probe, wanted),
            other => panic!("expected the observation {wanted}, got {other:?}"),
        }
    }
    for node in [a, b] {
        node.stop().await;
    }
}

#[tokio::test]
async fn so_many_processes_subscribe_and_no_more() {
    let node = start("a", None).await;
    let mut driver = node.spawn_anonymous().unwrap();
    let mut subscribers = Subscribers::default();
    let mut processes: Vec<Process> = (0..=MAX_SUBSCRIBERS)
        .map(|_| node.spawn_anonymous().unwrap())
        .collect();
    let mut last = processes.pop().unwrap();
    for process in &processes {
        assert!(subscribers.add(process.pid(), &driver).is_atom("ok"));
    }
    // Who is there already may ask again; who comes now must wait for another one's end.
    assert!(subscribers.add(processes[0].pid(), &driver).is_atom("ok"));
    let refusal = subscribers.add(last.pid(), &driver).to_string();
    assert_eq!(
        refusal,
        format!("{{error,{{too_many_subscribers,{MAX_SUBSCRIBERS}}}}}")
    );
    drop(processes.pop());
    match tokio::time::timeout(SOON, driver.recv()).await.unwrap() {
        Some(Signal::Down { reference, .. }) => subscribers.down(&reference),
        other => panic!("expected the end of a subscriber, got {other:?}"),
    }
    assert!(subscribers.add(last.pid(), &driver).is_atom("ok"));

    let event = Term::tuple([Term::atom("health"), Term::from(2)]);
    subscribers.publish("blue", &event, &driver);
    let told = message(&mut last).await;
    assert_eq!(
        Term::Tuple(told).to_string(),
        "{tiebeam,<<\"blue\">>,{health,2}}"
    );
    subscribers.remove(last.pid(), &driver);
    subscribers.publish("blue", &event, &driver);
    let marker = Term::tuple([Term::from(Atom::of("marker"))]);
    driver.send(last.pid(), marker).unwrap();
    assert!(message(&mut last).await[0].is_atom("marker"));
    node.stop().await;
}
