//! `graft-device` for 64-bit ARM, under an emulator: the same pixels and scores as on x86-64, to the bit.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{
    Dir, TestCommand, cross_built, data, graft_device, make_kinds, qemu_aarch64, skip, trained,
    trained_on_photos,
};

/// A model, and pictures to show to it: a hundred real photos where there are any, else ten that the tests made.
fn model_and_pictures() -> (&'static Path, Vec<PathBuf>) {
    let (trained, folder, wanted) = match (trained_on_photos(), data()) {
        (Some(trained), Some(data)) => (trained, data.join("photos/clothing10/test"), 100),
        _ => (trained(), trained().photos.clone(), 10),
    };
    let mut pictures: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|label| std::fs::read_dir(label.unwrap().path()).unwrap())
        .map(|picture| picture.unwrap().path())
        .collect();
    pictures.sort();
    // Of every label some.
    let step = pictures.len() / wanted;
    let pictures = pictures.into_iter().step_by(step).take(wanted);
    (&trained.model, pictures.collect())
}

/// How many of the pictures are labelled on ARM: the emulator takes seconds for each, so that the tests take a few and
/// `GRAFT_ARM_PHOTOS=100` takes all.
fn labelled_pictures() -> usize {
    let wanted = std::env::var("GRAFT_ARM_PHOTOS").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(10)
}

/// The answers of `label --json` without the time.
fn answers(command: TestCommand, model: &Path, pictures: &[PathBuf]) -> Vec<Value> {
    let printed = command
        .args(["label".as_ref(), model.as_os_str()])
        .args(pictures)
        .args(["--json", "--top", "4"])
        .stdout();
    printed
        .lines()
        .map(|line| {
            let mut answer: Value = serde_json::from_str(line).unwrap();
            answer
                .as_object_mut()
                .unwrap()
                .remove("milliseconds")
                .expect("milliseconds");
            answer
        })
        .collect()
}

/// The files that `preprocess` writes, by name.
fn pixels(
    dir: &Dir,
    command: TestCommand,
    model: &Path,
    pictures: &[PathBuf],
    output: &str,
) -> BTreeMap<PathBuf, Vec<u8>> {
    let printed = command
        .args(["preprocess".as_ref(), model.as_os_str()])
        .args(pictures)
        .args(["--output", output])
        .stdout();
    printed
        .lines()
        .map(|line| {
            let file = dir.path(line);
            let name = PathBuf::from(file.file_name().unwrap());
            (name, std::fs::read(file).unwrap())
        })
        .collect()
}

#[test]
fn arm_and_x86_see_and_say_the_same() {
    let (program, emulator) = match (cross_built(), qemu_aarch64()) {
        (Ok(program), Ok(emulator)) => (program, emulator),
        (Err(reason), _) | (_, Err(reason)) => return skip(&reason),
    };
    let dir = Dir::new();
    // Two board generations: with the dot product instructions and without.
    let arm = |cpu: &str| {
        dir.command(emulator)
            .args([OsStr::new("-cpu"), cpu.as_ref(), program.as_os_str()])
    };
    let (model, pictures) = model_and_pictures();
    let labelled = &pictures[..labelled_pictures().min(pictures.len())];
    let x86_answers = answers(graft_device(&dir), model, labelled);
    assert_eq!(x86_answers.len(), labelled.len());
    assert_eq!(answers(arm("cortex-a76"), model, labelled), x86_answers);
    let few = &labelled[..labelled.len().min(4)];
    assert_eq!(
        answers(arm("cortex-a53"), model, few),
        x86_answers[..few.len()]
    );

    let x86_pixels = pixels(&dir, graft_device(&dir), model, &pictures, "x86");
    let arm_pixels = pixels(&dir, arm("cortex-a76"), model, &pictures, "arm");
    assert_eq!(x86_pixels.len(), pictures.len());
    assert!(x86_pixels == arm_pixels, "the pixels differ");

    arm("cortex-a53").arg("verify").arg(model).stdout();
}

