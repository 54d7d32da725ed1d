//! The wire format byte by byte: every type, every enum variant, and everything that must be refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use graft_shared::card::{
    Card, Decision, Metrics, Probe, Provenance, Quantization, QuantizationKind,
};
use graft_shared::digest::{hex, sha256};
use graft_shared::json::CardJson;
use graft_shared::labels::Labels;
use graft_shared::preprocess::{Filter, Fit, Preprocess};
use serde::Serialize;

fn card() -> Card {
    Card {
        labels: Labels::new(vec!["roses".into(), "子猫".into()]).unwrap(),
        preprocess: Preprocess {
            width: 224,
            height: 224,
            fit: Fit::Crop { crop_pct: 0.875 },
            filter: Filter::Bicubic,
            dct_scaling: true,
        },
        quantization: Quantization {
            arithmetic: 1,
            kind: QuantizationKind::Int8,
            weight_bits: 8,
            calibration_images: 300,
            calibration_method: "mse".into(),
        },
        decision: Decision {
            temperature: 1.5,
            threshold: 0.25,
        },
        metrics: Some(Metrics {
            test_images: 372,
            top1: 0.9,
            top5: 1.0,
            macro_recall: 0.75,
            float_top1: 0.5,
            interval: (0.25, 1.0),
        }),
        probes: vec![Probe {
            seed: 7,
            logits: vec![1.0, -2.0],
        }],
        provenance: Provenance {
            manifest_digest: [0x11; 32],
            backbone: "b0".into(),
            backbone_digest: [0x22; 32],
            recipe: "head".into(),
            seed: 200,
            settings: vec![("epochs".into(), "3".into())],
            graft_version: "0.1.0".into(),
            created: 1_700_000_000,
        },
        graph_digest: [0x33; 32],
    }
}

/// The smallest card there is.
fn small_card() -> Card {
    Card {
        metrics: None,
        probes: Vec::new(),
        ..card()
    }
}

fn assert_bytes(value: &impl Serialize, expected: &str) {
    assert_eq!(
        hex(&postcard::to_allocvec(value).unwrap()),
        expected.replace(' ', "")
    );
}

#[test]
fn every_type_has_its_bytes() {
    let card = card();
    assert_bytes(&card.labels, "02 05 726f736573 06 e5ad90e78cab");
    assert_bytes(&card.preprocess, "e001 e001 00 0000603f 01 01");
    assert_bytes(&card.quantization, "01 01 08 ac02 03 6d7365");
    assert_bytes(&card.decision, "0000c03f 0000803e");
    assert_bytes(
        &card.metrics,
        "01 f402 6666663f 0000803f 0000403f 0000003f 0000803e 0000803f",
    );
    assert_bytes(&card.probes, "01 07 02 0000803f 000000c0");
    let expected = format!(
        "{} 02 6230 {} 04 68656164 c801 01 06 65706f636873 01 33 05 302e312e30 80e2cfaa06",
        "11".repeat(32),
        "22".repeat(32)
    );
    assert_bytes(&card.provenance, &expected);
}

#[test]
fn every_variant_has_its_byte() {
    assert_bytes(&Fit::Crop { crop_pct: 1.0 }, "00 0000803f");
    assert_bytes(
        &Fit::Pad {
            colour: [1, 2, 255],
        },
        "01 01 02 ff",
    );
    assert_bytes(&Fit::Squash, "02");
    assert_bytes(&Filter::Bilinear, "00");
    assert_bytes(&Filter::Bicubic, "01");
    assert_bytes(&QuantizationKind::Float, "00");
    assert_bytes(&QuantizationKind::Int8, "01");
}

