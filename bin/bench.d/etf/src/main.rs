//! Times the term codec beside its peers and the BEAM, on terms that the BEAM made.
//!
//! All codecs take turns within each round, so that a noisy machine disturbs them alike; the figures are medians
//! over the rounds, and the ratios are what to look at. `ROUNDS` and `MILLISECONDS` (per measurement) are settings.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use bytes::Bytes;

const TERMS: [(&str, &str); 8] = [
    ("gen_call", "{'$gen_call',{Pid,[alias|Ref]},{get,Bin}}"),
    ("ints10k", "list of 10,000 integers"),
    ("map1k", "map of 1,000 binaries to integers"),
    ("json100k", "JSON-like, nested, 100 kB"),
    ("bin1m", "binary of 1 MiB"),
    ("atoms10k", "10,000 atoms, 200 distinct"),
    ("tuples10k", "10,000 {ok,I,Bin,Float}"),
    ("pids1k", "1,000 {Pid,Ref}"),
];

const OURS: &str = "tiebeam";
const BEAM: &str = "beam";

/// Runs a codec so many times and gives the nanoseconds that it took.
type Run<'a> = Box<dyn FnMut(usize) -> f64 + 'a>;

struct Codec<'a> {
    name: &'static str,
    run: Run<'a>,
}

