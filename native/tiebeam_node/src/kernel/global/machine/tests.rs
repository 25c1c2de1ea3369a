//! The machine against a script: the talk of two nodes of OTP 25, and what a peer may do wrong.

use super::*;
use crate::kernel::global::messages::{Op, default_method};

/// The other side of the script is `b@h`; this one is `a@h`, so it decides conflicts.
struct Script {
    machine: Machine,
    now: u64,
    actions: Vec<Action>,
    my_tag: i64,
}

fn term(text: &str) -> Term {
    Term::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn pid(text: &str) -> Pid {
    match term(text) {
        Term::Pid(pid) => pid,
        other => panic!("{other} is no pid"),
    }
}

/// The hello of `b@h`.
fn hello_of_b(tag: i64) -> String {
    format!("{{init_connect,{{8,{tag}}},b@h,{{locker,no_longer_a_pid,#{{}},{LOCKER_B}}}}}")
}

fn b() -> Atom {
    Atom::of("b@h")
}

fn name(name: &'static str, process: &str) -> NameEntry {
    NameEntry {
        name: Term::atom(name),
        pid: pid(process),
        method: default_method(),
    }
}

const LOCKER_A: &str = "#Pid<a@h,2,0,1>";
const LOCKER_B: &str = "#Pid<b@h,64,0,1>";
const REGISTRAR_B: &str = "#Pid<b@h,65,0,1>";

impl Script {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            node: Atom::of("a@h"),
            name_server: pid("#Pid<a@h,1,0,1>"),
            locker: pid(LOCKER_A),
            registrar: pid("#Pid<a@h,3,0,1>"),
            connect_all: true,
            prevent_overlapping_partitions: true,
            rejoin: false,
            creation: 77,
            seed: 1,
        };
        change(&mut settings);
        Self {
            machine: Machine::new(settings),
            now: 0,
            actions: Vec::new(),
            my_tag: 0,
        }
    }

    fn event(&mut self, event: Event) -> &mut Self {
        let now = Instant::from_millis(self.now);
        self.actions = self.machine.step(now, event);
        self
    }

    fn plain(&mut self, text: &str) -> &mut Self {
        let text = text.replace("#T", &self.my_tag.to_string());
        let message = Message::of_plain(term(&text)).expect("well formed");
        self.event(Event::Received(message))
    }

    /// In the text, `#T` stands for the tag of the session on this side.
    fn cast(&mut self, text: &str) -> &mut Self {
        let text = text.replace("#T", &self.my_tag.to_string());
        let message = Message::of_cast(term(&text)).expect("well formed");
        self.event(Event::Received(message.expect("of this protocol")))
    }

    fn after(&mut self, millis: u64) -> &mut Self {
        self.now += millis;
        self.event(Event::Woke)
    }

    fn ask(&mut self, from: &str, request: &str) -> Term {
        let request = Request::of_term(term(request)).expect("well formed");
        let (ticket, from) = (Ticket(9), pid(from));
        self.event(Event::Asked {
            ticket,
            from,
            request,
        });
        let reply = self.actions.iter().find_map(|action| match action {
            Action::Reply { reply, .. } => Some(reply.clone()),
            _ => None,
        });
        reply.expect("an answer at once")
    }

    /// The messages sent to a node, without the wrapping of casts.
    fn sent(&self, to: &str) -> Vec<Term> {
        let sent = self.actions.iter().filter_map(|action| match action {
            Action::Cast { node, message, .. } if *node == *to => Some(match message.as_tuple() {
                Some([tag, message]) if tag.is_atom("$gen_cast") => message.clone(),
                _ => message.clone(),
            }),
            _ => None,
        });
        sent.collect()
    }

    #[track_caller]
    fn expect_sent(&mut self, to: &str, messages: &[&str]) -> &mut Self {
        let tag = self.my_tag.to_string();
        let expected: Vec<Term> = messages
            .iter()
            .map(|text| term(&text.replace("#T", &tag)))
            .collect();
        assert_eq!(self.sent(to), expected);
        self
    }

    /// The calls that wait, and their requests.
    fn calls(&self) -> Vec<(CallId, Actor, String)> {
        let calls = self.actions.iter().filter_map(|action| match action {
            Action::Call {
                call,
                from,
                node,
                request,
                ..
            } => Some((*call, *from, format!("{node} {}", request.to_term()))),
            _ => None,
        });
        calls.collect()
    }

    /// Answers the one call that was made.
    #[track_caller]
    fn answer(&mut self, request: &str, answer: Option<&str>) -> &mut Self {
        let calls = self.calls();
        let [(call, from, made)] = calls.as_slice() else {
            panic!("expected a call of {request}, got {calls:?}")
        };
        assert_eq!(made, request);
        self.event(Event::Answered {
            from: *from,
            call: *call,
            answer: answer.map(term),
        })
    }

    /// Both hellos.
    fn greeted(&mut self) -> &mut Self {
        self.event(Event::NodeUp(b()));
        self.note_tag();
        self.cast(&hello_of_b(-5))
    }

    /// How many hellos the last event made it send.
    fn hellos(&self) -> usize {
        let sent = self.sent("b@h");
        let hellos = sent.iter().filter_map(|message| message.as_tuple());
        hellos
            .filter(|message| message[0].is_atom("init_connect"))
            .count()
    }

    fn note_tag(&mut self) {
        for hello in self.sent("b@h") {
            if let Some([kind, version, ..]) = hello.as_tuple()
                && kind.is_atom("init_connect")
            {
                let tag = &version.as_tuple().expect("a version")[1];
                self.my_tag = tag.as_integer().expect("a tag");
            }
        }
    }

    /// The lock is held on this side and they know it.
    fn asking(&mut self) -> &mut Self {
        let lock = format!("b@h {{set_lock,{{global,[{LOCKER_A},{LOCKER_B}]}}}}");
        self.greeted().after(200).answer(&lock, Some("true"))
    }

    fn del_lock() -> String {
        format!("b@h {{del_lock,{{global,[{LOCKER_A},{LOCKER_B}]}}}}")
    }

    /// One cluster of two.
    fn joined(&mut self) -> &mut Self {
        self.asking()
            .cast(&format!("{{lock_set,{LOCKER_B},true,[],#T}}"));
        self.cast("{exchange,b@h,[],[],#T}");
        self.cast("{resolved,b@h,[],[],unused,[],#T}");
        self.answer(&Self::del_lock(), Some("true"));
        assert!(self.machine.locks.is_empty() && self.machine.sessions.is_empty());
        self
    }

    fn known(&self) -> Vec<String> {
        self.machine.known.keys().map(Atom::to_string).collect()
    }

    fn lost_reports(&self, to: &str) -> usize {
        let sent = self.sent(to);
        let report = |term: &&Term| {
            term.as_tuple()
                .is_some_and(|t| t[0].is_atom("lost_connection"))
        };
        sent.iter().filter(report).count()
    }

    fn disconnects(&self) -> bool {
        self.actions.contains(&Action::Disconnect { node: b() })
    }
}

