//! Loads one float-input ONNX file in rten as it is, and times it: the protocol of device/peers/README.md.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use rten::{DataType, Dimension, Model, ModelOptions, RunOptions, ThreadPool, ValueType};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const VERSION: &str = "0.27.0";

/// Runs before the first one that counts.
const WARM_UP: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, threads] = arguments.as_slice() else {
        return Err("usage: graft-peer-rten FILE THREADS".into());
    };
    let file = Path::new(file);
    let threads = threads.parse()?;

    let imported = memory("VmRSS");
    let start = Instant::now();
    let pool = Arc::new(ThreadPool::with_num_threads(threads));
    let model = ModelOptions::with_all_ops()
        .prepack_weights(true)
        .load_file(file)?;
    let load = start.elapsed();
    let picture = picture(&model)?;
    let run = || -> Result<()> {
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&pool)));
        model.run_one(picture.view().into(), Some(options))?;
        Ok(())
    };
    for _ in 0..WARM_UP {
        run()?;
    }
    let peak = memory("VmHWM");
    let name = file
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    say(&json!({
        "runtime": "rten",
        "version": VERSION,
        "model": format!("{name}, {}", arithmetic(file)?),
        "load_milliseconds": milliseconds(load),
        "peak_rss_bytes": peak,
        "imported_rss_bytes": imported,
    }))?;

    for line in io::stdin().lock().lines() {
        let runs: usize = line?.trim().parse()?;
        let (mut wall, mut processor) = (vec![], vec![]);
        for _ in 0..runs {
            let before = processor_time();
            let start = Instant::now();
            run()?;
            wall.push(milliseconds(start.elapsed()));
            processor.push(milliseconds(processor_time().saturating_sub(before)));
        }
        say(&json!({"milliseconds": wall, "cpu_milliseconds": processor}))?;
    }
    Ok(())
}

/// The same picture every time, in the shape and type that the model's input has.
fn picture(model: &Model) -> Result<Tensor<f32>> {
    let input = *model.input_ids().first().ok_or("the model has no input")?;
    let node = model.node_info(input).ok_or("the model has no input")?;
    if node.dtype() != Some(ValueType::Tensor(DataType::Float)) {
        return Err("only float32 inputs are run".into());
    }
    let shape: Vec<usize> = node
        .shape()
        .ok_or("the input has no shape")?
        .into_iter()
        .map(|dimension| match dimension {
            Dimension::Fixed(size) => Ok(size),
            Dimension::Symbolic(name) => Err(format!("the input's size {name} is open")),
        })
        .collect::<std::result::Result<_, _>>()?;
    // A linear congruential generator, multiplier and increment of Numerical Recipes; its upper byte is the pixel.
    let mut state = 0_u32;
    let pixels: NdTensor<f32, 1> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (f32::from((state >> 24) as u8) - 127.5) / 58.0
        })
        .collect::<Vec<f32>>()
        .into();
    Ok(pixels.into_shape(shape.as_slice()).into_dyn())
}

/// What rten computes convolutions in: integers for the dynamic form alone, float behind DequantizeLinear.
fn arithmetic(file: &Path) -> Result<&'static str> {
    let content = fs::read(file)?;
    let has = |name: &[u8]| content.windows(name.len()).any(|window| window == name);
    Ok(if has(b"ConvInteger") {
        "int8 with scales found at run time"
    } else if has(b"QuantizeLinear") {
        "float32 between int8 tensors"
    } else {
        "float32"
    })
}

/// Processor time of all threads.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// Bytes of this process by the system's count: `VmHWM` is the most so far, `VmRSS` now.
fn memory(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn say(value: &serde_json::Value) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{value}")?;
    Ok(output.flush()?)
}
