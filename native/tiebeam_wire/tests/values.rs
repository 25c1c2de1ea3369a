//! Rust values and terms: the table of `tiebeam_wire::value`, row by row, and values of any shape.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tiebeam_wire::value::{self, from_bytes, from_term, to_term, to_vec};
use tiebeam_wire::{
    Atom, Binary, Limits, Map, Pid, Reference, Term, decode::decode, encode::encode,
};

fn erl(text: &str) -> Term {
    Term::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn read<T: DeserializeOwned>(text: &str) -> T {
    from_term(&erl(text)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal<T: DeserializeOwned + Debug>(text: &str) -> String {
    match from_term::<T>(&erl(text)) {
        Ok(value) => panic!("{text} was read as {value:?}"),
        Err(error) => error.to_string(),
    }
}

/// The value is written as this term, in the bytes that the term has, and read back.
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, text: &str) {
    let term = erl(text);
    assert_eq!(to_term(&value).unwrap(), term);
    let mut bytes = Vec::new();
    encode(&term, &mut bytes);
    assert_eq!(to_vec(&value).unwrap(), bytes, "{text}");
    assert_eq!(from_bytes::<T>(&bytes).unwrap(), value, "{text}");
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
#[serde(rename_all = "snake_case")]
enum Shape {
    Nothing,
    Circle(f64),
    Boxed((i32, i32)),
    Line(i32, i32),
    Rect { width: u32, height: u32 },
    Many(Vec<Shape>),
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Plain {
    id: u64,
    name: String,
    tags: Vec<String>,
    parent: Option<Box<Plain>>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(rename = "Elixir.MyApp.User")]
struct User {
    name: String,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(rename = "ping")]
struct Ping;

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Age(u8);

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Point(i32, i32);

#[test]
fn the_table_row_by_row() {
    same(true, "true");
    same(false, "false");
    same(-5i8, "-5");
    same(u64::MAX, "18446744073709551615");
    same(i128::MIN, "-170141183460469231731687303715884105728");
    same(u128::MAX, "340282366920938463463374607431768211455");
    same(1.5f64, "1.5");
    same(0.5f32, "0.5");
    same('é', "<<\"é\"/utf8>>");
    same(String::from("héllo"), "<<\"héllo\"/utf8>>");
    same(Some(5), "5");
    same(None::<i32>, "nil");
    same((), "nil");
    same(Ping, "ping");
    same(Age(7), "7");
    same(vec![1, 300], "[1,300]");
    same(Vec::<i32>::new(), "[]");
    same(vec![1u8, 2, 255], "[1,2,255]");
    same(vec![Age(1), Age(2)], "[1,2]");
    same(vec![Some(1), Some(2)], "[1,2]");
    same((1, String::from("a"), true), "{1,<<\"a\">>,true}");
    same([1.5, 2.5], "{1.5,2.5}");
    same(Point(1, 2), "{1,2}");
    same(
        BTreeMap::from([(String::from("a"), 1), (String::from("b"), 2)]),
        "#{<<\"a\">> => 1,<<\"b\">> => 2}",
    );
    same(BTreeMap::from([((1, 2), 3)]), "#{{1,2} => 3}");
    same(Shape::Nothing, "nothing");
    same(Shape::Circle(1.5), "{circle,1.5}");
    same(Shape::Boxed((1, 2)), "{boxed,{1,2}}");
    same(Shape::Line(1, 2), "{line,1,2}");
    same(
        Shape::Rect {
            width: 1,
            height: 2,
        },
        "{rect,#{width => 1,height => 2}}",
    );
    same(Ok::<i32, String>(5), "{ok,5}");
    same(Err::<i32, String>("no".into()), "{error,<<\"no\">>}");
    same(Ok::<(), String>(()), "ok");
    same(Err::<i32, ()>(()), "error");
    same(Ok::<Option<i32>, ()>(None), "{ok,nil}");
    same(
        Plain {
            id: 1,
            name: "a".into(),
            tags: vec!["x".into()],
            parent: None,
        },
        "#{id => 1,name => <<\"a\">>,tags => [<<\"x\">>],parent => nil}",
    );
    same(
        User { name: "Ada".into() },
        "#{'__struct__' => 'Elixir.MyApp.User',name => <<\"Ada\">>}",
    );
}

#[test]
fn what_else_is_read() {
    assert_eq!(read::<f64>("1"), 1.0);
    assert_eq!(read::<char>("97"), 'a');
    assert_eq!(read::<char>("\"a\""), 'a');
    assert_eq!(read::<String>("\"caf\u{e9}\""), "caf\u{e9}");
    assert_eq!(read::<String>("[128512,97]"), "\u{1f600}a");
    assert_eq!(read::<String>("[]"), "");
    assert_eq!(read::<String>("hello"), "hello");
    assert_eq!(read::<Option<i32>>("undefined"), None);
    assert_eq!(read::<Option<i32>>("5"), Some(5));
    read::<()>("ok");
    read::<()>("undefined");
    assert_eq!(read::<Vec<u8>>("<<1,2>>"), [1, 2]);
    assert_eq!(read::<Vec<i64>>("\"ab\""), [97, 98]);
    assert_eq!(read::<Vec<char>>("\"ab\""), ['a', 'b']);
    assert_eq!(
        read::<Vec<Term>>("\"ab\""),
        [Term::Integer(97), Term::Integer(98)]
    );
    assert_eq!(read::<(u8, u8)>("\"ab\""), (97, 98));
    assert_eq!(read::<[i32; 3]>("[1,2,3]"), [1, 2, 3]);
    assert_eq!(read::<Binary>("\"ab\""), Binary::from("ab"));
    assert_eq!(read::<Shape>("<<\"nothing\">>"), Shape::Nothing);
    assert_eq!(
        read::<Shape>("{rect,[{height,2},{width,1}]}"),
        Shape::Rect {
            width: 1,
            height: 2
        }
    );
    let plain = Plain {
        id: 1,
        name: "a".into(),
        tags: vec![],
        parent: None,
    };
    for text in [
        "#{<<\"id\">> => 1,<<\"name\">> => <<\"a\">>,<<\"tags\">> => []}",
        "[{id,1},{name,\"a\"},{tags,[]},{parent,undefined}]",
        "#{id => 1,name => a,tags => [],other => {1,#{}}}",
        "#{'__struct__' => 'Elixir.Any',id => 1,name => a,tags => []}",
    ] {
        assert_eq!(read::<Plain>(text), plain, "{text}");
    }
    assert_eq!(
        read::<HashMap<String, i32>>("[{a,1},{\"b\",2}]"),
        HashMap::from([("a".into(), 1), ("b".into(), 2)])
    );
    assert_eq!(read::<HashMap<Atom, i32>>("#{a => 1}")[&Atom::of("a")], 1);
    assert_eq!(read::<BTreeMap<String, i32>>("[]"), BTreeMap::new());
}

#[test]
fn any_value_is_read_by_what_it_is() {
    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(untagged)]
    enum Any {
        Bool(bool),
        Integer(i64),
        Float(f64),
        Text(String),
        List(Vec<Any>),
        Map(BTreeMap<String, Any>),
        Nothing(()),
    }
    use Any::{Bool, Float, Integer, List, Nothing, Text};
    assert_eq!(
        read::<Any>("#{list => [1,1.5,a,\"ab\",{true,nil}],<<\"b\">> => <<\"c\">>}"),
        Any::Map(BTreeMap::from([
            (
                "list".into(),
                List(vec![
                    Integer(1),
                    Float(1.5),
                    Text("a".into()),
                    List(vec![Integer(97), Integer(98)]),
                    List(vec![Bool(true), Nothing(())]),
                ])
            ),
            ("b".into(), Text("c".into())),
        ]))
    );
}

#[test]
fn strings_and_bytes_are_borrowed() {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        name: &'a str,
        kind: &'a str,
        data: &'a [u8],
    }
    let mut bytes = Vec::new();
    encode(
        &erl("#{name => <<\"Ada\">>,kind => person,data => <<0,255>>}"),
        &mut bytes,
    );
    let value: Borrowed<'_> = from_bytes(&bytes).unwrap();
    assert_eq!(
        (value.name, value.kind, value.data),
        ("Ada", "person", &[0, 255][..])
    );
    assert!(bytes.as_ptr_range().contains(&value.name.as_ptr()));
    assert!(bytes.as_ptr_range().contains(&value.data.as_ptr()));
}

#[test]
fn terms_can_be_parts_of_values() {
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Call {
        from: Pid,
        tag: Reference,
        module: Atom,
        data: Binary,
        options: Map,
        rest: Term,
        more: Option<Term>,
    }
    let text = "#{from => #Pid<a@h,1,2,3>,tag => #Ref<a@h,1,2,3,4>,module => lists,data => <<1,2>>,\
                options => #{a => 1},rest => [a|fun m:f/1],more => {nil,<<1:3>>}}";
    let call: Call = read(text);
    assert_eq!(call.rest, erl("[a|fun m:f/1]"));
    same(call, text);
    let none: Call = read(&text.replace("{nil,<<1:3>>}", "nil"));
    assert_eq!(none.more, None);
    assert_eq!(
        refusal::<Call>(&text.replace("#Pid<a@h,1,2,3>", "{a}")),
        "from: invalid type: {a}, expected a pid"
    );
    assert_eq!(
        refusal::<Atom>("<<\"a\">>"),
        "invalid type: string \"a\", expected an atom"
    );
    // What is too deep for a typed value is still a term.
    let deep = "[".repeat(300) + &"]".repeat(300);
    assert_eq!(read::<(Term,)>(&format!("{{{deep}}}")).0, erl(&deep));
}

#[test]
fn the_atoms_of_a_packet_are_resolved() {
    let atoms = [Atom::of("rect"), Atom::of("width"), Atom::of("height")];
    let bytes =
        Bytes::from_static(b"\x68\x02\x52\0\x74\0\0\0\x02\x52\x01\x61\x05\x52\x02\x61\x06\x6a");
    let limits = Limits::default();
    let decoder = tiebeam_wire::Decoder::new(&bytes, 0, &limits).with_atoms(&atoms);
    let mut deserializer = value::Deserializer::new(decoder);
    let shape = Shape::deserialize(&mut deserializer).unwrap();
    assert_eq!(
        shape,
        Shape::Rect {
            width: 5,
            height: 6
        }
    );
    assert_eq!(deserializer.into_decoder().term().unwrap(), erl("[]"));
}

#[test]
fn an_error_says_where() {
    assert_eq!(
        refusal::<Plain>("#{id => 1,name => <<\"a\">>,tags => [<<\"x\">>,{}]}"),
        "tags[1]: invalid type: a tuple, expected a string"
    );
    assert_eq!(
        refusal::<Plain>("#{id => 1,name => <<\"a\">>,tags => [],parent => #{id => -1}}"),
        "parent.id: invalid value: integer `-1`, expected u64"
    );
    assert_eq!(
        refusal::<Plain>("#{id => 1,name => nil}"),
        "name: invalid type: the atom nil, expected a string"
    );
    assert_eq!(refusal::<Plain>("#{id => 1}"), "missing field `name`");
    assert_eq!(
        refusal::<Shape>("{many,[nothing,{circle,x}]}"),
        "many[1].circle: invalid type: the atom x, expected f64"
    );
    assert_eq!(
        refusal::<Shape>("{line,1}"),
        "expected a tuple of 3 for the variant line, found a tuple of 2"
    );
    assert_eq!(
        refusal::<Shape>("circle"),
        "expected a tuple of 2 for the variant circle, found the atom alone"
    );
    assert!(refusal::<Shape>("square").starts_with("unknown variant `square`, expected one of"));
    assert_eq!(
        refusal::<(i32, i32)>("{1,2,3}"),
        "more elements than expected"
    );
    assert_eq!(
        refusal::<(i32, i32)>("{1}"),
        "invalid length 1, expected a tuple of size 2"
    );
    assert_eq!(
        refusal::<Vec<i32>>("[1|2]"),
        "expected a proper list, found an improper one"
    );
    assert_eq!(
        refusal::<User>("#{'__struct__' => 'Elixir.Other',name => a}"),
        "__struct__: invalid type: the atom Elixir.Other, expected the atom Elixir.MyApp.User"
    );
    assert_eq!(
        refusal::<Ping>("pong"),
        "invalid type: the atom pong, expected the atom ping"
    );
    assert_eq!(
        refusal::<u8>("256"),
        "invalid value: integer `256`, expected u8"
    );
    assert_eq!(
        to_vec(&vec![1.0, f64::NAN]).unwrap_err().to_string(),
        "[1]: a BEAM has no float NaN"
    );

    let error = from_bytes::<Vec<u8>>(b"\x83\x6b\0\x05abc").unwrap_err();
    assert_eq!(error.decode_error().unwrap().at, 4);
}

#[test]
fn after_an_error_nothing_is_written() {
    let mut out = vec![7];
    value::encode_into(&(1, f64::INFINITY), &mut out).unwrap_err();
    assert_eq!(out, [7]);
}

#[test]
fn nesting_is_bounded() {
    let nest = |levels: usize| {
        let text = "{many,[".repeat(levels) + "nothing" + &"]}".repeat(levels);
        from_term::<Shape>(&erl(&text))
    };
    // Each level is a tuple and a list; the innermost variant counts once more.
    let deepest = (value::DEPTH_MAX - 1) / 2;
    assert!(nest(deepest).is_ok());
    let error = nest(deepest + 1).unwrap_err().to_string();
    assert!(error.contains("more than 128 nested containers"), "{error}");
    // A type that recurses without a container in the bytes has nothing to recurse on.
    from_bytes::<Shape>(
        &[
            &[131][..],
            &b"\x68\x02\x77\x04many\x6c\0\0\0\x01".repeat(100_000),
        ]
        .concat(),
    )
    .unwrap_err();
}

#[test]
fn values_that_otp_wrote() {
    // term_to_binary(#{name => <<"Ada">>, age => 36, langs => ["en", <<"fr">>], at => {1.5, -2}, ok => true}).
    let bytes = b"\x83\x74\0\0\0\x05\x64\0\x03age\x61\x24\x64\0\x02at\x68\x02\x46\x3f\xf8\0\0\0\0\0\0\x62\xff\xff\xff\xfe\
        \x64\0\x05langs\x6c\0\0\0\x02\x6b\0\x02en\x6d\0\0\0\x02fr\x6a\x64\0\x04name\x6d\0\0\0\x03Ada\x64\0\x02ok\x64\0\x04true";
    #[derive(Deserialize, Debug, PartialEq)]
    struct Person {
        name: String,
        age: u8,
        langs: Vec<String>,
        at: (f64, f64),
        ok: bool,
    }
    let person: Person = from_bytes(bytes).unwrap();
    assert_eq!(
        person,
        Person {
            name: "Ada".into(),
            age: 36,
            langs: vec!["en".into(), "fr".into()],
            at: (1.5, -2.0),
            ok: true
        }
    );
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Nothing),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(Shape::Circle),
        any::<(i32, i32)>().prop_map(Shape::Boxed),
        any::<(i32, i32)>().prop_map(|(a, b)| Shape::Line(a, b)),
        any::<(u32, u32)>().prop_map(|(width, height)| Shape::Rect { width, height }),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop::collection::vec(inner, 0..6).prop_map(Shape::Many)
    })
}