fn main() {
    let rounds = setting("ROUNDS", 9);
    let nanoseconds = setting("MILLISECONDS", 40) as f64 * 1e6;
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: bench_etf FOLDER"));
    let beam = std::cell::RefCell::new(Beam::start(&folder));
    for operation in ["decode", "encode"] {
        println!("\n{operation}, time per operation (ratio of {OURS} to it)");
        for (name, what) in TERMS {
            let bytes = Bytes::from(std::fs::read(folder.join(format!("{name}.etf"))).unwrap());
            let mut codecs = match operation {
                "decode" => decoders(&bytes),
                _ => encoders(&bytes),
            };
            codecs.push(Codec {
                name: BEAM,
                run: Box::new(|count| beam.borrow_mut().run(operation, name, count)),
            });
            let medians = measure(&mut codecs, rounds, nanoseconds);
            report(what, bytes.len(), &medians);
        }
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a setting is a number"))
}

/// The median of each codec, in nanoseconds per operation.
fn measure(codecs: &mut [Codec<'_>], rounds: usize, nanoseconds: f64) -> Vec<(&'static str, f64)> {
    let counts: Vec<usize> = codecs
        .iter_mut()
        .map(|codec| {
            (codec.run)(2);
            let once = (codec.run)(5) / 5.0;
            ((nanoseconds / once.max(1.0)) as usize).clamp(3, 1_000_000)
        })
        .collect();
    let mut samples = vec![Vec::new(); codecs.len()];
    // The first round warms up.
    for round in 0..=rounds {
        for ((codec, count), samples) in codecs.iter_mut().zip(&counts).zip(&mut samples) {
            let sample = (codec.run)(*count) / *count as f64;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    codecs
        .iter()
        .zip(&mut samples)
        .map(|(codec, samples)| {
            samples.sort_by(f64::total_cmp);
            (codec.name, samples[samples.len() / 2])
        })
        .collect()
}

fn report(what: &str, len: usize, medians: &[(&str, f64)]) {
    let ours = medians[0].1;
    println!("  {what} ({len} bytes)");
    for (name, median) in medians {
        println!(
            "    {name:<18} {:>10}   {:>5.2}",
            time(*median),
            ours / median
        );
    }
    let best = medians
        .iter()
        .filter(|(name, _)| ![OURS, BEAM].contains(name))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((name, median)) = best {
        println!(
            "    {:<18} {:>10}   {:>5.2}  ({name})",
            "best peer",
            time(*median),
            ours / median
        );
    }
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 10_000.0 => format!("{ns:.0} ns"),
        ns if ns < 1e7 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

fn timed(mut work: impl FnMut(usize)) -> impl FnMut(usize) -> f64 {
    move |count| {
        let start = Instant::now();
        work(count);
        start.elapsed().as_nanos() as f64
    }
}

fn codec<'a>(name: &'static str, work: impl FnMut(usize) + 'a) -> Codec<'a> {
    Codec {
        name,
        run: Box::new(timed(work)),
    }
}

fn decoders(bytes: &Bytes) -> Vec<Codec<'_>> {
    let mut codecs = vec![
        codec(OURS, move |count| {
            for _ in 0..count {
                black_box(tiebeam_wire::decode::decode(black_box(bytes)).unwrap());
            }
        }),
        codec("eetf", move |count| {
            for _ in 0..count {
                black_box(eetf::Term::decode(black_box(&bytes[..])).unwrap());
            }
        }),
        codec("erltf", move |count| {
            for _ in 0..count {
                black_box(erltf::decode(black_box(bytes)).unwrap());
            }
        }),
        codec("erlang-term", move |count| {
            for _ in 0..count {
                black_box(erlang_term::RawTerm::from_bytes(black_box(bytes)).unwrap());
            }
        }),
    ];
    if erltf::decode_borrowed(bytes).is_ok() {
        codecs.push(codec("erltf, borrowed", move |count| {
            for _ in 0..count {
                black_box(erltf::decode_borrowed(black_box(bytes)).unwrap());
            }
        }));
    }
    codecs
}

fn encoders(bytes: &Bytes) -> Vec<Codec<'static>> {
    let ours = tiebeam_wire::decode::decode(bytes).unwrap();
    let eetf = eetf::Term::decode(&bytes[..]).unwrap();
    let erltf = erltf::decode(bytes).unwrap();
    let raw = erlang_term::RawTerm::from_bytes(bytes).unwrap();
    let mut out = Vec::new();
    tiebeam_wire::encode::encode(&ours, &mut out);
    assert_eq!(out, bytes[..], "what is written is what the BEAM wrote");
    let mut reused = Vec::new();
    vec![
        // Into a buffer that is used again, where a codec can.
        codec(OURS, move |count| {
            for _ in 0..count {
                out.clear();
                tiebeam_wire::encode::encode(black_box(&ours), &mut out);
                black_box(&out);
            }
        }),
        codec("eetf", move |count| {
            for _ in 0..count {
                reused.clear();
                black_box(&eetf).encode(&mut reused).unwrap();
                black_box(&reused);
            }
        }),
        codec("erltf", move |count| {
            for _ in 0..count {
                black_box(erltf::encode(black_box(&erltf)).unwrap());
            }
        }),
        // Consumes the term; the clones are made outside of the measured time.
        Codec {
            name: "erlang-term",
            run: Box::new(move |count| {
                let mut left = count;
                let mut total = 0.0;
                while left > 0 {
                    let terms = vec![raw.clone(); left.min(64)];
                    left -= terms.len();
                    let start = Instant::now();
                    for term in terms {
                        black_box(black_box(term).to_bytes());
                    }
                    total += start.elapsed().as_nanos() as f64;
                }
                total
            }),
        },
    ]
}

/// A BEAM that makes the terms and times itself on request.
struct Beam {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Beam {
    fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("beam.erl");
        let compiled = Command::new("erlc")
            .arg("-o")
            .arg(folder)
            .arg(source)
            .status();
        assert!(
            compiled.is_ok_and(|status| status.success()),
            "erlc is needed; Debian has it in erlang-base"
        );
        let mut process = Command::new("erl")
            .args(["-noshell", "-pa"])
            .arg(folder)
            .args(["-run", "beam", "serve"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("erl starts");
        let requests = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut beam = Self {
            process,
            requests,
            answers,
        };
        assert_eq!(beam.answer(), "ready");
        beam
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    fn run(&mut self, operation: &str, name: &str, count: usize) -> f64 {
        writeln!(self.requests, "{operation} {name} {count}").unwrap();
        self.requests.flush().unwrap();
        self.answer().parse().unwrap()
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        // It owns nothing that needs a farewell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
