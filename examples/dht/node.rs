//! A node of the table: it answers queries, and asks others.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::channel::oneshot;
use greenroom::shims::net::UdpSocket;
use greenroom::{scope, spawn_daemon};

use super::bencode::{Dictionary, Value, dictionary};
use super::printable::printable;

pub(crate) type Id = [u8; 20];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) id: Id,
    pub(crate) address: SocketAddr,
}

/// How many contacts there are in an answer, and in a bucket.
const K: usize = 8;

/// How many nodes a lookup asks at once.
const ALPHA: usize = 3;

/// How many rounds of queries a lookup has at most. Each round should come closer, but nodes can make up closer ones
/// without end.
const MAX_ROUNDS: usize = 32;

/// The longest message that is understood.
const MAX_MESSAGE: usize = 4096;

pub(crate) struct Node {
    id: Id,
    socket: UdpSocket,
    /// The known nodes, by the number of leading bits that their ids have in common with this node's.
    buckets: Mutex<Vec<Vec<Contact>>>,
    /// The queries that wait for an answer, by the number of the transaction.
    waiting: Mutex<HashMap<Vec<u8>, Query>>,
    next: AtomicU32,
    late: AtomicUsize,
}

struct Query {
    to: SocketAddr,
    answer: oneshot::Sender<io::Result<Dictionary>>,
}

impl Node {
    /// Starts a node, which answers queries from now on.
    pub(crate) fn start(id: Id, address: SocketAddr) -> io::Result<Arc<Node>> {
        let node = Arc::new(Node {
            id,
            socket: UdpSocket::bind(address)?,
            buckets: Mutex::new(vec![Vec::new(); 160]),
            waiting: Mutex::default(),
            next: AtomicU32::new(0),
            late: AtomicUsize::new(0),
        });
        let reader = Arc::clone(&node);
        spawn_daemon(move || reader.receive());
        Ok(node)
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// How many answers have come too late.
    pub(crate) fn late_answers(&self) -> usize {
        self.late.load(Relaxed)
    }

    /// The only reader of the socket. It hands each answer to the coroutine that waits for it.
    fn receive(&self) {
        let mut message = [0; MAX_MESSAGE];
        loop {
            // An error is that of an earlier send. Its query gets no answer, and times out.
            let Ok((length, from)) = self.socket.recv_from(&mut message) else {
                continue;
            };
            let Some(Value::Dictionary(message)) = Value::decode(&message[..length]) else {
                continue; // It has no number by which it could be answered.
            };
            let kind = entry(&message, "y").and_then(Value::bytes);
            let transaction = entry(&message, "t").and_then(Value::bytes);
            match (kind, transaction) {
                (Some(b"q"), Some(transaction)) => self.answer(transaction, &message, from),
                (Some(b"r" | b"e"), Some(transaction)) => self.settle(transaction, &message, from),
                _ => {}
            }
        }
    }

    /// Ends the wait for this answer. If there is none, the answer is too late, or was never asked for.
    fn settle(&self, transaction: &[u8], message: &Dictionary, from: SocketAddr) {
        let mut waiting = self.waiting.lock().unwrap();
        let query = match waiting.get(transaction) {
            Some(query) if query.to == from => waiting.remove(transaction),
            _ => None,
        };
        drop(waiting);
        let Some(query) = query else {
            self.late.fetch_add(1, Relaxed);
            return;
        };
        let answer = match (entry(message, "r"), entry(message, "e")) {
            (Some(Value::Dictionary(answer)), _) => Ok(answer.clone()),
            (_, Some(Value::List(error))) => {
                let text = error.iter().find_map(Value::bytes).unwrap_or_default();
                Err(io::Error::other(printable(&String::from_utf8_lossy(text))))
            }
            _ => Err(malformed()),
        };
        let _ = query.answer.send(answer);
    }

    fn answer(&self, transaction: &[u8], message: &Dictionary, from: SocketAddr) {
        let arguments = entry(message, "a").and_then(Value::dictionary);
        let id = |key| arguments.and_then(|of| id_in(of, key));
        let method = entry(message, "q").and_then(Value::bytes);
        let own = ("id", Value::from(&self.id[..]));
        let answer = match (method, id("id"), id("target")) {
            (Some(b"ping"), Some(_), _) => Ok(dictionary([own])),
            (Some(b"find_node"), Some(_), Some(target)) => {
                let nodes = encode_contacts(&self.closest(target));
                Ok(dictionary([own, ("nodes", nodes[..].into())]))
            }
            (Some(b"ping" | b"find_node"), ..) => Err((203, "there must be an id")),
            _ => Err((204, "method unknown")),
        };
        let transaction = ("t", Value::from(transaction));
        let message = match answer {
            Ok(answer) => dictionary([
                transaction,
                ("y", "r".into()),
                ("r", Value::Dictionary(answer)),
            ]),
            Err((code, text)) => {
                let error = Value::List(vec![Value::Number(code), text.into()]);
                dictionary([transaction, ("y", "e".into()), ("e", error)])
            }
        };
        if let (Some(id), true) = (id("id"), message.contains_key(&b"r"[..])) {
            self.learn(Contact { id, address: from });
        }
        // If it is lost, the other node asks again.
        let _ = self
            .socket
            .send_to(&Value::Dictionary(message).encode(), from);
    }

    /// Asks a node, and waits for its answer, as long as `patience`.
    pub(crate) fn query(
        &self,
        to: SocketAddr,
        method: &str,
        mut arguments: Dictionary,
        patience: Duration,
    ) -> io::Result<Dictionary> {
        let transaction = self.next.fetch_add(1, Relaxed).to_be_bytes();
        arguments.insert(b"id".to_vec(), self.id[..].into());
        let message = dictionary([
            ("t", transaction[..].into()),
            ("y", "q".into()),
            ("q", method.into()),
            ("a", Value::Dictionary(arguments)),
        ]);
        let (answer, answered) = oneshot();
        let query = Query { to, answer };
        self.waiting
            .lock()
            .unwrap()
            .insert(transaction.to_vec(), query);
        // Whatever ends the wait, an unwind too, the query leaves the table.
        let _waiting = Waiting {
            node: self,
            transaction,
        };
        self.socket
            .send_to(&Value::Dictionary(message).encode(), to)?;
        let answer = answered.recv_timeout(patience);
        let answer =
            answer.map_err(|_| io::Error::new(ErrorKind::TimedOut, "no answer in time"))??;
        let id = id_in(&answer, "id").ok_or_else(malformed)?;
        self.learn(Contact { id, address: to });
        Ok(answer)
    }

    pub(crate) fn find_node(
        &self,
        to: SocketAddr,
        target: Id,
        patience: Duration,
    ) -> io::Result<Vec<Contact>> {
        let arguments = dictionary([("target", target[..].into())]);
        let answer = self.query(to, "find_node", arguments, patience)?;
        let nodes = entry(&answer, "nodes").and_then(Value::bytes);
        nodes.and_then(decode_contacts).ok_or_else(malformed)
    }

    /// Looks for the nodes that are closest to `target`: asks those that are closest so far, until none of them
    /// knows a closer one. Nodes that do not answer, or refuse to, are left out.
    pub(crate) fn lookup(&self, target: Id, patience: Duration) -> Vec<Contact> {
        let mut found = self.closest(target);
        let (mut answered, mut silent) = (Vec::new(), Vec::new());
        for _ in 0..MAX_ROUNDS {
            let closest = found.iter().take(K);
            let unasked = closest.filter(|contact| !answered.contains(*contact));
            let round: Vec<_> = unasked.take(ALPHA).copied().collect();
            if round.is_empty() {
                break;
            }
            let answers = scope(|scope| {
                let ask = |contact: &Contact| {
                    let address = contact.address;
                    scope.spawn(move || self.find_node(address, target, patience))
                };
                let queries: Vec<_> = round.iter().map(ask).collect();
                let joined = queries.into_iter().map(|query| query.join());
                joined.collect::<Vec<_>>()
            });
            for (contact, answer) in round.into_iter().zip(answers) {
                match answer {
                    Ok(Ok(nodes)) => {
                        answered.push(contact);
                        found.extend(nodes.into_iter().take(K));
                    }
                    _ => silent.push(contact),
                }
            }
            // Others may still know one that is silent.
            found.retain(|contact| contact.id != self.id && !silent.contains(contact));
            found.sort_by_key(|contact| (distance(contact.id, target), contact.address));
            found.dedup();
        }
        found.retain(|contact| answered.contains(contact));
        found.truncate(K);
        found
    }

    /// Remembers a node that has answered, or asked, if there is room.
    fn learn(&self, contact: Contact) {
        let leading: u32 = match distance(contact.id, self.id) {
            distance if distance == [0; 20] => return,
            distance => {
                let zeros = distance.iter().take_while(|&&byte| byte == 0).count();
                zeros as u32 * 8 + distance[zeros].leading_zeros()
            }
        };
        let bucket = &mut self.buckets.lock().unwrap()[leading as usize];
        if bucket.len() < K && bucket.iter().all(|known| known.id != contact.id) {
            bucket.push(contact);
        }
    }

    /// The nodes closest to `target` among those that are known.
    fn closest(&self, target: Id) -> Vec<Contact> {
        let mut known = self.buckets.lock().unwrap().concat();
        known.sort_by_key(|contact| distance(contact.id, target));
        known.truncate(K);
        known
    }
}

/// A query in the table. When this is dropped, its answer comes too late.
struct Waiting<'a> {
    node: &'a Node,
    transaction: [u8; 4],
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.node
            .waiting
            .lock()
            .unwrap()
            .remove(&self.transaction[..]);
    }
}

