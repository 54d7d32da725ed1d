//! Bottlenecks of photos, a row for each: in memory while they are few, else where the cache has them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};
use rayon::prelude::*;

/// Bytes that rows may take in memory, 13,000 photos of 1,280 values.
const MOST_IN_MEMORY: usize = 64 << 20;
/// Rows that are worked on together: the same wherever they are, so that sums are too.
pub(crate) const TILE: usize = 4096;

/// f32 `[photos, length]`.
#[derive(Clone, Debug)]
pub struct Bottlenecks {
    length: usize,
    kept: Kept,
}

#[derive(Clone, Debug)]
enum Kept {
    Memory(Vec<f32>),
    File {
        file: Arc<File>,
        /// Where the values of each row begin.
        offsets: Vec<u64>,
    },
}

impl Bottlenecks {
    /// Rows of `length` values, one behind the other.
    #[must_use]
    pub fn from_rows(values: Vec<f32>, length: usize) -> Self {
        Self {
            length,
            kept: Kept::Memory(values),
        }
    }

    /// Rows of `length` little-endian values that begin at `offsets` of a file.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(super) fn from_file(file: Arc<File>, offsets: Vec<u64>, length: usize) -> io::Result<Self> {
        let few = size_of::<f32>() * length * offsets.len() <= MOST_IN_MEMORY;
        let in_file = Self {
            length,
            kept: Kept::File { file, offsets },
        };
        if !few {
            return Ok(in_file);
        }
        let every: Vec<usize> = (0..in_file.photos()).collect();
        Ok(Self::from_rows(in_file.rows(&every, |_| ())?, length))
    }

    /// How many rows there are.
    #[must_use]
    pub fn photos(&self) -> usize {
        match &self.kept {
            Kept::Memory(values) => values.len() / self.length.max(1),
            Kept::File { offsets, .. } => offsets.len(),
        }
    }

    /// Values of a row.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether no file is read.
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.kept, Kept::Memory(_))
    }

    /// Some of the rows, in this order.
    ///
    /// # Panics
    /// When an index is not below [`Bottlenecks::photos`].
    #[must_use]
    pub fn pick(&self, indices: &[usize]) -> Self {
        let kept = match &self.kept {
            Kept::Memory(values) => {
                let row = |&index: &usize| &values[index * self.length..][..self.length];
                Kept::Memory(indices.iter().flat_map(row).copied().collect())
            }
            Kept::File { file, offsets } => Kept::File {
                file: Arc::clone(file),
                offsets: indices.iter().map(|&index| offsets[index]).collect(),
            },
        };
        Self {
            length: self.length,
            kept,
        }
    }

    /// The values of some rows, one behind the other, after `change` was done to each row.
    ///
    /// # Errors
    /// A file that can't be read.
    ///
    /// # Panics
    /// When an index is not below [`Bottlenecks::photos`].
    pub fn rows(
        &self,
        indices: &[usize],
        change: impl Fn(&mut [f32]) + Sync,
    ) -> io::Result<Vec<f32>> {
        let mut rows = vec![0.0; indices.len() * self.length];
        rows.par_chunks_exact_mut(self.length.max(1))
            .zip(indices)
            .try_for_each_init(Vec::new, |bytes, (row, &index)| -> io::Result<()> {
                match &self.kept {
                    Kept::Memory(values) => {
                        row.copy_from_slice(&values[index * self.length..][..self.length]);
                    }
                    Kept::File { file, offsets } => {
                        bytes.resize(size_of_val(row), 0);
                        file.read_exact_at(bytes, offsets[index])?;
                        let (numbers, _) = bytes.as_chunks();
                        for (value, number) in row.iter_mut().zip(numbers) {
                            *value = f32::from_le_bytes(*number);
                        }
                    }
                }
                change(row);
                Ok(())
            })?;
        Ok(rows)
    }

    /// All rows after `change` was done to each, [`TILE`] at a time: `[rows, length]`.
    pub(crate) fn tiles(
        &self,
        change: impl Fn(&mut [f32]) + Sync,
    ) -> impl Iterator<Item = TensorResult<Tensor>> {
        (0..self.photos()).step_by(TILE).map(move |first| {
            let indices: Vec<usize> = (first..self.photos().min(first + TILE)).collect();
            let rows = self.rows(&indices, &change)?;
            Tensor::from_vec(rows, (indices.len(), self.length), &Device::Cpu)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_gives_the_same_rows_as_memory() {
        let (photos, length) = (TILE + 10, 3);
        let value = |index: usize| (index as f32 * 0.37).sin();
        let values: Vec<f32> = (0..photos * length).map(value).collect();
        let mut file = tempfile::tempfile().unwrap();
        let mut offsets = Vec::new();
        for (index, row) in values.chunks(length).enumerate() {
            file.write_all(&vec![9; index % 5]).unwrap();
            offsets.push(file.metadata().unwrap().len());
            let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
            file.write_all(&bytes).unwrap();
        }
        let in_memory = Bottlenecks::from_rows(values.clone(), length);
        let file = Arc::new(file);
        let few = Bottlenecks::from_file(Arc::clone(&file), offsets.clone(), length).unwrap();
        assert!(matches!(&few.kept, Kept::Memory(read) if *read == values));
        let in_file = Bottlenecks {
            length,
            kept: Kept::File { file, offsets },
        };
        let picked: Vec<usize> = (0..photos).rev().step_by(7).collect();
        for bottlenecks in [in_memory, in_file] {
            assert_eq!(bottlenecks.photos(), photos);
            let tiles: Vec<Tensor> = bottlenecks.tiles(|_| ()).map(Result::unwrap).collect();
            let lengths: Vec<usize> = tiles.iter().map(|tile| tile.dims()[0]).collect();
            assert_eq!(lengths, [TILE, 10]);
            let tiled: Vec<f32> = tiles
                .iter()
                .flat_map(|tile| tile.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                .collect();
            assert_eq!(tiled, values);
            let some = bottlenecks.pick(&picked);
            let all: Vec<usize> = (0..picked.len()).collect();
            let rows = bottlenecks.rows(&picked, |_| ()).unwrap();
            assert_eq!(some.rows(&all, |_| ()).unwrap(), rows);
            let negated = some.rows(&all, |row| {
                row.iter_mut().for_each(|value| *value = -*value)
            });
            assert!(
                negated
                    .unwrap()
                    .iter()
                    .zip(&rows)
                    .all(|(new, old)| *new == -old)
            );
            assert_eq!(rows[3..6], values[(photos - 8) * 3..][..3]);
        }
    }
}
