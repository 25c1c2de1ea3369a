//! Scenes of leadership, told in `transcripts/`: a command, a line of dashes, and what came of it. They are run on the engine, and the words must be the
//! same. Names that etcd's tests of interaction have are kept.
//!
//! `REWRITE=1 cargo test -p tiebeam_sim --test leadership_transcripts` writes what comes of the commands now; read the difference.
//!
//! ```text
//! group 1 2 3 [learners 4]     members begin; their clocks show the same and stand still
//! pass 500 [1 2]               the clock moves on by so many milliseconds, and these members (or all) notice
//! settle [1 2]                 writes are done and messages arrive until there are none, at these members (or all)
//! arrive 1 / write 1 / lose 1  messages that wait for a member arrive; its writes are done; what waits for it is lost
//! propose 1 x / read 1         asked of a member
//! change 1 to 2 3 [learners 1] new members are asked for
//! transfer 1 2 / forget 2 1    leadership is to go from 1 to 2; 2 is told that 1 is gone
//! compact 1                    its log gives way to a snapshot
//! crash 1 / start 1            what was not written is lost
//! status                       how everybody sees the group
//! quietly ...                  the same without words
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

use tiebeam_core::leadership::words::{describe, describe_entry, describe_members};
use tiebeam_core::leadership::{
    Configuration, Consensus, Effect, MemberId, Replica, RequestId, Restored, Settings, Write,
};
use tiebeam_core::{Duration, Instant};

struct Member {
    engine: Option<Replica>,
    disk: Restored,
    writes: VecDeque<Write>,
    inbox: VecDeque<Vec<u8>>,
}

/// A group, and what came of the command that is being run.
struct Scene {
    now: Instant,
    founding: Configuration,
    members: BTreeMap<u64, Member>,
    requests: u64,
    out: String,
}

/// `1 2 learners 3`: the members before the word and behind it.
fn members(words: &[&str]) -> (Vec<MemberId>, Vec<MemberId>) {
    let ids = |words: &[&str]| words.iter().map(|word| MemberId(number(word))).collect();
    let mut halves = words.split(|&word| word == "learners");
    let voters = halves.next().map(ids).unwrap_or_default();
    (voters, halves.next().map(ids).unwrap_or_default())
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("{word:?} is no number"))
}

impl Scene {
    fn new() -> Self {
        Self {
            now: Instant::from_millis(10_000),
            founding: Configuration::default(),
            members: BTreeMap::new(),
            requests: 0,
            out: String::new(),
        }
    }

