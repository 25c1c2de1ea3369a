//! `tiebeam watch`: the cluster as one of its members sees it, from moment to moment.

mod event;
mod page;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tiebeam_node::{CallError, Process, Signal, Term};
use tokio::time::{Instant, interval};

use crate::arguments::{MemberArguments, WatchArguments, seconds};
use crate::commands::leader;
use crate::commands::node::ended;
use crate::failure::Failure;
use crate::member::{self, Member, PROCESS};
use crate::visitor::{self, Visitor};

use page::Page;

/// How often a page asks for the present state. Events only add a line, so that a storm of them costs no questions.
const REFRESH: Duration = Duration::from_millis(500);

pub(crate) async fn run(arguments: WatchArguments) -> Result<(), Failure> {
    let ended = ended()?;
    let MemberArguments {
        node,
        cookie,
        network,
        timeout,
    } = arguments.member;
    let visitor = Visitor::to(&node, &cookie, &network).await?;
    let process = visitor.node().spawn_anonymous()?;
    let watch = Watch {
        node,
        timeout: seconds(timeout),
        begin: Instant::now(),
        left: arguments.count,
        process,
    };
    let result = tokio::select! {
        result = watch.run() => result,
        _ = ended => Ok(()),
    };
    // Its end is the end of the subscription, too.
    visitor.leave().await;
    result
}

struct Watch {
    node: String,
    timeout: Duration,
    begin: Instant,
    /// How many more events to show, if not all.
    left: Option<u64>,
    /// Subscribes.
    process: Process,
}

impl Watch {
    async fn run(self) -> Result<(), Failure> {
        let subscribe = Term::tuple([Term::atom("subscribe"), Term::from(self.process.pid())]);
        match self.ask(subscribe).await? {
            Term::Atom(ok) if ok == "ok" => {}
            refusal => {
                return Err(Failure::new(format!(
                    "{} takes no subscription: {refusal}",
                    self.node
                )));
            }
        }
        // Its answer is a `Down`, also where the node is lost.
        self.process.monitor((PROCESS, self.node.as_str()));
        // After the subscription, so that nothing is missed.
        let members = self.members().await?;
        match std::io::stdout().is_terminal() {
            true => self.page(members).await,
            false => self.lines(members).await,
        }
    }

    async fn lines(mut self, members: Vec<Member>) -> Result<(), Failure> {
        for member in members {
            let Member {
                node, kind, status, ..
            } = member;
            self.line(&format!("{status} {node} ({kind})"))?;
        }
        if let Some((leader, term)) = self.leader().await? {
            self.line(&format!("leader {leader} (term {term})"))?;
        }
        while let Some(event) = self.event().await? {
            self.line(&event::describe(&event))?;
        }
        Ok(())
    }

    fn line(&self, line: &str) -> Result<(), Failure> {
        visitor::print(format_args!("{} {line}", stamp(self.begin.elapsed())))
    }

    async fn page(mut self, members: Vec<Member>) -> Result<(), Failure> {
        let mut page = Page::new(&self.node, members);
        let mut refresh = interval(REFRESH);
        loop {
            tokio::select! {
                event = self.event() => match event? {
                    Some(event) => page.event(self.begin.elapsed(), event::describe(&event)),
                    None => return Ok(()),
                },
                _ = refresh.tick() => self.refresh(&mut page).await?,
            }
            let mut stdout = std::io::stdout().lock();
            stdout
                .write_all(page.draw(self.begin.elapsed()).as_bytes())
                .and_then(|()| stdout.flush())?;
        }
    }

    async fn refresh(&self, page: &mut Page) -> Result<(), Failure> {
        let asked = Instant::now();
        let answers = async {
            let metrics = self.typed("metrics").await?;
            let health = self.typed("health").await?;
            let leader = self.leader().await?;
            Ok((self.members().await?, leader, health, metrics))
        };
        match answers.await {
            Ok((members, leader, health, metrics)) => {
                page.answers(asked, members, leader, health, metrics);
            }
            Err(Unanswered::Late) => page.unanswered(),
            Err(Unanswered::Failure(failure)) => return Err(failure),
        }
        Ok(())
    }

    /// The next event; `None` when there were enough.
    async fn event(&mut self) -> Result<Option<Term>, Failure> {
        if self.left == Some(0) {
            return Ok(None);
        }
        loop {
            match self.process.recv().await {
                Some(Signal::Message(Term::Tuple(mut message)))
                    if message.len() == 3 && message[0].is_atom("tiebeam") =>
                {
                    self.left = self.left.map(|left| left - 1);
                    return Ok(message.pop());
                }
                Some(Signal::Down { reason, .. }) => {
                    return Err(Failure::new(match reason {
                        reason if reason.is_atom("noconnection") => {
                            format!("the connection to {} is lost", self.node)
                        }
                        reason => format!("{} takes no further part: {reason}", self.node),
                    }));
                }
                Some(_) => {}
                None => return Err(Failure::new("this visitor was ended by another node")),
            }
        }
    }

    async fn members(&self) -> Result<Vec<Member>, Unanswered> {
        self.typed("members").await
    }

    /// Who leads, if the member knows of anybody.
    async fn leader(&self) -> Result<Option<(String, u64)>, Unanswered> {
        let reply = self.ask(Term::atom("leader")).await?;
        Ok(leader::read(&reply).flatten())
    }

    async fn typed<T: DeserializeOwned>(&self, request: &'static str) -> Result<T, Unanswered> {
        let reply = self.ask(Term::atom(request)).await?;
        tiebeam_node::from_term(&reply).map_err(|error| {
            Unanswered::Failure(Failure::new(format!(
                "{} answers {request} with what this release does not know ({error}); use the program of its release",
                self.node
            )))
        })
    }

    async fn ask(&self, request: Term) -> Result<Term, Unanswered> {
        let to = (PROCESS, self.node.as_str());
        let reply = self.process.node().call_term(to, request, self.timeout);
        reply.await.map_err(|error| match error {
            CallError::Timeout(_) => Unanswered::Late,
            error => Unanswered::Failure(member::failure(&self.node, error)),
        })
    }
}

/// Why there is no answer.
enum Unanswered {
    /// It did not come in time, and the member may be back soon.
    Late,
    Failure(Failure),
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Late => Self::new("the member does not answer: try another one"),
            Unanswered::Failure(failure) => failure,
        }
    }
}

/// The time since the watch began.
fn stamp(elapsed: Duration) -> String {
    format!("{:8.3}", elapsed.as_secs_f64())
}
