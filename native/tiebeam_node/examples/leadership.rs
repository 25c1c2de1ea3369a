//! A Rust node whose leadership is measured: `bin/bench leadership` starts three of these, or BEAM nodes among them.
//!
//! Arguments: its name, the cookie, the voters with commas between them, and the directory of its disk, or `memory`. It prints
//! `ready` and runs until its standard input ends. What the measuring node asks of the process `bench` is in
//! `bin/bench.d/leadership/subject.erl`; BEAM nodes answer the same.

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tiebeam_node::{
    Atom, Call, ClusterConfig, ClusterHandle, Config, Cookie, LeadershipError, Node, Pid, Signal,
    Singleton, Term,
};

type Failure = Box<dyn Error + Send + Sync>;

/// As in `subject.erl`.
const SESSION: Duration = Duration::from_secs(1);
const COOLDOWN: Duration = Duration::from_millis(100);
const STEP_DOWN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, cookie, voters, disk] = arguments.as_slice() else {
        return Err("arguments: NAME COOKIE VOTER,VOTER,VOTER DIRECTORY|memory".into());
    };
    let config = Config::new(name, Cookie::new(cookie)).listen(Ipv4Addr::LOCALHOST.into());
    let node = Node::start(config).await?;
    let voters = || voters.split(',');
    let mut settings = ClusterConfig::lan()
        .voters(voters())
        .join(voters())
        .session(SESSION);
    if disk != "memory" {
        settings = settings.data_dir(disk);
    }
    let subject = Subject {
        cluster: node.cluster(settings).await?,
        node: node.clone(),
    };
    let mut bench = node.spawn("bench")?;
    println!("ready");

    // Whoever started it is gone.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    while let Some(signal) = bench.recv().await {
        // One that waits does not hold up the others.
        if let Signal::Call(call) = signal {
            tokio::spawn(subject.clone().answer(call));
        }
    }
    Ok(())
}

#[derive(Clone)]
struct Subject {
    node: Node,
    cluster: ClusterHandle,
}

impl Subject {
    async fn answer(self, call: Call) {
        let reply = match self.done(call.request()).await {
            Ok(reply) => reply,
            Err(error) => Term::tuple([Term::atom("error"), Term::from(error.to_string())]),
        };
        // Whoever asked may have given up.
        let _ = call.reply_term(reply);
    }

    async fn done(&self, request: &Term) -> Result<Term, Failure> {
        let (tag, arguments) = match request {
            Term::Tuple(elements) => elements.split_first().ok_or("no request")?,
            tag => (tag, &[][..]),
        };
        let tag = tag.as_atom().ok_or("no request")?;
        match (tag.as_str(), arguments) {
            ("leader", []) => {
                let current = self.cluster.leader().current();
                return Ok(node_term(current.as_ref().map(|(node, _)| node.as_str())));
            }
            ("active", []) => {
                let active = self.singleton().active();
                return Ok(node_term(active.as_ref().map(|on| on.pid.node.as_str())));
            }
            ("write", []) => drop(self.write("key").await?),
            ("lead", [to]) => {
                let to = to.as_atom().map(|to| to.as_str());
                self.cluster.leader().step_down(to).await?;
            }
            ("stand_by", [Term::Pid(watcher)]) => self.stand_by(watcher)?,
            ("step_down", []) => {
                if !self.singleton().step_down(STEP_DOWN).await? {
                    return Err("nobody is active".into());
                }
            }
            ("writes", [clients, milliseconds]) => {
                let number = |term: &Term| term.as_integer().and_then(|n| u64::try_from(n).ok());
                let clients = number(clients).ok_or("how many clients?")?;
                let milliseconds = number(milliseconds).ok_or("for how long?")?;
                return self.writes(clients, milliseconds).await;
            }
            _ => return Err(format!("an unknown request: {request}").into()),
        }
        Ok(Term::atom("ok"))
    }

    async fn write(&self, key: &str) -> Result<u64, LeadershipError> {
        self.cluster.kv().put(key, "sixteen letters!").await
    }

    fn singleton(&self) -> Singleton {
        self.cluster.singleton("bench").cooldown(COOLDOWN)
    }

    /// Tells a process whenever this node becomes active, and when that was.
    fn stand_by(&self, watcher: &Pid) -> Result<(), LeadershipError> {
        let (node, watcher) = (self.node.clone(), watcher.clone());
        let on_active = move |_token| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let micros = now.map_or(0, |since| since.as_micros() as u64);
            let message = [
                Term::atom("active"),
                node_term(Some(node.name().as_str())),
                Term::from(micros),
            ];
            let told = node.send(&watcher, Term::tuple(message));
            async move { told.map_err(|error| Term::from(error.to_string())) }
        };
        self.singleton().start(on_active, |_reason| async {})?;
        Ok(())
    }

    /// Clients of this node that write without a pause: how many microseconds each acknowledged write took.
    async fn writes(&self, clients: u64, milliseconds: u64) -> Result<Term, Failure> {
        let until = Instant::now() + Duration::from_millis(milliseconds);
        let client = |number| {
            let subject = self.clone();
            tokio::spawn(async move {
                let (key, mut times) = (format!("key {number}"), Vec::new());
                while Instant::now() < until {
                    let began = Instant::now();
                    // Until it is acknowledged; whoever measures gives up some time.
                    while subject.write(&key).await.is_err() {}
                    times.push(Term::from(began.elapsed().as_micros() as u64));
                }
                times
            })
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await?);
        }
        Ok(Term::list(times))
    }
}

fn node_term(node: Option<&str>) -> Term {
    let name = node.and_then(|node| Atom::new(node).ok());
    name.map_or_else(|| Term::atom("nil"), Term::from)
}
