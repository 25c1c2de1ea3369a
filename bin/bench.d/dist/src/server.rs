//! The server in Rust: a sink, an echo and a blaster, as in `dist_bench.erl`.

use tiebeam_node::{Node, Pid, Process, Signal, Term};
use tokio::io::AsyncReadExt;

use crate::client::message;

/// Runs until standard input ends.
pub async fn run(node: Node) -> Result<(), Box<dyn std::error::Error>> {
    node.run(node.spawn("sink")?, sink);
    node.run(node.spawn("echo")?, echo);
    node.run(node.spawn("blaster")?, blaster);
    println!("ready");
    let mut nothing = [0];
    while tokio::io::stdin().read(&mut nothing).await? > 0 {}
    node.stop().await;
    Ok(())
}

async fn sink(mut process: Process) -> Result<(), Term> {
    while let Some((from, messages)) = order(&mut process, "count").await {
        count(&mut process, messages).await;
        let _ = process.send(from, Term::atom("counted"));
    }
    Ok(())
}

/// Waits for so many `{msg, _, _}`.
pub async fn count(process: &mut Process, messages: i64) {
    let mut missing = messages;
    while missing > 0 {
        match process.recv().await {
            Some(Signal::Message(term)) if is(&term, "msg") => missing -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

fn is(term: &Term, name: &str) -> bool {
    matches!(term.as_tuple(), Some([tag, _, _]) if tag.is_atom(name))
}

async fn echo(mut process: Process) -> Result<(), Term> {
    while let Some((from, number)) = order(&mut process, "ping").await {
        let _ = process.send(from, Term::tuple([Term::atom("pong"), Term::from(number)]));
    }
    Ok(())
}

async fn blaster(mut process: Process) -> Result<(), Term> {
    while let Some((to, messages)) = order(&mut process, "blast").await {
        for number in 0..messages {
            let _ = process.send_paced(&to, message(number)).await;
        }
    }
    Ok(())
}

/// The next `{Name, Pid, Integer}`.
async fn order(process: &mut Process, name: &str) -> Option<(Pid, i64)> {
    loop {
        if let Signal::Message(Term::Tuple(elements)) = process.recv().await?
            && let [Term::Atom(tag), Term::Pid(pid), Term::Integer(integer)] = &elements[..]
            && *tag == name
        {
            return Some((pid.clone(), *integer));
        }
    }
}
