//! The markers before a JPEG's coded data (ITU-T T.81, Annex B), as far as the reduced decoder needs them.

/// The header of a sequential JPEG with Huffman coding, 8 bits a sample, and one scan of one or three components.
pub(super) struct Header<'a> {
    /// Width as stored, in pixels; may be 0.
    pub(super) width: usize,
    /// Height as stored, in pixels; may be 0.
    pub(super) height: usize,
    /// One, or three of which the second and third are sampled once in each direction.
    pub(super) components: Vec<Component<'a>>,
    /// Whether three components are red, green and blue, rather than luma and two of chroma.
    pub(super) rgb: bool,
    /// MCUs between two restart markers; 0 without.
    pub(super) restart_interval: usize,
    /// The TIFF structure in the last EXIF segment.
    pub(super) exif: Option<&'a [u8]>,
    /// All that follows the header.
    pub(super) coded: &'a [u8],
}

/// What the header says of a component.
#[derive(Clone, Copy)]
pub(super) struct Component<'a> {
    /// Blocks in an MCU, horizontally: 1 or 2.
    pub(super) horizontal: usize,
    /// Blocks in an MCU, vertically: 1 or 2.
    pub(super) vertical: usize,
    /// Steps of the quantization, in zigzag order.
    pub(super) quantization: &'a [u8; 64],
    /// The Huffman code of the first coefficient of a block.
    pub(super) dc: Code<'a>,
    /// The Huffman code of the others.
    pub(super) ac: Code<'a>,
}

/// A Huffman code as it is written (T.81, B.2.4.2).
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    /// How many codes have 1, 2 .. 16 bits.
    pub(super) counts: &'a [u8; 16],
    /// The symbols in the order of their codes: as many as there are codes.
    pub(super) symbols: &'a [u8],
}

/// What the frame header says of a component: identifier, sampling, number of the quantization table.
type Frame = (u8, (usize, usize), u8);

/// Tables by their numbers, and what else comes before the scan.
#[derive(Default)]
struct Tables<'a> {
    quantization: [Option<&'a [u8; 64]>; 4],
    dc: [Option<Code<'a>>; 4],
    ac: [Option<Code<'a>>; 4],
}

impl<'a> Header<'a> {
    /// Reads up to the coded data. `None` for every other kind of JPEG, and for what is damaged.
    pub(super) fn read(file: &'a [u8]) -> Option<Self> {
        let mut rest = file.strip_prefix(&[0xff, 0xd8])?;
        let mut tables = Tables::default();
        let mut frame: Option<(usize, usize, Vec<Frame>)> = None;
        let mut adobe_transform = None;
        let mut restart_interval = 0;
        let mut exif = None;
        loop {
            let &[0xff, marker, ..] = rest else {
                return None;
            };
            // A marker may be preceded by any number of 0xff.
            if marker == 0xff {
                rest = &rest[1..];
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*rest.get(2..)?.first_chunk()?));
            let segment = rest.get(4..2 + length)?;
            rest = &rest[2 + length..];
            match marker {
                0xc0 | 0xc1 if frame.is_none() => frame = Some(read_frame(segment)?),
                0xc4 => tables.read_codes(segment)?,
                0xdb => tables.read_quantization(segment)?,
                0xdd => {
                    restart_interval = usize::from(u16::from_be_bytes(segment.try_into().ok()?));
                }
                0xda => {
                    let (width, height, frame) = frame?;
                    return Some(Self {
                        width,
                        height,
                        components: tables.read_scan(segment, &frame)?,
                        rgb: adobe_transform == Some(0)
                            || frame.iter().map(|(identifier, ..)| identifier).eq(b"RGB"),
                        restart_interval,
                        exif,
                        coded: rest,
                    });
                }
                0xe1 => exif = segment.strip_prefix(b"Exif\0\0").or(exif),
                0xee if segment.starts_with(b"Adobe") => {
                    adobe_transform = Some(*segment.get(11).filter(|transform| **transform <= 2)?);
                }
                // Application data and comments.
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
        }
    }
}

/// Width, height and components of a frame header (T.81, B.2.2).
fn read_frame(segment: &[u8]) -> Option<(usize, usize, Vec<Frame>)> {
    let (&[8, h1, h2, w1, w2, count], components) = segment.split_first_chunk()? else {
        return None;
    };
    let (components, rest) = components.as_chunks::<3>();
    if components.len() != usize::from(count) || !rest.is_empty() {
        return None;
    }
    let mut frame: Vec<Frame> = components
        .iter()
        .map(|&[identifier, sampling, table]| {
            let sampling = (usize::from(sampling >> 4), usize::from(sampling & 15));
            (identifier, sampling, table)
        })
        .collect();
    match frame.as_mut_slice() {
        // The blocks of a single component come row by row, whatever its sampling.
        [(_, sampling, _)] => *sampling = (1, 1),
        [(_, (1 | 2, 1 | 2), _), (_, (1, 1), _), (_, (1, 1), _)] => {}
        _ => return None,
    }
    let side = |bytes| usize::from(u16::from_be_bytes(bytes));
    Some((side([w1, w2]), side([h1, h2]), frame))
}

impl<'a> Tables<'a> {
    /// Huffman codes (T.81, B.2.4.2).
    fn read_codes(&mut self, mut segment: &'a [u8]) -> Option<()> {
        while let Some((&kind, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk()?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let codes = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *codes.get_mut(usize::from(kind & 15))? = Some(Code { counts, symbols });
            segment = rest;
        }
        Some(())
    }

    /// Quantization tables of 8 bits a step (T.81, B.2.4.1).
    fn read_quantization(&mut self, segment: &'a [u8]) -> Option<()> {
        let (tables, rest) = segment.as_chunks::<65>();
        for table in tables {
            let (&number, steps) = table.split_first()?;
            *self.quantization.get_mut(usize::from(number))? = Some(steps.try_into().ok()?);
        }
        rest.is_empty().then_some(())
    }

    /// The scan header (T.81, B.2.3): it must list all components of the frame.
    fn read_scan(&self, segment: &[u8], frame: &[Frame]) -> Option<Vec<Component<'a>>> {
        let (&count, rest) = segment.split_first()?;
        let (selectors, rest) = rest.split_at_checked(2 * usize::from(count))?;
        // All coefficients, to their last bit.
        if rest != [0, 63, 0] || frame.len() != usize::from(count) {
            return None;
        }
        let component = |(selector, frame): (&[u8; 2], &Frame)| {
            let &(identifier, (horizontal, vertical), quantization) = frame;
            let &[selected, codes] = selector;
            (selected == identifier).then_some(())?;
            Some(Component {
                horizontal,
                vertical,
                quantization: (*self.quantization.get(usize::from(quantization))?)?,
                dc: (*self.dc.get(usize::from(codes >> 4))?)?,
                ac: (*self.ac.get(usize::from(codes & 15))?)?,
            })
        };
        let selectors = selectors.as_chunks::<2>().0;
        selectors.iter().zip(frame).map(component).collect()
    }
}
