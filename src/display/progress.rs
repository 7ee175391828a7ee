//! Progress of a run on standard error: a bar on a terminal, plain lines in a log file, or a JSON object per event.

use crate::system::console::{Console, event, speaks_json, write_line};
use crate::training::history::EpochRecord;
use crate::training::observer::{FIRST_TRAINING, Observer};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::words::{rate, seconds};

/// How progress is shown.
#[derive(Debug, Clone, Copy)]
pub enum ProgressKind<'a> {
    /// A bar that redraws itself.
    Bar,
    /// A line at the first and the last epoch, and in between at most one per interval.
    Lines,
    /// Nothing.
    Silent,
    /// One line among those of other runs: stage, epoch and validation ELBO; notes are left to whoever owns the lines.
    Within(&'a ProgressBar),
    /// A JSON object per event, in a line of its own; with the name of the run where several share the output.
    Json(Option<&'a str>),
}

impl ProgressKind<'_> {
    /// Nothing if `quiet`, JSON if that was chosen, a bar if standard error is a terminal, lines otherwise.
    pub fn choose(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => ProgressKind::Silent,
            _ if speaks_json() => ProgressKind::Json(None),
            (false, true) => ProgressKind::Bar,
            (false, false) => ProgressKind::Lines,
        }
    }
}

impl Console for ProgressKind<'_> {
    fn event(&self, name: &str, fields: Value) {
        if let ProgressKind::Json(run) = self {
            write_line(&mut std::io::stderr(), &event(name, *run, fields));
        }
    }

    fn note(&self, text: &str) {
        match self {
            ProgressKind::Silent | ProgressKind::Within(_) => {}
            ProgressKind::Json(_) => self.event("note", json!({ "message": text })),
            ProgressKind::Bar | ProgressKind::Lines => write_line(&mut std::io::stderr(), text),
        }
    }

    fn warn(&self, text: &str) {
        let line = format!("Warning: {text}");
        match self {
            ProgressKind::Json(_) => self.event("warning", json!({ "message": text })),
            ProgressKind::Silent if speaks_json() => {
                write_line(&mut std::io::stderr(), &event("warning", None, json!({ "message": text })));
            }
            ProgressKind::Within(bar) => bar.suspend(|| write_line(&mut std::io::stderr(), &line)),
            _ => write_line(&mut std::io::stderr(), &line),
        }
    }

    fn shows_events(&self) -> bool {
        matches!(self, ProgressKind::Json(_))
    }
}

/// Least time between two lines of a log file.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows the progress of a run, stage by stage, on standard error.
#[derive(Debug)]
pub struct Progress<'a> {
    kind: ProgressKind<'a>,
    stage: Option<StageProgress<'a>>,
}

impl<'a> Progress<'a> {
    /// Nothing is shown yet.
    pub fn new(kind: ProgressKind<'a>) -> Self {
        Self { kind, stage: None }
    }
}

impl Observer for Progress<'_> {
    fn stage(&mut self, name: &str, epochs: usize, cells: usize) {
        self.stage = Some(StageProgress::to(std::io::stderr(), self.kind, name, epochs, cells));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        if let Some(stage) = &mut self.stage {
            stage.epoch(record);
        }
    }

    fn stage_ended(&mut self) {
        if let Some(stage) = self.stage.take() {
            stage.finish();
        }
    }

    fn note(&mut self, text: &str) {
        match &mut self.stage {
            Some(stage) => stage.note(text),
            None => self.kind.note(text),
        }
    }

    fn warn(&mut self, text: &str) {
        self.kind.warn(text);
    }
}

/// Shows the progress of one stage.
#[derive(Debug)]
struct StageProgress<'a, W: Write = std::io::Stderr> {
    kind: ProgressKind<'a>,
    /// Its name.
    stage: String,
    out: W,
    bar: Option<ProgressBar>,
    total_epochs: usize,
    cells_per_epoch: usize,
    line_interval: Duration,
    started: Instant,
    epochs: usize,
    last_line: Option<(Instant, usize)>,
    last_record: Option<EpochRecord>,
}

