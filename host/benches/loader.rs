//! How many training pictures a second one thread makes of decoded photos: `cargo bench --workspace --bench loader --
//! FOLDER [SHEETS]`. With a folder SHEETS, pictures of the first batches are written into it.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a program for developers"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use graft::features::Item;
use graft::pictures::prefetch::Sizes;
use graft::pictures::sheet::sheet;
use graft::pictures::store::DEFAULT_MEMORY;
use graft::pictures::{
    Augmentation, Batch, Loader, Normalisation, Pictures, Prefetch, Room, Settings,
};
use graft_shared::digest::sha256;
use graft_shared::preprocess::{Filter, Fit, Preprocess};

const BATCH_LEN: usize = 64;
/// Every setting is measured so many times, one after the other.
const ROUNDS: u64 = 20;
const NORMALISATION: Normalisation = Normalisation {
    mean: [127.0; 3],
    std: [128.0; 3],
};

fn main() {
    let arguments: Vec<PathBuf> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(PathBuf::from)
        .collect();
    let Some(folder) = arguments.first() else {
        return;
    };
    let mut items = Vec::new();
    collect(folder, &mut items);
    let preprocess = Preprocess {
        width: 224,
        height: 224,
        fit: Fit::Crop { crop_pct: 0.875 },
        filter: Filter::Bicubic,
        dct_scaling: true,
    };
    let mut stores = Vec::new();
    for memory in [DEFAULT_MEMORY, 0] {
        let start = Instant::now();
        let room = Room {
            memory,
            directory: &std::env::temp_dir(),
        };
        let loaded = Pictures::for_training(&items, &preprocess, room, &|_| ()).unwrap();
        println!(
            "{} photos, {} refused: {:.0} photos/s decoded",
            loaded.pictures.len(),
            loaded.refused.len(),
            items.len() as f64 / start.elapsed().as_secs_f64()
        );
        stores.push(Arc::new(loaded.pictures));
    }
    let mut settings = Vec::new();
    for (store, kept) in stores.iter().zip(["memory", "file"]) {
        for (name, augmentation) in [
            ("none", Augmentation::none()),
            ("light", Augmentation::light()),
            ("strong", Augmentation::strong()),
        ] {
            let loader = Arc::new(loader(store, augmentation));
            for size in [160, 224] {
                settings.push((
                    format!("{kept}, {name}, {size} px"),
                    Arc::clone(&loader),
                    size,
                ));
            }
            if let (Some(sheets), "memory") = (arguments.get(1), kept) {
                write(&sheets.join(format!("{name}.png")), &loader);
            }
        }
    }
    measure(&settings);
    waiting(&settings[3].1);
}

fn collect(folder: &Path, items: &mut Vec<Item>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, items);
        } else {
            let content_hash = sha256(&std::fs::read(&path).unwrap());
            items.push(Item { content_hash, path });
        }
    }
}

fn loader(store: &Arc<Pictures>, augmentation: Augmentation) -> Loader {
    let settings = Settings {
        classes: 10,
        batch_len: BATCH_LEN,
        augmentation,
        frequency_power: 1.0,
        filter: Filter::Bicubic,
        normalisation: NORMALISATION,
        seed: 1,
    };
    let classes = (0..store.len()).map(|photo| photo % 10).collect();
    Loader::new(Arc::clone(store), classes, settings).unwrap()
}

/// Seconds that this thread has had a processor for (Linux's schedstat).
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Prints pictures a second of the processor's time, over all rounds: the kernel counts it in whole ticks.
fn measure(settings: &[(String, Arc<Loader>, usize)]) {
    let mut seconds = vec![0.0; settings.len()];
    let mut batch = Batch::default();
    for round in 0..ROUNDS {
        for ((_, loader, size), seconds) in settings.iter().zip(&mut seconds) {
            let start = processor_seconds();
            loader.fill(round, *size, &mut batch).unwrap();
            *seconds += processor_seconds() - start;
        }
    }
    for ((name, ..), seconds) in settings.iter().zip(seconds) {
        let pictures = ROUNDS as f64 * BATCH_LEN as f64;
        println!("{name}: {:.0} pictures/s", pictures / seconds);
    }
}

/// Prints how long a step of 100 ms waits for its batch.
fn waiting(loader: &Arc<Loader>) {
    let sizes: Sizes = Arc::new(|_| 224);
    let mut prefetch = Prefetch::start(loader, &sizes, 0..20, 1).unwrap();
    let mut waits = Vec::new();
    loop {
        let start = Instant::now();
        let Some(batch) = prefetch.next() else { break };
        waits.push(start.elapsed().as_secs_f64() * 1e3);
        prefetch.recycle(batch.unwrap());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!(
        "waited for the first batch {:.1} ms, for the others at most {:.1} ms",
        waits[0],
        waits[1..]
            .iter()
            .fold(0.0, |most, wait| f64::max(most, *wait))
    );
}

fn write(path: &Path, loader: &Loader) {
    let mut batch = Batch::default();
    loader.fill(0, 160, &mut batch).unwrap();
    let sheet = sheet(&batch, &NORMALISATION, 8);
    image::save_buffer(
        path,
        &sheet.data,
        sheet.width as u32,
        sheet.height as u32,
        image::ColorType::Rgb8,
    )
    .unwrap();
}
