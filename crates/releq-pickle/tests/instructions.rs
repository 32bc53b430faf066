//! What the reader returns, and that no input makes it panic or allocate without bound.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::io::{self, BufRead, BufReader, Read};

use proptest::prelude::*;
use releq_pickle::{Instruction as I, Instructions, Payload, PickleError, Problem};

/// All instructions up to `STOP`, and the number of bytes read.
fn read(input: impl BufRead, keep: u64) -> (Vec<(u64, I)>, Result<u64, PickleError>) {
    let mut instructions = Instructions::new(input).keep(keep);
    let mut found = Vec::new();
    loop {
        match instructions.read() {
            Ok(located) => found.push((located.offset, located.instruction)),
            Err(error) => return (found, Err(error)),
        }
        if found.last().unwrap().1 == I::Stop {
            return (found, Ok(instructions.offset()));
        }
    }
}

#[test]
fn every_instruction_is_read_with_its_operand_and_place() {
    let payload = |start: u64, bytes: &[u8]| Payload {
        range: start..start + bytes.len() as u64,
        kept: (bytes.len() < 3).then(|| bytes.to_vec()),
    };
    let line = |text: &str| text.to_owned();
    let names = |module: &str, name: &str| (line(module), line(name));
    let (module, name) = names("os", "system");
    // The operand of each is at most 2 bytes where it is to be kept.
    let cases: Vec<(&[u8], I)> = vec![
        (b"\x80\x05", I::Proto(5)),
        (b"\x95\x01\x00\x00\x00\x00\x00\x00\x80", I::Frame(1 << 63 | 1)),
        (b"(", I::Mark),
        (b"0", I::Pop),
        (b"1", I::PopMark),
        (b"2", I::Dup),
        (b"N", I::None),
        (b"\x88", I::True),
        (b"\x89", I::False),
        (b"J\xfe\xff\xff\xff", I::Int(-2)),
        (b"K\xff", I::Int(255)),
        (b"M\xff\xff", I::Int(65535)),
        (b"\x8a\x02\x01\xff", I::Long(payload(2, b"\x01\xff"))),
        (b"\x8b\x03\x00\x00\x00abc", I::Long(payload(5, b"abc"))),
        (b"G\x3f\xf0\x00\x00\x00\x00\x00\x00", I::Float(1f64.to_bits())),
        (b"I12\n", I::NumberLine(line("12"))),
        (b"L12L\r\n", I::NumberLine(line("12L"))),
        (b"F1.5\n", I::NumberLine(line("1.5"))),
        (b"U\x01x", I::Bytes(payload(2, b"x"))),
        (b"C\x00", I::Bytes(payload(2, b""))),
        (b"T\x01\x00\x00\x00x", I::Bytes(payload(5, b"x"))),
        (b"B\x04\x00\x00\x00abcd", I::Bytes(payload(5, b"abcd"))),
        (b"\x8e\x01\x00\x00\x00\x00\x00\x00\x00x", I::Bytes(payload(9, b"x"))),
        (b"\x96\x01\x00\x00\x00\x00\x00\x00\x00x", I::Bytes(payload(9, b"x"))),
        (b"\x8c\x02\xc3\xa9", I::Text(payload(2, "é".as_bytes()))),
        (b"X\x01\x00\x00\x00x", I::Text(payload(5, b"x"))),
        (b"\x8d\x01\x00\x00\x00\x00\x00\x00\x00x", I::Text(payload(9, b"x"))),
        (b"S'x'\n", I::TextLine(line("'x'"))),
        (b"Vx\n", I::TextLine(line("x"))),
        (b"]", I::EmptyList),
        (b"a", I::Append),
        (b"e", I::Appends),
        (b"l", I::List),
        (b")", I::TupleOf(0)),
        (b"\x85", I::TupleOf(1)),
        (b"\x86", I::TupleOf(2)),
        (b"\x87", I::TupleOf(3)),
        (b"t", I::Tuple),
        (b"}", I::EmptyDict),
        (b"s", I::SetItem),
        (b"u", I::SetItems),
        (b"d", I::Dict),
        (b"\x8f", I::EmptySet),
        (b"\x90", I::AddItems),
        (b"\x91", I::FrozenSet),
        (b"p300\n", I::Put(300)),
        (b"q\xff", I::Put(255)),
        (b"r\x00\x01\x00\x00", I::Put(256)),
        (b"\x94", I::Memoize),
        (b"g300\n", I::Get(300)),
        (b"h\xff", I::Get(255)),
        (b"j\x00\x01\x00\x00", I::Get(256)),
        (b"cos\nsystem\n", I::Global { module: module.clone(), name: name.clone() }),
        (b"\x93", I::StackGlobal),
        (b"\x82\x07", I::Extension(7)),
        (b"\x83\x00\x01", I::Extension(256)),
        (b"\x84\xff\xff\xff\xff", I::Extension(u32::MAX)),
        (b"R", I::Reduce),
        (b"b", I::Build),
        (b"ios\nsystem\n", I::Inst { module, name }),
        (b"o", I::Obj),
        (b"\x81", I::NewObj),
        (b"\x92", I::NewObj),
        (b"Pkey\n", I::PersistentLine(line("key"))),
        (b"Q", I::Persistent),
    ];
    for (bytes, expected) in &cases {
        // What follows the end of a pickle is left alone.
        let pickle = [bytes, &b".rest"[..]].concat();
        let mut input = &pickle[..];
        let (found, end) = read(&mut input, 2);
        let stop = bytes.len() as u64;
        assert_eq!(found, [(0, expected.clone()), (stop, I::Stop)]);
        assert_eq!((end.unwrap(), input), (stop + 1, &b"rest"[..]));
        // A pickle that is cut within the instruction is an error that names it.
        for length in 0..bytes.len() {
            let error = read(&bytes[..length], 2).1.unwrap_err();
            let cut = matches!(error.problem, Problem::Truncated | Problem::TruncatedLine);
            assert!(cut && error.offset == 0, "{error}");
        }
    }
    // Every other byte is refused.
    for opcode in 0..=255 {
        let known = opcode == b'.' || cases.iter().any(|(bytes, _)| bytes[0] == opcode);
        let found = Instructions::new(&[opcode][..]).read();
        let unknown = matches!(
            found,
            Err(PickleError { problem: Problem::Unknown { opcode: found }, .. }) if found == opcode
        );
        assert_eq!(known, !unknown, "{opcode:#04x}");
    }
}

