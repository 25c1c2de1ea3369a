//! What a process holds, nobody else does; and it knows when it is over.

use alloc::vec::Vec;

use super::net::{Net, acquire, acquire_for, done, holder, named, pid, put, release, wait_for};
use crate::event::CallId;
use crate::leadership::group::{Answer, Command, Lost, Output, Row};
use crate::leadership::machine::Kind;
use crate::time::{Duration, Instant};

fn others(leader: char) -> [char; 2] {
    match leader {
        'a' => ['b', 'c'],
        'b' => ['a', 'c'],
        _ => ['a', 'b'],
    }
}

/// When a process was told that it lost a claim.
fn lost(net: &Net, name: char) -> Vec<(Instant, Lost)> {
    let told = net.seen.iter().filter(|(_, who, _)| *who == name);
    told.filter_map(|(at, _, output)| match output {
        Output::Lost(lost) => Some((*at, lost.clone())),
        _ => None,
    })
    .collect()
}

fn answered_at(net: &Net, wanted: CallId) -> Option<Instant> {
    net.seen.iter().find_map(|(at, _, output)| match output {
        Output::Answer { call, .. } if *call == wanted => Some(*at),
        _ => None,
    })
}

#[test]
fn the_holders_of_a_node_that_leaves_hear_of_it_before_anybody_else() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = others(leader);
    done(net.call(a, acquire("l", "p")));
    let waiting = net.ask(b, wait_for("l", "q"));
    net.on(a, |group, now| group.leave(now));
    done(net.until("the lock is free", |net| net.answer_to(waiting)));
    let told = |what: fn(&Output) -> bool| net.seen.iter().position(|(_, _, output)| what(output));
    let lost = told(|output| matches!(output, Output::Lost(_))).expect("its holder is told");
    let freed = told(|output| matches!(output, Output::Row(Row::Freed { .. })));
    assert!(lost < freed.expect("it was freed"));
    assert_eq!(self::lost(&net, a).len(), 1, "once");
}

#[test]
fn one_holds_a_lock_and_gives_it_back() {
    let (mut net, _) = Net::led("abc");
    let token = done(net.call('a', acquire("l", "p")));
    let held = Answer::Held {
        value: Some(pid("p")),
        token,
    };
    assert_eq!(net.call('b', acquire("l", "q")), held);
    assert_eq!(
        net.call('b', release("l", token)),
        Answer::NotHeld,
        "only its holder can"
    );
    done(net.call('a', release("l", token)));
    assert_eq!(net.call('c', holder("l")), Answer::Holder(None));
    assert!(done(net.call('b', acquire("l", "q"))) > token);
    assert!(lost(&net, 'a').is_empty(), "it was given back, not lost");
}

#[test]
fn a_holder_says_something_else_and_holds_it_as_before() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = others(leader);
    let token = done(net.call(a, acquire("l", "p")));
    let update = |token| Command::Update {
        kind: Kind::Lock,
        name: b"l".to_vec(),
        token,
        value: pid("p, busy"),
    };
    assert_eq!(net.call(a, update(token + 1)), Answer::NotHeld);
    assert_eq!(net.call(b, update(token)), Answer::NotHeld, "it is not b's");
    assert_eq!(done(net.call(a, update(token))), token);
    let held = Answer::Held {
        value: Some(pid("p, busy")),
        token,
    };
    assert_eq!(net.call(b, acquire("l", "q")), held);
    assert!(lost(&net, a).is_empty());
    net.on(a, |group, now| group.exited(now, &pid("p")));
    done(net.call(b, wait_for("l", "q")));
}

#[test]
fn what_a_process_holds_is_free_when_it_ends() {
    let (mut net, _) = Net::led("abc");
    done(net.call('a', acquire("l", "p")));
    done(net.call('a', acquire("m", "p")));
    let kept = done(net.call('a', acquire("n", "other")));
    net.on('a', |group, now| group.exited(now, &pid("p")));
    done(net.call('b', wait_for("l", "q")));
    done(net.call('b', wait_for("m", "q")));
    let held = Answer::Held {
        value: Some(pid("other")),
        token: kept,
    };
    assert_eq!(net.call('b', acquire("n", "q")), held);
}

