//! Small ONNX files and cards, made for the tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use graft_engine::Engine;
use graft_engine::model::attach_card;
use graft_shared::card::{Card, Decision, Provenance, Quantization, QuantizationKind};
use graft_shared::labels::Labels;
use graft_shared::preprocess::{Filter, Fit, Pixels, Preprocess};
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// Repeatable numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn scale(&mut self, magnitude: f32) -> f32 {
        magnitude * (0.5 + (self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }
    pub fn weights(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.next() as i8).max(-127)).collect()
    }
    pub fn biases(&mut self, n: usize) -> Vec<i32> {
        (0..n).map(|_| i32::from(self.next() as i16)).collect()
    }
    pub fn pixels(&mut self, height: usize, width: usize) -> Pixels {
        Pixels {
            width,
            height,
            data: (0..height * width * 3).map(|_| self.next() as u8).collect(),
        }
    }
}

/// An ONNX graph in the making.
#[derive(Default, Clone)]
pub struct Graph {
    pub graph: GraphProto,
}

impl Graph {
    /// A graph with the input `image`, uint8 `[1, height, width, 3]`, and the output `logits`, f32 `[1, classes]`.
    pub fn new(height: usize, width: usize, classes: usize) -> Graph {
        let mut graph = Graph::default();
        graph
            .graph
            .input
            .push(value("image", DataType::Uint8, &[1, height, width, 3]));
        graph
            .graph
            .output
            .push(value("logits", DataType::Float, &[1, classes]));
        graph
    }