#[test]
fn arm_and_x86_read_and_refuse_the_same_pictures() {
    let (program, emulator) = match (cross_built(), qemu_aarch64()) {
        (Ok(program), Ok(emulator)) => (program, emulator),
        (Err(reason), _) | (_, Err(reason)) => return skip(&reason),
    };
    let dir = Dir::new();
    let (read, refused) = make_kinds(&dir, "kinds");
    // What is written, and what is said of the others.
    let preprocess = |command: TestCommand, output: &str| {
        let finished = command
            .args(["preprocess".as_ref(), trained().model.as_os_str()])
            .args(read.iter().chain(&refused))
            .args(["--output", output])
            .run()
            .expect_code(1);
        let written: BTreeMap<_, _> = std::fs::read_dir(dir.path(output))
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|file| {
                (
                    file.file_name().unwrap().to_owned(),
                    std::fs::read(file).unwrap(),
                )
            })
            .collect();
        assert_eq!(written.len(), read.len(), "{}", finished.stderr);
        (written, finished.stderr)
    };
    let x86 = preprocess(graft_device(&dir), "x86");
    for file in &refused {
        let named = format!("can't preprocess `{}`", file.display());
        assert!(x86.1.contains(&named), "{named}: {}", x86.1);
    }
    let command = dir.command(emulator);
    let arm = preprocess(
        command.args([
            OsStr::new("-cpu"),
            "cortex-a76".as_ref(),
            program.as_os_str(),
        ]),
        "arm",
    );
    assert_eq!(arm.1, x86.1, "the refusals differ");
    for (name, pixels) in &x86.0 {
        assert!(
            arm.0.get(name) == Some(pixels),
            "the pixels of {name:?} differ"
        );
    }
}

/// Label folders of every odd kind: nested, linked in a loop, with what other programs left behind, with names that are
/// not ASCII and not even text.
fn odd_folders(dir: &Dir) {
    let picture = std::fs::read(trained().photos.join("rose/007.png")).unwrap();
    for path in [
        "odd/rose/1.png",
        "odd/rose/deep/deeper/2.png",
        "odd/rose/.DS_Store",
        "odd/rose/Thumbs.db",
        "odd/rose/__MACOSX/3.png",
        "odd/rose/@eaDir/4.png",
        "odd/gänseblümchen/花.png",
        "elsewhere/5.png",
    ] {
        dir.write(path, &picture);
    }
    let name = OsString::from_vec(b"odd/rose/caf\xe9.png".to_vec());
    std::fs::write(dir.path("").join(name), &picture).unwrap();
    symlink("..", dir.path("odd/rose/up")).unwrap();
    symlink("1.png", dir.path("odd/rose/6.png")).unwrap();
    symlink("../elsewhere", dir.path("odd/tulip")).unwrap();
    dir.write("mangled/rose/1.png", &picture);
    let label = dir
        .path("mangled")
        .join(OsString::from_vec(b"caf\xe9".to_vec()));
    std::fs::create_dir(&label).unwrap();
    std::fs::write(label.join("2.png"), &picture).unwrap();
}

#[test]
fn arm_and_x86_find_the_same_photos_in_odd_folders() {
    let (program, emulator) = match (cross_built(), qemu_aarch64()) {
        (Ok(program), Ok(emulator)) => (program, emulator),
        (Err(reason), _) | (_, Err(reason)) => return skip(&reason),
    };
    let dir = Dir::new();
    odd_folders(&dir);
    let arm = || dir.command(emulator).arg(program.as_os_str());
    let model = &trained().model;
    let eval = |command: TestCommand, folder: &str, code: i32| {
        let finished = command
            .args(["eval".as_ref(), model.as_os_str(), folder.as_ref()])
            .args(["--json", "--predictions", "predictions.tsv"])
            .run()
            .expect_code(code);
        let table = std::fs::read(dir.path("predictions.tsv")).unwrap_or_default();
        (finished.stdout, finished.stderr, table)
    };
    let x86 = eval(graft_device(&dir), "odd", 0);
    assert!(x86.0.contains("\"images\":6"), "{}", x86.0);
    assert!(eval(arm(), "odd", 0) == x86, "the photos found differ");
    let refused = eval(graft_device(&dir), "mangled", 2);
    assert!(refused.1.contains("rename"), "{}", refused.1);
    assert_eq!(eval(arm(), "mangled", 2).1, refused.1);

    let label = |command: TestCommand| answers(command, model, &[PathBuf::from("odd")]);
    let x86 = label(graft_device(&dir));
    assert_eq!(x86.len(), 6);
    assert_eq!(label(arm()), x86);
}
