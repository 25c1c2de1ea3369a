//! Terms for property tests.
#![allow(unreachable_pub, dead_code, reason = "each test uses a part")]

use proptest::prelude::*;
use tiebeam_wire::{Atom, Map, Pid, Port, Reference, Term};

/// Terms of every kind.
pub fn any_term() -> impl Strategy<Value = Term> {
    let atom = || {
        prop_oneof!["[a-z]{0,6}", "\\PC{0,12}"]
            .prop_map(|text| Term::Atom(Atom::new(&text).unwrap()))
    };
    let node = || prop_oneof!["[a-z]{1,4}@[a-z.]{1,8}"].prop_map(|text| Atom::new(&text).unwrap());
    let leaf =
        prop_oneof![
            any::<i64>().prop_map(Term::from),
            any::<i8>().prop_map(|i| Term::Integer(i.into())),
            any::<u64>().prop_map(Term::from),
            prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(|bytes| num_bigint::BigInt::from_signed_bytes_le(&bytes).into()),
            any::<f64>()
                .prop_filter("finite", |float| float.is_finite())
                .prop_map(Term::Float),
            atom(),
            prop::collection::vec(any::<u8>(), 0..60).prop_map(Term::binary),
            "\\PC{0,20}".prop_map(Term::from),
            "\\PC{0,20}".prop_map(|text| Term::charlist(&text)),
            (prop::collection::vec(any::<u8>(), 0..30), 1u8..=8).prop_map(|(bytes, bits)| {
                match tiebeam_wire::BitString::new(bytes.into(), bits) {
                    Ok(bits) => Term::BitString(Box::new(bits)),
                    Err(binary) => Term::Binary(binary),
                }
            }),
            (node(), any::<[u32; 3]>()).prop_map(|(node, [id, serial, creation])| Term::Pid(Pid {
                node,
                id,
                serial,
                creation
            })),
            (node(), any::<u64>(), any::<u32>())
                .prop_map(|(node, id, creation)| Term::Port(Port { node, id, creation })),
            (
                node(),
                any::<u32>(),
                prop::collection::vec(any::<u32>(), 1..6)
            )
                .prop_map(|(node, creation, words)| Term::Reference(Reference::new(
                    node, creation, &words
                ))),
            (atom(), atom(), any::<u32>()).prop_map(|(module, function, arity)| {
                Term::Export(Box::new(tiebeam_wire::Export {
                    module: module.as_atom().unwrap().clone(),
                    function: function.as_atom().unwrap().clone(),
                    arity,
                }))
            }),
        ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        let many = || prop::collection::vec(inner.clone(), 0..8);
        prop_oneof![
            many().prop_map(Term::Tuple),
            many().prop_map(Term::List),
            (many(), inner.clone()).prop_map(|(elements, tail)| Term::cons(elements, tail)),
            prop::collection::vec((inner.clone(), inner.clone()), 0..12)
                .prop_map(|pairs| Term::Map(pairs.into_iter().collect::<Map>())),
            prop::collection::vec(any::<u8>().prop_map(|b| Term::Integer(b.into())), 0..300)
                .prop_map(Term::List),
            (many(), node()).prop_map(|(free, node)| Term::Fun(Box::new(tiebeam_wire::Fun {
                arity: 1,
                uniq: [7; 16],
                index: 3,
                module: Atom::of("m"),
                old_index: Term::Integer(3),
                old_uniq: Term::Integer(123_456_789),
                pid: Pid {
                    node,
                    id: 1,
                    serial: 2,
                    creation: 3
                },
                free,
            }))),
        ]
    })
}

/// Whether this holds for the term or a term inside it.
pub fn contains(term: &Term, holds: &dyn Fn(&Term) -> bool) -> bool {
    let any = |terms: &[Term]| terms.iter().any(|term| contains(term, holds));
    holds(term)
        || match term {
            Term::Tuple(elements) | Term::List(elements) => any(elements),
            Term::Improper(list) => any(&list.elements) || contains(&list.tail, holds),
            Term::Map(map) => map
                .iter()
                .any(|(key, value)| contains(key, holds) || contains(value, holds)),
            Term::Fun(fun) => any(&fun.free),
            _ => false,
        }
}
