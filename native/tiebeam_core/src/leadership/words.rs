//! Messages in words, for the transcripts of the simulator.
//!
//! Only with the cargo feature `mutants`, which nothing but the simulator enables. Not part of the public interface.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::codec;
use super::configuration::Configuration;
use super::entry::{Entry, MemberId, Payload};
use super::message::{Cause, Message};

/// What a message says, or why it is none.
pub fn describe(bytes: &[u8]) -> String {
    let packet = match codec::decode(bytes) {
        Ok(packet) => packet,
        Err(error) => return error.to_string(),
    };
    let what = match packet.message {
        Message::Poll {
            pre,
            last,
            last_term,
            cause,
        } => {
            let why = match cause {
                Cause::Silence => "",
                Cause::Transfer => ", as its leader asked",
                Cause::Released => ", as its leader asked that gave up its lease",
            };
            let poll = if pre { "PreVote?" } else { "Vote?" };
            format!("{poll} log ends {last}/{last_term}{why}")
        }
        Message::Vote {
            pre,
            granted,
            early,
        } => {
            let vote = if pre { "PreVote" } else { "Vote" };
            let answer = if granted { "yes" } else { "no" };
            let early = if early { ", a lease may hold" } else { "" };
            format!("{vote} {answer}{early}")
        }
        Message::Append {
            round,
            previous,
            previous_term,
            commit,
            entries,
        } => {
            let entries: Vec<String> = entries.iter().map(describe_entry).collect();
            format!(
                "Append #{round} after {previous}/{previous_term} commit {commit} [{}]",
                entries.join(", ")
            )
        }
        Message::Accepted { round, matched } => format!("Accepted #{round} up to {matched}"),
        Message::Rejected {
            round,
            previous,
            hint,
            hint_term,
        } => format!("Rejected #{round} after {previous}, try {hint}/{hint_term}"),
        Message::TimeoutNow { .. } => "TimeoutNow".to_string(),
        Message::Chunk { round, chunk } => {
            format!(
                "Snapshot #{round} of {}/{} from byte {}",
                chunk.index, chunk.term, chunk.offset
            )
        }
        Message::Received {
            round,
            index,
            bytes,
        } => format!("Received #{round} {bytes} bytes of snapshot {index}"),
    };
    format!("{}->{} term {} {what}", packet.from, packet.to, packet.term)
}

/// An entry: its place, its term, and what it says.
pub fn describe_entry(entry: &Entry) -> String {
    let what = match &entry.payload {
        Payload::Noop => "noop".to_string(),
        Payload::Command(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Payload::Configuration(configuration) => describe_members(configuration),
    };
    format!("{}/{} {what}", entry.index, entry.term)
}

/// Who votes, who did before, and who learns.
pub fn describe_members(configuration: &Configuration) -> String {
    let list = |members: Vec<MemberId>| {
        let members: Vec<String> = members.iter().map(ToString::to_string).collect();
        members.join(" ")
    };
    let mut text = format!("voters({})", list(configuration.voters().collect()));
    if configuration.is_joint() {
        let outgoing = list(configuration.outgoing().collect());
        text.push_str(&format!("&&({outgoing})"));
    }
    let learners = list(configuration.learners().collect());
    if !learners.is_empty() {
        text.push_str(&format!(" learners({learners})"));
    }
    text
}
