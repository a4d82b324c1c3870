//! What a page says of the run that led to it: graph, times, throughput.
//!
//! A report artifact is a function of its inputs, byte for byte, so it says nothing of this kind. It leaves marks, and
//! whoever knows the run puts these parts there. Such a page is made anew from its artifact; nothing else is kept in it.

use minijinja::{Value, context};
use serde::Serialize;

use super::{
    choice::cell_of,
    html::{Figure, environment, plain},
    line_chart::{LineChart, Series},
    report_error::ReportError,
    text::{self, count, number, percent},
};
use crate::{digest::Digest, train::EpochTime};

/// Rows of the table of stages, at most.
const STAGE_ROWS: usize = 200;
/// Stages whose parameters are written out, at most.
const STAGE_DETAILS: usize = 60;
/// Lines of the throughput chart, at most: as many as there are colours.
const MAX_LINES: usize = 8;

const HEAD: &str = "<!-- run:head -->";
const BYLINE: &str = "<!-- run:byline -->";
const NAV: &str = "<!-- run:nav -->";
const CURVES: &str = "<!-- run:curves -->";
const SECTION: &str = "<!-- run:section -->";
const LEAD: &str = "<!-- run:lead -->";
const LEAD_END: &str = "<!-- /run:lead -->";

const STAMP_START: &str = "<meta name=\"simsiam-pipe-run\" content=\"";
const STAMP_END: &str = "\">\n";
/// The stamp stands within so many bytes from the beginning.
pub const STAMP_WITHIN: usize = 2_048;

/// What a page says beyond what its artifact holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunView {
    /// When, and with what outcome; absent on a page that belongs to no run, such as that of an export.
    pub moment: Option<RunMoment>,
    /// The stages as an `<svg>` element.
    pub graph: Option<String>,
    /// Whether boxes of the graph stand for several stages.
    pub is_folded: bool,
    /// The report's stage and all that it rests on, in execution order.
    pub stages: Vec<StageView>,
    /// Names of pretrainings and how fast they were.
    pub throughput: Vec<(String, Vec<EpochTime>)>,
}

/// A run in words.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunMoment {
    /// When it began, `2026-01-31T12:00:00Z`.
    pub began: String,
    /// How long it took.
    pub took: String,
    /// Stages that ran.
    pub executed: usize,
    /// Stages that the cache had.
    pub restored: usize,
    /// How long those took when they were made, where that is worth a word.
    pub saved: Option<String>,
}

/// A stage and what it cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StageView {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// `ran` or `restored`; empty on a page that belongs to no run.
    pub result: String,
    /// Seconds that it took when it was made.
    pub seconds: f64,
    /// The same in words.
    pub took: String,
    /// Most memory held meanwhile, in bytes; 0 if unknown.
    pub peak_bytes: u64,
    /// The same in words.
    pub memory: String,
    /// Bytes of its artifact.
    pub disk_bytes: u64,
    /// The same in words.
    pub disk: String,
    /// When it was made, `2026-01-31T12:00:00Z`.
    pub made: String,
    /// The machine.
    pub host: String,
    /// `cpu` or the name of an accelerator.
    pub device: String,
    /// Version of simsiam-pipe.
    pub version: String,
    /// The project's commit, if there was one.
    pub commit: Option<String>,
    /// What it read.
    pub inputs: Vec<InputView>,
    /// Digest of the artifact.
    pub artifact: String,
    /// Digest of all that decided it.
    pub fingerprint: String,
    /// Its parameters, as YAML or JSON; may be empty.
    pub parameters: String,
}

/// An input of a stage.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InputView {
    /// Its name.
    pub name: String,
    /// Names of the stages.
    pub stages: String,
}