    fn say(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    fn start(&mut self, id: u64) {
        let settings = Settings {
            tail: 0,
            ..Settings::lan(MemberId(id), 7, id)
        };
        let (now, founding) = (self.now, self.founding.clone());
        let member = self.members.entry(id).or_insert_with(|| Member {
            engine: None,
            disk: Restored::default(),
            writes: VecDeque::new(),
            inbox: VecDeque::new(),
        });
        let engine = Replica::new(now, settings, founding, member.disk.clone());
        member.engine = Some(engine.expect("its own disk"));
        self.tell(id, |_, _| {});
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members
            .get_mut(&id)
            .unwrap_or_else(|| panic!("there is no member {id}"))
    }

    fn tell(&mut self, id: u64, what: impl FnOnce(&mut Replica, Instant)) {
        let now = self.now;
        let Some(engine) = &mut self.member(id).engine else {
            return;
        };
        what(engine, now);
        while let Some(effect) = self.member(id).engine.as_mut().and_then(Consensus::poll) {
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Send { to, bytes } => {
                self.say(format!("  {}", describe(&bytes)));
                if let Some(member) = self.members.get_mut(&to.0) {
                    member.inbox.push_back(bytes);
                }
            }
            Effect::Persist(write) => {
                let mut line = format!("  {id} writes");
                if let Some(hard) = write.hard {
                    let vote = hard
                        .vote
                        .map_or("nobody".to_owned(), |vote| vote.to_string());
                    let _ = write!(line, " term {} vote {vote}", hard.term);
                }
                if let Some(snapshot) = &write.snapshot {
                    let _ = write!(line, " snapshot {}/{}", snapshot.index, snapshot.term);
                }
                for entry in &write.entries {
                    let _ = write!(line, " [{}]", describe_entry(entry));
                }
                self.say(line);
                self.member(id).writes.push_back(write);
            }
            Effect::Restore(snapshot) => {
                let members = describe_members(&snapshot.configuration);
                self.say(format!(
                    "  {id} takes snapshot {} {members}",
                    snapshot.index
                ));
            }
            Effect::Apply { entry, .. } => {
                self.say(format!("  {id} applies {}", describe_entry(&entry)));
            }
            Effect::Read { .. } => self.say(format!("  {id} may answer the read")),
            Effect::Unread { .. } => self.say(format!("  {id} cannot answer the read")),
            Effect::Unknown { .. } => self.say(format!("  {id} does not know what became of it")),
            Effect::Leader { term, leader } => {
                let leader = leader.map_or("nobody".to_owned(), |leader| leader.to_string());
                self.say(format!("  {id} sees {leader} lead in term {term}"));
            }
            Effect::Configured(configuration) => {
                let members = describe_members(&configuration);
                self.say(format!("  {id} is in {members}"));
            }
            Effect::Stopped(fault) => self.say(format!("  {id} stops: {fault}")),
        }
    }

    fn write(&mut self, id: u64) -> bool {
        let member = self.member(id);
        let Some(write) = member.writes.pop_front() else {
            return false;
        };
        let (token, disk) = (write.token, &mut member.disk);
        disk.hard = write.hard.unwrap_or(disk.hard);
        disk.snapshot = write.snapshot.or(disk.snapshot.take());
        disk.entries.retain(|entry| entry.index > write.purge);
        let replaced = write.entries.first().map(|first| first.index);
        for from in write.truncate.into_iter().chain(replaced) {
            disk.entries.retain(|entry| entry.index < from);
        }
        disk.entries.extend(write.entries);
        self.say(format!("{id}: written"));
        self.tell(id, |engine, now| engine.persisted(now, token));
        true
    }

    fn arrive(&mut self, id: u64) -> bool {
        let Some(bytes) = self.member(id).inbox.pop_front() else {
            return false;
        };
        if self.member(id).engine.is_some() {
            self.say(format!("{id}: {}", describe(&bytes)));
        }
        self.tell(id, |engine, now| {
            engine
                .receive(now, &bytes)
                .expect("it was said by an engine");
        });
        true
    }

    /// Those named, or all.
    fn named(&self, words: &[&str]) -> Vec<u64> {
        if words.is_empty() {
            return self.members.keys().copied().collect();
        }
        words.iter().map(|word| number(word)).collect()
    }

    fn asked(
        &mut self,
        id: u64,
        what: impl FnOnce(
            &mut Replica,
            Instant,
            RequestId,
        ) -> Result<(), tiebeam_core::leadership::Refusal>,
    ) {
        self.requests += 1;
        let request = RequestId(self.requests);
        let mut refused = None;
        self.tell(id, |engine, now| {
            refused = what(engine, now, request).err();
        });
        if let Some(refusal) = refused {
            self.say(format!("  refused: {refusal}"));
        }
    }

    fn run(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["quietly", ..] => {
                let said = std::mem::take(&mut self.out);
                self.run(&words[1..].join(" "));
                self.out = said;
            }
            ["group", ref rest @ ..] => {
                let (voters, learners) = members(rest);
                let all: Vec<u64> = voters.iter().chain(&learners).map(|id| id.0).collect();
                self.founding = Configuration::new(voters, learners).expect("members");
                all.into_iter().for_each(|id| self.start(id));
            }
            ["start", id] => self.start(number(id)),
            ["crash", id] => {
                let member = self.member(number(id));
                member.engine = None;
                member.writes.clear();
                member.inbox.clear();
            }
            ["pass", time, ref rest @ ..] => {
                self.now = self.now + Duration::from_millis(number(time));
                for id in self.named(rest) {
                    self.tell(id, |engine, now| engine.wake(now));
                }
            }
            ["settle", ref rest @ ..] => {
                let ids = self.named(rest);
                loop {
                    let mut busy = false;
                    for &id in &ids {
                        while self.write(id) || self.arrive(id) {
                            busy = true;
                        }
                    }
                    if !busy {
                        break;
                    }
                }
            }
            ["arrive", id] => while self.arrive(number(id)) {},
            ["write", id] => while self.write(number(id)) {},
            ["lose", id] => self.member(number(id)).inbox.clear(),
            ["propose", id, text] => {
                let text = text.as_bytes().to_vec();
                self.asked(number(id), |engine, now, request| {
                    engine.propose(now, request, text)
                });
            }
            ["read", id] => {
                self.asked(number(id), |engine, now, request| engine.read(now, request))
            }
            ["change", id, "to", ref rest @ ..] => {
                let (voters, learners) = members(rest);
                let to = Configuration::new(voters, learners).expect("members");
                self.asked(number(id), |engine, now, request| {
                    engine.change(now, request, to)
                });
            }
            ["transfer", id, to] => {
                let to = Some(MemberId(number(to)));
                self.asked(number(id), |engine, now, _| engine.transfer(now, to));
            }
            ["forget", id, gone] => {
                let gone = MemberId(number(gone));
                self.tell(number(id), |engine, now| engine.forget_leader(now, gone));
            }
            ["compact", id] => {
                let state = std::sync::Arc::from(*b"state");
                self.tell(number(id), |engine, now| engine.compact(now, state));
            }
            ["status"] => {
                for id in self.named(&[]) {
                    let now = self.now;
                    let line = match &self.member(id).engine {
                        None => format!("{id} is down"),
                        Some(engine) => {
                            let status = engine.status();
                            let token = engine.token(now).map_or("", |_| ", with a lease");
                            format!(
                                "{id} {:?}{token}, term {}, commit {}, last {}, {}",
                                status.role,
                                status.term,
                                status.commit,
                                status.last,
                                describe_members(engine.configuration())
                            )
                        }
                    };
                    self.say(line);
                }
            }
            _ => panic!("no such command: {command}"),
        }
        std::mem::take(&mut self.out)
    }
}

/// The file, with what comes of its commands now.
fn replay(text: &str) -> String {
    let (mut scene, mut out) = (Scene::new(), String::new());
    for block in text
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.is_empty())
    {
        let lines = block.lines().take_while(|line| *line != "----");
        let lines: Vec<&str> = lines.collect();
        if !out.is_empty() {
            out.push('\n');
        }
        for line in &lines {
            let _ = writeln!(out, "{line}");
        }
        let commands: Vec<_> = lines.iter().filter(|line| !line.starts_with('#')).collect();
        if !commands.is_empty() {
            let came = commands.iter().map(|command| scene.run(command));
            let came: String = came.collect();
            let _ = write!(out, "----\n{came}");
        }
    }
    out
}

#[test]
fn scenes_go_as_they_are_told() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let told = std::fs::read_to_string(&file).unwrap();
        let came = replay(&told);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&file, came).unwrap();
        } else {
            assert_eq!(came, told, "{}", file.display());
        }
        count += 1;
    }
    assert!(count >= 12, "{count} scenes");
}
