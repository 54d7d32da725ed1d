//! A JPEG encoder for tests: sequential, any sampling, Huffman codes of any shape, restart markers.

/// What kind of file to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Sampling of each component, horizontal and vertical.
    pub(crate) sampling: &'static [(usize, usize)],
    /// MCUs between restart markers; 0 for none.
    pub(crate) restart_interval: usize,
    /// Whether most codes have 16 bits, rather than all 8.
    pub(crate) long_codes: bool,
    /// The step of every coefficient.
    pub(crate) step: u8,
    /// The colour transform in Adobe's segment, if there is one.
    pub(crate) adobe: Option<u8>,
    /// Identifiers of the components.
    pub(crate) identifiers: [u8; 3],
}

pub(crate) const YCBCR_420: Kind = Kind {
    width: 150,
    height: 101,
    sampling: &[(2, 2), (1, 1), (1, 1)],
    restart_interval: 0,
    long_codes: false,
    step: 4,
    adobe: None,
    identifiers: [1, 2, 3],
};

const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Writes a file of what `sample` gives for component, x and y, also beyond the edges.
pub(crate) fn jpeg(kind: &Kind, sample: impl Fn(usize, usize, usize) -> u8) -> Vec<u8> {
    let Kind {
        width,
        height,
        sampling,
        restart_interval,
        ..
    } = *kind;
    let across = sampling.iter().map(|(across, _)| *across).max().unwrap();
    let down = sampling.iter().map(|(_, down)| *down).max().unwrap();
    let mut file = header(kind);
    let mut bits = Bits::default();
    let mut before = [0; 4];
    let mcus = width.div_ceil(8 * across);
    for mcu in 0..mcus * height.div_ceil(8 * down) {
        if restart_interval > 0 && mcu > 0 && mcu % restart_interval == 0 {
            file.extend(bits.finished());
            let number = mcu / restart_interval - 1;
            file.extend([0xff, 0xd0 | (number % 8) as u8]);
            before = [0; 4];
        }
        for (component, &(horizontal, vertical)) in sampling.iter().enumerate() {
            let (wide, high) = (across / horizontal, down / vertical);
            for block in 0..horizontal * vertical {
                let left = (mcu % mcus * horizontal + block % horizontal) * 8;
                let top = (mcu / mcus * vertical + block / horizontal) * 8;
                // The mean of the pixels that a sample stands for.
                let mean = |x: usize, y: usize| {
                    let pixels = (0..wide * high).map(|index| {
                        let (x, y) = (x * wide + index % wide, y * high + index / wide);
                        f64::from(sample(component, x, y))
                    });
                    pixels.sum::<f64>() / (wide * high) as f64 - 128.0
                };
                let samples: Vec<f64> = (0..64)
                    .map(|index| mean(left + index % 8, top + index / 8))
                    .collect();
                let block = transformed(&samples, kind.step);
                bits.push_block(&block, &mut before[component], kind.long_codes);
            }
        }
    }
    file.extend(bits.finished());
    file.extend([0xff, 0xd9]);
    file
}

fn header(kind: &Kind) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8];
    let mut segment = |marker: u8, content: &[u8]| {
        file.extend([0xff, marker]);
        file.extend((content.len() as u16 + 2).to_be_bytes());
        file.extend(content);
    };
    if let Some(transform) = kind.adobe {
        segment(0xee, &[&b"Adobe\0\x64\0\0\0\0"[..], &[transform]].concat());
    }
    segment(0xdb, &[&[0], &[kind.step; 64][..]].concat());
    let (height, width) = (kind.height as u16, kind.width as u16);
    let mut frame = vec![8];
    frame.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    frame.push(kind.sampling.len() as u8);
    let mut scan = vec![kind.sampling.len() as u8];
    for (identifier, (across, down)) in kind.identifiers.iter().zip(kind.sampling) {
        frame.extend([*identifier, (across << 4 | down) as u8, 0]);
        scan.extend([*identifier, 0]);
    }
    segment(0xc0, &frame);
    let (counts, _) = code(0, kind.long_codes);
    let dc: Vec<u8> = (0..12).collect();
    segment(0xc4, &[&[0], &counts[0][..], &dc].concat());
    segment(0xc4, &[&[0x10], &counts[1][..], &symbols()].concat());
    if kind.restart_interval > 0 {
        segment(0xdd, &(kind.restart_interval as u16).to_be_bytes());
    }
    scan.extend([0, 63, 0]);
    segment(0xda, &scan);
    file
}

