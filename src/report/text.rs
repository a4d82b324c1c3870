//! Numbers and names as people read them.

use std::fmt::Write as _;

/// Thin space that does not break, between a number and its unit.
const THIN: char = '\u{202f}';

/// A share in [0, 1] as a percentage with one decimal: `81.3 %`.
pub fn percent(share: f64) -> String {
    format!("{}{THIN}%", number(share * 100.0, 1))
}

/// A share of the labels as short as it can be said: `5 %`.
pub fn short_percent(share: f64) -> String {
    format!("{}{THIN}%", significant(share * 100.0))
}

/// A share in [0, 1] as a percentage in plain ASCII, for Markdown and logs.
pub fn percent_ascii(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A difference of shares in percentage points with its sign: `+12.4 points`.
pub fn points(difference: f64) -> String {
    format!("{}{THIN}points", signed(difference * 100.0))
}

/// A number with one decimal and its sign: `+12.4`.
pub fn signed(value: f64) -> String {
    let rounded = number(value, 1);
    let sign = if rounded.starts_with('−') || rounded == "0.0" { "" } else { "+" };
    format!("{sign}{rounded}")
}

/// A number with a fixed count of decimals and a true minus sign; never `−0.0`.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "not finite".to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    let is_zero = text.chars().all(|c| matches!(c, '0' | '.'));
    if value < 0.0 && !is_zero { format!("−{text}") } else { text }
}

/// A number with about three significant digits, in powers of ten where it is very small or large.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "not finite".to_owned();
    }
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e6).contains(&size) {
        let text = format!("{value:.2e}");
        return text.replace('-', "−");
    }
    let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = number(value, decimals);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A count with commas: `17,034`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 image`, `1,800 images`.
pub fn counted(value: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", count(value), if value == 1 { singular } else { plural })
}

/// Whether a character could hide or reorder its neighbours: controls and the marks of bidirectional text.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}')
}

/// Text in which nothing hides: deceptive characters appear as `\u{202e}`.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Text for element content and quoted attributes of HTML and SVG, with nothing hidden in it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// At most `max` characters, the middle left out: file names differ at both ends.
pub fn shortened(text: &str, max: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= max {
        return text.to_owned();
    }
    let head = max.saturating_sub(1) / 2;
    let tail = max.saturating_sub(1) - head;
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

/// A word of the formats as people write it: `linear_probe` → `Linear probe`.
pub fn label_of(word: &str) -> String {
    match word {
        "linear_probe" => "Linear probe".to_owned(),
        "knn" => "Nearest neighbours".to_owned(),
        "fine_tune" => "Fine-tuned".to_owned(),
        "supervised" => "From scratch".to_owned(),
        "pretrained" => "Pretrained".to_owned(),
        "untrained" => "Untrained network".to_owned(),
        "raw_pixels" => "Raw pixels".to_owned(),
        other => {
            let spaced = other.replace('_', " ");
            let mut chars = spaced.chars();
            chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_print() {
        assert_eq!(percent(0.8134), "81.3\u{202f}%");
        assert_eq!(points(0.124), "+12.4\u{202f}points");
        assert_eq!(points(-0.031), "−3.1\u{202f}points");
        assert_eq!(points(-0.0001), "0.0\u{202f}points");
        assert_eq!(number(-0.8312, 3), "−0.831");
        assert_eq!(number(-0.0001, 2), "0.00");
        assert_eq!(significant(0.0), "0");
        assert_eq!(significant(0.05), "0.05");
        assert_eq!(significant(0.000_012), "1.20e−5");
        assert_eq!(significant(12_345.0), "12345");
        assert_eq!(significant(-0.25), "−0.25");
        assert_eq!(number(f64::NAN, 2), "not finite");
    }

    #[test]
    fn counts_have_commas() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(17_034), "17,034");
        assert_eq!(count(1_281_167), "1,281,167");
        assert_eq!(counted(1, "image", "images"), "1 image");
    }

    #[test]
    fn nothing_hides_in_a_name() {
        assert_eq!(visible("a\u{202e}gpj.exe"), "a\\u{202e}gpj.exe");
        assert_eq!(visible("line\nbreak"), "line\\u{a}break");
        assert_eq!(visible("Straße 東京 مباني"), "Straße 東京 مباني");
        assert_eq!(escape("<b a='\"&'>"), "&lt;b a=&#39;&quot;&amp;&#39;&gt;");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("abcdefghij", 5), "ab…ij");
        assert_eq!(shortened("abc", 5), "abc");
    }

    #[test]
    fn words_become_labels() {
        assert_eq!(label_of("linear_probe"), "Linear probe");
        assert_eq!(label_of("my_own_thing"), "My own thing");
        assert_eq!(label_of(""), "");
    }
}
