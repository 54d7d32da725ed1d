//! `graft backbones`: the registry of pretrained backbones, and their weights in the cache.

use std::fmt::Write;

use graft_shared::error::{Context, Result};
use serde_json::json;

use super::{Done, print};
use crate::backbone::registry::{self, BackboneSpec, Board};
use crate::backbone::{FetchOptions, weights};
use crate::cli::BackbonesCommand;

/// `graft backbones`.
///
/// # Errors
/// An unknown name, weights that can't be had, or no folder for the cache.
pub fn run(command: &BackbonesCommand) -> Result<Done> {
    match command {
        BackbonesCommand::List { model_dir, json } => {
            let options = FetchOptions {
                model_dir: model_dir.clone(),
                ..FetchOptions::default()
            };
            let backbones = registry::all()?;
            print(&if *json {
                list_json(&backbones, &options)?
            } else {
                list_text(&backbones, &options)?
            })?;
        }
        BackbonesCommand::Fetch {
            name,
            from,
            model_dir,
            offline,
        } => {
            let spec = registry::find(name)?;
            let options = FetchOptions {
                model_dir: model_dir.clone(),
                offline: *offline,
                own: None,
            };
            let file = match from {
                Some(source) => weights::fetch_from(source, &spec, &options)?,
                None => weights::fetch(&spec, &options)?,
            };
            print(&format!("{}\n", file.path.display()))?;
        }
    }
    Ok(Done::Fine)
}

/// Where the weights are to be had: `cached`, `pip`, `hub`, `by hand`, or `--weights`.
fn availability(spec: &BackboneSpec, options: &FetchOptions) -> &'static str {
    if weights::cached(spec, options).is_ok() {
        return "cached";
    }
    if spec.weights.is_none() {
        return "--weights";
    }
    spec.sources
        .first()
        .map_or("by hand", |source| source.kind())
}

fn list_text(backbones: &[BackboneSpec], options: &FetchOptions) -> Result<String> {
    let mut text = format!(
        "{:24}{:>5}{:>7}{:>9}  {:10}{:14}WEIGHTS\n",
        "NAME", "INPUT", "MMACS", "TOP-1", "BOARD", "LICENCE"
    );
    let mut to_name = String::new();
    let mut by_hand = String::new();
    for spec in backbones {
        let availability = availability(spec, options);
        writeln!(
            text,
            "{:24}{:>5}{:>7}{:>7.1} %  {:10}{:14}{availability}",
            spec.name,
            spec.input_size,
            spec.mmacs,
            spec.top1,
            spec.smallest_board().map_or("-", Board::name),
            spec.licence
        )
        .context("writing the list")?;
        if availability == "by hand" {
            by_hand = format!(
                "\n`by hand`: nobody serves these weights. `graft backbones fetch {} --from FILE` checks your file and puts\n\
                 it into the cache; `graft train --backbone {} --weights FILE` trains on any file of that architecture.\n",
                spec.name, spec.name
            );
        }
        if let (None, Some(published)) = (&spec.weights, &spec.published) {
            to_name = format!(
                "\n`--weights`: no file's hash is known here; name safetensors with timm's or torchvision's tensors. For example\n\
                 graft train --backbone {} --weights {published}\n",
                spec.name
            );
        }
    }
    write!(
        text,
        "\nINPUT in pixels, MMACS in millions of multiply-adds, TOP-1 on ImageNet as published. BOARD: the\n\
         smallest Raspberry Pi that should label four pictures in a second on one core; no board was timed.\n\
         The cache is {}.\n{by_hand}{to_name}",
        weights::directory(options)?.display()
    )
    .context("writing the list")?;
    Ok(text)
}

fn list_json(backbones: &[BackboneSpec], options: &FetchOptions) -> Result<String> {
    let directory = weights::directory(options)?;
    let list: Vec<_> = backbones
        .iter()
        .map(|spec| {
            let weights = spec.weights.as_ref();
            json!({
                "name": spec.name,
                "input_size": spec.input_size,
                "mmacs": spec.mmacs,
                "imagenet_top1": spec.top1,
                "licence": spec.licence,
                "smallest_board": spec.smallest_board().map(Board::name),
                "cached": weights::cached(spec, options).is_ok(),
                "file": weights.map(|weights| directory.join(&weights.file)),
                "sha256": weights.map(|weights| &weights.sha256),
                "published": spec.published,
                "sources": spec.sources.iter().map(|source| source.kind()).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(serde_json::to_string(&list).context("writing the list as JSON")? + "\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_list_says_where_weights_are_and_how_to_bring_them() {
        let folder = tempfile::tempdir().unwrap();
        let options = FetchOptions {
            model_dir: Some(folder.path().to_owned()),
            ..FetchOptions::default()
        };
        let mut backbones = registry::all().unwrap();
        let text = list_text(&backbones, &options).unwrap();
        assert!(
            text.contains(
                "efficientnet_lite0        224    385   75.1 %  Zero 2 W  Apache-2.0    pip"
            ),
            "{text}"
        );
        assert!(
            text.contains("--from FILE") && text.contains(&*folder.path().to_string_lossy()),
            "{text}"
        );

        let weights = backbones[0].weights.as_mut().unwrap();
        weights.sha256 = graft_shared::digest::hex(&graft_shared::digest::sha256(b"weights"));
        std::fs::write(folder.path().join(&weights.file), b"weights").unwrap();
        let list: serde_json::Value =
            serde_json::from_str(&list_json(&backbones, &options).unwrap()).unwrap();
        assert_eq!(list[0]["cached"], true);
        assert_eq!(list[1]["cached"], false);
        assert_eq!(list[0]["sources"][0], "pip");
        assert_eq!(list.as_array().unwrap().len(), backbones.len());
    }
}
