//! The model card: everything about a model but its graph, as sections of bytes (the wire spec is the crate's page).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::sha256;
use crate::error::{Context, Error, Result};
use crate::labels::Labels;
use crate::limits::{
    MAX_CARD_BYTES, MAX_LABELS, MAX_NAME_BYTES, MAX_PROBES, MAX_PROVENANCE_BYTES,
    MAX_SECTION_BYTES, WEIGHT_BITS,
};
use crate::preprocess::{Pixels, Preprocess};

/// The first bytes of every card.
pub const MAGIC: &[u8; 9] = b"graftcard";

/// The version of the wire format. Versions from 1 on stay readable.
pub const FORMAT_VERSION: u16 = 1;

/// The version of the quantized operators' arithmetic and of the preprocessing that this release computes.
pub const ARITHMETIC: u32 = 1;

/// Everything about a model but its graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Labels in output order.
    pub labels: Labels,
    /// How an image file becomes the model's input.
    pub preprocess: Preprocess,
    /// What the graph's numbers are.
    pub quantization: Quantization,
    /// How logits become a label, or none.
    pub decision: Decision,
    /// What was measured on the test split, when there was one.
    pub metrics: Option<Metrics>,
    /// Generated images with their exact logits; may be empty.
    pub probes: Vec<Probe>,
    /// Where the model comes from.
    pub provenance: Provenance,
    /// SHA-256 of the model file's bytes before the metadata that holds this card.
    pub graph_digest: [u8; 32],
}

/// What the graph's numbers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantization {
    /// The version of the operators' arithmetic, 1 or higher: one number, one set of bits.
    pub arithmetic: u32,
    /// Float or quantized.
    pub kind: QuantizationKind,
    /// Bits of a weight: 32 for [`QuantizationKind::Float`], from 2 to 8 for [`QuantizationKind::Int8`].
    pub weight_bits: u8,
    /// Images that the activations' ranges were taken from; 0 for float.
    pub calibration_images: u32,
    /// How the ranges were chosen, such as `percentile 99.99`; empty for float.
    pub calibration_method: String,
}

/// Float or quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QuantizationKind {
    /// f32 weights and activations.
    Float,
    /// int8 weights per channel, uint8 activations.
    Int8,
}

/// How logits become a label, or none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Logits are divided by it before the softmax; above 0, 1 changes nothing.
    pub temperature: f32,
    /// A best score below it means that the label is unknown; in 0..=1, 0 never does.
    pub threshold: f32,
}

/// What the exported file achieves on the test split, in the device's engine. Fractions in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Images of the test split.
    pub test_images: u32,
    /// Share of images whose label scores best.
    pub top1: f32,
    /// Share of images whose label is among the best five.
    pub top5: f32,
    /// Mean over the labels of the share of their images that are recognised.
    pub macro_recall: f32,
    /// `top1` before quantization.
    pub float_top1: f32,
    /// The 95 % confidence interval of `top1`, low and high.
    pub interval: (f32, f32),
}

/// A generated image and the exact logits that the model gives for it: finds an engine that computes something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What the image is generated from.
    pub seed: u64,
    /// The logits, one for each label.
    pub logits: Vec<f32>,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// SHA-256 of the dataset's manifest.
    pub manifest_digest: [u8; 32],
    /// Name of the pretrained backbone.
    pub backbone: String,
    /// SHA-256 of the backbone's weight file.
    pub backbone_digest: [u8; 32],
    /// Name of the training recipe.
    pub recipe: String,
    /// The seed of all randomness.
    pub seed: u64,
    /// Every setting and its value, in the order of the settings file.
    pub settings: Vec<(String, String)>,
    /// The release that made the model.
    pub graft_version: String,
    /// When the model was made, in seconds since 1970-01-01 UTC.
    pub created: u64,
}

impl Probe {
    /// The image of `seed`, `[height, width, 3]`: random colours on a grid of 16 pixels, bilinear between them, and
    /// noise from -16 to 15; integers only.
    #[must_use]
    pub fn pixels(seed: u64, preprocess: &Preprocess) -> Pixels {
        const CELL: u64 = 16;
        let (width, height) = (u64::from(preprocess.width), u64::from(preprocess.height));
        let corner =
            |x: u64, y: u64, channel: u64| random(seed, (y << 32) | (x << 8) | channel) & 255;
        let mut data = Vec::with_capacity((width * height * 3) as usize);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let (left, top) = (x / CELL, y / CELL);
                    let (right, bottom) = (x % CELL, y % CELL);
                    let upper = corner(left, top, channel) * (CELL - right)
                        + corner(left + 1, top, channel) * right;
                    let lower = corner(left, top + 1, channel) * (CELL - right)
                        + corner(left + 1, top + 1, channel) * right;
                    let smooth = (upper * (CELL - bottom) + lower * bottom) / (CELL * CELL);
                    let noise = random(seed, (1 << 63) | (y << 32) | (x << 8) | channel) & 31;
                    data.push((smooth + noise).saturating_sub(16).min(255) as u8);
                }
            }
        }
        Pixels {
            width: usize::from(preprocess.width),
            height: usize::from(preprocess.height),
            data,
        }
    }
}

