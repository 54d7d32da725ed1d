//! Model files: what was written is read back, and everything else is refused with its reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use graft_engine::Engine;
use graft_engine::model::{CARD_KEY, Model, attach_card};
use graft_shared::card::{Card, Probe};
use prost::Message;
use support::{Conv, Graph, Head, Random, card, int, ints, value};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, ModelProto, StringStringEntryProto};

const SIDE: usize = 8;

fn net() -> Graph {
    let mut random = Random(1);
    let mut graph = Graph::new(SIDE, SIDE, 3);
    graph.transpose();
    graph.conv(
        "pixels",
        "conv",
        &Conv::random(&mut random, 3, 4, 3, 2, false),
    );
    graph.pool("conv", "pooled", (0.02, 100));
    graph.node("Flatten", &["pooled"], "flat", vec![int("axis", 1)]);
    graph.head("flat", "pooled_zero", &Head::random(&mut random, 4, 3));
    graph
}

fn refusal(bytes: &[u8]) -> String {
    match Engine::from_bytes(bytes) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.report(),
    }
}

#[test]
fn what_is_written_is_read() {
    let graph = net();
    let file = graph.file();
    let model = Model::parse(&file).unwrap();
    let expected = card(8, 8, 3);
    assert_eq!(
        model.card,
        Card {
            graph_digest: model.card.graph_digest,
            ..expected
        }
    );
    // Any ONNX tool finds the metadata, and the graph as it was.
    let onnx = ModelProto::decode(file.as_slice()).unwrap();
    let entries: Vec<(&str, &str)> = onnx
        .metadata_props
        .iter()
        .map(|entry| (entry.key.as_str(), entry.value.as_str()))
        .collect();
    assert_eq!(entries[0].0, CARD_KEY);
    assert_eq!(
        entries[1],
        ("labels", r#"["Öffnung 0","Öffnung 1","Öffnung 2"]"#)
    );
    assert_eq!(
        entries[2],
        (
            "preprocessing",
            r#"{"layout":"uint8 NHWC","colour":"RGB","width":8,"height":8,"fit":"crop","crop_pct":0.875,"filter":"bicubic","dct_scaling":true}"#
        )
    );
    assert!(file.starts_with(&graph.bytes()));
    assert!(attach_card(&file, &model.card).is_err());
}

#[test]
fn every_flipped_bit_is_found() {
    let file = net().file();
    for byte in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[byte] ^= 1 << bit;
            assert!(
                Model::parse(&damaged).is_err(),
                "bit {bit} of byte {byte} of {}",
                file.len()
            );
        }
    }
}

#[test]
fn every_truncation_and_every_tail_is_found() {
    let file = net().file();
    for length in 0..file.len() {
        assert!(
            Model::parse(&file[..length]).is_err(),
            "{length} of {} bytes",
            file.len()
        );
    }
    for tail in [&[0u8][..], &file, &net().bytes(), &[0x72, 0]] {
        assert!(Model::parse(&[&file, tail].concat()).is_err());
    }
}

#[test]
fn what_is_no_model_file_is_refused_with_its_reason() {
    let graph = net().bytes();
    assert!(refusal(b"").contains("no model card"));
    assert!(
        refusal(b"\xff\xd8\xff\xe0 a picture").contains("not an ONNX file"),
        "{}",
        refusal(b"\xff\xd8\xff")
    );
    assert!(refusal(&graph).contains("no model card"));
    assert!(refusal(&graph).contains("hint: models for this program"));

    let mut proto = ModelProto::decode(graph.as_slice()).unwrap();
    proto.metadata_props = vec![StringStringEntryProto {
        key: CARD_KEY.into(),
        value: "%".into(),
    }];
    assert!(refusal(&proto.encode_to_vec()).contains("not base64"));
    proto.metadata_props[0].value = "AAAA".into();
    assert!(refusal(&proto.encode_to_vec()).contains("model card"));

    let mut edited = ModelProto::decode(net().file().as_slice()).unwrap();
    edited.metadata_props[1].value = "[]".into();
    assert!(refusal(&edited.encode_to_vec()).contains("readable metadata"));
    edited.metadata_props.truncate(1);
    assert!(refusal(&edited.encode_to_vec()).contains("readable metadata"));

    let mut other = card(8, 8, 3);
    other.quantization.arithmetic = 2;
    assert!(refusal(&attach_card(&graph, &other).unwrap()).contains("made for arithmetic 2"));
}

