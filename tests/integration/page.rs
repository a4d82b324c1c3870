//! The page of a run beside a report's folder.

use std::fs;

use crate::{fixture::Project, stages::tiny};

const PAGE: &str = "runs/tiny/report.html";

fn aside(project: &Project) -> Vec<String> {
    crate::fixture::names(&project.path("runs/tiny")).into_iter().filter(|name| name.contains(".edited-")).collect()
}

#[test]
fn the_page_tells_of_the_run_and_the_artifact_does_not() {
    let project = tiny();
    project.call(&["run"]).ok().says("report: runs/tiny/report.html");
    let page = project.read(PAGE);
    for words in [
        "10 of 10 stages ran",
        "<svg class=\"pipeline\"",
        "chart-throughput",
        "fine_tune:",
        "href=\"#run\">Pipeline</a>",
        "pretrain · <tspan class=\"status\">ran, ",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("<!-- run:"));
    let bare = project.read("runs/tiny/report/report.html");
    assert!(bare.contains("<!-- run:section -->") && !bare.contains("chart-throughput"));

    // A run that restores everything leaves the page alone, which still tells how its figures came about.
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(project.path(name)).unwrap());
    let before = inode(PAGE);
    project.call(&["run"]).ok().says("report: runs/tiny/report.html");
    assert_eq!((inode(PAGE), project.read(PAGE) == page), (before, true));
    // So does a run that is not about the report.
    project.call(&["run", "--stage", "probe", "--force", "probe"]).ok();
    assert_eq!(inode(PAGE), before);

    // What ran is said, and whatever else is on the page when another artifact comes from the cache.
    project.call(&["run", "--set", "stages.probe.with.linear_probe.max_iter=40"]).ok();
    assert!(project.read(PAGE).contains("2 of 10 stages ran"));
    project.call(&["run"]).ok();
    let restored = project.read(PAGE);
    assert!(restored.contains("0 of 10 stages ran") && restored.contains("restored, "));

    // Somebody's work is kept.
    project.put(PAGE, &restored.replace("<main>", "<main><p>my notes</p>"));
    project.call(&["run", "--force", "report"]).ok().says("`runs/tiny/report.html` was changed by somebody");
    assert!(project.read(PAGE).contains("1 of 10 stages ran") && !project.read(PAGE).contains("my notes"));
    let [kept] = &aside(&project)[..] else { panic!("{:?}", aside(&project)) };
    assert!(project.read(&format!("runs/tiny/{kept}")).contains("my notes"));
    // Also where nothing runs.
    project.call(&["run"]).ok();
    project.put(PAGE, &project.read(PAGE).replace("<main>", "<main><p>my other notes</p>"));
    project.call(&["run"]).ok().says("`runs/tiny/report.html` was changed by somebody");
    assert!(!project.read(PAGE).contains("my other notes") && aside(&project).len() == 2);
    // A page that is gone comes back.
    fs::remove_file(project.path(PAGE)).unwrap();
    project.call(&["run"]).ok();
    assert!(project.read(PAGE).contains("0 of 10 stages ran"));
    project.call(&["cache", "verify"]).ok();
}

#[test]
fn an_exported_report_has_its_page() {
    let project = tiny();
    project.call(&["run"]).ok();
    project.call(&["export", "report", "--to", "one"]).ok();
    let page = project.read("one/report.html");
    assert!(page.contains("what each stage cost when it was made") && page.contains("chart-throughput"));
    assert!(!page.contains("This run") && !page.contains("stages ran"));
    assert!(project.read("one/README.md").contains("`report.html` is the page to open"));
    project.call(&["export", "report", "--to", "other"]).ok();
    assert_eq!(project.read("one/SHA256SUMS"), project.read("other/SHA256SUMS"));
    project.call(&["export", "probe", "--to", "probe"]).ok();
    assert!(!project.path("probe/report.html").exists());
}

#[test]
fn a_page_has_no_place_where_a_stage_has_its_name() {
    let project = tiny();
    project.edit("pipeline.yaml", "  views:\n", "  report.html:\n");
    project.edit(
        "pipeline.yaml",
        "augmentation: views }\n    with: { supervised",
        "augmentation: report.html }\n    with: { supervised",
    );
    project.edit("pipeline.yaml", "augmentation: views, monitor", "augmentation: report.html, monitor");
    project.edit("pipeline.yaml", "augmentation: views\n", "augmentation: report.html\n");
    project.call(&["run"]).ok().says("report: runs/tiny/report/report.html");
    assert!(project.path("runs/tiny/report.html/policy.json").exists());
}