type Mixed = (
    Vec<u8>,
    Vec<i64>,
    Vec<Option<String>>,
    BTreeMap<String, (bool, char)>,
    Result<u64, String>,
    Option<Vec<Vec<u8>>>,
);

proptest! {
    #[test]
    fn any_shape_survives(shape in any_shape()) {
        let bytes = to_vec(&shape).unwrap();
        prop_assert_eq!(from_bytes::<Shape>(&bytes).unwrap(), shape);
        // The bytes are those of the term.
        let term = decode(&Bytes::from(bytes.clone())).unwrap();
        let mut again = Vec::new();
        encode(&term, &mut again);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn any_mixture_survives(value in any::<Mixed>()) {
        let bytes = to_vec(&value).unwrap();
        prop_assert_eq!(from_bytes::<Mixed>(&bytes).unwrap(), value);
        let term = decode(&Bytes::from(bytes.clone())).unwrap();
        let mut again = Vec::new();
        encode(&term, &mut again);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn garbage_is_an_error_or_a_value(
        bytes in prop::collection::vec(prop_oneof![97u8..121, 0u8..4, Just(106u8)], 0..200),
    ) {
        let bytes = [&[131][..], &bytes].concat();
        let _ = from_bytes::<Plain>(&bytes);
        let _ = from_bytes::<Shape>(&bytes);
        let _ = from_bytes::<Mixed>(&bytes);
        // A value that takes anything agrees with the decoder.
        let any = from_bytes::<Term>(&bytes);
        prop_assert_eq!(any.ok(), decode(&Bytes::from(bytes)).ok());
    }
}
