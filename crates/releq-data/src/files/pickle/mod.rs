//! Reads pickles of plain data: numbers, text, lists, dictionaries and NumPy arrays.
//!
//! A pickle is a program for a small stack machine. Imports and calls make it dangerous. Here each of the few
//! calls that rebuild NumPy arrays is implemented by hand, and any other import is an error.

mod machine;
mod numpy;

use std::{ops::Range, path::Path};

use self::machine::{Failure, Machine};
pub(crate) use self::numpy::{Array, Dtype};
use crate::DataError;

const FORMAT: &str = "pickle";

/// Most values that a pickle may build, and most entries of its stack and memo; a batch of CIFAR-10 needs
/// some 30,000.
const LARGEST: usize = 1 << 19;
/// Most bytes that are copied out of a pickle; a batch of CIFAR-10 needs 30 MB.
const LARGEST_COPY: usize = 1 << 27;

/// Index of a value among all that were built. Lists and dictionaries grow after they were memoized,
/// so values refer to each other by index.
type Id = usize;

/// A value.
#[derive(Debug, Clone)]
enum Value {
    /// Not needed: `None`, floats, large numbers.
    Other,
    Int(i64),
    Bytes(Range<usize>),
    /// Bytes that were encoded as text.
    Decoded(Vec<u8>),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by name.
    Name(String),
    /// A NumPy data type.
    Dtype(Dtype),
    /// A NumPy array before it is filled.
    Empty,
    Array(Array),
}

/// The contents of a pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads the pickle `bytes`, which came from `path`.
    pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Self, DataError> {
        let mut machine = Machine::new(bytes);
        let root = loop {
            let step = machine.step().map_err(|failure| {
                let (path, offset) = (path.to_owned(), machine.at);
                match failure {
                    Failure::Code(callable) => DataError::PickleCode { path, offset, callable },
                    Failure::Damaged(problem) => {
                        DataError::Format { path, format: FORMAT, offset, problem }
                    }
                }
            });
            if let Some(root) = step? {
                break root;
            }
        };
        Ok(Self { values: machine.values, root })
    }

    /// The value under `key`, if the pickle contains a dictionary that has it.
    fn get(&self, key: &str, bytes: &[u8]) -> Option<&Value> {
        let Value::Dict(pairs) = &self.values[self.root] else { return None };
        let is_key = |id: Id| match &self.values[id] {
            Value::Text(text) => text == key,
            Value::Bytes(range) => bytes[range.clone()] == *key.as_bytes(),
            Value::Decoded(bytes) => bytes == key.as_bytes(),
            _ => false,
        };
        // Of equal keys, the last counts.
        pairs.iter().rev().find(|&&(id, _)| is_key(id)).map(|&(_, id)| &self.values[id])
    }

    /// The array under `key`, or what is wrong.
    pub(crate) fn array(&self, key: &str, bytes: &[u8]) -> Result<&Array, String> {
        match self.get(key, bytes) {
            Some(Value::Array(array)) => Ok(array),
            Some(_) => Err(format!("`{key}` is not a NumPy array")),
            None => Err(format!("the pickle is not a dictionary with the key `{key}`")),
        }
    }

    /// The whole numbers under `key`, a list, a tuple or an array of one dimension, or what is wrong.
    pub(crate) fn numbers(&self, key: &str, bytes: &[u8]) -> Result<Vec<i64>, String> {
        let ids = match self.get(key, bytes) {
            Some(Value::List(ids) | Value::Tuple(ids)) => ids,
            Some(Value::Array(array)) => {
                return array.numbers().map_err(|problem| format!("`{key}`: {problem}"));
            }
            Some(_) => return Err(format!("`{key}` is neither a list nor a NumPy array")),
            None => return Err(format!("the pickle is not a dictionary with the key `{key}`")),
        };
        let numbers = ids.iter().enumerate().map(|(index, &id)| {
            let wrong = || format!("item {index} of `{key}` is not a whole number");
            self.values[id].int().ok_or_else(wrong)
        });
        numbers.collect()
    }
}

