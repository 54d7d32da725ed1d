//! Where pictures come from beside HTTP. Each source is a thread that reads; what it reads goes through [`Latest`] or, where
//! none may be lost, through a channel.
//!
//! | module | duty |
//! |---|---|
//! | `camera` | a camera of the system, opened anew when it fails |
//! | `video` | its frames, by Video4Linux |
//! | `yuyv` | its pixels in RGB |
//! | `command` | a child process that writes frames, started anew when it ends |
//! | `frames` | a stream of bytes -> frames, MJPEG or raw |
//! | `huffman` | cameras' JPEGs without Huffman tables, made whole |
//! | `folder` | files that appear in a folder |

pub(crate) mod camera;
pub(crate) mod command;
pub(crate) mod folder;
pub(crate) mod frames;
mod huffman;
#[cfg(target_pointer_width = "64")]
mod video;
mod yuyv;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use graft_shared::error::{Context, Error, Result};
use graft_shared::preprocess::Pixels;
use tokio::sync::{Notify, mpsc};

use self::yuyv::Yuyv;
use crate::serve::http::metrics::Counter;

/// A picture as its source gave it.
#[derive(Debug)]
pub(crate) enum Picture {
    /// The bytes of an image file.
    File(Vec<u8>),
    /// RGB8.
    Pixels(Pixels),
    /// As a camera gave it: most frames are left out before anybody wants them in RGB.
    Yuyv(Yuyv),
}

/// A picture's bytes or pixels.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    File(&'a [u8]),
    Pixels(Cow<'a, Pixels>),
}

impl Picture {
    pub(crate) fn content(&self) -> Content<'_> {
        match self {
            Self::File(bytes) => Content::File(bytes),
            Self::Pixels(pixels) => Content::Pixels(Cow::Borrowed(pixels)),
            Self::Yuyv(yuyv) => Content::Pixels(Cow::Owned(yuyv.pixels())),
        }
    }

    /// The bytes of an image file that shows it, and their media type.
    ///
    /// # Errors
    /// When pixels can't be encoded.
    pub(crate) fn file(&self) -> Result<(Vec<u8>, &'static str)> {
        match self.content() {
            Content::File(bytes) if bytes.starts_with(&[0xff, 0xd8]) => {
                Ok((bytes.to_vec(), "image/jpeg"))
            }
            Content::File(bytes) => Ok((bytes.to_vec(), "application/octet-stream")),
            Content::Pixels(pixels) => {
                let mut file = std::io::Cursor::new(Vec::new());
                image::write_buffer_with_format(
                    &mut file,
                    &pixels.data,
                    pixels.width as u32,
                    pixels.height as u32,
                    image::ExtendedColorType::Rgb8,
                    image::ImageFormat::Png,
                )
                .context("can't encode the PNG")?;
                Ok((file.into_inner(), "image/png"))
            }
        }
    }
}

/// A picture, and where and when it came in.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) picture: Picture,
    /// The path of a file.
    pub(crate) path: Option<String>,
    pub(crate) time: SystemTime,
}

impl Frame {
    pub(crate) fn now(picture: Picture) -> Self {
        Self {
            picture,
            path: None,
            time: SystemTime::now(),
        }
    }
}

/// The newest frame: one that nobody took in time is dropped for the next.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    frame: Mutex<Option<Frame>>,
    filled: Notify,
    pub(crate) seen: Counter,
    pub(crate) dropped: Counter,
}

impl Latest {
    pub(crate) fn put(&self, frame: Frame) {
        self.seen.count();
        let mut place = self.frame.lock().unwrap_or_else(PoisonError::into_inner);
        if place.replace(frame).is_some() {
            self.dropped.count();
        }
        self.filled.notify_one();
    }

    async fn take(&self) -> Frame {
        loop {
            let frame = self
                .frame
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            match frame {
                Some(frame) => return frame,
                None => self.filled.notified().await,
            }
        }
    }
}

/// The receiving end of a source.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A camera or its like: only what is new matters.
    Live(Arc<Latest>),
    /// Files: each matters.
    Each(mpsc::Receiver<Frame>),
}

impl Incoming {
    /// The next frame; `None` when the source has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        match self {
            Self::Live(latest) => Some(latest.take().await),
            Self::Each(receiver) => receiver.recv().await,
        }
    }
}

/// A rectangle of a fixed camera's pictures, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl std::str::FromStr for Region {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[left, top, width, height]) if width > 0 && height > 0 => Ok(Self {
                left,
                top,
                width,
                height,
            }),
            _ => Err(Error::new(format!("the region is `{text}`"))
                .hint("write left, top, width and height in pixels, such as 640,120,400,400")),
        }
    }
}

impl Region {
    /// That part of a picture.
    ///
    /// # Errors
    /// When it is not in the picture.
    pub(crate) fn of(&self, pixels: &Pixels) -> Result<Pixels> {
        let right = self.left.checked_add(self.width);
        let bottom = self.top.checked_add(self.height);
        let inside = right.is_some_and(|right| right <= pixels.width)
            && bottom.is_some_and(|bottom| bottom <= pixels.height);
        if !inside {
            return Err(Error::new(format!(
                "the region {},{},{},{} is not in a picture of {} x {} pixels",
                self.left, self.top, self.width, self.height, pixels.width, pixels.height
            )));
        }
        let rows = pixels.data.chunks_exact(pixels.width * 3);
        let row = |row: &[u8]| row[self.left * 3..][..self.width * 3].to_vec();
        Ok(Pixels {
            width: self.width,
            height: self.height,
            data: rows
                .skip(self.top)
                .take(self.height)
                .flat_map(row)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_region_is_a_part_of_the_picture() {
        let pixels = Pixels {
            width: 4,
            height: 3,
            data: (0..36).collect(),
        };
        let part = "1,2,2,1".parse::<Region>().unwrap().of(&pixels).unwrap();
        assert_eq!((part.width, part.height), (2, 1));
        assert_eq!(part.data, (27..33).collect::<Vec<u8>>());
        let whole = "0,0,4,3".parse::<Region>().unwrap().of(&pixels).unwrap();
        assert_eq!(whole, pixels);
        for outside in ["1,0,4,3", "0,3,1,1", "18446744073709551615,0,1,1"] {
            let region = outside.parse::<Region>().unwrap();
            assert!(region.of(&pixels).is_err(), "{outside}");
        }
        for wrong in ["", "1,2,3", "1,2,3,0", "1,2,3,4,5", "a,b,c,d", "-1,0,2,2"] {
            assert!(wrong.parse::<Region>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_latest_frame_takes_the_place_of_the_one_before() {
        let latest = Latest::default();
        for byte in 0..3 {
            latest.put(Frame::now(Picture::File(vec![byte])));
        }
        assert_eq!((latest.seen.get(), latest.dropped.get()), (3, 2));
    }
}
