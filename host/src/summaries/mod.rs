//! TensorBoard event files: what a training run tells while it runs, as curves, histograms and pictures.
//!
//! A folder of summaries has the sub-folders `train` and `validation`, which TensorBoard shows as two runs in one chart.
//! Nothing in it is ever overwritten or deleted: who continues a run adds files.

mod histogram;
mod proto;
mod record;

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use graft_shared::error::{Context, Error, Result};
use image::{ExtendedColorType, ImageFormat};
use prost::Message;

use histogram::histogram;
use proto::{Event, Image, Summary, Value, event, value};

/// What an event file says first: the version of its format.
const FILE_VERSION: &str = "brain.Event:2";

/// The event files of one training run, open for writing.
///
/// A name beginning with `validation/` goes to the sub-folder `validation`, any other to `train`; its tag is the name
/// without that beginning, so that `train/loss` and `validation/loss` are two curves of one chart. Steps count from 0.
#[derive(Debug)]
pub struct Summaries {
    train: EventFile,
    validation: EventFile,
}

impl Summaries {
    /// Opens a new event file in `folder/train` and one in `folder/validation`, and makes the folders they need.
    ///
    /// # Errors
    /// When a folder or a file can't be made.
    pub fn create(folder: &Path) -> Result<Self> {
        Ok(Self {
            train: EventFile::create(&folder.join("train"))?,
            validation: EventFile::create(&folder.join("validation"))?,
        })
    }

    /// A point of a curve.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn scalar(&mut self, step: u64, name: &str, value: f32) -> Result<()> {
        self.add(step, name, value::Content::Scalar(value))
    }

    /// How `values` are distributed; those that are not finite are left out.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn histogram(&mut self, step: u64, name: &str, values: &[f32]) -> Result<()> {
        self.add(step, name, value::Content::Histogram(histogram(values)))
    }

    /// A picture of `width` x `height` pixels, row by row, each red, green, blue.
    ///
    /// # Errors
    /// When `rgb` holds another number of pixels, or the picture can't be written.
    pub fn picture(
        &mut self,
        step: u64,
        name: &str,
        width: usize,
        height: usize,
        rgb: &[u8],
    ) -> Result<()> {
        let refused = || format!("`{name}` is no picture of {width} x {height} pixels");
        if width
            .checked_mul(height)
            .and_then(|area| area.checked_mul(3))
            != Some(rgb.len())
        {
            return Err(Error::new(refused()));
        }
        let (columns, rows) = u32::try_from(width)
            .and_then(|columns| Ok((columns, u32::try_from(height)?)))
            .with_context(refused)?;
        let mut png = Cursor::new(Vec::new());
        let colours = ExtendedColorType::Rgb8;
        image::write_buffer_with_format(&mut png, rgb, columns, rows, colours, ImageFormat::Png)
            .with_context(refused)?;
        let picture = Image {
            height: i32::try_from(height).with_context(refused)?,
            width: i32::try_from(width).with_context(refused)?,
            colorspace: proto::RGB,
            encoded_image_string: png.into_inner(),
        };
        self.add(step, name, value::Content::Image(picture))
    }

    /// Hands everything to the operating system, so that TensorBoard sees it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn flush(&mut self) -> Result<()> {
        self.train.flush()?;
        self.validation.flush()
    }

    fn add(&mut self, step: u64, name: &str, content: value::Content) -> Result<()> {
        let (file, tag) = match name.split_once('/') {
            Some(("validation", tag)) => (&mut self.validation, tag),
            Some(("train", tag)) => (&mut self.train, tag),
            _ => (&mut self.train, name),
        };
        let summary = Summary {
            value: vec![Value {
                tag: tag.to_owned(),
                content: Some(content),
            }],
        };
        file.add(step, event::What::Summary(summary))
    }
}

