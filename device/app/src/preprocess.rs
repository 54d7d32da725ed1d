//! `preprocess`: writes the exact pixels that the model sees of each picture.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use graft_cli::pictures::each_picture;
use graft_engine::Engine;
use graft_engine::label::Picture;
use graft_shared::card::Card;
use graft_shared::error::{Context, Error, Result};
use graft_shared::files::write_atomic;
use image::{ExtendedColorType, ImageFormat};

use crate::cli::PreprocessArguments;
use crate::{Outcome, print, report};

pub(crate) fn run(arguments: &PreprocessArguments) -> Result<Outcome> {
    let engine = Engine::open(&arguments.model)?;
    let folder = &arguments.output;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("can't make the folder `{}`", folder.display()))?;
    let mut written = HashSet::new();
    let mut failures = 0;
    for picture in each_picture(&arguments.paths, arguments.paths_from.as_deref())? {
        let name = picture.path().to_path_buf();
        match preprocess(engine.card(), picture, folder, &mut written)
            .with_context(|| format!("can't preprocess `{}`", name.display()))
        {
            Ok(file) => print(&format!("{}\n", file.display()))?,
            Err(error) => {
                report(&error);
                failures += 1;
            }
        }
    }
    Ok(Outcome::of(failures))
}

/// Writes `folder/<file name>.png` and returns that path. Two pictures of one name would overwrite each other: the
/// second is refused.
fn preprocess(
    card: &Card,
    picture: Picture,
    folder: &Path,
    written: &mut HashSet<PathBuf>,
) -> Result<PathBuf> {
    let mut name = picture
        .path()
        .file_name()
        .context("the path has no file name")?
        .to_os_string();
    name.push(".png");
    let file = folder.join(name);
    let pixels = card.preprocess.apply(&picture.read()?)?;
    if !written.insert(file.clone()) {
        return Err(Error::new(format!(
            "`{}` already shows another picture of that name",
            file.display()
        ))
        .hint("preprocess each folder into an output folder of its own"));
    }
    let mut png = Cursor::new(Vec::new());
    image::write_buffer_with_format(
        &mut png,
        &pixels.data,
        u32::from(card.preprocess.width),
        u32::from(card.preprocess.height),
        ExtendedColorType::Rgb8,
        ImageFormat::Png,
    )
    .context("can't encode the PNG")?;
    write_atomic(&file, png.get_ref())?;
    Ok(file)
}
