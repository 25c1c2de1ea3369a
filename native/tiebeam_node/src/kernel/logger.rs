//! `logger`: what processes elsewhere report, whose group leader lives here, goes to this node's log.

use tiebeam_wire::Term;
use tracing::{debug, error, info, warn};

use crate::kernel::io::text;
use crate::kernel::notsup;
use crate::node::Node;
use crate::process::Signal;

/// The names that OTP's nodes send reports to. `auth` is told of refused cookies.
const NAMES: [&str; 4] = ["logger_proxy", "logger", "error_logger", "auth"];

pub(super) fn start(node: &Node) {
    let Ok(process) = node.spawn_anonymous() else {
        return;
    };
    for name in NAMES {
        if let Err(error) = process.register(name) {
            warn!("cannot register {name}: {error}");
        }
    }
    node.run(process, |mut process| async move {
        while let Some(signal) = process.recv().await {
            match signal {
                Signal::Call(call) => drop(call.reply_term(notsup())),
                Signal::Message(Term::Tuple(message)) | Signal::Cast(Term::Tuple(message)) => {
                    report(&message)
                }
                _ => {}
            }
        }
        Ok(())
    });
}

fn report(message: &[Term]) {
    match message {
        // {log, Level, Format, Args, Meta} or {log, Level, StringOrReport, Meta}
        [Term::Atom(log), Term::Atom(level), rest @ ..] if *log == "log" && rest.len() >= 2 => {
            let what = match rest {
                [format, Term::List(args), _meta] => text::format(format, args),
                [Term::Tuple(string), ..] if string.len() == 2 && string[0].is_atom("string") => {
                    text::characters(&string[1]).unwrap_or_else(|| string[1].to_string())
                }
                [report, ..] => report.to_string(),
                [] => String::new(),
            };
            write(level.as_str(), &what);
        }
        // {print, Format, Args}
        [Term::Atom(print), format, Term::List(args)] if *print == "print" => {
            write("info", &text::format(format, args));
        }
        _ => debug!("a report in an unknown form: {}", Term::tuple(message)),
    }
}

fn write(level: &str, what: &str) {
    let what = what.trim_end();
    match level {
        "emergency" | "alert" | "critical" | "error" => error!(target: "beam", "{what}"),
        "warning" => warn!(target: "beam", "{what}"),
        "notice" | "info" => info!(target: "beam", "{what}"),
        _ => debug!(target: "beam", "{what}"),
    }
}
