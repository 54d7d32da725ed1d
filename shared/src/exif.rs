//! When and with which camera a photo was taken, from the EXIF data of a JPEG, PNG, WebP or TIFF file.

/// The tag of IFD 0 that points to the EXIF IFD (EXIF 2.32, section 4.6.3).
const EXIF_IFD: u16 = 0x8769;
/// Date and time of exposure, `YYYY:MM:DD HH:MM:SS` (section 4.6.5).
const DATE_TIME_ORIGINAL: u16 = 0x9003;
/// The offset from UTC of that, `+HH:MM` (section 4.6.5, since 2.31).
const OFFSET_TIME_ORIGINAL: u16 = 0x9011;
/// Who made the camera (section 4.6.4).
const MAKE: u16 = 0x010f;
/// The camera's model (section 4.6.4).
const MODEL: u16 = 0x0110;
/// The camera's serial number (section 4.6.5, since 2.3).
const BODY_SERIAL_NUMBER: u16 = 0xa431;
/// What precedes the EXIF data in a JPEG's APP1 segment, and in some WebP files.
const PREFIX: &[u8] = b"Exif\0\0";

/// When the photo in an image file was taken, in ISO 8601: `2024-05-17T08:15:30`, by the camera's clock, with `+02:00`
/// behind it where the file has the offset. `None` where the file does not say, or says nonsense.
///
/// Only the tag DateTimeOriginal counts: DateTime is when the file was last edited.
#[must_use]
pub fn taken(image_file: &[u8]) -> Option<String> {
    let tiff = Tiff::new(exif_data(image_file)?)?;
    let mut taken = tiff.time()?.iso_8601();
    let offset = || tiff.text(tiff.exif_ifd()?, OFFSET_TIME_ORIGINAL);
    if let Some(offset) = offset().filter(|offset| is_utc_offset(offset)) {
        taken.push_str(&String::from_utf8_lossy(offset));
    }
    Some(taken)
}

/// When the photo in an image file was taken, in seconds since 1970 began, both by the camera's clock. `None` as for
/// [`taken`].
#[must_use]
pub fn clock_seconds(image_file: &[u8]) -> Option<i64> {
    Some(Tiff::new(exif_data(image_file)?)?.time()?.seconds())
}

/// Make, model and serial number of the camera as it writes them, without blanks around; each empty where the file does
/// not say it. `None` where there is no EXIF data.
#[must_use]
pub fn camera(image_file: &[u8]) -> Option<[String; 3]> {
    let tiff = Tiff::new(exif_data(image_file)?)?;
    let text = |ifd: Option<u32>, tag| {
        let text = ifd.and_then(|ifd| tiff.text(ifd, tag)).unwrap_or_default();
        String::from_utf8_lossy(text).trim().to_owned()
    };
    Some([
        text(tiff.first_ifd(), MAKE),
        text(tiff.first_ifd(), MODEL),
        text(tiff.exif_ifd(), BODY_SERIAL_NUMBER),
    ])
}

/// The TIFF structure with the EXIF data.
fn exif_data(file: &[u8]) -> Option<&[u8]> {
    if file.starts_with(&[0xff, 0xd8]) {
        return jpeg_segment(file);
    }
    if file.starts_with(b"\x89PNG\r\n\x1a\n") {
        return chunk(file, 8, |chunk| {
            let length = u32::from_be_bytes(*chunk.first_chunk()?) as usize;
            Some((
                chunk.get(4..8)? == b"eXIf",
                8,
                length,
                length.checked_add(12)?,
            ))
        });
    }
    if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WEBP") {
        let data = chunk(file, 12, |chunk| {
            let length = u32::from_le_bytes(*chunk.get(4..)?.first_chunk()?) as usize;
            let padded = length.checked_add(length % 2)?;
            Some((
                chunk.starts_with(b"EXIF"),
                8,
                length,
                padded.checked_add(8)?,
            ))
        })?;
        return Some(data.strip_prefix(PREFIX).unwrap_or(data));
    }
    // Tiff::new looks whether it is one.
    Some(file)
}

