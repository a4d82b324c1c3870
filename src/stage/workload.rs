//! What in a stage's parameters its duration is proportional to.

use serde_json::Value;

/// Where such numbers stand: passes over the training images, and images that are drawn.
const PLACES: [&[&str]; 5] = [
    &["epochs"],
    &["fine_tune", "epochs"],
    &["supervised", "epochs"],
    &["linear_probe", "sgd", "epochs"],
    &["source", "synthetic_scenes", "images_per_class"],
];

/// How many times as long a stage takes with the parameters `new` as with `old`, all else being equal: 1 where nothing of
/// them says so.
pub fn relative_work(old: &Value, new: &Value) -> f64 {
    let amount = |config: &Value, place: &[&str]| {
        let found = place.iter().try_fold(config, |value, key| value.get(key));
        found.and_then(Value::as_f64).filter(|amount| *amount > 0.0)
    };
    PLACES.iter().filter_map(|place| Some(amount(new, place)? / amount(old, place)?)).product()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn twice_the_passes_take_twice_as_long() {
        let pretrain = |epochs: u32, batch_size: u32| json!({"epochs": epochs, "batch_size": batch_size});
        assert_eq!(relative_work(&pretrain(2, 16), &pretrain(4, 32)), 2.0);
        assert_eq!(relative_work(&pretrain(2, 16), &pretrain(2, 32)), 1.0);
        let probe = |epochs: u32| json!({"linear_probe": {"sgd": {"epochs": epochs}}});
        assert_eq!(relative_work(&probe(90), &probe(30)), 1.0 / 3.0);
        let scenes = |images: u32| json!({"source": {"synthetic_scenes": {"images_per_class": images}}});
        assert_eq!(relative_work(&scenes(10), &scenes(25)), 2.5);
    }

    #[test]
    fn what_cannot_be_compared_takes_as_long() {
        let sgd = json!({"linear_probe": {"sgd": {"epochs": 90}}});
        for other in
            [json!({"linear_probe": {"max_iter": 9}}), json!({"epochs": 0}), json!({"epochs": "x"}), json!(null)]
        {
            assert_eq!(relative_work(&sgd, &other), 1.0);
            assert_eq!(relative_work(&other, &sgd), 1.0);
            assert_eq!(relative_work(&other, &json!({"epochs": 3})), 1.0);
        }
    }
}
