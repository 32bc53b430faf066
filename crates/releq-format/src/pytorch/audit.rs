//! Reads what a pickle would import, without building anything.
//!
//! A pickle is a program, and what it can do is bounded by the functions and classes it names. The list of
//! those that rebuild tensors is short, so everything else is refused, as `torch.load(weights_only=True)`
//! does. The reader behind this one executes nothing either; it skips calls that it does not know, and a
//! checkpoint that holds one deserves to be refused, not read.

use std::{
    collections::HashMap,
    io::{self, BufRead, Read},
    rc::Rc,
};

/// Longest name that is kept; longer strings cannot be one.
const LONGEST_NAME: u64 = 256;

/// Most values that a pickle may remember; a checkpoint of ten thousand tensors remembers fewer.
const LARGEST_MEMO: usize = 1 << 20;

/// Why a pickle is not let through.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It asks for `name` at `offset`.
    Name { offset: u64, name: String },
    /// It cannot be followed to its end.
    Damaged(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error)
    }
}

/// Whether `module.name` only rebuilds data.
fn is_harmless(module: &str, name: &str) -> bool {
    match module {
        "collections" => matches!(name, "Counter" | "OrderedDict" | "defaultdict"),
        "builtins" | "__builtin__" => matches!(
            name,
            "bool"
                | "bytearray"
                | "complex"
                | "dict"
                | "float"
                | "frozenset"
                | "int"
                | "list"
                | "set"
        ),
        "torch" => {
            name.strip_suffix("Storage").is_some_and(|kind| !kind.contains('.'))
                || matches!(
                    name,
                    "Size"
                        | "device"
                        | "float32"
                        | "float64"
                        | "float16"
                        | "bfloat16"
                        | "int64"
                        | "int32"
                        | "int16"
                        | "int8"
                        | "uint8"
                        | "bool"
                )
        }
        "torch.cuda" | "torch.storage" => {
            name.strip_suffix("Storage").is_some_and(|kind| !kind.contains('.'))
        }
        "torch._utils" => matches!(
            name,
            "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" | "_rebuild_parameter"
        ),
        "torch.nn.parameter" => name == "Parameter",
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            matches!(name, "scalar" | "_reconstruct")
        }
        "_codecs" => name == "encode",
        "argparse" => name == "Namespace",
        "pathlib" => matches!(name, "PosixPath" | "WindowsPath"),
        _ => false,
    }
}

/// Follows one pickle to its end and refuses the first name that may run code.
pub(super) fn audit(pickle: &mut impl BufRead) -> Result<(), Refusal> {
    let mut audit = Audit { input: pickle, offset: 0, recent: [None, None], memo: HashMap::new() };
    while audit.step()? {}
    Ok(())
}

struct Audit<'a, R> {
    input: &'a mut R,
    offset: u64,
    /// The two topmost values of the stack, where they are strings; the later one last.
    recent: [Option<Rc<str>>; 2],
    /// What the pickle can push again, where it is a string; others count, too.
    memo: HashMap<u64, Option<Rc<str>>>,
}