#[test]
fn lines_of_text_stay_in_place_however_long_where_that_is_asked_for() {
    // More than a line may have that is returned as text, and no UTF-8.
    let long = vec![0xc8; (1 << 20) + 1];
    let pickle = [b"V", &long[..], b"\nS'\xff'\nVx\r\n."].concat();
    for buffer in [1, 8 << 10] {
        let input = BufReader::with_capacity(buffer, &pickle[..]);
        let mut instructions = Instructions::new(input).keep(3).text_in_place();
        let mut next = || instructions.read().unwrap().instruction;
        let end = long.len() as u64 + 1;
        assert_eq!(next(), I::TextPlace(Payload { range: 1..end, kept: None }));
        let kept = Some(b"'\xff'".to_vec());
        assert_eq!(next(), I::TextPlace(Payload { range: end + 2..end + 5, kept }));
        let kept = Some(b"x\r".to_vec());
        assert_eq!(next(), I::TextPlace(Payload { range: end + 7..end + 9, kept }));
        assert_eq!(next(), I::Stop);
    }
    let error = Instructions::new(&b"Vabc"[..]).text_in_place().read().unwrap_err();
    assert_eq!(error.to_string(), "byte 0: the file ends within a line");
}

#[test]
fn every_problem_is_named_with_its_place() {
    let message = |bytes: &[u8]| read(bytes, 256).1.unwrap_err().to_string();
    assert_eq!(message(b"N"), "byte 1: the file ends within an instruction");
    assert_eq!(message(b"NX\xff\xff\xff\xffabc"), "byte 1: the file ends within an instruction");
    assert_eq!(message(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff"), message(b""));
    assert_eq!(message(b"NNcnumpy"), "byte 2: the file ends within a line");
    assert_eq!(message(b"N\xff"), "byte 1: unknown instruction 0xff");
    assert_eq!(message(b"p-1\n"), "byte 0: `-1` is not an index into the memo");
    let long = [&b"I"[..], &vec![b'1'; 1 << 20], b"\n"].concat();
    assert_eq!(message(&long), "byte 0: a line of more than 1048576 bytes");

    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let error = read(BufReader::new(b"N".chain(Failing)), 0).1.unwrap_err();
    assert_eq!(error.to_string(), "byte 1: the disk is gone");
}

proptest! {
    #[test]
    fn no_input_panics_or_keeps_more_than_asked_for(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        keep in 0_u64..300,
        buffer in 1_usize..9,
    ) {
        let (found, end) = read(&bytes[..], keep);
        for (_, instruction) in &found {
            if let I::Bytes(payload) | I::Text(payload) | I::Long(payload) = instruction {
                let length = payload.range.end - payload.range.start;
                prop_assert_eq!(payload.kept.is_some(), length <= keep);
                let place = &bytes[payload.range.start as usize..payload.range.end as usize];
                prop_assert!(payload.kept.as_ref().is_none_or(|kept| kept == place));
            }
        }
        // The same in whatever pieces it comes.
        let (pieces, piece_end) = read(BufReader::with_capacity(buffer, &bytes[..]), keep);
        prop_assert_eq!(found, pieces);
        prop_assert_eq!(end.ok(), piece_end.ok());
    }
}