impl Value {
    fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{'data': numpy.array([[0, 1, 2], [128, 254, 255]], dtype='u1'), 'labels': [6, 9]}` as written by
    /// Python 2.7.18 with NumPy 1.16.6, as CIFAR-10 was, and by Python 3.11 with NumPy 2.4.6 in the protocols
    /// 2, 4, 5, 0 and 1.
    const WRITTEN: [&[u8]; 6] = [
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\teU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\t(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\x02\x80\xfe\xfftbu.",
        b"\x80\x02}q\x00(X\x04\x00\x00\x00dataq\x01cnumpy._core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04c_codecs\nencode\nq\x05X\x01\x00\x00\x00bq\x06X\x06\x00\x00\x00latin1q\x07\x86q\x08Rq\t\x87q\nRq\x0b(K\x01K\x02K\x03\x86q\x0ccnumpy\ndtype\nq\rX\x02\x00\x00\x00u1q\x0e\x89\x88\x87q\x0fRq\x10(K\x03X\x01\x00\x00\x00|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89h\x05X\t\x00\x00\x00\x00\x01\x02\xc2\x80\xc3\xbe\xc3\xbfq\x13h\x07\x86q\x14Rq\x15tq\x16bX\x06\x00\x00\x00labelsq\x17]q\x18(K\x06K\teu.",
        b"\x80\x04\x95\xad\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04data\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x06\x00\x01\x02\x80\xfe\xff\x94t\x94b\x8c\x06labels\x94]\x94(K\x06K\teu.",
        b"\x80\x05\x95\x98\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04data\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x06\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x80\xfe\xff\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x03\x86\x94\x8c\x01C\x94t\x94R\x94\x8c\x06labels\x94]\x94(K\x06K\teu.",
        b"(dp0\nVdata\np1\ncnumpy._core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nc_codecs\nencode\np5\n(Vb\np6\nVlatin1\np7\ntp8\nRp9\ntp10\nRp11\n(I1\n(I2\nI3\ntp12\ncnumpy\ndtype\np13\n(Vu1\np14\nI00\nI01\ntp15\nRp16\n(I3\nV|\np17\nNNNI-1\nI-1\nI0\ntp18\nbI00\ng5\n(V\\u0000\x01\x02\x80\xfe\xff\np19\ng7\ntp20\nRp21\ntp22\nbsVlabels\np23\n(lp24\nI6\naI9\nas.",
        b"}q\x00(X\x04\x00\x00\x00dataq\x01cnumpy._core.multiarray\n_reconstruct\nq\x02(cnumpy\nndarray\nq\x03(K\x00tq\x04c_codecs\nencode\nq\x05(X\x01\x00\x00\x00bq\x06X\x06\x00\x00\x00latin1q\x07tq\x08Rq\ttq\nRq\x0b(K\x01(K\x02K\x03tq\x0ccnumpy\ndtype\nq\r(X\x02\x00\x00\x00u1q\x0eI00\nI01\ntq\x0fRq\x10(K\x03X\x01\x00\x00\x00|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12bI00\nh\x05(X\t\x00\x00\x00\x00\x01\x02\xc2\x80\xc3\xbe\xc3\xbfq\x13h\x07tq\x14Rq\x15tq\x16bX\x06\x00\x00\x00labelsq\x17]q\x18(K\x06K\teu.",
    ];

    /// `{'labels': ...}` of 6 and 9, as Python 3.11 with NumPy 2.4.6 writes them: arrays of type `i8` in the protocols
    /// 2, 4 and 5, of `>i2`, `>i4`, a column of `u1`, and of `f4`, then lists of NumPy's numbers in the protocols 2 and
    /// 4, and a tuple.
    const LABELS: [&[u8]; 10] = [
        b"\x80\x02}q\x00X\x06\x00\x00\x00labelsq\x01cnumpy._core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04c_codecs\nencode\nq\x05X\x01\x00\x00\x00bq\x06X\x06\x00\x00\x00latin1q\x07\x86q\x08Rq\t\x87q\nRq\x0b(K\x01K\x02\x85q\x0ccnumpy\ndtype\nq\rX\x02\x00\x00\x00i8q\x0e\x89\x88\x87q\x0fRq\x10(K\x03X\x01\x00\x00\x00<q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89h\x05X\x10\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\t\x00\x00\x00\x00\x00\x00\x00q\x13h\x07\x86q\x14Rq\x15tq\x16bs.",
        b"\x80\x04\x95\xa5\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02\x85\x94h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x10\x06\x00\x00\x00\x00\x00\x00\x00\t\x00\x00\x00\x00\x00\x00\x00\x94t\x94bs.",
        b"\x80\x05\x95\x90\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x10\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\t\x00\x00\x00\x00\x00\x00\x00\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02\x85\x94\x8c\x01C\x94t\x94R\x94s.",
        b"\x80\x04\x95\x99\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02\x85\x94h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02i2\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01>\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x04\x00\x06\x00\t\x94t\x94bs.",
        b"\x80\x05\x95\x88\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\t\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02i4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01>\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02\x85\x94\x8c\x01C\x94t\x94R\x94s.",
        b"\x80\x05\x95\x84\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x02\x00\x00\x00\x00\x00\x00\x00\x06\t\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x01\x86\x94\x8c\x01C\x94t\x94R\x94s.",
        b"\x80\x04\x95\x9d\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02\x85\x94h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x08\x00\x00\xc0@\x00\x00\x10A\x94t\x94bs.",
        b"\x80\x02}q\x00X\x06\x00\x00\x00labelsq\x01]q\x02(cnumpy._core.multiarray\nscalar\nq\x03cnumpy\ndtype\nq\x04X\x02\x00\x00\x00i8q\x05\x89\x88\x87q\x06Rq\x07(K\x03X\x01\x00\x00\x00<q\x08NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\tbc_codecs\nencode\nq\nX\x08\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00q\x0bX\x06\x00\x00\x00latin1q\x0c\x86q\rRq\x0e\x86q\x0fRq\x10h\x03h\x07h\nX\x08\x00\x00\x00\t\x00\x00\x00\x00\x00\x00\x00q\x11h\x0c\x86q\x12Rq\x13\x86q\x14Rq\x15es.",
        b"\x80\x04\x95\x8d\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94]\x94(\x8c\x16numpy._core.multiarray\x94\x8c\x06scalar\x94\x93\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02i8\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bC\x08\x06\x00\x00\x00\x00\x00\x00\x00\x94\x86\x94R\x94h\x05h\x0bC\x08\t\x00\x00\x00\x00\x00\x00\x00\x94\x86\x94R\x94es.",
        b"\x80\x04\x95\x13\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06labels\x94K\x06K\t\x86\x94s.",
    ];

    fn read(bytes: &[u8]) -> Result<Pickle, DataError> {
        Pickle::read(Path::new("some/batch"), bytes)
    }

    #[test]
    fn what_python_writes_is_read() {
        for bytes in WRITTEN {
            let pickle = read(bytes).unwrap();
            let data = vec![0, 1, 2, 128, 254, 255];
            let dtype = Dtype::new("u1");
            let array = Array { shape: vec![2, 3], dtype, data, columns_first: false };
            assert_eq!(pickle.array("data", bytes), Ok(&array));
            assert_eq!(pickle.numbers("labels", bytes), Ok(vec![6, 9]));
            assert!(pickle.numbers("data", bytes).unwrap_err().contains("shape [2, 3]"));
            assert!(pickle.array("labels", bytes).unwrap_err().contains("not a NumPy array"));
            assert!(pickle.array("fine_labels", bytes).unwrap_err().contains("`fine_labels`"));
        }
        // Columns first, as NumPy says with one byte.
        let mut columns_first = WRITTEN[0].to_vec();
        let place = columns_first.iter().position(|&byte| byte == 0x89).unwrap();
        columns_first[place] = 0x88;
        let pickle = read(&columns_first).unwrap();
        assert!(pickle.array("data", &columns_first).unwrap().columns_first);
    }

    #[test]
    fn lines_of_text_have_what_python_escaped_in_them() {
        // `{b'labels': [6, 9], 'data': numpy.array([[10, 13, 92, 26, 0, 200]], 'u1'), 'x': 1.5, 'y': None, 'z': True}` in
        // protocol 0 of Python 3.11.
        let new = b"(dp0\nc_codecs\nencode\np1\n(Vlabels\np2\nVlatin1\np3\ntp4\nRp5\n(lp6\nI6\naI9\nasVdata\np7\ncnumpy._core.multiarray\n_reconstruct\np8\n(cnumpy\nndarray\np9\n(I0\ntp10\ng1\n(Vb\np11\ng3\ntp12\nRp13\ntp14\nRp15\n(I1\n(I1\nI6\ntp16\ncnumpy\ndtype\np17\n(Vu1\np18\nI00\nI01\ntp19\nRp20\n(I3\nV|\np21\nNNNI-1\nI-1\nI0\ntp22\nbI00\ng1\n(V\\u000a\\u000d\\u005c\\u001a\\u0000\xc8\np23\ng3\ntp24\nRp25\ntp26\nbsVx\np27\nF1.5\nsVy\np28\nNsVz\np29\nI01\ns.";
        // The same array as Python 2 has it, whose text is of bytes.
        let old = b"(dS'data'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nI6\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\n\\r\\\\\\x1a\\x00\\xc8'\ntbsS'labels'\n(lL6L\naI9\nas.";
        for bytes in [&new[..], old] {
            let pickle = read(bytes).unwrap();
            assert_eq!(pickle.array("data", bytes).unwrap().data, [10, 13, 92, 26, 0, 200]);
            assert_eq!(pickle.numbers("labels", bytes), Ok(vec![6, 9]));
        }
        for (bytes, expected) in [
            (&b"Ix\n."[..], "a line that is no number"),
            (b"Vx\\u00\n.", "a line of text as Python writes none"),
            (b"Sx\n.", "a line of text as Python writes none"),
            (b"Vx", "ends within a line"),
        ] {
            let message = read(bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let large = b"(dVlabels\n(lL99999999999999999999L\nas.";
        assert!(read(large).unwrap().numbers("labels", large).is_err());
    }

    #[test]
    fn labels_are_lists_or_arrays_of_any_type() {
        for (case, bytes) in LABELS.iter().enumerate() {
            let numbers = read(bytes).unwrap().numbers("labels", bytes);
            assert_eq!(numbers, Ok(vec![6, 9]), "case {case}");
        }
        // `{b'labels': [6, 9]}` in protocol 2 of Python 3, which is what saving a published batch again makes.
        let bytes = b"\x80\x02}q\x00c_codecs\nencode\nq\x01X\x06\x00\x00\x00labelsq\x02X\x06\x00\x00\x00latin1q\x03\x86q\x04Rq\x05]q\x06(K\x06K\tes.";
        assert_eq!(read(bytes).unwrap().numbers("labels", bytes), Ok(vec![6, 9]));
        for (bytes, expected) in [
            (&b"}(U\x06labels](K\x06Neu."[..], "item 1 of `labels` is not a whole number"),
            (b"}(U\x06labelsNu.", "`labels` is neither a list nor a NumPy array"),
            (b"]K\x06a.", "the pickle is not a dictionary with the key `labels`"),
        ] {
            assert_eq!(read(bytes).unwrap().numbers("labels", bytes), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_pickle_that_tries_to_run_code_is_refused_and_runs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let command = format!("touch {}", trace.display());
        let short = command.len() as u8;
        let check = |bytes: &[u8], callable: &str| {
            let error = read(bytes).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, DataError::PickleCode { .. }), "{message}");
            assert!(message.contains("some/batch") && message.contains(callable), "{message}");
            assert!(!trace.exists());
        };
        // What `pickle.dumps` makes of an object whose `__reduce__` asks for `os.system`.
        let head = b"\x80\x02cposix\nsystem\nq\x00X";
        let system = [head, &u32::from(short).to_le_bytes()[..], command.as_bytes(), b"\x85R."];
        check(&system.concat(), "posix.system");
        // The same by other instructions: names from the stack, INST, the registry, a constructor.
        let names =
            [&b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c"[..], &[short], command.as_bytes()];
        check(&[&names.concat()[..], b"\x85R."].concat(), "os.system");
        let inst = [&b"(U"[..], &[short], command.as_bytes(), b"ios\nsystem\n."];
        check(&inst.concat(), "os.system");
        check(b"cposix\nsystem\np0\n(Vtouch trace\np1\ntp2\nRp3\n.", "posix.system");
        check(b"(S'touch trace'\nios\nsystem\n.", "os.system");
        check(b"\x80\x02\x82\x01)R.", "extension registry");
        check(b"\x80\x02cnumpy\nndarray\n)\x81.", "constructor");
        check(b"\x80\x04K\x01K\x02\x93.", "a computed name");
        check(b"\x80\x02cbuiltins\neval\n.", "builtins.eval");
        // Harmless names, but hidden behind the array that is asked for.
        let mut late = WRITTEN[0].to_vec();
        late.pop();
        late.extend(b"cnumpy\nload\n.");
        check(&late, "numpy.load");
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let check = |bytes: &[u8], expected: &str| {
            let message = read(bytes).unwrap_err().to_string();
            assert!(message.contains("some/batch, byte"), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        for bytes in WRITTEN {
            for length in 0..bytes.len() {
                check(&bytes[..length], "byte");
            }
        }
        check(b"", "ends within");
        check(b"hello", "the memo has no entry 101");
        check(b"\x80\x02.", "stack is empty");
        check(b"\x80\x02u.", "no mark");
        check(b"K\x01K\x02a.", "not a list");
        check(b"}(K\x01u.", "not a dictionary");
        check(b"K\x01K\x02R.", "not a function");
        check(b"cnumpy\ndtype\n)R.", "arguments that NumPy does not write");
        check(b"T\xff\xff\xff\xffabc.", "ends within an instruction");
        check(b"cnumpy", "ends within a line");
        check(b"\xff.", "instruction 0xff");
        let other = |from: &[u8], to: &[u8]| {
            let bytes = WRITTEN[0];
            let place = bytes.windows(from.len()).position(|part| part == from).unwrap();
            [&bytes[..place], to, &bytes[place + from.len()..]].concat()
        };
        check(&other(b"u1", b"O8"), "a NumPy array of type O8");
        check(&other(b"u1", b"f4"), "shape [2, 3], type f4, with 6 bytes");
        check(&other(b"K\x02K\x03\x86", b"K\x02K\x04\x86"), "shape [2, 4], type u1, with 6 bytes");
        // Values, references to one value, entries of the memo and marks.
        for repeated in [&b"N"[..], b"2", b"h\x00", b"\x94", b"("] {
            let bytes = [b"Nq\x00", &repeated.repeat(LARGEST + 1)[..]].concat();
            check(&bytes, "more than 524288 values");
        }
        // One text that is copied with every call.
        let mut bomb = b"c_codecs\nencode\nX\x00\x00\x10\x00".to_vec();
        bomb.extend(vec![b'x'; 1 << 20]);
        bomb.extend(b"X\x06\x00\x00\x00latin1\x86q\x00");
        bomb.extend(b"0q\x01");
        for _ in 0..200 {
            bomb.extend(b"h\x01h\x00R");
        }
        check(&bomb, "bytes of values");
    }
}