/// Output `index` of the counter-based generator `seed`: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn random(seed: u64, index: u64) -> u64 {
    let mut mixed = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A kind of section. The numbers are wire format: never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum Tag {
    Labels = 1,
    Preprocess = 2,
    Quantization = 3,
    Decision = 4,
    Metrics = 5,
    Probes = 6,
    Provenance = 7,
    Digest = 0xffff,
}

impl Tag {
    const ALL: [Self; 8] = [
        Self::Labels,
        Self::Preprocess,
        Self::Quantization,
        Self::Decision,
        Self::Metrics,
        Self::Probes,
        Self::Provenance,
        Self::Digest,
    ];

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| *tag as u16 == number)
    }

    /// Whether a reader that does not know the tag must refuse the card.
    fn required(self) -> bool {
        !matches!(self, Self::Metrics | Self::Probes | Self::Provenance)
    }

    fn max_bytes(self) -> usize {
        match self {
            Self::Labels | Self::Probes => MAX_CARD_BYTES,
            Self::Provenance => MAX_PROVENANCE_BYTES,
            _ => MAX_SECTION_BYTES,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Preprocess => "preprocess",
            Self::Quantization => "quantization",
            Self::Decision => "decision",
            Self::Metrics => "metrics",
            Self::Probes => "probes",
            Self::Provenance => "provenance",
            Self::Digest => "digest",
        }
    }
}

/// Bytes of magic and format_version.
const HEADER_BYTES: usize = MAGIC.len() + 2;

/// Bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

impl Card {
    /// The card's bytes, as the crate's page specifies them. One card has one encoding.
    ///
    /// # Errors
    /// When the card breaks a rule that [`Card::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.validate().context("can't write this model card")?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        push(&mut bytes, Tag::Labels, &self.labels)?;
        push(&mut bytes, Tag::Preprocess, &self.preprocess)?;
        push(&mut bytes, Tag::Quantization, &self.quantization)?;
        push(&mut bytes, Tag::Decision, &self.decision)?;
        if let Some(metrics) = &self.metrics {
            push(&mut bytes, Tag::Metrics, metrics)?;
        }
        if !self.probes.is_empty() {
            push(&mut bytes, Tag::Probes, &self.probes)?;
        }
        push(&mut bytes, Tag::Provenance, &self.provenance)?;
        push_header(&mut bytes, Tag::Digest, 2 * DIGEST_BYTES)?;
        bytes.extend_from_slice(&self.graph_digest);
        bytes.extend_from_slice(&sha256(&bytes));
        if bytes.len() > MAX_CARD_BYTES {
            return Err(too_long("the model card", bytes.len(), MAX_CARD_BYTES));
        }
        Ok(bytes)
    }

    /// The card in `bytes`.
    ///
    /// # Errors
    /// When the bytes are not a card of this version, any bit of them was changed, a section is missing, unknown and
    /// required, twice, out of order, or not exactly what [`Card::encode`] writes, or a value breaks its rule.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_checked(bytes).context("can't read the model card")
    }

    fn decode_checked(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_CARD_BYTES {
            return Err(too_long("it", bytes.len(), MAX_CARD_BYTES));
        }
        let mut sections = Sections::open(bytes)?;
        let mut labels: Option<Vec<String>> = None;
        let mut preprocess = None;
        let mut quantization = None;
        let mut decision = None;
        let mut metrics = None;
        let mut probes: Option<Vec<Probe>> = None;
        let mut provenance = None;
        let mut graph_digest = None;
        while let Some((tag, payload)) = sections.next()? {
            match tag {
                Tag::Labels => labels = Some(read_list(tag, payload, MAX_LABELS)?),
                Tag::Preprocess => preprocess = Some(read(tag, payload)?),
                Tag::Quantization => quantization = Some(read(tag, payload)?),
                Tag::Decision => decision = Some(read(tag, payload)?),
                Tag::Metrics => metrics = Some(read(tag, payload)?),
                Tag::Probes => probes = Some(read_list(tag, payload, MAX_PROBES)?),
                Tag::Provenance => provenance = Some(read(tag, payload)?),
                Tag::Digest => graph_digest = Some(read_graph_digest(payload)?),
            }
        }
        if probes.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::new("the probes section is empty"));
        }
        let missing = |tag: Tag| format!("the {} section is missing", tag.name());
        let card = Self {
            labels: Labels::new(labels.with_context(|| missing(Tag::Labels))?)?,
            preprocess: preprocess.with_context(|| missing(Tag::Preprocess))?,
            quantization: quantization.with_context(|| missing(Tag::Quantization))?,
            decision: decision.with_context(|| missing(Tag::Decision))?,
            metrics,
            probes: probes.unwrap_or_default(),
            provenance: provenance.with_context(|| missing(Tag::Provenance))?,
            graph_digest: graph_digest.with_context(|| missing(Tag::Digest))?,
        };
        card.validate()?;
        Ok(card)
    }

    /// Checks every value's rule. The labels keep theirs by themselves.
    fn validate(&self) -> Result<()> {
        self.preprocess.validate()?;
        self.quantization.validate()?;
        self.decision.validate()?;
        if let Some(metrics) = &self.metrics {
            metrics.validate()?;
        }
        if self.probes.len() > MAX_PROBES {
            return Err(Error::new(format!(
                "{} probes, at most {MAX_PROBES} are possible",
                self.probes.len()
            )));
        }
        for probe in &self.probes {
            probe.validate(self.labels.len())?;
        }
        self.provenance.validate()
    }
}