impl<'a, W: Write> StageProgress<'a, W> {
    fn to(out: W, kind: ProgressKind<'a>, stage: &str, total_epochs: usize, cells_per_epoch: usize) -> Self {
        if let ProgressKind::Within(line) = kind {
            line.set_length(total_epochs as u64);
            line.set_position(0);
            line.set_message(stage.to_owned());
        }
        if let ProgressKind::Json(_) = kind {
            kind.event("stage", json!({ "stage": stage, "epochs": total_epochs, "cells": cells_per_epoch }));
        }
        let bar = (matches!(kind, ProgressKind::Bar) && total_epochs > 0).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total_epochs as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:10} {prefix}{pos}/{len} {wide_msg}");
            bar.set_style(style.expect("the template is valid"));
            if stage != FIRST_TRAINING {
                bar.set_prefix(format!("{stage} "));
            }
            bar
        });
        Self {
            kind,
            stage: stage.to_owned(),
            out,
            bar,
            total_epochs,
            cells_per_epoch,
            line_interval: LINE_INTERVAL,
            started: Instant::now(),
            epochs: 0,
            last_line: None,
            last_record: None,
        }
    }

    /// Shows an epoch that has ended.
    fn epoch(&mut self, record: &EpochRecord) {
        self.epochs += 1;
        self.last_record = Some(*record);
        match self.kind {
            ProgressKind::Silent => {}
            ProgressKind::Json(_) => {
                let mut fields = json!({ "stage": self.stage });
                if let (Value::Object(fields), Ok(Value::Object(record))) = (&mut fields, serde_json::to_value(record))
                {
                    fields.extend(record);
                }
                self.kind.event("epoch", fields);
            }
            ProgressKind::Within(line) => {
                line.set_message(format!("{}, ELBO validation {:.2}", self.stage, record.validation_elbo));
                line.set_position(record.epoch as u64);
            }
            ProgressKind::Bar => {
                let message = self.describe_briefly(record);
                if let Some(bar) = &self.bar {
                    bar.set_message(message);
                    bar.set_position(record.epoch as u64);
                }
            }
            ProgressKind::Lines => {
                let due = self.last_line.is_none_or(|(time, _)| time.elapsed() >= self.line_interval);
                if due || record.epoch == self.total_epochs {
                    self.line(record);
                }
            }
        }
    }

    /// Prints a sentence, without disturbing the bar.
    fn note(&mut self, text: &str) {
        match (self.kind, &self.bar) {
            (ProgressKind::Silent | ProgressKind::Within(_), _) => {}
            (ProgressKind::Json(_), _) => self.kind.note(text),
            (_, Some(bar)) => bar.suspend(|| write_line(&mut self.out, text)),
            (_, None) => write_line(&mut self.out, text),
        }
    }

    /// Ends the display; in a log file the last epoch is shown if it was not yet.
    fn finish(mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
        if matches!(self.kind, ProgressKind::Lines)
            && let Some(record) = self.last_record
            && self.last_line.is_none_or(|(_, epoch)| epoch != record.epoch)
        {
            self.line(&record);
        }
    }

    fn line(&mut self, record: &EpochRecord) {
        let width = self.total_epochs.to_string().len();
        let stage = if self.stage == FIRST_TRAINING { String::new() } else { format!("{}, ", self.stage) };
        let text = format!("{stage}epoch {:>width$}/{}  {}", record.epoch, self.total_epochs, self.describe(record));
        write_line(&mut self.out, &text);
        self.last_line = Some((Instant::now(), record.epoch));
    }

    /// Seconds to the last epoch, if the training goes so far.
    fn remaining(&self, record: &EpochRecord) -> f64 {
        let left = self.total_epochs.saturating_sub(record.epoch) as f64;
        self.started.elapsed().as_secs_f64() / self.epochs as f64 * left
    }

    /// What a bar says beside itself: it fits, with all of it, into a terminal of 80 columns.
    fn describe_briefly(&self, record: &EpochRecord) -> String {
        let figure = |x: f64| if x.abs() < 1000.0 { format!("{x:.2}") } else { format!("{x:.0}") };
        if record.train_elbo.is_nan() {
            let (kl, speed) = (figure(record.train_kl), rate(self.cells_per_epoch as f64 / record.seconds));
            return format!("divergence {kl} {speed}/s \u{2264}{}", brief(self.remaining(record)));
        }
        format!(
            "ELBO {} val {} mask {:.2} {}/s \u{2264}{}",
            figure(record.train_elbo),
            figure(record.validation_elbo),
            record.mean_mask,
            rate(self.cells_per_epoch as f64 / record.seconds),
            brief(self.remaining(record)),
        )
    }

    fn describe(&self, record: &EpochRecord) -> String {
        // A fit of shifts knows nothing else.
        if record.train_elbo.is_nan() {
            let (speed, left) = (rate(self.cells_per_epoch as f64 / record.seconds), seconds(self.remaining(record)));
            return format!("divergence {:.2}  {speed} cells/s  at most {left} left", record.train_kl);
        }
        format!(
            "ELBO train {:.2}  validation {:.2}  mask {:.3}  {} cells/s  at most {} left",
            record.train_elbo,
            record.validation_elbo,
            record.mean_mask,
            rate(self.cells_per_epoch as f64 / record.seconds),
            seconds(self.remaining(record)),
        )
    }
}

