//! A Rust node to play with from `iex` or `erl`: a process that remembers, and tells what it remembers.

use std::net::Ipv4Addr;

use tiebeam_node::{Config, Cookie, Node, Process, Signal, Term};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("rust@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;

    node.run(node.spawn("memory")?, remember);

    println!("{} is up; Ctrl-C ends it", node.name());
    tokio::signal::ctrl_c().await?;
    node.stop().await;
    Ok(())
}

/// A process: it ends with this function, for the reason that it gives, or when it is killed.
async fn remember(mut memory: Process) -> Result<(), Term> {
    let mut remembered = Vec::new();
    while let Some(signal) = memory.recv().await {
        match signal {
            // send({:memory, node}, anything), or {memory, Node} ! Anything
            Signal::Message(message) => {
                println!("remembers {message}");
                remembered.push(message);
            }
            // GenServer.call({:memory, node}, anything)
            Signal::Call(call) => {
                if let Err(error) = call.reply_term(Term::List(remembered.clone())) {
                    eprintln!("no answer: {error}");
                }
            }
            _ => {}
        }
    }
    Ok(())
}
