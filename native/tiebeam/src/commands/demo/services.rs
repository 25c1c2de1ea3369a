//! What the demo's Rust node does for others: a server, a function, and a process that fails.

use serde::{Deserialize, Serialize};
use tiebeam_node::{
    Answer, Exception, GenServer, Node, Process, ReplyTo, Signal, SpawnError, Term,
};

/// Starts them all.
pub(super) async fn start(node: &Node) -> Result<(), SpawnError> {
    node.start_server("counter", Counter(0)).await?;
    node.export("prices", "total", 1, |args| async move {
        let prices: Vec<i64> = args.decode()?;
        Ok(prices.iter().sum::<i64>())
    });
    node.export_process("sensor", "start", 0, |process, _args| async move {
        let node = process.node();
        let sensor = node.spawn_anonymous();
        let sensor = sensor.map_err(|error| Exception::error(error.to_string()))?;
        Ok(Term::from(node.run(sensor, measure)))
    });
    Ok(())
}

/// `GenServer.call({:counter, node}, {:add, 40})`
struct Counter(i64);

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Add(i64),
}

impl GenServer for Counter {
    type Call = Request;
    type Cast = Request;
    type Reply = i64;

    async fn handle_call(
        &mut self,
        Request::Add(number): Request,
        _from: &ReplyTo,
        _process: &Process,
    ) -> Answer<i64> {
        self.0 += number;
        Answer::Reply(self.0)
    }
}

/// A process that fails once somebody sends it a temperature.
async fn measure(mut process: Process) -> Result<(), Term> {
    while let Some(signal) = process.recv().await {
        if let Signal::Message(temperature) = signal {
            return Err(Term::tuple([Term::atom("too_hot"), temperature]));
        }
    }
    Ok(())
}