/// The page of an artifact with what is known of the run, stamped with `key`; nothing where `page` has no place for it.
///
/// # Errors
/// Where a template fails, which would be a defect.
pub fn render_run_page(page: &str, view: &RunView, key: &Digest) -> Result<Option<String>, ReportError> {
    // Marks are comments, and no text of the page holds a `<` of its own.
    let (Some((before, rest)), true) = (page.split_once(HEAD), page.contains(SECTION)) else { return Ok(None) };
    let moment = view.moment.as_ref().map(|moment| instant(&moment.began));
    let environment = environment()?;
    let longest = view.stages.iter().map(|stage| stage.seconds).fold(1e-9, f64::max);
    let section = environment.get_template("run.html")?.render(context! {
        run => plain(view),
        graph => view.graph.as_deref().map(|svg| Value::from_safe_string(svg.to_owned())),
        moment => moment.as_ref().map(|time| Value::from_safe_string(time.clone())),
        longest,
        rows => STAGE_ROWS,
        details => STAGE_DETAILS,
    })?;
    let byline = moment.map_or_else(String::new, |time| {
        let ran = view.moment.as_ref().map_or(0, |moment| moment.executed);
        format!(
            "<p class=\"byline note\">Run of {time}; <a href=\"#run\">{} of {} stages ran</a>.</p>\n",
            count(ran as u64),
            count(view.stages.len() as u64)
        )
    });
    let mut rest = rest.replacen(BYLINE, &byline, 1);
    rest = rest.replacen(NAV, "<li><a href=\"#run\">Pipeline</a></li>", 1);
    rest = rest.replacen(CURVES, &curves(view, &environment)?, 1);
    rest = rest.replacen(SECTION, &section, 1);
    if let (Some(from), Some(to)) = (rest.find(LEAD), rest.find(LEAD_END)) {
        let lead = "The digests name what was read; but for <a href=\"#run\">the run</a> and the throughput, the same \
                    artifacts always give this same page, byte for byte.";
        rest.replace_range(from..to + LEAD_END.len(), lead);
    }
    let body = body_digest(before, &rest);
    Ok(Some(format!("{before}{STAMP_START}{} {}{STAMP_END}{rest}", key.hex(), body.hex())))
}

fn body_digest(before: &str, after: &str) -> Digest {
    Digest::of([before, after].concat().as_bytes())
}

/// What a page was made of: the key that [`render_run_page`] was given, read from its first [`STAMP_WITHIN`] bytes.
/// Nothing where it is no such page.
pub fn key_of(start: &str) -> Option<Digest> {
    start.split_once(STAMP_START)?.1.split_once(' ')?.0.parse().ok()
}

/// Whether a page is as [`render_run_page`] made it.
pub fn is_untouched(page: &str) -> bool {
    let untouched = || {
        let (before, rest) = page.split_once(STAMP_START)?;
        let (stamp, after) = rest.split_once(STAMP_END)?;
        let body: Digest = stamp.split_once(' ')?.1.parse().ok()?;
        Some(body == body_digest(before, after))
    };
    untouched().unwrap_or(false)
}

/// `2026-01-31T12:00:05Z` for people, to the minute.
fn instant(time: &str) -> String {
    let words = time.get(..16).unwrap_or(time).replace('T', " ");
    format!("<time datetime=\"{}\">{} UTC</time>", text::escape(time), text::escape(&words))
}

