//! Tables that turn the next bits of a scan into symbols (ITU-T T.81, annexes C and F).

use std::ops::Range;

/// Bits that a table for the first coefficient of a block looks at.
pub(super) const DC_BITS: usize = 9;
/// Bits that a table for the others looks at.
pub(super) const AC_BITS: usize = 11;
/// A step that leads beyond every block.
pub(super) const END: u8 = 128;

/// What a DC table knows of the next bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DcEntry {
    /// Bits of code and difference together; 0 where the code is longer than what was looked at.
    pub(super) len: u8,
    /// Bits of the difference.
    pub(super) size: u8,
}

/// What an AC table knows of the next bits: two symbols where the first, with its value, and the code of the second
/// are seen whole, otherwise one, which then counts as the second.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(8))]
pub(super) struct AcEntry {
    /// Bits of both; 0 where the code, or the sign behind it, is beyond what was looked at.
    pub(super) len: u8,
    /// Steps to the place behind the second, [`END`] or more where it ends the block.
    pub(super) step: u8,
    /// Steps to the place behind the first, [`END`] where there is none.
    pub(super) first_step: u8,
    /// Bits of the first.
    pub(super) first_len: u8,
    /// Value of the first.
    pub(super) first_value: i8,
    /// Last bits of the second that were not looked at.
    pub(super) unseen: u8,
    /// Value of the second if those are 0.
    pub(super) value: i16,
}

/// Codes of all lengths, for those that a table does not hold.
#[derive(Debug)]
pub(super) struct Codes {
    /// What lies above the codes of a length and all shorter ones, with 16 bits.
    ends: [u32; 17],
    /// Index of a symbol less its code, for each length.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Codes {
    /// Also calls `each` with length, code and symbol.
    fn build(spec: &[u8], mut each: impl FnMut(usize, usize, u8)) -> Option<Self> {
        let (counts, symbols) = spec.split_first_chunk::<16>()?;
        let mut codes = Self { ends: [0; 17], offsets: [0; 17], symbols: [0; 256] };
        codes.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        let (mut code, mut symbols) = (0, symbols.iter());
        for (len, &count) in (1..).zip(counts) {
            codes.offsets[len] = (spec.len() - 16 - symbols.len()) as i32 - code as i32;
            for &symbol in symbols.by_ref().take(count.into()) {
                each(len, code, symbol);
                code += 1;
            }
            // No code consists of ones alone.
            if count > 0 && code >= 1 << len {
                return None;
            }
            codes.ends[len] = (code << (16 - len)) as u32;
            code <<= 1;
        }
        Some(codes)
    }

    /// Length and symbol of a code that has at least `MIN` bits and begins `bits`.
    #[cold]
    pub(super) fn lookup<const MIN: usize>(&self, bits: u16) -> Option<(u32, u8)> {
        let bits = u32::from(bits);
        let len = MIN + self.ends[MIN..].iter().map(|&end| usize::from(bits >= end)).sum::<usize>();
        let code = bits >> 16_usize.checked_sub(len)?;
        let idx = usize::try_from(code as i32 + self.offsets[len]).ok()?;
        Some((len as u32, *self.symbols.get(idx)?))
    }
}

/// A table for the first coefficients of blocks.
#[derive(Debug)]
pub(super) struct DcTable {
    pub(super) entries: [DcEntry; 1 << DC_BITS],
    pub(super) codes: Codes,
    spec: Vec<u8>,
}

/// A table for all other coefficients.
#[derive(Debug)]
pub(super) struct AcTable {
    pub(super) entries: [AcEntry; 1 << AC_BITS],
    pub(super) codes: Codes,
    spec: Vec<u8>,
}

impl DcTable {
    fn build(spec: &[u8]) -> Option<Box<Self>> {
        let mut entries = [DcEntry::default(); 1 << DC_BITS];
        let mut largest = 0;
        let codes = Codes::build(spec, |len, code, size| {
            largest = largest.max(size);
            if let Some(unused) = DC_BITS.checked_sub(len) {
                let entry = DcEntry { len: len as u8 + (size & 15), size: size & 15 };
                if let Some(entries) = entries.get_mut(code << unused..(code + 1) << unused) {
                    entries.fill(entry);
                }
            }
        })?;
        (largest < 16).then(|| Box::new(Self { entries, codes, spec: spec.to_vec() }))
    }
}

