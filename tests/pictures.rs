//! Every kind of picture, with Pillow as judge of what is to be seen.

use std::path::Path;

use graft_shared::decode::decode;

use crate::support::{Dir, make_kinds};

/// Width, height and pixels of a binary PPM as Pillow writes it.
fn ppm(file: &Path) -> (usize, usize, Vec<u8>) {
    let bytes = std::fs::read(file).unwrap();
    let mut parts = bytes.splitn(4, |byte| byte.is_ascii_whitespace());
    let mut number = |name| -> Option<usize> {
        let part = parts.next().expect(name);
        std::str::from_utf8(part).unwrap().parse().ok()
    };
    let _magic = number("magic");
    let (width, height) = (number("width").unwrap(), number("height").unwrap());
    let pixels = bytes[bytes.len() - width * height * 3..].to_vec();
    (width, height, pixels)
}

#[test]
fn every_kind_is_seen_as_pillow_sees_it() {
    let dir = Dir::new();
    let (read, refused) = make_kinds(&dir, "kinds");
    assert!(read.len() > 60 && refused.len() > 15);
    for file in read {
        let name = file.file_name().unwrap().to_str().unwrap();
        let image = decode(&std::fs::read(&file).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {}", error.report()));
        let seen = ppm(&dir.path(&format!("kinds/seen/{name}.ppm")));
        assert_eq!((image.width, image.height), (seen.0, seen.1), "{name}");
        // JPEG does not prescribe its inverse transform, upsampling and colour conversion to the bit.
        let jpeg = name.ends_with(".jpg") && name != "png.jpg";
        let most = if jpeg { 4 } else { 0 };
        let differ = image
            .data
            .iter()
            .zip(&seen.2)
            .map(|(ours, theirs)| ours.abs_diff(*theirs))
            .max();
        assert!(differ <= Some(most), "{name} differs by {differ:?}");
    }
    for file in refused {
        let error = decode(&std::fs::read(&file).unwrap()).expect_err(&file.display().to_string());
        assert!(error.report().starts_with("error: "));
    }
}
