//! What it takes to make the model's pixels of image files, decoded whole and with DCT scaling, and how far the two are
//! apart: `cargo bench -p graft-shared --bench pictures -- FILE_OR_FOLDER...`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a program for developers"
)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use graft_shared::preprocess::{Filter, Fit, Pixels, Preprocess};

/// Every file is measured so many times, one way after the other.
const ROUNDS: usize = 15;

fn main() {
    let arguments = std::env::args().skip(1);
    for path in arguments.filter(|argument| !argument.starts_with("--")) {
        let path = PathBuf::from(path);
        let mut files = Vec::new();
        collect(&path, &mut files);
        files.sort();
        measure(&path, &files);
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else {
        files.push(path.to_owned());
    }
}

/// Prints milliseconds a file: the minimum and the median over the rounds, each averaged over the files.
fn measure(path: &Path, files: &[PathBuf]) {
    let scaled = Preprocess {
        width: 224,
        height: 224,
        fit: Fit::Crop { crop_pct: 0.875 },
        filter: Filter::Bicubic,
        dct_scaling: true,
    };
    let whole = Preprocess {
        dct_scaling: false,
        ..scaled
    };
    let mut sums = [[0.0; 2]; 2];
    let mut difference = 0.0;
    let mut count = 0.0;
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        let (Ok(one), Ok(other)) = (whole.apply(&bytes), scaled.apply(&bytes)) else {
            println!("{}: refused", file.display());
            continue;
        };
        count += 1.0;
        difference += mean_difference(&one, &other);
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            for (times, spec) in times.iter_mut().zip([whole, scaled]) {
                let start = Instant::now();
                std::hint::black_box(spec.apply(&bytes)).unwrap();
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        for (sums, mut times) in sums.iter_mut().zip(times) {
            times.sort_by(f64::total_cmp);
            sums[0] += times[0];
            sums[1] += times[ROUNDS / 2];
        }
    }
    println!("{}: {count} files", path.display());
    for (name, [least, median]) in ["whole", "DCT scaling"].iter().zip(sums) {
        let (least, median) = (least / count, median / count);
        println!("  {name:11} {least:8.3} ms, median {median:8.3} ms");
    }
    println!("  mean difference of the pixels {:.3}", difference / count);
}

fn mean_difference(one: &Pixels, other: &Pixels) -> f64 {
    let pairs = one.data.iter().zip(&other.data);
    let sum: u64 = pairs
        .map(|(one, other)| u64::from(one.abs_diff(*other)))
        .sum();
    sum as f64 / one.data.len() as f64
}
