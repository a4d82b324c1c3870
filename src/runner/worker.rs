//! A stage in a process of its own: the worker's side, and what the two say to each other.
//!
//! The worker reads a [`StageJob`] as one line from its input and answers with one event a line. A second
//! line, `cancel`, asks it to stop at a good place. The end of its input means that whoever sent the job is gone:
//! then the worker ends, too.

use std::{
    any::Any,
    collections::BTreeMap,
    io::{self, BufRead, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{StageExecutor, StageJob, job::JOB_VERSION, runner_error::chain};
use crate::{
    stage::{StageError, StageOutcome, StageReporter},
    sys,
};

/// The line that asks a worker to stop.
pub(super) const CANCEL: &str = "cancel";
/// Progress is passed on this often at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What a worker says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum JobEvent {
    /// The job is understood and begins.
    Started { version: u32 },
    /// See [`StageReporter::progress`].
    Progress { done: u64, total: u64, unit: String, message: String },
    /// See [`StageReporter::warn`].
    Warning { message: String },
    /// See [`StageReporter::info`].
    Info { message: String },
    /// See [`StageReporter::metric`]; null for what is not finite.
    Metric { name: String, step: u64, value: Option<f64> },
    /// See [`StageReporter::program_peak`].
    ProgramPeak { bytes: u64 },
    /// See [`StageReporter::computes_on`].
    ComputesOn { device: String },
    /// The outputs are complete.
    Finished { metrics: BTreeMap<String, Option<f64>> },
    /// There are none.
    Failed { failure: JobFailure },
}

/// A [`StageError`] on its way from one process to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", rename_all = "snake_case")]
pub(super) enum JobFailure {
    Cancelled,
    Data { message: String, help: Option<String> },
    Config { message: String, help: Option<String> },
    Training { message: String, help: Option<String> },
    Command { message: String, help: Option<String> },
    Crashed { message: String, help: Option<String> },
    Io { action: String, path: PathBuf, code: Option<i32>, message: String },
    Artifact { path: PathBuf, message: String },
}

impl From<&StageError> for JobFailure {
    fn from(error: &StageError) -> Self {
        let text = |message: &String, help: &Option<String>| (message.clone(), help.clone());
        match error {
            StageError::Cancelled => Self::Cancelled,
            StageError::Data { message, help } => {
                let (message, help) = text(message, help);
                Self::Data { message, help }
            }
            StageError::Config { message, help } => {
                let (message, help) = text(message, help);
                Self::Config { message, help }
            }
            StageError::Training { message, help } => {
                let (message, help) = text(message, help);
                Self::Training { message, help }
            }
            StageError::Command { message, help } => {
                let (message, help) = text(message, help);
                Self::Command { message, help }
            }
            StageError::Crashed { message, help } => {
                let (message, help) = text(message, help);
                Self::Crashed { message, help }
            }
            StageError::Io { action, path, source } => Self::Io {
                action: (*action).to_owned(),
                path: path.clone(),
                code: source.raw_os_error(),
                message: chain(source),
            },
            StageError::Artifact { path, message } => Self::Artifact { path: path.clone(), message: message.clone() },
        }
    }
}

impl From<JobFailure> for StageError {
    fn from(failure: JobFailure) -> Self {
        match failure {
            JobFailure::Cancelled => Self::Cancelled,
            JobFailure::Data { message, help } => Self::Data { message, help },
            JobFailure::Config { message, help } => Self::Config { message, help },
            JobFailure::Training { message, help } => Self::Training { message, help },
            JobFailure::Command { message, help } => Self::Command { message, help },
            JobFailure::Crashed { message, help } => Self::Crashed { message, help },
            JobFailure::Io { action, path, code, message } => Self::Io {
                // The words are few, and an error wants one that lives for ever.
                action: ["read", "write", "create", "rename", "remove", "start", "wait for", "create the folder"]
                    .into_iter()
                    .find(|known| *known == action)
                    .unwrap_or("use"),
                path,
                source: code.map_or_else(|| io::Error::other(message), io::Error::from_raw_os_error),
            },
            JobFailure::Artifact { path, message } => Self::Artifact { path, message },
        }
    }
}

/// Executes the job that comes on `input`, and says on `output` what becomes of it. Calls `on_orphaned` from
/// another thread when `input` ends before the job does.
///
/// # Errors
/// When nobody reads what is said. A job that fails is no error here: it is said.
pub fn work(
    mut input: impl BufRead + Send + 'static,
    output: impl Write + Send,
    executor: &dyn StageExecutor,
    start_threads: &dyn Fn(usize),
    on_orphaned: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let reporter = Reporter { output: Mutex::new(output), cancelled: Arc::default(), last_progress: Mutex::new(None) };
    let mut line = String::new();
    input.read_line(&mut line)?;
    let job: StageJob = match serde_json::from_str(&line) {
        Ok(job) => job,
        Err(error) => {
            let message = format!("the job cannot be understood: {error}");
            let help = Some("let both sides be of one version of simsiam-pipe".to_owned());
            return reporter.send(&JobEvent::Failed { failure: JobFailure::Crashed { message, help } });
        }
    };
    start_threads(job.threads);
    reporter.send(&JobEvent::Started { version: JOB_VERSION })?;
    let cancelled = Arc::clone(&reporter.cancelled);
    thread::spawn(move || {
        let mut line = String::new();
        while matches!(input.read_line(&mut line), Ok(len) if len > 0) {
            if line.trim() == CANCEL {
                cancelled.store(true, Ordering::SeqCst);
            }
            line.clear();
        }
        on_orphaned();
    });
    let result = catch_unwind(AssertUnwindSafe(|| executor.execute(&job, &reporter))).unwrap_or_else(|payload| {
        let message = format!("the stage panicked: {}", panic_message(&*payload));
        let help = "this is a defect of simsiam-pipe: please report it with this message";
        Err(StageError::Crashed { message, help: Some(help.to_owned()) })
    });
    reporter.program_peak(sys::peak_rss_bytes());
    reporter.send(&match result {
        Ok(StageOutcome { metrics }) => JobEvent::Finished {
            metrics: metrics.into_iter().map(|(name, value)| (name, value.is_finite().then_some(value))).collect(),
        },
        Err(error) => JobEvent::Failed { failure: JobFailure::from(&error) },
    })
}

/// What a panic said.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Lets progress through now and then.
pub(super) fn may_pass(last: &Mutex<Option<Instant>>, is_last: bool) -> bool {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_last && last.is_some_and(|last| last.elapsed() < PROGRESS_EVERY) {
        return false;
    }
    *last = Some(Instant::now());
    true
}

struct Reporter<W> {
    output: Mutex<W>,
    cancelled: Arc<AtomicBool>,
    last_progress: Mutex<Option<Instant>>,
}

impl<W: Write + Send> Reporter<W> {
    fn send(&self, event: &JobEvent) -> io::Result<()> {
        let mut line = serde_json::to_vec(event).map_err(io::Error::other)?;
        line.push(b'\n');
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(&line)?;
        output.flush()
    }
}

/// Somebody who has stopped listening has closed the input, too: that ends the worker.
impl<W: Write + Send> StageReporter for Reporter<W> {
    fn progress(&self, done: u64, total: u64, unit: &str, message: &str) {
        if may_pass(&self.last_progress, done >= total) {
            let (unit, message) = (unit.to_owned(), message.to_owned());
            let _ = self.send(&JobEvent::Progress { done, total, unit, message });
        }
    }

    fn warn(&self, message: &str) {
        let _ = self.send(&JobEvent::Warning { message: message.to_owned() });
    }

    fn info(&self, message: &str) {
        let _ = self.send(&JobEvent::Info { message: message.to_owned() });
    }

    fn metric(&self, name: &str, step: u64, value: f64) {
        let value = value.is_finite().then_some(value);
        let _ = self.send(&JobEvent::Metric { name: name.to_owned(), step, value });
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    fn program_peak(&self, bytes: u64) {
        let _ = self.send(&JobEvent::ProgramPeak { bytes });
    }

    fn computes_on(&self, device: &str) {
        let _ = self.send(&JobEvent::ComputesOn { device: device.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_keeps_its_class_message_and_help() {
        let (message, help) = ("m".to_owned(), Some("h".to_owned()));
        let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
        for error in [
            StageError::Cancelled,
            StageError::Data { message: message.clone(), help: help.clone() },
            StageError::Config { message: message.clone(), help: None },
            StageError::Training { message: message.clone(), help: help.clone() },
            StageError::Command { message: message.clone(), help: help.clone() },
            StageError::Crashed { message: message.clone(), help },
            StageError::Io { action: "write", path: "/x".into(), source: full },
            StageError::Artifact { path: "/x".into(), message },
        ] {
            let text = serde_json::to_string(&JobFailure::from(&error)).unwrap();
            let back = StageError::from(serde_json::from_str::<JobFailure>(&text).unwrap());
            assert_eq!(format!("{back:?}"), format!("{error:?}"));
        }
    }
}
