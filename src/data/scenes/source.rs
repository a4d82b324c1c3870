//! Synthetic scenes as a source of images.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::scene::{CLASS_NAMES, Scene};
use crate::data::{
    decode::{DecodeOptions, OwnedImage},
    image_source::{ImageSource, SourceItem},
    source_config::{Split, SyntheticScenesConfig},
};

/// The scenes of one split, class after class.
#[derive(Clone, Debug)]
pub struct SyntheticScenes {
    class_names: Vec<String>,
    items: Vec<SourceItem>,
    config: SyntheticScenesConfig,
}

impl SyntheticScenes {
    /// The scenes that this configuration asks for; nothing is drawn yet.
    pub fn new(config: &SyntheticScenesConfig) -> Self {
        let items = CLASS_NAMES
            .iter()
            .enumerate()
            .flat_map(|(label, class)| {
                (0..config.images_per_class)
                    .map(move |idx| SourceItem { name: format!("{class}/{idx:05}"), label: Some(label as u32) })
            })
            .collect();
        Self { class_names: CLASS_NAMES.map(str::to_owned).to_vec(), items, config: config.clone() }
    }
}

impl ImageSource for SyntheticScenes {
    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn items(&self) -> &[SourceItem] {
        &self.items
    }

    fn decode(&self, idx: usize, _options: &DecodeOptions) -> Result<OwnedImage, String> {
        let per_class = self.config.images_per_class.max(1) as usize;
        let (class, number) = (idx / per_class, idx % per_class);
        let mut bytes = [0; 32];
        bytes[0..8].copy_from_slice(&self.config.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        bytes[16..20].copy_from_slice(&(class as u32).to_le_bytes());
        bytes[20] = match self.config.split {
            Split::Train => 0,
            Split::Test => 1,
        };
        bytes[24..32].copy_from_slice(b"scene\0\0\0");
        let scene = Scene::draw(class, ChaCha8Rng::from_seed(bytes));
        let side = self.config.image_size.max(1);
        Ok(OwnedImage { width: side, height: side, rgb: scene.render(side as usize) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn config(split: Split, seed: u64) -> SyntheticScenesConfig {
        SyntheticScenesConfig { images_per_class: 3, image_size: 40, split, seed }
    }

    #[test]
    fn images_depend_on_seed_split_class_and_index_alone() {
        let draw = |split, seed, idx| {
            SyntheticScenes::new(&config(split, seed)).decode(idx, &DecodeOptions::default()).unwrap()
        };
        let first = draw(Split::Train, 0, 4);
        assert_eq!(first, draw(Split::Train, 0, 4));
        for other in [draw(Split::Test, 0, 4), draw(Split::Train, 1, 4), draw(Split::Train, 0, 5)] {
            assert_ne!(first, other);
        }
        let more = SyntheticScenesConfig { images_per_class: 9, ..config(Split::Train, 0) };
        assert_eq!(
            first,
            SyntheticScenes::new(&more).decode(10, &DecodeOptions::default()).unwrap(),
            "more images, same images"
        );
    }

    #[test]
    fn all_sizes_can_be_drawn() {
        for image_size in [16, 17, 100] {
            let scenes = SyntheticScenes::new(&SyntheticScenesConfig { image_size, ..config(Split::Test, 3) });
            for idx in 0..scenes.items().len() {
                let image = scenes.decode(idx, &DecodeOptions::default()).unwrap();
                assert_eq!(image.rgb.len(), 3 * (image_size * image_size) as usize);
            }
        }
    }

    #[test]
    fn the_drawing_is_pinned() {
        // A change of these bytes changes every dataset: bump the revision of the stage with it.
        let scenes = SyntheticScenes::new(&config(Split::Train, 0));
        let pixels: Vec<u8> = (0..scenes.items().len())
            .flat_map(|idx| scenes.decode(idx, &DecodeOptions::default()).unwrap().rgb)
            .collect();
        assert_eq!(Digest::of(&pixels).short(), "48679dc5ae9e");
    }
}
