//! Embeddings for TensorBoard's projector: vectors and metadata as TSV, a sprite of pictures, and the file that names them.

use std::io::{self, Write};

use image::{
    ExtendedColorType, ImageEncoder as _, RgbImage,
    codecs::png::PngEncoder,
    imageops::{FilterType, resize},
};

use super::embedding_table::{Row, Table};
use crate::eval::{
    EvalError,
    embeddings::Embeddings,
    tensor_file::format_error,
    thumbnails::{THUMBNAIL_SIZE, Thumbnails},
};

/// Name of the file with the vectors.
pub const VECTORS_FILE: &str = "vectors.tsv";
/// Name of the file with file name, class and split of each vector.
pub const METADATA_FILE: &str = "metadata.tsv";
/// Name of the picture of all pictures.
pub const SPRITE_FILE: &str = "sprite.png";
/// Name of the file that TensorBoard looks for.
pub const CONFIG_FILE: &str = "projector_config.pbtxt";

/// Largest width and height of a picture that browsers take as a texture.
const MAX_SPRITE: usize = 8192;

/// What the projector shows.
pub struct Projector<'a> {
    embeddings: &'a Embeddings,
    table: Table<'a>,
}

impl<'a> Projector<'a> {
    /// From an embeddings artifact.
    ///
    /// # Errors
    /// Where a table is damaged.
    pub fn new(embeddings: &'a Embeddings) -> Result<Self, EvalError> {
        Ok(Self { embeddings, table: Table::read(embeddings)? })
    }

    /// Writes the vectors, one a line.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn write_vectors(&self, out: &mut impl Write) -> io::Result<()> {
        for Row { values, .. } in self.table.rows() {
            for (column, value) in values.iter().enumerate() {
                let tab = if column > 0 { "\t" } else { "" };
                write!(out, "{tab}{value}")?;
            }
            writeln!(out)?;
        }
        out.flush()
    }

    /// Writes file name, class and split of each vector.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn write_metadata(&self, out: &mut impl Write) -> io::Result<()> {
        // The format has no way to write a tab or a line break.
        let cell = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        writeln!(out, "file\tclass\tsplit")?;
        for Row { split, file, class, .. } in self.table.rows() {
            writeln!(out, "{}\t{}\t{split}", cell(file), cell(class))?;
        }
        out.flush()
    }

    /// All pictures in one PNG file, and width and height of each; nothing where they are too many for a browser.
    ///
    /// # Errors
    /// Where a picture is missing or damaged.
    pub fn sprite(&self) -> Result<Option<(Vec<u8>, u32)>, EvalError> {
        let thumbnails = Thumbnails::open(self.embeddings.dir())?;
        let columns = self.table.rows().count().saturating_sub(1).isqrt() + 1;
        let Some(tile) = [THUMBNAIL_SIZE, 32, 16].into_iter().find(|tile| tile * columns <= MAX_SPRITE) else {
            return Ok(None);
        };
        let side = (tile * columns) as u32;
        let mut sprite = RgbImage::new(side, side);
        for (place, row) in self.table.rows().enumerate() {
            let rgb = thumbnails.rgb(row.split, row.index)?;
            let Some(picture) = RgbImage::from_raw(THUMBNAIL_SIZE as u32, THUMBNAIL_SIZE as u32, rgb) else { continue };
            let picture = if tile == THUMBNAIL_SIZE {
                picture
            } else {
                resize(&picture, tile as u32, tile as u32, FilterType::Triangle)
            };
            let (x, y) = (place % columns * tile, place / columns * tile);
            image::imageops::replace(&mut sprite, &picture, x as i64, y as i64);
        }
        let mut png = vec![];
        PngEncoder::new(&mut png)
            .write_image(&sprite, side, side, ExtendedColorType::Rgb8)
            .map_err(|error| format_error(self.embeddings.dir(), format!("no sprite can be drawn: {error}")))?;
        Ok(Some((png, tile as u32)))
    }
}

/// The file that names the others; `tile` is the size of a picture in the sprite, where there is one.
pub fn projector_config(tile: Option<u32>) -> String {
    let sprite = tile.map_or_else(String::new, |tile| {
        format!(
            "  sprite {{\n    image_path: \"{SPRITE_FILE}\"\n    single_image_dim: {tile}\n    single_image_dim: {tile}\n  }}\n"
        )
    });
    format!(
        "embeddings {{\n  tensor_name: \"embeddings\"\n  tensor_path: \"{VECTORS_FILE}\"\n  metadata_path: \
         \"{METADATA_FILE}\"\n{sprite}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        augment::ImageRef,
        eval::{
            embeddings::tests::{encoder_card, save_sample},
            thumbnails::{encode_thumbnails, save_thumbnails},
        },
    };

    #[test]
    fn vectors_metadata_and_pictures_are_in_one_order() {
        let dir = tempfile::tempdir().unwrap();
        save_sample(dir.path(), &["a\tb", "c"], 3, 2);
        let shades: Vec<Vec<u8>> = (0..5).map(|idx| vec![50 * idx as u8; 3 * 64 * 64]).collect();
        let image = |idx: usize| ImageRef { width: 64, height: 64, rgb: &shades[idx] };
        let pictures = encode_thumbnails(5, image, |_| None, &encoder_card(4).preprocessing).unwrap();
        save_thumbnails(dir.path(), &pictures[..3], Some(&pictures[3..])).unwrap();
        let embeddings = Embeddings::open(dir.path()).unwrap();
        let projector = Projector::new(&embeddings).unwrap();
        let (mut vectors, mut metadata) = (vec![], vec![]);
        projector.write_vectors(&mut vectors).unwrap();
        projector.write_metadata(&mut metadata).unwrap();
        let (vectors, metadata) = (String::from_utf8(vectors).unwrap(), String::from_utf8(metadata).unwrap());
        assert_eq!((vectors.lines().count(), metadata.lines().count()), (5, 6));
        assert_eq!(vectors.lines().next().unwrap().split('\t').count(), 12);
        assert_eq!(metadata.lines().next(), Some("file\tclass\tsplit"));
        assert!(metadata.lines().all(|line| line.split('\t').count() == 3), "{metadata}");

        // Five pictures in three columns.
        let (png, tile) = projector.sprite().unwrap().unwrap();
        let sprite = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!((sprite.dimensions(), tile), ((192, 192), 64));
        for idx in 0..5_u32 {
            let shade = sprite.get_pixel(idx % 3 * 64 + 32, idx / 3 * 64 + 32).0[0];
            assert!(shade.abs_diff(50 * idx as u8) < 4, "{idx}: {shade}");
        }
        assert!(projector_config(Some(tile)).contains("single_image_dim: 64\n    single_image_dim: 64"));
        assert!(!projector_config(None).contains("sprite"));
    }
}
