//! Bytes -> verified -> card and graph. Everything that a damaged or foreign file can hold is refused here, before tract
//! sees the graph.
//!
//! A model file is an ONNX `ModelProto` whose `metadata_props` (field 14) come last:
//!
//! | entry | value |
//! |---|---|
//! | `graft.card` | base64 of [`Card::encode`]; the card holds the SHA-256 of all bytes before the first entry |
//! | `labels` | JSON array of the labels in output order |
//! | `preprocessing` | JSON object of the preprocessing |
//!
//! The last two are for people and other tools, and must be what the card says.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graft_shared::card::{ARITHMETIC, Card};
use graft_shared::digest::{sha256, sha256_part_and_whole};
use graft_shared::error::{Context, Error, Result};
use graft_shared::labels::Labels;
use graft_shared::limits::MAX_MODEL_FILE_BYTES;
use graft_shared::preprocess::{Filter, Fit, Preprocess};
use prost::Message;
use prost::bytes::Bytes;
use serde::Serialize;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto, type_proto};

use crate::onnx::elements;
use crate::passes::PLACEHOLDER;
use crate::proto::{self, Graph};

/// The metadata entry that holds the card.
pub const CARD_KEY: &str = "graft.card";
const LABELS_KEY: &str = "labels";
const PREPROCESSING_KEY: &str = "preprocessing";

/// `metadata_props` of a `ModelProto`.
const METADATA_FIELD: u32 = 14;
/// Protobuf's wire type of strings and messages.
const LENGTH_DELIMITED: u32 = 2;

/// Nodes of a graph, at most: a hundred times those of the largest backbones.
const MAX_NODES: usize = 50_000;
/// Elements of one tensor in the file, at most.
const MAX_TENSOR_ELEMENTS: usize = 1 << 28;

/// A model file that has been verified, down to its graph's structure.
#[derive(Debug)]
pub struct Model {
    /// What the file says about itself.
    pub card: Card,
    /// The graph, without metadata.
    pub(crate) proto: proto::Model,
    /// Bytes of the file.
    pub(crate) bytes: usize,
    /// SHA-256 of the file.
    pub(crate) digest: [u8; 32],
}

/// Puts `card` into an ONNX file: sets its `graph_digest`, and appends the metadata as the last field.
///
/// # Errors
/// When `graph` is no protobuf or already has metadata, or the card is invalid.
pub fn attach_card(graph: &[u8], card: &Card) -> Result<Vec<u8>> {
    let (graph_bytes, metadata) =
        split(graph).context("can't attach a model card to this graph")?;
    if !metadata.is_empty() {
        return Err(Error::new(
            "can't attach a model card: the graph already has metadata",
        ));
    }
    let card = Card {
        graph_digest: sha256(graph_bytes),
        ..card.clone()
    };
    let mut file = graph.to_vec();
    file.extend(metadata_fields(&card.encode()?, &card)?);
    Ok(file)
}

