//! A stream of bytes -> frames: JPEGs one after the other (MJPEG), or raw pixels of a known size.

use std::io::{self, Read};
use std::str::FromStr;

use graft_shared::error::{Error, Result};
use graft_shared::limits::MAX_BODY_BYTES;
use graft_shared::preprocess::Pixels;

use super::{Picture, huffman};

/// Bytes to read at once.
const CHUNK: usize = 64 << 10;
/// Pixels along one side of a raw frame, at most.
const MOST_SIDE: usize = 8_192;

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// JPEGs, whatever is between them.
    #[default]
    Mjpeg,
    /// RGB8, row by row.
    Rgb { width: usize, height: usize },
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "mjpeg" {
            return Ok(Self::Mjpeg);
        }
        let size = text.strip_prefix("rgb24:").and_then(|size| {
            let (width, height) = size.split_once('x')?;
            Some((width.parse().ok()?, height.parse().ok()?))
        });
        match size {
            Some((width, height))
                if (1..=MOST_SIDE).contains(&width) && (1..=MOST_SIDE).contains(&height) =>
            {
                Ok(Self::Rgb { width, height })
            }
            _ => Err(
                Error::new(format!("there are no frames of the kind `{text}`"))
                    .hint("write mjpeg, or rgb24:WIDTHxHEIGHT, such as rgb24:640x480"),
            ),
        }
    }
}

/// Gives each frame of `stream` to `take`, until the stream ends.
///
/// # Errors
/// When the stream can't be read.
pub(crate) fn read(
    mut stream: impl Read,
    kind: Kind,
    take: &mut dyn FnMut(Picture),
) -> io::Result<()> {
    match kind {
        Kind::Rgb { width, height } => loop {
            let mut data = vec![0; width * height * 3];
            match stream.read_exact(&mut data) {
                Ok(()) => take(Picture::Pixels(Pixels {
                    width,
                    height,
                    data,
                })),
                // A part of a frame is none.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        },
        Kind::Mjpeg => {
            let mut splitter = Splitter::default();
            let mut chunk = vec![0; CHUNK];
            loop {
                let length = match stream.read(&mut chunk) {
                    Ok(0) => return Ok(()),
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                for &byte in &chunk[..length] {
                    if let Some(frame) = splitter.push(byte) {
                        take(Picture::File(huffman::complete(frame)));
                    }
                }
            }
        }
    }
}

/// Finds JPEGs (ITU-T T.81, annex B) in a stream of bytes by their markers: segments are skipped by their length, since
/// one may hold a JPEG of its own, a thumbnail. A frame larger than a picture may be is passed over.
#[derive(Debug, Default)]
struct Splitter {
    frame: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between frames.
    #[default]
    Outside,
    /// Between frames, after 0xFF.
    Beginning,
    /// Before a marker.
    Marker,
    /// After a marker's 0xFF.
    Code,
    /// In a segment's length.
    Length { scan: bool, high: Option<u8> },
    /// In a segment.
    Segment { scan: bool, left: usize },
    /// In entropy-coded data.
    Data,
    /// In entropy-coded data, after 0xFF.
    DataMarker,
}

impl Splitter {
    /// Takes a byte; gives the frame that it ends.
    fn push(&mut self, byte: u8) -> Option<Vec<u8>> {
        const START: u8 = 0xd8;
        const END: u8 = 0xd9;
        const SCAN: u8 = 0xda;
        if self.frame.len() >= MAX_BODY_BYTES {
            *self = Self::default();
        }
        if !matches!(self.state, State::Outside | State::Beginning) {
            self.frame.push(byte);
        }
        self.state = match self.state {
            State::Outside if byte == 0xff => State::Beginning,
            State::Outside => State::Outside,
            State::Beginning => match byte {
                START => {
                    self.frame = vec![0xff, START];
                    State::Marker
                }
                0xff => State::Beginning,
                _ => State::Outside,
            },
            State::Marker if byte == 0xff => State::Code,
            // Not a JPEG after all, or a damaged one.
            State::Marker => State::Outside,
            State::Code | State::DataMarker => {
                let data = self.state == State::DataMarker;
                match byte {
                    0xff => self.state,
                    // A byte 0xFF of the data; a restart.
                    0 | 0xd0..=0xd7 if data => State::Data,
                    START => {
                        self.frame = vec![0xff, START];
                        State::Marker
                    }
                    END => {
                        self.state = State::Outside;
                        return Some(std::mem::take(&mut self.frame));
                    }
                    0 => State::Outside,
                    0x01 | 0xd0..=0xd7 => State::Marker,
                    code => State::Length {
                        scan: code == SCAN,
                        high: None,
                    },
                }
            }
            State::Length { scan, high: None } => State::Length {
                scan,
                high: Some(byte),
            },
            State::Length {
                scan,
                high: Some(high),
            } => match usize::from(u16::from_be_bytes([high, byte])) {
                0 | 1 => State::Outside,
                2 => after_segment(scan),
                length => State::Segment {
                    scan,
                    left: length - 2,
                },
            },
            State::Segment { scan, left: 1 } => after_segment(scan),
            State::Segment { scan, left } => State::Segment {
                scan,
                left: left - 1,
            },
            State::Data if byte == 0xff => State::DataMarker,
            State::Data => State::Data,
        };
        None
    }
}

fn after_segment(scan: bool) -> State {
    if scan { State::Data } else { State::Marker }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn split(stream: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        read(stream, Kind::Mjpeg, &mut |picture| match picture {
            Picture::File(bytes) => frames.push(bytes),
            Picture::Pixels(_) | Picture::Yuyv(_) => unreachable!(),
        })
        .unwrap();
        frames
    }

    /// A thumbnail inside, tables, data with stuffed bytes and restarts, two scans.
    const FRAME: &[u8] = b"\xff\xd8\xff\xe1\x00\x08\xff\xd8ab\xff\xd9\xff\xc4\x00\x02\xff\xda\x00\x03\x00ab\xff\x00\xff\xd3c\xff\xff\xda\x00\x02d\xff\xd9";

    #[test]
    fn frames_are_found_whole() {
        let stream = [
            b"--boundary\r\n\r\n",
            FRAME,
            b"\xff\r\n--x\xff\xff",
            &FRAME[1..],
            FRAME,
        ]
        .concat();
        assert_eq!(split(&stream), [FRAME, FRAME, FRAME]);
        // Cut anywhere, another one is found: a damaged segment is at most 64 KiB long.
        for end in 2..FRAME.len() {
            let stream = [&FRAME[..end], &FRAME.repeat(4_000)].concat();
            assert_eq!(split(&stream).last().unwrap(), FRAME, "cut at {end}");
        }
    }

    #[test]
    fn raw_frames_have_their_size() {
        let kind: Kind = "rgb24:2x1".parse().unwrap();
        let mut frames = Vec::new();
        read(&[7u8; 15][..], kind, &mut |picture| frames.push(picture)).unwrap();
        assert_eq!(frames.len(), 2);
        for wrong in [
            "rgb24",
            "rgb24:0x1",
            "rgb24:9000x1",
            "yuv",
            "rgb24:2x1x3",
            "",
        ] {
            assert!(wrong.parse::<Kind>().is_err(), "{wrong}");
        }
    }
}
