//! A hundred threads share a blocking client, whose thread runs tokio. The server takes its time.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(|| serve(stream));
        }
    });
    let client = reqwest::blocking::Client::new();
    let threads: Vec<_> = (0..100)
        .map(|number| {
            let client = client.clone();
            thread::spawn(move || {
                let answer = client.get(format!("http://{addr}/{number}")).send();
                assert_eq!(answer.unwrap().text().unwrap(), format!("/{number}"));
            })
        })
        .collect();
    let count = threads.len();
    thread::sleep(Duration::from_millis(100));
    check_os_threads();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{count} answers");
}

/// Answers each request with its path.
fn serve(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 0 {
        let path = line.split(' ').nth(1).unwrap().to_owned();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        line.clear();
        thread::sleep(Duration::from_millis(200));
        let length = path.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &path).as_bytes()).unwrap();
    }
}

/// Panics if there are more OS threads than `MOST_OS_THREADS` says.
fn check_os_threads() {
    let Ok(most) = std::env::var("MOST_OS_THREADS") else {
        return;
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("Threads:")).unwrap();
    let count: usize = count.trim().parse().unwrap();
    assert!(count <= most.parse().unwrap(), "{count} OS threads");
}