fn jpeg_segment(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.get(2..)?;
    loop {
        let [0xff, marker, high, low] = *rest.first_chunk()? else {
            return None;
        };
        // A marker may be preceded by any number of 0xff.
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let segment = rest.get(4..2 + length)?;
        match marker {
            0xe1 if segment.starts_with(PREFIX) => return segment.get(PREFIX.len()..),
            // The coded image begins: no segment of the header follows.
            0xda | 0xd9 => return None,
            _ => rest = rest.get(2 + length..)?,
        }
    }
}

/// Walks chunks from `at` on: `read` says of one whether it is wanted, where in it its data begin, their length, and
/// the length of the whole chunk.
fn chunk(
    file: &[u8],
    mut at: usize,
    read: impl Fn(&[u8]) -> Option<(bool, usize, usize, usize)>,
) -> Option<&[u8]> {
    loop {
        let chunk = file.get(at..)?;
        let (wanted, begin, length, whole) = read(chunk)?;
        if wanted {
            return chunk.get(begin..begin.checked_add(length)?);
        }
        at = at.checked_add(whole)?;
    }
}

/// A TIFF structure (TIFF 6.0, section 2). Offsets count from its first byte.
struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

/// An entry of an IFD: type, number of values, and where its value field is.
type Entry = (u16, u32, u32);

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        Some(Self { bytes, big_endian })
    }

    fn field<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut field = *self.bytes.get(offset as usize..)?.first_chunk()?;
        if self.big_endian {
            field.reverse();
        }
        Some(field)
    }

    fn u16(&self, offset: u32) -> Option<u16> {
        self.field(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: u32) -> Option<u32> {
        self.field(offset).map(u32::from_le_bytes)
    }

    /// The entry of a tag in the IFD at `ifd`.
    fn entry(&self, ifd: u32, tag: u16) -> Option<Entry> {
        let count = u32::from(self.u16(ifd)?);
        (0..count).find_map(|index| {
            let at = ifd.checked_add(2 + 12 * index)?;
            (self.u16(at)? == tag).then_some(())?;
            let value = at.checked_add(8)?;
            Some((self.u16(value - 6)?, self.u32(value - 4)?, value))
        })
    }

    fn first_ifd(&self) -> Option<u32> {
        self.u32(4)
    }

    /// The IFD that the one LONG of its entry points to.
    fn exif_ifd(&self) -> Option<u32> {
        let (kind, count, value) = self.entry(self.first_ifd()?, EXIF_IFD)?;
        (kind == 4 && count == 1).then(|| self.u32(value))?
    }

    fn time(&self) -> Option<Time> {
        Time::read(self.text(self.exif_ifd()?, DATE_TIME_ORIGINAL)?)
    }

    /// The value of an ASCII entry, without the zero at its end.
    fn text(&self, ifd: u32, tag: u16) -> Option<&'a [u8]> {
        let (kind, count, value) = self.entry(ifd, tag)?;
        let at = if count <= 4 { value } else { self.u32(value)? };
        let end = (at as usize).checked_add(count as usize)?;
        let text = self.bytes.get(at as usize..end)?;
        (kind == 2).then(|| text.split(|byte| *byte == 0).next())?
    }
}

/// A time by the camera's clock.
struct Time {
    year: u16,
    month: u16,
    day: u16,
    hour: u16,
    minute: u16,
    second: u16,
}

