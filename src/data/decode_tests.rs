//! Whole, odd and broken image files.

use std::{io::Cursor, path::PathBuf};

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, RgbImage, Rgba};

use super::decode::{OwnedImage, decode_rgb, decode_the_long_way, read_dimensions};

const NO_LIMIT: u64 = u64::MAX;
const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP];

fn picture() -> RgbImage {
    RgbImage::from_fn(61, 43, |x, y| image::Rgb([(x * 4) as u8, (y * 5) as u8, (x * y % 256) as u8]))
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = vec![];
    image.into().write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name)).unwrap()
}

/// Every file of the corpus with its name.
pub(super) fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = FORMATS.iter().map(|&format| (format!("{format:?}"), encode(picture(), format))).collect();
    for name in ["cmyk.jpg", "progressive.jpg", "grey.jpg", "palette.png", "palette.gif", "lzw.tif", "lossy.webp"] {
        files.push((name.into(), golden(name)));
    }
    files
}

#[test]
fn lossless_formats_come_back_unchanged() {
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let image = decode_rgb(&encode(picture(), format), NO_LIMIT).unwrap();
        assert_eq!((image.width, image.height), (61, 43));
        assert_eq!(image.rgb, picture().into_raw(), "{format:?}");
    }
}

#[test]
fn odd_kinds_are_read_as_pillow_reads_them() {
    for (name, bytes) in corpus().into_iter().filter(|(name, _)| name.contains('.')) {
        let ours = decode_rgb(&bytes, NO_LIMIT).unwrap();
        let expected = decode_rgb(&golden(&format!("{name}.expected.png")), NO_LIMIT).unwrap();
        assert_eq!((ours.width, ours.height), (expected.width, expected.height), "{name}");
        let worst = ours.rgb.iter().zip(&expected.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // Lossy decoders may round and smooth chroma in their own way; the others must agree.
        let limit = match name.as_str() {
            "lossy.webp" | "progressive.jpg" | "cmyk.jpg" => 12,
            "grey.jpg" => 3,
            _ => 0,
        };
        assert!(worst <= limit, "{name}: {worst}");
    }
}

#[test]
fn a_cut_off_file_never_passes_for_a_whole_one() {
    for (name, bytes) in corpus() {
        let whole = decode_rgb(&bytes, NO_LIMIT).unwrap();
        for tenth in 0..10 {
            let cut = &bytes[..bytes.len() * tenth / 10];
            if let Ok(image) = decode_rgb(cut, NO_LIMIT) {
                assert_eq!(image, whole, "{name} cut to {tenth}0 %");
            }
        }
        // Without its last bytes a file may still hold every pixel; it may never give others.
        for missing in 1..12 {
            if let Ok(image) = decode_rgb(&bytes[..bytes.len() - missing], NO_LIMIT) {
                assert_eq!(image, whole, "{name} without {missing} bytes");
            }
        }
    }
}

#[test]
fn the_short_way_to_a_photograph_gives_the_same_pixels() {
    let plain = [ImageFormat::Jpeg, ImageFormat::Png].map(|format| encode(picture(), format));
    for bytes in corpus().into_iter().map(|(_, bytes)| bytes).chain(plain) {
        assert_eq!(decode_rgb(&bytes, NO_LIMIT), decode_the_long_way(&bytes, NO_LIMIT));
        for at in (0..bytes.len()).step_by((bytes.len() / 60).max(1)) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x15;
            let long = std::panic::catch_unwind(|| decode_the_long_way(&damaged, 1 << 20));
            if let Ok(long) = long {
                assert_eq!(decode_rgb(&damaged, 1 << 20), long, "byte {at}");
            }
        }
    }
}

#[test]
fn a_half_photograph_says_that_it_is_cut_off() {
    for bytes in [encode(picture(), ImageFormat::Jpeg), golden("progressive.jpg")] {
        let error = decode_rgb(&bytes[..bytes.len() * 7 / 10], NO_LIMIT).unwrap_err();
        assert!(error.contains("cut off"), "{error}");
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for (_, bytes) in corpus() {
        let step = (bytes.len() / 150).max(1);
        for at in (0..bytes.len()).step_by(step) {
            for flip in [0xFF, 0x01, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = decode_rgb(&damaged, 1 << 20);
                let _ = read_dimensions(&damaged);
            }
        }
    }
}

#[test]
fn what_is_no_image_says_so() {
    for (bytes, word) in
        [(&b""[..], "empty"), (b"just text", "not JPEG"), (&[0; 100], "not JPEG"), (b"\xFF\xD8\xFF", "")]
    {
        let error = decode_rgb(bytes, NO_LIMIT).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn bombs_are_refused_by_their_header() {
    // A BMP header that claims 30,000 × 30,000 pixels and holds none.
    let mut bomb = vec![0; 54];
    bomb[..2].copy_from_slice(b"BM");
    bomb[10] = 54;
    bomb[14] = 40;
    bomb[18..22].copy_from_slice(&30_000_i32.to_le_bytes());
    bomb[22..26].copy_from_slice(&30_000_i32.to_le_bytes());
    bomb[26] = 1;
    bomb[28] = 24;
    let error = decode_rgb(&bomb, 50_000_000).unwrap_err();
    assert!(error.contains("30000×30000") && error.contains("max_pixels"), "{error}");

    let png = encode(picture(), ImageFormat::Png);
    assert!(decode_rgb(&png, 61 * 43).is_ok());
    assert!(decode_rgb(&png, 61 * 43 - 1).is_err());
}

#[test]
fn exif_orientation_is_applied() {
    let jpeg = encode(RgbImage::from_fn(16, 8, |x, _| image::Rgb([if x < 8 { 250 } else { 5 }; 3])), ImageFormat::Jpeg);
    // One IFD with one entry: orientation (0x0112), SHORT, 6 = turn clockwise.
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut turned = jpeg[..2].to_vec();
    turned.extend([0xFF, 0xE1, 0, exif.len() as u8 + 2]);
    turned.extend(exif);
    turned.extend(&jpeg[2..]);
    let OwnedImage { width, height, rgb } = decode_rgb(&turned, NO_LIMIT).unwrap();
    assert_eq!((width, height), (8, 16));
    assert!(rgb[0] > 240 && rgb[rgb.len() - 1] < 15, "the left half is now above");
}

#[test]
fn transparency_lies_over_white_and_sixteen_bits_become_eight() {
    let clear = ImageBuffer::from_fn(2, 1, |x, _| Rgba([10_u8, 20, 30, if x == 0 { 0 } else { 51 }]));
    let image = decode_rgb(&encode(clear, ImageFormat::Png), NO_LIMIT).unwrap();
    assert_eq!(image.rgb, [255, 255, 255, 206, 208, 210]);

    let deep = ImageBuffer::from_fn(2, 1, |x, _| Luma([if x == 0 { 0x8000_u16 } else { 0xFFFF }]));
    let image = decode_rgb(&encode(deep, ImageFormat::Png), NO_LIMIT).unwrap();
    assert_eq!(image.rgb, [128, 128, 128, 255, 255, 255]);
}

#[test]
fn one_pixel_is_an_image() {
    for format in FORMATS {
        let bytes = encode(RgbImage::from_pixel(1, 1, image::Rgb([90, 91, 92])), format);
        let image = decode_rgb(&bytes, NO_LIMIT).unwrap();
        assert_eq!((image.width, image.height, read_dimensions(&bytes).unwrap()), (1, 1, (1, 1)), "{format:?}");
    }
}
