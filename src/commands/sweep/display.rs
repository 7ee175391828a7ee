//! What a sweep shows on standard error: on a terminal a line per run at work and one for the whole, in a log file a
//! line per event, as text or as JSON.

use crate::system::console;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use serde_json::json;

use crate::display::progress::ProgressKind;
use crate::system::console::Console;
use crate::words::seconds;

/// Shows the progress of a sweep.
#[derive(Debug)]
pub struct Display {
    kind: Kind,
    /// Runs to do.
    n: usize,
    /// Runs done.
    ended: Mutex<usize>,
    started: Instant,
}

#[derive(Debug)]
enum Kind {
    Terminal { lines: MultiProgress, total: ProgressBar },
    Log,
    Json,
    Silent,
}

/// Names of runs are cut to so many letters in the live lines.
const LINE: &str = "  {prefix:<44!} {bar:12} {pos:>4}/{len:<4} {elapsed:>4} {wide_msg}";

impl Display {
    /// A display of `n` runs to do.
    pub fn new(n: usize, quiet: bool) -> Self {
        let kind = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Kind::Silent,
            _ if console::speaks_json() => Kind::Json,
            (false, false) => Kind::Log,
            (false, true) => {
                let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
                let total = lines.add(ProgressBar::new(n as u64));
                let style = ProgressStyle::with_template("{bar:24} {pos}/{len} runs  {elapsed_precise}  {wide_msg}");
                total.set_style(style.expect("the template is valid"));
                total.enable_steady_tick(Duration::from_secs(1));
                Kind::Terminal { lines, total }
            }
        };
        Self { kind, n, ended: Mutex::new(0), started: Instant::now() }
    }

    /// Prints a sentence.
    pub fn note(&self, text: &str) {
        match &self.kind {
            // A closed standard error must not end a sweep, so failures to write are ignored.
            Kind::Terminal { lines, .. } => drop(lines.println(text)),
            Kind::Log => drop(writeln!(std::io::stderr(), "{text}")),
            Kind::Json => ProgressKind::Json(None).note(text),
            Kind::Silent => {}
        }
    }

    /// A run begins; the line that shows how far it is.
    pub fn begin(&self, name: &str, threads: usize) -> ProgressBar {
        let of = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
        match &self.kind {
            Kind::Terminal { lines, total } => {
                let line = lines.insert_before(total, ProgressBar::new(0));
                line.set_style(ProgressStyle::with_template(LINE).expect("the template is valid"));
                line.set_prefix(name.to_owned());
                line.set_message("data");
                line
            }
            Kind::Log => {
                self.note(&format!("{name}: begins, {of}"));
                ProgressBar::hidden()
            }
            Kind::Json => {
                ProgressKind::Json(Some(name)).event("run_begins", json!({ "threads": threads }));
                ProgressBar::hidden()
            }
            Kind::Silent => ProgressBar::hidden(),
        }
    }

    /// How the progress of the run called `name` is shown, whose line is `line`.
    pub fn kind<'a>(&self, line: &'a ProgressBar, name: &'a str) -> ProgressKind<'a> {
        match self.kind {
            Kind::Json => ProgressKind::Json(Some(name)),
            _ => ProgressKind::Within(line),
        }
    }

    /// A run has been stopped, as `what` says, and is not done.
    pub fn pause(&self, line: &ProgressBar, name: &str, what: &str) {
        if let Kind::Terminal { lines, .. } = &self.kind {
            line.finish_and_clear();
            lines.remove(line);
        }
        match self.kind {
            Kind::Json => ProgressKind::Json(Some(name)).event("run_stopped", json!({ "message": what })),
            _ => self.note(&format!("{name}: {what}")),
        }
    }

    /// A run has ended as `what` says.
    pub fn end(&self, line: &ProgressBar, name: &str, what: &str) {
        let ended = {
            let mut ended = self.ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *ended += 1;
            *ended
        };
        let width = self.n.to_string().len();
        if let Kind::Terminal { lines, total } = &self.kind {
            line.finish_and_clear();
            lines.remove(line);
            total.set_position(ended as u64);
            let rest = self.started.elapsed().as_secs_f64() / ended as f64 * (self.n - ended) as f64;
            total.set_message(format!("about {} left", seconds(rest)));
        }
        match self.kind {
            Kind::Json => {
                let fields = json!({ "message": what, "ended": ended, "of": self.n });
                ProgressKind::Json(Some(name)).event("run_ends", fields);
            }
            _ => self.note(&format!("[{ended:>width$}/{}] {name}: {what}", self.n)),
        }
    }

    /// Ends the display.
    pub fn close(&self) {
        if let Kind::Terminal { lines, total } = &self.kind {
            total.finish_and_clear();
            let _ = lines.clear();
        }
    }
}
