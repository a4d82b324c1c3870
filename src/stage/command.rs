//! A program of the user's as a stage.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{CommandConfig, StageContext, StageError, StageOutcome};
use crate::{
    fs::{FsError, Ignore, files, walk},
    sys,
};

/// Where what the program prints goes.
const LOG: &str = "logs/command.log";
/// An output of this name with numbers in it gives the stage's headline figures.
const METRICS: &str = "metrics.json";
/// How many of its last lines an error shows.
const LAST_LINES: usize = 15;
/// How often the child and the cancel flag are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a cancelled program may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the program and checks that it left what it declared. What it left beside that is removed.
///
/// # Errors
/// When the program is not there, fails, is cancelled, or does not leave its outputs as plain files inside the
/// output folder.
pub fn run(config: &CommandConfig, ctx: &StageContext<'_>) -> Result<StageOutcome, StageError> {
    let log_path = ctx.out_dir.join(LOG);
    files::create_dir_all(&files::parent_of(&log_path))?;
    for output in &config.outputs {
        files::create_dir_all(&files::parent_of(&inside(ctx.out_dir, output)?))?;
    }
    let status = spawn_and_wait(config, ctx, &log_path)?;
    if !status.success() {
        return Err(failed(&config.run[0], status, &log_path));
    }
    let metrics =
        if config.outputs.iter().any(|output| output == METRICS) { read_metrics(ctx) } else { BTreeMap::new() };
    check_outputs(config, ctx, &log_path)?;
    Ok(StageOutcome { metrics })
}

/// A declared output's place. Refuses paths that lead out of the folder.
fn inside(out_dir: &Path, output: &str) -> Result<PathBuf, StageError> {
    let path = Path::new(output);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let reserved = output == "manifest.json" || output == "config.yaml" || path.starts_with("logs");
    if output.is_empty() || !plain || reserved {
        let problem = if reserved { "is a name that simsiam-pipe uses itself" } else { "leads out of the folder" };
        return Err(StageError::Config {
            message: format!("output `{output}` {problem}"),
            help: Some("outputs are plain paths relative to the output folder, such as `model/weights.bin`".into()),
        });
    }
    Ok(out_dir.join(path))
}

fn spawn_and_wait(config: &CommandConfig, ctx: &StageContext<'_>, log_path: &Path) -> Result<ExitStatus, StageError> {
    let Some((program, args)) = config.run.split_first() else {
        return Err(StageError::Config { message: "`run` is empty".into(), help: Some("name a program".into()) });
    };
    let log = files::create(log_path)?;
    let log_too = log.try_clone().map_err(FsError::at("write", log_path))?;
    // A relative program is looked for where it runs, not where the user happens to be.
    let program_path = if program.contains('/') { ctx.project_root.join(program) } else { PathBuf::from(program) };
    let mut command = Command::new(program_path);
    command
        .args(args)
        .current_dir(ctx.project_root)
        .envs(environment(ctx))
        .envs(&config.env)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too);
    sys::isolate_child(&mut command);
    // Without a shell, the kernel still ends the program itself.
    let mut guard = sys::GroupGuard::new().ok();
    let child = command.spawn().map_err(|error| StageError::Command {
        message: format!("cannot start `{program}`: {error}"),
        help: Some(match error.kind() {
            std::io::ErrorKind::NotFound => format!("install `{program}` or write its path under `with.run`"),
            std::io::ErrorKind::PermissionDenied => format!("make it executable: `chmod +x {program}`"),
            _ => "check `with.run`".into(),
        }),
    })?;
    let mut child = sys::WatchedChild::new(child);
    if let Some(guard) = &mut guard {
        let _ = guard.watch(child.id());
    }
    let mut cancelled_at: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait().map_err(FsError::at("wait for", Path::new(program)))? {
            // What it started must not go on writing behind its back.
            sys::kill_group(child.id(), true);
            ctx.reporter.program_peak(child.peak_rss_bytes());
            return if cancelled_at.is_some() { Err(StageError::Cancelled) } else { Ok(status) };
        }
        match cancelled_at {
            None if ctx.reporter.is_cancelled() => {
                sys::kill_group(child.id(), false);
                cancelled_at = Some(Instant::now());
            }
            Some(since) if since.elapsed() > GRACE => sys::kill_group(child.id(), true),
            _ => {}
        }
        std::thread::sleep(POLL);
    }
}