/// The bytes of a file, no more than one over the limit.
pub(crate) fn read(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let len = file.metadata()?.len().min(MAX_MODEL_FILE_BYTES);
    // The byte behind the last one tells the end without asking for more memory.
    let mut bytes = Vec::with_capacity(len as usize + 1);
    file.take(MAX_MODEL_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// Whether the bytes of a file speak of a model card, be it intact or not: others' ONNX files do not.
pub(crate) fn mentions_card(bytes: &[u8]) -> bool {
    let key = CARD_KEY.as_bytes();
    bytes.windows(key.len()).any(|window| window == key)
}

impl Model {
    /// Verifies a model file.
    ///
    /// In this order: size, metadata, card (magic, version, its own digest), digest of the graph, the readable entries,
    /// then protobuf and the graph's structure: one input `[1, height, width, 3]` of bytes and one output
    /// `[1, labels]`, everything inside the file, every tensor made once and before it is used.
    ///
    /// # Errors
    /// When any bit of the file is not what its writer wrote, or this release can't run what it wrote.
    pub fn parse(bytes: &[u8]) -> Result<Model> {
        Self::of(Bytes::copy_from_slice(bytes))
    }

    /// As [`Model::parse`]; the model's constants stay in `bytes`.
    pub(crate) fn of(bytes: Bytes) -> Result<Model> {
        Self::checked(bytes).context("can't read the model file")
    }

    fn checked(bytes: Bytes) -> Result<Model> {
        if bytes.len() as u64 > MAX_MODEL_FILE_BYTES {
            return Err(Error::new(format!(
                "it has {} bytes, at most {MAX_MODEL_FILE_BYTES} are possible",
                bytes.len()
            )));
        }
        let (graph, metadata) = split(&bytes)?;
        let encoded = card_bytes(metadata)?;
        let card = Card::decode(&encoded)?;
        let (graph_digest, digest) = sha256_part_and_whole(&bytes, graph.len());
        if graph_digest != card.graph_digest {
            return Err(damaged(
                "the graph is not the one that its model card was written for",
            ));
        }
        if metadata_fields(&encoded, &card)? != metadata {
            return Err(damaged(
                "its readable metadata is not what its model card says",
            ));
        }
        if card.quantization.arithmetic != ARITHMETIC {
            return Err(Error::new(format!(
                "it was made for arithmetic {}, this release computes {ARITHMETIC}",
                card.quantization.arithmetic
            ))
            .hint("use a release that matches the model, or export the model again"));
        }
        let graph = bytes.slice(..graph.len());
        let proto = proto::Model::decode(graph).context("it is not an ONNX file")?;
        check(&proto, &card)?;
        Ok(Model {
            card,
            proto,
            bytes: bytes.len(),
            digest,
        })
    }
}

fn damaged(what: &str) -> Error {
    Error::new(what)
        .hint("the file was damaged or edited after its export; copy or export it again")
}

/// The bytes before the first metadata entry, and the rest, which has to be metadata alone.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let mut rest = bytes;
    let mut graph = None;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let field = field(&mut rest)
            .with_context(|| format!("it is not an ONNX file: no protobuf at byte {at}"))?;
        match (field, graph) {
            (METADATA_FIELD, None) => graph = Some(at),
            (METADATA_FIELD, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(damaged("there is something after its metadata")),
        }
    }
    Ok(bytes.split_at(graph.unwrap_or(bytes.len())))
}

/// Skips one protobuf field and returns its number.
fn field(bytes: &mut &[u8]) -> Option<u32> {
    let key = u32::try_from(varint(bytes)?).ok()?;
    let length = match key & 7 {
        0 => varint(bytes).map(|_| 0)?,
        1 => 8,
        LENGTH_DELIMITED => varint(bytes)?,
        5 => 4,
        _ => return None,
    };
    *bytes = bytes.get(usize::try_from(length).ok()?..)?;
    Some(key >> 3).filter(|number| *number > 0)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The card in the first metadata entry.
fn card_bytes(metadata: &[u8]) -> Result<Vec<u8>> {
    let no_card = || {
        Error::new("it has no model card, so labels and preprocessing are unknown")
            .hint("models for this program are made by `graft train` or `graft quantize`")
    };
    let mut rest = metadata;
    field(&mut rest).ok_or_else(no_card)?;
    let first = &metadata[..metadata.len() - rest.len()];
    // One field of this number decodes as a whole ModelProto that has nothing else.
    let proto = ModelProto::decode(first).map_err(|_| damaged("its metadata is damaged"))?;
    let entry = proto
        .metadata_props
        .first()
        .filter(|entry| entry.key == CARD_KEY)
        .ok_or_else(no_card)?;
    STANDARD
        .decode(&entry.value)
        .map_err(|error| damaged(&format!("its model card is not base64: {error}")))
}

/// All metadata of a file, as protobuf fields.
fn metadata_fields(encoded: &[u8], card: &Card) -> Result<Vec<u8>> {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: key.to_owned(),
        value,
    };
    let proto = ModelProto {
        metadata_props: vec![
            entry(CARD_KEY, STANDARD.encode(encoded)),
            entry(LABELS_KEY, labels_json(&card.labels)?),
            entry(PREPROCESSING_KEY, preprocessing_json(&card.preprocess)?),
        ],
        ..ModelProto::default()
    };
    Ok(proto.encode_to_vec())
}

fn labels_json(labels: &Labels) -> Result<String> {
    serde_json::to_string(&labels.iter().collect::<Vec<_>>())
        .context("can't write the labels as JSON")
}

/// The readable metadata entry `preprocessing`: one JSON object.
///
/// # Errors
/// When a number has no JSON form, which no valid spec has.
pub fn preprocessing_json(preprocess: &Preprocess) -> Result<String> {
    #[derive(Serialize)]
    struct Readable {
        layout: &'static str,
        colour: &'static str,
        width: u16,
        height: u16,
        fit: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        crop_pct: Option<f32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pad_colour: Option<[u8; 3]>,
        filter: &'static str,
        dct_scaling: bool,
    }
    let (fit, crop_pct, pad_colour) = match preprocess.fit {
        Fit::Crop { crop_pct } => ("crop", Some(crop_pct), None),
        Fit::Pad { colour } => ("pad", None, Some(colour)),
        Fit::Squash => ("squash", None, None),
    };
    let readable = Readable {
        layout: "uint8 NHWC",
        colour: "RGB",
        width: preprocess.width,
        height: preprocess.height,
        fit,
        crop_pct,
        pad_colour,
        filter: match preprocess.filter {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
        },
        dct_scaling: preprocess.dct_scaling,
    };
    serde_json::to_string(&readable).context("can't write the preprocessing as JSON")
}

/// Checks the structure of the graph, and that input and output are what the card says.
fn check(proto: &proto::Model, card: &Card) -> Result<()> {
    let refuse = |what: &str| Err(Error::new(format!("the ONNX graph {what}")));
    let Some(graph) = &proto.graph else {
        return refuse("is missing");
    };
    if !proto.functions.is_empty()
        || !proto.training_info.is_empty()
        || !graph.sparse_initializer.is_empty()
    {
        return refuse("has functions, training information or sparse tensors");
    }
    if graph.node.len() > MAX_NODES {
        return refuse(&format!(
            "has {} nodes, at most {MAX_NODES} are possible",
            graph.node.len()
        ));
    }
    check_order(graph)?;
    for tensor in &graph.initializer {
        check_tensor(tensor, &tensor.raw)?;
    }
    for node in &graph.node {
        if node.op_type == PLACEHOLDER {
            return refuse(&format!(
                "has an operator that no file may have: {PLACEHOLDER}"
            ));
        }
        for attribute in &node.attribute {
            if attribute.g.is_some() || !attribute.graphs.is_empty() {
                return refuse(&format!(
                    "has control flow: node `{}` ({})",
                    node.name, node.op_type
                ));
            }
            if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
                return refuse("has functions, training information or sparse tensors");
            }
            for tensor in attribute.t.iter().chain(&attribute.tensors) {
                check_tensor(tensor, &tensor.raw_data)?;
            }
        }
    }
    check_interface(graph, card)
}

