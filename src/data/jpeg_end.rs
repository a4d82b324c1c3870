//! Whether a JPEG file reaches its end marker.
//!
//! The decoder fills what is missing with grey and reports success, so that a half-downloaded photograph would
//! enter a dataset unseen. Walking the markers finds the end without decoding.

/// Walks from marker to marker until the end of the image.
///
/// # Errors
/// In words for the user, when the file ends first.
pub(super) fn check_jpeg_is_whole(bytes: &[u8]) -> Result<(), String> {
    let cut_off = || Err(format!("the file is cut off: {} bytes hold no end of the image", bytes.len()));
    let mut at = 2;
    loop {
        // To the next marker: inside a scan 0xFF 0x00 is a data byte and 0xFFD0…0xFFD7 are restarts.
        let Some(skip) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xFF)) else {
            return cut_off();
        };
        at += skip + 1;
        let Some(&marker) = bytes.get(at) else { return cut_off() };
        match marker {
            0xD9 => return Ok(()),
            // A fill byte: the marker follows.
            0xFF => {}
            0x00 | 0x01 | 0xD0..=0xD8 => at += 1,
            _ => {
                let Some(length) = bytes.get(at + 1..at + 3) else { return cut_off() };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}
