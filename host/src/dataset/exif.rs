//! When and with which camera a JPEG was taken, from its EXIF segment (EXIF 2.32, TIFF 6.0).

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The EXIF segment lies among the first: what is behind this is not read.
const HEAD_BYTES: u64 = 1 << 18;
/// A directory with more entries is damaged.
const MAX_ENTRIES: usize = 512;

/// Where and when a photo comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shot {
    /// Make, model and serial number as the camera writes them.
    pub(super) camera: [String; 3],
    /// Seconds since 1 January 1970 by the camera's clock.
    pub(super) seconds: i64,
}

/// Reads the head of a file; `None` where it says no time.
pub(super) fn shot(path: &Path) -> Option<Shot> {
    let mut head = Vec::new();
    File::open(path)
        .ok()?
        .take(HEAD_BYTES)
        .read_to_end(&mut head)
        .ok()?;
    parse(tiff(&head)?)
}

/// The TIFF structure inside the first APP1 segment that holds EXIF.
fn tiff(jpeg: &[u8]) -> Option<&[u8]> {
    let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let &[0xff, marker, high, low, ..] = rest else {
            return None;
        };
        // Before the scan each marker but fill bytes carries its length.
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let segment = rest.get(4..2 + length)?;
        if marker == 0xe1
            && let Some(tiff) = segment.strip_prefix(b"Exif\0\0")
        {
            return Some(tiff);
        }
        if marker == 0xda {
            return None;
        }
        rest = rest.get(2 + length..)?;
    }
}

fn parse(tiff: &[u8]) -> Option<Shot> {
    let reader = Reader {
        tiff,
        little: match tiff.get(..4)? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        },
    };
    let first = reader.u32(4)?;
    let text = |directory, tag| reader.text(directory, tag);
    let exif = reader
        .entry(first, 0x8769)
        .and_then(|at| reader.u32(at + 8));
    let original = exif.and_then(|exif| text(exif, 0x9003));
    let time = original.or_else(|| text(first, 0x0132))?;
    Some(Shot {
        camera: [
            text(first, 0x010f).unwrap_or_default(),
            text(first, 0x0110).unwrap_or_default(),
            exif.and_then(|exif| text(exif, 0xa431)).unwrap_or_default(),
        ],
        seconds: seconds(&time)?,
    })
}

struct Reader<'a> {
    tiff: &'a [u8],
    little: bool,
}

impl Reader<'_> {
    fn u16(&self, at: usize) -> Option<usize> {
        let bytes = *self.tiff.get(at..)?.first_chunk()?;
        Some(usize::from(if self.little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        }))
    }

    fn u32(&self, at: usize) -> Option<usize> {
        let bytes = *self.tiff.get(at..)?.first_chunk()?;
        let number = if self.little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        };
        // Twice an offset must not overflow on a 32-bit machine.
        usize::try_from(number).ok().filter(|n| *n < 1 << 30)
    }

    /// Where the 12 bytes of a tag begin.
    fn entry(&self, directory: usize, tag: usize) -> Option<usize> {
        let entries = self.u16(directory)?.min(MAX_ENTRIES);
        (0..entries)
            .map(|index| directory + 2 + 12 * index)
            .find(|&at| self.u16(at) == Some(tag))
    }

    /// The value of an ASCII tag without what pads it.
    fn text(&self, directory: usize, tag: usize) -> Option<String> {
        let at = self.entry(directory, tag)?;
        if self.u16(at + 2)? != 2 {
            return None;
        }
        let length = self.u32(at + 4)?;
        let start = if length <= 4 {
            at + 8
        } else {
            self.u32(at + 8)?
        };
        let bytes = self.tiff.get(start..start + length)?;
        let text = String::from_utf8_lossy(bytes);
        let text = text.split('\0').next()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// `YYYY:MM:DD HH:MM:SS` in seconds since 1970.
fn seconds(time: &str) -> Option<i64> {
    let numbers: Vec<i64> = time
        .split([':', ' '])
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let &[year, month, day, hour, minute, second] = numbers.as_slice() else {
        return None;
    };
    let sensible = (1900..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !sensible {
        return None;
    }
    // Days in years that begin in March, so that the leap day is the last (Hinnant, "days_from_civil").
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A JPEG's head with an EXIF segment: model and time of a photo.
    pub(in super::super) fn jpeg(model: &str, time: &str) -> Vec<u8> {
        let mut data = Vec::new();
        let mut entries = Vec::new();
        let start = 8 + 2 + 3 * 12 + 4;
        let mut ascii = |tag: u16, text: &str, data: &mut Vec<u8>| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.push(0);
            bytes.resize(bytes.len().max(5), 0);
            let mut entry = tag.to_be_bytes().to_vec();
            entry.extend_from_slice(&2u16.to_be_bytes());
            entry.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            entry.extend_from_slice(&((start + data.len()) as u32).to_be_bytes());
            data.extend(bytes);
            entries.push(entry);
        };
        ascii(0x010f, "Maker", &mut data);
        ascii(0x0110, model, &mut data);
        ascii(0x0132, time, &mut data);
        let mut tiff = b"MM\0*\0\0\0\x08\0\x03".to_vec();
        entries.iter().for_each(|entry| tiff.extend(entry));
        tiff.extend([0; 4]);
        tiff.extend(data);
        let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, 0xe1];
        jpeg.extend_from_slice(&(2 + 6 + tiff.len() as u16).to_be_bytes());
        jpeg.extend_from_slice(b"Exif\0\0");
        jpeg.extend(tiff);
        jpeg.extend([0xff, 0xda, 0, 2]);
        jpeg
    }

    #[test]
    fn camera_and_time_are_read() {
        let bytes = jpeg("Trap 7", "2026:03:01 00:00:05");
        let shot = parse(tiff(&bytes).unwrap()).unwrap();
        assert_eq!(shot.camera, ["Maker", "Trap 7", ""]);
        assert_eq!(shot.seconds, 1_772_323_205);
        assert_eq!(seconds("1970:01:01 00:00:00"), Some(0));
        assert_eq!(seconds("2000:02:29 12:00:00"), Some(951_825_600));
        for bad in [
            "0000:00:00 00:00:00",
            "",
            "2026:03:01",
            "    :  :     :  :  ",
        ] {
            assert_eq!(seconds(bad), None);
        }
    }

    #[test]
    fn damaged_heads_are_no_reason_to_stop() {
        let bytes = jpeg("Trap 7", "2026:03:01 00:00:05");
        for position in 0..bytes.len() {
            let _ = tiff(&bytes[..position]).and_then(parse);
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[position] = value;
                let _ = tiff(&damaged).and_then(parse);
            }
        }
    }
}