fn distance(a: Id, b: Id) -> Id {
    std::array::from_fn(|at| a[at] ^ b[at])
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "malformed answer")
}

fn entry<'a>(dictionary: &'a Dictionary, key: &str) -> Option<&'a Value> {
    dictionary.get(key.as_bytes())
}

fn id_in(dictionary: &Dictionary, key: &str) -> Option<Id> {
    entry(dictionary, key)?.bytes()?.try_into().ok()
}

/// Each contact is 26 bytes: the id, the IPv4 address, the port.
pub(crate) fn encode_contacts(contacts: &[Contact]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for contact in contacts {
        if let IpAddr::V4(ip) = contact.address.ip() {
            bytes.extend(contact.id);
            bytes.extend(ip.octets());
            bytes.extend(contact.address.port().to_be_bytes());
        }
    }
    bytes
}

fn decode_contacts(bytes: &[u8]) -> Option<Vec<Contact>> {
    let contacts = bytes.chunks(26).map(|contact| {
        let (id, rest) = contact.split_first_chunk::<20>()?;
        let (ip, port) = rest.split_first_chunk::<4>()?;
        let port = u16::from_be_bytes(port.try_into().ok()?);
        let address = SocketAddr::from((Ipv4Addr::from(*ip), port));
        Some(Contact { id: *id, address })
    });
    contacts.collect()
}
