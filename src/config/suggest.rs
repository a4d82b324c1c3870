//! Did you mean: the nearest of the names that would have been right.

/// The name nearest to what was written, if any is near.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A whole paragraph in the place of a key resembles nothing and would take long to compare.
    if written.len() > 100 {
        return None;
    }
    let lower = written.to_lowercase();
    names
        .into_iter()
        .filter_map(|name| {
            let distance = strsim::osa_distance(&lower, &name.to_lowercase());
            let similarity = strsim::jaro_winkler(&lower, &name.to_lowercase());
            let near = distance <= 1.max(name.chars().count() / 4) || similarity >= 0.88;
            near.then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `` did you mean `epochs`? `` where a name is near, else the names there are, else nothing.
pub(crate) fn did_you_mean<'a>(
    written: &str,
    what: &str,
    names: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(name) = nearest(written, names.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let names: Vec<&str> = names.into_iter().collect();
    (!names.is_empty()).then(|| format!("{what}: {}", list(&names)))
}

/// `` `a`, `b`, `c` ``; cut after fourteen.
pub(crate) fn list(names: &[&str]) -> String {
    let mut shown: Vec<String> = names.iter().take(14).map(|name| format!("`{name}`")).collect();
    if names.len() > shown.len() {
        shown.push(format!("{} more", names.len() - shown.len()));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        assert_eq!(nearest("epoch", ["batch_size", "epochs"]), Some("epochs"));
        assert_eq!(nearest("Image_Size", ["image_size"]), Some("image_size"));
        assert_eq!(nearest("pretrian", ["train", "pretrain"]), Some("pretrain"));
        assert_eq!(nearest("wombat", ["train", "test"]), None);
    }
}
