//! `summary.md`: the verdict and a short table, made to be pasted into a pull request.

use std::fmt::Write as _;

use super::{
    summary::{ClassifierSummary, CollapseState, Summary},
    text::{count, counted, label_of, number, percent_ascii, shortened, signed, visible},
    verdict::of_lead_cell,
};

/// Text that Markdown shows as it is, on one line.
fn plain(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            // Without brackets, parentheses and exclamation marks mean nothing.
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '@' => {
                escaped.push('\\');
                escaped.push(c);
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

/// The name of a stage or of what stands in a file, as code.
fn code(text: &str) -> String {
    format!("`{}`", visible(text).replace(['`', '|'], "'"))
}

/// `summary.md`.
pub fn render_markdown(summary: &Summary) -> String {
    let mut text =
        format!("### {}\n\n**{}**\n", plain(&shortened(&summary.title, 120)), sentence(&summary.verdict.headline));
    warnings(summary, &mut text);
    classifiers(summary, &mut text);
    matrix(summary, &mut text);
    label_efficiency(summary, &mut text);
    // Writing to a String cannot fail, here and below.
    if let Some(run) = &summary.pretraining {
        let collapse = match summary.verdict.collapse {
            CollapseState::Collapsed => "collapsed",
            CollapseState::Partial => "partly collapsed",
            CollapseState::Healthy => "no collapse",
            CollapseState::Unknown => "unknown",
        };
        let knn = run.final_knn_top1.map_or_else(String::new, |top1| format!(", kNN top-1 {}", percent_ascii(top1)));
        let batch = run.batch_size.map_or_else(String::new, |batch| format!(" of batch {}", count(u64::from(batch))));
        let _ = writeln!(
            text,
            "\n**Pretraining** {}: {}, seed {}, {}, {} steps{batch}, final loss {:.3}{knn}, embedding spread {:.2} of its healthy value ({collapse}).",
            code(&run.stage),
            plain(&run.backbone),
            run.seed,
            counted(u64::from(run.epochs), "epoch", "epochs"),
            count(run.steps),
            run.final_loss,
            run.final_embedding_std_ratio
        );
    }
    data(summary, &mut text);
    if !summary.verdict.advice.is_empty() {
        text.push_str("\n**What to try next**\n\n");
        for (idx, advice) in summary.verdict.advice.iter().take(3).enumerate() {
            let _ = writeln!(text, "{}. {}", idx + 1, sentence(advice));
        }
    }
    let is_ours = |stage: &str| summary.pretraining.as_ref().is_some_and(|run| run.stage == stage);
    let encoder = summary
        .provenance
        .artifacts
        .iter()
        .find(|artifact| artifact.input == "pretraining" && is_ours(&artifact.stage));
    let encoder = encoder.map_or_else(String::new, |encoder| {
        format!(", encoder `{}`", encoder.digest.get(..12).unwrap_or(&encoder.digest))
    });
    let _ = writeln!(
        text,
        "\n<sub>simsiam-pipe {}{encoder}. Curves, mistakes and the map are in `report.html` beside this file; \
         `simsiam-pipe metrics --compare BEFORE NOW --markdown` writes the differences to an earlier report.</sub>",
        plain(&summary.provenance.version)
    );
    text
}

/// What could make the figures worthless comes before them.
fn warnings(summary: &Summary, text: &mut String) {
    for shared in &summary.shared_images {
        let _ = writeln!(
            text,
            "\n> ⚠️ {} of {} {} also in {}: accuracy on {} says nothing.",
            counted(shared.count, "image", "images"),
            code(&shared.datasets[1]),
            if shared.count == 1 { "is" } else { "are" },
            code(&shared.datasets[0]),
            if shared.count == 1 { "it" } else { "them" }
        );
    }
    for warning in summary.pretraining.iter().flat_map(|run| &run.warnings) {
        let _ = writeln!(text, "\n> ⚠️ {}", sentence(warning));
    }
}

fn classifiers(summary: &Summary, text: &mut String) {
    let choice = summary.cells.as_ref().and_then(|cells| cells.choice.as_ref());
    // Of a matrix the best run; the others have a table of their own.
    let shown: Vec<&ClassifierSummary> =
        if choice.is_some() { of_lead_cell(&summary.classifiers) } else { summary.classifiers.iter().collect() };
    if shown.iter().all(|classifier| classifier.scores.is_empty()) {
        return;
    }
    text.push_str(
        "\n| classifier | top-1 (95 % interval) | over the untrained network | over raw pixels | labels | test images |\n\
         |---|---:|---:|---:|---:|---:|\n",
    );
    for classifier in shown {
        if let Some(main) = classifier.main() {
            let _ = writeln!(
                text,
                "| {} ({}) | {} ({} to {}) | {} | {} | {} | {} |",
                plain(&label_of(&classifier.protocol)),
                code(&classifier.stage),
                percent_ascii(main.top1),
                hundredths(main.top1_interval[0]),
                hundredths(main.top1_interval[1]),
                gain(classifier, "untrained"),
                gain(classifier, "raw_pixels"),
                count(classifier.num_train),
                count(classifier.num_test)
            );
        }
    }
    text.push_str("\n<sub>Differences in points with their 95 % intervals: ↑ clearly better, ↓ clearly worse, ≈ may be chance.</sub>\n");
}

/// Rows of the table of runs, at most.
const RUNS: usize = 8;

fn matrix(summary: &Summary, text: &mut String) {
    let Some(cells) = &summary.cells else { return };
    let knn = cells
        .final_knn_top1
        .map_or_else(String::new, |knn| format!(", kNN top-1 {} ± {}", percent_ascii(knn.mean), hundredths(knn.sd)));
    let _ = writeln!(
        text,
        "\n**{} pretrainings** (mean ± sd): final loss {:.3} ± {:.3}, embedding spread {:.2} ± {:.2}{knn}.",
        cells.runs.len(),
        cells.final_loss.mean,
        cells.final_loss.sd,
        cells.final_embedding_std_ratio.mean,
        cells.final_embedding_std_ratio.sd
    );
    let Some(choice) = &cells.choice else { return };
    let judges: Vec<String> = choice.classifiers.iter().take(3).map(|judge| code(judge)).collect();
    let _ = write!(text, "\n| run, the best first | {} |\n|---|{}\n", judges.join(" | "), "---:|".repeat(judges.len()));
    for run in choice.runs.iter().take(RUNS) {
        let _ = write!(text, "| {}{} |", code(&run.stage), if run.is_tied { " ≈" } else { "" });
        for (top1, interval) in run.top1.iter().zip(&run.top1_interval).take(3) {
            let [low, high] = interval.map(hundredths);
            let _ = write!(text, " {} ({low} to {high}) |", percent_ascii(*top1));
        }
        text.push('\n');
    }
    let left_out = choice.runs.len().saturating_sub(RUNS);
    let more = if left_out > 0 { format!(" {left_out} more are in the report.") } else { String::new() };
    let _ = writeln!(text, "\n<sub>≈ cannot be told from the best (95 % interval of the difference).{more}</sub>");
}

fn label_efficiency(summary: &Summary, text: &mut String) {
    if summary.label_efficiency.is_empty() {
        return;
    }
    text.push_str("\n| share of the labels | from pretrained weights | top-1 | from scratch | gain |\n|---:|---|---:|---:|---:|\n");
    for point in &summary.label_efficiency {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} points |",
            percent_ascii(point.label_fraction),
            plain(&label_of(&point.protocol)),
            percent_ascii(point.top1),
            percent_ascii(point.supervised_top1),
            signed(100.0 * point.gain)
        );
    }
}

