//! tokio beside coroutines.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

use crate::alone::{alone, on_one_worker};
use crate::threads::os_threads;
use crate::ticker::Ticker;

const CLIENTS: usize = 50;

/// The time that the server takes for an answer.
const DELAY: Duration = Duration::from_millis(300);

/// An echo server, which answers so many clients and ends. They get their answers when all have asked.
async fn serve(listener: TcpListener, clients: usize) {
    let all_have_asked = Arc::new(Barrier::new(clients));
    let mut serving = Vec::new();
    for _ in 0..clients {
        let (mut stream, _) = listener.accept().await.unwrap();
        let all_have_asked = Arc::clone(&all_have_asked);
        serving.push(tokio::spawn(async move {
            let mut line = [0; 16];
            stream.read_exact(&mut line).await.unwrap();
            all_have_asked.wait().await;
            tokio::time::sleep(DELAY).await;
            stream.write_all(&line).await.unwrap();
        }));
    }
    for one in serving {
        one.await.unwrap();
    }
}

/// Runs the clients, on coroutines of the calling worker.
fn ask(address: SocketAddr) {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            greenroom::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let line = format!("{number:16}");
                stream.write_all(line.as_bytes()).unwrap();
                let mut echo = [0; 16];
                stream.read_exact(&mut echo).unwrap();
                assert_eq!(echo, *line.as_bytes());
            })
        })
        .collect();
    greenroom::join_all(clients)
        .into_iter()
        .for_each(Result::unwrap);
}

fn listen(runtime: &Runtime) -> (TcpListener, SocketAddr) {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_runtime_of_tokio_runs_beside_coroutines() {
    alone(|| {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(2)
            .thread_name("tokio")
            .enable_all()
            .build()
            .unwrap();
        let (listener, address) = listen(&runtime);
        let server = runtime.spawn(serve(listener, CLIENTS));
        let (took, gap, threads) = on_one_worker(|| {
            let ticker = Ticker::start();
            let start = Instant::now();
            ask(address);
            (start.elapsed(), ticker.largest_gap(), os_threads())
        });
        runtime.block_on(server).unwrap();
        eprintln!(
            "tokio on threads: {CLIENTS} clients in {took:.1?}; the ticker's largest gap: {gap:.1?}; OS \
            threads besides the worker: {threads:?}"
        );
        assert!(took >= DELAY, "{took:?}");
        assert_eq!(threads.get("tokio"), Some(&2));
        assert_eq!(threads.get("watchdog"), Some(&1));
        assert_eq!(threads.len(), 2, "{threads:?}");
    });
}

#[test]
fn a_runtime_of_tokio_on_one_thread_parks_its_coroutine() {
    alone(|| {
        let (gap, threads) = on_one_worker(|| {
            let ticker = Ticker::start();
            let (tell, address) = mpsc::channel();
            let server = greenroom::spawn_local(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let (listener, address) = listen(&runtime);
                tell.send(address).unwrap();
                runtime.block_on(serve(listener, CLIENTS));
            });
            let address = loop {
                match address.try_recv() {
                    Ok(address) => break address,
                    Err(_) => sleep(Duration::from_millis(1)),
                }
            };
            ask(address);
            server.join().unwrap();
            (ticker.largest_gap(), os_threads())
        });
        eprintln!(
            "tokio in a coroutine: the ticker's largest gap: {gap:.1?}; OS threads besides the worker: \
            {threads:?}"
        );
        assert_eq!(threads.len(), 1, "{threads:?}");
    });
}
