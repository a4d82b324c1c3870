//! The header of a `.npy` file: a Python dictionary such as
//! `{'descr': '|u1', 'fortran_order': False, 'shape': (60000, 28, 28), }`.

use super::arrays::ValueType;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NpyHeader {
    /// The type of the values.
    pub(super) value: ValueType,
    /// The sides of the array.
    pub(super) shape: Vec<u64>,
}

/// Reads a header.
///
/// # Errors
/// In words for the user, when it is no header or the array is of another kind.
pub(super) fn parse_npy_header(text: &[u8]) -> Result<NpyHeader, String> {
    let malformed = || "its head is damaged".to_owned();
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let after = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let descr = after("descr").ok_or_else(malformed)?;
    let descr = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(descr, _)| descr);
    let value = value_type(descr.unwrap_or("a structure"))?;
    match after("fortran_order").ok_or_else(malformed)? {
        rest if rest.starts_with("False") => {}
        rest if rest.starts_with("True") => {
            return Err("its values are in Fortran's order: save `numpy.ascontiguousarray(array)`".into());
        }
        _ => return Err(malformed()),
    }
    let shape = after("shape").and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.split_once(')'));
    let (shape, _) = shape.ok_or_else(malformed)?;
    let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<u64> = sides.map(|side| side.parse().map_err(|_| malformed())).collect::<Result<_, _>>()?;
    Ok(NpyHeader { value, shape })
}

fn value_type(descr: &str) -> Result<ValueType, String> {
    let kind = descr.strip_prefix(['|', '<', '>', '=']).unwrap_or(descr);
    let (size, signed) = match kind {
        "u1" | "b1" => (1, false),
        "i1" => (1, true),
        "u2" => (2, false),
        "i2" => (2, true),
        "u4" => (4, false),
        "i4" => (4, true),
        "u8" => (8, false),
        "i8" => (8, true),
        _ => return Err(format!("its values are `{descr}`, not whole numbers")),
    };
    // The order of a single byte is none.
    Ok(ValueType { size, signed, big_endian: size > 1 && descr.starts_with('>') })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_numpy_are_read() {
        let header =
            parse_npy_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (5, 28, 28), }   \n").unwrap();
        assert_eq!(header.shape, [5, 28, 28]);
        let header = parse_npy_header(b"{'descr': '>i8', 'fortran_order': False, 'shape': (5,), }\n").unwrap();
        assert_eq!(header.value, ValueType { size: 8, signed: true, big_endian: true });
        let scalar = parse_npy_header(b"{'descr': '<i2', 'fortran_order': False, 'shape': (), }").unwrap();
        assert_eq!(scalar.shape, [0_u64; 0]);
    }

    #[test]
    fn other_arrays_say_what_they_are() {
        for (text, word) in [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", "`<f4`"),
            ("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (5,), }", "structure"),
            ("{'descr': '|u1', 'fortran_order': True, 'shape': (5,), }", "Fortran"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (-5,), }", "damaged"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,), }", "damaged"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (5", "damaged"),
            ("", "damaged"),
        ] {
            assert!(parse_npy_header(text.as_bytes()).unwrap_err().contains(word), "{text}");
        }
    }
}