impl AcTable {
    fn build(spec: &[u8]) -> Option<Box<Self>> {
        let mut symbols = [(0, 0); 1 << AC_BITS];
        let codes = Codes::build(spec, |len, code, symbol| {
            if let Some(unused) = AC_BITS.checked_sub(len)
                && let Some(symbols) = symbols.get_mut(code << unused..(code + 1) << unused)
            {
                symbols.fill((len as u8, symbol));
            }
        })?;
        let entries = std::array::from_fn(|bits| {
            let first = AcEntry::of_one(bits, 0, &symbols);
            if first.len == 0 || first.unseen > 0 || first.step >= END {
                return first;
            }
            let second = AcEntry::of_one(bits, first.len, &symbols);
            match i8::try_from(first.value) {
                Ok(first_value) if second.len > 0 => AcEntry {
                    len: first.len + second.len,
                    step: first.step + second.step,
                    first_step: first.step,
                    first_len: first.len,
                    first_value,
                    ..second
                },
                _ => first,
            }
        });
        Some(Box::new(Self { entries, codes, spec: spec.to_vec() }))
    }
}

impl AcEntry {
    /// The symbol that begins after `used` bits.
    fn of_one(bits: usize, used: u8, symbols: &[(u8, u8); 1 << AC_BITS]) -> Self {
        let unknown = Self { step: END, first_step: END, ..Self::default() };
        let (code_len, symbol) = symbols[(bits << used) & ((1 << AC_BITS) - 1)];
        let (run, size) = (symbol >> 4, symbol & 15);
        let Some(rest) = (AC_BITS as u8).checked_sub(used + code_len) else { return unknown };
        if code_len == 0 || (size > 0 && rest == 0) {
            return unknown;
        }
        let step = if size == 0 && run != 15 { END } else { run + 1 };
        let seen = size.min(rest);
        let unseen = size - seen;
        let magnitude = ((bits >> (rest - seen)) as i32 & ((1 << seen) - 1)) << unseen;
        let is_negative = size > 0 && magnitude >> (size - 1) == 0;
        let value = if is_negative { magnitude + 1 - (1 << size) } else { magnitude };
        Self { len: code_len + size, step, unseen, value: value as i16, ..unknown }
    }
}

/// Tables of the image before, which mostly are those of the next.
#[derive(Debug, Default)]
pub(super) struct Tables {
    dc: [Option<Box<DcTable>>; 4],
    ac: [Option<Box<AcTable>>; 4],
}

impl Tables {
    /// Those whose counts and symbols lie at these places of a file.
    pub(super) fn load(
        &mut self,
        bytes: &[u8],
        dc: &[Option<Range<usize>>; 4],
        ac: &[Option<Range<usize>>; 4],
    ) -> Option<()> {
        for (table, place) in self.dc.iter_mut().zip(dc) {
            let spec = place.clone().and_then(|place| bytes.get(place));
            if table.as_ref().map(|table| &table.spec[..]) != spec {
                *table = None;
                *table = spec.map(DcTable::build).map_or(Some(None), |table| table.map(Some))?;
            }
        }
        for (table, place) in self.ac.iter_mut().zip(ac) {
            let spec = place.clone().and_then(|place| bytes.get(place));
            if table.as_ref().map(|table| &table.spec[..]) != spec {
                *table = None;
                *table = spec.map(AcTable::build).map_or(Some(None), |table| table.map(Some))?;
            }
        }
        Some(())
    }

    pub(super) fn dc(&self, idx: usize) -> Option<&DcTable> {
        self.dc.get(idx)?.as_deref()
    }

    pub(super) fn ac(&self, idx: usize) -> Option<&AcTable> {
        self.ac.get(idx)?.as_deref()
    }
}
