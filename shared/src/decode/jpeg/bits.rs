//! The coded data of a scan as bits, the highest bit of each byte first (ITU-T T.81, F.2.2.5).

use crate::error::{Error, Result};

/// How many bits there are at least after [`Bits::refill`].
pub(super) const REFILLED: u32 = 32;

/// A place in the coded data. Behind a marker or the end there are zeros, and [`Bits::check`] tells.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    /// What is not in the buffer yet.
    coded: &'a [u8],
    /// The next bits, from the highest on. Below the counted ones it may hold the beginning of the next byte.
    buffer: u64,
    /// How many bits of the buffer count.
    count: u32,
    /// How many of the bits that were put into the buffer are not in the data; those come last.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(coded: &'a [u8]) -> Self {
        Self {
            coded,
            buffer: 0,
            count: 0,
            padding: 0,
        }
    }

    /// Makes sure that [`REFILLED`] bits can be seen and dropped.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count >= REFILLED {
            return;
        }
        if let Some(next) = self.coded.first_chunk::<8>() {
            let next = u64::from_be_bytes(*next);
            if !has_ff(next) {
                // Giesen, "Reading bits in far too many ways", 2018, variant 4: the bits of a byte that does not fit are
                // put into the buffer as well, and later once more.
                self.buffer |= next >> self.count;
                let bytes = (63 - self.count) / 8;
                self.coded = &self.coded[bytes as usize..];
                self.count += bytes * 8;
                return;
            }
        }
        *self = self.refilled_by_bytes();
    }

    #[cold]
    #[inline(never)]
    fn refilled_by_bytes(mut self) -> Self {
        while self.count <= 56 {
            let byte = match *self.coded {
                // A zero is stuffed behind 0xff, to tell it from a marker.
                [0xff, 0, ref rest @ ..] => {
                    self.coded = rest;
                    0xff
                }
                [byte, ref rest @ ..] if byte != 0xff => {
                    self.coded = rest;
                    byte
                }
                _ => {
                    self.padding += 8;
                    0
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    /// The next `count` bits, from 1 to [`REFILLED`], as a number.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> usize {
        (self.buffer >> (64 - count)) as usize
    }

    /// Goes on by `count` bits, at most [`REFILLED`].
    #[inline(always)]
    pub(super) fn drop(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
    }

    /// Checks that no bit was used that is not in the data. To be called often: what is counted is bounded.
    ///
    /// # Errors
    /// When the data ended too early.
    #[inline(always)]
    pub(super) fn check(&self) -> Result<()> {
        if self.count < self.padding {
            return Err(Error::new("the coded data ends too early"));
        }
        Ok(())
    }

    /// Goes to behind the restart marker of that number, which must come next (T.81, E.2.4).
    ///
    /// # Errors
    /// When there is more coded data, or no such marker.
    pub(super) fn restart(&mut self, number: usize) -> Result<()> {
        let mut rest = self.coded;
        while let [0xff, 0xff, ..] = rest {
            rest = &rest[1..];
        }
        let marker = 0xd0 | (number % 8) as u8;
        match *rest {
            // What is left of the last byte is filled with ones.
            [0xff, found, ref rest @ ..]
                if found == marker && self.count.saturating_sub(self.padding) < 8 =>
            {
                *self = Self::new(rest);
                Ok(())
            }
            _ => Err(Error::new(format!(
                "restart marker {number} is not where it must be"
            ))),
        }
    }
}

/// Whether any byte is 0xff: whether the complement has a zero byte (Mycroft, 1987).
#[inline(always)]
fn has_ff(bytes: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    (!bytes).wrapping_sub(LOW) & bytes & (LOW << 7) != 0
}
