//! Repeatable random numbers, and how many cases are made of them.

use graft_kernels::Quantization;

/// A small generator of repeatable numbers (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    pub(crate) fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
    /// Mostly small, now and then up to `high`.
    pub(crate) fn size(&mut self, high: usize) -> usize {
        let high = if self.below(4) == 0 {
            high
        } else {
            high.min(20)
        };
        self.range(1, high)
    }
    pub(crate) fn scale(&mut self, magnitude: f32) -> f32 {
        magnitude * (0.5 + (self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }
    pub(crate) fn quantization(&mut self, magnitude: f32) -> Quantization {
        Quantization {
            scale: self.scale(magnitude),
            zero_point: *self.pick(&[0, 255, self.0 as u8, (self.0 >> 8) as u8]),
        }
    }
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
    pub(crate) fn noise(&mut self, n: usize) -> Vec<u8> {
        let mut noise = Vec::with_capacity(n.next_multiple_of(8));
        while noise.len() < n {
            noise.extend_from_slice(&self.next().to_le_bytes());
        }
        noise.truncate(n);
        noise
    }
    /// All values, or only those near an end.
    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = self.noise(n);
        match self.below(4) {
            0 => bytes.iter_mut().for_each(|byte| *byte |= 0xfc),
            1 => bytes.iter_mut().for_each(|byte| *byte &= 3),
            _ => {}
        }
        bytes
    }
    /// All values, seven bits, or only the extremes.
    pub(crate) fn weights(&mut self, n: usize) -> Vec<i8> {
        let weight: fn(u8) -> i8 = match self.below(4) {
            0 => |byte| [i8::MIN, i8::MAX][usize::from(byte & 1)],
            1 => |byte| byte as i8 / 2,
            2 => |byte| if byte & 3 == 0 { 1 } else { i8::MAX },
            _ => |byte| byte as i8,
        };
        self.noise(n).into_iter().map(weight).collect()
    }
    pub(crate) fn biases(&mut self, n: usize) -> Vec<i32> {
        (0..n).map(|_| i32::from(self.next() as i16)).collect()
    }
}

/// Runs `test` on as many random cases as asked for; says how to repeat one that fails.
pub(crate) fn cases(kind: u64, default: u64, mut test: impl FnMut(&mut Random)) {
    let number = |name| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    let cases = number("GRAFT_FUZZ_CASES").unwrap_or(default);
    let seed = number("GRAFT_FUZZ_SEED").unwrap_or(0);
    for case in seed..seed + cases {
        let running = Case(case);
        test(&mut Random(case * 16 + kind));
        drop(running);
    }
}

/// The case that is running.
struct Case(u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("GRAFT_FUZZ_SEED={} GRAFT_FUZZ_CASES=1 repeats it", self.0);
        }
    }
}
