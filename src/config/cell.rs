//! Names of cells: `pretrain@lr=0.03,seed=1` is what the axes `lr` and `seed` make of the stage `pretrain`.
//!
//! `@`, `=` and `,` stand in no other name, so a name says by itself which cell it is. They are allowed in
//! file names everywhere.

/// The parts of a stage's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellName<'a> {
    /// The stage as the file calls it.
    pub stage: &'a str,
    /// Axes with their values, in order; none for a stage that no matrix multiplies.
    pub axes: Vec<(&'a str, &'a str)>,
}

impl<'a> CellName<'a> {
    /// Takes a name apart.
    pub fn parse(name: &'a str) -> Self {
        let (stage, axes) = name.split_once('@').unwrap_or((name, ""));
        Self { stage, axes: axes.split(',').filter_map(|choice| choice.split_once('=')).collect() }
    }

    /// The value of an axis.
    pub fn value(&self, axis: &str) -> Option<&'a str> {
        self.axes.iter().find(|(name, _)| *name == axis).map(|(_, value)| *value)
    }
}

/// Puts a name together.
pub fn cell_name<S: AsRef<str>>(stage: &str, axes: &[(S, S)]) -> String {
    let mut name = stage.to_owned();
    for (idx, (axis, value)) in axes.iter().enumerate() {
        name.push(if idx == 0 { '@' } else { ',' });
        name.push_str(axis.as_ref());
        name.push('=');
        name.push_str(value.as_ref());
    }
    name
}

/// Whether a pattern is about a stage. `*` stands for anything and `?` for one character, and
///
/// - `probe` is every cell of the stage,
/// - `probe@*` too,
/// - `probe@seed=1` are the cells with this value, whatever their other axes say.
pub fn selects(pattern: &str, name: &str) -> bool {
    if glob(pattern, name) {
        return true;
    }
    let cell = CellName::parse(name);
    let Some((stage, choices)) = pattern.split_once('@') else { return glob(pattern, cell.stage) };
    glob(stage, cell.stage)
        && choices.split(',').all(|choice| match choice.split_once('=') {
            Some((axis, value)) => cell.value(axis).is_some_and(|found| glob(value, found)),
            None => choice == "*",
        })
}

/// Whether a name matches a pattern in which `*` stands for anything and `?` for one character.
pub fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // reach[i]: the pattern up to here matches the first i characters.
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for symbol in pattern {
        let mut next = vec![false; name.len() + 1];
        for idx in 0..=name.len() {
            next[idx] = match symbol {
                '*' => reach[idx] || (idx > 0 && next[idx - 1]),
                '?' => idx > 0 && reach[idx - 1],
                literal => idx > 0 && reach[idx - 1] && name[idx - 1] == literal,
            };
        }
        reach = next;
    }
    reach[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_as_they_were_put_together() {
        let name = cell_name("pretrain", &[("lr", "0.03"), ("seed", "1")]);
        assert_eq!(name, "pretrain@lr=0.03,seed=1");
        let cell = CellName::parse(&name);
        assert_eq!((cell.stage, cell.axes.as_slice()), ("pretrain", &[("lr", "0.03"), ("seed", "1")][..]));
        assert_eq!((cell.value("seed"), cell.value("se")), (Some("1"), None));
        assert_eq!(CellName::parse("pretrain"), CellName { stage: "pretrain", axes: vec![] });
    }

    #[test]
    fn patterns_select_cells_by_name_and_by_value() {
        let name = "probe@lr=0.03,seed=1";
        for (pattern, expected) in [
            ("probe", true),
            ("pro*", true),
            ("probe@*", true),
            ("probe@lr=0.03,seed=1", true),
            ("probe@lr=0.03*", true),
            ("probe@seed=1", true),
            ("probe@seed=1,lr=*", true),
            ("*@seed=1", true),
            ("probe@seed=1,*", true),
            ("probe@seed=2", false),
            ("probe@see=1", false),
            ("probe@lr", false),
            ("knn@*", false),
            ("rob", false),
        ] {
            assert_eq!(selects(pattern, name), expected, "{pattern}");
        }
        assert!(selects("train@*", "train") && !selects("train@lr=*", "train"));
    }

    #[test]
    fn stars_and_question_marks_match() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("fit_*", "fit_knn", true),
            ("fit_?nn", "fit_knn", true),
            ("*n*n", "fit_knn", true),
            ("fit", "fit_knn", false),
            ("?", "", false),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }
}
