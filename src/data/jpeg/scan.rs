//! An ordinary JPEG file to pixels, one row of units at a time.

use std::cell::Cell;

use super::{
    super::decode::OwnedImage,
    bits::{BitReader, Block, load_segment},
    frame::Frame,
    huffman::{AcTable, DcTable, Tables},
    idct::render_block,
    rows::Rows,
};

/// Data that a thread keeps room for; a larger file's is given back.
const KEPT_BYTES: usize = 1 << 20;

/// Eight times what brightness has.
const MAX_LEVEL: i32 = 1 << 14;

/// Buffers and tables that are used again for every image.
#[derive(Debug, Default)]
struct Scratch {
    tables: Tables,
    segment: Vec<u8>,
    rows: Rows,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// The pixels of an ordinary file: one scan, Huffman codes, grey or brightness and colour, the latter at full or half
/// resolution, no EXIF block. They equal those of `zune-jpeg` in every byte (its arithmetic: an inverse transform with
/// 12 bits after the point, triangle filters rounded down each way and then across, colours with 14 bits). `None` for
/// all others and wherever anything is amiss; a longer way then says what.
pub(crate) fn decode_baseline(bytes: &[u8], max_pixels: u64) -> Option<OwnedImage> {
    let frame = Frame::parse(bytes)?;
    if frame.width as u64 * frame.height as u64 > max_pixels {
        return None;
    }
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let rgb = decode_scan(bytes, &frame, &mut scratch);
    if scratch.segment.capacity() > KEPT_BYTES {
        scratch.segment = Vec::new();
    }
    SCRATCH.set(Some(scratch));
    Some(OwnedImage { width: frame.width as u32, height: frame.height as u32, rgb: rgb? })
}

/// What a component's blocks are decoded with.
struct Decoder<'a> {
    dc: &'a DcTable,
    ac: &'a AcTable,
    divisors: [i16; 64],
    /// First coefficient of the block before.
    previous: i16,
    /// Blocks of a unit, across and down.
    blocks: (usize, usize),
}

fn decode_scan(bytes: &[u8], frame: &Frame, scratch: &mut Scratch) -> Option<Vec<u8>> {
    let Scratch { tables, segment, rows } = scratch;
    // A file that has no end needs no memory.
    let (mut at, mut marker) = load_segment(bytes, frame.scan, segment)?;
    // Those of no use, too: where one is damaged, the file is.
    tables.load(bytes, &frame.dc, &frame.ac)?;
    let mut decoders = Vec::with_capacity(3);
    for (idx, component) in frame.components().iter().enumerate() {
        decoders.push(Decoder {
            dc: tables.dc(component.dc)?,
            ac: tables.ac(component.ac)?,
            divisors: frame.divisors(component, bytes)?,
            previous: 0,
            blocks: if idx == 0 { frame.sampling } else { (1, 1) },
        });
    }
    let (units_across, units_down) = rows.start(frame);
    let mut rgb = vec![0; 3 * frame.width * frame.height];
    let mut reader = BitReader::new(segment);
    let mut blocks: [(Block, usize); 6] = [([0; 256], 0); 6];
    let (mut until_restart, mut num_restarts) = (frame.restart_interval, 0_u8);
    for unit_y in 0..units_down {
        for unit_x in 0..units_across {
            if frame.restart_interval > 0 {
                if until_restart == 0 {
                    if marker != 0xD0 | (num_restarts & 7) || !reader.is_at_end() {
                        return None;
                    }
                    (at, marker) = load_segment(bytes, at, segment)?;
                    reader = BitReader::new(segment);
                    num_restarts = num_restarts.wrapping_add(1);
                    until_restart = frame.restart_interval;
                    for decoder in &mut decoders {
                        decoder.previous = 0;
                    }
                }
                until_restart -= 1;
            }
            // All blocks of a unit are read before the first is transformed, which need not wait then for what was
            // just written.
            let mut free = blocks.iter_mut();
            for Decoder { dc, ac, previous, divisors, blocks: (across, down) } in &mut decoders {
                for (block, num) in free.by_ref().take(*across * *down) {
                    *num = reader.read_block(dc, ac, previous, block)?;
                    // Beyond all light, where arithmetic overflows in one way or another.
                    if (i32::from(*previous) * i32::from(divisors[0])).abs() > MAX_LEVEL {
                        return None;
                    }
                }
            }
            let mut full = blocks.iter();
            for (idx, Decoder { divisors, blocks: (across, down), .. }) in decoders.iter().enumerate() {
                let (plane, stride) = rows.plane_mut(idx);
                for ((block, num), nth) in full.by_ref().take(across * down).zip(0..) {
                    let (x, y) = (8 * (unit_x * across + nth % across), 8 * (nth / across));
                    render_block(block, divisors, *num, &mut plane[y * stride + x..], stride);
                }
            }
        }
        rows.emit(unit_y, unit_y + 1 == units_down, &mut rgb);
    }
    (marker == 0xD9 && reader.is_at_end()).then_some(rgb)
}