/// All symbols that coefficients but the first may have.
fn symbols() -> Vec<u8> {
    let values = (0..16).flat_map(|zeros| (1..=10).map(move |size| zeros << 4 | size));
    [0, 0xf0].into_iter().chain(values).collect()
}

/// How many codes there are of each length, of the first coefficient and of the others; and the code of the symbol at
/// `place` of the others, with its length.
fn code(place: usize, long_codes: bool) -> ([[u8; 16]; 2], (u32, usize)) {
    let mut counts = [[0; 16]; 2];
    counts[0][3] = 12;
    if !long_codes {
        counts[1][7] = 162;
        return (counts, (place as u32, 8));
    }
    // One code each of 2, 3, 4 and 5 bits: 00, 010, 0110, 01110.
    counts[1][1..5].fill(1);
    counts[1][15] = 158;
    let code = match place {
        0..4 => ((1 << (place + 1)) - 2, place + 2),
        _ => ((0b01111 << 11) + place as u32 - 4, 16),
    };
    (counts, code)
}

/// The quantized cosine transform of 8 x 8 samples, in zigzag order (T.81, A.3.3).
fn transformed(samples: &[f64], step: u8) -> [i32; 64] {
    let waves: [[f64; 8]; 8] = std::array::from_fn(|frequency| {
        let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 };
        std::array::from_fn(|at| {
            let angle = ((2 * at + 1) * frequency) as f64 * std::f64::consts::PI / 16.0;
            scale * angle.cos() / 2.0
        })
    });
    ZIGZAG.map(|place| {
        let (u, v) = (place % 8, place / 8);
        let sum: f64 = samples
            .iter()
            .enumerate()
            .map(|(index, sample)| sample * waves[u][index % 8] * waves[v][index / 8])
            .sum();
        (sum / f64::from(step)).round() as i32
    })
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    last: u32,
    count: usize,
}

impl Bits {
    /// The highest bit first.
    fn push(&mut self, value: u32, count: usize) {
        for bit in (0..count).rev() {
            self.last = self.last << 1 | (value >> bit & 1);
            self.count += 1;
            if self.count == 8 {
                self.bytes.push(self.last as u8);
                if self.last == 0xff {
                    self.bytes.push(0);
                }
                (self.last, self.count) = (0, 0);
            }
        }
    }

    fn push_value(&mut self, value: i32, size: usize) {
        let value = if value < 0 { value - 1 } else { value };
        self.push(value as u32 & ((1 << size) - 1), size);
    }

    fn push_block(&mut self, block: &[i32; 64], before: &mut i32, long_codes: bool) {
        let symbols = symbols();
        let push_symbol = |bits: &mut Self, symbol: u8| {
            let place = symbols.iter().position(|found| *found == symbol).unwrap();
            let (_, (code, length)) = code(place, long_codes);
            bits.push(code, length);
        };
        let difference = block[0] - *before;
        *before = block[0];
        let size = (32 - difference.unsigned_abs().leading_zeros()) as usize;
        self.push(size as u32, 4);
        self.push_value(difference, size);
        let mut zeros = 0;
        for &value in &block[1..] {
            if value == 0 {
                zeros += 1;
                continue;
            }
            while zeros > 15 {
                push_symbol(self, 0xf0);
                zeros -= 16;
            }
            let size = (32 - value.unsigned_abs().leading_zeros()) as usize;
            push_symbol(self, (zeros << 4 | size) as u8);
            self.push_value(value, size);
            zeros = 0;
        }
        if zeros > 0 {
            push_symbol(self, 0);
        }
    }

    /// All bytes, the last filled with ones.
    fn finished(&mut self) -> Vec<u8> {
        while self.count > 0 {
            self.push(1, 1);
        }
        std::mem::take(&mut self.bytes)
    }
}
