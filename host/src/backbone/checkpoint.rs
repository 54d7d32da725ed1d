//! Reading the tensors of weights files: safetensors, and PyTorch checkpoints in the zip format of torch.save since 1.6 and
//! the one before it. Nothing in them is executed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::pickle::{Object, Stack, TensorInfo, read_all};
use candle_core::{Device, Result, Tensor, bail};
use graft_shared::error::{self, Context};

/// The first pickle of the older format: protocol 2, the ten bytes of a magic number, stop.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// How a zip archive begins.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// All tensors of a file, by name; which format it is in is told by its content.
///
/// Meant for files whose hash has been checked: candle's reader of pickles can panic on forged ones.
///
/// # Errors
/// A file that can't be read or holds something else than tensors by name.
pub(super) fn read(path: &Path) -> error::Result<HashMap<String, Tensor>> {
    let failed = || format!("reading the tensors of {}", path.display());
    let bytes = fs::read(path).with_context(failed)?;
    if let Some(rest) = bytes.strip_prefix(LEGACY_MAGIC) {
        read_legacy(rest).with_context(failed)
    } else if bytes.starts_with(ZIP_MAGIC) {
        read_all(path)
            .map(|tensors| tensors.into_iter().collect())
            .with_context(failed)
    } else {
        from_safetensors(&bytes).with_context(failed)
    }
}

/// All tensors of a safetensors file, by name.
///
/// # Errors
/// Bytes that are no such file.
pub(super) fn from_safetensors(bytes: &[u8]) -> error::Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load_buffer(bytes, &Device::Cpu).context("it is no safetensors file")
}

/// What follows the magic number: pickles of the protocol version, the writer's type sizes, the dict and a list of storage
/// keys; then for each key the number of elements as 8 bytes and the elements themselves, little-endian.
fn read_legacy(mut bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let reader = &mut bytes;
    let _protocol_version = unpickle(reader)?;
    let _type_sizes = unpickle(reader)?;
    let mut tensors = Vec::new();
    for (name, value) in unpickle(reader)?.dict()? {
        tensors.extend(value.into_tensor_info(name, Path::new(""))?);
    }
    let Object::List(keys) = unpickle(reader)? else {
        bail!("the list of storages is missing");
    };

    let mut storages = HashMap::new();
    for key in keys {
        let path = format!("/{}", key.unicode()?);
        let Some(tensor) = tensors.iter().find(|tensor| tensor.path == path) else {
            bail!("no tensor uses the storage {path}");
        };
        let Some((elements, rest)) = reader.split_first_chunk() else {
            bail!("the file is cut at the storage {path}");
        };
        let len = usize::try_from(u64::from_le_bytes(*elements))
            .ok()
            .and_then(|elements| elements.checked_mul(tensor.dtype.size_in_bytes()));
        let Some((storage, rest)) = len.and_then(|len| rest.split_at_checked(len)) else {
            bail!("the file is cut in the storage {path}");
        };
        *reader = rest;
        storages.insert(path, storage);
    }
    tensors
        .into_iter()
        .map(|tensor| Ok((tensor.name.clone(), to_tensor(&tensor, &storages)?)))
        .collect()
}

fn unpickle(reader: &mut &[u8]) -> Result<Object> {
    let mut stack = Stack::empty();
    stack.read_loop(reader)?;
    stack.finalize()
}

/// Gathers a tensor, whose elements may lie in any order in its storage, in row-major order.
fn to_tensor(tensor: &TensorInfo, storages: &HashMap<String, &[u8]>) -> Result<Tensor> {
    let TensorInfo {
        name,
        dtype,
        layout,
        path,
        ..
    } = tensor;
    let size = dtype.size_in_bytes();
    // The start is given in bytes, the strides in elements.
    let storage = storages
        .get(path)
        .and_then(|storage| storage.get(layout.start_offset()..))
        .unwrap_or_default();
    let mut values = Vec::new();
    for position in 0..layout.shape().elem_count() {
        let (mut rest, mut index) = (position, 0);
        for (&dim, &stride) in layout.dims().iter().zip(layout.stride()).rev() {
            index += rest % dim * stride;
            rest /= dim;
        }
        let Some(element) = storage
            .get(index * size..)
            .and_then(|rest| rest.get(..size))
        else {
            bail!("tensor {name} reaches beyond its storage");
        };
        values.extend_from_slice(element);
    }
    Tensor::from_raw_buffer(&values, *dtype, layout.dims(), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// `torch.save({"w": torch.arange(6.).reshape(2, 3).t()}, f, _use_new_zipfile_serialization=False)`, type sizes left out.
    fn legacy(elements: &[f32]) -> Vec<u8> {
        let mut bytes = LEGACY_MAGIC.to_vec();
        bytes.extend_from_slice(b"\x80\x02M\xe9\x03.\x80\x02}.");
        bytes.extend_from_slice(b"\x80\x02}(X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n");
        bytes.extend_from_slice(
            b"X\x01\0\0\x007X\x03\0\0\0cpuK\x06NtQK\0K\x03K\x02\x86K\x01K\x03\x86\x89}tRu.",
        );
        bytes.extend_from_slice(b"\x80\x02]X\x01\0\0\x007a.");
        bytes.extend_from_slice(&6_u64.to_le_bytes());
        bytes.extend(elements.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    #[test]
    fn the_older_format_is_read_in_row_major_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("legacy.pth");
        fs::write(&path, legacy(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])).unwrap();
        let tensors = read(&path).unwrap();
        assert_eq!(
            tensors["w"].to_vec2::<f32>().unwrap(),
            [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
        );
        fs::write(&path, legacy(&[0.0, 1.0, 2.0])).unwrap();
        let report = read(&path).unwrap_err().report();
        assert!(report.contains("cut in the storage"), "{report}");
        fs::write(&path, b"no checkpoint").unwrap();
        assert!(read(&path).is_err());
    }
}
