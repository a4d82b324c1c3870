//! Embeddings as a CSV file: one row an image.

use std::io::{self, Write};

use crate::eval::{
    EvalError,
    classifier_artifact::csv_field,
    embeddings::{Embeddings, PRETRAINED, Representation},
    tensor_file::format_error,
};

/// An embedded image.
pub(super) struct Row<'a> {
    /// `train` or `test`.
    pub(super) split: &'static str,
    /// Row in the split's table.
    pub(super) index: usize,
    /// Name of the file, relative to its source.
    pub(super) file: &'a str,
    /// Class; empty where the split has no labels.
    pub(super) class: &'a str,
    /// The embedding.
    pub(super) values: &'a [f32],
}

/// The pretrained embeddings of both splits, ready to be walked.
pub(super) struct Table<'a> {
    embeddings: &'a Embeddings,
    pretrained: Representation,
    labels: [Option<Vec<u32>>; 2],
}

impl<'a> Table<'a> {
    /// Reads the tables.
    pub(super) fn read(embeddings: &'a Embeddings) -> Result<Self, EvalError> {
        let pretrained = embeddings
            .representation(PRETRAINED)?
            .ok_or_else(|| format_error(embeddings.dir(), "it holds no pretrained embeddings"))?;
        let labels = embeddings.labels()?;
        Ok(Self { embeddings, pretrained, labels: [labels.train, labels.test] })
    }

    /// Length of an embedding.
    pub(super) fn dim(&self) -> usize {
        self.pretrained.dim
    }

    /// All rows, those of the training images first.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let card = self.embeddings.card();
        let [train_labels, test_labels] = &self.labels;
        let test_files = card.test_file_names.as_deref().unwrap_or_default();
        let splits = [
            ("train", &card.train_file_names[..], train_labels, &self.pretrained.train[..]),
            ("test", test_files, test_labels, self.pretrained.test.as_deref().unwrap_or_default()),
        ];
        splits.into_iter().flat_map(move |(split, files, labels, values)| {
            files.iter().zip(values.chunks_exact(self.pretrained.dim)).enumerate().map(move |(row, (file, values))| {
                let class = labels.as_ref().map_or("", |labels| &card.class_names[labels[row] as usize]);
                Row { split, index: row, file, class, values }
            })
        })
    }
}

/// Writes `split,file,class,f0,f1,…`.
///
/// # Errors
/// Where a table is damaged, or writing fails.
pub fn write_csv(embeddings: &Embeddings, out: &mut impl Write) -> Result<io::Result<()>, EvalError> {
    let table = Table::read(embeddings)?;
    let mut write = || -> io::Result<()> {
        out.write_all(b"split,file,class")?;
        (0..table.dim()).try_for_each(|column| write!(out, ",f{column}"))?;
        writeln!(out)?;
        for Row { split, file, class, values, .. } in table.rows() {
            write!(out, "{split},{},{}", csv_field(file), csv_field(class))?;
            values.iter().try_for_each(|value| write!(out, ",{value}"))?;
            writeln!(out)?;
        }
        out.flush()
    };
    Ok(write())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::embeddings::tests::save_sample;

    #[test]
    fn every_image_has_a_row() {
        let dir = tempfile::tempdir().unwrap();
        save_sample(dir.path(), &["a", "b"], 6, 3);
        let embeddings = Embeddings::open(dir.path()).unwrap();
        let mut out = vec![];
        write_csv(&embeddings, &mut out).unwrap().unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0].starts_with("split,file,class,f0,f1,")), (10, true));
        assert!(lines[1].starts_with("train,\"train/0, \"\"a\"\".jpg\",a,"), "{}", lines[1]);
        let first: f32 = lines[1].rsplit(',').nth(11).unwrap().parse().unwrap();
        assert_eq!(first, embeddings.representation(PRETRAINED).unwrap().unwrap().train[0]);
        assert!(lines[7].starts_with("test,"));
    }
}