#[test]
fn those_that_wait_get_it_in_turn() {
    let (mut net, _) = Net::led("abc");
    let mut token = done(net.call('a', acquire("l", "p")));
    let waiting: Vec<CallId> = (0..5)
        .map(|n| {
            net.ask_for(
                'b',
                wait_for("l", &std::format!("q{n}")),
                Duration::from_secs(50),
            )
        })
        .collect();
    net.pass(500);
    let mut holder = 'a';
    for (n, call) in waiting.iter().enumerate() {
        assert!(
            waiting[n..]
                .iter()
                .all(|call| net.answer_to(*call).is_none())
        );
        let back = net.call(holder, release("l", token));
        done(back);
        holder = 'b';
        token = done(net.until("the next one has it", |net| net.answer_to(*call)));
    }
}

#[test]
fn one_that_waits_in_vain_is_told_who_has_it() {
    let (mut net, _) = Net::led("abc");
    let token = done(net.call('a', acquire("l", "p")));
    let call = net.ask_for('b', wait_for("l", "q"), Duration::from_secs(2));
    net.pass(2_100);
    let held = Answer::Held {
        value: Some(pid("p")),
        token,
    };
    assert_eq!(net.answer_to(call), Some(held));
}

#[test]
fn the_first_in_line_ends_and_the_next_one_has_its_turn() {
    let (mut net, _) = Net::led("abc");
    let token = done(net.call('a', acquire("l", "p")));
    net.ask_for('b', wait_for("l", "q"), Duration::from_secs(50));
    let next = net.ask_for('b', wait_for("l", "r"), Duration::from_secs(50));
    net.pass(200);
    net.on('b', |group, now| group.exited(now, &pid("q")));
    done(net.call('a', release("l", token)));
    done(net.until("the next one has it", |net| net.answer_to(next)));
}

#[test]
fn what_a_node_holds_is_free_when_its_session_is_over_and_not_before_it_knows() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = others(leader);
    let token = done(net.call(a, acquire("l", "p")));
    net.pass(5_000);
    assert!(lost(&net, a).is_empty(), "a session is kept alive");
    net.isolate(a);
    let call = net.ask_for(b, wait_for("l", "q"), Duration::from_secs(50));
    done(net.until("another one has it", |net| net.answer_to(call)));
    let told = lost(&net, a);
    assert!(
        matches!(&told[..], [(_, lost)] if lost.token == token && lost.pid == pid("p")),
        "{told:?}"
    );
    assert!(told[0].0 < answered_at(&net, call).unwrap());
}

#[test]
fn a_lock_with_a_time_ends_with_it_and_not_before_its_holder_knows() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = others(leader);
    let token = done(net.call(a, acquire_for("l", "p", 1_000)));
    let renew = Command::Renew {
        kind: Kind::Lock,
        name: b"l".to_vec(),
        token,
        ttl: Duration::from_secs(2),
    };
    net.pass(500);
    done(net.call(a, renew));
    let renewed = net.now;
    let call = net.ask_for(b, wait_for("l", "q"), Duration::from_secs(50));
    done(net.until("another one has it", |net| net.answer_to(call)));
    let told = lost(&net, a);
    assert!(
        matches!(&told[..], [(_, lost)] if lost.token == token),
        "{told:?}"
    );
    assert!(told[0].0 < answered_at(&net, call).unwrap());
    assert!(
        told[0].0.since(renewed) > Duration::from_millis(1_400),
        "it was prolonged"
    );
}

