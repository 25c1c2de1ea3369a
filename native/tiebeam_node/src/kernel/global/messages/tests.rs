use super::*;

fn term(text: &str) -> Term {
    Term::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn cast_of(text: &str) -> Message {
    let message = Message::of_cast(term(text)).expect("well formed");
    message.expect("of this protocol")
}

/// What two nodes of OTP 25.2.3 wrote to each other, but for the names of the nodes.
const CASTS: &[&str] = &[
    "{init_connect,{8,-576460752303423455},a@h,{locker,no_longer_a_pid,#{},#Pid<a@h,64,0,1>}}",
    "{lock_set,#Pid<a@h,64,0,1>,true,[],-576460752303423449}",
    "{lock_set,#Pid<a@h,64,0,1>,false,[b@h,c@h],-576460752303423449}",
    "{exchange,a@h,[{bname,#Pid<a@h,85,0,1>,fun global:random_exit_name/3}],[],5}",
    "{resolved,a@h,[{delete,gone},{insert,{n,#Pid<b@h,9,0,1>,fun m:f/3}}],[{c@h,8}],unused,[],7}",
    "{new_nodes,a@h,[],[],[{c@h,8}],[{vsn,8},{lock,{global,[#Pid<a@h,64,0,1>,#Pid<c@h,64,0,1>]}}]}",
    "{in_sync,c@h,true}",
];

const PLAIN: &[&str] = &[
    "{init_connect_ack,a@h,-576460752303423455,-576460752303423449}",
    "{cancel_connect,a@h,3}",
    "{lost_connection,a@h,944455982971409149,-576460752303423452,b@h}",
    "{remove_connection,a@h}",
    "{lock_set,#Pid<a@h,64,0,1>,false,[]}",
];

#[test]
fn casts_are_read_and_written_as_otp_does() {
    for text in CASTS {
        let message = cast_of(text);
        let written = message.to_term(VERSION);
        assert_eq!(written, Term::tuple([Term::atom("$gen_cast"), term(text)]));
    }
}

#[test]
fn plain_messages_are_read_and_written_as_otp_does() {
    for text in PLAIN {
        let message = Message::of_plain(term(text)).expect("well formed");
        let written = match message {
            Message::LockSet { locker, known, .. } => Message::no_session(&locker, known),
            message => message.to_term(VERSION),
        };
        assert_eq!(written, term(text));
    }
}

#[test]
fn a_later_version_may_say_more_of_itself() {
    let message = cast_of("{init_connect,{9,5,more},a@h,{locker,x,y,#Pid<a@h,64,0,1>}}");
    assert!(matches!(message, Message::InitConnect { version: 9, .. }));
    let message = cast_of("{new_nodes,a@h,[],[],[],[{vsn,9},{more,1},more]}");
    assert!(matches!(
        message,
        Message::NewNodes(NewNodes {
            version: 9,
            requester: None,
            ..
        })
    ));
}

#[test]
fn nodes_before_version_7_know_no_versions() {
    let message = cast_of("{resolved,a@h,[],[c@h,{d@h,6}],unused,[],7}");
    let Message::Resolved { ref known, .. } = message else {
        panic!("{message:?}")
    };
    assert_eq!(*known, [(Atom::of("c@h"), 0), (Atom::of("d@h"), 6)]);
    let written = message.to_term(6);
    let expected = term("{resolved,a@h,[],[c@h,d@h],unused,[],7}");
    assert_eq!(written, Term::tuple([Term::atom("$gen_cast"), expected]));
}

#[test]
fn messages_of_the_past_mean_nothing() {
    for text in ["{async_del_name,n,#Pid<a@h,1,0,1>}", "{async_del_lock,r,p}"] {
        assert_eq!(Message::of_cast(term(text)), Ok(None));
    }
}

#[test]
fn what_is_not_quite_a_message_is_none() {
    let casts = [
        "nonsense",
        "{}",
        "{unknown,1}",
        "{init_connect,8,a@h,{locker,x,y,#Pid<a@h,64,0,1>}}",
        "{init_connect,{8},a@h,{locker,x,y,#Pid<a@h,64,0,1>}}",
        "{init_connect,{8,1},a@h,{locker,x,y,z}}",
        // Somebody else's locker.
        "{init_connect,{8,1},a@h,{locker,x,y,#Pid<b@h,64,0,1>}}",
        "{lock_set,#Pid<a@h,64,0,1>,yes,[],1}",
        "{lock_set,#Pid<a@h,64,0,1>,true}",
        "{exchange,a@h,[{name,pid,fun m:f/3}],[],1}",
        "{exchange,a@h,[{name,#Pid<a@h,1,0,1>,fun m:f/3}|x],[],1}",
        "{resolved,a@h,[{change,n}],[],unused,[],1}",
        "{resolved,a@h,[],[1],unused,[],1}",
        "{resolved,a@h,[],[],unused,[{n,p,a}],1}",
        "{new_nodes,a@h,[],[],[],[{lock,1}]}",
        "{in_sync,1,true}",
    ];
    for text in casts {
        assert!(Message::of_cast(term(text)).is_err(), "{text}");
    }
    let plain = [
        "known",
        "{lost_connection,a@h,1,one,b@h}",
        "{remove_connection,a@h,b@h}",
        "{init_connect_ack,1,2,3}",
    ];
    for text in plain {
        assert!(Message::of_plain(term(text)).is_err(), "{text}");
    }
}

#[test]
fn only_a_fun_of_three_arguments_goes_on_as_a_resolver() {
    for method in ["{m,f}", "fun m:f/2", "1"] {
        let text = format!("{{exchange,a@h,[{{n,#Pid<a@h,1,0,1>,{method}}}],[],1}}");
        let Message::Exchange { names, .. } = cast_of(&text) else {
            panic!("{text}")
        };
        assert_eq!(names[0].method, default_method());
    }
}

#[test]
fn requests_are_read_and_written_as_otp_does() {
    let requests = [
        "{set_lock,{global,[#Pid<a@h,64,0,1>,#Pid<b@h,64,0,1>]}}",
        "{del_lock,{{any,term},requester}}",
        "{register,{any,term},#Pid<a@h,64,0,1>,fun global:random_exit_name/3}",
        "{register_ext,n,#Pid<c@h,64,0,1>,fun global:random_exit_name/3,a@h}",
        "{unregister,n}",
        "get_known",
        "get_synced",
        "get_protocol_version",
        "get_names_ext",
        "{sync,[a@h,b@h]}",
    ];
    for text in requests {
        let request = Request::of_term(term(text)).expect("well formed");
        assert_eq!(request.to_term(), term(text));
    }
    let none = [
        "info",
        "{set_lock,r}",
        "{set_lock,{r}}",
        "{register,n,p,m}",
        "{registrar,f}",
        "{unregister}",
    ];
    for text in none {
        assert!(Request::of_term(term(text)).is_err(), "{text}");
    }
}
