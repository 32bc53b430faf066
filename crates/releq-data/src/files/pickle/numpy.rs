//! Arrays and numbers of NumPy.

/// An array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: Dtype,
    pub(crate) data: Vec<u8>,
    /// Whether the first dimension is the fastest.
    pub(crate) columns_first: bool,
}

/// A data type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dtype {
    /// A letter and the number of bytes, as in `i8`.
    pub(crate) name: String,
    pub(super) big_endian: bool,
}

impl Array {
    /// The values of an array that has one dimension, or is one row or column, or what is wrong.
    pub(crate) fn numbers(&self) -> Result<Vec<i64>, String> {
        let long = self.shape.iter().filter(|&&dim| dim != 1).count();
        let width = self.dtype.width().filter(|_| long <= 1);
        let Some(width) = width else {
            let (name, shape) = (&self.dtype.name, &self.shape);
            return Err(format!(
                "an array of shape {shape:?} and type {name}, expected a list of numbers"
            ));
        };
        self.data.chunks_exact(width).map(|bytes| self.dtype.number(bytes)).collect()
    }
}

impl Dtype {
    pub(crate) fn new(name: &str) -> Self {
        let big_endian = name.starts_with('>');
        Self { name: name.trim_start_matches(['<', '>', '|', '=']).to_owned(), big_endian }
    }

    /// Bytes of a number; `None` if it is none.
    pub(super) fn width(&self) -> Option<usize> {
        match self.name.as_str() {
            "b1" | "i1" | "u1" => Some(1),
            "i2" | "u2" => Some(2),
            "i4" | "u4" | "f4" => Some(4),
            "i8" | "u8" | "f8" => Some(8),
            _ => None,
        }
    }

    /// The whole number that `bytes` stand for, or what is wrong.
    pub(super) fn number(&self, bytes: &[u8]) -> Result<i64, String> {
        let name = &self.name;
        if self.width() != Some(bytes.len()) {
            return Err(format!("{} bytes are not a number of type {name}", bytes.len()));
        }
        let mut le = [0; 8];
        le[..bytes.len()].copy_from_slice(bytes);
        if self.big_endian {
            le[..bytes.len()].reverse();
        }
        let [a, b, c, d, ..] = le;
        let whole = |value: f64| {
            // Beyond this, not every whole number is a float.
            let fits = value.fract() == 0.0 && value.abs() < (1_u64 << 53) as f64;
            if fits { Ok(value as i64) } else { Err(format!("{value:?} is not a whole number")) }
        };
        match name.as_str() {
            "i1" => Ok(i8::from_le_bytes([a]).into()),
            "i2" => Ok(i16::from_le_bytes([a, b]).into()),
            "i4" => Ok(i32::from_le_bytes([a, b, c, d]).into()),
            "f4" => whole(f32::from_le_bytes([a, b, c, d]).into()),
            "f8" => whole(f64::from_le_bytes(le)),
            "u8" => {
                i64::try_from(u64::from_le_bytes(le)).map_err(|_| "a number above 2^63".to_owned())
            }
            // The rest is zero.
            _ => Ok(i64::from_le_bytes(le)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type_are_read() {
        let check = |name: &str, bytes: &[u8], expected: Result<i64, &str>| {
            let found = Dtype::new(name).number(bytes);
            assert_eq!(
                found.as_ref().map_err(String::as_str).copied(),
                expected,
                "{name} {bytes:?}"
            );
        };
        check("b1", &[1], Ok(1));
        check("u1", &[255], Ok(255));
        check("|i1", &[255], Ok(-1));
        check("<u2", &[1, 2], Ok(513));
        check(">u2", &[1, 2], Ok(258));
        check("i2", &[0xfe, 0xff], Ok(-2));
        check(">i4", &[0xff, 0xff, 0xff, 0xfd], Ok(-3));
        check("u4", &[0xff; 4], Ok(4_294_967_295));
        check("i8", &(-9_i64).to_le_bytes(), Ok(-9));
        check("u8", &7_u64.to_le_bytes(), Ok(7));
        check("u8", &u64::MAX.to_le_bytes(), Err("a number above 2^63"));
        check("f4", &9_f32.to_le_bytes(), Ok(9));
        check(">f8", &9_f64.to_be_bytes(), Ok(9));
        check("f8", &0.5_f64.to_le_bytes(), Err("0.5 is not a whole number"));
        check("f8", &f64::NAN.to_le_bytes(), Err("NaN is not a whole number"));
        check("f8", &1e300_f64.to_le_bytes(), Err("1e300 is not a whole number"));
        check("i8", &[1], Err("1 bytes are not a number of type i8"));
        check("S5", &[1; 5], Err("5 bytes are not a number of type S5"));
    }

    #[test]
    fn rows_and_columns_are_lists_and_nothing_else_is() {
        let array = |shape: &[usize]| Array {
            shape: shape.to_vec(),
            dtype: Dtype::new(">i2"),
            data: vec![0, 1, 0, 2, 0, 3, 0, 4],
            columns_first: false,
        };
        for shape in [&[4][..], &[4, 1], &[1, 4], &[1, 4, 1]] {
            assert_eq!(array(shape).numbers().unwrap(), [1, 2, 3, 4]);
        }
        let problem = array(&[2, 2]).numbers().unwrap_err();
        assert_eq!(problem, "an array of shape [2, 2] and type i2, expected a list of numbers");
    }
}
