//! Which size a list of operations leaves, whatever the image.

use super::augment_config::OpConfig;

/// An operation after which views do not have the size that they must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSize {
    /// Number of the operation in its list.
    pub op: usize,
    /// What it leaves.
    pub leaves: String,
}

/// Checks that views end as squares of `image_size`.
///
/// # Errors
/// Names the last operation that sets another size.
pub fn check_view_size(ops: &[OpConfig], image_size: u32) -> Result<(), WrongSize> {
    // `None` where the size depends on the image.
    let mut side = None;
    let mut last = None;
    for (idx, op) in ops.iter().enumerate() {
        side = match op {
            OpConfig::RandomResizedCrop(_) | OpConfig::PadCrop(_) => Some(image_size),
            OpConfig::CenterCrop(crop) => Some(crop.size.unwrap_or(image_size)),
            OpConfig::Resize(resize) => match resize.shorter_side {
                None => Some(image_size),
                Some(shorter) if side.is_some() => Some(shorter),
                Some(_) => None,
            },
            _ => continue,
        };
        last = Some(idx);
    }
    match (last, side) {
        (Some(op), None) => Err(WrongSize { op, leaves: "images whose longer side is any size".into() }),
        (Some(op), Some(side)) if side != image_size => {
            Err(WrongSize { op, leaves: format!("squares of {side} × {side} pixels") })
        }
        _ => Ok(()),
    }
}

/// What to do about a wrong size.
pub const WRONG_SIZE_HELP: &str =
    "let `random_resized_crop`, `pad_crop`, `center_crop: {}` or `resize: {}` follow: they leave `image_size`";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(ops: Value) -> Result<(), WrongSize> {
        check_view_size(&serde_json::from_value::<Vec<OpConfig>>(ops).unwrap(), 32)
    }

    #[test]
    fn the_last_size_counts() {
        for right in [
            json!([]),
            json!([{ "horizontal_flip": {} }]),
            json!([{ "resize": { "shorter_side": 40 } }, { "center_crop": {} }, { "horizontal_flip": {} }]),
            json!([{ "center_crop": { "size": 178 } }, { "resize": { "shorter_side": 32 } }]),
            json!([{ "center_crop": { "size": 178 } }, { "random_resized_crop": {} }]),
        ] {
            assert_eq!(check(right.clone()), Ok(()), "{right}");
        }
        assert_eq!(check(json!([{ "horizontal_flip": {} }, { "resize": { "shorter_side": 40 } }])).unwrap_err().op, 1);
        let wrong = check(json!([{ "random_resized_crop": {} }, { "center_crop": { "size": 24 } }])).unwrap_err();
        assert_eq!((wrong.op, wrong.leaves.as_str()), (1, "squares of 24 × 24 pixels"));
    }
}
