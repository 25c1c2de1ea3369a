//! An event of a cluster in one line.

use tiebeam_node::{Term, from_term};

use crate::member::{Member, Metadata};

/// What happened. An event of a later release is shown as it came.
pub(super) fn describe(event: &Term) -> String {
    known(event).unwrap_or_else(|| event.to_string())
}

fn known(event: &Term) -> Option<String> {
    let (tag, details) = event.as_tuple()?.split_first()?;
    let name = |at: usize| Some(details.get(at)?.as_atom()?.as_str());
    let number = |at: usize| details.get(at)?.as_integer();
    let member = |at: usize| from_term::<Member>(details.get(at)?).ok();
    let bytes = |at: usize| Some(Metadata(details.get(at)?.as_binary()?.as_slice().to_vec()));
    Some(match tag.as_atom()?.as_str() {
        "member" => {
            let Member {
                node,
                kind,
                metadata,
                ..
            } = member(1)?;
            match name(0)? {
                "updated" => format!("updated {node} ({kind}): {metadata}"),
                change => format!("{change} {node} ({kind})"),
            }
        }
        "contested" => format!("contested {}: {}", member(0)?.node, name(1)?),
        "conflict" => {
            let kept = member(0)?;
            format!(
                "conflict {}: creation {} is kept, {} refused",
                kept.node,
                kept.creation,
                number(1)?
            )
        }
        "refused" => format!("refused {}: it is in the cluster {}", name(0)?, bytes(1)?),
        "broadcast" => format!("broadcast {}: {}", name(0)?, bytes(1)?),
        "stalled" => format!("stalled {} ms", number(0)?),
        "health" => format!("health {}", number(0)?),
        "leader" => match name(0)? {
            "nil" => format!("leader none (term {})", number(1)?),
            leader => format!("leader {leader} (term {})", number(1)?),
        },
        "missed" => format!("missed {} events", number(0)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_line() {
        let member = "#{node => b@h, kind => rust, status => alive, creation => 7, incarnation => 2, \
                      metadata => <<\"blue\">>, round_trip => nil}";
        for (event, line) in [
            ("{member, up, M}", "up b@h (rust)"),
            ("{member, updated, M}", "updated b@h (rust): blue"),
            ("{leader, b@h, 7}", "leader b@h (term 7)"),
            ("{leader, nil, 7}", "leader none (term 7)"),
            ("{contested, M, heard}", "contested b@h: heard"),
            (
                "{conflict, M, 9}",
                "conflict b@h: creation 7 is kept, 9 refused",
            ),
            (
                "{refused, c@h, <<\"blue\">>}",
                "refused c@h: it is in the cluster blue",
            ),
            ("{broadcast, c@h, <<\"a\\nb\">>}", "broadcast c@h: a\\nb"),
            ("{stalled, 1200}", "stalled 1200 ms"),
            ("{health, 3}", "health 3"),
            ("{missed, 4}", "missed 4 events"),
            ("{moon, b@h, 4}", "{moon,b@h,4}"),
            ("{member, up}", "{member,up}"),
        ] {
            let event = Term::parse(&event.replace('M', member)).unwrap();
            assert_eq!(describe(&event), line);
        }
    }
}
