//! The page of a terminal: members, the member that is asked, and the last events.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::stamp;
use crate::member::{Member, table};

/// Events that stay on the page.
const MAX_EVENTS: usize = 10;

/// Samples that rates are taken from, the first to the last: some five seconds, in which a member sends ten messages.
const MAX_SAMPLES: usize = 11;

/// Members on the page; a terminal has some 40 lines. Beyond, those that are not alive come first.
const MAX_ROWS: usize = 24;

/// How the member that is asked keeps up.
#[derive(Debug, Deserialize)]
pub(super) struct Health {
    multiplier: u32,
    stalls: u64,
    minority: bool,
}

/// What it counts. The rest is for other tools.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Metrics {
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    probes: u64,
    probes_failed: u64,
    suspicions: u64,
    deaths: u64,
    evictions: u64,
    contested: u64,
}

pub(super) struct Page {
    node: String,
    members: Vec<Member>,
    leader: Option<(String, u64)>,
    health: Option<Health>,
    /// With the time at which they were asked for.
    metrics: VecDeque<(Instant, Metrics)>,
    events: VecDeque<String>,
    late: bool,
}

impl Page {
    pub(super) fn new(node: &str, members: Vec<Member>) -> Self {
        Self {
            node: node.to_owned(),
            members,
            leader: None,
            health: None,
            metrics: VecDeque::new(),
            events: VecDeque::new(),
            late: false,
        }
    }

    pub(super) fn event(&mut self, at: Duration, event: String) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(format!("{} {event}", stamp(at)));
    }

    pub(super) fn answers(
        &mut self,
        asked: Instant,
        members: Vec<Member>,
        leader: Option<(String, u64)>,
        health: Health,
        metrics: Metrics,
    ) {
        self.late = false;
        self.members = members;
        self.leader = leader;
        self.health = Some(health);
        if self.metrics.len() == MAX_SAMPLES {
            self.metrics.pop_front();
        }
        self.metrics.push_back((asked, metrics));
    }

    pub(super) fn unanswered(&mut self) {
        self.late = true;
    }

    /// The page in place of the one before: from the top left, each line up to its end, nothing below.
    pub(super) fn draw(&self, elapsed: Duration) -> String {
        format!(
            "\x1b[H{}\x1b[J",
            self.text(elapsed).replace('\n', "\x1b[K\n")
        )
    }

    fn text(&self, elapsed: Duration) -> String {
        let alive = self.members.iter().filter(|member| is_alive(member));
        let mut text = format!(
            "{}: {} of {} members alive; watched for {} s\n",
            self.node,
            alive.count(),
            self.members.len(),
            elapsed.as_secs()
        );
        // Writing to a string cannot fail.
        if let Some((leader, term)) = &self.leader {
            let _ = writeln!(text, "{leader} leads, in term {term}");
        }
        if self.late {
            let _ = writeln!(text, "It does not answer; this is what it said last.");
        } else if let Some(health) = &self.health {
            let minority = match health.minority {
                true => ", in the minority",
                false => "",
            };
            let _ = writeln!(
                text,
                "health {}, stood still {} times{minority}",
                health.multiplier, health.stalls
            );
        }
        if let (Some((then, before)), Some((now, metrics))) =
            (self.metrics.front(), self.metrics.back())
            && self.metrics.len() > 1
        {
            let seconds = (*now - *then).as_secs_f64().max(0.001);
            let rate =
                |of: fn(&Metrics) -> u64| of(metrics).saturating_sub(of(before)) as f64 / seconds;
            let _ = writeln!(
                text,
                "out {:.1}/s {:.0} B/s, in {:.1}/s {:.0} B/s, probes {:.1}/s",
                rate(|metrics| metrics.sent),
                rate(|metrics| metrics.sent_bytes),
                rate(|metrics| metrics.received),
                rate(|metrics| metrics.received_bytes),
                rate(|metrics| metrics.probes),
            );
        }
        if let Some((_, metrics)) = self.metrics.back() {
            let _ = writeln!(
                text,
                "probes failed {}, suspicions {}, deaths {}, evictions {}, contested {}",
                metrics.probes_failed,
                metrics.suspicions,
                metrics.deaths,
                metrics.evictions,
                metrics.contested
            );
        }
        let mut shown: Vec<&Member> = self.members.iter().collect();
        if shown.len() > MAX_ROWS {
            shown.sort_by_key(|member| is_alive(member));
            shown.truncate(MAX_ROWS);
        }
        let _ = write!(text, "\n{}", table(shown.iter().copied()));
        if shown.len() < self.members.len() {
            let _ = writeln!(text, "and {} more", self.members.len() - shown.len());
        }
        text.push('\n');
        for event in &self.events {
            let _ = writeln!(text, "{event}");
        }
        text
    }
}

fn is_alive(member: &Member) -> bool {
    member.status == "alive"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Metadata;

    fn member(node: &str, status: &str) -> Member {
        Member {
            node: node.to_owned(),
            kind: "rust".to_owned(),
            status: status.to_owned(),
            creation: 7,
            incarnation: 2,
            metadata: Metadata::default(),
            round_trip: None,
        }
    }

    fn metrics(sent: u64) -> Metrics {
        Metrics {
            sent,
            sent_bytes: 50 * sent,
            received: sent,
            received_bytes: 50 * sent,
            probes: sent / 2,
            probes_failed: 1,
            suspicions: 2,
            deaths: 3,
            evictions: 4,
            contested: 5,
        }
    }

    fn health() -> Health {
        Health {
            multiplier: 2,
            stalls: 1,
            minority: true,
        }
    }

    #[test]
    fn a_page_has_members_rates_and_the_last_events() {
        let mut page = Page::new("a@h", vec![member("a@h", "alive")]);
        let begin = Instant::now();
        let members = vec![member("a@h", "alive"), member("b@h", "dead")];
        page.answers(begin, members.clone(), None, health(), metrics(10));
        let later = begin + Duration::from_secs(2);
        let leader = Some(("a@h".to_owned(), 7));
        page.answers(later, members, leader, health(), metrics(30));
        page.event(Duration::from_millis(1500), "down b@h (rust)".to_owned());
        assert_eq!(
            page.text(Duration::from_secs(2)),
            "a@h: 1 of 2 members alive; watched for 2 s\n\
             a@h leads, in term 7\n\
             health 2, stood still 1 times, in the minority\n\
             out 10.0/s 500 B/s, in 10.0/s 500 B/s, probes 5.0/s\n\
             probes failed 1, suspicions 2, deaths 3, evictions 4, contested 5\n\
             \n\
             NODE  KIND   STATUS   ROUND TRIP    CREATION  INCARNATION  METADATA\n\
             a@h   rust   alive             -           7            2\n\
             b@h   rust   dead              -           7            2\n\
             \n   1.500 down b@h (rust)\n"
        );
        page.unanswered();
        assert!(page.text(Duration::ZERO).contains("does not answer"));
    }

    #[test]
    fn a_large_cluster_shows_first_who_is_not_alive() {
        let mut members: Vec<Member> = (0..100)
            .map(|n| member(&format!("n{n:03}@h"), "alive"))
            .collect();
        members[99].status = "suspect".to_owned();
        let page = Page::new("a@h", members);
        let text = page.text(Duration::ZERO);
        assert!(text.contains("n099@h  rust   suspect") && text.contains("and 76 more"));
        assert_eq!(text.lines().count(), 1 + 1 + 1 + MAX_ROWS + 1 + 1);
    }
}