impl Time {
    /// Reads `YYYY:MM:DD HH:MM:SS`; `None` for blanks, zeros and other nonsense.
    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text.get(..19)?).ok()?;
        let separators = [4, 7, 10, 13, 16].map(|at| text.as_bytes().get(at));
        // Some programs write the date with hyphens.
        if !matches!(
            separators.map(|byte| byte.copied().unwrap_or_default()),
            [b':' | b'-', b':' | b'-', b' ' | b'T', b':', b':']
        ) {
            return None;
        }
        let number = |at: usize, length: usize| -> Option<u16> {
            let digits = text.get(at..at + length)?;
            let all = digits.bytes().all(|byte| byte.is_ascii_digit());
            all.then(|| digits.parse().ok())?
        };
        let time = Self {
            year: number(0, 4)?,
            month: number(5, 2)?,
            day: number(8, 2)?,
            hour: number(11, 2)?,
            minute: number(14, 2)?,
            second: number(17, 2)?,
        };
        let valid = time.year > 0
            && (1..=12).contains(&time.month)
            && (1..=31).contains(&time.day)
            && time.hour < 24
            && time.minute < 60
            && time.second <= 60;
        valid.then_some(time)
    }

    fn iso_8601(&self) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }

    /// Seconds since 1970 began; without leap seconds.
    fn seconds(&self) -> i64 {
        let [year, month, day] = [self.year, self.month, self.day].map(i64::from);
        let [hour, minute, second] = [self.hour, self.minute, self.second].map(i64::from);
        // Days in years that begin in March, so that the leap day is the last (Hinnant, "days_from_civil").
        let year = if month <= 2 { year - 1 } else { year };
        let month = (month + 9) % 12;
        let before = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
        (before + day - 1 - 719_468) * 86_400 + hour * 3_600 + minute * 60 + second
    }
}

