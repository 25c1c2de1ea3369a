//! Our SWIM and foca 2.0 side by side, under one network: `cargo run --release -p tiebeam_sim --example foca`.
//!
//! Both run with the settings that they recommend for one network of this size (`Timing::lan`, `Config::new_lan`), over
//! datagrams of the same delay and loss. Downs of members that run are counted; so are the identities that foca makes its
//! members renew, which costs a node as much as a restart.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use foca::{Config, Foca, Identity, Notification, PostcardCodec, Runtime, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tiebeam_core::{Duration, Instant, Random};
use tiebeam_sim::{Conditions, Fault, Lane, Plan, Told, World, node};

/// What one run shows.
#[derive(Debug, Default, Clone, Copy)]
struct Run {
    /// Until all views were full, in seconds; `None` if not within ten minutes.
    joined: Option<f64>,
    /// Downs of members that were running, and identities that were renewed.
    wrong: u64,
    renewed: u64,
    /// Messages and bytes, by second and node.
    messages: f64,
    bytes: f64,
    /// Until the first, and until all, knew that one had vanished.
    first: Option<f64>,
    all: Option<f64>,
}

/// Both join, run for `span` with nothing but loss, and then lose one member.
type Opponent = fn(seed: u64, count: usize, percent: u64, span: u64) -> Run;

fn main() {
    println!(
        "| setting | | all joined p50, max s | false downs (renewals) | messages, B /s/node | first knows p50 s | all know p50, max s |"
    );
    println!("|---|---|---|---|---|---|---|");
    let settings = [
        (50, 0, 120, 20),
        (50, 10, 120, 20),
        (200, 10, 60, 4),
        (64, 1, 3600, 3),
        (64, 5, 3600, 3),
        (64, 10, 3600, 3),
        (64, 20, 3600, 3),
    ];
    for (count, percent, span, runs) in settings {
        for (name, opponent) in [("tiebeam", tiebeam as Opponent), ("foca 2.0", foca)] {
            let runs = parallel(runs, |seed| opponent(seed, count, percent, span));
            let column = |pick: fn(&Run) -> Option<f64>| {
                let mut values: Vec<f64> = runs.iter().filter_map(pick).collect();
                values.sort_by(f64::total_cmp);
                let missing = runs.len() - values.len();
                let (p50, max) = (values.get(values.len() / 2), values.last());
                let never = if missing > 0 {
                    format!(" ({missing} never)")
                } else {
                    String::new()
                };
                (
                    p50.map_or("–".to_owned(), |one| format!("{one:.2}")),
                    max.map_or("–".to_owned(), |one| format!("{one:.2}{never}")),
                )
            };
            let (joined, first, all) = (
                column(|run| run.joined),
                column(|run| run.first),
                column(|run| run.all),
            );
            let wrong: u64 = runs.iter().map(|run| run.wrong).sum();
            let renewed: u64 = runs.iter().map(|run| run.renewed).sum();
            let mean =
                |pick: fn(&Run) -> f64| runs.iter().map(pick).sum::<f64>() / runs.len() as f64;
            println!(
                "| {count} nodes, {percent} % loss, {span} s × {} | {name} | {}, {} | {wrong} ({renewed}) | {:.1}, {:.0} | {} | {}, {} |",
                runs.len(),
                joined.0,
                joined.1,
                mean(|run| run.messages),
                mean(|run| run.bytes),
                first.0,
                all.0,
                all.1
            );
        }
    }
}

fn parallel(count: u64, work: impl Fn(u64) -> Run + Sync) -> Vec<Run> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(4, usize::from);
    std::thread::scope(|scope| {
        let run = || {
            let seeds = std::iter::from_fn(|| {
                Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < count)
            });
            seeds.map(&work).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no run panics"))
            .collect()
    })
}

fn seconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1e6
}

