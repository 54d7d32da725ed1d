//! YUYV, what most USB cameras give -> RGB.
#![cfg_attr(
    not(target_pointer_width = "64"),
    allow(dead_code, reason = "no camera is read there")
)]

use graft_shared::error::{Error, Result};
use graft_shared::preprocess::Pixels;

/// A picture as the camera wrote it: `height` rows of `stride` bytes. Two pixels beside each other are four bytes, the
/// first's luma, their blue difference, the second's luma, their red difference (V4L2_PIX_FMT_YUYV; ITU-R BT.601 in the
/// limited range, 16 to 235, as USB cameras have it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Yuyv {
    width: usize,
    height: usize,
    stride: usize,
    data: Vec<u8>,
}

impl Yuyv {
    /// # Errors
    /// When the width is odd, or `data` is too short for the rows.
    pub(crate) fn new(width: usize, height: usize, stride: usize, data: Vec<u8>) -> Result<Self> {
        let rows = height.checked_mul(stride);
        if width == 0 || height == 0 || width % 2 == 1 || stride < 2 * width || rows.is_none() {
            return Err(Error::new(format!(
                "{width} x {height} pixels in rows of {stride} bytes are no YUYV picture"
            )));
        }
        if rows.is_none_or(|rows| data.len() < rows) {
            return Err(Error::new(format!(
                "the camera gave {} bytes for {height} rows of {stride}",
                data.len()
            )));
        }
        Ok(Self {
            width,
            height,
            stride,
            data,
        })
    }

    /// In red, green and blue, by BT.601's matrix in integers of 1/256.
    pub(crate) fn pixels(&self) -> Pixels {
        let rows = self.data.chunks_exact(self.stride).take(self.height);
        let pairs = rows.flat_map(|row| row[..2 * self.width].chunks_exact(4));
        let data = pairs.flat_map(|pair| {
            let (blue, red) = (i32::from(pair[1]) - 128, i32::from(pair[3]) - 128);
            let colour = |luma: u8| {
                let luma = 298 * (i32::from(luma) - 16) + 128;
                [
                    luma + 409 * red,
                    luma - 100 * blue - 208 * red,
                    luma + 516 * blue,
                ]
            };
            let (first, second) = (colour(pair[0]), colour(pair[2]));
            first
                .into_iter()
                .chain(second)
                .map(|value| (value >> 8).clamp(0, 255) as u8)
        });
        Pixels {
            width: self.width,
            height: self.height,
            data: data.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// BT.601 in the limited range, in real numbers.
    fn exact(luma: u8, blue: u8, red: u8) -> [f64; 3] {
        let luma = (f64::from(luma) - 16.0) * 255.0 / 219.0;
        let (blue, red) = (f64::from(blue) - 128.0, f64::from(red) - 128.0);
        let (blue, red) = (blue * 255.0 / 224.0, red * 255.0 / 224.0);
        [
            luma + 1.402 * red,
            luma - 0.344_136 * blue - 0.714_136 * red,
            luma + 1.772 * blue,
        ]
    }

    #[test]
    fn colours_are_those_of_bt601() {
        for (luma, blue, red) in (0..=255)
            .step_by(15)
            .flat_map(|y| (0..=255).step_by(17).map(move |u| (y, u)))
            .flat_map(|(y, u)| (0..=255).step_by(17).map(move |v| (y, u, v)))
        {
            let yuyv = Yuyv::new(2, 1, 4, vec![luma, blue, 16, red]).unwrap();
            let pixels = yuyv.pixels();
            for (got, exact) in pixels.data.iter().zip(exact(luma, blue, red)) {
                let error = f64::from(*got) - exact.clamp(0.0, 255.0);
                assert!(error.abs() <= 1.0, "{luma} {blue} {red}: {got}, {exact}");
            }
        }
        let white_and_black = Yuyv::new(2, 1, 4, vec![235, 128, 16, 128]).unwrap();
        assert_eq!(white_and_black.pixels().data, [255, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn rows_may_be_longer_than_their_pixels() {
        let data = [[16, 128, 235, 128, 7, 7], [235, 128, 16, 128, 7, 7]].concat();
        let pixels = Yuyv::new(2, 2, 6, data.clone()).unwrap().pixels();
        let (black, white) = ([0; 3], [255; 3]);
        assert_eq!(pixels.data, [black, white, white, black].concat());
        for (width, height, stride) in [(3, 2, 6), (0, 2, 6), (2, 0, 6), (2, 3, 6), (4, 2, 6)] {
            let wrong = Yuyv::new(width, height, stride, data.clone());
            assert!(wrong.is_err(), "{width} x {height}, {stride}");
        }
        assert!(Yuyv::new(2, usize::MAX, 6, data).is_err());
    }
}
