//! `summary.md`: the verdict and a short table, made to be pasted into a pull request.

use std::fmt::Write as _;

use super::{
    summary::{ClassifierSummary, CollapseState, RepresentationScores, Summary},
    text::{count, label_of, percent_ascii, shortened, visible},
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

/// `summary.md`.
pub fn render_markdown(summary: &Summary) -> String {
    let mut text =
        format!("### {}\n\n**{}**\n", plain(&shortened(&summary.title, 120)), sentence(&summary.verdict.headline));
    // Writing to a String cannot fail, here and below.
    if summary.classifiers.iter().any(|classifier| !classifier.scores.is_empty()) {
        text.push_str(
            "\n| classifier | labels | top-1 (95 % interval) | untrained network | raw pixels | test images |\n\
             |---|---:|---:|---:|---:|---:|\n",
        );
        for classifier in &summary.classifiers {
            if let Some(main) = classifier.main() {
                let _ = writeln!(
                    text,
                    "| {} (`{}`) | {} | {} ({} to {}) | {} | {} | {} |",
                    plain(&label_of(&classifier.protocol)),
                    visible(&classifier.stage).replace(['`', '|'], "'"),
                    count(classifier.num_train),
                    percent_ascii(main.top1),
                    percent_ascii(main.top1_interval[0]),
                    percent_ascii(main.top1_interval[1]),
                    score_of(classifier, "untrained"),
                    score_of(classifier, "raw_pixels"),
                    count(classifier.num_test)
                );
            }
        }
    }
    if !summary.label_efficiency.is_empty() {
        text.push_str("\n| share of the labels | from pretrained weights | top-1 | from scratch | gain |\n|---:|---|---:|---:|---:|\n");
        for point in &summary.label_efficiency {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:+.1} points |",
                percent_ascii(point.label_fraction),
                plain(&label_of(&point.protocol)),
                percent_ascii(point.top1),
                percent_ascii(point.supervised_top1),
                100.0 * point.gain
            );
        }
    }
    if let Some(run) = &summary.pretraining {
        let collapse = match summary.verdict.collapse {
            CollapseState::Collapsed => "collapsed",
            CollapseState::Partial => "partly collapsed",
            CollapseState::Healthy => "no collapse",
            CollapseState::Unknown => "unknown",
        };
        let _ = writeln!(
            text,
            "\nPretraining: {}, {} epochs, {} steps, final loss {:.3}, embedding spread {:.2} of its healthy value ({collapse}).",
            plain(&run.backbone),
            count(u64::from(run.epochs)),
            count(run.steps),
            run.final_loss,
            run.final_embedding_std_ratio
        );
    }
    if let Some(cells) = &summary.cells {
        let knn = cells.final_knn_top1.map_or_else(String::new, |knn| {
            format!(", kNN top-1 {} ± {}", percent_ascii(knn.mean), percent_ascii(knn.sd))
        });
        let _ = writeln!(
            text,
            "\n{} pretrainings (mean ± sd): final loss {:.3} ± {:.3}, embedding spread {:.2} ± {:.2}{knn}.",
            cells.runs.len(),
            cells.final_loss.mean,
            cells.final_loss.sd,
            cells.final_embedding_std_ratio.mean,
            cells.final_embedding_std_ratio.sd
        );
    }
    if !summary.verdict.advice.is_empty() {
        text.push_str("\nWhat to try next:\n\n");
        for advice in summary.verdict.advice.iter().take(3) {
            let _ = writeln!(text, "- {}", sentence(advice));
        }
    }
    text
}

/// Our own sentences hold no names, only words such as `base_lr` that Markdown could misread.
fn sentence(text: &str) -> String {
    plain(text).replace('\u{202f}', " ")
}

fn score_of(classifier: &ClassifierSummary, representation: &str) -> String {
    let found: Option<&RepresentationScores> =
        classifier.scores.iter().find(|scores| scores.representation == representation);
    found.map_or_else(|| "–".to_owned(), |scores| percent_ascii(scores.top1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_cell() {
        assert_eq!(plain("a|b\n[x](y) <z> `c`"), "a\\|b\\\\u{a}\\[x\\](y) &lt;z&gt; \\`c\\`");
    }
}