/// Every tensor is made once, and before it is used.
fn check_order(graph: &Graph) -> Result<()> {
    let mut made: HashSet<&str> = HashSet::new();
    let constants: HashSet<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    let inputs = graph
        .input
        .iter()
        .map(|input| input.name.as_str())
        .filter(|name| !constants.contains(name));
    for name in graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .chain(inputs)
    {
        if !made.insert(name) {
            return Err(Error::new(format!(
                "the ONNX graph makes the tensor `{name}` twice"
            )));
        }
    }
    for node in &graph.node {
        if let Some(name) = node
            .input
            .iter()
            .find(|name| !name.is_empty() && !made.contains(name.as_str()))
        {
            return Err(Error::new(format!(
                "the ONNX graph uses the tensor `{name}` before it is made"
            )));
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if !made.insert(name) {
                return Err(Error::new(format!(
                    "the ONNX graph makes the tensor `{name}` twice"
                )));
            }
        }
    }
    match graph
        .output
        .iter()
        .find(|output| !made.contains(output.name.as_str()))
    {
        Some(output) => Err(Error::new(format!(
            "nothing makes the ONNX graph's output `{}`",
            output.name
        ))),
        None => Ok(()),
    }
}

/// The tensor is inside the file, of a possible size, and has exactly the bytes that its shape says; `raw` is its
/// `raw_data`.
fn check_tensor(tensor: &TensorProto, raw: &[u8]) -> Result<()> {
    let refuse = |what: String| Err(Error::new(format!("the tensor `{}` {what}", tensor.name)));
    if tensor.data_location() == DataLocation::External
        || !tensor.external_data.is_empty()
        || tensor.segment.is_some()
    {
        return refuse("lies in another file; models have to be one file".to_owned());
    }
    let Some(count) = elements(tensor).filter(|count| *count <= MAX_TENSOR_ELEMENTS) else {
        return refuse(format!("has an impossible shape {:?}", tensor.dims));
    };
    let width = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Bool | DataType::Int8 | DataType::Uint8) => 1,
        Ok(DataType::Float16 | DataType::Int16 | DataType::Uint16) => 2,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 4,
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64) => 8,
        _ => return refuse(format!("has an unknown type {}", tensor.data_type)),
    };
    let typed = tensor.float_data.len()
        + tensor.int32_data.len()
        + tensor.int64_data.len()
        + tensor.double_data.len()
        + tensor.uint64_data.len();
    let complete = if raw.is_empty() {
        typed == count
    } else {
        raw.len() == count * width
    };
    if complete {
        Ok(())
    } else {
        refuse(format!(
            "has not the number of values that its shape {:?} says",
            tensor.dims
        ))
    }
}