impl Quantization {
    fn validate(&self) -> Result<()> {
        if self.arithmetic == 0 {
            return Err(Error::new("arithmetic 0; the first is 1"));
        }
        let possible = match self.kind {
            QuantizationKind::Float => self.weight_bits == 32,
            QuantizationKind::Int8 => WEIGHT_BITS.contains(&self.weight_bits),
        };
        if !possible {
            return Err(Error::new(format!(
                "weights of {} bits; float has 32, int8 from {} to {}",
                self.weight_bits,
                WEIGHT_BITS.start(),
                WEIGHT_BITS.end()
            )));
        }
        check_name("calibration method", &self.calibration_method)
    }
}

impl Decision {
    fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::new(format!(
                "temperature {}; a finite number above 0 is needed",
                self.temperature
            )));
        }
        check_fraction("threshold", self.threshold)
    }
}

impl Metrics {
    fn validate(&self) -> Result<()> {
        let (low, high) = self.interval;
        for (name, value) in [
            ("top1", self.top1),
            ("top5", self.top5),
            ("macro_recall", self.macro_recall),
            ("float_top1", self.float_top1),
            ("lower end of the interval", low),
            ("upper end of the interval", high),
        ] {
            check_fraction(name, value)?;
        }
        if low > high {
            return Err(Error::new(format!(
                "the confidence interval from {low} to {high} is upside down"
            )));
        }
        Ok(())
    }
}

impl Probe {
    fn validate(&self, labels: usize) -> Result<()> {
        if self.logits.len() != labels {
            return Err(Error::new(format!(
                "probe {} has {} logits for {labels} labels",
                self.seed,
                self.logits.len()
            )));
        }
        if !self.logits.iter().all(|logit| logit.is_finite()) {
            return Err(Error::new(format!(
                "probe {} has a logit that is not finite",
                self.seed
            )));
        }
        Ok(())
    }
}

impl Provenance {
    fn validate(&self) -> Result<()> {
        check_name("backbone", &self.backbone)?;
        check_name("recipe", &self.recipe)?;
        check_name("graft version", &self.graft_version)?;
        for (key, value) in &self.settings {
            check_name("name of a setting", key)?;
            check_name("value of a setting", value)?;
        }
        Ok(())
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    if name.len() > MAX_NAME_BYTES {
        return Err(too_long(&format!("the {what}"), name.len(), MAX_NAME_BYTES));
    }
    Ok(())
}

fn check_fraction(what: &str, value: f32) -> Result<()> {
    // A NaN is in no range.
    if !(0.0..=1.0).contains(&value) {
        return Err(Error::new(format!(
            "{what} {value}; from 0 to 1 is possible"
        )));
    }
    Ok(())
}

fn too_long(what: &str, bytes: usize, most: usize) -> Error {
    Error::new(format!(
        "{what} has {bytes} bytes, at most {most} are possible"
    ))
}

fn push(bytes: &mut Vec<u8>, tag: Tag, value: &impl Serialize) -> Result<()> {
    let payload = postcard::to_allocvec(value)
        .with_context(|| format!("can't encode the {} section", tag.name()))?;
    push_header(bytes, tag, payload.len())?;
    bytes.extend_from_slice(&payload);
    Ok(())
}

fn push_header(bytes: &mut Vec<u8>, tag: Tag, length: usize) -> Result<()> {
    let fitting = u32::try_from(length)
        .ok()
        .filter(|_| length <= tag.max_bytes());
    let Some(fitting) = fitting else {
        let what = format!("the {} section", tag.name());
        return Err(too_long(&what, length, tag.max_bytes()));
    };
    bytes.extend_from_slice(&(tag as u16).to_le_bytes());
    bytes.push(u8::from(tag.required()));
    bytes.extend_from_slice(&fitting.to_le_bytes());
    Ok(())
}

/// The sections of a card whose header and digest are right, read one by one.
struct Sections<'a> {
    rest: &'a [u8],
    last: Option<u16>,
}

