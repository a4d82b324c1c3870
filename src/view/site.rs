//! What may be seen: a list of pages by their path, made anew for each request.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::request::{Refusal, encode};
use crate::{
    fs::files,
    report::text::escape,
    runner::live::{LIVE_FORMAT, LiveRun, is_alive},
};

/// Folders below the one that is shown in which reports are looked for.
const MAX_DEPTH: usize = 4;
/// Names that are looked at: more is no folder of reports.
const MAX_NAMES: usize = 20_000;
/// Larger files are not shown.
const MAX_BYTES: u64 = 64 << 20;
/// Files that are kept, so that many readers of one page hold it once.
const KEPT: usize = 4;

/// Pages of our own: scripts and styles from here, nothing from elsewhere.
const OWN_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                          img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Reports bring all that they need.
const REPORT_POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                             base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const FILE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const REPORT_FILES: [(&str, &str, &str); 3] = [
    ("report.html", HTML, REPORT_POLICY),
    ("summary.json", JSON, FILE_POLICY),
    ("summary.md", "text/plain; charset=utf-8", FILE_POLICY),
];

/// An answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// Number and words of the status line.
    pub status: &'static str,
    /// Kind of the body.
    pub content_type: &'static str,
    /// What a browser may do with it.
    pub policy: &'static str,
    /// The bytes.
    pub body: Arc<[u8]>,
}

impl Page {
    fn ok(content_type: &'static str, policy: &'static str, body: impl Into<Arc<[u8]>>) -> Self {
        Self { status: "200 OK", content_type, policy, body: body.into() }
    }

    fn text(status: &'static str) -> Self {
        let body = format!("{status}\n").into_bytes();
        Self { status, content_type: "text/plain; charset=utf-8", policy: FILE_POLICY, body: body.into() }
    }

    /// Why there is none.
    pub fn refusal(refusal: Refusal) -> Self {
        Self::text(refusal.status())
    }
}

/// Where reports and running pipelines are looked for.
#[derive(Debug)]
pub struct Site {
    reports: PathBuf,
    /// Links may lead here and nowhere else.
    objects: Option<PathBuf>,
    live: Option<PathBuf>,
    kept: Mutex<Vec<Kept>>,
}

/// A file that was read, and its size and time then.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    stamp: (u64, i64),
    body: Arc<[u8]>,
}

/// What a path leads to.
enum Target {
    File(PathBuf, &'static str, &'static str),
    /// The state of the run of this name, and the page that shows it.
    State(String),
    Watch(String),
}

/// A folder that holds a report.
#[derive(Debug)]
struct ReportDir {
    dir: PathBuf,
    /// The page with the run, beside the folder.
    page: Option<PathBuf>,
}

/// A run that goes on or has ended, under the name of its files.
struct Listed {
    name: String,
    run: LiveRun,
    is_alive: bool,
}

impl Site {
    /// The reports below `reports`, to which links into `objects` may lead, and the running pipelines in `live`.
    pub fn new(reports: PathBuf, objects: Option<PathBuf>, live: Option<PathBuf>) -> Self {
        let resolved = |path: PathBuf| files::canonicalize(&path).unwrap_or(path);
        Self { reports: resolved(reports), objects: objects.map(resolved), live, kept: Mutex::default() }
    }

    /// The page for a path.
    pub fn page(&self, path: &str) -> Page {
        match path {
            "/" => return Page::ok(HTML, OWN_POLICY, self.index().into_bytes()),
            "/style.css" => return Page::ok("text/css", OWN_POLICY, STYLE.as_bytes()),
            "/live.js" => return Page::ok("text/javascript", OWN_POLICY, SCRIPT.as_bytes()),
            _ => {}
        }
        let mut targets = self.targets();
        match targets.remove(path) {
            Some(Target::State(name)) => match self.state(&name, &targets) {
                Some(state) => Page::ok(JSON, FILE_POLICY, state),
                None => Page::text("404 Not Found"),
            },
            Some(Target::File(file, content_type, policy)) => match self.read(&file) {
                Some(body) => Page::ok(content_type, policy, body),
                None => Page::text("404 Not Found"),
            },
            Some(Target::Watch(name)) => {
                let pipeline = self.live_run(&name).map_or_else(|| name.clone(), |run| run.pipeline);
                Page::ok(HTML, OWN_POLICY, watch_page(&pipeline, &name).into_bytes())
            }
            None => Page::text("404 Not Found"),
        }
    }

