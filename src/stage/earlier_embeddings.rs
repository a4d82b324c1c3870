//! Rows of an earlier table of embeddings for images whose pixels are the same.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::earlier::{Earlier, StoredFolder};
use crate::{
    data::Dataset,
    digest::Digest,
    eval::{
        embeddings::{self, Embeddings, Representation},
        thumbnails::{THUMBNAILS_FILE, Thumbnails},
    },
};

/// Images that are embedded again although their rows are known, to see that this machine gives the same bits.
const PROBES: usize = 8;

/// A row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Train(usize),
    Test(usize),
}

/// An earlier table and where it holds the images of today's datasets.
#[derive(Debug)]
pub(super) struct EarlierEmbeddings {
    table: Embeddings,
    pictures: Thumbnails,
    train: Vec<Option<Place>>,
    test: Vec<Option<Place>>,
}

impl EarlierEmbeddings {
    /// Finds the images of today's datasets again; `None` where nothing of the earlier ones can be used, and
    /// `Err` where they are not what they were when they were stored.
    pub(super) fn find(earlier: &Earlier, train: &Dataset, test: Option<&Dataset>) -> Result<Option<Self>, Damaged> {
        if !earlier.artifact.is_whole(&[embeddings::TENSOR_FILE, embeddings::CARD_FILE, THUMBNAILS_FILE]) {
            return Err(Damaged);
        }
        let table = Embeddings::open(&earlier.artifact.dir).map_err(|_| Damaged)?;
        let pictures = Thumbnails::open(&earlier.artifact.dir).map_err(|_| Damaged)?;
        let Some(old_train) = earlier.input("train") else { return Ok(None) };
        let mut places = rows_of(old_train, table.card().train_file_names.len(), Place::Train)?;
        if let (Some(old_test), Some(names)) = (earlier.input("test"), &table.card().test_file_names) {
            for (image, place) in rows_of(old_test, names.len(), Place::Test)? {
                places.entry(image).or_insert(place);
            }
        }
        let find = |dataset: &Dataset| image_digests(dataset).iter().map(|image| places.get(image).copied()).collect();
        let found = Self { train: find(train), test: test.map(find).unwrap_or_default(), table, pictures };
        let any = found.train.iter().chain(&found.test).any(Option::is_some);
        Ok(any.then_some(found))
    }

    /// How many of today's images the table holds.
    pub(super) fn num_known(&self) -> usize {
        self.train.iter().chain(&self.test).flatten().count()
    }

    /// The picture of an image of today's dataset, where it was made before.
    pub(super) fn picture(&self, split: Split, idx: usize) -> Option<Vec<u8>> {
        let jpeg = match (*self.places(split).get(idx)?)? {
            Place::Train(idx) => self.pictures.jpeg("train", idx),
            Place::Test(idx) => self.pictures.jpeg("test", idx),
        };
        jpeg.ok().map(<[u8]>::to_vec)
    }

    fn places(&self, split: Split) -> &[Option<Place>] {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    /// The table's rows of one representation; `None` where it has none or they cannot be read.
    pub(super) fn rows(&self, name: &str, dim: usize) -> Option<EarlierRows<'_>> {
        let table = self.table.representation(name).ok()??;
        (table.dim == dim).then_some(EarlierRows { table, earlier: self })
    }
}

/// The earlier artifacts are not what they were when they were stored.
#[derive(Debug)]
pub(super) struct Damaged;

/// One of the two datasets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    Train,
    Test,
}

/// Rows of one representation.
pub(super) struct EarlierRows<'a> {
    table: Representation,
    earlier: &'a EarlierEmbeddings,
}

impl EarlierRows<'_> {
    fn row(&self, place: Place) -> Option<&[f32]> {
        let (table, idx) = match place {
            Place::Train(idx) => (&self.table.train, idx),
            Place::Test(idx) => (self.table.test.as_ref()?, idx),
        };
        table.get(idx * self.table.dim..(idx + 1) * self.table.dim)
    }

    /// The images that must be embedded: those that are new, and a few that are not, to compare.
    pub(super) fn to_embed(&self, split: Split) -> Vec<usize> {
        let places = self.earlier.places(split);
        let known: Vec<usize> = (0..places.len()).filter(|&idx| places[idx].is_some()).collect();
        let new = (0..places.len()).filter(|&idx| places[idx].is_none());
        new.chain(known.iter().copied().step_by(known.len().div_ceil(PROBES).max(1))).collect()
    }

    /// All rows of today's dataset, `fresh` being those of [`Self::to_embed`]; `None` where an image that was
    /// embedded again has other bits than then, as another kind of processor gives.
    pub(super) fn merge(&self, split: Split, embedded: &[usize], fresh: &[f32]) -> Option<Vec<f32>> {
        let (dim, places) = (self.table.dim, self.earlier.places(split));
        let mut rows = vec![0.0; places.len() * dim];
        for (row, place) in rows.chunks_exact_mut(dim).zip(places) {
            if let Some(place) = place {
                row.copy_from_slice(self.row(*place)?);
            }
        }
        for (&idx, fresh) in embedded.iter().zip(fresh.chunks_exact(dim)) {
            let row = &mut rows[idx * dim..(idx + 1) * dim];
            if places[idx].is_some() && bytemuck::cast_slice::<f32, u32>(row) != bytemuck::cast_slice::<f32, u32>(fresh)
            {
                return None;
            }
            row.copy_from_slice(fresh);
        }
        Some(rows)
    }
}

/// The place of each image of an earlier dataset by the digest of its pixels.
fn rows_of(
    folder: &StoredFolder,
    num_rows: usize,
    place: fn(usize) -> Place,
) -> Result<BTreeMap<Digest, Place>, Damaged> {
    if !folder.is_all_whole() {
        return Err(Damaged);
    }
    let dataset = Dataset::open(&folder.dir).map_err(|_| Damaged)?;
    if dataset.len() != num_rows {
        return Err(Damaged);
    }
    Ok(image_digests(&dataset).into_iter().enumerate().map(|(idx, image)| (image, place(idx))).collect())
}

/// Digests of size and pixels.
fn image_digests(dataset: &Dataset) -> Vec<Digest> {
    (0..dataset.len())
        .into_par_iter()
        .map(|idx| {
            let image = dataset.image(idx);
            Digest::of_all(&[&image.width.to_le_bytes(), &image.height.to_le_bytes(), image.rgb])
        })
        .collect()
}
