//! What an unquoted YAML scalar means: the core schema of YAML 1.2 (section 10.3.2).

/// The value of a scalar; text is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ScalarKind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// Text.
    Str,
}

/// A scalar: its value and the text that it was written as, quotes removed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    /// What it means.
    pub kind: ScalarKind,
    /// Its text.
    pub text: String,
}

impl Scalar {
    /// An unquoted scalar.
    pub(crate) fn plain(text: String) -> Self {
        Self { kind: resolve_plain(&text), text }
    }

    /// A quoted scalar: text whatever it looks like.
    pub(crate) fn quoted(text: String) -> Self {
        Self { kind: ScalarKind::Str, text }
    }
}

/// The value of an unquoted scalar.
pub(crate) fn resolve_plain(text: &str) -> ScalarKind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return ScalarKind::Null,
        "true" | "True" | "TRUE" => return ScalarKind::Bool(true),
        "false" | "False" | "FALSE" => return ScalarKind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return ScalarKind::Float(f64::NAN),
        _ => {}
    }
    if let Some(int) = resolve_int(text) {
        return int;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return ScalarKind::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if !is_decimal(unsigned) {
        return ScalarKind::Str;
    }
    text.parse().map_or(ScalarKind::Str, ScalarKind::Float)
}

fn resolve_int(text: &str) -> Option<ScalarKind> {
    let radix = |digits: &str, radix: u32| {
        let all = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        all.then(|| i128::from_str_radix(digits, radix).map_or(ScalarKind::Str, ScalarKind::Int))
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Beyond 128 bits only the magnitude is left, and every field refuses that.
    Some(text.parse().map_or_else(|_| text.parse().map_or(ScalarKind::Str, ScalarKind::Float), ScalarKind::Int))
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`: narrower than Rust's own float syntax.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        assert_eq!(resolve_plain("1e-4"), ScalarKind::Float(1e-4));
        assert_eq!(resolve_plain("1.0e-4"), ScalarKind::Float(1e-4));
        assert_eq!(resolve_plain("0.10"), ScalarKind::Float(0.1));
        assert_eq!(resolve_plain(".5"), ScalarKind::Float(0.5));
        assert_eq!(resolve_plain("-3."), ScalarKind::Float(-3.0));
        assert_eq!(resolve_plain("+12"), ScalarKind::Int(12));
        assert_eq!(resolve_plain("0x1F"), ScalarKind::Int(31));
        assert_eq!(resolve_plain("0o17"), ScalarKind::Int(15));
        assert_eq!(resolve_plain("017"), ScalarKind::Int(17));
        assert_eq!(resolve_plain("True"), ScalarKind::Bool(true));
        assert_eq!(resolve_plain("~"), ScalarKind::Null);
        assert_eq!(resolve_plain("-.inf"), ScalarKind::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn words_that_only_look_like_values_are_text() {
        for text in ["yes", "on", "1_000", "inf", "nan", "1e", ".", "e5", "0x", "1.2.3", "--1", "+", "infinity"] {
            assert_eq!(resolve_plain(text), ScalarKind::Str, "{text}");
        }
    }

    #[test]
    fn a_whole_number_beyond_128_bits_is_still_a_number() {
        assert!(matches!(resolve_plain(&"9".repeat(60)), ScalarKind::Float(_)));
    }
}