impl<R: BufRead> Audit<'_, R> {
    /// Follows one instruction; false at the end.
    fn step(&mut self) -> Result<bool, Refusal> {
        let at = self.offset;
        let [opcode] = self.bytes()?;
        match opcode {
            b'.' => return Ok(false),
            // MARK, POP, POP_MARK, DUP, None, REDUCE, BUILD, tuples, lists, dicts, sets, NEWOBJ, ...
            b'('
            | b'0'
            | b'1'
            | b'2'
            | b'N'
            | b'R'
            | b'b'
            | b'a'
            | b'e'
            | b'd'
            | b'}'
            | b'l'
            | b']'
            | b'o'
            | b's'
            | b'u'
            | b't'
            | b')'
            | b'Q'
            | 0x81
            | 0x85..=0x89
            | 0x8f..=0x92 => {
                self.push(None);
                self.recent[0] = None;
            }
            // PROTO, FRAME: nothing on the stack.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            // Numbers.
            b'K' => self.number(1)?,
            b'M' => self.number(2)?,
            b'J' => self.number(4)?,
            b'G' => self.number(8)?,
            0x8a => {
                let length = self.length::<1>()?;
                self.number(length)?;
            }
            0x8b => {
                let length = self.length::<4>()?;
                self.number(length)?;
            }
            b'F' | b'I' | b'L' | b'P' => {
                self.line()?;
                self.push(None);
            }
            // Strings and bytes.
            b'U' | b'C' | 0x8c => {
                let length = self.length::<1>()?;
                self.string(length)?;
            }
            b'T' | b'B' | b'X' => {
                let length = self.length::<4>()?;
                self.string(length)?;
            }
            0x8d | 0x8e | 0x96 => {
                let length = self.length::<8>()?;
                self.string(length)?;
            }
            b'S' | b'V' => {
                let line = self.line()?;
                let text = line.trim_matches(['\'', '"']);
                self.push((text.len() as u64 <= LONGEST_NAME).then(|| text.into()));
            }
            // The memo.
            b'h' => {
                let key = self.length::<1>()?;
                self.get(key);
            }
            b'j' => {
                let key = self.length::<4>()?;
                self.get(key);
            }
            b'g' => {
                let key = self.line()?;
                self.get(index(&key)?);
            }
            b'q' => {
                let key = self.length::<1>()?;
                self.put(key)?;
            }
            b'r' => {
                let key = self.length::<4>()?;
                self.put(key)?;
            }
            b'p' => {
                let key = self.line()?;
                self.put(index(&key)?)?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            // Names: GLOBAL, INST, STACK_GLOBAL.
            b'c' | b'i' => {
                let [module, name] = [self.line()?, self.line()?];
                self.name(at, Some(&module), Some(&name))?;
            }
            0x93 => {
                let [module, name] = std::mem::take(&mut self.recent);
                self.name(at, module.as_deref(), name.as_deref())?;
            }
            // The extension registry names functions by number.
            0x82..=0x84 => {
                let name = "a function of the extension registry".to_owned();
                return Err(Refusal::Name { offset: at, name });
            }
            other => {
                let message = format!("byte {at}: {other:#04x} is no pickle instruction");
                return Err(Refusal::Damaged(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
        }
        Ok(true)
    }

    fn name(
        &mut self,
        offset: u64,
        module: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), Refusal> {
        let name = match module.zip(name) {
            Some((module, name)) if is_harmless(module, name) => {
                self.recent = [None, None];
                return Ok(());
            }
            Some((module, name)) => format!("{module}.{name}"),
            None => "a name that it computes".to_owned(),
        };
        Err(Refusal::Name { offset, name })
    }

    fn push(&mut self, value: Option<Rc<str>>) {
        self.recent.swap(0, 1);
        self.recent[1] = value;
    }

    fn get(&mut self, key: u64) {
        let value = self.memo.get(&key).cloned().flatten();
        self.push(value);
    }

    fn put(&mut self, key: u64) -> io::Result<()> {
        if self.memo.len() >= LARGEST_MEMO {
            let message = format!("byte {}: more than {LARGEST_MEMO} values", self.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.memo.insert(key, self.recent[1].clone());
        Ok(())
    }

    fn number(&mut self, bytes: u64) -> io::Result<()> {
        self.skip(bytes)?;
        self.push(None);
        Ok(())
    }

    fn string(&mut self, length: u64) -> io::Result<()> {
        if length > LONGEST_NAME {
            return self.number(length);
        }
        let mut bytes = Vec::new();
        self.input.by_ref().take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += length;
        self.push(String::from_utf8(bytes).ok().map(Into::into));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.offset += N as u64;
        Ok(bytes)
    }

    /// An unsigned little-endian number of `N` bytes.
    fn length<const N: usize>(&mut self) -> io::Result<u64> {
        let bytes = self.bytes::<N>()?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        self.offset += skipped;
        if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        // A number in text can be long; nothing sensible is longer than this.
        self.input.by_ref().take(1 << 20).read_until(b'\n', &mut line)?;
        self.offset += line.len() as u64;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
    }
}

fn index(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| {
        let message = format!("`{text}` is no index into the memo");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}