/// The trace of two nodes of OTP 25.2.3 that meet, with a name on both sides. This side begins.
#[test]
fn two_nodes_meet() {
    let mut script = Script::new();
    let ours = name("ours", "#Pid<a@h,9,0,1>");
    let change = Change::Register(ours);
    let ticket = Ticket(1);
    script.event(Event::Change { ticket, change });
    assert!(script.actions.contains(&Action::Changed {
        ticket,
        outcome: Outcome::Done
    }));

    script.event(Event::NodeUp(b())).note_tag();
    let hello =
        format!("{{init_connect,{{8,#T}},a@h,{{locker,no_longer_a_pid,#{{}},{LOCKER_A}}}}}");
    script.expect_sent("b@h", &[&hello]);
    script
        .cast(&format!(
            "{{init_connect,{{8,-5}},b@h,{{locker,no_longer_a_pid,#{{}},{LOCKER_B}}}}}"
        ))
        .expect_sent("b@h", &["{init_connect_ack,a@h,-5,#T}"])
        .plain("{init_connect_ack,b@h,#T,-5}")
        .expect_sent("b@h", &[]);

    script.after(199).expect_sent("b@h", &[]);
    assert!(script.calls().is_empty());
    let lock = format!("{{global,[{LOCKER_A},{LOCKER_B}]}}");
    script
        .after(1)
        .answer(&format!("b@h {{set_lock,{lock}}}"), Some("true"))
        .expect_sent("b@h", &[&format!("{{lock_set,{LOCKER_A},true,[],-5}}")])
        .cast(&format!("{{lock_set,{LOCKER_B},true,[],#T}}"))
        .expect_sent(
            "b@h",
            &["{exchange,a@h,[{ours,#Pid<a@h,9,0,1>,fun global:random_exit_name/3}],[],-5}"],
        )
        .cast("{exchange,b@h,[{theirs,#Pid<b@h,9,0,1>,fun m:f/3}],[],#T}")
        .expect_sent("b@h", &["{resolved,a@h,[],[],unused,[],-5}"])
        .cast("{resolved,b@h,[],[],unused,[],#T}");
    assert_eq!(script.known(), ["b@h"]);
    let watched = script.actions.iter().any(
        |action| matches!(action, Action::Watch { pid: p, .. } if *p == pid("#Pid<b@h,9,0,1>")),
    );
    assert!(watched, "{:?}", script.actions);
    script.answer(&format!("b@h {{del_lock,{lock}}}"), Some("true"));
    assert!(script.machine.locks.is_empty());
    assert_eq!(script.machine.names.all().len(), 2);
    assert_eq!(script.ask(REGISTRAR_B, "get_synced"), term("[b@h]"));
}

