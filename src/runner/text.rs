//! Numbers, changes and reasons for people.

use std::collections::BTreeMap;

use super::{Estimate, Reason};
use crate::fingerprint::FieldChange;

/// `0.4 s`, `41 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if whole < 60 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole / 60 % 60)
    }
}

/// `17 B`, `1.2 KiB`, `3.4 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `17000` as `17,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `` `a`, `b`, `c` and 5 more ``: few enough to read.
pub fn names<S: AsRef<str>>(names: &[S]) -> String {
    const MOST: usize = 4;
    let shown = if names.len() > MOST + 1 { MOST } else { names.len() };
    let list: Vec<String> = names[..shown].iter().map(|name| format!("`{}`", name.as_ref())).collect();
    let more = if shown < names.len() { format!(" and {} more", names.len() - shown) } else { String::new() };
    format!("{}{more}", list.join(", "))
}

/// Whether a run that has `work` times as much to do as another has as much to do.
pub fn is_same_work(work: f64) -> bool {
    (work - 1.0).abs() < 1e-9
}

/// What a run costs: `41 s, 1.2 GiB of memory, 35.0 MiB of disk`.
pub fn cost(estimate: &Estimate) -> String {
    let memory = estimate.peak_memory_bytes.map(|peak| format!(", {} of memory", bytes(peak))).unwrap_or_default();
    format!("{}{memory}, {} of disk", duration(estimate.seconds), bytes(estimate.disk_bytes))
}

/// A headline figure: four digits after the point, without empty ones.
pub fn figure(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Figures in one line, as people say them: `28 images  7 classes`, `loss -0.91  std·√d 1.02  kNN 71.4 %`.
pub fn headline(metrics: &BTreeMap<String, f64>) -> String {
    let mut figures: Vec<(u8, String)> =
        metrics.iter().filter_map(|(name, value)| Some((rank(name), spoken(name, *value)?))).collect();
    // Stable: those of one rank stay in the order of their names.
    figures.sort_by_key(|(rank, _)| *rank);
    // A report on many classifiers would fill the screen.
    const MOST: usize = 8;
    let more = figures.len().saturating_sub(MOST);
    let mut texts: Vec<String> = figures.into_iter().take(MOST).map(|(_, text)| text).collect();
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    texts.join("  ")
}

/// What is asked first comes first; baselines come last.
fn rank(name: &str) -> u8 {
    match name.rsplit('/').next().unwrap_or(name) {
        "images" | "loss" | "top1" => 0,
        "embedding_std_ratio" | "top5" => 1,
        other if other.ends_with("_top1") => 3,
        _ => 2,
    }
}

/// One figure, or nothing where it goes without saying.
fn spoken(name: &str, value: f64) -> Option<String> {
    let (area, figure_name) = name.rsplit_once('/').unwrap_or(("", name));
    let percent = 100.0 * value;
    Some(match (area, figure_name) {
        ("dataset", "skipped") if value == 0.0 => return None,
        ("dataset", what) => format!("{} {what}", count(value.max(0.0) as u64)),
        ("train", "epochs") if value == 1.0 => "1 epoch".to_owned(),
        ("train", "epochs") => format!("{} epochs", count(value.max(0.0) as u64)),
        ("train", "loss") => format!("loss {value:.3}"),
        ("train", "embedding_std_ratio") => format!("std·√d {value:.2}"),
        ("embeddings", what) => format!("{} {value:.2}", what.replace('_', " ")),
        (_, "top1") => format!("top-1 {percent:.1} %"),
        (_, "top5") => format!("top-5 {percent:.1} %"),
        (area, what) => match (what.strip_suffix("_top1"), what.strip_prefix("gain_over_")) {
            (Some(of), _) => format!("({} {percent:.1} %)", of.replace('_', " ")),
            (_, Some(over)) => format!("{area} {percent:+.1} points over {}", over.replace('_', " ")),
            _ => format!("{name} {}", figure(value)),
        },
    })
}

/// One field that changed: `with.epochs 100 → 200 (intel.yaml:23)`.
pub fn change(change: &FieldChange) -> String {
    let place = change.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
    let (old, new) = match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
            (window(old, same), window(new, same))
        }
        (old, new) => {
            let value = |value: &Option<String>| value.as_deref().map_or("nothing".to_owned(), |text| window(text, 0));
            (value(old), value(new))
        }
    };
    match &change.details {
        Some(details) => format!("`{}` {details}{place}", change.key),
        None => format!("`{}` {old} → {new}{place}", change.key),
    }
}