    fn targets(&self) -> BTreeMap<String, Target> {
        let mut targets = BTreeMap::new();
        for (key, report) in self.report_dirs() {
            let key = if key.is_empty() { "/report".to_owned() } else { format!("/report/{key}") };
            for (name, content_type, policy) in REPORT_FILES {
                targets.insert(format!("{key}/{name}"), Target::File(report.dir.join(name), content_type, policy));
            }
            if let Some(page) = report.page {
                targets.insert(format!("{key}.html"), Target::File(page, HTML, REPORT_POLICY));
            }
        }
        let Some(live) = &self.live else { return targets };
        for file in files::list(live).unwrap_or_default() {
            if let Some(name) = file.strip_suffix(".svg") {
                let target = Target::File(live.join(&file), "image/svg+xml", FILE_POLICY);
                targets.insert(format!("/live/{name}.svg"), target);
            } else if let Some(name) = file.strip_suffix(".json") {
                targets.insert(format!("/live/{name}.json"), Target::State(name.to_owned()));
                targets.insert(format!("/live/{name}"), Target::Watch(name.to_owned()));
            }
        }
        targets
    }

    /// Folders that hold a report, by their path below the one that is shown.
    fn report_dirs(&self) -> BTreeMap<String, ReportDir> {
        let mut found = BTreeMap::new();
        let mut names_left = MAX_NAMES;
        self.look(&self.reports, "", MAX_DEPTH, &mut names_left, &mut found);
        found
    }

    fn look(
        &self,
        dir: &Path,
        key: &str,
        depth: usize,
        names_left: &mut usize,
        found: &mut BTreeMap<String, ReportDir>,
    ) {
        // A link may lead from `runs/` into the cache, or stay inside; anything else is not ours to show.
        let Ok(real) = files::canonicalize(dir) else { return };
        let inside = |root: &PathBuf| real.starts_with(root);
        if !(inside(&self.reports) || self.objects.as_ref().is_some_and(inside)) {
            return;
        }
        let names = files::list(&real).unwrap_or_default();
        *names_left = names_left.saturating_sub(names.len());
        // In a pipeline's folder this is the page of its stage `report`.
        let is_pipeline = || real.join("report").join("report.html").exists();
        if names.iter().any(|name| name == "report.html") && !is_pipeline() {
            found.insert(key.to_owned(), ReportDir { dir: real, page: None });
            return;
        }
        for name in &names {
            if depth == 0 || *names_left == 0 {
                return;
            }
            let child = dir.join(name);
            if child.is_dir() {
                let key = if key.is_empty() { name.clone() } else { format!("{key}/{name}") };
                self.look(&child, &key, depth - 1, names_left, found);
                let page = format!("{name}.html");
                if let Some(report) = found.get_mut(&key).filter(|_| names.contains(&page)) {
                    report.page = Some(real.join(page));
                }
            }
        }
    }

    /// A plain file, not a link to one.
    fn read(&self, path: &Path) -> Option<Arc<[u8]>> {
        if files::read_link(path).is_some() {
            return None;
        }
        let stamp = files::size_and_mtime(path).ok().filter(|(size, _)| *size <= MAX_BYTES)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = kept.iter().find(|file| file.path == path && file.stamp == stamp) {
            return Some(Arc::clone(&file.body));
        }
        let body: Arc<[u8]> = files::read(path).ok()?.into();
        kept.retain(|file| file.path != path);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(Kept { path: path.to_owned(), stamp, body: Arc::clone(&body) });
        Some(body)
    }

