//! Events for people, on stderr: progress bars on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{
    Reason, RunEvent, RunObserver, Verdict,
    event::{EventLine, Level, Metrics, Outcome},
    text,
};

/// Without a terminal a stage reports this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// How to show things.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsoleStyle {
    /// Whether to use colours.
    pub color: bool,
    /// Whether to draw progress bars.
    pub progress: bool,
    /// −1 only problems, 0 the usual, 1 and more also what stages say.
    pub verbosity: i8,
}

/// Text in colour, or not.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    /// For what matters.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    /// For what does not.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
    /// For what went wrong.
    pub fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }
    /// For what is as it should be.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }
    /// For what wants attention.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
}

/// Shows events to people.
pub struct Console {
    style: ConsoleStyle,
    paint: Paint,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    width: usize,
    /// Why a stage runs, for the line that says that it does.
    reasons: BTreeMap<String, Reason>,
    running: BTreeMap<String, Running>,
    rows: Vec<Row>,
    /// Warnings so far: by the end they would have scrolled away.
    warnings: Vec<String>,
}

struct Running {
    bar: Option<ProgressBar>,
    since: Instant,
    /// What was done already when the first report came: a resumed stage does not start at 0.
    first: Option<(u64, Instant)>,
    last_line: Instant,
    /// The last accuracy of the nearest neighbours.
    knn: Option<f64>,
}

struct Row {
    stage: String,
    result: &'static str,
    seconds: Option<f64>,
    metrics: Metrics,
}

impl Console {
    /// A console that writes to stderr.
    pub fn new(style: ConsoleStyle) -> Self {
        Self { style, paint: Paint(style.color), bars: MultiProgress::new(), state: Mutex::default() }
    }