    /// A node named after its output.
    pub fn node(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            name: output.to_owned(),
            op_type: op_type.to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    fn constant(&mut self, name: &str, data_type: DataType, shape: &[usize], raw_data: Vec<u8>) {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            data_type: data_type as i32,
            dims: shape.iter().map(|d| *d as i64).collect(),
            raw_data,
            ..TensorProto::default()
        });
    }

    pub fn f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.constant(
            name,
            DataType::Float,
            shape,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        );
    }
    pub fn i32(&mut self, name: &str, shape: &[usize], values: &[i32]) {
        self.constant(
            name,
            DataType::Int32,
            shape,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        );
    }
    pub fn i64(&mut self, name: &str, shape: &[usize], values: &[i64]) {
        self.constant(
            name,
            DataType::Int64,
            shape,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        );
    }
    pub fn i8(&mut self, name: &str, shape: &[usize], values: &[i8]) {
        self.constant(
            name,
            DataType::Int8,
            shape,
            values.iter().map(|v| *v as u8).collect(),
        );
    }
    pub fn u8(&mut self, name: &str, shape: &[usize], values: &[u8]) {
        self.constant(name, DataType::Uint8, shape, values.to_vec());
    }

    /// Constants `<name>_scale` and `<name>_zero`.
    pub fn quantization(&mut self, name: &str, (scale, zero_point): (f32, u8)) {
        self.f32(&format!("{name}_scale"), &[], &[scale]);
        self.u8(&format!("{name}_zero"), &[], &[zero_point]);
    }

    /// `image` as NCHW bytes under the name `pixels`, scale 1/128 and zero point 127.
    pub fn transpose(&mut self) {
        self.node(
            "Transpose",
            &["image"],
            "pixels",
            vec![ints("perm", &[0, 3, 1, 2])],
        );
        self.quantization("pixels", (1.0 / 128.0, 127));
    }

    /// DequantizeLinear of `tensor` with its own constants.
    pub fn dequantize(&mut self, tensor: &str, output: &str) {
        let (scale, zero) = (format!("{tensor}_scale"), format!("{tensor}_zero"));
        self.node("DequantizeLinear", &[tensor, &scale, &zero], output, vec![]);
    }

    /// QuantizeLinear to `output` with its own constants.
    pub fn quantize(&mut self, tensor: &str, output: &str, parameters: (f32, u8)) {
        self.quantization(output, parameters);
        let (scale, zero) = (format!("{output}_scale"), format!("{output}_zero"));
        self.node("QuantizeLinear", &[tensor, &scale, &zero], output, vec![]);
    }

    pub fn conv(&mut self, input: &str, output: &str, conv: &Conv) {
        let taps = conv.kernel[0] * conv.kernel[1];
        let per_group = conv.weights.len() / conv.channels / taps;
        self.i8(
            &format!("{output}_w"),
            &[conv.channels, per_group, conv.kernel[0], conv.kernel[1]],
            &conv.weights,
        );
        self.f32(
            &format!("{output}_ws"),
            &[conv.channels],
            &conv.weight_scales,
        );
        self.i8(&format!("{output}_wz"), &[], &[0]);
        self.i32(&format!("{output}_b"), &[conv.channels], &conv.bias);
        self.quantization(output, conv.output);
        let inputs = [
            input.to_owned(),
            format!("{input}_scale"),
            format!("{input}_zero"),
            format!("{output}_w"),
            format!("{output}_ws"),
            format!("{output}_wz"),
            format!("{output}_scale"),
            format!("{output}_zero"),
            format!("{output}_b"),
        ];
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let sizes = |values: &[usize]| values.iter().map(|v| *v as i64).collect::<Vec<_>>();
        self.node(
            "QLinearConv",
            &inputs,
            output,
            vec![
                ints("kernel_shape", &sizes(&conv.kernel)),
                ints("strides", &sizes(&conv.stride)),
                ints("pads", &sizes(&conv.padding)),
                int(
                    "group",
                    if conv.depthwise {
                        conv.channels as i64
                    } else {
                        1
                    },
                ),
            ],
        );
    }

    /// DequantizeLinear, DequantizeLinear, Add, QuantizeLinear.
    pub fn residual_add(&mut self, a: &str, b: &str, output: &str, parameters: (f32, u8)) {
        let names = ["a", "b", "sum"].map(|part| format!("{output}.{part}"));
        self.dequantize(a, &names[0]);
        self.dequantize(b, &names[1]);
        self.node("Add", &[&names[0], &names[1]], &names[2], vec![]);
        self.quantize(&names[2], output, parameters);
    }

    /// DequantizeLinear, GlobalAveragePool, QuantizeLinear.
    pub fn pool(&mut self, input: &str, output: &str, parameters: (f32, u8)) {
        let names = ["x", "mean"].map(|part| format!("{output}.{part}"));
        self.dequantize(input, &names[0]);
        self.node("GlobalAveragePool", &[&names[0]], &names[1], vec![]);
        self.quantize(&names[1], output, parameters);
    }

    /// MatMulInteger, Add, Cast, Mul to `logits`.
    pub fn head(&mut self, input: &str, zero_point: &str, head: &Head) {
        let classes = head.scales.len();
        self.i8(
            "head_w",
            &[head.weights.len() / classes, classes],
            &head.weights,
        );
        self.i32("head_b", &[classes], &head.bias);
        self.f32("head_s", &[classes], &head.scales);
        self.node(
            "MatMulInteger",
            &[input, "head_w", zero_point],
            "head.products",
            vec![],
        );
        self.node("Add", &["head.products", "head_b"], "head.sums", vec![]);
        self.node(
            "Cast",
            &["head.sums"],
            "head.floats",
            vec![int("to", DataType::Float as i64)],
        );
        self.node("Mul", &["head.floats", "head_s"], "logits", vec![]);
    }

    /// The bytes of the ONNX file, without metadata.
    pub fn bytes(&self) -> Vec<u8> {
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 13,
            }],
            graph: Some(GraphProto {
                name: "test".to_owned(),
                ..self.graph.clone()
            }),
            ..ModelProto::default()
        }
        .encode_to_vec()
    }

    /// The model file with a card that fits.
    pub fn file(&self) -> Vec<u8> {
        let dims = |info: &ValueInfoProto| -> Vec<i64> {
            let type_proto::Value::TensorType(tensor) = info.r#type.clone().unwrap().value.unwrap();
            let size = |dim: &Dimension| match dim.value {
                Some(dimension::Value::DimValue(v)) => v,
                _ => 1,
            };
            tensor.shape.unwrap().dim.iter().map(size).collect()
        };
        let input = dims(&self.graph.input[0]);
        let classes = dims(&self.graph.output[0])[1];
        attach_card(
            &self.bytes(),
            &card(input[1] as u16, input[2] as u16, classes as usize),
        )
        .unwrap()
    }

    pub fn engine(&self) -> Engine {
        Engine::from_bytes(&self.file()).unwrap_or_else(|error| unreachable!("{}", error.report()))
    }
}

