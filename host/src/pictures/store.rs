//! The pixels of photos, decoded once: in memory while there is room, else in a file.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::mem::replace;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use graft_shared::decode::{Reduced, decode, decode_reduced};
use graft_shared::error::{Context, Error, Result};
use graft_shared::limits::MAX_INPUT_SIDE;
use graft_shared::preprocess::{Fit, Pixels, Preprocess};
use graft_shared::resize::{Window, resize};
use rayon::prelude::*;

use super::render::Normalisation;
use crate::features::Item;

/// Photos that are decoded before any of them is put into the store.
const PHOTOS_AT_ONCE: usize = 64;

/// The longer side of a kept photo is at most so many times the shorter one; of a longer photo the middle is kept.
const LONGEST: usize = 2;

/// Where a store may keep pixels.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    /// Bytes that it may take in memory.
    pub memory: u64,
    /// Folder for the file that holds the pixels where memory does not; it vanishes with the store.
    pub directory: &'a Path,
}

/// Pixels in memory, unless told otherwise: 400 photos for an input of 224 pixels. The file of more is mostly in memory
/// too, but the system may take that memory back.
pub const DEFAULT_MEMORY: u64 = 128 << 20;

/// What became of the photos.
#[derive(Debug)]
pub struct Loaded {
    /// One for each item that is not refused, in the items' order.
    pub pictures: Pictures,
    /// Items that can't be read, by index, in ascending order, and why.
    pub refused: Vec<(usize, Error)>,
}

/// Photos as RGB8.
#[derive(Debug)]
pub struct Pictures(Kept);

#[derive(Debug)]
enum Kept {
    Memory(Vec<Pixels>),
    File { file: File, places: Vec<Place> },
}

/// Where a photo lies in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    width: usize,
    height: usize,
}

impl Pictures {
    /// Photos for training: whole, as the preprocessing sees them, their shorter side 5/4 of the model's input, so that
    /// random crops are hardly enlarged.
    ///
    /// `progress` is told how many photos were finished since it was last called.
    ///
    /// # Errors
    /// An invalid spec, and a file of pixels that can't be written. A photo that can't be read is no error, it is in
    /// `refused`.
    pub fn for_training(
        items: &[Item],
        preprocess: &Preprocess,
        room: Room<'_>,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Loaded> {
        preprocess.validate()?;
        let picture = |bytes: &[u8]| whole(bytes, preprocess);
        load(items, &picture, room, progress)
    }

    /// Photos for evaluation: exactly the model's input.
    ///
    /// # Errors
    /// As [`Pictures::for_training`].
    pub fn for_evaluation(
        items: &[Item],
        preprocess: &Preprocess,
        room: Room<'_>,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Loaded> {
        preprocess.validate()?;
        let picture = |bytes: &[u8]| preprocess.apply(bytes);
        load(items, &picture, room, progress)
    }

    /// How many photos there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Memory(pictures) => pictures.len(),
            Kept::File { places, .. } => places.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A photo.
    ///
    /// # Errors
    /// A file that can't be read, and a photo that is not there.
    pub fn get(&self, index: usize) -> Result<Cow<'_, Pixels>> {
        let missing = || format!("photo {index} of {}", self.len());
        match &self.0 {
            Kept::Memory(pictures) => {
                let pixels = pictures.get(index).with_context(missing)?;
                Ok(Cow::Borrowed(pixels))
            }
            Kept::File { file, places } => {
                let place = places.get(index).with_context(missing)?;
                let mut data = vec![0; place.width * place.height * 3];
                file.read_exact_at(&mut data, place.offset)
                    .context("reading the decoded photos")?;
                Ok(Cow::Owned(Pixels {
                    width: place.width,
                    height: place.height,
                    data,
                }))
            }
        }
    }

    /// Photos `range` as a network's input, f32 `[n, 3, height, width]`, into `input`, whose memory is used again.
    ///
    /// # Errors
    /// A file that can't be read, and photos that are not all of one size, as those for evaluation are.
    pub fn normalised(
        &self,
        range: Range<usize>,
        normalisation: &Normalisation,
        input: &mut Vec<f32>,
    ) -> Result<()> {
        let Some(first) = range.clone().next() else {
            input.clear();
            return Ok(());
        };
        let values = self.get(first)?.data.len();
        input.resize(range.len() * values, 0.0);
        input
            .par_chunks_exact_mut(values)
            .zip(range)
            .try_for_each(|(planes, index)| {
                let picture = self.get(index)?;
                if picture.data.len() != planes.len() {
                    return Err(Error::new(format!(
                        "a photo of {} x {} pixels among others of another size",
                        picture.width, picture.height
                    )));
                }
                normalisation.planes(&picture, planes);
                Ok(())
            })
    }
}