fn is_utc_offset(text: &[u8]) -> bool {
    matches!(text, [b'+' | b'-', h1, h2, b':', m1, m2]
        if [h1, h2, m1, m2].iter().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TIME: &[u8] = b"2024:05:17 08:15:30\0";
    const ISO: &str = "2024-05-17T08:15:30";

    /// A TIFF structure: IFD 0 with one entry, the EXIF IFD with time and offset, then their texts.
    fn tiff(big_endian: bool, time: &[u8], offset: &[u8]) -> Vec<u8> {
        let u16 = |value: u16| match big_endian {
            true => value.to_be_bytes().to_vec(),
            false => value.to_le_bytes().to_vec(),
        };
        let u32 = |value: usize| match big_endian {
            true => (value as u32).to_be_bytes().to_vec(),
            false => (value as u32).to_le_bytes().to_vec(),
        };
        let mut bytes = if big_endian {
            b"MM".to_vec()
        } else {
            b"II".to_vec()
        };
        bytes.extend([u16(42), u32(8)].concat());
        bytes.extend([u16(1), u16(EXIF_IFD), u16(4), u32(1), u32(26), u32(0)].concat());
        bytes.extend(
            [
                u16(2),
                u16(DATE_TIME_ORIGINAL),
                u16(2),
                u32(time.len()),
                u32(56),
            ]
            .concat(),
        );
        bytes.extend([u16(OFFSET_TIME_ORIGINAL), u16(2), u32(offset.len())].concat());
        bytes.extend([u32(56 + time.len()), u32(0)].concat());
        assert_eq!(bytes.len(), 56);
        [&bytes, time, offset].concat()
    }

    fn jpeg(exif: &[u8]) -> Vec<u8> {
        let length = (exif.len() + 8) as u16;
        let mut file = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, 0xe1];
        file.extend(length.to_be_bytes());
        file.extend([PREFIX, exif, &[0xff, 0xda, 0, 2, 9, 9]].concat());
        file
    }

    fn png(exif: &[u8]) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x03tEXtabc....".to_vec();
        file.extend((exif.len() as u32).to_be_bytes());
        [&file, &b"eXIf"[..], exif, b"...."].concat()
    }

    fn webp(exif: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF....WEBPVP8X\x03\0\0\0abc.EXIF".to_vec();
        file.extend((exif.len() as u32 + 6).to_le_bytes());
        [&file, PREFIX, exif].concat()
    }

    #[test]
    fn every_kind_of_file_and_both_byte_orders() {
        for big_endian in [false, true] {
            let exif = tiff(big_endian, TIME, b"+02:00\0");
            for file in [exif.clone(), jpeg(&exif), png(&exif), webp(&exif)] {
                assert_eq!(taken(&file), Some(format!("{ISO}+02:00")));
            }
        }
        assert_eq!(taken(&tiff(false, TIME, b"      \0")).as_deref(), Some(ISO));
        let hyphens = b"2024-05-17 08:15:30\0";
        assert_eq!(taken(&tiff(false, hyphens, b"")).as_deref(), Some(ISO));
    }

    /// A TIFF structure of ASCII entries: those of IFD 0, then those of the EXIF IFD.
    fn tiff_of(first: &[(u16, &str)], exif: &[(u16, &str)]) -> Vec<u8> {
        let exif_ifd = 8 + 2 + 12 * (first.len() as u32 + 1) + 4;
        let mut texts_at = exif_ifd + 2 + 12 * exif.len() as u32 + 4;
        let mut bytes = b"II*\0\x08\0\0\0".to_vec();
        let mut texts = Vec::new();
        for entries in [first, exif] {
            let is_first = bytes.len() == 8;
            bytes.extend((entries.len() as u16 + u16::from(is_first)).to_le_bytes());
            for &(tag, text) in entries {
                let length = text.len() as u32 + 1;
                bytes.extend([tag, 2].map(u16::to_le_bytes).concat());
                bytes.extend([length, texts_at].map(u32::to_le_bytes).concat());
                texts.extend(text.as_bytes());
                texts.push(0);
                texts_at += length;
            }
            if is_first {
                bytes.extend([EXIF_IFD, 4].map(u16::to_le_bytes).concat());
                bytes.extend([1, exif_ifd].map(u32::to_le_bytes).concat());
            }
            bytes.extend([0; 4]);
        }
        [bytes, texts].concat()
    }

    #[test]
    fn the_camera_and_its_clock() {
        let file = tiff_of(
            &[(MAKE, "Maker "), (MODEL, "Trap 7")],
            &[
                (DATE_TIME_ORIGINAL, "2026:03:01 00:00:05"),
                (BODY_SERIAL_NUMBER, "00012345"),
            ],
        );
        for file in [file.clone(), jpeg(&file), png(&file), webp(&file)] {
            assert_eq!(camera(&file).unwrap(), ["Maker", "Trap 7", "00012345"]);
            assert_eq!(clock_seconds(&file), Some(1_772_323_205));
            assert_eq!(taken(&file).as_deref(), Some("2026-03-01T00:00:05"));
        }
        assert_eq!(camera(&tiff(true, TIME, b"")).unwrap(), ["", "", ""]);
        assert_eq!(camera(b"no picture"), None);
        for (time, seconds) in [
            ("1970:01:01 00:00:00", 0),
            ("1969:12:31 23:59:59", -1),
            ("2000:02:29 12:00:00", 951_825_600),
        ] {
            let file = tiff_of(&[], &[(DATE_TIME_ORIGINAL, time)]);
            assert_eq!(clock_seconds(&file), Some(seconds));
        }
    }

    #[test]
    fn what_says_nothing_gives_nothing() {
        for time in [
            &b"    :  :     :  :  \0"[..],
            b"0000:00:00 00:00:00\0",
            b"2024:13:01 00:00:00\0",
            b"2024:05:17 08:15\0",
            "2024:05:17 08:15:3\u{e9}\0".as_bytes(),
            b"+024:05:17 08:15:30\0",
        ] {
            assert_eq!(taken(&tiff(true, time, b"")), None);
        }
        assert_eq!(taken(b""), None);
        assert_eq!(taken(b"no picture"), None);
    }

    #[test]
    fn no_damage_panics() {
        let exif = tiff(false, TIME, b"+02:00\0");
        let cameras = tiff_of(&[(MODEL, "A")], &[(BODY_SERIAL_NUMBER, "0123")]);
        for file in [exif.clone(), jpeg(&exif), png(&exif), webp(&exif), cameras] {
            for cut in 0..file.len() {
                let _ = (taken(&file[..cut]), camera(&file[..cut]));
            }
            for at in 0..file.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut damaged = file.clone();
                    damaged[at] = value;
                    let _ = (taken(&damaged), clock_seconds(&damaged), camera(&damaged));
                }
            }
        }
    }
}