/// The node of the partition that did not take part learns of the new one while the lock is held.
#[test]
fn a_third_node_learns_of_a_new_one() {
    let mut script = Script::new();
    script.joined();
    let lock = "{global,[#Pid<b@h,64,0,1>,#Pid<c@h,64,0,1>]}";
    assert_eq!(
        script.ask(LOCKER_B, &format!("{{set_lock,{lock}}}")),
        term("true")
    );
    script.cast(&format!(
        "{{new_nodes,b@h,[{{insert,{{new,#Pid<c@h,9,0,1>,fun m:f/3}}}}],[],[{{c@h,8}}],[{{vsn,8}},{{lock,{lock}}}]}}"
    ));
    let node = Atom::of("c@h");
    assert!(
        script
            .actions
            .contains(&Action::Connect { node: node.clone() })
    );
    assert_eq!(script.known(), ["b@h", "c@h"]);
    assert!(script.machine.names.pid(&Term::atom("new")).is_some());
    script
        .event(Event::Connected { node, up: true })
        .expect_sent("c@h", &["{in_sync,a@h,true}"]);
    script
        .event(Event::NodeUp(Atom::of("c@h")))
        .expect_sent("c@h", &[]);
    script.cast("{in_sync,c@h,true}");
    assert_eq!(script.ask(LOCKER_B, "get_synced"), term("[b@h,c@h]"));
}

#[test]
fn a_node_that_cannot_be_reached_is_lost() {
    let mut script = Script::new();
    script.joined();
    script.cast("{new_nodes,b@h,[],[],[{c@h,8}],[{vsn,8}]}");
    let failed = Event::Connected {
        node: Atom::of("c@h"),
        up: false,
    };
    let connect = Action::Connect {
        node: Atom::of("c@h"),
    };
    for _ in 1..DIALS_MAX {
        script.event(failed.clone());
        assert_eq!(script.known(), ["b@h", "c@h"]);
        assert!(script.actions.is_empty());
        script.after(1600);
        assert_eq!(script.actions, std::slice::from_ref(&connect));
    }
    script.event(failed);
    assert_eq!(script.known(), ["b@h"]);
    assert_eq!(script.lost_reports("b@h"), 1);
}

#[test]
fn a_node_that_connects_while_it_is_dialled_in_vain_is_told() {
    let mut script = Script::new();
    script.joined();
    script.cast("{new_nodes,b@h,[],[],[{c@h,8}],[{vsn,8}]}");
    let (node, up) = (Atom::of("c@h"), false);
    script.event(Event::Connected { node, up });
    script
        .event(Event::NodeUp(Atom::of("c@h")))
        .expect_sent("c@h", &["{in_sync,a@h,true}"]);
    script.after(60_000);
    assert_eq!(script.known(), ["b@h", "c@h"]);
}

