//! Passes on what a running stage says, and remembers it in case the stage fails.

use std::{
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{RunEvent, event::Level, stage_run::Walk, text, worker::may_pass};
use crate::stage::StageReporter;

/// More than this is not remembered.
const MAX_LOG_BYTES: usize = 1 << 20;

/// What a running stage reports to.
pub(super) struct Reporter<'a> {
    walk: &'a Walk<'a>,
    stage: &'a str,
    began: Instant,
    last_progress: Mutex<Option<Instant>>,
    said: Mutex<String>,
    program_peak: AtomicU64,
    device: Mutex<Option<String>>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(walk: &'a Walk<'a>, stage: &'a str) -> Self {
        Self {
            walk,
            stage,
            began: Instant::now(),
            last_progress: Mutex::new(None),
            said: Mutex::default(),
            program_peak: AtomicU64::new(0),
            device: Mutex::default(),
        }
    }

    /// All that the stage said, and why it failed.
    pub(super) fn log(&self, error: &str) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{said}failed after {}: {error}\n", text::duration(self.began.elapsed().as_secs_f64()))
    }

    /// The most memory that a process of the stage's own held, if there was one.
    pub(super) fn program_peak_bytes(&self) -> Option<u64> {
        Some(self.program_peak.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// What computed.
    pub(super) fn device(&self) -> String {
        self.device.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| "cpu".to_owned())
    }

    fn say(&self, level: Level, message: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < MAX_LOG_BYTES {
            let word = if level == Level::Warning { "warning: " } else { "" };
            let _ = writeln!(said, "{:9.1} s  {word}{message}", self.began.elapsed().as_secs_f64());
        }
        drop(said);
        self.walk.tell(&RunEvent::StageMessage { stage: self.stage.to_owned(), level, message: message.to_owned() });
    }
}

impl StageReporter for Reporter<'_> {
    fn progress(&self, done: u64, total: u64, unit: &str, message: &str) {
        if may_pass(&self.last_progress, done >= total) {
            self.walk.tell(&RunEvent::StageProgress {
                stage: self.stage.to_owned(),
                done,
                total,
                unit: unit.to_owned(),
                message: message.to_owned(),
            });
        }
    }

    fn warn(&self, message: &str) {
        self.say(Level::Warning, message);
    }

    fn info(&self, message: &str) {
        self.say(Level::Info, message);
    }

    fn metric(&self, name: &str, step: u64, value: f64) {
        self.walk.tell(&RunEvent::StageMetric {
            stage: self.stage.to_owned(),
            name: name.to_owned(),
            step,
            value: value.is_finite().then_some(value),
        });
    }

    fn is_cancelled(&self) -> bool {
        self.walk.runner.cancel.is_set()
    }

    fn program_peak(&self, bytes: u64) {
        self.program_peak.fetch_max(bytes, Ordering::Relaxed);
    }

    fn computes_on(&self, device: &str) {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = Some(device.to_owned());
    }
}
