//! `graft-device` for ARM boards, under an emulator: the same pixels and scores as on x86-64, to the bit.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{
    Arm, Dir, TestCommand, armv7_libraries, cross_built, data, graft_device, make_kinds, qemu,
    skip, trained, trained_on_photos,
};

/// Processors of boards: with dot product instructions (Raspberry Pi 5), without (3, 4, Zero 2 W), 32-bit (2).
const BOARDS: [(Arm, &str); 3] = [
    (Arm::Arm64, "cortex-a76"),
    (Arm::Arm64, "cortex-a53"),
    (Arm::Armv7, "cortex-a7"),
];

/// A processor under an emulator, with the program for it.
struct Board {
    emulator: &'static Path,
    processor: &'static str,
    program: &'static Path,
    /// Below it is the C library of a program that is not static.
    root: Option<&'static Path>,
}

impl Board {
    fn new(arm: Arm, processor: &'static str) -> Result<Board, String> {
        Ok(Board {
            emulator: qemu(arm)?,
            processor,
            program: cross_built(arm)?,
            root: match arm {
                Arm::Arm64 => None,
                Arm::Armv7 => Some(armv7_libraries()?),
            },
        })
    }

    /// `graft-device`, to be run in `dir`.
    fn graft_device(&self, dir: &Dir) -> TestCommand {
        let root = self.root.map(|root| [OsStr::new("-L"), root.as_os_str()]);
        dir.command(self.emulator)
            .args(["-cpu", self.processor])
            .args(root.into_iter().flatten())
            .arg(self.program)
    }
}

/// All boards, or why there are none.
fn boards() -> Result<Vec<Board>, String> {
    let boards = BOARDS.into_iter();
    boards
        .map(|(arm, processor)| Board::new(arm, processor))
        .collect()
}

/// A model, and pictures to show to it: two hundred real photos where there are any, else ten that the tests made.
fn model_and_pictures() -> (&'static Path, Vec<PathBuf>) {
    let (trained, folder, wanted) = match (trained_on_photos(), data()) {
        (Some(trained), Some(data)) => (trained, data.join("photos/clothing10/test"), 200),
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
    let boards = match boards() {
        Ok(boards) => boards,
        Err(reason) => return skip(&reason),
    };
    let dir = Dir::new();
    let (model, pictures) = model_and_pictures();
    let x86_answers = answers(graft_device(&dir), model, &pictures);
    let x86_pixels = pixels(&dir, graft_device(&dir), model, &pictures, "x86");
    assert_eq!(
        (x86_answers.len(), x86_pixels.len()),
        (pictures.len(), pictures.len())
    );
    for board in boards {
        let name = board.processor;
        let seen = pixels(&dir, board.graft_device(&dir), model, &pictures, name);
        assert!(x86_pixels == seen, "{name}: the pixels differ");
        let said = answers(board.graft_device(&dir), model, &pictures);
        assert_eq!(said, x86_answers, "{name}");
        board.graft_device(&dir).arg("verify").arg(model).stdout();
    }
}

#[test]
fn a_processor_older_than_armv7_is_told_so() {
    let board = match Board::new(Arm::Armv7, "arm1176") {
        Ok(board) => board,
        Err(reason) => return skip(&reason),
    };
    let dir = Dir::new();
    // Without its dynamic linker, which on such boards is one for them and here is not, the program starts at its entry.
    let mut bytes = std::fs::read(board.program).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let headers = half(28) + (half(30) << 16);
    let interpreter = (0..half(44))
        .map(|index| headers + index * half(42))
        .find(|header| half(*header) == 3)
        .expect("a dynamic linker");
    bytes[interpreter] = 0;
    let program = dir.path("graft-device");
    std::fs::write(&program, bytes).unwrap();
    let made = std::fs::metadata(board.program).unwrap().permissions();
    std::fs::set_permissions(&program, made).unwrap();
    let command = dir.command(board.emulator).args(["-cpu", board.processor]);
    let finished = command.arg(program).run().expect_code(2);
    assert!(
        finished.stderr.contains("older than ARMv7"),
        "{}",
        finished.stderr
    );
}

#[test]
fn arm_and_x86_read_and_refuse_the_same_pictures() {
    let boards = match boards() {
        Ok(boards) => boards,
        Err(reason) => return skip(&reason),
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
    for board in boards {
        let arm = preprocess(board.graft_device(&dir), board.processor);
        assert_eq!(arm.1, x86.1, "{}: the refusals differ", board.processor);
        for (name, pixels) in &x86.0 {
            let same = arm.0.get(name) == Some(pixels);
            assert!(same, "{}: the pixels of {name:?} differ", board.processor);
        }
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
    let boards = match boards() {
        Ok(boards) => boards,
        Err(reason) => return skip(&reason),
    };
    let dir = Dir::new();
    odd_folders(&dir);
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
    let refused = eval(graft_device(&dir), "mangled", 2);
    assert!(refused.1.contains("rename"), "{}", refused.1);

    let label = |command: TestCommand| answers(command, model, &[PathBuf::from("odd")]);
    let labelled = label(graft_device(&dir));
    assert_eq!(labelled.len(), 6);
    for board in boards {
        let arm = || board.graft_device(&dir);
        assert!(
            eval(arm(), "odd", 0) == x86,
            "{}: the photos found differ",
            board.processor
        );
        assert_eq!(eval(arm(), "mangled", 2).1, refused.1);
        assert_eq!(label(arm()), labelled);
    }
}
