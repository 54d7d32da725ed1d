//! The framing of an event file, that of TFRecord: <https://www.tensorflow.org/tutorials/load_data/tfrecord>.
//!
//! A record is the length of its data (u64), the checksum of those eight bytes (u32), the data, and the checksum of the
//! data (u32); numbers are little-endian.

/// The data as a record.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked(crc32c(&length)).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked(crc32c(data)).to_le_bytes());
    record
}

/// A checksum as it is stored: the checksum of data that holds checksums would be weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C: Castagnoli's polynomial, bits reflected, as in RFC 3720, appendix B.4.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        CRC32C[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8)
    })
}

/// The checksum of each byte.
const CRC32C: [u32; 256] = {
    /// The polynomial, lowest power in the highest bit.
    const CASTAGNOLI: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (CASTAGNOLI * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The data of all records of `bytes`; `None` where one is cut short or has a wrong checksum.
#[cfg(test)]
pub(super) fn records(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    fn checked(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
        let (data, rest) = bytes.split_at_checked(length)?;
        let (crc, rest) = rest.split_first_chunk()?;
        (u32::from_le_bytes(*crc) == masked(crc32c(data))).then_some((data, rest))
    }
    let mut records = vec![];
    while !bytes.is_empty() {
        let (length, rest) = checked(bytes, 8)?;
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let (data, rest) = checked(rest, usize::try_from(length).ok()?)?;
        records.push(data);
        bytes = rest;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_the_standard() {
        // RFC 3720, appendix B.4, and the check value of the catalogue of parametrised CRC algorithms.
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, expected) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn records_are_read_back_and_damage_is_found() {
        let mut bytes = framed(b"first");
        bytes.extend(framed(b""));
        bytes.extend(framed(&[7; 300]));
        assert_eq!(records(&bytes), Some(vec![&b"first"[..], b"", &[7; 300]]));
        assert_eq!(bytes.len(), 3 * 16 + 5 + 300);
        for index in 0..bytes.len() {
            bytes[index] ^= 0x10;
            assert_eq!(records(&bytes), None, "byte {index}");
            bytes[index] ^= 0x10;
        }
        assert_eq!(records(&bytes[..bytes.len() - 1]), None);
    }
}
