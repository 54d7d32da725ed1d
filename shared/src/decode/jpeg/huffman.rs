//! Bits of a scan -> the coefficients of a block (ITU-T T.81, F.2.2), by tables over the next bits.

use super::bits::Bits;
use super::header::{Code, Component};
use crate::error::{Error, Result};

/// Bits that the table of single symbols looks at. Longer codes are searched.
const LOOKAHEAD: u32 = 10;

/// Bits that the table of symbols to be passed over looks at. Both tables of three components and their codes stay in a
/// first-level cache of 32 KiB.
const JUMP: u32 = 12;

/// Coefficients of a block.
const BLOCK: usize = 64;

/// More than any block has left: stands for the end of a block.
const END: usize = 127;

/// A Huffman code ready to be decoded.
struct Table {
    /// By the next [`LOOKAHEAD`] bits: the symbol that they begin with.
    steps: Vec<Step>,
    /// By the next [`JUMP`] bits: all symbols whose codes lie in them, to be passed over.
    jumps: Vec<Jump>,
    /// By length: the first 16 bits, as a number, behind the codes of that length.
    ends: [u32; 17],
    /// By length: what gives the place of a symbol from its code.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

/// One symbol, packed:
///
/// | bits | what |
/// |---|---|
/// | 0 to 4 | how many bits to drop: those of the code and, where it was seen, of the value |
/// | 5 to 8 | how many bits of the value are still to be read |
/// | 9 to 15 | how many coefficients this is: zeros and the value, or [`END`] |
/// | 16 to 31 | the value, where it was seen |
///
/// 0 stands for a code that is longer than what was seen.
#[derive(Clone, Copy)]
struct Step(u32);

/// As many symbols as can be seen, packed:
///
/// | bits | what |
/// |---|---|
/// | 0 to 4 | how many bits to drop, those of the values among them |
/// | 5 to 11 | how many coefficients these are, without the end of the block; [`END`] where no symbol can be seen |
/// | 12 | whether the block ends here |
#[derive(Clone, Copy)]
struct Jump(u16);

impl Table {
    /// Builds the tables (T.81, Annex C and F.2.2.3).
    ///
    /// # Errors
    /// When there are more codes than their lengths allow.
    fn new(code: Code<'_>) -> Result<Self> {
        let mut table = Self {
            steps: vec![Step(0); 1 << LOOKAHEAD],
            jumps: Vec::new(),
            ends: [0; 17],
            offsets: [0; 17],
            symbols: [0; 256],
        };
        table
            .symbols
            .get_mut(..code.symbols.len())
            .ok_or_else(damaged_table)?
            .copy_from_slice(code.symbols);
        let (mut next, mut place) = (0_u32, 0_usize);
        for (length, &count) in (1..).zip(code.counts) {
            table.offsets[length as usize] = place as i32 - next as i32;
            for &symbol in &code.symbols[place..][..count.into()] {
                if length <= LOOKAHEAD && next < 1 << length {
                    let free = LOOKAHEAD - length;
                    for rest in 0..1 << free {
                        let seen = next << free | rest;
                        table.steps[seen as usize] = Step::seen(symbol, length, seen);
                    }
                }
                next += 1;
            }
            if next > 1 << length {
                return Err(damaged_table());
            }
            place += usize::from(count);
            table.ends[length as usize] = next << (16 - length);
            next <<= 1;
        }
        table.jumps = (0..1 << JUMP).map(|seen| table.jump(seen)).collect();
        Ok(table)
    }

    /// What can be seen in `seen`, the next [`JUMP`] bits.
    fn jump(&self, seen: usize) -> Jump {
        let (mut bits, mut advance, mut end) = (0, 0, false);
        // An advance of more than 32 would not leave room for another.
        while bits < JUMP && advance <= 32 && !end {
            // Zeros follow what is seen: a code counts only if it ends before.
            let rest = seen << bits & ((1 << JUMP) - 1);
            let (symbol, length) = self.search(rest << (16 - JUMP));
            if bits + length > JUMP {
                break;
            }
            let step = Step::of(symbol, length);
            bits += length + step.size();
            if step.advance() == END {
                end = true;
            } else {
                advance += step.advance();
            }
        }
        if bits == 0 {
            advance = END;
        }
        Jump(bits as u16 | (advance as u16) << 5 | u16::from(end) << 12)
    }

    /// Symbol and length of the code that the next 16 bits begin with; length 17 where there is none.
    fn search(&self, next: usize) -> (u8, u32) {
        let mut length = 1;
        while length <= 16 && next as u32 >= self.ends[length] {
            length += 1;
        }
        if length > 16 {
            return (0, 17);
        }
        let place = (next >> (16 - length)) as i32 + self.offsets[length];
        (self.symbols[place as usize & 255], length as u32)
    }

    /// The next symbol; drops its code and, where the table has it, its value.
    #[inline(always)]
    fn step(&self, bits: &mut Bits<'_>) -> Result<Step> {
        let mut step = self.steps[bits.peek(LOOKAHEAD)];
        if step.0 == 0 {
            let (symbol, length) = self.search(bits.peek(16));
            if length > 16 {
                return Err(Error::new("the coded data is damaged: no such code"));
            }
            step = Step::of(symbol, length);
        }
        bits.drop(step.0 & 31);
        Ok(step)
    }
}

impl Step {
    /// A symbol whose value is still to be read: its upper four bits say how many zeros precede the value, the lower
    /// four the value's size.
    fn of(symbol: u8, length: u32) -> Self {
        let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        let advance = match (zeros, size) {
            (15, 0) => 16,
            (_, 0) => END as u32,
            _ => zeros + 1,
        };
        Self(length | size << 5 | advance << 9)
    }