/// One input of the card's size, one output as wide as the labels.
fn check_interface(graph: &Graph, card: &Card) -> Result<()> {
    let constants: HashSet<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    let inputs: Vec<_> = graph
        .input
        .iter()
        .filter(|input| !constants.contains(input.name.as_str()))
        .collect();
    let ([input], [output]) = (&inputs[..], &graph.output[..]) else {
        return Err(Error::new(format!(
            "the ONNX graph has {} inputs and {} outputs, not one of each",
            inputs.len(),
            graph.output.len()
        )));
    };
    let (height, width) = (
        i64::from(card.preprocess.height),
        i64::from(card.preprocess.width),
    );
    let expected = (
        DataType::Uint8,
        vec![Some(1), Some(height), Some(width), Some(3)],
    );
    if !matches(input, &expected) {
        return Err(Error::new(format!(
            "the ONNX graph's input `{}` is not uint8 [1, {height}, {width}, 3], which its model card says",
            input.name
        )));
    }
    let labels = card.labels.len();
    let expected = (DataType::Float, vec![Some(1), i64::try_from(labels).ok()]);
    if !matches(output, &expected) {
        return Err(Error::new(format!(
            "the ONNX graph's output `{}` is not float32 [1, {labels}], but there are {labels} labels",
            output.name
        )));
    }
    Ok(())
}

/// Whether type and shape are the expected ones; a free batch size counts as 1.
fn matches(info: &ValueInfoProto, expected: &(DataType, Vec<Option<i64>>)) -> bool {
    let Some(type_proto::Value::TensorType(tensor)) =
        info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return false;
    };
    let Some(shape) = &tensor.shape else {
        return false;
    };
    let dims: Vec<Option<i64>> = shape
        .dim
        .iter()
        .enumerate()
        .map(|(index, dim)| match dim.value {
            Some(dimension::Value::DimValue(value)) => Some(value),
            Some(dimension::Value::DimParam(_)) if index == 0 => Some(1),
            _ => None,
        })
        .collect();
    tensor.elem_type == expected.0 as i32 && dims == expected.1
}
