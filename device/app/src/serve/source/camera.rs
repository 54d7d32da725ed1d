//! A camera of the system: opened anew when it fails, such as when it is unplugged.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use graft_shared::error::{Error, Result};

use super::Latest;
#[cfg(target_pointer_width = "64")]
use super::video;

/// Pixels along one side, at most.
pub(super) const MOST_SIDE: u32 = 8_192;

/// A camera, and the size of its frames in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Camera {
    pub(crate) path: PathBuf,
    pub(crate) size: Size,
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            width: 640,
            height: 480,
        }
    }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('x').and_then(|(width, height)| {
            let side = |text: &str| text.parse().ok().filter(|n| (1..=MOST_SIDE).contains(n));
            Some(Self {
                width: side(width)?,
                height: side(height)?,
            })
        });
        parsed.ok_or_else(|| {
            Error::new(format!("the camera's size is `{text}`"))
                .hint("write WIDTHxHEIGHT in pixels, such as 1280x720")
        })
    }
}

/// Starts a thread that reads frames from the camera.
///
/// # Errors
/// When the system gives no thread.
#[cfg(target_pointer_width = "64")]
pub(crate) fn start(camera: Camera, latest: Arc<Latest>) -> Result<()> {
    video::start(camera, latest)
}

/// # Errors
/// Always: the library that reads cameras knows 64-bit systems alone.
#[cfg(not(target_pointer_width = "64"))]
pub(crate) fn start(camera: Camera, _: Arc<Latest>) -> Result<()> {
    let path = camera.path.display();
    Err(
        Error::new("a 32-bit system's camera can't be read directly").hint(format!(
            "read it with --command 'ffmpeg -nostdin -loglevel error -f v4l2 -i {path} -f mjpeg -'"
        )),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_size_is_two_numbers() {
        let size: Size = "1280x720".parse().unwrap();
        assert_eq!((size.width, size.height), (1280, 720));
        for wrong in ["", "640", "640x", "0x480", "640x9000", "640x480x3", "-1x1"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
