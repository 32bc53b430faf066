//! The stack, the marks and the memo of the machine that a pickle is a program for.

use std::collections::HashMap;

use crate::Instruction;

/// What the instructions of a pickle work on: values of type `T`, usually indices of values that are kept elsewhere,
/// so that a reference to a value is no copy of it.
///
/// Memory is bounded: stack, marks and memo have a limit each, since every entry takes but a byte of a pickle.
#[derive(Debug)]
pub struct Stack<T> {
    values: Vec<T>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, T>,
    most: usize,
}

/// Why an instruction cannot work on a [`Stack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// There is no value above the last mark.
    #[error("the stack is empty")]
    Empty,
    /// There is no mark.
    #[error("no mark on the stack")]
    NoMark,
    /// Nothing is remembered under this number.
    #[error("the memo has no entry {0}")]
    NoEntry(u64),
    /// There are more entries than are allowed.
    #[error("more than {0} values")]
    Full(usize),
}

impl<T: Copy> Stack<T> {
    /// An empty stack of `most` values at most, with as many marks and remembered values.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { values: Vec::new(), marks: Vec::new(), memo: HashMap::new(), most }
    }

    /// Runs an instruction that concerns nothing but stack, marks and memo; `false` if it is another.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn run(&mut self, instruction: &Instruction) -> Result<bool, StackError> {
        match instruction {
            Instruction::Proto(_) | Instruction::Frame(_) => {}
            Instruction::Mark => {
                self.check(self.marks.len())?;
                self.marks.push(self.values.len());
            }
            // A mark is popped as if it were a value.
            Instruction::Pop => {
                if self.marks.pop_if(|mark| *mark == self.values.len()).is_none() {
                    self.pop()?;
                }
            }
            Instruction::PopMark => drop(self.pop_to_mark()?),
            Instruction::Dup => self.push(self.top()?)?,
            Instruction::Put(key) => self.put(*key)?,
            Instruction::Memoize => self.put(self.memo.len() as u64)?,
            Instruction::Get(key) => {
                let value = *self.memo.get(key).ok_or(StackError::NoEntry(*key))?;
                self.push(value)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Pushes a value.
    ///
    /// # Errors
    /// [`StackError::Full`].
    pub fn push(&mut self, value: T) -> Result<(), StackError> {
        self.check(self.values.len())?;
        self.values.push(value);
        Ok(())
    }

    /// The value on top.
    ///
    /// # Errors
    /// [`StackError::Empty`].
    pub fn top(&self) -> Result<T, StackError> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        let top = self.values.get(bottom..).and_then(<[T]>::last);
        top.copied().ok_or(StackError::Empty)
    }

    /// Takes the value on top.
    ///
    /// # Errors
    /// [`StackError::Empty`].
    pub fn pop(&mut self) -> Result<T, StackError> {
        let top = self.top()?;
        self.values.pop();
        Ok(top)
    }

    /// Takes the `count` values on top, the lowest first.
    ///
    /// # Errors
    /// [`StackError::Empty`] if there are fewer above the last mark.
    pub fn pop_many(&mut self, count: usize) -> Result<Vec<T>, StackError> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        let start = self.values.len().checked_sub(count).filter(|start| *start >= bottom);
        Ok(self.values.split_off(start.ok_or(StackError::Empty)?))
    }

    /// Takes the values above the last mark, the lowest first, and the mark.
    ///
    /// # Errors
    /// [`StackError::NoMark`].
    pub fn pop_to_mark(&mut self) -> Result<Vec<T>, StackError> {
        // No value below a mark is ever popped.
        let mark = self.marks.pop().ok_or(StackError::NoMark)?;
        Ok(self.values.split_off(mark))
    }

    fn put(&mut self, key: u64) -> Result<(), StackError> {
        let top = self.top()?;
        self.check(self.memo.len())?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn check(&self, entries: usize) -> Result<(), StackError> {
        if entries < self.most { Ok(()) } else { Err(StackError::Full(self.most)) }
    }
}

/// The number that `bytes` are in two's complement, lowest byte first, as the operand of
/// [`Instruction::Long`] is; `None` if it has more than 64 bits.
#[must_use]
pub fn little_endian(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let sign = if bytes.last().is_some_and(|&byte| byte > 127) { 0xff } else { 0 };
    let mut whole = [sign; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use Instruction as I;

    use super::*;

    fn stack(values: &[u8]) -> Stack<u8> {
        let mut stack = Stack::new(8);
        values.iter().for_each(|&value| stack.push(value).unwrap());
        stack
    }

    #[test]
    fn marks_hide_what_is_below_them() {
        let mut stack = stack(&[1, 2]);
        for value in [3, 4] {
            assert_eq!(stack.run(&I::Mark), Ok(true));
            assert_eq!(stack.top(), Err(StackError::Empty));
            assert_eq!(stack.pop_many(1), Err(StackError::Empty));
            assert_eq!(stack.run(&I::Dup), Err(StackError::Empty));
            stack.push(value).unwrap();
            stack.push(9).unwrap();
        }
        assert_eq!(stack.pop_many(3), Err(StackError::Empty));
        assert_eq!(stack.pop_to_mark(), Ok(vec![4, 9]));
        assert_eq!(stack.run(&I::PopMark), Ok(true));
        assert_eq!(stack.pop_to_mark(), Err(StackError::NoMark));
        // A mark without values above it is popped like a value.
        stack.run(&I::Mark).unwrap();
        stack.run(&I::Pop).unwrap();
        assert_eq!(stack.pop_many(2), Ok(vec![1, 2]));
        assert_eq!(stack.run(&I::Pop), Err(StackError::Empty));
    }

    #[test]
    fn what_is_remembered_comes_back() {
        let mut stack = stack(&[7]);
        stack.run(&I::Put(5)).unwrap();
        stack.push(8).unwrap();
        stack.run(&I::Memoize).unwrap();
        for (key, value) in [(5, 7), (1, 8)] {
            stack.run(&I::Get(key)).unwrap();
            assert_eq!(stack.pop(), Ok(value));
        }
        assert_eq!(stack.run(&I::Get(2)), Err(StackError::NoEntry(2)));
        assert_eq!(stack.run(&I::None), Ok(false));
    }

    #[test]
    fn every_part_has_a_limit() {
        let full = Err(StackError::Full(8));
        let mut values = stack(&[1; 8]);
        assert_eq!(values.push(1), Err(StackError::Full(8)));
        assert_eq!(values.run(&I::Dup), full);
        let mut marks = stack(&[]);
        (0..8).for_each(|_| assert_eq!(marks.run(&I::Mark), Ok(true)));
        assert_eq!(marks.run(&I::Mark), full);
        let mut memo = stack(&[1]);
        (0..8).for_each(|_| assert_eq!(memo.run(&I::Memoize), Ok(true)));
        assert_eq!(memo.run(&I::Memoize), full);
    }

    #[test]
    fn numbers_of_any_length_have_a_sign() {
        let check =
            |bytes: &[u8], expected| assert_eq!(little_endian(bytes), expected, "{bytes:?}");
        check(&[], Some(0));
        check(&[255], Some(-1));
        check(&[0, 1], Some(256));
        check(&[0xff, 0x00], Some(255));
        check(&[1; 8], Some(0x0101_0101_0101_0101));
        check(&[1; 9], None);
    }
}
