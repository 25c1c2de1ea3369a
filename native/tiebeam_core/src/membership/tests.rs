//! The rules of membership, one by one, on a clock of the test's own.

mod chaos;
mod greeting;
mod net;
mod node;
mod rules;
mod several;
mod verdicts;

use alloc::string::String;

use super::*;

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

/// A notice about a member as short words, for example `up b@h#1`.
fn news_of(notice: &Notice) -> Option<String> {
    let (word, member) = match notice {
        Notice::Up(member) => ("up", member),
        Notice::Down(member) => ("down", member),
        Notice::Left(member) => ("left", member),
        Notice::Refreshed(member) => ("refreshed", member),
        Notice::Suspect(member) => ("suspect", member),
        Notice::Recovered(member) => ("recovered", member),
        Notice::Updated(member) => ("updated", member),
        Notice::Forgotten(member) => ("forgotten", member),
        Notice::Contested { member, reason } => {
            return Some(std::format!("contested {}: {reason}", member.node));
        }
        Notice::Conflict { kept, refused } => {
            return Some(std::format!(
                "conflict {}#{} {refused}",
                kept.node,
                kept.creation
            ));
        }
        Notice::Refused { node, cluster } => {
            return Some(std::format!("refused {node} of {cluster}"));
        }
        Notice::Ignored { from, why } => return Some(std::format!("ignored {from}: {why}")),
        Notice::Broadcast { from, bytes } => {
            return Some(std::format!("broadcast {from}: {}", bytes.escape_ascii()));
        }
        Notice::Stalled { .. } => return Some("stalled".into()),
        Notice::Health { .. } => return None,
    };
    Some(std::format!("{word} {}#{}", member.node, member.creation))
}
