//! One spelling for each JSON value, so that equal meaning gives equal bytes.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// Writes a value with sorted keys, without spaces and with one spelling for each number: `1.0`, `1e0` and
/// `1` are `1`, `0.10` and `1e-1` are `0.1`, `-0.0` is `0`.
pub fn to_canonical_json(value: &Value) -> String {
    let mut text = String::new();
    render(value, &mut text);
    text
}

fn render(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) => text.push_str(&spell(number)),
        Value::Array(items) => {
            text.push('[');
            for (idx, item) in items.iter().enumerate() {
                if idx > 0 {
                    text.push(',');
                }
                render(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (idx, (key, field)) in sorted(fields).into_iter().enumerate() {
                if idx > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::from(key.as_str()));
                render(field, text);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

/// Fields by key: whether `serde_json` keeps the order of insertion depends on features of other crates.
fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_unstable_by_key(|(key, _)| *key);
    fields
}

/// Above this, floats are not next to each other's integers any more.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// The one spelling of a number.
pub fn spell(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) if float.fract() == 0.0 && float.abs() < LARGEST_EXACT => format!("{}", float as i64),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn spelling_and_order_do_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b": 0.10, "a": [1.0, -0.0, 1e2]}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"a": [1, 0, 100], "b": 1e-1}"#).unwrap();
        assert_eq!(to_canonical_json(&one), to_canonical_json(&other));
        assert_eq!(to_canonical_json(&one), r#"{"a":[1,0,100],"b":0.1}"#);
    }

    #[test]
    fn values_of_different_type_differ() {
        let texts: Vec<_> = [json!(1), json!("1"), json!(true), json!(null), json!([1]), json!({"1": 1})]
            .iter()
            .map(to_canonical_json)
            .collect();
        assert!(texts.iter().enumerate().all(|(idx, text)| !texts[..idx].contains(text)));
    }

    proptest! {
        #[test]
        fn different_floats_have_different_spellings(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(to_canonical_json(&json!(a)) == to_canonical_json(&json!(b)), a == b);
        }

        #[test]
        fn canonical_text_reads_back_as_itself(a in any::<f64>(), key in ".*") {
            prop_assume!(a.is_finite());
            let text = to_canonical_json(&json!({key: [a]}));
            let back: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(to_canonical_json(&back), text);
        }
    }
}