/// The whole card, assembled by hand from the written spec.
#[test]
fn the_card_has_its_bytes() {
    let card = card();
    let sections: [(u16, u8, Vec<u8>); 7] = [
        (1, 1, postcard::to_allocvec(&card.labels).unwrap()),
        (2, 1, postcard::to_allocvec(&card.preprocess).unwrap()),
        (3, 1, postcard::to_allocvec(&card.quantization).unwrap()),
        (4, 1, postcard::to_allocvec(&card.decision).unwrap()),
        (5, 0, postcard::to_allocvec(&card.metrics.unwrap()).unwrap()),
        (6, 0, postcard::to_allocvec(&card.probes).unwrap()),
        (7, 0, postcard::to_allocvec(&card.provenance).unwrap()),
    ];
    let expected = assemble(1, &sections);
    assert_eq!(hex(&card.encode().unwrap()), hex(&expected));
    assert!(hex(&expected).starts_with("67726166746361726401000100010e000000"));
    assert_eq!(
        hex(&sha256(&expected)),
        "73ea63beefd3c52434d637c5a60e0faa8fdbb8356068827f801b5d312c8d819b"
    );
}

/// The card as the first release of format_version 1 wrote it: it stays readable.
#[test]
fn the_first_card_of_version_1_is_read() {
    let hexadecimal = include_str!("fixtures/card-1.hex").trim_end().as_bytes();
    let bytes: Vec<u8> = hexadecimal
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(Card::decode(&bytes).unwrap(), card());
}

#[test]
fn round_trip() {
    for card in [card(), small_card()] {
        let bytes = card.encode().unwrap();
        let decoded = Card::decode(&bytes).unwrap();
        assert_eq!(decoded, card);
        assert_eq!(decoded.encode().unwrap(), bytes);
    }
}

#[test]
fn every_prefix_every_flipped_bit_and_every_addition_is_refused() {
    let bytes = card().encode().unwrap();
    for length in 0..bytes.len() {
        Card::decode(&bytes[..length]).unwrap_err();
    }
    let mut damaged = bytes.clone();
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        Card::decode(&damaged).unwrap_err();
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    for extra in [&[0][..], &[0; 7], &[0xff; 32], &bytes] {
        Card::decode(&[&bytes, extra].concat()).unwrap_err();
    }
}