impl From<Vec<Pixels>> for Pictures {
    /// Pictures that are there already.
    fn from(pictures: Vec<Pixels>) -> Self {
        Self(Kept::Memory(pictures))
    }
}

/// The whole photo as training keeps it.
fn whole(image_file: &[u8], preprocess: &Preprocess) -> Result<Pixels> {
    let enlarged = |side: u16| (side + side / 4).min(MAX_INPUT_SIDE);
    let (width, height) = (enlarged(preprocess.width), enlarged(preprocess.height));
    if !matches!(preprocess.fit, Fit::Crop { .. }) {
        let enlarged = Preprocess {
            width,
            height,
            ..*preprocess
        };
        return enlarged.apply(image_file);
    }
    let side = usize::from(width.max(height));
    let size = |width: usize, height: usize| shrunk(width, height, side);
    let image = if preprocess.dct_scaling {
        decode_reduced(image_file, &size)?
    } else {
        Reduced::whole(decode(image_file)?)
    };
    let (width, height) = size(image.width, image.height);
    let (kept_width, kept_height) = (width.min(height * LONGEST), height.min(width * LONGEST));
    let window = Window {
        left: (width - kept_width) / 2,
        top: (height - kept_height) / 2,
        width: kept_width,
        height: kept_height,
    };
    resize(
        &image.pixels,
        image.area,
        width,
        height,
        preprocess.filter,
        window,
    )
}

/// The size at which the shorter side is `side`; the image's own where that is smaller.
fn shrunk(width: usize, height: usize, side: usize) -> (usize, usize) {
    let shorter = width.min(height);
    if shorter <= side {
        (width, height)
    } else {
        (side * width / shorter, side * height / shorter)
    }
}

fn load(
    items: &[Item],
    picture: &(dyn Fn(&[u8]) -> Result<Pixels> + Sync),
    room: Room<'_>,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Loaded> {
    let mut store = Filling {
        room,
        kept: Kept::Memory(Vec::new()),
        bytes: 0,
    };
    let mut refused = Vec::new();
    for (first, chunk) in (0..)
        .step_by(PHOTOS_AT_ONCE)
        .zip(items.chunks(PHOTOS_AT_ONCE))
    {
        let decoded: Vec<Result<Pixels>> = chunk
            .par_iter()
            .map(|item| {
                let result = item.read().and_then(|bytes| picture(&bytes));
                progress(1);
                result
            })
            .collect();
        for (index, result) in (first..).zip(decoded) {
            match result {
                Ok(pixels) => store.add(pixels)?,
                Err(error) => refused.push((index, error)),
            }
        }
    }
    Ok(Loaded {
        pictures: Pictures(store.kept),
        refused,
    })
}

/// A store that is being filled.
struct Filling<'a> {
    room: Room<'a>,
    kept: Kept,
    /// Bytes of pixels so far.
    bytes: u64,
}

