//! A stage in a process of its own: the runner's side.
//!
//! A worker that crashes or is killed takes nothing with it but its stage; one whose runner is gone ends, too.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{
    StageExecutor, StageJob, text,
    worker::{CANCEL, JobEvent, JobFailure},
};
use crate::{
    cache::{artifact::LOGS, workspace::WORKER_LOG},
    fs::{FsError, files},
    stage::{StageError, StageOutcome, StageReporter},
    sys::{self, WatchedChild},
};

/// How often the child and the wish to stop are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How many of its last lines an error shows.
const LAST_LINES: usize = 15;

/// Executes each stage in a process of its own, which [`super::worker::work`]s.
#[derive(Clone, Debug)]
pub struct IsolatedExecutor {
    /// The program that works.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl StageExecutor for IsolatedExecutor {
    fn execute(&self, job: &StageJob, reporter: &dyn StageReporter) -> Result<StageOutcome, StageError> {
        let log_path = job.out_dir.join(LOGS).join(WORKER_LOG);
        files::create_dir_all(&files::parent_of(&log_path))?;
        let log = files::create(&log_path)?;
        let (result, status, peak) = self.run(job, reporter, log)?;
        let result = match result {
            Some(result) => result,
            None => Err(crashed(status, peak, &log_path)),
        };
        if result.is_ok() && files::size_and_mtime(&log_path)?.0 == 0 {
            files::remove_file(&log_path)?;
        }
        result
    }
}

type Said = Option<Result<StageOutcome, StageError>>;

impl IsolatedExecutor {
    /// What the worker said in the end, how it ended, and the most memory that it held.
    fn run(
        &self,
        job: &StageJob,
        reporter: &dyn StageReporter,
        log: File,
    ) -> Result<(Said, ExitStatus, u64), StageError> {
        let at = |action| FsError::at(action, &self.program);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        sys::isolate_child(&mut command);
        let mut child = command.spawn().map_err(at("start"))?;
        let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut child = WatchedChild::new(child);
        let mut line = serde_json::to_vec(job).map_err(std::io::Error::other).map_err(at("send a job to"))?;
        line.push(b'\n');
        // One that dies at once says more by its end than by the pipe that it leaves.
        let _ = stdin.as_mut().map(|stdin| stdin.write_all(&line));
        let said = Mutex::new(None);
        let status = thread::scope(|scope| {
            if let Some(stdout) = stdout {
                let said = &said;
                scope.spawn(move || listen(BufReader::new(stdout), reporter, said));
            }
            wait(&mut child, reporter, stdin.as_mut())
        });
        let status = status.map_err(at("wait for"))?;
        // What it started must not go on behind its back.
        sys::kill_group(child.id(), true);
        let peak = child.peak_rss_bytes();
        reporter.program_peak(peak);
        Ok((said.into_inner().unwrap_or_else(PoisonError::into_inner), status, peak))
    }
}

/// Waits for the end, passing on the wish to stop.
fn wait(
    child: &mut WatchedChild,
    reporter: &dyn StageReporter,
    mut stdin: Option<&mut ChildStdin>,
) -> std::io::Result<ExitStatus> {
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if !told && reporter.is_cancelled() {
            told = true;
            let _ = stdin.as_mut().map(|stdin| stdin.write_all(format!("{CANCEL}\n").as_bytes()));
        }
        thread::sleep(POLL);
    }
}