/// A long value is cut to what stands around the first difference.
fn window(value: &str, same: usize) -> String {
    const MOST: usize = 60;
    const BEFORE: usize = 20;
    let length = value.chars().count();
    if length <= MOST {
        return value.to_owned();
    }
    let start = if same > BEFORE { same.min(length) - BEFORE } else { 0 };
    let part: String = value.chars().skip(start).take(MOST).collect();
    let (head, tail) = (if start > 0 { "…" } else { "" }, if start + MOST < length { "…" } else { "" });
    format!("{head}{part}{tail}")
}

/// `2 changes since the last run`.
pub fn num_changes(changes: &[FieldChange]) -> String {
    match changes.len() {
        1 => "1 change since the last run".to_owned(),
        count => format!("{count} changes since the last run"),
    }
}

/// Why a stage must run: a headline, then one line for each change.
pub fn reason(reason: &Reason) -> (String, Vec<String>) {
    let none = vec![];
    match reason {
        Reason::NeverRan => ("it has never run".into(), none),
        Reason::Changed { changes } => (num_changes(changes), changes.iter().map(change).collect()),
        Reason::ChangedUnknown { locked } => (
            "something changed since the lockfile was written".into(),
            vec![format!("the record of {} is not in this cache, so it cannot be said what", locked.short())],
        ),
        Reason::NotInCache => ("nothing changed, but its artifact is not in this cache".into(), none),
        Reason::Damaged { message } => (format!("its artifact in the cache is damaged: {message}"), none),
        Reason::Forced => ("you asked for it".into(), none),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_show_the_difference_of_long_values() {
        let at = |old: &str, new: &str| {
            let (old, new) = (Some(old.to_owned()), Some(new.to_owned()));
            change(&FieldChange { key: "with.run[2]".into(), old, new, details: None, place: Some("p.yaml:3".into()) })
        };
        assert_eq!(at("100", "200"), "`with.run[2]` 100 → 200 (p.yaml:3)");
        let long = |word: &str| format!("{}{word}{}", "x".repeat(100), "y".repeat(100));
        let text = at(&long("one"), &long("two"));
        assert!(text.contains("xone") && text.contains("xtwo") && text.chars().count() < 160, "{text}");
    }

    #[test]
    fn figures_are_spoken() {
        let spell = |figures: &[(&str, f64)]| {
            headline(&figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
        };
        assert_eq!(
            spell(&[("dataset/images", 14_034.0), ("dataset/classes", 6.0), ("dataset/skipped", 0.0)]),
            "14,034 images  6 classes"
        );
        assert_eq!(
            spell(&[("train/loss", -0.91239), ("train/embedding_std_ratio", 1.0249), ("train/epochs", 100.0)]),
            "loss -0.912  std·√d 1.02  100 epochs"
        );
        assert_eq!(
            spell(&[("knn/top1", 0.7142), ("knn/top5", 1.0), ("knn/raw_pixels_top1", 0.25)]),
            "top-1 71.4 %  top-5 100.0 %  (raw pixels 25.0 %)"
        );
        let many: Vec<String> = (0..10).map(|idx| format!("knn@seed={idx}/gain")).collect();
        let many: Vec<(&str, f64)> = many.iter().map(|name| (name.as_str(), 1.0)).collect();
        assert!(spell(&many).ends_with("knn@seed=7/gain 1  and 2 more"), "{}", spell(&many));
        assert_eq!(spell(&[("probe/gain_over_untrained", -0.0101)]), "probe -1.0 points over untrained");
        assert_eq!(spell(&[("count/words", 3.0), ("lines", 0.5)]), "count/words 3  lines 0.5");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.04, 9.96, 59.4, 200.0, 7500.0].map(duration).join(", "),
            "0.0 s, 10 s, 59 s, 3 min 20 s, 2 h 05 min"
        );
        assert_eq!([17, 1229, 1 << 20, u64::MAX].map(bytes).join(", "), "17 B, 1.2 KiB, 1.0 MiB, 16384.0 PiB");
        assert_eq!(names(&["a", "b"]), "`a`, `b`");
        assert_eq!(names(&["a", "b", "c", "d", "e", "f"]), "`a`, `b`, `c`, `d` and 2 more");
        assert_eq!([7, 1000, 17_000_000].map(count).join(" "), "7 1,000 17,000,000");
        assert_eq!([0.81, 1.0, -0.98765].map(figure).join(" "), "0.81 1 -0.9877");
    }
}