/// `new_nodes` that come after the lock went with its owner say what others have undone.
#[test]
fn names_come_in_only_under_the_lock_that_they_were_agreed_under() {
    let insert = |lock: &str| {
        format!(
            "{{new_nodes,b@h,[{{insert,{{n,#Pid<b@h,9,0,1>,fun m:f/3}}}}],[],[],[{{vsn,8}},{{lock,{{global,{lock}}}}}]}}"
        )
    };
    let has_name = |script: &Script| script.machine.names.pid(&Term::atom("n")).is_some();

    let mut script = Script::new();
    script.cast(&insert("one"));
    assert!(has_name(&script), "no lock, and none was lost");

    let mut script = Script::new();
    script.ask(LOCKER_B, "{set_lock,{global,other}}");
    script.cast(&insert("one"));
    assert!(!has_name(&script), "another lock");
    script.cast(&insert("other"));
    assert!(has_name(&script), "the same lock");

    let mut script = Script::new();
    script.ask(LOCKER_B, "{set_lock,{global,one}}");
    let watch = script.actions.iter().find_map(|action| match action {
        Action::Watch { watch, .. } => Some(*watch),
        _ => None,
    });
    script.event(Event::Down(watch.expect("a lock is watched")));
    script.cast(&insert("one"));
    assert!(!has_name(&script), "the lock was lost");
}

#[test]
fn a_registration_counts_only_for_a_holder_of_the_lock() {
    let mut script = Script::new();
    let register = "{register,n,#Pid<b@h,9,0,1>,fun m:f/3}";
    script.ask(LOCKER_B, &format!("{{set_lock,{{global,{LOCKER_B}}}}}"));
    // A late message: whoever sent it has lost the lock since.
    assert_eq!(script.ask(REGISTRAR_B, register), term("yes"));
    assert_eq!(script.machine.names.pid(&Term::atom("n")), None);
    assert_eq!(script.ask(LOCKER_B, register), term("yes"));
    assert!(script.machine.names.pid(&Term::atom("n")).is_some());
    assert_eq!(script.ask(LOCKER_B, "{unregister,n}"), term("ok"));
    assert_eq!(script.machine.names.pid(&Term::atom("n")), None);
}

#[test]
fn a_lock_is_shared_by_those_with_the_same_requester_and_freed_by_the_last() {
    let mut script = Script::new();
    assert_eq!(script.ask(LOCKER_B, "{set_lock,{r,x}}"), term("true"));
    assert_eq!(script.ask(LOCKER_B, "{set_lock,{r,x}}"), term("true"));
    assert_eq!(script.ask(REGISTRAR_B, "{set_lock,{r,x}}"), term("true"));
    assert_eq!(script.ask(REGISTRAR_B, "{set_lock,{r,y}}"), term("false"));
    assert_eq!(script.ask(LOCKER_B, "{del_lock,{r,y}}"), term("true"));
    assert_eq!(script.ask(LOCKER_B, "{del_lock,{r,x}}"), term("true"));
    assert_eq!(script.ask(REGISTRAR_B, "{set_lock,{r,y}}"), term("false"));
    assert_eq!(script.ask(REGISTRAR_B, "{del_lock,{r,x}}"), term("true"));
    assert!(script.machine.locks.is_empty());
}

/// A locker that has no session says so to the other locker itself.
#[test]
fn a_locker_without_a_session_is_refused() {
    let mut script = Script::new();
    script.greeted();
    script.cast("{in_sync,b@h,true}");
    script.event(Event::LockerReceived(Message::LockSet {
        locker: pid(LOCKER_B),
        set: true,
        known: Vec::new(),
        tag: None,
    }));
    let message = term(&format!("{{lock_set,{LOCKER_A},false,[]}}"));
    assert_eq!(
        script.actions,
        [Action::Send {
            from: Actor::Locker,
            to: pid(LOCKER_B),
            message
        }]
    );
}

#[test]
fn a_refusal_to_the_locker_itself_frees_the_lock() {
    let mut script = Script::new();
    script.asking();
    assert!(!script.machine.locks.is_empty());
    script.event(Event::LockerReceived(Message::LockSet {
        locker: pid(LOCKER_B),
        set: false,
        known: Vec::new(),
        tag: None,
    }));
    script.answer(&Script::del_lock(), Some("true"));
    assert!(script.machine.locks.is_empty());
    // And it is tried again.
    let lock = format!("b@h {{set_lock,{{global,[{LOCKER_A},{LOCKER_B}]}}}}");
    script.after(200).answer(&lock, Some("true"));
    assert!(!script.machine.locks.is_empty());
}

