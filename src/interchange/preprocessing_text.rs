//! How a file becomes network input, in words that somebody can program by.

use crate::{
    augment::augment_config::EvaluationViewConfig,
    data::ingest_config::{ResizeConfig, is_white},
    train::Preprocessing,
};

/// The steps from a decoded image to the input [batch, 3, size, size].
pub fn describe(preprocessing: &Preprocessing) -> String {
    let Preprocessing { resize, background, image_size: size, evaluation, channel_stats } = preprocessing;
    let mut steps = vec!["decode to RGB, 8 bits a channel".to_owned()];
    if !is_white(background) {
        steps.push(format!("lay transparency over the colour {background:?}"));
    }
    match resize {
        ResizeConfig::None => {}
        ResizeConfig::ShorterSide(side) => steps.push(format!(
            "where the shorter side has more than {side} pixels, resize so that it has {side}, the longer one rounded down"
        )),
        ResizeConfig::Exact(exact) => {
            steps.push(format!("resize to {} pixels in width and {} in height", exact.width, exact.height));
        }
    }
    match evaluation {
        EvaluationViewConfig::Squash => steps.push(format!("resize to {size} by {size} pixels")),
        EvaluationViewConfig::CenterCrop => {
            steps.push(format!("resize so that the shorter side has {size} pixels, the longer one rounded down"));
            steps.push(format!("take the central square of {size} pixels"));
        }
        EvaluationViewConfig::ResizeAndCenterCrop => {
            let shorter = (size * 8 + 3) / 7;
            steps.push(format!("resize so that the shorter side has {shorter} pixels, the longer one rounded down"));
            steps.push(format!("take the central square of {size} pixels"));
        }
    }
    let list = |values: [f64; 3]| values.map(|value| value.to_string()).join(", ");
    let (mean, std) = (list(channel_stats.mean), list(channel_stats.std));
    steps.push(format!("(value / 255 - mean) / std with mean [{mean}] and std [{std}]"));
    steps.push(format!("as [batch, 3, {size}, {size}], channels red, green, blue"));
    let numbered: Vec<String> = (1..).zip(steps).map(|(number, step)| format!("{number}. {step}")).collect();
    format!("{}. Every resize is bilinear with antialias, as in Pillow.", numbered.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::embeddings::tests::encoder_card;

    #[test]
    fn every_step_is_said() {
        let mut preprocessing = encoder_card(4).preprocessing;
        preprocessing.resize = ResizeConfig::ShorterSide(72);
        preprocessing.evaluation = EvaluationViewConfig::ResizeAndCenterCrop;
        let text = describe(&preprocessing);
        for part in
            ["more than 72 pixels", "shorter side has 37 pixels", "central square of 32", "[0.485, 0.456, 0.406]"]
        {
            assert!(text.contains(part), "`{part}` is not in {text}");
        }
    }
}