/// A node stands still while it is granted a lock, and is cut off as soon as it hears of it.
fn a_lock_that_is_granted_late_is_over_in_time(mut net: Net) {
    for name in ['a', 'b', 'c'] {
        net.start(name, named("abc"));
    }
    let leader = net.until("there is a leader", Net::leader);
    let [a, b] = others(leader);
    net.call(a, put("k", "a session"));
    let call = net.ask(a, acquire_for("l", "p", 1_000));
    net.pause(a);
    net.pass(700);
    net.thaw(a);
    let token = done(net.until("it is granted", |net| net.answer_to(call)));
    net.isolate(a);
    let call = net.ask_for(b, wait_for("l", "q"), Duration::from_secs(50));
    done(net.until("another one has it", |net| net.answer_to(call)));
    let told = lost(&net, a);
    assert!(
        matches!(&told[..], [(at, lost)] if lost.token == token && *at < net.now),
        "{told:?}"
    );
}

#[test]
fn a_lock_lasts_from_when_it_was_asked_for() {
    a_lock_that_is_granted_late_is_over_in_time(Net::new(1));
}

#[cfg(feature = "mutants")]
#[test]
fn a_lock_that_lasts_from_when_its_grant_arrived_is_noticed() {
    let mut net = Net::new(1);
    net.mutation = Some(crate::leadership::Mutation::ClaimFromArrival);
    let run = || a_lock_that_is_granted_late_is_over_in_time(net);
    assert!(std::panic::catch_unwind(run).is_err());
}

/// The clock of the holder is a tenth slow, all others are a tenth fast: an eighth of the time was not enough to be sure.
#[test]
fn clocks_that_run_at_other_rates_do_not_make_two_holders() {
    let mut net = Net::new(1);
    net.rates.extend([('a', 900), ('b', 1100), ('c', 1100)]);
    for name in ['a', 'b', 'c'] {
        net.start(name, named("abc"));
    }
    if net.until("there is a leader", Net::leader) == 'a' {
        done(net.call('a', Command::StepDown { to: None }));
    }
    let session = done(net.call('a', acquire("l", "p")));
    let timed = done(net.call('a', acquire_for("m", "p", 10_000)));
    net.isolate('a');
    for (name, token) in [("m", timed), ("l", session)] {
        let call = net.ask_for('b', wait_for(name, "q"), Duration::from_secs(50));
        done(net.until("another one has it", |net| net.answer_to(call)));
        let told = lost(&net, 'a');
        assert!(
            told.iter()
                .any(|(at, lost)| lost.token == token && *at < net.now),
            "{name}: {told:?}"
        );
    }
}

#[test]
fn what_is_granted_too_late_is_given_back() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = others(leader);
    net.call(a, put("k", "a session"));
    // The command arrives, but nothing of it comes back in time.
    net.cut.insert((leader, a));
    let call = net.ask_for(a, acquire("l", "p"), Duration::from_millis(100));
    net.pass(150);
    assert_eq!(net.answer_to(call), Some(Answer::Unknown));
    net.cut.clear();
    done(net.call(b, wait_for("l", "q")));
}

#[test]
fn a_new_leader_does_not_shorten_what_is_held() {
    let (mut net, leader) = Net::led("abc");
    let [a, b] = others(leader);
    let token = done(net.call(a, acquire("l", "p")));
    net.crash(leader);
    net.pass(10_000);
    let held = Answer::Held {
        value: Some(pid("p")),
        token,
    };
    assert_eq!(net.call(b, acquire("l", "q")), held);
    assert!(lost(&net, a).is_empty());
}

#[test]
fn a_session_that_was_idle_is_kept_alive_again() {
    for idle in [59_000, 60_500, 62_000, 70_000] {
        let (mut net, leader) = Net::led("abc");
        let [a, _] = others(leader);
        net.call(a, put("k", "v"));
        net.pass(idle);
        done(net.call(a, acquire("l", "p")));
        net.pass(10_000);
        assert!(lost(&net, a).is_empty(), "after {idle} ms");
    }
}
