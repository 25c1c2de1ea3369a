//! What the demo prints: numbered headings, code with the prompt of its language, and values that were checked.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::failure::Failure;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

pub(super) struct Page {
    /// Only for eyes, and only if they want it: <https://no-color.org>.
    colours: bool,
    headings: usize,
    start: Instant,
}

impl Page {
    pub(super) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            colours: wanted && io::stdout().is_terminal(),
            headings: 0,
            start: Instant::now(),
        }
    }

    /// How long the demo has run.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The title, or the last words.
    pub(super) fn title(&self, text: &str) -> io::Result<()> {
        self.line(&self.painted(BOLD, text))
    }

    /// A chapter.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.headings += 1;
        let text = format!("{}. {text}", self.headings);
        self.line(&format!("\n{}", self.painted(BOLD, &text)))
    }

    /// A remark.
    pub(super) fn remark(&self, text: &str) -> io::Result<()> {
        self.line(&format!("   {}", self.painted(DIM, text)))
    }

    /// Elixir that runs now, on the BEAM.
    pub(super) fn elixir(&self, code: &str) -> io::Result<()> {
        self.code("iex>", "...>", code)
    }

    /// Rust that runs now, in this program.
    pub(super) fn rust(&self, code: &str) -> io::Result<()> {
        self.code("rust>", "....>", code)
    }

    fn code(&self, first: &str, next: &str, code: &str) -> io::Result<()> {
        for (number, line) in code.lines().enumerate() {
            let prompt = if number == 0 { first } else { next };
            self.line(&format!(
                "   {} {}",
                self.painted(DIM, prompt),
                self.painted(CYAN, line)
            ))?;
        }
        Ok(())
    }

    /// What came of it, and whether that is what the demo promises.
    pub(super) fn check(
        &self,
        value: &str,
        as_promised: bool,
        promise: &str,
    ) -> Result<(), Failure> {
        let (colour, mark) = match as_promised {
            true => (GREEN, "✓"),
            false => (RED, "✗"),
        };
        self.line(&format!("   {} {value}", self.painted(colour, mark)))?;
        match as_promised {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "the demo failed in step {}: expected {promise}, got {value}",
                self.headings
            ))),
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn line(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }
}
