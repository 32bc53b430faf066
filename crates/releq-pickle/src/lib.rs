#![doc = include_str!("../README.md")]

mod lines;
mod stack;

pub use lines::{string_line, unicode_line};
pub use stack::{Stack, StackError, little_endian};

use std::{
    io::{self, BufRead, ErrorKind, Read},
    ops::Range,
};

/// Longest line, in bytes. A number in text can be long; nothing sensible is longer than this.
const LONGEST_LINE: u64 = 1 << 20;

/// One instruction of a pickle, of any protocol up to 5.
///
/// Instructions that differ only in the width of their operand are one variant. Those of protocol 5
/// that refer to buffers outside the pickle are not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Instruction {
    /// `STOP`: the top of the stack is the result.
    Stop,
    /// `PROTO`: the protocol version.
    Proto(u8),
    /// `FRAME`: this many bytes belong together.
    Frame(u64),

    /// `MARK`: remember the height of the stack.
    Mark,
    /// `POP`: discard the top.
    Pop,
    /// `POP_MARK`: discard everything down to the mark.
    PopMark,
    /// `DUP`: push the top again.
    Dup,

    /// `NONE`.
    None,
    /// `NEWTRUE`.
    True,
    /// `NEWFALSE`.
    False,
    /// `BININT`, `BININT1`, `BININT2`.
    Int(i32),
    /// `LONG1`, `LONG4`: a number in two's complement, lowest byte first.
    Long(Payload),
    /// `BINFLOAT`: the bits of the number.
    Float(u64),
    /// `INT`, `LONG`, `FLOAT`: a number in decimal text.
    NumberLine(String),

    /// `SHORT_BINSTRING`, `BINSTRING`, `SHORT_BINBYTES`, `BINBYTES`, `BINBYTES8`, `BYTEARRAY8`.
    Bytes(Payload),
    /// `SHORT_BINUNICODE`, `BINUNICODE`, `BINUNICODE8`: text in UTF-8, not checked.
    Text(Payload),
    /// `STRING`, `UNICODE`: quoted or escaped text up to the end of the line, as written.
    TextLine(String),
    /// `STRING`, `UNICODE`, where [`text_in_place`](Instructions::text_in_place) asks for it: the line without its end, for
    /// [`string_line`] and [`unicode_line`].
    TextPlace(Payload),

    /// `EMPTY_LIST`.
    EmptyList,
    /// `APPEND`: the top to the list below it.
    Append,
    /// `APPENDS`: everything down to the mark to the list below it.
    Appends,
    /// `LIST`: of everything down to the mark.
    List,
    /// `EMPTY_TUPLE`, `TUPLE1`, `TUPLE2`, `TUPLE3`: of this many values.
    TupleOf(usize),
    /// `TUPLE`: of everything down to the mark.
    Tuple,
    /// `EMPTY_DICT`.
    EmptyDict,
    /// `SETITEM`: a key and a value into the dictionary below them.
    SetItem,
    /// `SETITEMS`: keys and values down to the mark into the dictionary below them.
    SetItems,
    /// `DICT`: of keys and values down to the mark.
    Dict,
    /// `EMPTY_SET`.
    EmptySet,
    /// `ADDITEMS`: everything down to the mark into the set below it.
    AddItems,
    /// `FROZENSET`: of everything down to the mark.
    FrozenSet,

    /// `PUT`, `BINPUT`, `LONG_BINPUT`: remember the top under this number.
    Put(u64),
    /// `MEMOIZE`: remember the top under the next free number.
    Memoize,
    /// `GET`, `BINGET`, `LONG_BINGET`: push what is remembered under this number.
    Get(u64),

    /// `GLOBAL`: import a class or function.
    Global {
        /// Its module.
        module: String,
        /// Its name in there.
        name: String,
    },
    /// `STACK_GLOBAL`: import the class or function that the top two strings name.
    StackGlobal,
    /// `EXT1`, `EXT2`, `EXT4`: import a class or function by its number in a registry.
    Extension(u32),
    /// `REDUCE`: call a function.
    Reduce,
    /// `BUILD`: set the state of an object.
    Build,
    /// `INST`: import a class and make an object of it.
    Inst {
        /// The module of the class.
        module: String,
        /// Its name in there.
        name: String,
    },
    /// `OBJ`: make an object of a class, with everything down to the mark as arguments.
    Obj,
    /// `NEWOBJ`, `NEWOBJ_EX`: make an object of a class.
    NewObj,
    /// `PERSID`: refer to an object outside the pickle by this line.
    PersistentLine(String),
    /// `BINPERSID`: refer to an object outside the pickle by the top of the stack.
    Persistent,
}

