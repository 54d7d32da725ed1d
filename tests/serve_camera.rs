//! `graft-device serve --camera`, with a camera that the tests put under the program's system calls.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use graft_shared::decode::decode;
use graft_shared::preprocess::Pixels;

use crate::support::{Dir, Service, graft_device, project, trained};

/// The library to preload.
fn camera(dir: &Dir) -> PathBuf {
    let library = dir.path("camera.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .arg(&library)
        .arg(project().join("tests/support/camera.c"))
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    library
}

/// Serves frames of the file `now`.
fn serve(dir: &Dir, formats: &str, pixels: &Pixels, more: &[&str]) -> Service {
    let library = camera(dir);
    let (width, height) = (pixels.width.to_string(), pixels.height.to_string());
    let variables: [(&str, &OsStr); 5] = [
        ("LD_PRELOAD", library.as_ref()),
        ("CAMERA_FRAME", "now".as_ref()),
        ("CAMERA_FORMATS", formats.as_ref()),
        ("CAMERA_WIDTH", width.as_ref()),
        ("CAMERA_HEIGHT", height.as_ref()),
    ];
    let arguments = [
        &["--listen", "127.0.0.1:0", "--camera", "/dev/test-camera"],
        more,
    ]
    .concat();
    Service::start_with(dir, &trained().model, &arguments, &variables)
}

/// What a picture of the training photos looks like.
fn picture(name: &str) -> (Vec<u8>, Pixels) {
    let file = std::fs::read(trained().photos.join(name)).unwrap();
    let pixels = decode(&file).unwrap();
    (file, pixels)
}

/// The part at the top left of `width` x `height` pixels.
fn part(pixels: &Pixels, width: usize, height: usize) -> Pixels {
    let rows = pixels.data.chunks_exact(3 * pixels.width).take(height);
    let data = rows.flat_map(|row| row[..3 * width].to_vec()).collect();
    Pixels {
        width,
        height,
        data,
    }
}

/// As a camera would write it: BT.601, limited range.
fn yuyv(pixels: &Pixels) -> Vec<u8> {
    let pairs = pixels.data.chunks_exact(6);
    pairs
        .flat_map(|pair| {
            let colours: Vec<f64> = pair.iter().map(|&value| f64::from(value)).collect();
            let luma = |c: &[f64]| 16.0 + (65.481 * c[0] + 128.553 * c[1] + 24.966 * c[2]) / 255.0;
            let c: Vec<f64> = (0..3)
                .map(|i| (colours[i] + colours[i + 3]) / 2.0)
                .collect();
            let blue = 128.0 + (-37.797 * c[0] - 74.203 * c[1] + 112.0 * c[2]) / 255.0;
            let red = 128.0 + (112.0 * c[0] - 93.786 * c[1] - 18.214 * c[2]) / 255.0;
            [luma(&colours[..3]), blue, luma(&colours[3..]), red].map(|value| value.round() as u8)
        })
        .collect()
}

/// The JPEG without its Huffman tables, as many cameras give it.
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut place, mut kept) = (2, jpeg[..2].to_vec());
    loop {
        let (marker, length) = (jpeg[place + 1], &jpeg[place + 2..place + 4]);
        let end = place + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if marker == 0xda {
            kept.extend(&jpeg[place..]);
            return kept;
        }
        if marker != 0xc4 {
            kept.extend(&jpeg[place..end]);
        }
        place = end;
    }
}

/// Waits until the page would show a frame with this label.
#[track_caller]
fn wait_for_label(service: &Service, label: &str) {
    let start = std::time::Instant::now();
    loop {
        let live = service.client().get("/v1/live").json();
        if live["now"]["label"] == label {
            assert_eq!(live["now"]["source"], "camera");
            return;
        }
        assert!(start.elapsed().as_secs() < 60, "{label} never came: {live}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn show(dir: &Dir, frame: &[u8]) {
    dir.write("next", frame);
    std::fs::rename(dir.path("next"), dir.path("now")).unwrap();
}

#[test]
fn a_cameras_pixels_are_labelled_and_it_may_be_unplugged() {
    let dir = Dir::new();
    let (rose, tulip) = (picture("rose/000.jpg").1, picture("tulip/000.jpg").1);
    let (width, height) = (
        rose.width.min(tulip.width) & !1,
        rose.height.min(tulip.height),
    );
    let (rose, tulip) = (part(&rose, width, height), part(&tulip, width, height));
    show(&dir, &yuyv(&rose));
    let mut service = serve(&dir, "MJPGYUYV", &rose, &[]);
    let said = service.wait_for("the camera /dev/test-camera gives");
    let size = format!("YUYV, {} x {} pixels", rose.width, rose.height);
    assert!(said.ends_with(&size), "{said}");
    wait_for_label(&service, "rose");
    show(&dir, &yuyv(&tulip));
    wait_for_label(&service, "tulip");
    let seen = service.client().get("/v1/live/picture");
    assert_eq!(seen.header("content-type"), Some("image/png"));
    let seen = decode(&seen.body).unwrap();
    let differences = seen
        .data
        .iter()
        .zip(&tulip.data)
        .map(|(a, b)| a.abs_diff(*b));
    let mean = differences.map(f64::from).sum::<f64>() / tulip.data.len() as f64;
    assert!(mean < 6.0, "{mean} of 255 on average");

    std::fs::remove_file(dir.path("now")).unwrap();
    service.wait_for("can't read the camera /dev/test-camera: no frame");
    show(&dir, &yuyv(&rose));
    service.wait_for("the camera /dev/test-camera gives");
    wait_for_label(&service, "rose");
    // Half a frame is none.
    show(&dir, &yuyv(&tulip)[..1_000]);
    service.wait_for("the camera gave 1000 bytes");
}

#[test]
fn a_cameras_jpegs_may_lack_what_all_have() {
    let dir = Dir::new();
    let sequential = |number| {
        let (file, pixels) = picture(&format!("tulip/{number:03}.jpg"));
        let marker = [0xff, 0xc0];
        file.windows(2)
            .any(|bytes| bytes == marker)
            .then_some((file, pixels))
    };
    let (file, pixels) = (0..40).find_map(sequential).unwrap();
    let bare = without_tables(&file);
    assert!(decode(&bare).is_err());
    show(&dir, &bare);
    let mut service = serve(&dir, "MJPGYUYV", &pixels, &["--camera-size", "1280x720"]);
    service.wait_for("gives MJPG");
    wait_for_label(&service, "tulip");
}

#[test]
fn what_is_no_camera_is_said() {
    let dir = Dir::new();
    let (_, pixels) = picture("tulip/000.jpg");
    show(&dir, b"");
    let mut service = serve(&dir, "NV12", &pixels, &[]);
    service.wait_for("it gives NV12, neither YUYV nor MJPEG");
    let start = |path: &Path, said: &str| {
        let arguments = ["--listen", "127.0.0.1:0", "--camera"];
        let path = path.to_str().unwrap();
        let arguments = [&arguments[..], &[path]].concat();
        let mut service = Service::start_with(&dir, &trained().model, &arguments, &[]);
        service.wait_for(said);
    };
    start(Path::new("/dev/null"), "can't open it");
    start(&dir.path("none"), "can't open it");
    let refused = graft_device(&dir)
        .arg("serve")
        .arg(&trained().model)
        .args(["--camera", "/dev/video0", "--camera-size", "huge"])
        .run()
        .expect_code(2);
    assert!(refused.stderr.contains("1280x720"), "{}", refused.stderr);
}
