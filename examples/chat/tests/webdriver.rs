//! Chromium without a window, driven by ChromeDriver: <https://www.w3.org/TR/webdriver2/>.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::program::{Directory, PATIENCE, command};
use crate::util::until;

/// The key that WebDriver sends for this character.
pub(crate) const ENTER: char = '\u{e007}';

/// How an object of JSON names an element of the page.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with some tabs. It ends when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Removed after the browser has ended.
    home: Directory,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let home = Directory::new();
        let mut driver = command("chromedriver");
        driver.arg("--port=0").env("HOME", home.path());
        let mut driver = driver.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        let mut browser = Browser {
            driver,
            port: port.expect("a port"),
            session: String::new(),
            home,
        };
        // A browser sometimes does not start on a busy machine, and may then be left in its profile.
        let start = |profile| browser.try_call("POST", "", &browser.capabilities(profile));
        let (mut status, mut session) = start("profile");
        if status != "200" {
            eprintln!("{session}");
            (status, session) = start("other-profile");
        }
        assert_eq!(status, "200", "{session}");
        browser.session = format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    /// What is asked of a browser that keeps its files in this directory.
    fn capabilities(&self, profile: &str) -> Value {
        let profile = format!("--user-data-dir={}", self.home.join(profile).display());
        let arguments = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            "--window-size=900,600",
            profile,
        ]);
        json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}})
    }

    /// Sends a command. Returns the value of the answer.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, value) = self.try_call(method, path, body);
        assert_eq!(status, "200", "{method} {path} {body}: {value}");
        value
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> (String, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        write!(
            stream,
            "{method} /session{}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            self.session,
            body.len()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let status = head.split(' ').nth(1).unwrap().to_owned();
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let mut answer = vec![0; length.unwrap().trim().parse().unwrap()];
        reader.read_exact(&mut answer).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        (status, answer["value"].clone())
    }

    /// The tab that is there from the start.
    pub(crate) fn first_tab(&self) -> Tab<'_> {
        Tab {
            browser: self,
            handle: self.call("GET", "/window", &Value::Null),
        }
    }

    pub(crate) fn new_tab(&self) -> Tab<'_> {
        let tab = self.call("POST", "/window/new", &json!({"type": "tab"}));
        Tab {
            browser: self,
            handle: tab["handle"].clone(),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The browser has ended when the answer comes.
            let _ = self.try_call("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

pub(crate) struct Tab<'b> {
    browser: &'b Browser,
    handle: Value,
}

impl Tab<'_> {
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let switch = json!({"handle": self.handle});
        self.browser.call("POST", "/window", &switch);
        self.browser.call(method, path, body)
    }

    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "/url", &json!({"url": url}));
    }

    /// The value of an expression of JavaScript.
    #[track_caller]
    pub(crate) fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.call(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        )
    }

    /// Waits until the expression has this value.
    #[track_caller]
    pub(crate) fn wait_until(&self, expression: &str, value: Value) {
        let mut last = Value::Null;
        until(&format!("{expression} is {value}"), || {
            last = self.value(expression);
            last == value
        });
    }

    #[track_caller]
    fn element(&self, css: &str) -> String {
        let query = json!({"using": "css selector", "value": css});
        let found = self.call("POST", "/element", &query);
        format!("/element/{}", found[ELEMENT].as_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn type_into(&self, css: &str, text: &str) {
        let path = self.element(css) + "/value";
        self.call("POST", &path, &json!({"text": text}));
    }

    /// What a screen reader says that the element is.
    #[track_caller]
    pub(crate) fn role_and_label(&self, css: &str) -> (Value, Value) {
        let element = self.element(css);
        let ask = |what| self.call("GET", &format!("{element}/computed{what}"), &Value::Null);
        (ask("role"), ask("label"))
    }

    /// What the browser has complained of since the last call, such as blocked scripts.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        let log = self.call("POST", "/se/log", &json!({"type": "browser"}));
        log.as_array().unwrap().clone()
    }
}
