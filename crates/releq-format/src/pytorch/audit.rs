//! Checks what a pickle would import, without building anything.
//!
//! A pickle is a program that can do no more than the functions and classes it imports. Few of them are
//! needed to rebuild tensors; any other is refused, as `torch.load(weights_only=True)` does. The reader
//! used afterwards executes nothing either, but it skips calls that it does not know, and a checkpoint
//! that contains one should be refused, not read.

use std::{collections::HashMap, io::BufRead, rc::Rc};

use releq_pickle::{Instruction, Instructions, Payload, PickleError};

/// Longest string that is kept, in bytes. Names are shorter.
const LONGEST_NAME: u64 = 256;

/// Most values that a pickle may memoize. A checkpoint of ten thousand tensors memoizes fewer.
pub(super) const LARGEST_MEMO: usize = 1 << 20;

/// Why a pickle is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It imports `name` at `offset`.
    Name { offset: u64, name: String },
    /// It cannot be read to its end.
    Damaged(PickleError),
    /// It memoizes too much.
    Memo { offset: u64 },
}

impl From<PickleError> for Refusal {
    fn from(error: PickleError) -> Self {
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

/// Reads one pickle to its end and refuses the first import that may run code.
pub(super) fn audit(pickle: &mut impl BufRead) -> Result<(), Refusal> {
    let instructions = Instructions::new(pickle).keep(LONGEST_NAME);
    let mut audit = Audit { instructions, recent: [None, None], memo: HashMap::new() };
    while audit.step()? {}
    Ok(())
}

/// Tracks only what is needed to know the strings that a name is made of.
struct Audit<R> {
    instructions: Instructions<R>,
    /// The top two values of the stack, the topmost last; `None` for what is not a short string.
    recent: [Option<Rc<str>>; 2],
    /// Memoized values; `None` for what is not a short string.
    memo: HashMap<u64, Option<Rc<str>>>,
}

impl<R: BufRead> Audit<R> {
    /// Follows one instruction; false at the end.
    fn step(&mut self) -> Result<bool, Refusal> {
        use Instruction as I;
        let located = self.instructions.read()?;
        let offset = located.offset;
        match located.instruction {
            I::Stop => return Ok(false),
            I::Proto(_) | I::Frame(_) => {}

            I::Int(_) | I::Long(_) | I::Float(_) | I::NumberLine(_) | I::PersistentLine(_) => {
                self.push(None);
            }
            I::Bytes(payload) | I::Text(payload) => self.push(text(payload)),
            I::TextLine(line) => {
                let text = line.trim_matches(['\'', '"']);
                self.push((text.len() as u64 <= LONGEST_NAME).then(|| text.into()));
            }

            I::Get(key) => {
                let value = self.memo.get(&key).cloned().flatten();
                self.push(value);
            }
            I::Put(key) => self.put(key)?,
            I::Memoize => self.put(self.memo.len() as u64)?,

            I::Global { module, name } | I::Inst { module, name } => {
                self.import(offset, Some(&module), Some(&name))?;
            }
            I::StackGlobal => {
                let [module, name] = std::mem::take(&mut self.recent);
                self.import(offset, module.as_deref(), name.as_deref())?;
            }
            I::Extension(_) => {
                let name = "a function of the extension registry".to_owned();
                return Err(Refusal::Name { offset, name });
            }

            // Everything else moves the stack in ways that are not followed: what is on top of it
            // afterwards cannot be part of a name.
            _ => self.recent = [None, None],
        }
        Ok(true)
    }

    fn import(
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
            None => "a computed name".to_owned(),
        };
        Err(Refusal::Name { offset, name })
    }

    fn push(&mut self, value: Option<Rc<str>>) {
        self.recent.swap(0, 1);
        self.recent[1] = value;
    }

    fn put(&mut self, key: u64) -> Result<(), Refusal> {
        if self.memo.len() >= LARGEST_MEMO {
            return Err(Refusal::Memo { offset: self.instructions.offset() });
        }
        self.memo.insert(key, self.recent[1].clone());
        Ok(())
    }
}

/// A string that may be part of a name.
fn text(payload: Payload) -> Option<Rc<str>> {
    String::from_utf8(payload.kept?).ok().map(Into::into)
}