impl<'a> Sections<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let damaged = "it is damaged or cut off";
        let again = "copy the model file again, or export it again";
        let header = bytes
            .split_at_checked(HEADER_BYTES)
            .and_then(|(header, rest)| Some((header.strip_prefix(MAGIC)?, rest)));
        let Some((version, rest)) = header else {
            return Err(Error::new("it does not begin as a model card does").hint(again));
        };
        if version != FORMAT_VERSION.to_le_bytes() {
            let version = version
                .iter()
                .rev()
                .fold(0, |high, &low| high << 8 | u16::from(low));
            return Err(Error::new(format!(
                "its format_version is {version}, this release reads {FORMAT_VERSION}"
            ))
            .hint("use the release that made the model, or export the model again with this one"));
        }
        let Some((before, digest)) = bytes.split_last_chunk::<DIGEST_BYTES>() else {
            return Err(Error::new(damaged).hint(again));
        };
        if sha256(before) != *digest {
            return Err(Error::new(damaged).hint(again));
        }
        Ok(Self { rest, last: None })
    }

    /// The next section of a known kind and its payload; unknown optional ones are skipped.
    fn next(&mut self) -> Result<Option<(Tag, &'a [u8])>> {
        loop {
            let Some((header, rest)) = self.rest.split_first_chunk::<7>() else {
                if self.rest.is_empty() {
                    return Ok(None);
                }
                return Err(Error::new("a section's header is cut off"));
            };
            let [tag_low, tag_high, flag, length @ ..] = *header;
            let number = u16::from_le_bytes([tag_low, tag_high]);
            let length = u32::from_le_bytes(length);
            match self.last {
                Some(last) if last == number => {
                    return Err(Error::new(format!("section {number} is there twice")));
                }
                Some(last) if last > number => {
                    return Err(Error::new(format!(
                        "section {number} comes after section {last}"
                    )));
                }
                _ => self.last = Some(number),
            }
            let tag = Tag::from_number(number);
            let most = tag.map_or(MAX_SECTION_BYTES, Tag::max_bytes);
            let (payload, rest) = usize::try_from(length)
                .ok()
                .filter(|&length| length <= most)
                .and_then(|length| rest.split_at_checked(length))
                .with_context(|| {
                    format!(
                        "section {number} claims {length} bytes; {} are left, at most {most} are possible",
                        rest.len()
                    )
                })?;
            self.rest = rest;
            match (tag, flag) {
                (Some(tag), flag) if flag == u8::from(tag.required()) => {
                    return Ok(Some((tag, payload)));
                }
                (None, 0) => {}
                (None, 1) => {
                    return Err(Error::new(format!(
                        "section {number}, which this release does not know, is required"
                    ))
                    .hint("update graft on this machine, or export the model with this release"));
                }
                _ => {
                    return Err(Error::new(format!("section {number} has the flag {flag}")));
                }
            }
        }
    }
}

/// A section's value. The payload must be exactly what encoding the value gives: nothing after it, no number written
/// longer than needed.
fn read<T: Serialize + DeserializeOwned>(tag: Tag, payload: &[u8]) -> Result<T> {
    let failed = || format!("the {} section is not valid", tag.name());
    let (value, rest) = postcard::take_from_bytes::<T>(payload).with_context(failed)?;
    if !rest.is_empty() {
        let after = format!("{} bytes after its end", rest.len());
        return Err(Error::new(failed()).source(after));
    }
    if postcard::to_allocvec(&value).with_context(failed)? != payload {
        return Err(Error::new(failed()).source("it is not in its shortest form"));
    }
    Ok(value)
}

/// A section that is a list. Its length comes first and is checked before memory is taken.
fn read_list<T: Serialize + DeserializeOwned>(
    tag: Tag,
    payload: &[u8],
    most: usize,
) -> Result<Vec<T>> {
    let failed = || format!("the {} section is not valid", tag.name());
    let (count, _) = postcard::take_from_bytes::<u32>(payload).with_context(failed)?;
    if u64::from(count) > most as u64 {
        let why = format!("it lists {count}, at most {most} are possible");
        return Err(Error::new(failed()).source(why));
    }
    read(tag, payload)
}

/// The graph's digest; the card's own, after it, was checked first of all.
fn read_graph_digest(payload: &[u8]) -> Result<[u8; 32]> {
    match payload.split_first_chunk::<DIGEST_BYTES>() {
        Some((graph, card)) if card.len() == DIGEST_BYTES => Ok(*graph),
        _ => Err(Error::new(format!(
            "the digest section has {} bytes instead of {}",
            payload.len(),
            2 * DIGEST_BYTES
        ))),
    }
}