impl Filling<'_> {
    fn add(&mut self, pixels: Pixels) -> Result<()> {
        let offset = self.bytes;
        self.bytes += pixels.data.len() as u64;
        match &mut self.kept {
            Kept::Memory(pictures) => {
                pictures.push(pixels);
                if self.bytes > self.room.memory {
                    self.move_to_file()?;
                }
                Ok(())
            }
            Kept::File { file, places } => {
                places.push(Place {
                    offset,
                    width: pixels.width,
                    height: pixels.height,
                });
                file.write_all(&pixels.data)
                    .with_context(|| {
                        let directory = self.room.directory.display();
                        format!("writing decoded photos to a file in {directory}")
                    })
                    .map_err(|error| error.hint("is there space left on the disk?"))
            }
        }
    }

    fn move_to_file(&mut self) -> Result<()> {
        let file = tempfile::tempfile_in(self.room.directory).with_context(|| {
            let directory = self.room.directory.display();
            format!("making a file for decoded photos in {directory}")
        })?;
        let places = Vec::new();
        if let Kept::Memory(pictures) = replace(&mut self.kept, Kept::File { file, places }) {
            self.bytes = 0;
            for pixels in pictures {
                self.add(pixels)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::io::Cursor;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use graft_shared::digest::sha256;
    use graft_shared::preprocess::Filter;

    use super::*;

    const PREPROCESS: Preprocess = Preprocess {
        width: 16,
        height: 16,
        fit: Fit::Crop { crop_pct: 0.8 },
        filter: Filter::Bilinear,
        dct_scaling: true,
    };

    fn item(folder: &Path, name: &str, bytes: &[u8]) -> Item {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        Item {
            content_hash: sha256(bytes),
            path,
        }
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([x as u8, y as u8, (x * y) as u8])
        });
        let mut bytes = Vec::new();
        picture
            .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)
            .unwrap();
        bytes
    }

    #[test]
    fn sizes_suit_random_crops() {
        for (width, height, fit, expected) in [
            (100, 80, PREPROCESS.fit, (25, 20)),
            (80, 100, PREPROCESS.fit, (20, 25)),
            (19, 18, PREPROCESS.fit, (19, 18)),
            (400, 50, PREPROCESS.fit, (40, 20)),
            (1, 700, PREPROCESS.fit, (1, 2)),
            (100, 80, Fit::Squash, (20, 20)),
            (100, 80, Fit::Pad { colour: [1; 3] }, (20, 20)),
        ] {
            let preprocess = Preprocess { fit, ..PREPROCESS };
            let pixels = whole(&png(width, height), &preprocess).unwrap();
            assert_eq!((pixels.width, pixels.height), expected);
            pixels.validate().unwrap();
        }
    }

    #[test]
    fn a_file_gives_the_same_pixels_as_memory_and_bad_photos_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut items: Vec<Item> = (1..200)
            .map(|number| item(folder.path(), &number.to_string(), &png(30 + number, 40)))
            .collect();
        items[3] = item(folder.path(), "broken", b"no picture");
        items[130].path = folder.path().join("missing");
        let counted = AtomicUsize::new(0);
        let progress = |photos| {
            counted.fetch_add(photos, Ordering::Relaxed);
        };
        let loaded = |memory| {
            let room = Room {
                memory,
                directory: folder.path(),
            };
            Pictures::for_training(&items, &PREPROCESS, room, &progress).unwrap()
        };
        let [in_memory, in_file] = [DEFAULT_MEMORY, 10_000].map(loaded);
        assert!(matches!(in_memory.pictures.0, Kept::Memory(_)));
        assert!(matches!(in_file.pictures.0, Kept::File { .. }));
        assert_eq!(counted.into_inner(), 2 * 199);
        for Loaded { pictures, refused } in [&in_memory, &in_file] {
            let indices: Vec<usize> = refused.iter().map(|(index, _)| *index).collect();
            assert_eq!(indices, [3, 130]);
            assert_eq!(pictures.len(), 197);
            assert!(pictures.get(197).is_err());
        }
        for index in 0..197 {
            let pixels = in_memory.pictures.get(index).unwrap();
            assert_eq!(pixels, in_file.pictures.get(index).unwrap());
        }
        assert_eq!(in_file.pictures.get(4).unwrap().width, 20);
    }

    #[test]
    fn photos_for_evaluation_are_the_models_input() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<Vec<u8>> = (0..5).map(|number| png(50 + number, 33)).collect();
        let items: Vec<Item> = (0..5)
            .map(|index| item(folder.path(), &index.to_string(), &files[index]))
            .collect();
        let room = Room {
            memory: 0,
            directory: folder.path(),
        };
        let loaded = Pictures::for_evaluation(&items, &PREPROCESS, room, &|_| ()).unwrap();
        let normalisation = Normalisation {
            mean: [127.0, 100.0, 90.0],
            std: [128.0, 60.0, 50.0],
        };
        let mut input = vec![9.0; 3];
        loaded
            .pictures
            .normalised(1..4, &normalisation, &mut input)
            .unwrap();
        assert_eq!(input.len(), 3 * 3 * 256);
        for (planes, file) in input.chunks_exact(3 * 256).zip(&files[1..]) {
            let pixels = PREPROCESS.apply(file).unwrap();
            for (index, pixel) in pixels.data.chunks_exact(3).enumerate() {
                for channel in 0..3 {
                    let value = (f32::from(pixel[channel]) - normalisation.mean[channel])
                        / normalisation.std[channel];
                    assert_eq!(planes[channel * 256 + index], value);
                }
            }
        }
        let normalised =
            |range, input: &mut Vec<f32>| loaded.pictures.normalised(range, &normalisation, input);
        assert!(normalised(3..6, &mut input).is_err());
        normalised(0..0, &mut input).unwrap();
        assert!(input.is_empty());
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let items = [item(folder.path(), "one", &png(30, 30))];
        let room = Room {
            memory: 0,
            directory: &folder.path().join("missing"),
        };
        let error = Pictures::for_training(&items, &PREPROCESS, room, &|_| ()).unwrap_err();
        assert!(
            error.report().contains("decoded photos"),
            "{}",
            error.report()
        );
    }
}