    fn index(&self) -> String {
        let mut body = String::new();
        // Writing to a String cannot fail, here and below.
        let runs = self.live_runs();
        if !runs.is_empty() {
            body.push_str("<section><h2>Runs</h2><ul class=\"cards\">");
            for Listed { name, run, is_alive } in runs {
                let state = match run.outcome {
                    None if is_alive => "running",
                    None => "killed",
                    Some(crate::runner::event::Outcome::Done) => "done",
                    Some(crate::runner::event::Outcome::Failed) => "failed",
                    Some(crate::runner::event::Outcome::Cancelled) => "stopped",
                };
                let done = run.stages.iter().filter(|stage| matches!(stage.state.as_str(), "ran" | "restored")).count();
                let _ = write!(
                    body,
                    "<li><a href=\"/live/{}\"><bdi>{}</bdi></a> <span class=\"quiet\">{state}, {done} of {} stages; process {}, began {}, last news {}</span></li>",
                    encode(&name),
                    escape(&run.pipeline),
                    run.stages.len(),
                    run.pid,
                    escape(&run.began.to_string()),
                    escape(&run.updated.to_string())
                );
            }
            body.push_str("</ul></section>");
        }
        body.push_str("<section><h2>Reports</h2>");
        let reports = self.report_dirs();
        if reports.is_empty() {
            body.push_str(
                "<p class=\"lead\">There are none yet: a pipeline with a <code>report</code> stage leaves one.</p>",
            );
        } else {
            body.push_str("<ul class=\"cards\">");
        }
        for (key, report) in &reports {
            let headline = self
                .read(&report.dir.join("summary.json"))
                .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok())
                .and_then(|summary| Some(summary.get("verdict")?.get("headline")?.as_str()?.to_owned()));
            let name = if key.is_empty() { "report" } else { key };
            let path = match (key.as_str(), &report.page) {
                ("", _) => "report.html".to_owned(),
                (key, Some(_)) => format!("{key}.html"),
                (key, None) => format!("{key}/report.html"),
            };
            let _ = write!(
                body,
                "<li><a href=\"/report/{}\"><bdi>{}</bdi></a> <span class=\"quiet\">{}</span></li>",
                encode(&path),
                escape(name),
                escape(&headline.unwrap_or_default())
            );
        }
        if !reports.is_empty() {
            body.push_str("</ul>");
        }
        body.push_str("</section>");
        shell("simsiam-pipe", "", &body)
    }

    fn live_run(&self, name: &str) -> Option<LiveRun> {
        let path = self.live.as_ref()?.join(format!("{name}.json"));
        serde_json::from_slice::<LiveRun>(&self.read(&path)?).ok().filter(|run| run.format == LIVE_FORMAT)
    }

    /// All runs, the newest first.
    fn live_runs(&self) -> Vec<Listed> {
        let Some(live) = &self.live else { return vec![] };
        let names = files::list(live).unwrap_or_default();
        let mut runs: Vec<Listed> = names
            .iter()
            .filter_map(|file| {
                let name = file.strip_suffix(".json")?;
                let run = self.live_run(name)?;
                Some(Listed { name: name.to_owned(), run, is_alive: is_alive(live, name) })
            })
            .collect();
        runs.sort_by(|a, b| b.run.began.cmp(&a.run.began).then_with(|| a.name.cmp(&b.name)));
        runs
    }

    /// The state of a run, with what only the server knows: whether its process lives, and where its report is.
    fn state(&self, name: &str, targets: &BTreeMap<String, Target>) -> Option<Vec<u8>> {
        let live = self.live.as_ref()?;
        let text = self.read(&live.join(format!("{name}.json")))?;
        let mut state: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let report = state.get("report").and_then(|path| path.as_str()).and_then(|path| path.strip_prefix("runs/"));
        let url = report.map(|path| format!("/report/{path}")).filter(|path| targets.contains_key(path));
        if let Some(fields) = state.as_object_mut() {
            fields.insert("alive".into(), is_alive(live, name).into());
            fields.insert("report_url".into(), url.map(|path| encode(&path)).into());
        }
        serde_json::to_vec(&state).ok()
    }
}

const STYLE: &str = concat!(include_str!("../report/templates/style.css"), include_str!("pages/live.css"));
const SCRIPT: &str = include_str!("pages/live.js");

fn shell(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"/style.css\">\n{head}</head>\n<body>\n\
         <header class=\"top\"><p class=\"brand\">simsiam-pipe <span>view</span></p><h1><bdi>{title}</bdi></h1></header>\n\
         <main>{body}</main>\n<footer><p>This page is served by this machine to itself.</p></footer>\n</body>\n</html>\n",
        title = escape(title),
    )
}