/// The chart of the throughput with its caption; empty where nothing was measured.
fn curves(view: &RunView, environment: &minijinja::Environment<'_>) -> Result<String, ReportError> {
    let runs: Vec<&(String, Vec<EpochTime>)> =
        view.throughput.iter().filter(|(_, times)| !times.is_empty()).take(MAX_LINES).collect();
    let line = |times: &[EpochTime]| times.iter().map(|time| (time.epoch, time.images_per_second)).collect();
    // The cells of one stage need not name it.
    let base = |name: &str| name.split('@').next().map(str::to_owned);
    let alike = runs.iter().all(|(name, _)| cell_of(name).is_some() && base(name) == base(&runs[0].0));
    let names: Vec<&str> =
        runs.iter().map(|(name, _)| cell_of(name).filter(|_| alike).unwrap_or(name.as_str())).collect();
    let several = runs.len() > 1;
    let named = runs.iter().zip(&names);
    let series = named
        .map(|((_, times), name)| Series { name: if several { name } else { "images/s" }, points: line(times) })
        .collect();
    let chart = LineChart {
        id: "chart-throughput",
        title: "Throughput by epoch, images a second",
        series,
        reference: None,
        covers: &[0.0],
        suffix: "",
        format: |value| if value < 10.0 { number(value, 2) } else { count(value.round() as u64) },
    };
    let all = || runs.iter().flat_map(|(_, times)| times.iter());
    let seconds: f64 = all().map(|time| time.seconds).sum();
    let waited: f64 = all().map(|time| time.waited_for_data).sum();
    let note = format!(
        "Images a second, when the weights were made; {} of the time went by waiting for views.",
        percent(waited / seconds.max(1e-9))
    );
    let legend: Vec<&str> = if several { names } else { vec![] };
    let Some(figure) = Figure::new("Throughput", &note, legend, &chart) else { return Ok(String::new()) };
    Ok(environment.get_template("figure.html")?.render(context! { figure => plain(&figure) })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ReportInputs, build_summary, html::Pictures, render_html};

    fn bare() -> String {
        let inputs = ReportInputs { pipeline: "intel".into(), ..ReportInputs::default() };
        render_html(&build_summary(&inputs).unwrap(), &Pictures::default()).unwrap()
    }

    fn view() -> RunView {
        let stage = |name: &str, result: &str, seconds| StageView {
            name: name.into(),
            kind: "ingest".into(),
            result: result.into(),
            seconds,
            took: format!("{seconds} s"),
            made: "2026-01-31T12:00:05Z".into(),
            host: "<host>".into(),
            parameters: "</pre><script>alert(1)</script>".into(),
            ..StageView::default()
        };
        RunView {
            moment: Some(RunMoment {
                began: "2026-01-31T12:00:05Z".into(),
                took: "3 s".into(),
                executed: 1,
                restored: 1,
                saved: Some("2 s".into()),
            }),
            graph: Some("<svg class=\"pipeline\"></svg>".into()),
            stages: vec![stage("train", "ran", 1.0), stage("<script>", "restored", 2.0)],
            ..RunView::default()
        }
    }

    #[test]
    fn the_run_comes_into_the_page_and_the_stamp_says_of_what() {
        let key = Digest::of(b"key");
        let page = render_run_page(&bare(), &view(), &key).unwrap().unwrap();
        for words in [
            "1 stage of those below ran, 1 came from the cache, which saved 2 s",
            "<svg class=\"pipeline\">",
            "href=\"#run\">Pipeline</a>",
            "2026-01-31 12:00 UTC",
            "&lt;host&gt;",
            "&lt;/pre&gt;&lt;script&gt;",
        ] {
            assert!(page.contains(words), "{words}");
        }
        assert!(!page.contains("<!--") && !page.contains("<script>alert"), "no mark is left");
        assert!(page.find(STAMP_START).unwrap() + 200 < STAMP_WITHIN);
        assert_eq!((key_of(&page[..STAMP_WITHIN]), is_untouched(&page)), (Some(key), true));
        assert!(!is_untouched(&page.replace("Pipeline", "pipeline")) && !is_untouched("<p>mine</p>"));
        assert_eq!(key_of(&bare()), None);
    }

    #[test]
    fn a_page_without_marks_stays_without_a_run() {
        assert_eq!(render_run_page("<p>old</p>", &view(), &Digest::of(b"")).unwrap(), None);
        let mut exported = view();
        exported.moment = None;
        let page = render_run_page(&bare(), &exported, &Digest::of(b"")).unwrap().unwrap();
        assert!(!page.contains("This run") && page.contains("what each stage cost when it was made"));
    }
}