/// A quantized convolution of random weights.
#[derive(Clone)]
pub struct Conv {
    pub depthwise: bool,
    pub channels: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 4],
    pub weights: Vec<i8>,
    pub weight_scales: Vec<f32>,
    pub bias: Vec<i32>,
    pub output: (f32, u8),
}

impl Conv {
    pub fn random(
        random: &mut Random,
        inputs: usize,
        channels: usize,
        kernel: usize,
        stride: usize,
        depthwise: bool,
    ) -> Conv {
        let per_group = if depthwise { 1 } else { inputs };
        let taps = kernel * kernel * per_group;
        Conv {
            depthwise,
            channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [(kernel - 1) / 2, (kernel - 1) / 2, kernel / 2, kernel / 2],
            weights: random.weights(channels * taps),
            weight_scales: (0..channels).map(|_| random.scale(0.004)).collect(),
            bias: random.biases(channels),
            output: (
                random.scale(0.01 * (taps as f32).sqrt()),
                random.next() as u8,
            ),
        }
    }
}

/// A quantized linear layer of random weights.
#[derive(Clone)]
pub struct Head {
    pub weights: Vec<i8>,
    pub bias: Vec<i32>,
    pub scales: Vec<f32>,
}

impl Head {
    pub fn random(random: &mut Random, inputs: usize, classes: usize) -> Head {
        Head {
            weights: random.weights(inputs * classes),
            bias: random.biases(classes),
            scales: (0..classes).map(|_| random.scale(1e-4)).collect(),
        }
    }
}

pub fn value(name: &str, data_type: DataType, shape: &[usize]) -> ValueInfoProto {
    let dim = |d: &usize| Dimension {
        value: Some(dimension::Value::DimValue(*d as i64)),
        ..Dimension::default()
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: data_type as i32,
                shape: Some(TensorShapeProto {
                    dim: shape.iter().map(dim).collect(),
                }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..AttributeProto::default()
    }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

pub fn card(height: u16, width: u16, classes: usize) -> Card {
    Card {
        labels: Labels::new(
            (0..classes)
                .map(|index| format!("Öffnung {index}"))
                .collect(),
        )
        .unwrap(),
        preprocess: Preprocess {
            width,
            height,
            fit: Fit::Crop { crop_pct: 0.875 },
            filter: Filter::Bicubic,
            dct_scaling: true,
        },
        quantization: Quantization {
            arithmetic: 1,
            kind: QuantizationKind::Int8,
            weight_bits: 8,
            calibration_images: 100,
            calibration_method: "percentile 99.99".to_owned(),
        },
        decision: Decision {
            temperature: 1.0,
            threshold: 0.0,
        },
        metrics: None,
        probes: vec![],
        provenance: Provenance {
            manifest_digest: [1; 32],
            backbone: "test".to_owned(),
            backbone_digest: [2; 32],
            recipe: "head".to_owned(),
            seed: 1,
            settings: vec![],
            graft_version: "0.1.0".to_owned(),
            created: 0,
        },
        graph_digest: [0; 32],
    }
}