/// The bytes that follow an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Where they are, counted from where reading began.
    pub range: Range<u64>,
    /// The bytes themselves, if there are at most as many as are to be
    /// [kept](Instructions::keep).
    pub kept: Option<Vec<u8>>,
}

impl Payload {
    /// Where they are in memory, for a pickle that is read from there.
    #[must_use]
    pub fn place(&self) -> Range<usize> {
        self.range.start as usize..self.range.end as usize
    }
}

/// An instruction and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Of its first byte, counted from where reading began.
    pub offset: u64,
    /// Its first byte.
    pub opcode: u8,
    /// The instruction.
    pub instruction: Instruction,
}

/// Why a pickle cannot be read further.
#[derive(Debug, thiserror::Error)]
#[error("byte {offset}: {problem}")]
pub struct PickleError {
    /// Of the instruction that cannot be read, counted from where reading began.
    pub offset: u64,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an instruction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No instruction begins with this byte.
    #[error("unknown instruction {opcode:#04x}")]
    Unknown {
        /// The byte.
        opcode: u8,
    },
    /// The input ends before the instruction does.
    #[error("the file ends within an instruction")]
    Truncated,
    /// The input ends before the line does that belongs to the instruction.
    #[error("the file ends within a line")]
    TruncatedLine,
    /// A line is longer than any that makes sense.
    #[error("a line of more than {LONGEST_LINE} bytes")]
    LongLine,
    /// The number of a remembered value is not a number.
    #[error("`{found}` is not an index into the memo")]
    MemoIndex {
        /// What is there instead.
        found: String,
    },
    /// The input could not be read.
    #[error("{0}")]
    Read(#[source] io::Error),
}

/// Reads instructions from `R` in order, never past the end of the last one.
///
/// Memory is bounded: lines have at most one MiB unless they are [left in place](Self::text_in_place), and of longer
/// operands only the [place](Payload::range) is returned.
#[derive(Debug)]
pub struct Instructions<R> {
    input: R,
    offset: u64,
    keep: u64,
    text_in_place: bool,
}

impl<R: BufRead> Instructions<R> {
    /// The instructions of the pickle that `input` begins with.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, keep: 0, text_in_place: false }
    }

    /// Returns operands of up to `bytes` bytes with their contents; the default is none.
    #[must_use]
    pub fn keep(mut self, bytes: u64) -> Self {
        self.keep = bytes;
        self
    }

    /// Returns lines of text as [`Instruction::TextPlace`], byte for byte and however long: in protocol 0, whole arrays are
    /// such lines.
    #[must_use]
    pub fn text_in_place(mut self) -> Self {
        self.text_in_place = true;
        self
    }

    /// Number of bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next instruction. After [`Instruction::Stop`], the input is where the pickle ends.
    ///
    /// # Errors
    /// When the input ends or cannot be read, or there is no instruction of this kind.
    pub fn read(&mut self) -> Result<Located, PickleError> {
        let offset = self.offset;
        let mut read = || {
            let [opcode] = self.bytes()?;
            Ok(Located { offset, opcode, instruction: self.operand(opcode)? })
        };
        read().map_err(|problem| PickleError { offset, problem })
    }

