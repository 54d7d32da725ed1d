//! What a backbone's own classifier says of an input, for comparison with other implementations:
//!
//! `cargo run --release --workspace --example logits -- NAME WEIGHTS.safetensors INPUT.safetensors OUTPUT.safetensors`
//!
//! INPUT has the tensor `input`, f32 `[n, 3, height, width]`, normalised; OUTPUT gets `logits`, f32 `[n, classes]`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;

use candle_core::{Device, safetensors};
use graft::backbone::{self, FetchOptions};
use graft_shared::error::{Context, Error, Result};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When stderr is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "{}", error.report());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [name, weights, input, output] = arguments else {
        return Err(Error::new(
            "four arguments are needed: NAME WEIGHTS INPUT OUTPUT",
        ));
    };
    let options = FetchOptions {
        own: Some(weights.parse()?),
        ..FetchOptions::default()
    };
    let tensors = safetensors::load(input, &Device::Cpu).context("reading the input")?;
    let input = tensors.get("input").context("there is no tensor `input`")?;
    let size = input.dim(3).context("the input has four dimensions")?;
    let backbone = backbone::load(name, Some(size), &options)?;
    let logits = backbone.graph.forward(input, &mut |_, _| Ok(()))?;
    safetensors::save(&HashMap::from([("logits", logits)]), output).context("writing the logits")
}
