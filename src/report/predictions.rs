//! `predictions.csv`: which wrong answers a classifier was surest of.

use super::summary::Mistake;

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The image's file name.
    pub file: String,
    /// Its class.
    pub actual: String,
    /// What it was taken for.
    pub predicted: String,
    /// Probability of the answer.
    pub probability: f64,
}

/// The answers of a `predictions.csv` in their order. Columns are found by their name in the header and may stand in any
/// order; rows that do not fit are passed over.
pub fn answers(csv: &str) -> Vec<Answer> {
    let mut rows = parse_csv(csv).into_iter();
    let Some(header) = rows.next() else { return vec![] };
    let column = |words: &[&str], taken: Option<usize>| {
        words.iter().find_map(|word| {
            header
                .iter()
                .enumerate()
                .position(|(idx, name)| Some(idx) != taken && name.trim().to_lowercase().contains(word))
        })
    };
    // `label` alone may also be part of the predicted column's name.
    let predicted = column(&["predict"], None);
    let (Some(file), Some(actual), Some(predicted), Some(probability)) = (
        column(&["file", "image"], None),
        column(&["true", "actual", "label"], predicted),
        predicted,
        column(&["prob"], predicted),
    ) else {
        return vec![];
    };
    rows.filter_map(|row| {
        let probability: f64 = row.get(probability)?.trim().parse().ok()?;
        let (actual, predicted) = (row.get(actual)?.clone(), row.get(predicted)?.clone());
        let file = row.get(file).cloned().unwrap_or_default();
        probability.is_finite().then_some(Answer { file, actual, predicted, probability })
    })
    .collect()
}

/// The wrong answers of a `predictions.csv`, the surest first, at most `max`.
pub fn confident_mistakes(csv: &str, max: usize) -> Vec<Mistake> {
    let wrong = answers(csv).into_iter().filter(|answer| answer.actual != answer.predicted);
    let mut mistakes: Vec<Mistake> = wrong
        .map(|Answer { file, actual, predicted, probability }| Mistake { file, actual, predicted, probability })
        .collect();
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability).then_with(|| a.file.cmp(&b.file)));
    mistakes.truncate(max);
    mistakes
}

/// Rows of a CSV text as RFC 4180 has it: fields in quotes may hold commas, line breaks and doubled quotes.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![];
    let mut row: Vec<String> = vec![];
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            _ => field.push(c),
        }
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surest_mistakes_come_first() {
        let csv = "file,true_label,predicted,probability,correct\n\
                   a.jpg,sea,sea,0.99,true\n\
                   b.jpg,sea,forest,0.70,false\n\
                   \"c, \"\"x\"\".jpg\",forest,sea,0.95,false\r\n\
                   d.jpg,sea,forest,0.95,false\n";
        let mistakes = confident_mistakes(csv, 2);
        assert_eq!(mistakes.len(), 2);
        assert_eq!(mistakes[0].file, "c, \"x\".jpg");
        assert_eq!(mistakes[1].file, "d.jpg");
    }

    #[test]
    fn columns_are_found_by_name() {
        let csv = "probability,predicted_label,label,file_name\n0.5,a,b,x.png\n";
        let mistakes = confident_mistakes(csv, 9);
        assert_eq!((mistakes[0].actual.as_str(), mistakes[0].predicted.as_str()), ("b", "a"));
    }

    #[test]
    fn broken_rows_are_passed_over() {
        let csv = "file,true,predicted,probability\nx\ny,a,b,high\nz,a,b,NaN\nw,a,b,0.4";
        assert_eq!(confident_mistakes(csv, 9).len(), 1);
        assert!(confident_mistakes("", 9).is_empty());
        assert!(confident_mistakes("only,one\n1,2\n", 9).is_empty());
    }

    #[test]
    fn line_breaks_in_quotes_stay() {
        assert_eq!(parse_csv("a,\"b\nc\"\n"), vec![vec!["a".to_owned(), "b\nc".to_owned()]]);
    }
}
