//! The data of a scan, bit by bit, and the coefficients of a block (ITU-T T.81, annex F.2).

use super::huffman::{AC_BITS, AcTable, DC_BITS, DcTable, END};

/// Zeros behind the data, so that eight bytes can be read wherever a bit is wanted.
const PADDING: usize = 24;

/// Coefficients of a block in rows, and room for what a step leads to beyond it.
pub(super) type Block = [i16; 256];

/// Where in a block the coefficient lies that comes *before* a place in the order of a file; places beyond 64 lead
/// behind the block.
pub(super) static POSITIONS: [u8; 256] = {
    let mut positions = [64; 256];
    // Diagonals, every second one from the bottom.
    let (mut place, mut sum) = (1, 0);
    while sum < 15 {
        let mut step = 0;
        while step <= sum {
            let (row, column) = if sum % 2 == 0 { (sum - step, step) } else { (step, sum - step) };
            if row < 8 && column < 8 {
                positions[place] = (8 * row + column) as u8;
                place += 1;
            }
            step += 1;
        }
        sum += 1;
    }
    positions
};

/// Copies the data from `at` to the next marker to `to`, without the zeros after 0xFF bytes. Gives the place behind
/// the marker, and the marker, which is the end of the image or a restart.
pub(super) fn load_segment(bytes: &[u8], mut at: usize, to: &mut Vec<u8>) -> Option<(usize, u8)> {
    to.clear();
    loop {
        let rest = bytes.get(at..)?;
        let len = memchr::memchr(0xFF, rest)?;
        match *rest.get(len + 1)? {
            0 => {
                to.extend_from_slice(&rest[..=len]);
                at += len + 2;
            }
            marker @ (0xD0..=0xD7 | 0xD9) => {
                to.extend_from_slice(&rest[..len]);
                to.extend_from_slice(&[0; PADDING]);
                return Some((at + len + 2, marker));
            }
            _ => return None,
        }
    }
}

/// Reads a segment from its first bit.
#[derive(Clone, Copy)]
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// The next byte that is not in `buffer`; a few bits above it may be there already.
    at: usize,
    /// Bits to come, from the highest.
    buffer: u64,
    /// Bits in the buffer.
    left: u32,
}

impl<'a> BitReader<'a> {
    /// `data` are from [`load_segment`].
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, left: 0 }
    }

    /// Whether at most the bits are left that fill the last byte.
    pub(super) fn is_at_end(&self) -> bool {
        let read = 8 * self.at as i64 - i64::from(self.left);
        let left = 8 * (self.data.len() as i64 - PADDING as i64) - read;
        (0..8).contains(&left)
    }

    /// At least 56 bits.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the innermost loop")]
    fn refill(&mut self) -> Option<()> {
        let word = u64::from_be_bytes(*self.data.get(self.at..)?.first_chunk()?);
        self.buffer |= word >> (self.left & 63);
        self.at += ((63 - self.left) >> 3) as usize;
        // 56 and what was above a multiple of 8.
        self.left |= 0b11_1000;
        Some(())
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the innermost loop")]
    fn skip(&mut self, len: u32) {
        self.buffer <<= len & 63;
        self.left -= len;
    }

    /// The number of `size` bits that follows `before` bits: those that begin with 0 are negative.
    fn value(&self, before: u32, size: u32) -> i32 {
        let bits = (self.buffer << (before & 63)) >> 1 >> (63 - size);
        let is_negative = size > 0 && bits >> (size - 1) == 0;
        bits as i32 - if is_negative { (1 << size) - 1 } else { 0 }
    }

    /// Puts the coefficients of the next block where they belong, beside zeros. `previous` is the first coefficient of
    /// the component's block before. Gives the number of coefficients up to the last that is not 0.
    #[inline]
    pub(super) fn read_block(
        &mut self,
        dc: &DcTable,
        ac: &AcTable,
        previous: &mut i16,
        block: &mut Block,
    ) -> Option<usize> {
        // A copy, which the compiler keeps in registers.
        let mut reader = *self;
        block[..64].fill(0);
        reader.read_dc(dc, previous)?;
        block[0] = *previous;
        let num = reader.read_ac(ac, block)?;
        *self = reader;
        Some(num)
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the innermost loop")]
    fn read_dc(&mut self, table: &DcTable, previous: &mut i16) -> Option<()> {
        self.refill()?;
        let entry = table.entries[(self.buffer >> (64 - DC_BITS)) as usize];
        let (len, size) = if entry.len == 0 {
            let (len, size) = table.codes.lookup::<DC_BITS>((self.buffer >> 48) as u16)?;
            (len + u32::from(size), u32::from(size))
        } else {
            (u32::from(entry.len), u32::from(entry.size))
        };
        // What overflows is no photograph.
        *previous = i16::try_from(i32::from(*previous) + self.value(len - size, size)).ok()?;
        self.skip(len);
        Some(())
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the innermost loop")]
    fn read_ac(&mut self, table: &AcTable, block: &mut Block) -> Option<usize> {
        let mut place = 1_u8;
        let end = 'block: loop {
            self.refill()?;
            let mut is_long = false;
            // Two take 2 · (11 + 15) bits at most.
            for _ in 0..2 {
                let entry = table.entries[(self.buffer >> (64 - AC_BITS)) as usize];
                let first = place.wrapping_add(entry.first_step);
                let second = place.wrapping_add(entry.step);
                let unseen = (self.buffer >> (entry.len.wrapping_neg() & 63)) as u32 & ((1 << (entry.unseen & 15)) - 1);
                // Where there is no first, its value goes behind the block, as that of an end does.
                block[usize::from(POSITIONS[usize::from(first)])] = i16::from(entry.first_value);
                block[usize::from(POSITIONS[usize::from(second)])] = entry.value.wrapping_add(unseen as i16);
                if second < 64 {
                    self.skip(u32::from(entry.len));
                    place = second;
                    continue;
                }
                if entry.len == 0 {
                    is_long = true;
                    break;
                }
                if first == 64 {
                    // The block is full; what looked like a second symbol belongs to the next.
                    self.skip(u32::from(entry.first_len));
                    break 'block 64;
                }
                self.skip(u32::from(entry.len));
                break 'block match (second < END, first < END) {
                    (true, _) => second,
                    (false, true) => first,
                    (false, false) => place,
                };
            }
            if is_long {
                self.refill()?;
                let (len, symbol) = table.codes.lookup::<AC_BITS>((self.buffer >> 48) as u16)?;
                let (run, size) = (symbol >> 4, u32::from(symbol & 15));
                let value = self.value(len, size);
                self.skip(len + size);
                if size == 0 && run != 15 {
                    break place;
                }
                place += run + 1;
                block[usize::from(POSITIONS[usize::from(place)])] = value as i16;
                if place >= 64 {
                    break place;
                }
            }
        };
        (end <= 64).then_some(usize::from(end))
    }
}
