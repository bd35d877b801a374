//! A browser, driven through chromedriver by the calls of W3C WebDriver.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The key Tab, as WebDriver names it.
pub(crate) const TAB: &str = "\u{E004}";
/// The key Enter.
pub(crate) const ENTER: &str = "\u{E007}";
/// The name that references to elements have.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser of its own for one test; it ends with the value.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Open as long as the driver may write into it.
    _output: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is missing: scripts/setup installs it");
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let port = output
            .by_ref()
            .lines()
            .find_map(|line| {
                let line = line.unwrap();
                line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
            })
            .unwrap();
        let profile = tempfile::tempdir().unwrap();
        let user_data = format!("--user-data-dir={}", profile.path().display());
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--force-device-scale-factor=1",
            "--window-size=1280,900",
            &user_data,
            "about:blank",
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            // An element is waited for, so that a page may take its time to come.
            "timeouts": { "implicit": 20_000, "script": 60_000, "pageLoad": 60_000 },
        } } });
        let mut browser =
            Browser { driver, port, session: String::new(), _output: output, _profile: profile };
        let made = browser.call("POST", "/session", &capabilities);
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let value = answer["value"].clone();
        assert!(value.get("error").is_none(), "{method} {path}: {value}");
        value
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}/{command}", self.session), body)
    }

    fn ask(&self, command: &str) -> Value {
        self.call("GET", &format!("/session/{}/{command}", self.session), &Value::Null)
    }

    /// A call of the browser's own protocol.
    pub(crate) fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    pub(crate) fn url(&self) -> String {
        self.ask("url").as_str().unwrap().to_owned()
    }

    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What the text of an element becomes once it is other than `was`.
    pub(crate) fn text_other_than(&self, css: &str, was: &str) -> String {
        let script = "const [css, was, done] = arguments;
            const see = () => {
                const found = document.querySelector(css);
                if (!found || found.textContent === was) return;
                changes.disconnect();
                done(found.textContent);
            };
            const changes = new MutationObserver(see);
            changes.observe(document, { subtree: true, childList: true, characterData: true });
            see();";
        let changed = self.post("execute/async", &json!({ "script": script, "args": [css, was] }));
        changed.as_str().unwrap().to_owned()
    }

    fn element(&self, css: &str) -> String {
        let found = self.post("element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// The text of the first element of this selector, as it is rendered.
    pub(crate) fn text(&self, css: &str) -> String {
        let element = self.element(css);
        self.ask(&format!("element/{element}/text")).as_str().unwrap().to_owned()
    }

    /// The same as it stands in the document.
    pub(crate) fn run_text(&self, css: &str) -> String {
        let text = self.run(&format!("return document.querySelector('{css}').textContent"));
        text.as_str().unwrap().to_owned()
    }

    pub(crate) fn count(&self, css: &str) -> usize {
        let count = self.run(&format!("return document.querySelectorAll('{css}').length"));
        usize::try_from(count.as_u64().unwrap()).unwrap()
    }

    pub(crate) fn click(&self, css: &str) {
        let element = self.element(css);
        self.post(&format!("element/{element}/click"), &json!({}));
    }

    /// Presses keys, one after another, wherever the focus is.
    pub(crate) fn press(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| {
                [
                    json!({ "type": "keyDown", "value": key }),
                    json!({ "type": "keyUp", "value": key }),
                ]
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("actions", &json!({ "actions": [keyboard] }));
    }

    pub(crate) fn type_text(&self, text: &str) {
        let keys: Vec<String> = text.chars().map(String::from).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.press(&keys);
    }

    /// `light` or `dark`.
    pub(crate) fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    pub(crate) fn size(&self, width: u32, height: u32, mobile: bool) {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", params);
    }

    pub(crate) fn cookies(&self) -> Vec<Value> {
        self.ask("cookie").as_array().unwrap().clone()
    }

    /// Keeps the whole page as an image under the target directory.
    pub(crate) fn keep_image(&self, name: &str) {
        let page = self.devtools(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": true }),
        );
        let image = STANDARD.decode(page["data"].as_str().unwrap()).unwrap();
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let dir = target.parent().unwrap().join("screenshots");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.png")), image).unwrap();
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.post("se/log", &json!({ "type": kind })).as_array().unwrap().clone()
    }

    /// What the console has said since the last question; refused content is among it.
    pub(crate) fn console(&self) -> Vec<String> {
        self.log("browser").iter().map(|line| line["message"].to_string()).collect()
    }

    /// Everything that pages have asked for since the last question; what the browser's own start
    /// page asks the browser for is not among it.
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.log("performance");
        let messages = entries.iter().map(|entry| {
            let text = entry["message"].as_str().unwrap();
            serde_json::from_str::<Value>(text).unwrap()["message"].clone()
        });
        messages
            .filter(|message| message["method"] == "Network.requestWillBeSent")
            .filter(|message| {
                message["params"]["documentURL"].as_str().unwrap().starts_with("http")
            })
            .map(|message| message["params"]["request"]["url"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Also where a test has failed: a driver that is killed leaves its browser behind.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let path = format!("/session/{}", self.session);
            let _ = write!(
                stream,
                "DELETE {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
                self.port
            );
            // The answer comes once the browser has ended.
            let _ = BufReader::new(stream).read_line(&mut String::new());
        }
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let _ = self.driver.wait();
    }
}
