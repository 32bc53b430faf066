//! How much memory the prefix codes of a lossless WebP image take.
//!
//! The header does not say. One byte of a file can ask for 500 bytes of tables, and the decoder has no limit for
//! them: 3.8 MB would take 1.3 GB. So the number of codes is read before the image is decoded, up to where it stands.
//!
//! # Source
//! [Lossless bitstream specification](https://developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification),
//! sections 4 to 6.

/// Codes that a group has: for green, lengths and the cache, red, blue, alpha, distances.
const ALPHABETS: [usize; 5] = [256 + 24, 256, 256, 256, 40];
/// Most entries of a cache of colours.
const CACHE: usize = 1 << 11;
/// Bytes of the tables of one group at most: 1024 entries of four bytes for each code, and two nodes of 16 bytes for
/// each symbol whose code is longer.
const GROUP: u64 = 5 * (4096 + 64) + 32 * (256 + 24 + CACHE as u64 + 3 * 256 + 40);
/// Most bytes of tables for each byte of a file, whatever it says: 2048 symbols of eleven bits take 70 KB and are
/// written in 138 bytes.
const PER_BYTE: u64 = 512;

/// The order in which the lengths of the code of code lengths are written.
const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Bytes that the prefix codes of a WebP file take at most, which has images of this width and height.
pub(super) fn prefix_codes(file: &[u8], width: u32, height: u32) -> u64 {
    let lossless = |name: &[u8]| name == b"VP8L" || name == b"ALPH";
    let most = PER_BYTE * file.len() as u64;
    let (mut groups, mut visited) = (0, 0);
    let mut rest = file.get(12..).unwrap_or_default();
    while let Some((name, [a, b, c, d, chunk @ ..])) = rest.split_at_checked(4) {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let contents = &chunk[..length.min(chunk.len())];
        visited += usize::from(lossless(name));
        let counted = match (name, contents) {
            (b"VP8L", [_, _, _, _, _, stream @ ..]) => Bits::new(stream).groups(width, height),
            // Transparency in a stream of its own, without a header.
            (b"ALPH", [info, stream @ ..]) if info & 3 == 1 => {
                Bits::new(stream).groups(width, height)
            }
            // The images of an animation have sizes of their own.
            (b"ANMF", _) => return most,
            _ => Some(0),
        };
        // Where this cannot be read, the decoder fails as well, before it comes to the codes of the image.
        groups += counted.unwrap_or(0);
        rest = chunk.get(length.saturating_add(length % 2)..).unwrap_or_default();
    }
    // In no chunk that was visited, but perhaps somewhere.
    if file.windows(4).filter(|name| lossless(name)).count() != visited {
        return most;
    }
    (groups * GROUP).min(most)
}

/// Bits of a file, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    next: usize,
}