/// One `events.out.tfevents.*`.
#[derive(Debug)]
struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventFile {
    /// A new file in `folder`, whose name sorts after those of earlier seconds: TensorBoard reads them in that order.
    fn create(folder: &Path) -> Result<Self> {
        let failed = || format!("can't make an event file in `{}`", folder.display());
        fs::create_dir_all(folder).with_context(failed)?;
        let seconds = now().as_secs();
        let mut number = 0;
        let (path, file) = loop {
            let process = std::process::id();
            let name = format!("events.out.tfevents.{seconds:010}.graft.{process}.{number}");
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::new(failed()).source(error)),
            }
        };
        let file = BufWriter::new(file);
        let mut events = Self { path, file };
        events.add(0, event::What::FileVersion(FILE_VERSION.to_owned()))?;
        events.flush()?;
        Ok(events)
    }

    fn add(&mut self, step: u64, what: event::What) -> Result<()> {
        let event = Event {
            wall_time: now().as_secs_f64(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(what),
        };
        self.file
            .write_all(&record::framed(&event.encode_to_vec()))
            .with_context(|| format!("can't write `{}`", self.path.display()))
    }

    fn flush(&mut self) -> Result<()> {
        self.file
            .flush()
            .with_context(|| format!("can't write `{}`", self.path.display()))
    }
}

/// Since 1970-01-01 UTC; nothing on a clock that is set before.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// The events of every file in `folder`, in the order of their names.
    fn events(folder: &Path) -> Vec<Event> {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let decode = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap();
            let records = record::records(&bytes).unwrap();
            let events = records.into_iter().map(|data| Event::decode(data).unwrap());
            events.collect::<Vec<_>>()
        };
        paths.iter().flat_map(decode).collect()
    }

    fn summary(event: &Event) -> (i64, &str, &value::Content) {
        let Some(event::What::Summary(summary)) = &event.what else {
            panic!("no summary: {event:?}");
        };
        let [value] = &summary.value[..] else {
            panic!("one value each: {summary:?}");
        };
        (event.step, &value.tag, value.content.as_ref().unwrap())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut summaries = Summaries::create(folder.path()).unwrap();
        summaries.scalar(3, "train/loss", 0.25).unwrap();
        summaries.scalar(3, "validation/loss", 0.5).unwrap();
        summaries
            .histogram(4, "weights/head", &[-1.0, 1.0])
            .unwrap();
        let rgb = [255, 0, 0, 0, 255, 0];
        summaries.picture(5, "train/batch", 2, 1, &rgb).unwrap();
        summaries.picture(5, "train/batch", 2, 2, &rgb).unwrap_err();
        summaries.flush().unwrap();

        let train = events(&folder.path().join("train"));
        let version = event::What::FileVersion(FILE_VERSION.into());
        assert_eq!(train[0].what, Some(version));
        assert!(train[0].wall_time > 1.7e9);
        assert_eq!(
            summary(&train[1]),
            (3, "loss", &value::Content::Scalar(0.25))
        );
        let (step, tag, content) = summary(&train[2]);
        assert_eq!((step, tag), (4, "weights/head"));
        assert_eq!(content, &value::Content::Histogram(histogram(&[-1.0, 1.0])));
        let (step, tag, content) = summary(&train[3]);
        let value::Content::Image(picture) = content else {
            panic!("no picture: {content:?}");
        };
        assert_eq!(
            (step, tag, picture.width, picture.height),
            (5, "batch", 2, 1)
        );
        let decoded = image::load_from_memory(&picture.encoded_image_string).unwrap();
        assert_eq!(decoded.into_rgb8().into_raw(), rgb);
        assert_eq!(train.len(), 4);

        let validation = events(&folder.path().join("validation"));
        assert_eq!(
            summary(&validation[1]),
            (3, "loss", &value::Content::Scalar(0.5))
        );
    }

    #[test]
    fn a_continued_run_adds_files() {
        let folder = tempfile::tempdir().unwrap();
        for step in 0..3 {
            let mut summaries = Summaries::create(folder.path()).unwrap();
            summaries.scalar(step, "train/loss", 1.0).unwrap();
        }
        let steps: Vec<i64> = events(&folder.path().join("train"))
            .iter()
            .filter(|event| matches!(event.what, Some(event::What::Summary(_))))
            .map(|event| event.step)
            .collect();
        assert_eq!(steps, [0, 1, 2]);
    }
}