#[test]
fn a_refused_lock_is_given_back_and_tried_again() {
    let mut script = Script::new();
    let lock = format!("b@h {{set_lock,{{global,[{LOCKER_A},{LOCKER_B}]}}}}");
    script.greeted().after(200).answer(&lock, Some("false"));
    assert!(
        script.machine.locks.is_empty(),
        "this node is the boss of one"
    );
    script.expect_sent("b@h", &[]);
    script.after(200).answer(&lock, None);
    // A node that is gone has nothing to object; its nodedown follows.
    script.event(Event::NodeDown(b()));
    assert!(script.machine.locks.is_empty());
}

#[test]
fn a_peer_that_begins_is_answered() {
    let mut script = Script::new();
    script
        .greeted()
        .cast(&format!("{{lock_set,{LOCKER_B},true,[],#T}}"))
        .expect_sent(
            "b@h",
            &[
                &format!("{{lock_set,{LOCKER_A},true,[],-5}}"),
                "{exchange,a@h,[],[],-5}",
            ],
        );
    // They give up: the lock goes.
    script.plain("{cancel_connect,b@h,#T}");
    assert!(script.machine.locks.is_empty());
    // And a new session begins.
    script.after(100);
    assert_eq!(script.hellos(), 1);
}

/// The session ends while the lock is being taken: the peer is not left waiting with its own.
#[test]
fn a_peer_whose_session_is_over_is_refused() {
    let lock = format!("b@h {{set_lock,{{global,[{LOCKER_A},{LOCKER_B}]}}}}");
    let mut script = Script::new();
    script.greeted().after(200);
    let calls = script.calls();
    assert_eq!(calls[0].2, lock);
    script.cast("{in_sync,b@h,true}");
    let (call, from) = (calls[0].0, Actor::Locker);
    let answer = Some(term("true"));
    script
        .event(Event::Answered { from, call, answer })
        .expect_sent("b@h", &[&format!("{{lock_set,{LOCKER_A},false,[],-5}}")]);
    script.answer(&Script::del_lock(), Some("true"));
    assert!(script.machine.locks.is_empty());
    assert!(!script.machine.locker.is_locking());
}

#[test]
fn messages_of_earlier_sessions_are_ignored() {
    let mut script = Script::new();
    script.greeted();
    for text in [
        "{exchange,b@h,[],[],1}",
        "{resolved,b@h,[{insert,{n,#Pid<b@h,9,0,1>,fun m:f/3}}],[{c@h,8}],unused,[],1}",
        "{lock_set,#Pid<b@h,64,0,1>,true,[],1}",
    ] {
        script.cast(text).expect_sent("b@h", &[]);
    }
    script
        .plain("{cancel_connect,b@h,1}")
        .expect_sent("b@h", &[]);
    assert!(script.known().is_empty());
    assert!(script.machine.sessions.contains_key(&b()));
}

#[test]
fn a_second_hello_starts_both_sides_anew() {
    let mut script = Script::new();
    script.greeted();
    let before = script.my_tag;
    script.cast(&hello_of_b(-4));
    script.expect_sent("b@h", &["{cancel_connect,a@h,-4}"]);
    // They begin anew, too. What they say of the old session is not answered.
    script.cast(&hello_of_b(-3)).expect_sent("b@h", &[]);
    script.plain("{init_connect_ack,b@h,1,-3}");
    script.expect_sent("b@h", &[]);
    script.plain(&format!("{{cancel_connect,b@h,{before}}}"));
    script.expect_sent("b@h", &[]);
    script.after(100);
    script.note_tag();
    assert_ne!(script.my_tag, before);
    let hello =
        format!("{{init_connect,{{8,#T}},a@h,{{locker,no_longer_a_pid,#{{}},{LOCKER_A}}}}}");
    script.expect_sent("b@h", &[&hello, "{init_connect_ack,a@h,-3,#T}"]);
}

/// Two nodes that cancel each other's sessions and begin anew at once, as OTP does, went on with that for ever: thousands
/// of hellos in a second, and none of them agreed on.
#[test]
fn nodes_that_cancel_each_other_do_not_go_on_with_it() {
    let mut script = Script::new();
    script.greeted();
    let mut hellos = 0;
    for tag in 0..100 {
        script.cast(&hello_of_b(tag));
        hellos += script.hellos();
        script.plain(&format!("{{cancel_connect,b@h,{}}}", script.my_tag));
        hellos += script.hellos();
        script.after(1);
        hellos += script.hellos();
        script.note_tag();
    }
    assert!(hellos <= 2, "{hellos} hellos within 100 ms");
}

