//! The headers of an ordinary JPEG file (ITU-T T.81, annex B): one scan of all components, Huffman codes, 8 bits.

use std::ops::Range;

use super::bits::POSITIONS;

/// Where a code table's counts and symbols lie in the file.
type Place = Range<usize>;

/// A component and the tables that its blocks are read with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Component {
    id: u8,
    quantisation: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// What the headers say.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Pixels of the first component for each of the others, across and down: 1 or 2.
    pub(super) sampling: (usize, usize),
    components: [Component; 3],
    num_components: usize,
    /// Where the 64 divisors of a table begin.
    quantisation: [Option<usize>; 4],
    pub(super) dc: [Option<Place>; 4],
    pub(super) ac: [Option<Place>; 4],
    /// Units between two restarts, 0 for none.
    pub(super) restart_interval: usize,
    /// Where the scan's data begin.
    pub(super) scan: usize,
}

impl Frame {
    /// `None` where the file is not an ordinary one; an EXIF block, which may say that the image is turned, makes it
    /// extraordinary, too.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut frame = Self::default();
        let mut has_adobe = false;
        let mut at = bytes.starts_with(&[0xFF, 0xD8]).then_some(2)?;
        loop {
            let [0xFF, marker, high, low] = *bytes.get(at..)?.first_chunk()? else { return None };
            let begin = at + 4;
            at += 2 + usize::from(u16::from_be_bytes([high, low]));
            let body = bytes.get(begin..at)?;
            match marker {
                0xC0 | 0xC1 => frame.parse_components(body)?,
                0xC4 => frame.parse_code_tables(begin, body)?,
                0xDB => frame.parse_divisors(begin, body)?,
                0xDD => frame.restart_interval = usize::from(u16::from_be_bytes(*body.as_array()?)),
                // Frames of a video leave their tables out.
                0xE0 if body.len() < 5 || body.starts_with(b"AVI1\0") => return None,
                0xE1 if body.starts_with(b"Exif\0\0") || body.starts_with(b"http://ns.adobe.com/xmp/extension/") => {
                    return None;
                }
                0xEE => {
                    has_adobe = true;
                    // Anything but brightness and colour.
                    if body.starts_with(b"Adobe") && body.get(11) != Some(&1) {
                        return None;
                    }
                }
                0xE0..=0xEF | 0xFE => {}
                0xDA => {
                    frame.parse_scan(body)?;
                    frame.scan = at;
                    break;
                }
                _ => return None,
            }
        }
        let is_rgb = frame.components.map(|it| it.id) == *b"RGB";
        let is_odd_grey = frame.num_components == 1 && (has_adobe || frame.sampling != (1, 1));
        (!is_rgb && !is_odd_grey).then_some(frame)
    }

    /// One component or three.
    pub(super) fn components(&self) -> &[Component] {
        &self.components[..self.num_components]
    }

    /// The divisors of a component by their place in a block.
    pub(super) fn divisors(&self, component: &Component, bytes: &[u8]) -> Option<[i16; 64]> {
        let in_file: &[u8; 64] = bytes.get(self.quantisation[component.quantisation]?..)?.first_chunk()?;
        let mut divisors = [0; 64];
        for (&position, &divisor) in POSITIONS[1..].iter().zip(in_file) {
            divisors[usize::from(position)] = i16::from(divisor);
        }
        Some(divisors)
    }

    fn parse_components(&mut self, body: &[u8]) -> Option<()> {
        let &[8, h1, h0, w1, w0, num @ (1 | 3), ref rest @ ..] = body else { return None };
        if self.num_components != 0 || rest.len() != 3 * usize::from(num) {
            return None;
        }
        self.num_components = usize::from(num);
        self.width = usize::from(u16::from_be_bytes([w1, w0]));
        self.height = usize::from(u16::from_be_bytes([h1, h0]));
        if self.width == 0 || self.height == 0 {
            return None;
        }
        for (idx, &[id, sampling, quantisation]) in rest.as_chunks::<3>().0.iter().enumerate() {
            let sampling = (usize::from(sampling >> 4), usize::from(sampling & 15));
            match (idx, sampling) {
                (0, (1 | 2, 1 | 2)) => self.sampling = sampling,
                (1 | 2, (1, 1)) => {}
                _ => return None,
            }
            if quantisation > 3 || self.components[..idx].iter().any(|earlier| earlier.id == id) {
                return None;
            }
            self.components[idx] = Component { id, quantisation: quantisation.into(), ..Component::default() };
        }
        Some(())
    }

    fn parse_code_tables(&mut self, mut begin: usize, mut body: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = body.split_first() {
            let num_symbols: usize = rest.get(..16)?.iter().map(|&count| usize::from(count)).sum();
            let len = 16 + num_symbols;
            if num_symbols > 256 || rest.len() < len {
                return None;
            }
            let table = match kind {
                0..=3 => &mut self.dc[usize::from(kind)],
                0x10..=0x13 => &mut self.ac[usize::from(kind & 3)],
                _ => return None,
            };
            if table.replace(begin + 1..begin + 1 + len).is_some() {
                return None;
            }
            body = &rest[len..];
            begin += 1 + len;
        }
        Some(())
    }

    fn parse_divisors(&mut self, mut begin: usize, mut body: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = body.split_first() {
            // Divisors of 16 bits have a 1 in the upper half.
            *self.quantisation.get_mut(usize::from(kind))? = Some(begin + 1);
            body = rest.get(64..)?;
            begin += 65;
        }
        Some(())
    }

    fn parse_scan(&mut self, body: &[u8]) -> Option<()> {
        let num = self.num_components;
        let (&count, rest) = body.split_first()?;
        if num == 0 || usize::from(count) != num || rest.len() != 2 * num + 3 || rest[2 * num..] != [0, 63, 0] {
            return None;
        }
        for (component, &[id, tables]) in self.components.iter_mut().zip(rest[..2 * num].as_chunks::<2>().0) {
            (component.dc, component.ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            if component.id != id || component.dc > 3 || component.ac > 3 {
                return None;
            }
        }
        Some(())
    }
}
