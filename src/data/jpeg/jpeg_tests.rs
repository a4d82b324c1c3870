//! Files made block by block, with every sampling, size, restart interval and kind of code table, decoded here and by
//! `zune-jpeg`: the same bytes, or no opinion.

use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::{
    super::{
        decode::{OwnedImage, decode_the_long_way},
        decode_tests::corpus,
        hostile::{mutate, zune_agrees},
    },
    decode_baseline, decode_photograph,
};
use crate::seed::{below, seeded_rng};

const NO_LIMIT: u64 = u64::MAX;

/// Code lengths of tables from the standard (K.3 and K.5), which have codes of up to 16 bits.
const DC_COUNTS: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const AC_COUNTS: [u8; 16] = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125];

/// What a made file is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    width: u16,
    height: u16,
    sampling: (u8, u8),
    is_grey: bool,
    restart_interval: u16,
    /// All codes of 8 bits, or as the standard's.
    has_flat_codes: bool,
    /// One of how many coefficients is not 0.
    sparsity: u64,
    /// Bits of the largest coefficients.
    max_size: u64,
    seed: u64,
}

struct BitWriter {
    bytes: Vec<u8>,
    bits: u32,
    num: u32,
}

impl BitWriter {
    fn write(&mut self, value: u32, len: u32) {
        for at in (0..len).rev() {
            self.bits = (self.bits << 1) | ((value >> at) & 1);
            self.num += 1;
            if self.num == 8 {
                self.bytes.push(self.bits as u8);
                if self.bits == 0xFF {
                    self.bytes.push(0);
                }
                (self.bits, self.num) = (0, 0);
            }
        }
    }

    fn fill_byte(&mut self) {
        while self.num > 0 {
            self.write(1, 1);
        }
    }
}

/// Code and length of each symbol.
struct CodeTable {
    counts: [u8; 16],
    symbols: Vec<u8>,
}

impl CodeTable {
    /// The symbols in any order.
    fn shuffled(counts: [u8; 16], mut symbols: Vec<u8>, rng: &mut ChaCha8Rng) -> Self {
        for last in (1..symbols.len()).rev() {
            symbols.swap(last, below(rng, last as u64 + 1) as usize);
        }
        Self { counts, symbols }
    }

    fn write(&self, symbol: u8, to: &mut BitWriter) {
        let (mut code, mut idx) = (0, 0);
        for (len, &count) in (1..).zip(&self.counts) {
            for _ in 0..count {
                if self.symbols[idx] == symbol {
                    return to.write(code, len);
                }
                (code, idx) = (code + 1, idx + 1);
            }
            code <<= 1;
        }
        panic!("no code for {symbol}");
    }
}

fn size_of(value: i32) -> u32 {
    32 - value.unsigned_abs().leading_zeros()
}

fn write_value(value: i32, size: u32, to: &mut BitWriter) {
    let bits = if value < 0 { value + (1 << size) - 1 } else { value };
    to.write(bits as u32, size);
}

fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xFF, marker];
    bytes.extend((body.len() as u16 + 2).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A file with drawn coefficients.
fn make_jpeg(shape: &Shape) -> Vec<u8> {
    let mut rng = seeded_rng(shape.seed, "jpeg", &[]);
    let ac_symbols: Vec<u8> =
        [0x00, 0xF0].into_iter().chain((0..16).flat_map(|run| (1..=10).map(move |size| run << 4 | size))).collect();
    let (mut dc_counts, mut ac_counts) = (DC_COUNTS, AC_COUNTS);
    if shape.has_flat_codes {
        (dc_counts, ac_counts) = ([0; 16], [0; 16]);
        (dc_counts[3], ac_counts[7]) = (12, 162);
    }
    let dc = [(); 2].map(|()| CodeTable::shuffled(dc_counts, (0..12).collect(), &mut rng));
    let ac = [(); 2].map(|()| CodeTable::shuffled(ac_counts, ac_symbols.clone(), &mut rng));
    let num_components = if shape.is_grey { 1 } else { 3 };
    let mut bytes = vec![0xFF, 0xD8];
    for idx in 0..2 {
        let divisors: Vec<u8> = (0..64).map(|_| 1 + below(&mut rng, 30) as u8).collect();
        bytes.extend(segment(0xDB, &[&[idx][..], &divisors].concat()));
    }
    let mut frame = vec![8];
    frame.extend(shape.height.to_be_bytes());
    frame.extend(shape.width.to_be_bytes());
    frame.push(num_components);
    for idx in 0..num_components {
        let (across, down) = if idx == 0 { shape.sampling } else { (1, 1) };
        frame.extend([idx + 1, across << 4 | down, u8::from(idx > 0)]);
    }
    bytes.extend(segment(0xC0, &frame));
    for (class, tables) in [(0, &dc), (0x10, &ac)] {
        for (idx, table) in (0..).zip(tables) {
            bytes.extend(segment(0xC4, &[&[class | idx][..], &table.counts, &table.symbols].concat()));
        }
    }
    if shape.restart_interval > 0 {
        bytes.extend(segment(0xDD, &shape.restart_interval.to_be_bytes()));
    }
    let mut scan = vec![num_components];
    (0..num_components).for_each(|idx| scan.extend([idx + 1, if idx == 0 { 0 } else { 0x11 }]));
    scan.extend([0, 63, 0]);
    bytes.extend(segment(0xDA, &scan));

    let (across, down) = shape.sampling;
    let units = usize::from(shape.width).div_ceil(8 * usize::from(across))
        * usize::from(shape.height).div_ceil(8 * usize::from(down));
    let mut writer = BitWriter { bytes, bits: 0, num: 0 };
    let mut previous = [0; 3];
    for unit in 0..units {
        let interval = usize::from(shape.restart_interval);
        if interval > 0 && unit > 0 && unit % interval == 0 {
            writer.fill_byte();
            writer.bytes.extend([0xFF, 0xD0 | ((unit / interval - 1) % 8) as u8]);
            previous = [0; 3];
        }
        for (component, previous) in previous.iter_mut().enumerate().take(usize::from(num_components)) {
            let num_blocks = if component == 0 { across * down } else { 1 };
            for _ in 0..num_blocks {
                let level = below(&mut rng, 120) as i32 - 60;
                let (table, difference) = (usize::from(component > 0), level - *previous);
                *previous = level;
                dc[table].write(size_of(difference) as u8, &mut writer);
                write_value(difference, size_of(difference), &mut writer);
                let mut run = 0;
                for _ in 1..64 {
                    let size = 1 + below(&mut rng, shape.max_size);
                    let value = below(&mut rng, 2 << size) as i32 - (1 << size);
                    let value = value.clamp(-1023, 1023);
                    if below(&mut rng, shape.sparsity) > 0 || value == 0 {
                        run += 1;
                        continue;
                    }
                    while run >= 16 {
                        ac[table].write(0xF0, &mut writer);
                        run -= 16;
                    }
                    ac[table].write(run << 4 | size_of(value) as u8, &mut writer);
                    write_value(value, size_of(value), &mut writer);
                    run = 0;
                }
                if run > 0 {
                    ac[table].write(0, &mut writer);
                }
            }
        }
    }
    writer.fill_byte();
    writer.bytes.extend([0xFF, 0xD9]);
    writer.bytes
}

fn by_zune(bytes: &[u8], is_grey: bool) -> OwnedImage {
    if is_grey { decode_the_long_way(bytes, NO_LIMIT).unwrap() } else { decode_photograph(bytes, NO_LIMIT).unwrap() }
}

fn check(shape: &Shape) {
    let bytes = make_jpeg(shape);
    let ours = decode_baseline(&bytes, NO_LIMIT).unwrap_or_else(|| panic!("{shape:?} is refused"));
    assert!(ours == by_zune(&bytes, shape.is_grey), "{shape:?} differs");
}

#[test]
fn every_size_up_to_seventy_with_every_sampling_is_as_zune_decodes_it() {
    for side in 1..=70_u16 {
        for (idx, sampling) in [(1, 1), (2, 1), (1, 2), (2, 2)].into_iter().enumerate() {
            let (width, height) = if side % 2 == 0 { (side, 71 - side) } else { (71 - side, side) };
            let seed = u64::from(side) * 4 + idx as u64;
            let shape = Shape {
                width,
                height,
                sampling,
                is_grey: false,
                restart_interval: 0,
                has_flat_codes: seed.is_multiple_of(3),
                sparsity: [1, 2, 5, 40][seed as usize / 4 % 4],
                max_size: 1 + seed % 9,
                seed,
            };
            check(&shape);
            if idx == 0 {
                check(&Shape { is_grey: true, ..shape });
            }
        }
    }
}

proptest! {
    #[test]
    fn drawn_files_are_as_zune_decodes_them(
        (width, height) in (1_u16..150, 1_u16..80),
        (across, down) in (1_u8..3, 1_u8..3),
        is_grey: bool,
        restart_interval in prop_oneof![Just(0_u16), 1_u16..12],
        has_flat_codes: bool,
        sparsity in 1_u64..20,
        max_size in 1_u64..10,
        seed: u64,
    ) {
        let sampling = if is_grey { (1, 1) } else { (across, down) };
        check(&Shape {
            width, height, sampling, is_grey, restart_interval, has_flat_codes, sparsity, max_size, seed,
        });
    }
}

#[test]
fn photographs_of_an_encoder_are_as_zune_decodes_them() {
    for (width, height) in [(150, 150), (1, 1), (33, 47), (64, 9)] {
        let picture = |channels: usize| -> Vec<u8> {
            let at = |x: usize, y: usize, c: usize| (x * (3 + c) + y * (5 - c) + (x * y * (c + 1)) / 37) as u8;
            (0..width * height * channels)
                .map(|i| at(i / channels % width, i / channels / width, i % channels))
                .collect()
        };
        for quality in [1, 30, 75, 92, 100] {
            for (channels, color) in [(3, ExtendedColorType::Rgb8), (1, ExtendedColorType::L8)] {
                let mut bytes = vec![];
                let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
                encoder.encode(&picture(channels), width as u32, height as u32, color).unwrap();
                let ours = decode_baseline(&bytes, NO_LIMIT).unwrap();
                assert!(ours == by_zune(&bytes, channels == 1), "{width}×{height} {quality} {channels}");
            }
        }
    }
}

#[test]
fn what_is_not_ordinary_is_left_to_others() {
    let shape = Shape {
        width: 40,
        height: 30,
        sampling: (2, 2),
        is_grey: false,
        restart_interval: 2,
        has_flat_codes: false,
        sparsity: 4,
        max_size: 4,
        seed: 1,
    };
    let bytes = make_jpeg(&shape);
    assert!(decode_baseline(&bytes, 40 * 30).is_some());
    assert!(decode_baseline(&bytes, 40 * 30 - 1).is_none(), "too many pixels");
    for end in 0..bytes.len() {
        assert!(decode_baseline(&bytes[..end], NO_LIMIT).is_none(), "{end} of {} bytes", bytes.len());
    }
    let with = |marker: u8, body: &[u8]| [&bytes[..2], &segment(marker, body), &bytes[2..]].concat();
    assert!(decode_baseline(&with(0xFE, b"a comment"), NO_LIMIT).is_some());
    assert!(decode_baseline(&with(0xE2, b"ICC_PROFILE\0\x01\x01abc"), NO_LIMIT).is_some());
    assert!(decode_baseline(&with(0xE1, b"Exif\0\0MM"), NO_LIMIT).is_none());
    assert!(decode_baseline(&with(0xEE, b"Adobe\0\x64\0\0\0\0\0"), NO_LIMIT).is_none());
    assert!(decode_baseline(&with(0xE0, b"AVI1\0\0"), NO_LIMIT).is_none());
    for (name, bytes) in corpus() {
        let is_ordinary = name == "Jpeg" || name == "grey.jpg";
        assert_eq!(decode_baseline(&bytes, NO_LIMIT).is_some(), is_ordinary, "{name}");
    }
}

#[test]
fn damaged_files_are_as_zune_decodes_them_or_left_to_it() {
    let mut seeds: Vec<Vec<u8>> = corpus().into_iter().take(1).map(|(_, bytes)| bytes).collect();
    for (seed, sampling) in (0..).zip([(1, 1), (2, 1), (1, 2), (2, 2), (2, 2)]) {
        seeds.push(make_jpeg(&Shape {
            width: 40,
            height: 35,
            sampling,
            is_grey: seed == 0,
            restart_interval: if seed == 4 { 3 } else { 0 },
            has_flat_codes: seed % 2 == 0,
            sparsity: 6,
            max_size: 3,
            seed,
        }));
    }
    let mut num_decoded = 0;
    for round in 0..6000 {
        let seed = &seeds[round % seeds.len()];
        let bytes = mutate(seed, &seeds[(round + 1) % seeds.len()], round as u64);
        num_decoded += usize::from(zune_agrees(&bytes));
    }
    assert!(num_decoded > 300, "{num_decoded}");
}