#[test]
fn a_node_that_goes_while_a_session_is_to_begin_anew_is_not_greeted() {
    let mut script = Script::new();
    script.greeted();
    script.cast(&hello_of_b(-4));
    script.event(Event::NodeDown(b()));
    script.after(1000).expect_sent("b@h", &[]);
    assert!(script.machine.restarts.is_empty());
}

#[test]
fn an_acknowledgement_of_another_session_starts_anew() {
    let mut script = Script::new();
    script.greeted();
    script
        .plain("{init_connect_ack,b@h,1,-5}")
        .expect_sent("b@h", &["{cancel_connect,a@h,-5}"]);
    script.after(100);
    assert_eq!(script.hellos(), 1);
}

#[test]
fn strangers_are_not_remembered() {
    let mut script = Script::new();
    script.cast("{init_connect,{8,1},x@h,{locker,no_longer_a_pid,#{},#Pid<x@h,64,0,1>}}");
    assert!(script.machine.early.is_empty());
}

#[test]
fn without_connect_all_nobody_is_greeted() {
    let mut script = Script::with(|settings| settings.connect_all = false);
    script.greeted().after(10_000).expect_sent("b@h", &[]);
    assert!(script.machine.sessions.is_empty());
    script.event(Event::NodeDown(b())).expect_sent("b@h", &[]);
    assert!(script.machine.early.is_empty());
}

#[test]
fn a_peer_that_does_not_go_on_is_disconnected() {
    let mut script = Script::new();
    script.asking();
    script.after(59_999);
    assert!(!script.disconnects());
    script.after(1);
    assert!(script.disconnects());
    script.after(60_000);
    assert!(!script.disconnects(), "once");
    script.event(Event::NodeDown(b()));
    assert!(script.machine.locks.is_empty());

    // The same once both have the lock.
    let mut script = Script::new();
    script
        .greeted()
        .cast(&format!("{{lock_set,{LOCKER_B},true,[],#T}}"))
        .after(60_000);
    assert!(script.disconnects());
}

#[test]
fn conflicts_are_decided_by_the_smaller_node() {
    let ours = name("n", "#Pid<a@h,9,0,1>");
    let theirs = name("n", "#Pid<b@h,9,0,1>");
    let conflict = || Conflict {
        theirs: theirs.clone(),
        ours: ours.clone(),
    };
    let entry = |process: &str| format!("{{insert,{{n,{process},fun global:random_exit_name/3}}}}");
    let cases = [
        (
            Verdict::Answered(Term::from(&ours.pid)),
            entry("#Pid<a@h,9,0,1>"),
            Some(&ours.pid),
        ),
        (
            Verdict::Answered(Term::from(&theirs.pid)),
            String::new(),
            Some(&theirs.pid),
        ),
        (
            Verdict::Answered(Term::atom("none")),
            "{delete,n}".to_owned(),
            None,
        ),
        (
            Verdict::Answered(term("{'EXIT',undef}")),
            "{delete,n}".to_owned(),
            None,
        ),
        (Verdict::Failed, String::new(), Some(&theirs.pid)),
    ];
    for (verdict, told, left) in cases {
        let mut script = Script::new();
        let change = Change::Register(ours.clone());
        let ticket = Ticket(1);
        script.event(Event::Change { ticket, change });
        script
            .asking()
            .cast(&format!("{{lock_set,{LOCKER_B},true,[],#T}}"))
            .cast("{exchange,b@h,[{n,#Pid<b@h,9,0,1>,fun global:random_exit_name/3}],[],#T}");
        let resolve = Action::Resolve {
            node: b(),
            my_tag: script.my_tag,
            conflicts: vec![conflict()],
        };
        assert_eq!(script.actions, [resolve]);
        // Theirs may be there first.
        script
            .cast("{resolved,b@h,[],[],unused,[],#T}")
            .expect_sent("b@h", &[]);
        script.event(Event::Resolved {
            node: b(),
            my_tag: script.my_tag,
            verdicts: vec![verdict],
        });
        let sent = script.sent("b@h");
        assert_eq!(
            sent[0],
            term(&format!("{{resolved,a@h,[{told}],[],unused,[],-5}}"))
        );
        assert_eq!(script.machine.names.pid(&Term::atom("n")), left);
    }
}