/// One line about what was learned from and judged by.
fn data(summary: &Summary, text: &mut String) {
    let parts: Vec<String> = summary
        .datasets
        .iter()
        .map(|dataset| {
            let mut part = format!("{} {}", code(&dataset.stage), counted(dataset.num_images, "image", "images"));
            if dataset.classes.is_empty() {
                part.push_str(" without labels");
            } else {
                let _ = write!(part, " of {}", counted(dataset.classes.len() as u64, "class", "classes"));
            }
            if let Some(duplicates) = dataset.num_duplicates.filter(|duplicates| *duplicates > 0) {
                let _ = write!(part, ", {} twice or more", count(duplicates));
            }
            if dataset.num_skipped > 0 {
                let _ = write!(part, ", {} skipped", counted(dataset.num_skipped, "file", "files"));
            }
            part
        })
        .collect();
    if !parts.is_empty() {
        // What was not compared is not claimed.
        let compared = parts.len() > 1 && summary.datasets.iter().all(|dataset| dataset.num_duplicates.is_some());
        let apart = if compared && summary.shared_images.is_empty() { "; no image is in two of them" } else { "" };
        let _ = writeln!(text, "\n**Data** {}{apart}.", parts.join("; "));
    }
}

/// Our own sentences hold no names, only words such as `base_lr` that Markdown could misread.
fn sentence(text: &str) -> String {
    plain(text).replace('\u{202f}', " ")
}

/// A share in [0, 1] in hundredths, where the unit stands elsewhere.
fn hundredths(share: f64) -> String {
    number(share * 100.0, 1)
}

/// How much better than a baseline, with the interval and what it means.
fn gain(classifier: &ClassifierSummary, baseline: &str) -> String {
    let Some(comparison) = classifier.comparisons.iter().find(|comparison| comparison.baseline == baseline) else {
        return "–".to_owned();
    };
    let [low, high] = comparison.interval;
    let mark = if low > 0.0 {
        "↑"
    } else if high < 0.0 {
        "↓"
    } else {
        "≈"
    };
    format!("{} ({} to {}) {mark}", signed(comparison.difference * 100.0), hundredths(low), hundredths(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_cell() {
        assert_eq!(plain("a|b\n[x](y) <z> `c`"), "a\\|b\\\\u{a}\\[x\\](y) &lt;z&gt; \\`c\\`");
    }
}
