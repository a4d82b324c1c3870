//! `cache`: list, check, shrink.

use std::{collections::BTreeSet, path::PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{Session, table::Table};
use crate::{
    cache::{
        Project, Store,
        gc::{self, GcPolicy},
        history::RunRecord,
        verify,
    },
    digest::Digest,
    error::Error,
    fs::files,
    lockfile::Lockfile,
    runner::{console::headline_figures, links, text},
};

/// Arguments of `cache`.
#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List what the cache holds, newest first.
    Ls,
    /// Read every byte and compare it with its digest.
    Verify {
        /// Take what is damaged out of the cache; the next run makes it again. What somebody has edited is kept
        /// aside, the rest is removed.
        #[arg(long)]
        repair: bool,
    },
    /// Delete what no lockfile, no link under `runs/` and no running process refers to.
    #[command(after_help = "Examples:\n  simsiam-pipe cache gc --dry-run\n  simsiam-pipe cache gc --keep-last 3\n  \
                            simsiam-pipe cache gc --max-size 20GiB")]
    Gc(GcArgs),
    /// Print where the cache is.
    Path,
}

/// Arguments of `cache gc`.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// Keep the newest N artifacts of each stage too.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_last: usize,
    /// Delete, oldest first, only until the cache is not larger than this: `500MiB`, `20GB`.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// Only say what would go.
    #[arg(long, short = 'n')]
    pub dry_run: bool,
}

/// `1.5GiB`, `20GB`, `500 MiB`, `1000`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let factor = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "t" | "tib" => 1_099_511_627_776.0,
        unit => return Err(format!("`{unit}` is no unit: use KB, MB, GB, TB, KiB, MiB, GiB or TiB")),
    };
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok((number * factor) as u64),
        _ => Err("a size is a number and a unit, such as `20GiB`".into()),
    }
}

/// Does it.
///
/// # Errors
/// When the cache cannot be read or written, or `verify` finds damage.
pub fn run(args: &CacheArgs, session: &Session) -> Result<(), Error> {
    let (project, store) = session.open()?;
    match &args.command {
        CacheCommand::Ls => ls(&store, session),
        CacheCommand::Verify { repair } => verify_all(&store, *repair, session),
        CacheCommand::Gc(args) => collect(&project, &store, args, session),
        CacheCommand::Path => session.print(&format!("{}\n", store.layout().root().display())),
    }
}

fn ls(store: &Store, session: &Session) -> Result<(), Error> {
    let mut entries = Vec::new();
    let mut unreadable = 0;
    for fingerprint in store.fingerprints()? {
        match store.entry(&fingerprint) {
            Ok(Some(entry)) => entries.push((fingerprint, entry)),
            _ => unreadable += 1,
        }
    }
    entries.sort_by_key(|(fingerprint, entry)| (std::cmp::Reverse(entry.provenance.created), *fingerprint));
    if session.json() {
        let list: Vec<_> =
            entries.iter().map(|(fingerprint, entry)| json!({"fingerprint": fingerprint, "entry": entry})).collect();
        return session.print_json(&list);
    }
    let mut table = Table::new(&["made", "pipeline", "stage", "kind", "size", "took", "artifact", "figures"]);
    for (_, entry) in &entries {
        let made = &entry.provenance;
        table.row([
            made.created.to_string(),
            made.pipeline.clone(),
            made.stage.clone(),
            entry.fingerprint.kind.name().to_owned(),
            text::bytes(entry.size),
            text::duration(made.wall_seconds),
            entry.artifact.short(),
            headline_figures(&entry.metrics),
        ]);
    }
    if !table.is_empty() {
        session.print(&table.render(session.paint()))?;
    }
    let artifacts: std::collections::BTreeMap<_, _> =
        entries.iter().map(|(_, entry)| (entry.artifact, entry.size)).collect();
    let size: u64 = artifacts.values().sum();
    session.note(&format!("{} entries, {} artifacts, {}", entries.len(), artifacts.len(), text::bytes(size)));
    if unreadable > 0 {
        session.warn(&format!("{unreadable} entries cannot be read: see `simsiam-pipe cache verify`"));
    }
    Ok(())
}