/// Inputs by name, several of one name separated by `:`; outputs, checkpoints and the seed.
fn environment(ctx: &StageContext<'_>) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = ctx
        .inputs
        .iter()
        .map(|(name, artifacts)| {
            let name = name.to_uppercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
            let dirs: Vec<_> = artifacts.iter().map(|artifact| artifact.dir.display().to_string()).collect();
            (format!("SIMSIAM_PIPE_INPUT_{name}"), dirs.join(":"))
        })
        .collect();
    variables.insert("SIMSIAM_PIPE_OUTPUT".into(), ctx.out_dir.display().to_string());
    variables.insert("SIMSIAM_PIPE_WORK".into(), ctx.work_dir.display().to_string());
    variables.insert("SIMSIAM_PIPE_SEED".into(), ctx.seed.to_string());
    variables
}

fn failed(program: &str, status: ExitStatus, log_path: &Path) -> StageError {
    let log = files::read(log_path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().collect();
    let mut message = format!("`{program}` ended with {status}");
    if lines.is_empty() {
        message.push_str(" and printed nothing");
    } else {
        message.push_str("; its last lines:");
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            message.push_str("\n  | ");
            message.push_str(line);
        }
    }
    StageError::Command { message, help: None }
}

/// Every number at the top level of `metrics.json`, named `stage/key` unless the key has an area already.
fn read_metrics(ctx: &StageContext<'_>) -> BTreeMap<String, f64> {
    let bytes = files::read(&ctx.out_dir.join(METRICS)).unwrap_or_default();
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(fields) => fields
            .into_iter()
            .filter_map(|(key, value)| {
                // Cells of a matrix have figures of one name, so that they can be compared.
                let stage = ctx.stage.split('@').next().unwrap_or_default();
                let key = if key.contains('/') { key } else { format!("{stage}/{key}") };
                Some((key, value.as_f64()?))
            })
            .collect(),
        Err(error) => {
            ctx.reporter.warn(&format!("`{METRICS}` is no JSON object, so there are no headline figures: {error}"));
            BTreeMap::new()
        }
    }
}