/// A duration in few characters: 52s, 4m05s, 2h03m.
fn brief(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "-".to_owned();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Least number of bytes whose reading is shown.
const SHOWN_BYTES: u64 = 1 << 24;

/// Shows how much of a data file has been read: a bar on a terminal, nothing elsewhere, for reading is quick.
#[derive(Debug)]
pub struct ReadProgress {
    shown: bool,
    bar: Option<ProgressBar>,
}

impl ReadProgress {
    /// Nothing is shown yet.
    pub fn new(kind: ProgressKind) -> Self {
        Self { shown: matches!(kind, ProgressKind::Bar), bar: None }
    }

    /// Shows that `bytes` of `of` have been read.
    pub fn show(&mut self, bytes: u64, of: u64) {
        if !self.shown || of < SHOWN_BYTES {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(of), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:24} reading {bytes}/{total_bytes}  {bytes_per_sec}");
            bar.set_style(style.expect("the template is valid"));
            bar
        });
        bar.set_length(of);
        bar.set_position(bytes);
    }

    /// Takes the bar away.
    pub fn finish(self) {}
}

impl Drop for ReadProgress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: usize) -> EpochRecord {
        EpochRecord {
            epoch,
            kl_weight: 0.5,
            train_loss: 1.0,
            train_elbo: 400.25,
            train_reconstruction: 380.0,
            train_kl: 20.0,
            kl_global: 5.0,
            validation_elbo: 401.5,
            validation_reconstruction: 381.0,
            validation_kl: 20.0,
            mean_mask: 0.25,
            seconds: 0.5,
        }
    }

    fn shown(kind: ProgressKind, epochs: usize, total: usize, interval: Duration) -> String {
        let mut text = Vec::new();
        let mut progress = StageProgress::to(&mut text, kind, FIRST_TRAINING, total, 10_000);
        progress.line_interval = interval;
        for epoch in 1..=epochs {
            progress.epoch(&record(epoch));
        }
        progress.note("A note.");
        progress.finish();
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn a_log_file_gets_the_first_and_the_last_epoch() {
        for (epochs, total) in [(300, 300), (212, 300)] {
            let text = shown(ProgressKind::Lines, epochs, total, Duration::from_secs(3600));
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("epoch")).collect();
            assert_eq!(lines.len(), 2, "{text}");
            assert!(lines[0].starts_with("epoch   1/300") && lines[1].starts_with(&format!("epoch {epochs}/300")));
            for part in ["400.25", "401.50", "0.250", "20,000 cells/s"] {
                assert!(lines[1].contains(part), "{part} in {text}");
            }
            assert!(text.contains("A note.\n"));
        }
    }

    #[test]
    fn a_log_file_gets_a_line_per_interval() {
        let text = shown(ProgressKind::Lines, 7, 7, Duration::ZERO);
        assert_eq!(text.lines().filter(|line| line.starts_with("epoch")).count(), 7);
    }

    #[test]
    fn the_line_of_the_bar_fits_into_80_columns() {
        let mut progress = StageProgress::to(Vec::new(), ProgressKind::Silent, "retraining", 500, 45_000);
        progress.started = Instant::now() - Duration::from_secs(7000);
        progress.epochs = 1;
        let record = EpochRecord {
            train_elbo: 12_345.678,
            validation_elbo: 12_345.678,
            seconds: 45_000.0 / 231_507.0,
            ..record(1)
        };
        let line = format!("{} retraining 499/500 {}", "\u{2588}".repeat(10), progress.describe_briefly(&record));
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        for part in ["12346", "231,507/s", "h"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn an_event_is_a_line_of_json() {
        let line = event("epoch", Some("a"), json!({ "stage": "training", "text": "two\nlines" }));
        assert!(!line.contains('\n'), "{line}");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!([&value["event"], &value["run"], &value["stage"]], ["epoch", "a", "training"]);
        assert_eq!(value["time"].as_str().map(str::len), Some(24));
    }

    #[test]
    fn quiet_is_silent() {
        assert_eq!(shown(ProgressKind::Silent, 5, 5, Duration::ZERO), "");
    }
}
