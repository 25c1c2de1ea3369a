//! The client on erl_dist: the same measurements with its sender and receiver, which have neither processes nor
//! mailboxes.

use std::error::Error;
use std::time::{Duration, Instant};

use erl_dist::LOWEST_DISTRIBUTION_PROTOCOL_VERSION;
use erl_dist::epmd::EpmdClient;
use erl_dist::handshake::ClientSideHandshake;
use erl_dist::message::{Message, Receiver, Sender, channel};
use erl_dist::node::{Creation, LocalNode, NodeName};
use erl_dist::term::{Atom, Binary, FixInteger, List, Pid, Term, Tuple};
use smol::net::TcpStream;

/// The secret of the nodes of a run.
const COOKIE: &str = "bench";

struct Client {
    pid: Pid,
    sender: Sender<TcpStream>,
    receiver: Receiver<TcpStream>,
}

/// Measures against a server and prints what came out.
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, messages, pings] = &arguments[..] else {
        return Err("a client takes the server, the number of messages and of pings".into());
    };
    let (messages, pings) = (messages.parse()?, pings.parse()?);
    smol::block_on(async {
        let mut client = Client::connect(server.parse()?).await?;
        let sink = client.whereis("sink").await?;
        let echo = client.whereis("echo").await?;
        let blaster = client.whereis("blaster").await?;
        client.send(&sink, messages / 20).await?;
        let time = client.send(&sink, messages).await?;
        println!("send {:.1}", f64::from(messages) / time.as_secs_f64());
        client.receive(&blaster, messages / 20).await?;
        let time = client.receive(&blaster, messages).await?;
        println!("receive {:.1}", f64::from(messages) / time.as_secs_f64());
        client.ping(&echo, pings / 20).await?;
        let mut times = client.ping(&echo, pings).await?;
        times.sort();
        println!(
            "ping {:.3}",
            times[times.len() / 2].as_nanos() as f64 / 1000.0
        );
        Ok(())
    })
}

impl Client {
    async fn connect(server: NodeName) -> Result<Self, Box<dyn Error>> {
        let port: u16 = std::env::var("ERL_EPMD_PORT")?.parse()?;
        let epmd = TcpStream::connect(("127.0.0.1", port)).await?;
        let found = EpmdClient::new(epmd).get_node(server.name()).await?;
        let found = found.ok_or("the server is not registered")?;
        let stream = TcpStream::connect(("127.0.0.1", found.port)).await?;
        stream.set_nodelay(true)?;
        let local = LocalNode::new("erl_dist_client@127.0.0.1".parse()?, Creation::random());
        let mut handshake = ClientSideHandshake::new(stream, local.clone(), COOKIE);
        handshake
            .execute_send_name(LOWEST_DISTRIBUTION_PROTOCOL_VERSION)
            .await?;
        let (stream, peer) = handshake.execute_rest(true).await?;
        let (sender, receiver) = channel(stream, local.flags & peer.flags);
        Ok(Self {
            pid: Pid::new(local.name.to_string(), 1, 0, local.creation.get()),
            sender,
            receiver,
        })
    }

    /// The next message for us.
    async fn message(&mut self) -> Result<Term, Box<dyn Error>> {
        loop {
            match self.receiver.recv().await? {
                Message::Send(send) => return Ok(send.message),
                Message::Tick => {}
                other => return Err(format!("unexpected: {other:?}").into()),
            }
        }
    }

    /// Asks `rex`: `{From, {call, Module, Function, Arguments, GroupLeader}}`.
    async fn whereis(&mut self, name: &str) -> Result<Pid, Box<dyn Error>> {
        let call = tuple([
            Atom::from("call").into(),
            Atom::from("erlang").into(),
            Atom::from("whereis").into(),
            List::from(vec![Atom::from(name).into()]).into(),
            Atom::from("user").into(),
        ]);
        let request = tuple([self.pid.clone().into(), call]);
        let rex = Message::reg_send(self.pid.clone(), Atom::from("rex"), request);
        self.sender.send(rex).await?;
        match self.message().await? {
            Term::Tuple(Tuple { elements }) => match elements.into_iter().nth(1) {
                Some(Term::Pid(pid)) => Ok(pid),
                other => Err(format!("{name} is {other:?}").into()),
            },
            other => Err(format!("rex said {other:?}").into()),
        }
    }

    async fn order(&mut self, to: &Pid, name: &str, number: i32) -> Result<(), Box<dyn Error>> {
        let order = tuple([
            Atom::from(name).into(),
            self.pid.clone().into(),
            FixInteger::from(number).into(),
        ]);
        Ok(self.sender.send(Message::send(to.clone(), order)).await?)
    }

    async fn send(&mut self, sink: &Pid, messages: i32) -> Result<Duration, Box<dyn Error>> {
        let start = Instant::now();
        self.order(sink, "count", messages).await?;
        for number in 0..messages {
            let message = tuple([
                Atom::from("msg").into(),
                FixInteger::from(number).into(),
                Binary::from(b"hello world".to_vec()).into(),
            ]);
            self.sender
                .send(Message::send(sink.clone(), message))
                .await?;
        }
        self.message().await?;
        Ok(start.elapsed())
    }

    async fn receive(&mut self, blaster: &Pid, messages: i32) -> Result<Duration, Box<dyn Error>> {
        let start = Instant::now();
        self.order(blaster, "blast", messages).await?;
        for _ in 0..messages {
            self.message().await?;
        }
        Ok(start.elapsed())
    }

    async fn ping(&mut self, echo: &Pid, pings: i32) -> Result<Vec<Duration>, Box<dyn Error>> {
        let mut times = Vec::new();
        for number in 0..pings {
            let start = Instant::now();
            self.order(echo, "ping", number).await?;
            self.message().await?;
            times.push(start.elapsed());
        }
        Ok(times)
    }
}

fn tuple<const N: usize>(elements: [Term; N]) -> Term {
    Tuple::from(Vec::from(elements)).into()
}
