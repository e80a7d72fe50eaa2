//! Pages over TLS, of servers that are trusted or not, and that end their connections as they should or cut them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::program::{Directory, PATIENCE};
use crate::servers::{Identity, Tls, http, https, listen};
use crate::{assert_told, fetch};

const HEAD: &str = "HTTP/1.1 200 OK\r\n";

/// A server of pages that end in due form, and of others whose path tells that they are cut.
fn serve(
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
    plain: SocketAddr,
) -> SocketAddr {
    https(identity, version, move |stream: &mut Tls, path| {
        let answer = match path.trim_end_matches("-cut") {
            "/known" => format!("{HEAD}Content-Length: 4\r\n\r\ngood"),
            "/chunks" => format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n"),
            "/open" => format!("{HEAD}\r\ngood"),
            "/short" => format!("{HEAD}Content-Length: 10\r\n\r\n12345"),
            "/head" => "HTTP/1.1 200".into(),
            "/a/relative" => "HTTP/1.1 302 Found\r\nLocation: ../known\r\n\r\n".into(),
            "/to-plain" => format!("HTTP/1.1 302 Found\r\nLocation: http://{plain}/\r\n\r\n"),
            _ => panic!("{path}"),
        };
        stream.write_all(answer.as_bytes()).unwrap();
        if !path.ends_with("-cut") {
            stream.conn.send_close_notify();
        }
        stream.flush().unwrap();
    })
}

