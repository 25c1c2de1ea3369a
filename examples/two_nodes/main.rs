//! A Rust node to play with from `iex` or `erl`: a process that remembers, and tells what it remembers.

use std::net::Ipv4Addr;

use tiebeam_node::{Config, Cookie, Node, Signal, Term};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("rust@127.0.0.1", Cookie::new("example"));
    let node = Node::start(config.listen(Ipv4Addr::LOCALHOST.into())).await?;

    let mut memory = node.spawn("memory")?;
    let mut remembered = Vec::new();
    println!("{} is up; Ctrl-C ends it", node.name());
    loop {
        tokio::select! {
            signal = memory.recv() => match signal {
                // send({:memory, node}, anything), or {memory, Node} ! Anything
                Some(Signal::Message(message)) => {
                    println!("remembers {message}");
                    remembered.push(message);
                }
                // GenServer.call({:memory, node}, anything)
                Some(Signal::Call(call)) => call.reply_term(Term::List(remembered.clone()))?,
                Some(_) => {}
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    node.stop().await;
    Ok(())
}
