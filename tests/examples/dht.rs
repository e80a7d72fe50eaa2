//! The lookups of `examples/dht`, with nodes that do not do as they should.

#[allow(dead_code, reason = "the program uses the rest")]
#[path = "../../examples/dht/bencode.rs"]
mod bencode;
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "../../examples/dht/node.rs"]
mod node;
#[path = "../../examples/util/printable.rs"]
mod printable;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use greenroom::shims::net::UdpSocket;
use greenroom::spawn_daemon;

use crate::util::{PATIENCE, on_workers};
use bencode::{Dictionary, Value, dictionary};
use node::{Contact, Id, Node, encode_contacts};

const TARGET: Id = [0; 20];

/// The lower the number, the closer to the target.
fn id(number: u64) -> Id {
    let mut id = [0; 20];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A node that answers each query with `contacts`, which are made from its own address, or refuses if there are none.
fn peer(number: u64, contacts: impl Fn(SocketAddr) -> Vec<Contact> + Send + 'static) -> Contact {
    let socket = UdpSocket::bind(any()).unwrap();
    let address = socket.local_addr().unwrap();
    spawn_daemon(move || {
        let mut message = [0; 4096];
        loop {
            let (length, from) = socket.recv_from(&mut message).unwrap();
            let query = Value::decode(&message[..length]).unwrap();
            let transaction = query.dictionary().unwrap()[&b"t"[..]].clone();
            let nodes = encode_contacts(&contacts(address));
            let answer = match nodes[..] {
                [] => ("e", Value::List(vec![Value::Number(202), "not now".into()])),
                _ => {
                    let entries = [("id", id(number)[..].into()), ("nodes", nodes[..].into())];
                    ("r", Value::Dictionary(dictionary(entries)))
                }
            };
            let message = dictionary([("t", transaction), ("y", answer.0.into()), answer]);
            let message = Value::Dictionary(message).encode();
            socket.send_to(&message, from).unwrap();
        }
    });
    Contact {
        id: id(number),
        address,
    }
}

/// A node that knows these.
fn node_that_knows(peers: &[Contact]) -> Arc<Node> {
    let node = Node::start(id(u64::MAX), any()).unwrap();
    for peer in peers {
        node.query(peer.address, "ping", Dictionary::new(), PATIENCE)
            .unwrap();
    }
    node
}

#[test]
fn a_node_that_does_not_answer_is_not_found_though_others_go_on_naming_it() {
    on_workers(1, || {
        let refusing = peer(1, |_| Vec::new());
        // More than are asked at once, so that some are asked when the refusing one has been.
        let peers: Vec<_> = (2..=8)
            .map(|number| peer(number, move |_| vec![refusing]))
            .collect();
        let found = node_that_knows(&peers).lookup(TARGET, PATIENCE);
        assert_eq!(found, peers);
    });
}

#[test]
fn a_node_that_makes_up_closer_nodes_for_ever_keeps_no_lookup_going() {
    on_workers(1, || {
        let closer = Arc::new(AtomicU64::new(1 << 40));
        let next = Arc::clone(&closer);
        let liar = peer(1 << 41, move |address| {
            let made_up = |_| Contact {
                id: id(next.fetch_sub(1, Ordering::Relaxed)),
                address,
            };
            (0..100).map(made_up).collect()
        });
        let found = node_that_knows(&[liar]).lookup(TARGET, PATIENCE);
        assert!((1..=8).contains(&found.len()), "{found:?}");
    });
}