    /// The same with its value, if that lies in `seen`, the next [`LOOKAHEAD`] bits.
    fn seen(symbol: u8, length: u32, seen: u32) -> Self {
        let step = Self::of(symbol, length);
        let (size, total) = (step.size(), length + step.size());
        if total > LOOKAHEAD || size == 0 {
            return step;
        }
        let value = seen >> (LOOKAHEAD - total) & ((1 << size) - 1);
        let value = extended(value as i32, size);
        Self(total | (step.advance() as u32) << 9 | (value as u32) << 16)
    }

    #[inline(always)]
    fn size(self) -> u32 {
        self.0 >> 5 & 15
    }

    #[inline(always)]
    fn advance(self) -> usize {
        (self.0 >> 9 & 127) as usize
    }

    /// The value, read where that is still to be done.
    #[inline(always)]
    fn value(self, bits: &mut Bits<'_>) -> i32 {
        let size = self.size();
        if size == 0 {
            return self.0 as i32 >> 16;
        }
        let value = bits.peek(size) as i32;
        bits.drop(size);
        extended(value, size)
    }
}

impl Jump {
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.0 & 31)
    }

    #[inline(always)]
    fn advance(self) -> usize {
        usize::from(self.0 >> 5 & 127)
    }

    #[inline(always)]
    fn is_end(self) -> bool {
        self.0 >> 12 != 0
    }
}

/// The value that is coded in `size` bits, from 1 to 15: lower half negative (T.81, F.2.2.1, EXTEND).
#[inline(always)]
fn extended(value: i32, size: u32) -> i32 {
    if value < 1 << (size - 1) {
        value - (1 << size) + 1
    } else {
        value
    }
}

/// The order in which coefficients are coded: their places in a block of 8 x 8, row by row (T.81, figure A.6).
const ZIGZAG: [u8; BLOCK] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// What gives the coefficients of a component's blocks.
pub(super) struct BlockDecoder {
    dc: Table,
    ac: Table,
    /// Steps of the quantization, in zigzag order.
    quantization: [i32; BLOCK],
    /// How many coefficients are wanted, in zigzag order: from 1 to 64.
    wanted: usize,
}

impl BlockDecoder {
    /// The decoder of a component whose blocks are wanted with `width` x `height` coefficients, from 1 to 8 each way.
    ///
    /// # Errors
    /// When a Huffman code of the component makes no sense.
    pub(super) fn new(component: &Component<'_>, width: usize, height: usize) -> Result<Self> {
        if component.dc.symbols.iter().any(|symbol| *symbol > 15) {
            return Err(damaged_table());
        }
        let is_wanted = |place: &u8| {
            let place = usize::from(*place);
            place % 8 < width && place / 8 < height
        };
        Ok(Self {
            dc: Table::new(component.dc)?,
            ac: Table::new(component.ac)?,
            quantization: component.quantization.map(i32::from),
            wanted: ZIGZAG
                .iter()
                .rposition(is_wanted)
                .map_or(1, |last| last + 1),
        })
    }

    /// Decodes a block. `dc` is the first coefficient of the block before, not dequantized, and becomes this one's.
    /// `block`, 8 x 8 and all zeros, gets the wanted coefficients, dequantized. Gives whether any beyond the first was
    /// put there.
    ///
    /// # Errors
    /// When the data holds no such code, or more coefficients than a block has.
    #[inline(always)]
    pub(super) fn decode(
        &self,
        bits: &mut Bits<'_>,
        dc: &mut i32,
        block: &mut [i32; BLOCK],
    ) -> Result<bool> {
        bits.refill();
        let step = self.dc.step(bits)?;
        *dc = dc.wrapping_add(step.value(bits));
        block[0] = dc.wrapping_mul(self.quantization[0]);

        let mut next = 1;
        let mut any = false;
        while next < self.wanted {
            bits.refill();
            let step = self.ac.step(bits)?;
            next += step.advance();
            if next > BLOCK {
                return if next > END { Ok(any) } else { Err(too_many()) };
            }
            let value = step.value(bits);
            let place = usize::from(ZIGZAG[next - 1]);
            block[place] = value.wrapping_mul(self.quantization[next - 1]);
            any = true;
        }
        while next < BLOCK {
            bits.refill();
            let jump = self.ac.jumps[bits.peek(JUMP)];
            let after = next + jump.advance();
            // Where a block is full its end is not coded: symbols that may belong to the next are taken one by one.
            if after < BLOCK {
                bits.drop(jump.bits());
                if jump.is_end() {
                    break;
                }
                next = after;
                continue;
            }
            let step = self.ac.step(bits)?;
            bits.drop(step.size());
            next += step.advance();
            if next > BLOCK {
                return if next > END { Ok(any) } else { Err(too_many()) };
            }
        }
        Ok(any)
    }
}

fn damaged_table() -> Error {
    Error::new("a Huffman table is damaged")
}

#[cold]
fn too_many() -> Error {
    Error::new("the coded data is damaged: a block of more than 64 coefficients")
}