fn tiebeam(seed: u64, count: usize, percent: u64, span: u64) -> Run {
    let plan = Plan {
        conditions: Conditions {
            lane: Lane::Datagram,
            ..Conditions::lossy(percent)
        },
        ..Plan::measured(seed, count)
    };
    let mut world = World::new(plan);
    let unchecked = "nothing is checked";
    let joined = world
        .run_while(Duration::from_secs(600), |world| !world.all_see(count))
        .expect(unchecked);
    world.run_for(Duration::from_secs(20)).expect(unchecked);
    world.forget_records();
    world.run_for(Duration::from_secs(span)).expect(unchecked);
    let tally = world.tally();
    let node_seconds = (count as u64 * span) as f64;
    let since = world.now();
    world
        .apply(Fault::Vanish(node(count / 2)))
        .expect(unchecked);
    world.run_for(Duration::from_secs(120)).expect(unchecked);
    let mut known: Vec<Option<f64>> = vec![None; count];
    for one in world.records() {
        if one.of == count / 2
            && one.at > since
            && matches!(one.told, Told::Down | Told::Contested(_))
        {
            known[one.node].get_or_insert(seconds(one.at.since(since)));
        }
    }
    known.remove(count / 2);
    Run {
        joined: joined.map(seconds),
        wrong: tally.down_running + tally.contested_running,
        renewed: 0,
        messages: tally.sent as f64 / node_seconds,
        bytes: tally.sent_bytes as f64 / node_seconds,
        first: known.iter().flatten().copied().min_by(f64::total_cmp),
        all: known
            .into_iter()
            .collect::<Option<Vec<f64>>>()
            .and_then(|all| all.into_iter().max_by(f64::total_cmp)),
    }
}

/// A member as foca knows it: as much as our identity, and no more.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Peer {
    host: u16,
    name: String,
    creation: u32,
    renewals: u16,
}

impl Identity for Peer {
    type Addr = u16;

    fn renew(&self) -> Option<Self> {
        let renewals = self.renewals.wrapping_add(1);
        Some(Self {
            renewals,
            ..self.clone()
        })
    }

    fn addr(&self) -> u16 {
        self.host
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.renewals > adversary.renewals
    }
}

/// What foca wants done.
#[derive(Default)]
struct Wanted {
    sends: Vec<(usize, Vec<u8>)>,
    timers: Vec<(Timer<Peer>, u64)>,
    up: Vec<usize>,
    down: Vec<(usize, u16)>,
    renewed: u64,
}

impl Runtime<Peer> for &mut Wanted {
    fn notify(&mut self, notification: Notification<'_, Peer>) {
        match notification {
            Notification::MemberUp(peer) => self.up.push(usize::from(peer.host)),
            Notification::MemberDown(peer) => {
                self.down.push((usize::from(peer.host), peer.renewals))
            }
            Notification::Rejoin(_) => self.renewed += 1,
            _ => {}
        }
    }