#[test]
fn the_greater_node_leaves_the_decision_to_the_other() {
    let mut script = Script::with(|settings| {
        settings.node = Atom::of("c@h");
        settings.locker = pid("#Pid<c@h,2,0,1>");
    });
    let ours = name("n", "#Pid<c@h,9,0,1>");
    let change = Change::Register(ours.clone());
    let ticket = Ticket(1);
    script.event(Event::Change { ticket, change });
    script
        .greeted()
        .cast(&format!("{{lock_set,{LOCKER_B},true,[],#T}}"))
        .cast("{exchange,b@h,[{n,#Pid<b@h,9,0,1>,fun m:f/3}],[],#T}")
        .expect_sent("b@h", &["{resolved,c@h,[],[],unused,[],-5}"]);
    script.cast("{resolved,b@h,[{insert,{n,#Pid<b@h,9,0,1>,fun m:f/3}}],[],unused,[],#T}");
    assert_eq!(
        script.machine.names.pid(&Term::atom("n")),
        Some(&pid("#Pid<b@h,9,0,1>"))
    );
}

#[test]
fn a_change_waits_for_the_lock_and_takes_its_turn() {
    let mut script = Script::new();
    script.joined();
    script.ask(LOCKER_B, "{set_lock,{global,x}}");
    let change = Change::Register(name("n", "#Pid<a@h,9,0,1>"));
    let ticket = Ticket(4);
    script.event(Event::Change { ticket, change });
    let lock = "{global,#Pid<a@h,3,0,1>}";
    // The greatest node grants it; this one does not.
    let boss = format!("b@h {{set_lock,{lock}}}");
    script.answer(&boss, Some("true"));
    script.answer(&format!("b@h {{del_lock,{lock}}}"), Some("true"));
    assert!(script.calls().is_empty());
    script.ask(LOCKER_B, "{del_lock,{global,x}}");
    script.after(126).answer(&boss, Some("true"));
    script.answer(&boss, Some("true"));
    let register = "b@h {register,n,#Pid<a@h,9,0,1>,fun global:random_exit_name/3}";
    script.answer(register, Some("yes"));
    script.answer(&format!("b@h {{del_lock,{lock}}}"), Some("true"));
    let outcome = Outcome::Done;
    assert!(
        script
            .actions
            .contains(&Action::Changed { ticket, outcome })
    );
    assert!(script.machine.locks.is_empty());
}

#[test]
fn a_lost_connection_is_reported_once_and_removes_the_lost() {
    let mut script = Script::new();
    script.joined();
    script.cast("{new_nodes,b@h,[],[],[{c@h,8},{d@h,6}],[{vsn,8}]}");
    for node in ["c@h", "d@h"] {
        script.event(Event::NodeUp(Atom::of(node)));
    }
    script.plain("{lost_connection,b@h,5,1,c@h}");
    script.expect_sent(
        "c@h",
        &["{lost_connection,b@h,5,1,c@h}", "{remove_connection,a@h}"],
    );
    // It is of a version that does not know of this.
    script.expect_sent("d@h", &[]);
    assert_eq!(script.known(), ["b@h", "d@h"]);
    for again in [1, 0] {
        script.plain(&format!("{{lost_connection,b@h,5,{again},c@h}}"));
        assert!(script.actions.is_empty());
    }
    // What was asked for is no news.
    script.event(Event::NodeDown(Atom::of("c@h")));
    assert_eq!(script.lost_reports("b@h"), 0);
    // Another one is; old nodes are disconnected by hand.
    script.plain("{lost_connection,b@h,5,2,d@h}");
    assert!(script.actions.contains(&Action::Disconnect {
        node: Atom::of("d@h")
    }));
    // A later incarnation counts anew.
    script.plain("{lost_connection,b@h,6,1,a@h}");
    assert!(
        script.known().is_empty(),
        "the reporter, as this node is the lost one"
    );
}

#[test]
fn a_removed_node_closes_the_connection_and_says_nothing() {
    let mut script = Script::new();
    script.joined().plain("{remove_connection,b@h}");
    assert!(script.disconnects());
    assert!(script.known().is_empty());
    script.event(Event::NodeDown(b()));
    assert!(script.actions.is_empty());
    // The next time it is news again.
    script.joined();
    script.cast("{new_nodes,b@h,[],[],[{c@h,8}],[{vsn,8}]}");
    script.event(Event::NodeUp(Atom::of("c@h")));
    script.event(Event::NodeDown(b()));
    assert_eq!(script.lost_reports("c@h"), 1);
}