    /// A line above the progress bars. Nobody can be told that stderr is gone.
    fn line(&self, text: &str) {
        if self.style.progress {
            self.bars.suspend(|| {
                let _ = writeln!(io::stderr(), "{text}");
            });
        } else {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    fn say(&self, text: &str) {
        if self.style.verbosity >= 0 {
            self.line(text);
        }
    }

    fn start(&self, state: &mut State, stage: &str, uses: &str, last_seconds: Option<f64>) {
        let name = format!("{stage:<width$}", width = state.width);
        let estimate = last_seconds.map(|seconds| format!("; took {} last time", text::duration(seconds)));
        let (headline, lines) = match state.reasons.get(stage) {
            Some(reason @ Reason::Damaged { .. }) => {
                let (headline, lines) = text::reason(reason);
                (self.paint.yellow(&headline), lines)
            }
            Some(reason) => text::reason(reason),
            None => (uses.to_owned(), vec![]),
        };
        let estimate = self.paint.dim(&estimate.unwrap_or_default());
        self.say(&format!("  {}  runs: {headline}{estimate}", self.paint.bold(&name)));
        for line in lines {
            self.say(&format!("  {:width$}    {line}", "", width = state.width));
        }
        let bar = (self.style.progress && self.style.verbosity >= 0).then(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            // Cut at the edge: a line that wraps cannot be drawn over, and flickers.
            let template = "  {prefix}  {spinner} {elapsed} {wide_msg}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(name);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        state.running.insert(stage.to_owned(), Running { bar, since: now, first: None, last_line: now, knn: None });
    }

    fn progress(&self, state: &mut State, stage: &str, done: u64, total: u64, unit: &str, message: &str) {
        let width = state.width;
        let Some(running) = state.running.get_mut(stage) else { return };
        let (first, since) = *running.first.get_or_insert((done, Instant::now()));
        let elapsed = since.elapsed().as_secs_f64();
        let rate = if elapsed > 0.0 { done.saturating_sub(first) as f64 / elapsed } else { 0.0 };
        let count = format!("{} of {} {unit}", text::count(done), text::count(total));
        let going = rate > 0.0 && done < total;
        let speed = going.then(|| {
            let digits = usize::from(rate < 10.0);
            format!("{rate:.digits$} {unit}/s")
        });
        let left = going.then(|| format!("{} left", text::duration(total.saturating_sub(done) as f64 / rate)));
        let knn = running.knn.map(|top1| format!("kNN {:.1} %", top1 * 100.0));
        let message = Some(message.to_owned()).filter(|message| !message.is_empty());
        // A bar says how much is done; what a narrow terminal cuts off comes last.
        let parts = if running.bar.is_some() {
            [left, message, knn, speed, Some(count)]
        } else {
            [Some(count), speed, left, message, knn]
        };
        let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if let Some(bar) = &running.bar {
            if bar.length() != Some(total) {
                let template = "  {prefix}  {bar:16} {percent:>3}%  {wide_msg}";
                let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                bar.set_style(style.progress_chars("━━─"));
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.set_message(parts);
        } else if running.last_line.elapsed() >= PLAIN_EVERY {
            running.last_line = Instant::now();
            self.say(&format!("  {stage:<width$}        {parts}"));
        }
    }

    /// Takes the stage's bar away and says how long it ran.
    fn end(state: &mut State, stage: &str) -> Option<Duration> {
        let running = state.running.remove(stage)?;
        if let Some(bar) = running.bar {
            bar.finish_and_clear();
        }
        Some(running.since.elapsed())
    }

    fn table(&self, state: &mut State, outcome: Outcome, seconds: f64, saved: f64, report: Option<&str>) {
        let rows = std::mem::take(&mut state.rows);
        let executed = rows.iter().filter(|row| row.result == "ran").count();
        let restored = rows.iter().filter(|row| row.result == "restored").count();
        self.say("");
        for row in &rows {
            let result = format!("{:<9}", row.result);
            let result = match row.result {
                "ran" => self.paint.green(&result),
                "failed" => self.paint.red(&result),
                "restored" => self.paint.dim(&result),
                _ => self.paint.yellow(&result),
            };
            let time = row.seconds.map(text::duration).unwrap_or_default();
            let line = format!(
                "  {:<width$}  {result}  {time:>12}  {}",
                row.stage,
                headline_figures(&row.metrics),
                width = state.width
            );
            self.say(line.trim_end());
        }
        let saved = if saved >= 0.05 { format!("; the cache saved {}", text::duration(saved)) } else { String::new() };
        let word = match outcome {
            Outcome::Done => self.paint.green("done"),
            Outcome::Failed => self.paint.red("failed"),
            Outcome::Cancelled => self.paint.yellow("stopped"),
        };
        self.say(&format!("{word} in {}: {executed} ran, {restored} restored{saved}", text::duration(seconds)));
        let warnings = std::mem::take(&mut state.warnings);
        if self.style.verbosity >= 0 && !warnings.is_empty() {
            let count = warnings.len();
            let word = if count == 1 { "warning" } else { "warnings" };
            self.line(&self.paint.yellow(&format!("{count} {word}:")));
            for warning in warnings {
                self.line(&format!("  {} {warning}", self.paint.yellow("!")));
            }
        }
        if let Some(report) = report {
            self.say(&format!("report: {}", self.paint.bold(report)));
        }
    }
}

/// The figures in a row of the closing table.
pub fn headline_figures(metrics: &Metrics) -> String {
    text::headline(metrics)
}

impl RunObserver for Console {
    fn on_event(&self, event: &RunEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        match event {
            RunEvent::RunStarted { pipeline, path, stages, dry_run } => {
                state.width = stages.iter().map(|stage| stage.chars().count()).max().unwrap_or(0);
                let what = if *dry_run { "would be run" } else { "in order" };
                let count = stages.len();
                let stages = if count == 1 { "stage" } else { "stages" };
                self.say(&format!("{} ({path}): {count} {stages} {what}", self.paint.bold(pipeline)));
            }
            RunEvent::StagePlanned { plan } => {
                if let Verdict::Run { reason } = &plan.verdict {
                    state.reasons.insert(plan.stage.clone(), reason.clone());
                }
            }
            RunEvent::StageWaiting { stage, holder } => {
                let who = holder.as_ref().map_or("another process".to_owned(), |holder| {
                    format!("process {} on {} (since {})", holder.pid, holder.host, holder.since)
                });
                self.line(&format!(
                    "  {stage:<width$}  waits for {who}, which is making the same artifact",
                    width = state.width
                ));
            }
            RunEvent::StageStarted { stage, uses, last_seconds, .. } => self.start(state, stage, uses, *last_seconds),
            RunEvent::StageProgress { stage, done, total, unit, message } => {
                self.progress(state, stage, *done, *total, unit, message);
            }
            RunEvent::StageMetric { stage, name, step, value } => {
                if name == "knn/top1"
                    && let Some(running) = state.running.get_mut(stage)
                {
                    running.knn = *value;
                }
                if self.style.verbosity >= 2 {
                    let value = value.map_or("not finite".to_owned(), text::figure);
                    self.line(&format!("  {stage:<width$}  {name} {value} at {step}", width = state.width));
                }
            }
            RunEvent::StageMessage { stage, level, message } => match level {
                Level::Warning => {
                    state.warnings.push(format!("`{stage}`: {message}"));
                    self.line(&format!("{} `{stage}`: {message}", self.paint.yellow("warning:")));
                }
                Level::Info if self.style.verbosity >= 0 => {
                    // Whoever just spoke needs no line about progress.
                    if let Some(running) = state.running.get_mut(stage) {
                        running.last_line = Instant::now();
                    }
                    self.line(&format!("  {stage:<width$}  {}", self.paint.dim(message), width = state.width));
                }
                Level::Info => {}
            },
            RunEvent::StageRestored { stage, metrics, saved_seconds, .. } => state.rows.push(Row {
                stage: stage.clone(),
                result: "restored",
                seconds: Some(*saved_seconds),
                metrics: metrics.clone(),
            }),
            RunEvent::StageFinished { stage, metrics, seconds, unchanged, .. } => {
                Self::end(state, stage);
                let same = if *unchanged { "; same content as before" } else { "" };
                let figures = headline_figures(metrics);
                let figures = if figures.is_empty() { figures } else { format!("  {figures}") };
                self.say(&format!(
                    "  {stage:<width$}  {} in {}{same}{figures}",
                    self.paint.green("done"),
                    text::duration(*seconds),
                    width = state.width
                ));
                state.rows.push(Row {
                    stage: stage.clone(),
                    result: "ran",
                    seconds: Some(*seconds),
                    metrics: metrics.clone(),
                });
            }
            RunEvent::StageFailed { stage, log, .. } => {
                let seconds = Self::end(state, stage).map(|time| time.as_secs_f64());
                let log = log.as_ref().map(|log| format!("; its log is at `{log}`")).unwrap_or_default();
                self.line(&format!("  {stage:<width$}  {}{log}", self.paint.red("failed"), width = state.width));
                state.rows.push(Row { stage: stage.clone(), result: "failed", seconds, metrics: Metrics::new() });
            }
            RunEvent::StageAudited { stage, seconds, differences, .. } => {
                Self::end(state, stage);
                let found = if differences.is_empty() {
                    self.paint.green("the same bytes")
                } else {
                    self.paint.red("differs from the cache")
                };
                self.line(&format!("  {stage:<width$}  {found}, in {}", text::duration(*seconds), width = state.width));
                for difference in differences {
                    self.line(&format!("  {:width$}    {difference}", "", width = state.width));
                }
            }
            RunEvent::StageCancelled { stage } => {
                let seconds = Self::end(state, stage).map(|time| time.as_secs_f64());
                state.rows.push(Row { stage: stage.clone(), result: "stopped", seconds, metrics: Metrics::new() });
            }
            RunEvent::StageSkipped { stage, because } => {
                self.say(&format!("  {stage:<width$}  skipped, since `{because}` failed", width = state.width));
                state.rows.push(Row {
                    stage: stage.clone(),
                    result: "skipped",
                    seconds: None,
                    metrics: Metrics::new(),
                });
            }
            RunEvent::Warning { message } => {
                state.warnings.push(message.clone());
                self.line(&format!("{} {message}", self.paint.yellow("warning:")));
            }
            RunEvent::RunFinished { outcome, seconds, saved_seconds, report, .. } => {
                self.table(state, *outcome, *seconds, *saved_seconds, report.as_deref());
            }
            RunEvent::Error { message, help, .. } => {
                let mut lines = message.lines();
                self.line(&format!("{} {}", self.paint.red("error:"), lines.next().unwrap_or_default()));
                lines.for_each(|line| self.line(&format!("       {line}")));
                if let Some(help) = help {
                    self.line(&format!("{} {help}", self.paint.bold(" help:")));
                }
            }
        }
    }
}

/// Writes events as JSON, one a line, to stdout.
pub struct JsonLines;

impl RunObserver for JsonLines {
    fn on_event(&self, event: &RunEvent) {
        if let Ok(mut line) = serde_json::to_vec(&EventLine::now(event)) {
            line.push(b'\n');
            // A reader that has gone away does not stop a training.
            let mut stdout = io::stdout().lock();
            let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
        }
    }
}