/// A prefix code.
enum Code {
    /// Of one symbol, which takes no bits.
    Single(usize),
    /// Of the number of codes of each length, and the symbols in the order of their codes.
    Many([usize; 16], Vec<usize>),
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }

    fn read(&mut self, count: usize) -> Option<usize> {
        let bit = |place: usize| Some(usize::from(self.bytes.get(place / 8)? >> (place % 8) & 1));
        let mut value = 0;
        for index in 0..count {
            value |= bit(self.next + index)? << index;
        }
        self.next += count;
        Some(value)
    }

    /// The number of groups of prefix codes of a stream, from its transforms on.
    fn groups(mut self, width: u32, height: u32) -> Option<u64> {
        let blocks = |size: usize, bits: usize| size.div_ceil(1 << bits);
        let (mut width, height) = (width as usize, height as usize);
        while self.read(1)? == 1 {
            match self.read(2)? {
                // Predictors, and transforms of colours: one value for each block.
                0 | 1 => {
                    let bits = self.read(3)? + 2;
                    self.image(blocks(width, bits) * blocks(height, bits))?;
                }
                3 => {
                    let colours = self.read(8)? + 1;
                    self.image(colours)?;
                    // Of few colours, several pixels are one.
                    width = match colours {
                        0..=2 => blocks(width, 3),
                        3..=4 => blocks(width, 2),
                        5..=16 => blocks(width, 1),
                        _ => width,
                    };
                }
                _ => {}
            }
        }
        self.cache()?;
        if self.read(1)? == 0 {
            return Some(1);
        }
        let bits = self.read(3)? + 2;
        let largest = self.image(blocks(width, bits) * blocks(height, bits))?;
        Some(largest as u64 + 1)
    }

    /// Entries of the cache of colours.
    fn cache(&mut self) -> Option<usize> {
        if self.read(1)? == 0 {
            return Some(0);
        }
        let bits = self.read(4)?;
        (1..=11).contains(&bits).then_some(1 << bits)
    }

    /// Reads an image of `pixels` pixels that has one group of codes. Returns the largest number that red and green
    /// of a pixel make. Copies of pixels have no other than those that they are copies of.
    fn image(&mut self, pixels: usize) -> Option<usize> {
        let cache = self.cache()?;
        let mut code = |alphabet: usize| self.code(alphabet);
        let [green, red, blue, alpha, distance] = [
            code(ALPHABETS[0] + cache)?,
            code(ALPHABETS[1])?,
            code(ALPHABETS[2])?,
            code(ALPHABETS[3])?,
            code(ALPHABETS[4])?,
        ];
        let (mut largest, mut count) = (0, 0);
        while count < pixels {
            let symbol = self.symbol(&green)?;
            match symbol {
                0..256 => {
                    largest = largest.max(self.symbol(&red)? << 8 | symbol);
                    self.symbol(&blue)?;
                    self.symbol(&alpha)?;
                    count += 1;
                }
                256..280 => {
                    count += self.number(symbol - 256)?;
                    let distance = self.symbol(&distance)?;
                    self.number(distance)?;
                }
                _ => count += 1,
            }
        }
        Some(largest)
    }

    /// A length or a distance.
    fn number(&mut self, symbol: usize) -> Option<usize> {
        if symbol < 4 {
            return Some(symbol + 1);
        }
        let extra = (symbol - 2) >> 1;
        Some(((2 + (symbol & 1)) << extra) + self.read(extra)? + 1)
    }

    fn symbol(&mut self, code: &Code) -> Option<usize> {
        let (counts, symbols) = match code {
            Code::Single(symbol) => return Some(*symbol),
            Code::Many(counts, symbols) => (counts, symbols),
        };
        let (mut value, mut first, mut index) = (0, 0, 0);
        for count in &counts[1..] {
            value |= self.read(1)?;
            if value < first + count {
                return symbols.get(index + value - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        None
    }

    fn code(&mut self, alphabet: usize) -> Option<Code> {
        if self.read(1)? == 1 {
            let two = self.read(1)? == 1;
            let bits = if self.read(1)? == 1 { 8 } else { 1 };
            let first = self.read(bits)?;
            let symbols = if two { vec![first, self.read(8)?] } else { vec![first] };
            if symbols.iter().any(|&symbol| symbol >= alphabet) {
                return None;
            }
            let mut counts = [0; 16];
            counts[1] = 2;
            return Some(if two { Code::Many(counts, symbols) } else { Code::Single(first) });
        }
        let mut lengths = vec![0; ORDER.len()];
        let count = self.read(4)? + 4;
        for &place in ORDER.get(..count)? {
            lengths[place] = self.read(3)?;
        }
        let code = Code::new(&lengths)?;
        let mut most = alphabet;
        if self.read(1)? == 1 {
            let bits = 2 + 2 * self.read(3)?;
            most = 2 + self.read(bits)?;
        }
        let (mut lengths, mut before) = (Vec::with_capacity(alphabet), 8);
        while lengths.len() < alphabet && most > 0 {
            most -= 1;
            let (length, repeat) = match self.symbol(&code)? {
                16 => (before, 3 + self.read(2)?),
                17 => (0, 3 + self.read(3)?),
                18 => (0, 11 + self.read(7)?),
                length => (length, 1),
            };
            if length != 0 {
                before = length;
            }
            lengths.resize(lengths.len() + repeat, length);
        }
        (lengths.len() <= alphabet).then(|| Code::new(&lengths))?
    }
}

impl Code {
    /// The code with these lengths; `None` if there is none.
    fn new(lengths: &[usize]) -> Option<Self> {
        let used = || (0..lengths.len()).filter(|&symbol| lengths[symbol] > 0);
        if used().count() < 2 {
            return used().next().map(Self::Single);
        }
        let mut counts = [0; 16];
        used().for_each(|symbol| counts[lengths[symbol]] += 1);
        let mut symbols: Vec<usize> = used().collect();
        symbols.sort_by_key(|&symbol| lengths[symbol]);
        Some(Self::Many(counts, symbols))
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgba, RgbaImage};

    use super::*;

    #[test]
    fn symbols_are_of_their_alphabet() {
        // One symbol of eight bits, 255; and two, 0 and 255.
        for bytes in [&[0b1111_1101, 0b111][..], &[0b0000_0111, 0b1111_1000, 0b111]] {
            assert!(Bits::new(bytes).code(256).is_some());
            assert!(Bits::new(bytes).code(255).is_none());
            assert!(Bits::new(&bytes[..1]).code(256).is_none());
        }
    }

    #[test]
    fn what_encoders_write_is_counted_and_what_cannot_be_read_is_not() {
        let image = RgbaImage::from_fn(50, 30, |x, y| Rgba([x as u8, y as u8, (x * y) as u8, 99]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::WebP).unwrap();
        let bytes = bytes.into_inner();
        // The encoder of `image` uses one group.
        assert_eq!(prefix_codes(&bytes, 50, 30), GROUP);
        for length in 0..bytes.len().min(64) {
            assert!(prefix_codes(&bytes[..length], 50, 30) <= GROUP);
        }
        // Elsewhere than in the chunks of the file.
        let hidden = [&bytes[..], b"VP8L"].concat();
        assert_eq!(prefix_codes(&hidden, 50, 30), PER_BYTE * hidden.len() as u64);
        assert_eq!(prefix_codes(b"RIFF\0\0\0\0WEBPVP8 \x02\0\0\0ab", 1, 1), 0);
        assert_eq!(prefix_codes(b"", 1, 1), 0);
    }
}
