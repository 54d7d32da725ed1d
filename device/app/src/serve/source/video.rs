//! Video4Linux: what a camera offers, and its frames.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use graft_shared::error::{Context, Error, Result};
use linuxvideo::format::{PixFormat, PixelFormat};
use linuxvideo::stream::ReadStream;
use linuxvideo::{BufType, CapabilityFlags, Device};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::camera::{Camera, MOST_SIDE, Size};
use super::huffman;
use super::yuyv::Yuyv;
use super::{Frame, Latest, Picture};
use crate::say;
use crate::serve::pause::Pause;

/// A camera that gives no frame for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pixels up to which YUYV goes before MJPEG: 30 frames of it in a second fit through USB 2.
const MOST_YUYV_PIXELS: u32 = 640 * 480;

/// Starts a thread that reads frames from the camera.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(camera: Camera, latest: Arc<Latest>) -> Result<()> {
    thread::Builder::new()
        .name("source".to_owned())
        .spawn(move || keep_reading(&camera, &latest))
        .context("can't start a thread for the camera")?;
    Ok(())
}

fn keep_reading(camera: &Camera, latest: &Latest) -> ! {
    let mut pause = Pause::default();
    loop {
        // What its driver says goes through assertions of the library.
        let read = catch_unwind(AssertUnwindSafe(|| read(camera, latest)));
        let failed = match read {
            Ok(Ok(never)) => match never {},
            Ok(Err(error)) => error,
            Err(_) => Error::new("its driver's answers make no sense"),
        };
        let wait = pause.next();
        say(&format!(
            "can't read the camera {}: {}; tried again in {} s",
            camera.path.display(),
            failed.line(),
            wait.as_secs()
        ));
        thread::sleep(wait);
    }
}

/// Reads frames until the camera fails.
fn read(camera: &Camera, latest: &Latest) -> Result<Infallible> {
    let (layout, mut stream) = open(camera)?;
    say(&format!(
        "the camera {} gives {}, {} x {} pixels",
        camera.path.display(),
        name(layout.format),
        layout.width,
        layout.height,
    ));
    loop {
        wait_for_frame(&stream)?;
        let frame = stream
            .dequeue(|view| Ok((!view.is_error()).then(|| view.to_vec())))
            .context("no frame")?;
        // What the driver marks as damaged is none.
        if let Some(data) = frame {
            latest.put(Frame::now(layout.picture(data)?));
        }
    }
}

/// How the camera's frames lie in memory.
#[derive(Debug)]
struct Layout {
    format: PixelFormat,
    /// In pixels.
    width: usize,
    height: usize,
    /// Bytes of a row.
    stride: usize,
}

fn open(camera: &Camera) -> Result<(Layout, ReadStream)> {
    let device = Device::open(&camera.path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "look for it in the output of `v4l2-ctl --list-devices`",
            io::ErrorKind::PermissionDenied => {
                "the user needs to be in the group `video`; the unit needs the drop-in camera.conf"
            }
            _ => "is it a video device?",
        };
        Error::new("can't open it").source(error).hint(hint)
    })?;
    let capabilities = device
        .capabilities()
        .context("it does not say what it is")?;
    let needed = CapabilityFlags::VIDEO_CAPTURE | CapabilityFlags::STREAMING;
    if !capabilities.device_capabilities().contains(needed) {
        return Err(Error::new("it gives no frames").hint(
            "a camera has several devices, and one that gives frames; one on the board's own connector is read \
             with --command 'rpicam-vid …'",
        ));
    }
    let offered = device
        .formats(BufType::VIDEO_CAPTURE)
        .map(|format| format.map(|format| format.pixel_format()))
        .collect::<io::Result<Vec<_>>>()
        .context("it does not say what it gives")?;
    let wanted = choose(&offered, camera.size)?;
    let Size { width, height } = camera.size;
    let capture = device
        .video_capture(PixFormat::new(width, height, wanted))
        .context("it does not take the size")?;
    let got = capture.format();
    if got.pixel_format() != wanted || got.width() > MOST_SIDE || got.height() > MOST_SIDE {
        return Err(Error::new(format!(
            "it was asked for {} and gives {}, {} x {} pixels",
            name(wanted),
            name(got.pixel_format()),
            got.width(),
            got.height()
        )));
    }
    // The driver chose the nearest size that it has.
    let layout = Layout {
        format: wanted,
        width: got.width() as usize,
        height: got.height() as usize,
        stride: got.bytes_per_line() as usize,
    };
    let stream = capture.into_stream().context("it does not start")?;
    Ok((layout, stream))
}

/// Of what the camera gives, what is best for the size: large pictures come faster as MJPEG, small ones are whole as YUYV.
fn choose(offered: &[PixelFormat], size: Size) -> Result<PixelFormat> {
    let mut wanted = [PixelFormat::YUYV, PixelFormat::MJPG, PixelFormat::JPEG];
    if size.width * size.height > MOST_YUYV_PIXELS {
        wanted.rotate_left(1);
    }
    let found = wanted.into_iter().find(|wanted| offered.contains(wanted));
    found.ok_or_else(|| {
        let offered: Vec<_> = offered.iter().map(|&format| name(format)).collect();
        Error::new(format!(
            "it gives {}, neither YUYV nor MJPEG",
            offered.join(", ")
        ))
        .hint("read it with --command 'ffmpeg -f v4l2 -i /dev/video0 -f mjpeg -' or its like")
    })
}

/// A format's four letters.
fn name(format: PixelFormat) -> String {
    String::from_utf8_lossy(&format.as_fourcc())
        .trim_end()
        .escape_default()
        .to_string()
}

/// Waits until the camera has a frame, or something to complain of.
fn wait_for_frame(stream: &ReadStream) -> Result<()> {
    let timeout = Timespec::try_from(PATIENCE).context("no time to wait")?;
    loop {
        let mut sockets = [PollFd::new(stream, PollFlags::IN)];
        match poll(&mut sockets, Some(&timeout)) {
            Ok(0) => {
                return Err(Error::new(format!("no frame for {} s", PATIENCE.as_secs())));
            }
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::new("can't wait for it").source(error)),
        }
    }
}

impl Layout {
    /// # Errors
    /// When the camera gave less than a picture.
    fn picture(&self, data: Vec<u8>) -> Result<Picture> {
        Ok(if self.format == PixelFormat::YUYV {
            Picture::Yuyv(Yuyv::new(self.width, self.height, self.stride, data)?)
        } else {
            Picture::File(huffman::complete(data))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn small_frames_are_yuyv_and_large_ones_mjpeg() {
        let both = [
            PixelFormat::MJPG,
            PixelFormat::YUYV,
            PixelFormat::from_fourcc(*b"GREY"),
        ];
        let chosen = |size: &str| choose(&both, size.parse().unwrap()).unwrap();
        assert!(chosen("640x480") == PixelFormat::YUYV);
        assert!(chosen("1280x720") == PixelFormat::MJPG);
        let size = Size::default();
        assert!(choose(&both[..1], size).unwrap() == PixelFormat::MJPG);
        let refused = choose(&both[2..], size).unwrap_err();
        assert!(refused.line().contains("GREY"), "{}", refused.line());
    }
}
