//! A headless Chromium, led by ChromeDriver (W3C WebDriver).

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Client, Dir};

const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one window.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    /// `/session/<id>`.
    session: String,
    /// Its profile.
    _dir: Dir,
}

impl Browser {
    /// A window of `width` x `height` pixels; `None` where there is no Chromium or no ChromeDriver.
    pub(crate) fn start(width: u32, height: u32) -> Option<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.by_ref().map_while(Result::ok).find_map(|line| {
            let port = line.split("started successfully on port ").nth(1)?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("ChromeDriver's port")));
        // Whoever writes to a closed pipe ends.
        std::thread::spawn(move || said.map_while(Result::ok).for_each(drop));
        let dir = Dir::new();
        let mut browser = Self {
            driver,
            address,
            session: "/session".to_owned(),
            _dir: dir,
        };
        let profile = browser._dir.path("profile");
        let arguments = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--no-first-run".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={}", profile.display()),
        ];
        // A window can't be as narrow as a telephone: the page is told of another one.
        let metrics =
            json!({"width": width, "height": height, "pixelRatio": 1.0, "touch": width < 600});
        let options = json!({"args": arguments, "mobileEmulation": {"deviceMetrics": metrics}});
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let made = browser.tell("POST", "", &wanted);
        let id = made["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        Some(browser)
    }

    pub(crate) fn open(&self, address: &str) {
        self.tell("POST", "/url", &json!({"url": address}));
    }

    /// What a piece of JavaScript gives.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.tell(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        )
    }

    /// Waits until a piece of JavaScript gives `expected`.
    #[track_caller]
    pub(crate) fn wait_for(&self, script: &str, expected: &Value) {
        let start = Instant::now();
        loop {
            let got = self.run(script);
            if got == *expected {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{script}: {got}, not {expected}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types into the element that a CSS selector finds; into a file input, paths.
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let using = json!({"using": "css selector", "value": selector});
        let found = self.tell("POST", "/element", &using);
        let id = found.as_object().unwrap().values().next().unwrap();
        let place = format!("/element/{}/value", id.as_str().unwrap());
        self.tell("POST", &place, &json!({"text": text}));
    }

    /// Saves what is seen as PNG.
    pub(crate) fn photograph(&self, file: &Path) {
        let encoded = self.tell("GET", "/screenshot", &Value::Null);
        let png = STANDARD.decode(encoded.as_str().unwrap()).unwrap();
        std::fs::write(file, png).unwrap();
    }

    #[track_caller]
    fn tell(&self, method: &str, place: &str, fields: &Value) -> Value {
        let target = format!("{}{place}", self.session);
        let body = if fields.is_null() {
            String::new()
        } else {
            fields.to_string()
        };
        let mut client = Client::connect(self.address);
        let headers = [("Content-Type", "application/json")];
        let answer = client.request(method, &target, &headers, body.as_bytes());
        let answer = answer.unwrap();
        let mut fields = answer.json();
        assert_eq!(answer.status, 200, "{method} {target}: {fields}");
        fields["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let mut client = Client::connect(self.address);
        let _ = client.send(
            format!(
                "DELETE {} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                self.session
            )
            .as_bytes(),
        );
        let _ = client.answer();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