/// Passes on what the worker says until it says no more.
fn listen(stdout: impl BufRead, reporter: &dyn StageReporter, said: &Mutex<Said>) {
    for line in stdout.lines().map_while(Result::ok) {
        let end = match serde_json::from_str(&line) {
            Ok(JobEvent::Started { .. }) => continue,
            Ok(JobEvent::Progress { done, total, unit, message }) => {
                reporter.progress(done, total, &unit, &message);
                continue;
            }
            Ok(JobEvent::Warning { message }) => {
                reporter.warn(&message);
                continue;
            }
            Ok(JobEvent::Info { message }) => {
                reporter.info(&message);
                continue;
            }
            Ok(JobEvent::Metric { name, step, value }) => {
                reporter.metric(&name, step, value.unwrap_or(f64::NAN));
                continue;
            }
            Ok(JobEvent::ComputesOn { device }) => {
                reporter.computes_on(&device);
                continue;
            }
            Ok(JobEvent::ProgramPeak { bytes }) => {
                reporter.program_peak(bytes);
                continue;
            }
            Ok(JobEvent::Finished { metrics }) => {
                let metrics = metrics.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect();
                Ok(StageOutcome { metrics })
            }
            Ok(JobEvent::Failed { failure }) => Err(failure.into()),
            Err(error) => Err(JobFailure::Crashed {
                message: format!("the stage's process said `{line}`, which is no event: {error}"),
                help: None,
            }
            .into()),
        };
        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

/// A worker that ended without a last word.
fn crashed(status: ExitStatus, peak: u64, log: &Path) -> StageError {
    let how = match status.signal() {
        Some(libc::SIGKILL) => "was killed (SIGKILL)".to_owned(),
        Some(libc::SIGSEGV) => "crashed (SIGSEGV)".to_owned(),
        Some(libc::SIGABRT) => "aborted (SIGABRT)".to_owned(),
        Some(libc::SIGBUS) => "crashed (SIGBUS)".to_owned(),
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with {status} and without a result"),
    };
    let held = if peak > 0 { format!("had held {} of memory", text::bytes(peak)) } else { "was short-lived".into() };
    let mut message = format!("its process {how}; it {held}");
    let log = files::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().collect();
    if !lines.is_empty() {
        message.push_str("; its last lines:");
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            message.push_str("\n  | ");
            message.push_str(line);
        }
    }
    let no_memory = log.contains("memory allocation of ");
    let help = match status.signal() {
        Some(signal) if signal == libc::SIGKILL || no_memory => {
            "if memory ran out, lower `batch_size` or `--jobs`, or free memory, and run again: checkpoints are kept"
        }
        _ => "this is a defect of simsiam-pipe: please report it with this message and the log",
    };
    StageError::Crashed { message, help: Some(help.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::compute::{DeviceChoice, Precision};
    use crate::{
        digest::Digest,
        stage::{CommandConfig, SilentReporter, StageConfig},
    };

    fn execute(script: &str) -> Result<StageOutcome, StageError> {
        execute_with("/bin/sh", script)
    }

    fn execute_with(program: &str, script: &str) -> Result<StageOutcome, StageError> {
        let dir = tempfile::tempdir().unwrap();
        let executor = IsolatedExecutor { program: program.into(), arguments: vec!["-c".into(), script.into()] };
        let config = CommandConfig { run: vec![], outputs: vec![], sources: vec![], env: BTreeMap::new() };
        let job = StageJob {
            fingerprint: Digest::of(b"f"),
            pipeline: "p".into(),
            stage: "s".into(),
            config: StageConfig::Command(config),
            inputs: BTreeMap::new(),
            out_dir: dir.path().to_owned(),
            work_dir: dir.path().to_owned(),
            project_root: dir.path().to_owned(),
            seed: 0,
            earlier: None,
            threads: 1,
            device: DeviceChoice::Cpu,
            precision: Precision::F32,
        };
        executor.execute(&job, &SilentReporter)
    }

    #[test]
    fn a_result_and_a_failure_come_through() {
        let done = execute(r#"read -r job; echo '{"event":"finished","metrics":{"a/b":0.5}}'"#).unwrap();
        assert_eq!(done.metrics, [("a/b".to_owned(), 0.5)].into());
        let failed = r#"echo '{"event":"failed","failure":{"class":"data","message":"m","help":null}}'; exit 1"#;
        assert!(matches!(execute(failed), Err(StageError::Data { message, .. }) if message == "m"));
    }

    #[test]
    fn a_worker_without_a_last_word_is_told_with_its_end_memory_and_lines() {
        let error = execute("echo oh >&2; sleep 0.2; kill -9 $$").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("its process was killed (SIGKILL); it had held "), "{text}");
        assert!(text.ends_with(" of memory; its last lines:\n  | oh"), "{text}");
        assert!(error.help().unwrap().starts_with("if memory ran out"));
        let error = execute("echo memory allocation of 7 bytes failed >&2; kill -ABRT $$").unwrap_err();
        assert!(error.to_string().contains("aborted (SIGABRT)") && error.help().unwrap().starts_with("if memory"));
        assert!(execute("kill -SEGV $$").unwrap_err().to_string().contains("crashed (SIGSEGV)"));
        assert!(execute("exit 3").unwrap_err().to_string().contains("exit status: 3 and without a result"));
        assert!(execute("echo hello").unwrap_err().to_string().contains("`hello`, which is no event"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = execute_with("/no/such/program", "").unwrap_err();
        assert_eq!(error.to_string(), "cannot start `/no/such/program`");
    }
}