/// A server without TLS. Its pages lead to those of the other server, but for one.
fn serve_plain() -> SocketAddr {
    http(|stream, path| {
        let answer = match path {
            "/" => format!("{HEAD}\r\nplain"),
            path => {
                let to = path.trim_start_matches('/');
                format!("HTTP/1.1 301 Moved\r\nLocation: https://{to}\r\n\r\n")
            }
        };
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

fn trusting(identity: &Identity) -> [String; 2] {
    let certificate = identity.certificate();
    ["--ca".into(), certificate.to_str().unwrap().into()]
}

#[test]
fn pages_over_tls_arrive_and_redirects_lead_in_and_out_of_it() {
    let identity = Identity::of(&["localhost", "127.0.0.1"]);
    let plain = serve_plain();
    for version in [&TLS12, &TLS13] {
        let server = serve(&identity, version, plain);
        let known = format!("https://{server}/known");
        let by_name = format!("https://localhost:{}/known", server.port());
        let cases = [
            (known.clone(), 4, known.clone()),
            (by_name.clone(), 4, by_name),
            (format!("http://{plain}/{server}/known"), 4, known.clone()),
            (format!("https://{server}/a/relative"), 4, known),
            (
                format!("https://{server}/to-plain"),
                5,
                format!("http://{plain}/"),
            ),
        ];
        let mut arguments = Vec::from(trusting(&identity));
        arguments.extend(cases.iter().map(|(url, ..)| url.clone()));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let fetched = fetch(&arguments);
        assert!(fetched.status.success(), "{fetched:?}");
        let told = String::from_utf8(fetched.stdout).unwrap();
        let wanted =
            cases.map(|(url, length, from)| format!("{url}: 200, {length} bytes, from {from}"));
        assert_eq!(told.lines().collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn a_body_is_complete_only_if_its_length_or_the_end_of_tls_says_so() {
    let identity = Identity::of(&["127.0.0.1"]);
    let plain = serve_plain();
    for version in [&TLS12, &TLS13] {
        let server = serve(&identity, version, plain);
        let no_close_notify =
            "reading the body: peer closed connection without sending TLS close_notify";
        let cases = [
            ("/known", "200, 4 bytes"),
            ("/known-cut", "200, 4 bytes"),
            ("/chunks", "200, 4 bytes"),
            ("/chunks-cut", "200, 4 bytes"),
            ("/open", "200, 4 bytes"),
            ("/open-cut", no_close_notify),
            ("/short", "reading the body: 5 bytes are missing"),
            ("/short-cut", no_close_notify),
            ("/head", "waiting for the answer: the head is cut off"),
            (
                "/head-cut",
                "waiting for the answer: peer closed connection without sending TLS close_notify",
            ),
        ];
        let cases = cases.map(|(path, wanted)| (format!("https://{server}{path}"), wanted));
        assert_told(&trusting(&identity).each_ref().map(String::as_str), &cases);
    }
}

#[test]
fn a_server_hears_that_nothing_more_will_be_asked() {
    let identity = Identity::of(&["127.0.0.1"]);
    for version in [&TLS12, &TLS13] {
        let (end, ends) = mpsc::channel();
        let server = https(&identity, version, move |stream, _| {
            stream
                .write_all(format!("{HEAD}Content-Length: 0\r\n\r\n").as_bytes())
                .unwrap();
            stream.flush().unwrap();
            // 0 after a close_notify, but an error after a cut.
            end.send(stream.read(&mut [0])).unwrap();
        });
        let [option, file] = trusting(&identity);
        let fetched = fetch(&[&option, &file, &format!("https://{server}/")]);
        assert!(fetched.status.success(), "{fetched:?}");
        assert_eq!(ends.recv().unwrap().unwrap(), 0);
    }
}

const MISNAMED: &str =
    "TLS handshake: invalid peer certificate: certificate not valid for name \"127.0.0.1\"";

/// It has the subject of a trusted one, and another key.
const UNTRUSTED: &str = "TLS handshake: invalid peer certificate: BadSignature";

#[test]
fn a_handshake_that_fails_is_told_as_such_and_the_others_arrive() {
    let plain = serve_plain();
    let directory = Directory::new();
    let [good, misnamed, untrusted] =
        ["127.0.0.1", "elsewhere.example", "127.0.0.1"].map(|name| Identity::of(&[name]));
    let bundle = directory.join("bundle");
    let trusted =
        [&good, &misnamed].map(|identity| fs::read_to_string(identity.certificate()).unwrap());
    fs::write(&bundle, trusted.concat()).unwrap();
    for version in [&TLS12, &TLS13] {
        let [good, misnamed, untrusted] =
            [&good, &misnamed, &untrusted].map(|identity| serve(identity, version, plain));
        let page = |server| format!("https://{server}/known");
        let cases = [
            (page(good), "200, 4 bytes"),
            (page(misnamed), MISNAMED),
            (page(untrusted), UNTRUSTED),
            (format!("http://{plain}/{untrusted}/known"), UNTRUSTED),
            (page(plain), "TLS handshake: received corrupt message"),
            (page(listen(drop)), "TLS handshake: "),
            (page(listen(keep_silent)), "TLS handshake: timed out"),
            (page(listen(dribble)), "TLS handshake: timed out"),
        ];
        assert_told(&["--ca", bundle.to_str().unwrap(), "--total", "15"], &cases);
    }
}

#[test]
fn the_limit_of_the_connection_covers_the_handshake_while_others_go_on() {
    let (gone, is_gone) = mpsc::channel();
    let is_gone = Mutex::new(is_gone);
    let silent = listen(move |stream| {
        keep_silent(stream);
        gone.send(()).unwrap();
    });
    let plain = http(move |stream, _| {
        // Long before the limit of all.
        let is_gone = is_gone.lock().unwrap().recv_timeout(PATIENCE / 2);
        is_gone.expect("the handshake has been given up");
        stream
            .write_all(format!("{HEAD}\r\nplain").as_bytes())
            .unwrap();
    });
    let cases = [
        (format!("https://{silent}/"), "TLS handshake: timed out"),
        (format!("http://{plain}/"), "200, 5 bytes"),
    ];
    let total = PATIENCE.as_secs().to_string();
    assert_told(&["--connect", "2", "--total", &total], &cases);
}

/// Says nothing until the client has gone.
fn keep_silent(mut stream: TcpStream) {
    let mut greeting = [0; 4096];
    while let Ok(1..) = stream.read(&mut greeting) {}
}

/// Sends the head of a long record and then a byte of it now and then, until the client has gone.
fn dribble(mut stream: TcpStream) {
    let mut bytes = [22, 3, 3, 0x40, 0].into_iter().chain(std::iter::repeat(0));
    while bytes
        .next()
        .is_some_and(|byte| stream.write_all(&[byte]).is_ok())
    {
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_roots_of_the_system_do_not_include_a_certificate_that_is_signed_by_itself() {
    let server = serve(&Identity::of(&["127.0.0.1"]), &TLS13, serve_plain());
    let refused = "TLS handshake: invalid peer certificate: UnknownIssuer";
    assert_told(&[], &[(format!("https://{server}/known"), refused)]);
}

#[test]
fn a_file_without_certificates_is_refused() {
    let directory = Directory::new();
    let cases = [
        ("absent", None, "No such file or directory (os error 2)"),
        ("empty", Some(""), "there is no certificate"),
        (
            "other",
            Some("-----BEGIN OTHER-----\nAAAA\n-----END OTHER-----\n"),
            "there is no certificate",
        ),
        (
            "cut",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n"),
            "missing section end marker: ",
        ),
        (
            "wrong",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "there is no certificate",
        ),
    ];
    for (name, content, why) in cases {
        let path = directory.join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let path = path.to_str().unwrap();
        let output = fetch(&["--ca", path, "https://127.0.0.1/"]);
        assert!(!output.status.success(), "{name}");
        let told = String::from_utf8(output.stderr).unwrap();
        let wanted = format!("error: trusted roots: {path}: {why}");
        assert!(told.starts_with(&wanted), "{told}");
    }
}
