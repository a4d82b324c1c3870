//! What differs between two states of a tree of files outside the cache.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use super::{Layout, tree_index::TreeIndex};
use crate::digest::Digest;

/// Which files of a tree differ from another state of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeDiff {
    /// Files that are new.
    pub added: Vec<String>,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// Files with another content.
    pub changed: Vec<String>,
}

impl TreeDiff {
    /// Compares two states by their digests; `None` if the list of files of either is not kept.
    pub fn load(layout: &Layout, old: &Digest, new: &Digest) -> Option<Self> {
        let (old, new) = (files_of(layout, old)?, files_of(layout, new)?);
        let name = |(name, _): &(Vec<u8>, Digest)| String::from_utf8_lossy(name).into_owned();
        let mut diff = Self::default();
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => old.0.cmp(&new.0),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Some(diff),
            };
            let old = if order == Ordering::Greater { None } else { old.next() };
            let new = if order == Ordering::Less { None } else { new.next() };
            match (old, new) {
                (Some(old), None) => diff.removed.push(name(old)),
                (None, Some(new)) => diff.added.push(name(new)),
                (Some(old), Some(new)) if old.1 != new.1 => diff.changed.push(name(new)),
                _ => {}
            }
        }
    }
}

impl fmt::Display for TreeDiff {
    /// `2 added, 1 changed: sea/1.jpg, sea/2.jpg, …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let kinds = [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)];
        let kinds: Vec<_> = kinds.into_iter().filter(|(_, names)| !names.is_empty()).collect();
        let counts: Vec<_> = kinds.iter().map(|(word, names)| format!("{} {word}", names.len())).collect();
        let all: Vec<&str> = kinds.iter().flat_map(|(_, names)| names.iter().map(String::as_str)).collect();
        let dots = if all.len() > SHOWN { ", …" } else { "" };
        let shown: Vec<_> = all.into_iter().filter(|name| !name.is_empty()).take(SHOWN).collect();
        write!(f, "{}", counts.join(", "))?;
        if shown.is_empty() { Ok(()) } else { write!(f, ": {}{dots}", shown.join(", ")) }
    }
}

/// Digests of the files of a tree by name, where the list is kept. Names that are not UTF-8 are left out.
pub fn file_digests(layout: &Layout, tree: &Digest) -> Option<BTreeMap<String, Digest>> {
    let files = files_of(layout, tree)?;
    Some(files.into_iter().filter_map(|(name, digest)| Some((String::from_utf8(name).ok()?, digest))).collect())
}

/// Names and digests of the files of a tree in the order of their names, where the list is kept.
fn files_of(layout: &Layout, tree: &Digest) -> Option<Vec<(Vec<u8>, Digest)>> {
    let index = TreeIndex::open(&layout.source_tree(tree))?;
    let mut files = Vec::new();
    index.for_each_file(|name, digest| files.push((name.to_vec(), digest))).ok()?;
    Some(files)
}
