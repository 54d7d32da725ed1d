//! The service's page in a real browser, as wide as a telephone and as a desk's screen.

use serde_json::json;

use crate::support::{Browser, Dir, Service, skip, trained};

/// What the page must never be: wider than the window.
const OVERFLOW: &str = "return document.documentElement.scrollWidth - window.innerWidth";

/// A page of this size, looked at by somebody who has the token.
fn used(name: &str, width: u32, height: u32) {
    let Some(browser) = Browser::start(width, height) else {
        return skip("there is no Chromium with ChromeDriver: the page is not tested");
    };
    let dir = Dir::new();
    let (rose, tulip) = ("rose/000.jpg", "tulip/000.jpg");
    let copy = |picture: &str, name: &str| {
        dir.write(name, std::fs::read(trained().photos.join(picture)).unwrap());
    };
    copy(rose, "now");
    copy(tulip, "tulip.jpg");
    dir.write("token", "a-token-of-at-least-32-letters-here\n");
    dir.write("notes.jpg", "no picture");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--token-file",
        "token",
        "--command",
        "while cat now; do sleep 0.1; done",
    ];
    let service = Service::start_with(&dir, &trained().model, &arguments, &[]);
    let text = |id: &str| format!("return document.getElementById('{id}').textContent");

    // It asks for the token, and for nothing else.
    browser.open(&format!("{}/", service.place));
    browser.wait_for(
        "return document.getElementById('ask').hidden",
        &json!(false),
    );
    assert_eq!(
        browser.run("return document.getElementById('live').hidden"),
        true
    );
    browser.type_into("#token", "a-token-of-at-least-32-letters-here\u{e007}");

    // What the camera sees.
    browser.wait_for(&text("now"), &json!("rose"));
    browser.wait_for("return document.getElementById('ask').hidden", &json!(true));
    browser.wait_for(
        "return document.getElementById('picture').naturalWidth > 50",
        &json!(true),
    );
    std::fs::rename(dir.path("tulip.jpg"), dir.path("now")).unwrap();
    browser.wait_for(&text("now"), &json!("tulip"));
    let history = "return [...document.querySelectorAll('#history span:first-child')].map(e => e.textContent)";
    browser.wait_for(history, &json!(["tulip", "rose"]));

    // A photo of one's own, and what is none.
    copy(rose, "my own rose.jpg");
    let file = |name: &str| dir.path(name).to_str().unwrap().to_owned();
    browser.type_into("#files", &file("my own rose.jpg"));
    browser.wait_for(&text("best"), &json!("rose"));
    let bars = "return document.querySelectorAll('#bars .bar').length";
    browser.wait_for(bars, &json!(4));
    assert_eq!(browser.run(OVERFLOW), 0);
    let folder = Dir::until_the_next_run();
    browser.photograph(&folder.path(&format!("page-{name}.png")));
    folder.keep();
    browser.type_into("#camera", &file("notes.jpg"));
    browser.wait_for(
        "return document.getElementById('best').className",
        &json!("label bad"),
    );
    let said = browser.run(&text("best"));
    assert!(said.as_str().unwrap().contains("not an image"), "{said}");

    // Who comes again is known; a link with the token is enough for others.
    browser.open(&format!("{}/", service.place));
    browser.wait_for(&text("now"), &json!("tulip"));
    browser.run("localStorage.clear()");
    browser.open("about:blank");
    browser.open(&format!(
        "{}/#token=a-token-of-at-least-32-letters-here",
        service.place
    ));
    browser.wait_for(&text("now"), &json!("tulip"));
    assert_eq!(browser.run("return location.hash"), "");
    assert_eq!(browser.run(OVERFLOW), 0);
}

#[test]
fn the_page_works_on_a_telephone() {
    used("telephone", 390, 844);
}

#[test]
fn the_page_works_on_a_desk() {
    used("desk", 1_280, 800);
}
