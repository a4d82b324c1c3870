//! Every target with changed files, on stable Rust and without coverage: `mutate SECONDS [TARGET…]`.
//!
//! A file that makes a target panic, or takes more than a second, is written to `artifacts/` and ends the program.
#![allow(clippy::print_stdout, reason = "a tool for the terminal")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use simsiam_pipe::data::hostile::{TARGETS, mutate, seeds};

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(10);
    let wanted: Vec<String> = args.collect();
    for (name, target) in TARGETS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|it| it == name)) {
        let mut pool = seeds(name);
        if matches!(*name, "decode" | "jpeg") {
            pool.extend(golden_images());
        }
        let (began, mut executions, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
        while began.elapsed() < Duration::from_secs(seconds) {
            let (seed, other) =
                (&pool[executions as usize % pool.len()], &pool[(executions * 7 + 3) as usize % pool.len()]);
            let bytes = mutate(seed, other, executions);
            let started = Instant::now();
            let survived = catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_ok();
            slowest = slowest.max(started.elapsed());
            if !survived || started.elapsed() > Duration::from_secs(1) {
                let path = format!("artifacts/{name}-{executions}");
                let _ = std::fs::create_dir_all("artifacts");
                let _ = std::fs::write(&path, &bytes);
                println!("{name}: {} after {executions} executions: {path}", if survived { "slow" } else { "panic" });
                std::process::exit(1);
            }
            executions += 1;
        }
        println!("{name}: {executions} executions, slowest {:.1} ms", slowest.as_secs_f64() * 1e3);
    }
}

/// The small files that the tests compare with Pillow.
fn golden_images() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/data");
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).filter(|bytes| bytes.len() < 4096).collect()
}
