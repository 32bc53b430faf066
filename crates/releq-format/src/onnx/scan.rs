//! A look at a file before it is decoded.
//!
//! Two bytes of a file can be an empty message, of which the decoded form takes hundreds. So messages are counted first,
//! by their headers alone, and no more are decoded than the largest models have.

use prost::encoding::{WireType, decode_key, decode_varint};

use super::OnnxError;

/// Most messages in a file: nodes, attributes, tensors, shapes and names of theirs. A DenseNet has 3,000.
const MOST: usize = 200_000;

/// Messages by the fields in which they are, with those inside them.
struct Kind(&'static [(u32, Kind)]);

const TEXT: Kind = Kind(&[]);
const TENSOR: Kind = Kind(&[(13, Kind(&[(1, TEXT), (2, TEXT)]))]);
const ATTRIBUTE: Kind = Kind(&[(1, TEXT), (5, TENSOR)]);
const NODE: Kind = Kind(&[(1, TEXT), (2, TEXT), (5, ATTRIBUTE)]);
const SHAPE: Kind = Kind(&[(1, Kind(&[(2, TEXT)]))]);
const VALUE: Kind = Kind(&[(2, Kind(&[(1, Kind(&[(2, SHAPE)]))]))]);
const GRAPH: Kind = Kind(&[(1, NODE), (5, TENSOR), (11, VALUE), (12, VALUE)]);
const MODEL: Kind =
    Kind(&[(7, GRAPH), (8, Kind(&[(1, TEXT)])), (14, Kind(&[(1, TEXT), (2, TEXT)]))]);

/// Refuses a file with more messages than a model has. What is damaged otherwise is left to the decoder.
pub(super) fn check(bytes: &[u8]) -> Result<(), OnnxError> {
    let mut count = 0;
    count_in(bytes, &MODEL, &mut count);
    match count > MOST {
        true => Err(OnnxError::Format { reason: format!("it has more than {MOST} parts") }),
        false => Ok(()),
    }
}

/// Counts the messages of a kind that are known in `bytes`, until something is no message or there are too many.
fn count_in(mut bytes: &[u8], kind: &Kind, count: &mut usize) -> Option<()> {
    while !bytes.is_empty() && *count <= MOST {
        let (field, wire) = decode_key(&mut bytes).ok()?;
        match wire {
            WireType::Varint => {
                decode_varint(&mut bytes).ok()?;
            }
            WireType::ThirtyTwoBit => bytes = bytes.get(4..)?,
            WireType::SixtyFourBit => bytes = bytes.get(8..)?,
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let (inside, rest) = bytes.split_at_checked(length)?;
                if let Some((_, kind)) = kind.0.iter().find(|(known, _)| *known == field) {
                    *count += 1;
                    count_in(inside, kind, count);
                }
                bytes = rest;
            }
            WireType::StartGroup | WireType::EndGroup => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_where_they_are_decoded() {
        let field = |number: u8, inside: &[u8]| {
            let mut bytes = vec![number << 3 | 2];
            prost::encoding::encode_varint(inside.len() as u64, &mut bytes);
            bytes.extend(inside);
            bytes
        };
        let count = |bytes: &[u8]| {
            let mut count = 0;
            count_in(bytes, &MODEL, &mut count);
            count
        };
        let node = field(1, &[field(1, b"x"), field(5, &field(1, b"axis"))].concat());
        // The graph, its node, the node's input, its attribute and that one's name.
        assert_eq!(count(&field(7, &node)), 5);
        // Weights are no messages, whatever their bytes are.
        let weights = field(9, &[10, 0].repeat(1000));
        assert_eq!(count(&field(7, &field(5, &weights))), 2);
        let many = field(7, &[10, 0].repeat(MOST + 1));
        assert!(check(&many).unwrap_err().to_string().contains("more than 200000 parts"));
        assert!(check(&field(7, &[10, 0].repeat(MOST / 2))).is_ok());
        assert!(check(&many[..100]).is_ok());
    }
}