fn watch_page(pipeline: &str, name: &str) -> String {
    let path = encode(name);
    let body = format!(
        "<p><a href=\"/\">All reports and runs</a></p>\
         <section aria-label=\"State\"><p class=\"headline\" id=\"state\" role=\"status\">…</p>\
         <p class=\"lead\" id=\"news\"></p><p id=\"report\" hidden><a href=\"/\">The report</a></p><div id=\"warnings\"></div></section>\
         <noscript><p>Without scripts this page does not follow the run; <a href=\"/live/{path}.json\">its state</a> is JSON.</p></noscript>\
         <section aria-labelledby=\"stages-heading\"><h2 id=\"stages-heading\">Stages</h2>\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Stages\"><table id=\"stages\">\
         <thead><tr><th scope=\"col\">Stage</th><th scope=\"col\">State</th><th scope=\"col\">Progress</th>\
         <th scope=\"col\" class=\"num\">Time</th><th scope=\"col\">Figures</th></tr></thead><tbody></tbody></table></div></section>\
         <section aria-labelledby=\"curves-heading\"><h2 id=\"curves-heading\">Curves</h2><div class=\"grid\" id=\"curves\"></div></section>\
         <section aria-labelledby=\"graph-heading\"><h2 id=\"graph-heading\">Graph</h2>\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Graph of the stages\">\
         <img id=\"graph\" src=\"/live/{path}.svg\" alt=\"The stages and what each needs; the table above says the same in words.\"></div></section>"
    );
    let head = format!("<meta name=\"live\" content=\"/live/{path}\">\n<script src=\"/live.js\" defer></script>\n");
    shell(pipeline, &head, &body)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn site() -> (tempfile::TempDir, Site) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let put = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("secret.txt", "secret");
        put("elsewhere/report.html", "elsewhere");
        put("cache/objects/ab/report.html", "linked");
        put("cache/live/p.json", "{}");
        put("cache/live/p.svg", "<svg/>");
        put("runs/p/<b>/report.html", "plain");
        put("runs/p/<b>/notes.txt", "notes");
        put("runs/p/leak/summary.json", "x");
        put("runs/p/tricky/report.html", "tricky");
        put("runs/q/report/report.html", "without the run");
        put("runs/q/report.html", "with the run");
        put("runs/q/other.html", "nothing");
        symlink(root.join("cache/objects/ab"), root.join("runs/p/linked")).unwrap();
        symlink(root.join("elsewhere"), root.join("runs/p/away")).unwrap();
        symlink(root.join("secret.txt"), root.join("runs/p/tricky/summary.json")).unwrap();
        symlink("..", root.join("runs/p/loop")).unwrap();
        let site = Site::new(root.join("runs"), Some(root.join("cache/objects")), Some(root.join("cache/live")));
        (dir, site)
    }

    fn body(site: &Site, path: &str) -> (String, String) {
        let page = site.page(path);
        (page.status.to_owned(), String::from_utf8_lossy(&page.body).into_owned())
    }

    #[test]
    fn reports_are_found_also_behind_links_into_the_cache() {
        let (_dir, site) = site();
        assert_eq!(body(&site, "/report/p/<b>/report.html"), ("200 OK".into(), "plain".into()));
        assert_eq!(body(&site, "/report/p/linked/report.html"), ("200 OK".into(), "linked".into()));
        assert_eq!(body(&site, "/live/p.json").1, "{\"alive\":false,\"report_url\":null}");
        let (_, index) = body(&site, "/");
        assert!(index.contains("href=\"/report/p/%3Cb%3E/report.html\"><bdi>p/&lt;b&gt;</bdi>"), "{index}");
        assert!(!index.contains("away"));
        // A report with a page beside its folder.
        assert_eq!(body(&site, "/report/q/report.html").1, "with the run");
        assert_eq!(body(&site, "/report/q/report/report.html").1, "without the run");
        assert!(index.contains("href=\"/report/q/report.html\"><bdi>q/report</bdi>"), "{index}");
        assert!(body(&site, "/live/p").1.contains("content=\"/live/p\""));
    }

    #[test]
    fn nothing_else_is_shown() {
        let (_dir, site) = site();
        for path in [
            "/report/p/away/report.html",
            "/report/p/tricky/summary.json",
            "/report/p/<b>/notes.txt",
            "/report/p/leak/summary.json",
            "/report/q/other.html",
            "/report/q/summary.json",
            "/report/p/<b>/summary.json",
            "/report/../secret.txt",
            "/report/p/../../secret.txt",
            "/report//etc/passwd",
            "//etc/passwd",
            "/live/../../secret.txt",
            "/live/q.json",
            "/report/p/<b>/report.html/",
            "/report/p/<b>/./report.html",
            "/STYLE.css",
            "",
        ] {
            assert_eq!(body(&site, path).0, "404 Not Found", "{path}");
        }
    }

    #[test]
    fn what_changed_is_read_anew() {
        let (dir, site) = site();
        let path = dir.path().join("runs/p/<b>/report.html");
        assert_eq!(body(&site, "/report/p/<b>/report.html").1, "plain");
        fs::write(&path, "other text").unwrap();
        assert_eq!(body(&site, "/report/p/<b>/report.html").1, "other text");
    }

    #[test]
    fn a_folder_that_is_a_report_is_shown_as_one() {
        let (dir, _) = site();
        let site = Site::new(dir.path().join("elsewhere"), None, None);
        assert_eq!(body(&site, "/report/report.html").1, "elsewhere");
        assert!(body(&site, "/").1.contains("href=\"/report/report.html\""));
    }
}