fn check_outputs(config: &CommandConfig, ctx: &StageContext<'_>, log_path: &Path) -> Result<(), StageError> {
    let error = |message: String| StageError::Command {
        message,
        help: Some("the program must leave the files under `outputs` in the folder `SIMSIAM_PIPE_OUTPUT`".into()),
    };
    let mut expected = Vec::new();
    for output in &config.outputs {
        let path = inside(ctx.out_dir, output)?;
        let mut part = ctx.out_dir.to_path_buf();
        for name in Path::new(output).components() {
            part.push(name);
            if files::read_link(&part).is_some() {
                return Err(error(format!("output `{output}` is a symbolic link or lies behind one")));
            }
        }
        if !path.is_file() && !path.is_dir() {
            let kind = if files::exists(&path) { "is no plain file or folder" } else { "was not made" };
            let log = files::read(log_path).unwrap_or_default();
            let last = String::from_utf8_lossy(&log).lines().last().map(|line| format!("; last line: {line}"));
            return Err(error(format!("output `{output}` {kind}{}", last.unwrap_or_default())));
        }
        expected.push(path);
    }
    for file in walk(ctx.out_dir, Ignore::Nothing)? {
        let path = file.path(ctx.out_dir);
        if !expected.iter().any(|output| path.starts_with(output)) && !path.starts_with(ctx.out_dir.join("logs")) {
            let name = String::from_utf8_lossy(&file.name);
            ctx.reporter.warn(&format!("`{name}` is not under `outputs` and is left out"));
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

impl From<FsError> for StageError {
    fn from(error: FsError) -> Self {
        Self::Io { action: error.action, path: error.path, source: error.source }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::stage::{InputArtifact, StageReporter};

    #[derive(Default)]
    struct Reporter {
        cancelled: AtomicBool,
        warnings: std::sync::Mutex<Vec<String>>,
    }

    impl StageReporter for Reporter {
        fn progress(&self, _: u64, _: u64, _: &str, _: &str) {}
        fn warn(&self, message: &str) {
            self.warnings.lock().unwrap().push(message.to_owned());
        }
        fn info(&self, _: &str) {}
        fn metric(&self, _: &str, _: u64, _: f64) {}
        fn is_cancelled(&self) -> bool {
            self.cancelled.load(Ordering::Relaxed)
        }
    }

    fn run_shell(
        script: &str,
        outputs: &[&str],
        reporter: &Reporter,
    ) -> (tempfile::TempDir, Result<StageOutcome, StageError>) {
        let dir = tempfile::tempdir().unwrap();
        let out_dir = dir.path().join("out");
        let work_dir = dir.path().join("work");
        files::create_dir_all(&out_dir).unwrap();
        files::create_dir_all(&work_dir).unwrap();
        let input = InputArtifact { stage: "x".into(), digest: crate::digest::Digest::of(b""), dir: "/input".into() };
        let inputs = [("my-data".to_owned(), vec![input.clone(), input])].into();
        let config = CommandConfig {
            run: vec!["sh".into(), "-c".into(), script.into()],
            outputs: outputs.iter().map(|output| (*output).to_owned()).collect(),
            sources: vec![],
            env: [("GREETING".to_owned(), "hello".to_owned())].into(),
        };
        let ctx = StageContext {
            pipeline: "p",
            stage: "s",
            inputs: &inputs,
            out_dir: &out_dir,
            work_dir: &work_dir,
            project_root: dir.path(),
            seed: 7,
            earlier: None,
            compute: &crate::compute::Compute::Cpu,
            reporter,
        };
        let result = run(&config, &ctx);
        (dir, result)
    }

    #[test]
    fn inputs_seed_and_environment_arrive() {
        let script = r#"echo "$GREETING $SIMSIAM_PIPE_SEED $SIMSIAM_PIPE_INPUT_MY_DATA" > "$SIMSIAM_PIPE_OUTPUT/a/b""#;
        let (dir, result) = run_shell(script, &["a/b"], &Reporter::default());
        assert_eq!(result.unwrap(), StageOutcome::default());
        assert_eq!(files::read(&dir.path().join("out/a/b")).unwrap(), b"hello 7 /input:/input\n");
    }

    #[test]
    fn numbers_in_metrics_json_are_headline_figures() {
        let script = r#"echo '{"top1": 0.5, "knn/top1": 1, "note": "x"}' > "$SIMSIAM_PIPE_OUTPUT/metrics.json""#;
        let (_dir, result) = run_shell(script, &["metrics.json"], &Reporter::default());
        let expected = [("s/top1".to_owned(), 0.5), ("knn/top1".to_owned(), 1.0)].into();
        assert_eq!(result.unwrap().metrics, expected);
    }

    #[test]
    fn a_failing_program_shows_its_last_lines() {
        let (_dir, result) = run_shell("echo one; echo two >&2; exit 3", &["x"], &Reporter::default());
        let text = result.unwrap_err().to_string();
        assert_eq!(text, "`sh` ended with exit status: 3; its last lines:\n  | one\n  | two");
    }

    #[test]
    fn missing_linked_and_escaping_outputs_are_refused() {
        let text =
            |script, outputs: &[&str]| run_shell(script, outputs, &Reporter::default()).1.unwrap_err().to_string();
        assert_eq!(text("echo hm", &["x"]), "output `x` was not made; last line: hm");
        let link = r#"ln -s /etc/hostname "$SIMSIAM_PIPE_OUTPUT/x""#;
        assert_eq!(text(link, &["x"]), "output `x` is a symbolic link or lies behind one");
        assert_eq!(text("true", &["../x"]), "output `../x` leads out of the folder");
        assert_eq!(text("true", &["/x"]), "output `/x` leads out of the folder");
        assert_eq!(text("true", &["manifest.json"]), "output `manifest.json` is a name that simsiam-pipe uses itself");
    }

    #[test]
    fn undeclared_files_are_left_out_with_a_warning() {
        let reporter = Reporter::default();
        let (dir, result) = run_shell(r#"cd "$SIMSIAM_PIPE_OUTPUT"; touch x y"#, &["x"], &reporter);
        result.unwrap();
        assert!(files::exists(&dir.path().join("out/x")) && !files::exists(&dir.path().join("out/y")));
        assert_eq!(*reporter.warnings.lock().unwrap(), ["`y` is not under `outputs` and is left out"]);
    }

    #[test]
    fn cancelling_ends_the_program_and_what_it_started() {
        let reporter = Reporter { cancelled: AtomicBool::new(true), ..Reporter::default() };
        let started = Instant::now();
        let (_dir, result) = run_shell("sleep 60 & sleep 60; true", &["x"], &reporter);
        assert!(matches!(result, Err(StageError::Cancelled)));
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn an_unknown_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config: CommandConfig =
            serde_json::from_value(serde_json::json!({"run": ["no-such-program"], "outputs": ["x"]})).unwrap();
        let ctx = StageContext {
            pipeline: "p",
            stage: "s",
            inputs: &BTreeMap::new(),
            out_dir: dir.path(),
            work_dir: dir.path(),
            project_root: dir.path(),
            seed: 0,
            earlier: None,
            compute: &crate::compute::Compute::Cpu,
            reporter: &Reporter::default(),
        };
        let error = run(&config, &ctx).unwrap_err();
        assert!(error.to_string().starts_with("cannot start `no-such-program`"), "{error}");
        assert_eq!(error.help(), Some("install `no-such-program` or write its path under `with.run`"));
    }
}