/// Graphs that a valid card comes with, and that are refused before tract sees them.
#[test]
fn impossible_graphs_are_refused() {
    let refused = |what: &str, edit: &dyn Fn(&mut GraphProto)| {
        let mut graph = net();
        edit(&mut graph.graph);
        let report = refusal(&attach_card(&graph.bytes(), &card(8, 8, 3)).unwrap());
        assert!(report.contains(what), "{what}: {report}");
    };
    refused("another file", &|graph| {
        graph.initializer[0].data_location = Some(DataLocation::External as i32)
    });
    refused("another file", &|graph| {
        graph.initializer[0].external_data = vec![StringStringEntryProto {
            key: "location".into(),
            value: "/etc/passwd".into(),
        }];
    });
    refused("impossible shape", &|graph| {
        graph.initializer[0].dims = vec![-1]
    });
    refused("impossible shape", &|graph| {
        graph.initializer[0].dims = vec![i64::MAX, i64::MAX]
    });
    refused("number of values", &|graph| {
        graph.initializer[0].dims = vec![7]
    });
    refused("unknown type", &|graph| graph.initializer[0].data_type = 77);
    refused("twice", &|graph| {
        graph.node[1].output = vec!["pixels".into()]
    });
    refused("before it is made", &|graph| graph.node.swap(0, 1));
    refused("before it is made", &|graph| {
        graph.node[0].input = vec!["pixels".into()]
    });
    refused("nothing makes", &|graph| {
        graph.output[0].name = "nobody".into()
    });
    refused("2 inputs and 1 outputs", &|graph| {
        graph.input.push(value("more", DataType::Uint8, &[1]))
    });
    refused("1 inputs and 2 outputs", &|graph| {
        graph.output.push(value("conv", DataType::Uint8, &[1]))
    });
    refused("control flow", &|graph| {
        let mut branch = int("then_branch", 0);
        branch.g = Some(GraphProto::default());
        graph.node[0].attribute.push(branch);
    });
    refused("no file may have", &|graph| {
        graph.node[0].op_type = "graft.operator".into()
    });
    refused("is not uint8 [1, 8, 8, 3]", &|graph| {
        graph.input[0] = value("image", DataType::Uint8, &[1, 8, 9, 3])
    });
    refused("is not uint8 [1, 8, 8, 3]", &|graph| {
        graph.input[0] = value("image", DataType::Float, &[1, 8, 8, 3])
    });
    refused("there are 3 labels", &|graph| {
        graph.output[0] = value("logits", DataType::Float, &[1, 4])
    });
    refused("there are 3 labels", &|graph| graph.output[0].r#type = None);

    // These tract, or our operators, refuse.
    refused("can't plan", &|graph| {
        graph.node[0].op_type = "NoSuchOperator".into()
    });
    refused("can't plan", &|graph| {
        graph.node[0].attribute = vec![ints("perm", &[0, 1])]
    });
    refused("can't plan", &|graph| {
        graph.node[1].attribute[1] = ints("strides", &[0, 0])
    });
    refused("can't plan", &|graph| {
        graph.node[1].attribute[2] = ints("pads", &[9, 9, 9, 9])
    });
    refused("can't plan", &|graph| {
        graph
            .initializer
            .iter_mut()
            .find(|t| t.name == "conv_scale")
            .unwrap()
            .raw_data = f32::NAN.to_le_bytes().into();
    });
}

#[test]
fn probes_find_another_result() {
    let graph = net();
    let mut probed = card(8, 8, 3);
    let engine = graph.engine();
    let probe = |seed: u64| Probe {
        seed,
        logits: engine
            .logits(&Probe::pixels(seed, &probed.preprocess))
            .unwrap(),
    };
    let probes = vec![probe(1), probe(2)];
    probed.probes = probes;
    let report = Engine::from_bytes(&attach_card(&graph.bytes(), &probed).unwrap())
        .unwrap()
        .verify()
        .unwrap();
    assert_eq!(
        (report.probes, report.exact, report.largest_difference),
        (2, true, 0.0)
    );

    let logit = &mut probed.probes[1].logits[2];
    *logit = f32::from_bits(logit.to_bits() ^ 1);
    let error = Engine::from_bytes(&attach_card(&graph.bytes(), &probed).unwrap())
        .unwrap()
        .verify()
        .unwrap_err();
    assert!(
        error.report().starts_with("error: probe 1: logit 2 is "),
        "{}",
        error.report()
    );
}

#[test]
fn pixels_of_another_size_are_refused() {
    let engine = net().engine();
    let error = engine.logits(&Random(1).pixels(8, 9)).unwrap_err();
    assert_eq!(
        error.message(),
        "the model's input is 8 x 8 pixels, not 9 x 8"
    );
    let mut short = Random(1).pixels(8, 8);
    short.data.pop();
    assert!(engine.logits(&short).is_err());
}