    fn send_to(&mut self, to: Peer, data: &[u8]) {
        self.sends.push((usize::from(to.host), data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Peer>, after: std::time::Duration) {
        self.timers.push((event, after.as_micros() as u64));
    }
}

enum Due {
    Start,
    Data(Vec<u8>),
    Timer(Timer<Peer>),
}

/// Members of foca in virtual time.
struct Cluster {
    conditions: Conditions,
    random: Random,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    due: std::collections::HashMap<u64, Due>,
    number: u64,
    members: Vec<Foca<Peer, PostcardCodec, SmallRng, foca::NoCustomBroadcast>>,
    gone: Option<(usize, u64)>,
    known: Vec<Option<u64>>,
    wrong: u64,
    renewed: u64,
    sent: u64,
    sent_bytes: u64,
}

fn peer(host: usize) -> Peer {
    Peer {
        host: host as u16,
        name: node(host).to_string(),
        creation: 1_431_655_766,
        renewals: 0,
    }
}

impl Cluster {
    fn new(seed: u64, count: usize, percent: u64) -> Self {
        let size = NonZeroU32::new(count as u32).expect("there are some");
        let members = (0..count).map(|host| {
            let chance = SmallRng::seed_from_u64(seed * 10_007 + host as u64);
            Foca::new(peer(host), Config::new_lan(size), chance, PostcardCodec)
        });
        let mut cluster = Self {
            conditions: Conditions::lossy(percent),
            random: Random::from_seed(seed),
            now: 0,
            queue: BinaryHeap::new(),
            due: std::collections::HashMap::new(),
            number: 0,
            members: members.collect(),
            gone: None,
            known: vec![None; count],
            wrong: 0,
            renewed: 0,
            sent: 0,
            sent_bytes: 0,
        };
        for host in 0..count {
            // Members of foca that start together probe in step.
            let at = cluster.random.below(1_000_000);
            cluster.plan(at, host, Due::Start);
        }
        cluster
    }

    fn plan(&mut self, at: u64, host: usize, due: Due) {
        self.number += 1;
        self.due.insert(self.number, due);
        self.queue.push(Reverse((at, self.number, host)));
    }

    fn run_until(&mut self, end: u64) {
        while let Some(&Reverse((at, number, host))) = self.queue.peek() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            let Some(due) = self.due.remove(&number) else {
                continue;
            };
            if self.gone.is_some_and(|gone| gone.0 == host) {
                continue;
            }
            let mut wanted = Wanted::default();
            let member = &mut self.members[host];
            // What it complains of (bytes for an earlier identity, timers of one) changes nothing.
            let _ = match due {
                Due::Start if host == 0 => Ok(()),
                Due::Start => {
                    // It announces itself once; a lost announcement is its user's affair.
                    self.plan(at + 5_000_000, host, Due::Start);
                    let member = &mut self.members[host];
                    if member.num_members() == 0 {
                        member.announce(peer(0), &mut wanted)
                    } else {
                        Ok(())
                    }
                }
                Due::Data(data) => member.handle_data(&data, &mut wanted),
                Due::Timer(timer) => member.handle_timer(timer, &mut wanted),
            };
            self.perform(host, wanted);
        }
        self.now = end;
    }

    fn perform(&mut self, host: usize, wanted: Wanted) {
        self.renewed += wanted.renewed;
        for (of, _) in wanted.down {
            match self.gone {
                Some((gone, since)) if gone == of => {
                    self.known[host].get_or_insert(self.now - since);
                }
                _ => self.wrong += 1,
            }
        }
        for (timer, after) in wanted.timers {
            self.plan(self.now + after, host, Due::Timer(timer));
        }
        for (to, data) in wanted.sends {
            self.sent += 1;
            self.sent_bytes += data.len() as u64;
            if let Some(delay) = self.conditions.draw(&mut self.random) {
                self.plan(self.now + delay.as_micros(), to, Due::Data(data));
            }
        }
    }

    fn full(&self) -> bool {
        self.members
            .iter()
            .all(|member| member.num_members() == self.members.len() - 1)
    }
}

fn foca(seed: u64, count: usize, percent: u64, span: u64) -> Run {
    let mut cluster = Cluster::new(seed, count, percent);
    while !cluster.full() && cluster.now < 600_000_000 {
        cluster.run_until(cluster.now + 10_000);
    }
    let joined = cluster.full().then_some(cluster.now as f64 / 1e6);
    cluster.run_until(cluster.now + 20_000_000);
    (
        cluster.wrong,
        cluster.renewed,
        cluster.sent,
        cluster.sent_bytes,
    ) = (0, 0, 0, 0);
    cluster.run_until(cluster.now + span * 1_000_000);
    let node_seconds = (count as u64 * span) as f64;
    let (wrong, renewed) = (cluster.wrong, cluster.renewed);
    let (messages, bytes) = (
        cluster.sent as f64 / node_seconds,
        cluster.sent_bytes as f64 / node_seconds,
    );
    let since = Instant::from_micros(cluster.now);
    cluster.gone = Some((count / 2, since.as_micros()));
    cluster.run_until(cluster.now + 120_000_000);
    let mut known = cluster.known.clone();
    known.remove(count / 2);
    Run {
        joined,
        wrong,
        renewed,
        messages,
        bytes,
        first: known
            .iter()
            .flatten()
            .min()
            .map(|&first| first as f64 / 1e6),
        all: known
            .into_iter()
            .collect::<Option<Vec<u64>>>()
            .and_then(|all| all.into_iter().max())
            .map(|all| all as f64 / 1e6),
    }
}
