//! A toy of BitTorrent's distributed hash table ([BEP 5]): 50 nodes on the loopback interface find each other.
//! Each node has one socket and one coroutine that reads it. That hands each answer to the coroutine that waits
//! for its number, so an answer that is late reaches no other query.
//!
//! ```text
//! $ cargo run --example dht
//! 50 nodes have joined
//! 500 of 500 lookups have found their node
//! a slow node, asked once: no answer in time
//! asked again, it gives the late answer and then another: this is the second answer
//! late answers that were dropped: 1
//! ```
//!
//! `dht IP:PORT` is a node that serves until it is killed; `dht IP:PORT IP:PORT` is one that joins by another.
//!
//! [BEP 5]: https://www.bittorrent.org/beps/bep_0005.html

mod bencode;
mod node;
#[path = "../util/outcome.rs"]
mod outcome;
#[path = "../util/printable.rs"]
mod printable;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use greenroom::shims::net::UdpSocket;
use greenroom::{Group, spawn};

use bencode::{Dictionary, Value, dictionary};
use node::{Id, Node};

const NODES: usize = 50;

/// How many others each node looks for.
const LOOKUPS: usize = 10;

/// How long a node is waited for, if it is expected to answer.
const PATIENCE: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Result<Vec<SocketAddr>, _> = arguments.iter().map(|text| text.parse()).collect();
    let done = greenroom::run(|| match arguments.as_deref() {
        Ok([]) => demonstrate(),
        Ok([address]) => serve(*address, None),
        Ok([address, known]) => serve(*address, Some(*known)),
        _ => Err(io::Error::other("these are not one or two addresses")),
    });
    outcome::status(done, "Usage: dht [IP:PORT [IP:PORT OF ANOTHER NODE]]")
}

fn serve(address: SocketAddr, known: Option<SocketAddr>) -> io::Result<()> {
    let seed = u64::from(std::process::id()) << 16 | u64::from(address.port());
    let node = Node::start(id(seed), address)?;
    if let Some(known) = known {
        join(&node, known)?;
    }
    println!("serving on {}", node.address()?);
    loop {
        greenroom::park();
    }
}

/// Makes itself known to the nodes that are close to it.
fn join(node: &Node, known: SocketAddr) -> io::Result<()> {
    node.find_node(known, node.id(), PATIENCE)?;
    node.lookup(node.id(), PATIENCE);
    Ok(())
}

fn demonstrate() -> io::Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let nodes = (0..NODES).map(|number| Node::start(id(number as u64), any));
    let nodes = nodes.collect::<io::Result<Vec<_>>>()?;
    let first = nodes[0].address()?;
    for node in &nodes[1..] {
        join(node, first)?;
    }
    println!("{NODES} nodes have joined");

    let others = |from: usize| (1..=LOOKUPS).map(move |step| (from, (from + step * 4) % NODES));
    let pairs: Vec<_> = (0..NODES).flat_map(others).collect();
    let found = Group::bounded(20).map(&pairs, |&(from, to)| {
        let closest = nodes[from].lookup(nodes[to].id(), PATIENCE);
        let closest = closest.first().map(|contact| contact.id);
        closest == Some(nodes[to].id())
    });
    let found = found.iter().filter(|found| matches!(found, Ok(true)));
    println!(
        "{} of {} lookups have found their node",
        found.count(),
        pairs.len()
    );

    let slow = UdpSocket::bind(any)?;
    let address = slow.local_addr()?;
    spawn(move || answer_late(&slow));
    let node = &nodes[0];
    let ping = |patience| node.query(address, "ping", Dictionary::new(), patience);
    match ping(Duration::from_millis(100)) {
        Err(error) => println!("a slow node, asked once: {error}"),
        Ok(_) => return Err(io::Error::other("the slow node has answered")),
    }
    let answer = ping(PATIENCE)?;
    let text = answer
        .get(&b"text"[..])
        .and_then(Value::bytes)
        .unwrap_or_default();
    print!("asked again, it gives the late answer and then another: this is ");
    println!("{}", String::from_utf8_lossy(text));
    println!("late answers that were dropped: {}", node.late_answers());
    Ok(())
}

/// A node that answers its first query only after the second has come.
fn answer_late(socket: &UdpSocket) -> io::Result<()> {
    let mut queries = Vec::new();
    for text in ["the first answer", "the second answer"] {
        let mut message = [0; 1000];
        let (length, from) = socket.recv_from(&mut message)?;
        let query = Value::decode(&message[..length]);
        let transaction = query.and_then(|query| query.dictionary()?.get(&b"t"[..]).cloned());
        let transaction = transaction.ok_or(io::ErrorKind::InvalidData)?;
        queries.push((transaction, text, from));
    }
    for (transaction, text, from) in queries {
        let answer = dictionary([("id", id(99)[..].into()), ("text", text.into())]);
        let answer = Value::Dictionary(answer);
        let message = dictionary([("t", transaction), ("y", "r".into()), ("r", answer)]);
        socket.send_to(&Value::Dictionary(message).encode(), from)?;
    }
    Ok(())
}

/// An id that looks random, and follows from `seed`.
fn id(seed: u64) -> Id {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}
