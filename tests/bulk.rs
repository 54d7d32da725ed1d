//! `label` on a tree of many photos: in order, interrupted, continued, cut short.

use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Dir, TestCommand, graft, graft_device, trained};

/// Photos in the large tree.
const PHOTOS: usize = 1_200;

/// Links to the training pictures, in folders of 100.
fn tree(dir: &Dir, photos: usize) {
    let pictures: Vec<_> = (0..40)
        .filter(|index| index % 8 != 7)
        .map(|index| trained().photos.join(format!("rose/{index:03}.jpg")))
        .collect();
    for index in 0..photos {
        let folder = dir.path(&format!("tree/{:02}", index / 100));
        std::fs::create_dir_all(&folder).unwrap();
        let picture = &pictures[index % pictures.len()];
        symlink(picture, folder.join(format!("{index:04}.jpg"))).unwrap();
    }
}

fn label(dir: &Dir, arguments: &[&str]) -> TestCommand {
    let command = graft(dir).arg("label").arg(&trained().model);
    command.args(arguments)
}

/// The rows of a CSV file, its header checked; no field of the tree's rows is quoted.
fn rows(dir: &Dir, file: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(dir.path(file)).unwrap();
    assert!(text.ends_with('\n'));
    let mut rows = text
        .lines()
        .map(|row| row.split(',').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(
        rows.next().unwrap().join(","),
        "path,label,score,unknown,taken,milliseconds,error"
    );
    rows.collect()
}

#[test]
fn an_interrupted_table_is_continued_where_it_was_cut_off() {
    let dir = Dir::new();
    tree(&dir, PHOTOS);
    dir.write("tree/05/bad.jpg", "no picture");
    let arguments = ["tree", "--csv", "--output", "labels.csv"];
    let mut child = label(&dir, &arguments)
        .into_command()
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let length = || std::fs::metadata(dir.path("labels.csv")).map_or(0, |file| file.len());
    while length() < 5_000 && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // As when the disk took only a part of the last write.
    let mut text = std::fs::read_to_string(dir.path("labels.csv")).unwrap();
    let before = text.lines().count() - 1;
    assert!((10..PHOTOS).contains(&before), "{before} rows");
    text += "tree/99/99";
    dir.write("labels.csv", text);

    let refused = label(&dir, &arguments).run().expect_code(2);
    assert!(refused.stderr.contains("--resume"), "{}", refused.stderr);
    let resume = || label(&dir, &arguments).arg("--resume").run();
    let finished = resume().expect_code(1);
    assert!(finished.stderr.contains("have their answers already"));
    assert!(finished.stderr.contains("can't label `tree/05/bad.jpg`"));
    let found = rows(&dir, "labels.csv");
    assert_eq!(found.len(), PHOTOS + 1);
    let paths: Vec<_> = found.iter().map(|row| row[0].clone()).collect();
    let mut expected: Vec<_> = (0..PHOTOS)
        .map(|index| format!("tree/{:02}/{index:04}.jpg", index / 100))
        .chain(["tree/05/bad.jpg".to_owned()])
        .collect();
    expected.sort();
    assert_eq!(paths, expected);
    let right = found.iter().filter(|row| row[1] == "rose").count();
    assert!(right > PHOTOS * 3 / 4, "{right} of {PHOTOS} are right");

    let again = resume().expect_code(0);
    assert_eq!(
        (again.stdout.as_str(), rows(&dir, "labels.csv")),
        ("", found)
    );
    // Other columns would not fit into this table.
    let other = label(&dir, &arguments).args(["--resume", "--top", "2"]);
    let said = other.run().expect_code(2).stderr;
    assert!(said.contains("columns"), "{said}");
}

#[test]
fn both_programs_give_the_same_answers_with_the_time_of_the_photo() {
    let dir = Dir::new();
    tree(&dir, 20);
    let picture = std::fs::read(trained().photos.join("tulip/000.jpg")).unwrap();
    dir.write(
        "tree/a, \"b\".jpg",
        taken_at("2024:05:17 08:15:30", &picture),
    );
    for arguments in [
        &["tree", "--csv", "--top", "2"][..],
        &["tree", "--json", "--top", "2"],
    ] {
        let on_host = label(&dir, arguments).stdout();
        let command = graft_device(&dir).arg("label").arg(&trained().model);
        let on_device = command.args(arguments).stdout();
        let csv = arguments.contains(&"--csv");
        assert_eq!(timeless(&on_host, csv), timeless(&on_device, csv));
        if csv {
            let last = on_host.lines().last().unwrap();
            let begin = "\"tree/a, \"\"b\"\".jpg\",tulip,";
            assert!(last.starts_with(begin), "{last}");
            assert!(last.contains(",false,2024-05-17T08:15:30,"), "{last}");
            assert_eq!(on_host.lines().count(), 22);
        } else {
            let last: Value = serde_json::from_str(on_host.lines().last().unwrap()).unwrap();
            assert_eq!(last["taken"], "2024-05-17T08:15:30");
        }
    }
}

/// Without what differs between two runs: the milliseconds.
fn timeless(answers: &str, csv: bool) -> String {
    let strip = |line: &str| {
        let mut line = line.to_owned();
        if csv {
            // Counted from the end: a path may hold commas.
            let mut fields: Vec<_> = line.split(',').collect();
            let at = fields.len() - 6;
            fields[at] = "";
            return fields.join(",");
        }
        if let Some(at) = line.find("\"milliseconds\":") {
            let end = line[at..].find([',', '}']).unwrap();
            line.replace_range(at..at + end, "");
        }
        line
    };
    answers.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// A JPEG with an EXIF segment that holds DateTimeOriginal and nothing else.
fn taken_at(time: &str, jpeg: &[u8]) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08".to_vec();
    exif.extend(b"\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0");
    exif.extend(b"\0\x01\x90\x03\0\x02\0\0\0\x14\0\0\0\x2c\0\0\0\0");
    exif.extend(time.bytes().chain([0]));
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let parts = [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]];
    parts.concat()
}

#[test]
fn a_table_that_nobody_reads_to_its_end_is_no_error() {
    let dir = Dir::new();
    tree(&dir, 300);
    let mut child = label(&dir, &["tree", "--csv"])
        .into_command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // As `head -1`: reads a little, then closes.
    let mut stdout = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