fn assemble(version: u16, sections: &[(u16, u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"graftcard".to_vec();
    bytes.extend(version.to_le_bytes());
    for (tag, flag, payload) in sections {
        bytes.extend(tag.to_le_bytes());
        bytes.push(*flag);
        bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(payload);
    }
    bytes.extend([0xff, 0xff, 1, 64, 0, 0, 0]);
    bytes.extend([0x33; 32]);
    bytes.extend(sha256(&bytes));
    bytes
}

/// The sections of the smallest card, without the digest.
fn sections() -> Vec<(u16, u8, Vec<u8>)> {
    let card = small_card();
    vec![
        (1, 1, postcard::to_allocvec(&card.labels).unwrap()),
        (2, 1, postcard::to_allocvec(&card.preprocess).unwrap()),
        (3, 1, postcard::to_allocvec(&card.quantization).unwrap()),
        (4, 1, postcard::to_allocvec(&card.decision).unwrap()),
        (7, 0, postcard::to_allocvec(&card.provenance).unwrap()),
    ]
}

/// Cards whose digest is right, and which must be refused all the same, for the reason given.
#[test]
fn well_digested_but_wrong_cards_are_refused_with_the_reason() {
    let refused = |bytes: &[u8], reason: &str| {
        let line = Card::decode(bytes).unwrap_err().line();
        assert!(line.contains(reason), "{line:?} does not say {reason:?}");
    };
    refused(
        &assemble(2, &sections()),
        "its format_version is 2, this release reads 1",
    );
    refused(b"", "does not begin as a model card does");

    for (index, name) in [
        "labels",
        "preprocess",
        "quantization",
        "decision",
        "provenance",
    ]
    .iter()
    .enumerate()
    {
        let mut sections = sections();
        sections.remove(index);
        let reason = format!("the {name} section is missing");
        refused(&assemble(1, &sections), &reason);
    }
    for index in 0..5 {
        let mut twice = sections();
        twice.insert(index, twice[index].clone());
        refused(&assemble(1, &twice), "is there twice");

        let mut trailing = sections();
        trailing[index].2.push(0);
        refused(&assemble(1, &trailing), "1 bytes after its end");

        let mut cut = sections();
        cut[index].2.pop();
        refused(&assemble(1, &cut), "section is not valid");

        let mut other_flag = sections();
        other_flag[index].1 ^= 1;
        refused(&assemble(1, &other_flag), "has the flag");
    }
    let mut swapped = sections();
    swapped.swap(0, 1);
    refused(&assemble(1, &swapped), "section 1 comes after section 2");

    let mut unknown = sections();
    unknown.push((900, 1, vec![1, 2, 3]));
    refused(
        &assemble(1, &unknown),
        "section 900, which this release does not know, is required",
    );
    unknown[5].1 = 2;
    refused(&assemble(1, &unknown), "section 900 has the flag 2");
    unknown[5] = (900, 0, vec![0; (64 << 10) + 1]);
    refused(&assemble(1, &unknown), "section 900 claims 65537 bytes");

    // 1 written in two bytes.
    let mut long = sections();
    long[2].2.splice(0..1, [0x81, 0x00]);
    refused(&assemble(1, &long), "not in its shortest form");

    let mut long_list = sections();
    long_list[0].2 = postcard::to_allocvec(&u32::MAX).unwrap();
    refused(
        &assemble(1, &long_list),
        "it lists 4294967295, at most 32768 are possible",
    );

    let mut variant = sections();
    variant[1].2[4] = 3;
    refused(
        &assemble(1, &variant),
        "the preprocess section is not valid",
    );

    let mut no_probes = sections();
    no_probes.insert(4, (6, 0, vec![0]));
    refused(&assemble(1, &no_probes), "the probes section is empty");

    let mut claims = assemble(1, &sections());
    let length = claims.len() - 32;
    claims[length - 36..length - 32].copy_from_slice(&[65, 0, 0, 0]);
    let digest = sha256(&claims[..length]);
    claims[length..].copy_from_slice(&digest);
    refused(&claims, "section 65535 claims 65 bytes; 64 are left");
}

#[test]
fn an_unknown_optional_section_is_skipped() {
    let mut sections = sections();
    sections.push((900, 0, vec![1, 2, 3]));
    assert_eq!(Card::decode(&assemble(1, &sections)).unwrap(), small_card());
}

/// What the writer must refuse as the reader does: no such card can come into being.
#[test]
fn values_that_break_a_rule_are_neither_written_nor_read() {
    type Breaks = fn(&mut Card);
    let cases: [(Breaks, &str); 19] = [
        (|card| card.preprocess.width = 0, "input width of 0 pixels"),
        (
            |card| card.preprocess.height = 2_000,
            "input height of 2000 pixels",
        ),
        (
            |card| card.preprocess.fit = Fit::Crop { crop_pct: f32::NAN },
            "crop_pct NaN",
        ),
        (
            |card| card.preprocess.fit = Fit::Crop { crop_pct: 1.5 },
            "crop_pct 1.5",
        ),
        (|card| card.quantization.arithmetic = 0, "arithmetic 0"),
        (
            |card| card.quantization.weight_bits = 9,
            "weights of 9 bits",
        ),
        (
            |card| card.quantization.kind = QuantizationKind::Float,
            "weights of 8 bits",
        ),
        (
            |card| card.quantization.calibration_method = "x".repeat(1_025),
            "1025 bytes",
        ),
        (|card| card.decision.temperature = 0.0, "temperature 0"),
        (
            |card| card.decision.temperature = f32::INFINITY,
            "temperature inf",
        ),
        (|card| card.decision.threshold = -0.1, "threshold -0.1"),
        (
            |card| card.metrics.as_mut().unwrap().top1 = f32::NAN,
            "top1 NaN",
        ),
        (
            |card| card.metrics.as_mut().unwrap().interval.1 = 1.1,
            "upper end of the interval 1.1",
        ),
        (
            |card| card.metrics.as_mut().unwrap().interval = (0.9, 0.8),
            "upside down",
        ),
        (
            |card| card.probes[0].logits[1] = f32::NEG_INFINITY,
            "a logit that is not finite",
        ),
        (
            |card| card.probes[0].logits.push(0.0),
            "3 logits for 2 labels",
        ),
        (
            |card| card.probes = vec![card.probes[0].clone(); 17],
            "17 probes",
        ),
        (
            |card| card.provenance.recipe = "x".repeat(2_000),
            "2000 bytes",
        ),
        (
            |card| card.provenance.settings = vec![("key".into(), "x".repeat(1_000)); 70],
            "at most 65536 are possible",
        ),
    ];
    for (breaks, reason) in cases {
        let mut broken = card();
        breaks(&mut broken);
        let line = broken.encode().unwrap_err().line();
        assert!(line.contains(reason), "{line:?} does not say {reason:?}");
    }

    let mut sections = sections();
    let mut decision = small_card().decision;
    decision.temperature = f32::NAN;
    sections[3].2 = postcard::to_allocvec(&decision).unwrap();
    let error = Card::decode(&assemble(1, &sections)).unwrap_err();
    assert!(error.line().contains("temperature NaN"));
    sections[3].2 = postcard::to_allocvec(&small_card().decision).unwrap();
    sections[0].2 = postcard::to_allocvec(&["a", "a"].as_slice()).unwrap();
    let error = Card::decode(&assemble(1, &sections)).unwrap_err();
    assert!(error.line().contains("is there twice"));
}

/// Any bytes at all, with the header and digest of a card: an error or a card, never a panic.
#[test]
fn garbage_between_header_and_digest_never_panics() {
    let good = card().encode().unwrap();
    let mut state = 1_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 4 {
            let position = 11 + random() % (bytes.len() - 11 - 32);
            bytes[position] = u8::try_from(random() & 255).unwrap();
        }
        let length = bytes.len() - 32;
        let digest = sha256(&bytes[..length]);
        bytes[length..].copy_from_slice(&digest);
        if let Ok(card) = Card::decode(&bytes) {
            assert_eq!(card.encode().unwrap(), bytes);
        }
    }
}

#[test]
fn probe_images_have_their_bytes() {
    let mut preprocess = card().preprocess;
    (preprocess.width, preprocess.height) = (40, 24);
    let pixels = Probe::pixels(7, &preprocess);
    assert_eq!((pixels.width, pixels.height), (40, 24));
    pixels.validate().unwrap();
    assert_eq!(
        hex(&sha256(&pixels.data)),
        "30322172a84e6f474b308524a149956cf900deac52430250aa42c1538cd2c5d2"
    );
    assert_ne!(Probe::pixels(8, &preprocess), pixels);
}

#[test]
fn the_card_reads_as_json() {
    let json = serde_json::to_string_pretty(&CardJson::from(&card())).unwrap();
    let expected = format!(
        r#"{{
  "labels": [
    "roses",
    "子猫"
  ],
  "preprocess": {{
    "width": 224,
    "height": 224,
    "fit": "crop",
    "crop_pct": 0.875,
    "filter": "bicubic",
    "dct_scaling": true
  }},
  "quantization": {{
    "kind": "int8",
    "weight_bits": 8,
    "calibration_images": 300,
    "calibration_method": "mse"
  }},
  "decision": {{
    "temperature": 1.5,
    "threshold": 0.25
  }},
  "metrics": {{
    "test_images": 372,
    "top1": 0.9,
    "top5": 1.0,
    "macro_recall": 0.75,
    "float_top1": 0.5,
    "interval": [
      0.25,
      1.0
    ]
  }},
  "probes": 1,
  "provenance": {{
    "manifest_digest": "{}",
    "backbone": "b0",
    "backbone_digest": "{}",
    "recipe": "head",
    "seed": 200,
    "settings": {{
      "epochs": "3"
    }},
    "graft_version": "0.1.0",
    "created": 1700000000
  }},
  "digest": "{}",
  "arithmetic": 1
}}"#,
        "11".repeat(32),
        "22".repeat(32),
        "33".repeat(32)
    );
    assert_eq!(json, expected);
    let fits = [Fit::Pad { colour: [1, 2, 3] }, Fit::Squash].map(|fit| {
        let preprocess = Preprocess {
            fit,
            ..card().preprocess
        };
        serde_json::to_string(&graft_shared::json::PreprocessJson::from(&preprocess)).unwrap()
    });
    assert_eq!(
        fits,
        [
            r#"{"width":224,"height":224,"fit":"pad","colour":[1,2,3],"filter":"bicubic","dct_scaling":true}"#,
            r#"{"width":224,"height":224,"fit":"squash","filter":"bicubic","dct_scaling":true}"#
        ]
    );
}
