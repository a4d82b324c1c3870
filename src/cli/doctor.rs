//! `doctor`: the machine, the project and the cache at a glance.

use std::fmt::Write as _;

use serde::Serialize;

use super::Session;
use crate::{
    cache::{CacheError, Layout, Store},
    compute::{self, Gpu},
    error::Error,
    fs::files,
    runner::text,
    sys,
};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {}

#[derive(Serialize)]
struct Health {
    version: &'static str,
    host: String,
    cores: usize,
    threads: usize,
    simd: Vec<&'static str>,
    memory_total: Option<u64>,
    memory_available: Option<u64>,
    project_root: String,
    cache_dir: String,
    cache_exists: bool,
    cache_writable: bool,
    cache_entries: usize,
    disk_free: Option<u64>,
    gpus: Vec<Gpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_gpu_because: Option<String>,
    problems: Vec<String>,
}

/// Prints what was found.
///
/// # Errors
/// With exit code 5 or 6 when the cache cannot be used.
pub fn run(_args: &DoctorArgs, session: &Session) -> Result<(), Error> {
    let project = session.project()?;
    let layout = Layout::new(&project.cache_dir);
    let exists = files::exists(layout.root());
    let nearest = layout.root().ancestors().find(|dir| dir.is_dir()).unwrap_or(&project.root);
    let writable = files::is_writable_dir(nearest);
    let disk_free = sys::free_disk_bytes(nearest);
    let memory = sys::memory_bytes();
    let opened: Result<Store, CacheError> = Store::open(layout.clone());
    let mut problems = Vec::new();
    if !writable {
        problems.push(format!("`{}` cannot be written: choose another place with `--cache-dir`", nearest.display()));
    }
    if disk_free.is_some_and(|free| free < 1 << 30) {
        problems.push("less than 1 GiB of disk is free".to_owned());
    }
    if memory.is_some_and(|(_, available)| available < 1 << 30) {
        problems.push("less than 1 GiB of memory is free".to_owned());
    }
    if let Err(error) = &opened {
        problems.push(error.to_string());
    }
    let (gpus, no_gpu_because) = match compute::gpus() {
        Ok(gpus) if gpus.iter().any(|gpu| gpu.usable) => (gpus, compute::compiler_problem()),
        Ok(gpus) if gpus.is_empty() => (gpus, Some("the driver knows of none".to_owned())),
        Ok(gpus) => (gpus, Some("compute capability 8.0 is needed".to_owned())),
        Err(reason) => (vec![], Some(reason)),
    };
    let health = Health {
        version: env!("CARGO_PKG_VERSION"),
        host: sys::host_name(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        threads: rayon::current_num_threads(),
        simd: simd(),
        memory_total: memory.map(|(total, _)| total),
        memory_available: memory.map(|(_, available)| available),
        project_root: project.root.display().to_string(),
        cache_dir: project.cache_dir.display().to_string(),
        cache_exists: exists,
        cache_writable: writable,
        cache_entries: opened.as_ref().ok().and_then(|store| store.fingerprints().ok()).map_or(0, |list| list.len()),
        disk_free,
        gpus,
        no_gpu_because,
        problems,
    };
    if session.json() {
        session.print_json(&health)?;
    } else {
        session.print(&render(&health, session))?;
    }
    opened?;
    Ok(())
}

fn render(health: &Health, session: &Session) -> String {
    let paint = session.paint();
    let bytes = |count: Option<u64>| count.map_or("unknown".to_owned(), text::bytes);
    let cache = if health.cache_exists {
        format!("{} ({} entries)", health.cache_dir, health.cache_entries)
    } else {
        format!("{} (will be made by the first run)", health.cache_dir)
    };
    let rows = [
        ("version", health.version.to_owned()),
        ("host", health.host.clone()),
        ("cores", format!("{} ({} threads used)", health.cores, health.threads)),
        ("SIMD", if health.simd.is_empty() { "baseline".to_owned() } else { health.simd.join(" ") }),
        ("memory", format!("{}, {} available", bytes(health.memory_total), bytes(health.memory_available))),
        ("project", health.project_root.clone()),
        ("cache", cache),
        ("disk", format!("{} free", bytes(health.disk_free))),
    ];
    let mut out = String::new();
    for (name, value) in rows {
        let _ = writeln!(out, "{}  {value}", paint.dim(&format!("{name:<8}")));
    }
    for gpu in &health.gpus {
        let Gpu { ordinal, name, capability, memory, .. } = gpu;
        let memory = text::bytes(*memory);
        let _ = writeln!(
            out,
            "{}  cuda:{ordinal}: {name}, compute capability {capability}, {memory}",
            paint.dim("GPU     ")
        );
    }
    if let Some(reason) = &health.no_gpu_because {
        let _ = writeln!(out, "{}  none that can be used: {reason}", paint.dim("GPU     "));
    }
    for problem in &health.problems {
        let _ = writeln!(out, "{}  {problem}", paint.yellow("problem "));
    }
    if health.problems.is_empty() {
        let _ = writeln!(out, "{}", paint.green("all is well"));
    }
    out
}

/// Instructions that the kernels can use here.
fn simd() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        for (name, there) in [
            ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("avx", std::arch::is_x86_feature_detected!("avx")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ] {
            if there {
                found.push(name);
            }
        }
    }
    #[cfg(target_arch = "aarch64")]
    found.push("neon");
    found
}
