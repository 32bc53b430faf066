//! Damage to valid files.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Bytes at the edges of signed and unsigned numbers, and those that open, end and separate things in text.
const BYTES: [u8; 16] = *b"\x00\x01\x7f\x80\xff\xfe\n\r\t,;.\"{[(";
/// Numbers at the edges of types.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    u64::MAX / 2,
    u64::MAX - 7,
    u64::MAX,
];
/// Numbers in text.
const DECIMALS: [&str; 12] = [
    "0",
    "-1",
    "1e308",
    "-1e-320",
    "1e999",
    "NaN",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "1000000000000",
    "0.5",
    "null",
];

/// One of `seeds` with one change in half of the cases, two in a quarter and so on. JSON mostly stays JSON, for any other
/// change only reaches its parser.
pub fn mutated(seeds: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seeds.choose(random).cloned().unwrap_or_default();
    let changes = 1 + random.random::<u8>().trailing_zeros();
    if random.random_range(0..4) > 0
        && let Ok(mut value) = serde_json::from_slice(&bytes)
        && let Value::Object(_) = value
    {
        (0..changes).for_each(|_| change_value(&mut value, random));
        return value.to_string().into_bytes();
    }
    (0..changes).for_each(|_| change(&mut bytes, seeds, random));
    bytes
}

/// Another value in a random place of the tree; a list or an object may lose or repeat an element instead.
fn change_value(value: &mut Value, random: &mut ChaCha8Rng) {
    let deeper = random.random_range(0..8) > 0;
    match value {
        Value::Object(object) if deeper && !object.is_empty() => {
            let at = random.random_range(0..object.len());
            let Some(key) = object.keys().nth(at).cloned() else { return };
            if random.random_range(0..24) == 0 {
                drop(object.remove(&key));
            } else if let Some(value) = object.get_mut(&key) {
                change_value(value, random);
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = random.random_range(0..list.len());
            match random.random_range(0..24) {
                0 => drop(list.remove(at)),
                1 => list.insert(at, list[at].clone()),
                _ => change_value(&mut list[at], random),
            }
        }
        _ => *value = other_value(value, random),
    }
}

/// Mostly of the same type, at the edges of what a type can hold.
fn other_value(value: &Value, random: &mut ChaCha8Rng) -> Value {
    if value.is_number() && random.random_range(0..4) > 0 {
        let number = *NUMBERS.choose(random).unwrap_or(&0);
        return match random.random_range(0..3) {
            0 => json!(number),
            1 => json!(-(number as f64)),
            _ => json!(*[0.5, -1.0, 1e308, 1e-320, f64::EPSILON].choose(random).unwrap_or(&0.0)),
        };
    }
    let all = [
        json!(null),
        json!(true),
        json!(0),
        json!(u64::MAX),
        json!(-1),
        json!(""),
        json!("2-2-3-2"),
        json!("NaN"),
        json!([]),
        json!([[[[0]]]]),
        json!({}),
    ];
    all.choose(random).cloned().unwrap_or_default()
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut ChaCha8Rng) {
    if bytes.is_empty() {
        bytes.push(random.random());
        return;
    }
    // Headers come first, so half of the changes are near the start.
    let end = if random.random() { bytes.len() } else { bytes.len().min(128) };
    let at = random.random_range(0..end);
    let length = random.random_range(1..=(bytes.len() - at).min(64));
    match random.random_range(0..9) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = *BYTES.choose(random).unwrap_or(&0),
        2 => number(&mut bytes[at..], random),
        3 => decimal(bytes, at, random),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..at + length)),
        6 => {
            let piece = bytes[at..at + length].repeat(random.random_range(1..4));
            drop(bytes.splice(at..at, piece));
        }
        7 => {
            let other = seeds.choose(random).map_or(&[][..], Vec::as_slice);
            let start = random.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend(&other[start..]);
        }
        _ => bytes[at..at + length].iter_mut().for_each(|byte| *byte = random.random()),
    }
}

/// A length or an offset becomes another, in one of four widths and in either order.
fn number(bytes: &mut [u8], random: &mut ChaCha8Rng) {
    let width = [1, 2, 4, 8][random.random_range(0..4)];
    let Some(field) = bytes.get_mut(..width) else { return };
    let number = NUMBERS.choose(random).unwrap_or(&0).to_le_bytes();
    field.copy_from_slice(&number[..width]);
    if random.random() {
        field.reverse();
    }
}

/// The first number in the text from `at` on becomes another.
fn decimal(bytes: &mut Vec<u8>, at: usize, random: &mut ChaCha8Rng) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit) else { return };
    let start = at + start;
    let number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let length = bytes[start..].iter().take_while(|byte| number(byte)).count();
    let other = DECIMALS.choose(random).unwrap_or(&"0");
    drop(bytes.splice(start..start + length, other.bytes()));
}
