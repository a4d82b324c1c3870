//! `view`: what it shows, and that it shows nothing else to nobody else.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::fixture::Project;

/// A server that ends with the test.
struct Viewer {
    child: Child,
    port: u16,
}

impl Viewer {
    fn start(project: &Project, args: &[&str]) -> Self {
        let mut command = project.command(&[&["view"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let port = url.trim().trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(url.trim(), format!("http://127.0.0.1:{port}/"));
        Self { child, port }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Status and everything that was answered.
    fn send(&self, request: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        // A server that has refused may hang up before all is written.
        let _ = stream.write_all(request);
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", self.port).as_bytes())
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn project() -> Project {
    let project = Project::with_two_stages()
        .write("runs/p/report/report.html", "<p>the page</p>")
        .write("runs/p/report/summary.json", "{}")
        .write("secret.txt", "the secret");
    project.call(&["run"]).ok();
    project
}

/// Where the only run of the project is shown.
fn live_run(project: &Project) -> String {
    let names = crate::fixture::names(&project.path(".simsiam-pipe/live"));
    let names: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".json")).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    format!("/live/{}", names[0])
}

#[test]
fn two_runs_of_a_pipeline_at_once_are_two() {
    let project = Project::new().write(
        "pipeline.yaml",
        "version: 1\nname: slow\nstages:\n  wait:\n    uses: command\n    with:\n      \
         run: [sh, -c, 'echo x > \"$SIMSIAM_PIPE_OUTPUT/x\"; sleep 30']\n      outputs: [x]\n",
    );
    let start = || project.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut children = [start(), start()];
    let names = || {
        let mut names = crate::fixture::names(&project.path(".simsiam-pipe/live"));
        names.retain(|name| name.strip_suffix(".json").is_some() && !name.starts_with('.'));
        names
    };
    let until = Instant::now() + Duration::from_secs(30);
    while names().len() < 2 && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    let viewer = Viewer::start(&project, &[]);
    let index = viewer.get("/").1;
    assert_eq!((names().len(), index.matches("running, 0 of 1").count()), (2, 2), "{index}");
    for child in &children {
        assert!(index.contains(&format!("process {}", child.id())), "{index}");
    }
    children[0].kill().unwrap();
    children[0].wait().unwrap();
    let index = viewer.get("/").1;
    assert_eq!((index.matches("running, ").count(), index.matches("killed, ").count()), (1, 1), "{index}");
    children[1].kill().unwrap();
    children[1].wait().unwrap();
    // The next run sweeps what both left.
    project.edit("pipeline.yaml", "sleep 30", "true");
    project.call(&["run"]).ok();
    assert_eq!(names().len(), 1);
    assert!(viewer.get("/").1.contains("done, 1 of 1"));
}

#[test]
fn reports_and_the_state_of_runs_are_shown() {
    let project = project();
    let viewer = Viewer::start(&project, &[]);
    let (status, index) = viewer.get("/");
    assert_eq!(status, 200);
    assert!(index.contains("/report/p/report/report.html") && index.contains("/live/words"), "{index}");
    let (status, page) = viewer.get("/report/p/report/report.html");
    assert!(status == 200 && page.contains("<p>the page</p>") && page.contains("frame-ancestors 'none'"), "{page}");
    let live = live_run(&project);
    assert!(
        index.contains(&format!("href=\"{live}\"><bdi>words</bdi>")) && index.contains("done, 2 of 2 stages"),
        "{index}"
    );
    let (_, state) = viewer.get(&format!("{live}.json"));
    let state: serde_json::Value = serde_json::from_str(state.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&state["outcome"], &state["format"], &state["alive"]), (&"done".into(), &1.into(), &false.into()));
    let states: Vec<_> = state["stages"].as_array().unwrap().iter().map(|stage| stage["state"].clone()).collect();
    assert_eq!(states, ["ran", "ran"]);
    let (_, picture) = viewer.get(&format!("{live}.svg"));
    assert!(picture.contains("<svg") && picture.contains("ran in"), "{picture}");
    for path in [live.as_str(), "/live.js", "/style.css"] {
        assert_eq!(viewer.get(path).0, 200, "{path}");
    }
}

#[test]
fn bad_paths_lead_nowhere() {
    let project = project();
    std::os::unix::fs::symlink(project.path("secret.txt"), project.path("runs/p/report/summary.md")).unwrap();
    let viewer = Viewer::start(&project, &[]);
    let root = project.root();
    let absolute = format!("//{}", root.join("secret.txt").display());
    let pieces = [
        "..",
        "%2e%2e",
        "%252e%252e",
        ".",
        "/",
        "%2f",
        "\\",
        "%5c",
        "secret.txt",
        "runs",
        "p",
        "report",
        "%00",
        "live",
        "a",
    ];
    let mut paths: Vec<String> = [
        "/../secret.txt",
        "/report/p/report/../../../secret.txt",
        "/report/p/report/%2e%2e/%2e%2e/%2e%2e/secret.txt",
        "/report/p/report/summary.md",
        "/report/p/report/report.html%00.md",
        "/report/p/report/report.html/../../../../secret.txt",
        "/live/..%2f..%2fsecret.txt",
        "/.simsiam-pipe/format",
        "/report/p/report/config.yaml",
        &absolute,
        "//etc/passwd",
        "/%2fetc%2fpasswd",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut state = 1_u64;
    for _ in 0..300 {
        let mut path = "/report".to_owned();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            path.push_str(if state >> 60 < 4 { "" } else { "/" });
            path.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        paths.push(path);
    }
    for path in paths {
        let (status, answer) = viewer.get(&path);
        assert!(matches!(status, 400 | 404), "{path}: {answer}");
        assert!(!answer.contains("the secret") && !answer.contains("root:"), "{path}");
    }
}

#[test]
fn other_hosts_methods_and_nonsense_are_refused() {
    let project = project();
    let viewer = Viewer::start(&project, &[]);
    let port = viewer.port;
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n"), 403),
        (format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", port ^ 1), 403),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("POST / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\nx"), 405),
        (format!("DELETE {}.json HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n", live_run(&project)), 405),
        ("\0\0\0\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
    ] {
        assert_eq!(viewer.send(request.as_bytes()).0, status, "{}", &request[..request.len().min(60)]);
    }
    let (status, head) = viewer.send(format!("HEAD / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n").as_bytes());
    assert!(status == 200 && head.ends_with("\r\n\r\n"), "no body: {head}");
}

#[test]
fn a_thousand_requests_and_slow_clients_at_once() {
    let project = project();
    let viewer = Viewer::start(&project, &[]);
    // Clients that never end their request.
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = viewer.connect();
            stream.write_all(b"GET / HTTP/1.1\r\nX").unwrap();
            stream
        })
        .collect();
    let live = format!("{}.json", live_run(&project));
    let began = Instant::now();
    let answered: usize = thread::scope(|scope| {
        let all: Vec<_> = (0..1_000)
            .map(|idx| {
                let viewer = &viewer;
                let path = ["/", "/report/p/report/report.html", live.as_str(), "/nothing"][idx % 4];
                let wanted = if idx % 4 == 3 { 404 } else { 200 };
                let client = move || usize::from(viewer.get(path).0 == wanted);
                thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, client).unwrap()
            })
            .collect();
        all.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(answered, 1_000);
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    drop(slow);
    assert_eq!(viewer.get("/").0, 200);
}

#[test]
fn it_ends_with_ctrl_c_and_names_a_missing_folder() {
    let project = project();
    let mut viewer = Viewer::start(&project, &["runs/p/report"]);
    assert!(viewer.get("/report/report.html").1.contains("<p>the page</p>"));
    let status = std::process::Command::new("kill").args(["-INT", &viewer.child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(viewer.child.wait().unwrap().code(), Some(130));
    project.call(&["view", "nowhere"]).code(2).says("there is no folder `nowhere`");
}