fn verify_all(store: &Store, repair: bool, session: &Session) -> Result<(), Error> {
    let mut count = 0;
    let damages = verify::verify(store, &mut |_, total| count = total)?;
    if session.json() {
        session.print_json(&json!({"artifacts": count, "damages": damages, "repaired": repair}))?;
    } else {
        for damage in &damages {
            session.print(&format!("{} {}: {}\n", damage.what, damage.digest.short(), damage.message))?;
        }
        session.note(&format!("{count} artifacts read, {} problems", damages.len()));
    }
    if damages.is_empty() {
        return Ok(());
    }
    if repair {
        store.create()?;
        let kept = verify::repair(store, &damages)?;
        say_kept(&kept, session);
        session.note("removed; the next run makes them again");
        return Ok(());
    }
    Err(Error::CacheDamaged { count: damages.len() })
}

fn say_kept(paths: &[PathBuf], session: &Session) {
    for path in paths {
        session.warn(&format!("somebody changed an artifact; that copy is now at `{}`", path.display()));
    }
}

fn collect(project: &Project, store: &Store, args: &GcArgs, session: &Session) -> Result<(), Error> {
    store.create()?;
    let roots = roots(project, store)?;
    let policy = GcPolicy { keep_last: args.keep_last, max_size: args.max_size };
    let selected = gc::collect(store, &roots, policy, args.dry_run)?;
    if session.json() {
        return session.print_json(&json!({
            "dry_run": args.dry_run,
            "entries": selected.entries,
            "artifacts": selected.artifacts,
            "freed_bytes": selected.freed,
            "kept_bytes": selected.kept,
            "checkpoints": selected.checkpoints,
            "logs": selected.logs,
            "of_other_users": selected.foreign,
            "edited": selected.edited,
        }));
    }
    say_kept(&selected.edited, session);
    for artifact in &selected.artifacts {
        session.print(&format!("{artifact}\n"))?;
    }
    if !selected.checkpoints.is_empty() {
        session.note(&format!("checkpoints of {} stages that are done or given up", selected.checkpoints.len()));
    }
    if !selected.foreign.is_empty() {
        session.note(&format!("{} artifacts of other users stay: only they can delete them", selected.foreign.len()));
    }
    let word = if args.dry_run { "would be freed" } else { "freed" };
    let (count, freed, kept) = (selected.artifacts.len(), text::bytes(selected.freed), text::bytes(selected.kept));
    session.note(&format!("{count} artifacts, {freed} {word}; {kept} kept"));
    Ok(())
}

/// Artifacts that lockfiles and links of every project that ever used this cache refer to.
fn roots(project: &Project, store: &Store) -> Result<BTreeSet<Digest>, Error> {
    let mut projects: BTreeSet<PathBuf> = [project.root.clone()].into();
    let mut lockfiles: BTreeSet<PathBuf> = BTreeSet::new();
    for run in RunRecord::load_all(store.layout())? {
        lockfiles.insert(Lockfile::path_for(&run.path));
        // A moved project: its files are where they were, seen from its root.
        if let Ok(inside) = run.path.strip_prefix(&run.project_root) {
            lockfiles.insert(Lockfile::path_for(&project.root.join(inside)));
        }
        projects.insert(run.project_root);
    }
    for folder in [project.root.clone(), project.root.join("pipelines")] {
        let names = files::list(&folder)?;
        lockfiles
            .extend(names.iter().filter(|name| name.strip_suffix(".lock").is_some()).map(|name| folder.join(name)));
    }
    let mut roots = BTreeSet::new();
    for path in lockfiles {
        match Lockfile::load(&path) {
            Ok(lockfile) => roots.extend(lockfile.stages.values().map(|stage| stage.artifact)),
            // `Cargo.lock` and the like lie in the same places.
            Err(crate::lockfile::LockfileError::Invalid { .. }) if !is_ours(&path) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for root in projects {
        let runs = root.join("runs");
        for pipeline in files::list(&runs)? {
            let folder = runs.join(pipeline);
            if folder.is_dir() {
                let links = files::list(&folder)?.into_iter().filter_map(|name| files::read_link(&folder.join(name)));
                roots.extend(links.filter_map(|target| links::digest_of_link(&target)));
            }
        }
    }
    Ok(roots)
}

/// Whether a pipeline of the same name lies beside a lockfile.
fn is_ours(lockfile: &std::path::Path) -> bool {
    lockfile.with_extension("yaml").exists() || lockfile.with_extension("yml").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("1000"), Ok(1000));
        assert_eq!(parse_size("1.5 KiB"), Ok(1536));
        assert_eq!(parse_size("20GB"), Ok(20_000_000_000));
        assert!(parse_size("20 parsecs").is_err());
        assert!(parse_size("GiB").is_err());
        assert!(parse_size("-1").is_err());
    }
}