#[test]
fn two_nodes_that_remove_each_other_do_not_wait_for_each_other() {
    let mut script = Script::new();
    script.joined().plain("{lost_connection,c@h,5,1,b@h}");
    script.expect_sent(
        "b@h",
        &["{lost_connection,c@h,5,1,b@h}", "{remove_connection,a@h}"],
    );
    script.plain("{remove_connection,b@h}");
    assert!(script.disconnects());
}

#[test]
fn a_node_that_stops_or_lets_partitions_overlap_reports_nothing() {
    let mut stopping = Script::new();
    stopping.joined();
    stopping.cast("{new_nodes,b@h,[],[],[{c@h,8}],[{vsn,8}]}");
    stopping.event(Event::NodeUp(Atom::of("c@h")));
    stopping.event(Event::Stopping);
    let mut lenient = Script::with(|settings| settings.prevent_overlapping_partitions = false);
    lenient.joined();
    lenient.cast("{new_nodes,b@h,[],[],[{c@h,8}],[{vsn,8}]}");
    lenient.event(Event::NodeUp(Atom::of("c@h")));
    for mut script in [stopping, lenient] {
        script.plain("{lost_connection,b@h,5,1,c@h}");
        assert!(script.actions.is_empty());
        script.event(Event::NodeDown(b()));
        assert_eq!(script.lost_reports("c@h"), 0);
        assert_eq!(script.known(), ["c@h"]);
    }
}

#[test]
fn a_node_that_is_alone_looks_for_its_cluster() {
    let mut script = Script::with(|settings| settings.rejoin = true);
    script.joined().event(Event::NodeDown(b()));
    let connect = Action::Connect { node: b() };
    script.after(499);
    assert!(script.actions.is_empty());
    script.after(501);
    assert_eq!(script.actions, std::slice::from_ref(&connect));
    script.after(30_000);
    assert_eq!(script.actions, [connect]);
    // Found.
    script.joined().after(60_000);
    assert!(script.actions.is_empty());
    // Not for ever.
    script.event(Event::NodeDown(b()));
    script.after(3_600_000).after(60_000);
    assert!(script.actions.is_empty());
    assert_eq!(script.machine.deadline(), None);
}

#[test]
fn sync_waits_for_all_that_are_connected() {
    let mut script = Script::new();
    script.greeted();
    let ticket = Ticket(3);
    let nodes = vec![b(), Atom::of("x@h"), Atom::of("a@h")];
    let ask = Event::Asked {
        ticket,
        from: pid(LOCKER_B),
        request: Request::Sync(nodes),
    };
    let done = Action::Reply {
        ticket,
        reply: Term::atom("ok"),
    };
    script.event(ask.clone());
    assert!(!script.actions.contains(&done));
    script.cast("{in_sync,b@h,true}");
    assert!(script.actions.contains(&done));
    script.event(ask.clone());
    assert!(script.actions.contains(&done), "at once");
    // Who goes away is not waited for.
    script.event(Event::NodeDown(b()));
    script.event(Event::NodeUp(b())).event(ask);
    assert!(!script.actions.contains(&done));
    script.event(Event::NodeDown(b()));
    assert!(script.actions.contains(&done));
}

#[test]
fn names_of_other_kinds_of_nodes_are_passed_on() {
    let mut script = Script::new();
    let external = "{register_ext,n,#Pid<c@h,9,0,1>,fun m:f/3,b@h}";
    assert_eq!(script.ask(LOCKER_B, external), term("yes"));
    let names = script.ask(LOCKER_B, "get_names_ext");
    assert_eq!(names, term("[{n,#Pid<c@h,9,0,1>,b@h}]"));
    script.ask(LOCKER_B, "{unregister,n}");
    assert_eq!(script.ask(LOCKER_B, "get_names_ext"), term("[]"));
    let resolved = Op::Insert(NameEntry {
        method: term("fun m:f/3"),
        ..name("n", "#Pid<c@h,9,0,1>")
    });
    script.machine.carry_out(
        &[resolved],
        &[super::super::messages::ExternalName {
            name: Term::atom("n"),
            pid: pid("#Pid<c@h,9,0,1>"),
            node: b(),
        }],
        None,
    );
    assert_eq!(script.ask(LOCKER_B, "get_names_ext"), names);
}
