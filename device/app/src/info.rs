//! `info`: what a model is, and how it runs here.

use std::fmt::Write as _;
use std::io::stdout;

use graft_engine::Engine;
use graft_engine::label::write_json;
use graft_shared::card::QuantizationKind;
use graft_shared::digest::hex;
use graft_shared::error::Result;
use graft_shared::json::CardJson;
use graft_shared::preprocess::Fit;
use serde::Serialize;

use crate::cli::ModelArguments;
use crate::{Outcome, print};

pub(crate) fn run(arguments: &ModelArguments) -> Result<Outcome> {
    let engine = Engine::open(&arguments.model)?;
    if arguments.json {
        write_json(&Info::from(&engine), &mut stdout().lock())?;
    } else {
        print(&text(&engine))?;
    }
    Ok(Outcome::Done)
}

/// The card, and the nodes of its graph.
#[derive(Serialize)]
pub(crate) struct Info<'a> {
    #[serde(flatten)]
    card: CardJson<'a>,
    nodes: Nodes<'a>,
}

/// Which nodes run in graft's operators, and which in tract's.
#[derive(Serialize)]
struct Nodes<'a> {
    fast: usize,
    tract: usize,
    tract_operators: &'a [String],
    list: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    operator: &'a str,
    kernel: &'a str,
}

impl<'a> From<&'a Engine> for Info<'a> {
    fn from(engine: &'a Engine) -> Self {
        let nodes = engine.nodes();
        let list = nodes.list.iter().map(|node| Node {
            name: &node.name,
            operator: &node.operator,
            kernel: &node.kernel,
        });
        Self {
            card: engine.card().into(),
            nodes: Nodes {
                fast: nodes.fast,
                tract: nodes.tract,
                tract_operators: &nodes.tract_operators,
                list: list.collect(),
            },
        }
    }
}

/// The same for people, without the settings and digests that only scripts compare.
fn text(engine: &Engine) -> String {
    let (card, nodes) = (engine.card(), engine.nodes());
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    let provenance = &card.provenance;
    row(
        "made by",
        &format!(
            "graft {}, recipe {}, from {}",
            provenance.graft_version, provenance.recipe, provenance.backbone
        ),
    );
    row("digest", &hex(&card.graph_digest));
    let quantization = &card.quantization;
    row(
        "numbers",
        &match quantization.kind {
            QuantizationKind::Float => "float".to_owned(),
            QuantizationKind::Int8 => format!(
                "int8 (weights of {} bits; {} on {} images; arithmetic {})",
                quantization.weight_bits,
                quantization.calibration_method,
                quantization.calibration_images,
                quantization.arithmetic
            ),
        },
    );
    let preprocess = &card.preprocess;
    let fit = match preprocess.fit {
        Fit::Crop { crop_pct } => format!("the middle {:.1} %", 100.0 * crop_pct),
        Fit::Pad { .. } => "the whole picture, padded".to_owned(),
        Fit::Squash => "the whole picture, squashed".to_owned(),
    };
    row(
        "sees",
        &format!("{} x {} pixels, {fit}", preprocess.width, preprocess.height),
    );
    if let Some(metrics) = &card.metrics {
        row(
            "accuracy",
            &format!(
                "top-1 {:.2} % ({:.1} to {:.1}) on {} test photos, {:.2} % before quantization",
                100.0 * metrics.top1,
                100.0 * metrics.interval.0,
                100.0 * metrics.interval.1,
                metrics.test_images,
                100.0 * metrics.float_top1
            ),
        );
    }
    row(
        "runs here",
        &format!(
            "{} nodes in graft's operators ({}), {} in tract's{}",
            nodes.fast,
            engine.isa(),
            nodes.tract,
            if nodes.tract == 0 {
                String::new()
            } else {
                format!(": {}", nodes.tract_operators.join(", "))
            }
        ),
    );
    row("labels", &card.labels.len().to_string());
    for label in card.labels.iter() {
        let _ = writeln!(text, "  {label}");
    }
    text
}