    /// The instruction that begins with `opcode`.
    fn operand(&mut self, opcode: u8) -> Result<Instruction, Problem> {
        use Instruction as I;
        Ok(match opcode {
            b'.' => I::Stop,
            0x80 => I::Proto(self.number::<1>()? as u8),
            0x95 => I::Frame(self.number::<8>()?),

            b'(' => I::Mark,
            b'0' => I::Pop,
            b'1' => I::PopMark,
            b'2' => I::Dup,

            b'N' => I::None,
            0x88 => I::True,
            0x89 => I::False,
            b'J' => I::Int(i32::from_le_bytes(self.bytes()?)),
            b'K' => I::Int(u8::from_le_bytes(self.bytes()?).into()),
            b'M' => I::Int(u16::from_le_bytes(self.bytes()?).into()),
            0x8a => I::Long(self.payload::<1>()?),
            0x8b => I::Long(self.payload::<4>()?),
            b'G' => I::Float(u64::from_be_bytes(self.bytes()?)),
            b'I' | b'L' | b'F' => I::NumberLine(self.line()?),

            b'U' | b'C' => I::Bytes(self.payload::<1>()?),
            b'T' | b'B' => I::Bytes(self.payload::<4>()?),
            0x8e | 0x96 => I::Bytes(self.payload::<8>()?),
            0x8c => I::Text(self.payload::<1>()?),
            b'X' => I::Text(self.payload::<4>()?),
            0x8d => I::Text(self.payload::<8>()?),
            b'S' | b'V' if self.text_in_place => I::TextPlace(self.line_payload()?),
            b'S' | b'V' => I::TextLine(self.line()?),

            b']' => I::EmptyList,
            b'a' => I::Append,
            b'e' => I::Appends,
            b'l' => I::List,
            b')' => I::TupleOf(0),
            0x85..=0x87 => I::TupleOf(usize::from(opcode - 0x84)),
            b't' => I::Tuple,
            b'}' => I::EmptyDict,
            b's' => I::SetItem,
            b'u' => I::SetItems,
            b'd' => I::Dict,
            0x8f => I::EmptySet,
            0x90 => I::AddItems,
            0x91 => I::FrozenSet,

            b'p' => I::Put(self.line_index()?),
            b'q' => I::Put(self.number::<1>()?),
            b'r' => I::Put(self.number::<4>()?),
            0x94 => I::Memoize,
            b'g' => I::Get(self.line_index()?),
            b'h' => I::Get(self.number::<1>()?),
            b'j' => I::Get(self.number::<4>()?),

            b'c' => I::Global { module: self.line()?, name: self.line()? },
            0x93 => I::StackGlobal,
            0x82 => I::Extension(self.number::<1>()? as u32),
            0x83 => I::Extension(self.number::<2>()? as u32),
            0x84 => I::Extension(self.number::<4>()? as u32),
            b'R' => I::Reduce,
            b'b' => I::Build,
            b'i' => I::Inst { module: self.line()?, name: self.line()? },
            b'o' => I::Obj,
            0x81 | 0x92 => I::NewObj,
            b'P' => I::PersistentLine(self.line()?),
            b'Q' => I::Persistent,

            _ => return Err(Problem::Unknown { opcode }),
        })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(cut)?;
        self.offset += N as u64;
        Ok(bytes)
    }

    /// An unsigned number of `N` bytes, lowest first.
    fn number<const N: usize>(&mut self) -> Result<u64, Problem> {
        let bytes = self.bytes::<N>()?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A length of `N` bytes and as many bytes as it says.
    fn payload<const N: usize>(&mut self) -> Result<Payload, Problem> {
        let length = self.number::<N>()?;
        let range = self.offset..self.offset.checked_add(length).ok_or(Problem::Truncated)?;
        let mut input = self.input.by_ref().take(length);
        let mut kept = None;
        let read = if length <= self.keep {
            input.read_to_end(kept.insert(Vec::new())).map(|read| read as u64)
        } else {
            io::copy(&mut input, &mut io::sink())
        };
        let read = read.map_err(cut)?;
        self.offset += read;
        if read == length { Ok(Payload { range, kept }) } else { Err(Problem::Truncated) }
    }

    /// A line without its end.
    fn line(&mut self) -> Result<String, Problem> {
        let mut line = Vec::new();
        self.input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(cut)?;
        self.offset += line.len() as u64;
        if line.pop_if(|&mut last| last == b'\n').is_none() {
            let long = line.len() as u64 == LONGEST_LINE;
            return Err(if long { Problem::LongLine } else { Problem::TruncatedLine });
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
    }

    /// A line of any length without its end.
    fn line_payload(&mut self) -> Result<Payload, Problem> {
        let start = self.offset;
        let mut kept = Some(Vec::new());
        loop {
            let buffer = match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                buffer => buffer.map_err(cut)?,
            };
            if buffer.is_empty() {
                return Err(Problem::TruncatedLine);
            }
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let stop = self.offset + part.len() as u64;
            kept = kept.filter(|_| stop - start <= self.keep);
            if let Some(kept) = &mut kept {
                kept.extend(part);
            }
            let read = part.len() + usize::from(end.is_some());
            self.input.consume(read);
            self.offset += read as u64;
            if end.is_some() {
                return Ok(Payload { range: start..stop, kept });
            }
        }
    }

    fn line_index(&mut self) -> Result<u64, Problem> {
        let line = self.line()?;
        line.parse().map_err(|_| Problem::MemoIndex { found: line })
    }
}

fn cut(error: io::Error) -> Problem {
    match error.kind() {
        ErrorKind::UnexpectedEof => Problem::Truncated,
        _ => Problem::Read(error),
    }
}
