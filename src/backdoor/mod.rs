//! A backdoor into a running program: dumps, numbers and cancellations over a Unix socket.
//!
//! A program that hangs in production was not started under a debugger, and its signals may be taken. If it serves a
//! backdoor, its owner can ask it what its coroutines do, and cancel one. Nothing is served unless the program calls
//! [`serve`].
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! let _backdoor = greenroom::backdoor::serve("/run/app/backdoor")?;
//! // What the program does.
//! # Ok(()) }
//! ```
//!
//! `examples/top`, in a checkout of greenroom, shows the coroutines in a table, live: `cargo run -p top -- PATH`. Any
//! other program that connects to Unix sockets will do:
//!
//! ```text
//! $ echo metrics | socat -t 5 - UNIX:/run/app/backdoor
//! {"pid":4711,"live":10003,"runnable":0,"spawned":10003,…}
//! $ echo dump text | socat -t 5 - UNIX:/run/app/backdoor | jq -r .
//! greenroom: 10003 coroutines: 0 running, 0 ready, 10003 parked, 0 fresh
//! …
//! ```
//!
//! # The protocol
//!
//! A client sends lines, each with one command, and gets one line for each, in order. A reply is one JSON value. A
//! command that cannot be carried out gets an object with the one member `error`, a text, and the conversation goes on.
//!
//! | command | reply |
//! |---|---|
//! | `dump` | a dump: see [the guide](crate::guide::insight#json) |
//! | `dump brief` | the same without backtraces, which takes less time |
//! | `dump text` | the dump for people, as one string |
//! | `backtrace ID` | `id`, `state`, and `frames` as in a dump; `null` unless the coroutine is parked |
//! | `metrics` | the numbers of [`Metrics`](crate::Metrics) by their names, with times in seconds, and `pid` |
//! | `cancel ID` | `cancelled`, the id. The coroutine is cancelled as by [`JoinHandle::cancel`](crate::JoinHandle::cancel): it may go on for a while |
//! | `threshold` | `threshold_ms`, the threshold of the [monitor](crate::monitor()), or `null` while that is off |
//! | `threshold MS` | the same. Sets the threshold, or turns the monitor on. What receives the reports stays; if nothing does, they go to standard error |
//! | `threshold off` | the same. Turns the monitor off |
//! | `help` | the commands, an array of strings |
//!
//! Ids are those of dumps. A main coroutine cannot be cancelled, because that would end its runtime. Nor can the
//! coroutine `timers`, which fires the timers of [`after`](crate::after()).
//!
//! A `dump`, `backtrace` or `cancel` asks the workers. It does without those that are held by a coroutine for longer
//! than a second: a dump tells which these are, and their coroutines cannot be cancelled meanwhile. `metrics` and
//! `threshold` ask nobody.
//!
//! # Who is let in
//!
//! The file of the socket has the mode 0600, from its first moment. Besides, a peer is refused unless it has the
//! effective user id of this process, or is root.
//!
//! A client is disconnected if it sends a line that is longer than 256 bytes, takes more than 10 seconds for one, or
//! takes nothing of a reply for 10 seconds. A line that is cut off is not carried out. There are at most 8 clients at a
//! time.
//!
//! # What it costs
//!
//! One OS thread, and one for each client. So the backdoor answers also if coroutines hold all workers, which is when
//! it is needed most. The threads sleep until something comes: there are no wake-ups while idle. Because these threads
//! may cancel coroutines, no deadlock is [reported](crate::RuntimeBuilder::on_deadlock) while a backdoor is served.
#![forbid(unsafe_code)]

mod client;
mod command;
mod socket;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use slab::Slab;

use crate::sys::socket::peer_uid;
use crate::sys::switches::own_lock;
use socket::File;

/// The most clients at a time.
const MAX_CLIENTS: usize = 8;

/// The pause after the system had no descriptor for a new client.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Serves a backdoor on a Unix socket at `path`, until the returned handle is dropped.
///
/// A socket that a program has left there, and nobody listens on, is replaced.
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use std::os::unix::net::UnixStream;
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("greenroom-doc-{}", std::process::id()));
/// let backdoor = greenroom::backdoor::serve(&path)?;
/// let mut client = BufReader::new(UnixStream::connect(&path)?);
/// client.get_mut().write_all(b"cancel 4711\n")?;
/// let mut reply = String::new();
/// client.read_line(&mut reply)?;
/// assert_eq!(reply, "{\"error\":\"there is no coroutine 4711, or it has ended\"}\n");
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// - `AddrInUse`, if a program listens there, or if `path` is not a socket.
/// - `InvalidInput`, if `path` is empty or too long for a socket, or has a null byte.
/// - Otherwise the operating system's.
pub fn serve(path: impl AsRef<Path>) -> io::Result<Backdoor> {
    let (listener, file) = socket::listen(path.as_ref())?;
    let door = Arc::new(Door {
        listener,
        guests: Mutex::new(Guests {
            is_closed: false,
            streams: Slab::new(),
        }),
    });
    // From here on, this removes the file if there is no thread to be had.
    let backdoor = Backdoor { door, file };
    let door = Arc::clone(&backdoor.door);
    let thread = thread::Builder::new().name("greenroom-backdoor".into());
    thread.spawn(move || door.accept())?;
    Ok(backdoor)
}

/// A backdoor that is served. See [`serve`].
///
/// Dropping this stops it: removes the socket, and disconnects the clients. A command that is being carried out is
/// carried out. A program that keeps its backdoor to its end forgets this (`std::mem::forget`); the socket stays then,
/// and is replaced by the next [`serve`]. In a child of a fork, dropping this does nothing.
#[must_use = "the backdoor is closed when this is dropped"]
pub struct Backdoor {
    door: Arc<Door>,
    file: File,
}

impl Backdoor {
    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Drop for Backdoor {
    fn drop(&mut self) {
        if self.file.is_inherited() {
            return;
        }
        // While the socket listens, no other program takes it for a stale one.
        self.file.remove();
        self.door.close();
    }
}

impl fmt::Debug for Backdoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backdoor").field(&self.path()).finish()
    }
}

/// What the threads of a backdoor share.
struct Door {
    listener: UnixListener,
    guests: Mutex<Guests>,
}

struct Guests {
    is_closed: bool,
    /// The connections of the present clients.
    streams: Slab<Arc<UnixStream>>,
}

/// A client that is served. It leaves when this is dropped.
struct Guest {
    door: Arc<Door>,
    key: usize,
    stream: Arc<UnixStream>,
}

impl Door {
    /// Accepts clients until the door is closed.
    fn accept(self: Arc<Door>) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.receive(stream),
                Err(_) if own_lock(&self.guests).is_closed => return,
                // Mostly for lack of descriptors.
                Err(_) => thread::sleep(BACK_OFF),
            }
        }
    }

    /// Has a client served by a thread of its own, if it may come in.
    fn receive(self: &Arc<Door>, stream: UnixStream) {
        let stream = Arc::new(stream);
        if !is_allowed(&stream) {
            return client::turn_away(
                &stream,
                "only the user of this process, and root, are let in",
            );
        }
        let guest = match self.admit(&stream) {
            Ok(guest) => guest,
            Err(why) => return client::turn_away(&stream, why),
        };
        let thread = thread::Builder::new().name("greenroom-backdoor".into());
        if thread.spawn(move || client::serve(&guest.stream)).is_err() {
            client::turn_away(&stream, "there is no thread to be had");
        }
    }

    /// Notes the client, or tells why it cannot come in.
    fn admit(self: &Arc<Door>, stream: &Arc<UnixStream>) -> Result<Guest, &'static str> {
        let mut guests = own_lock(&self.guests);
        if guests.is_closed {
            return Err("the backdoor is closed");
        }
        if guests.streams.len() >= MAX_CLIENTS {
            return Err("there are too many clients");
        }
        Ok(Guest {
            door: Arc::clone(self),
            key: guests.streams.insert(Arc::clone(stream)),
            stream: Arc::clone(stream),
        })
    }

    /// Ends the threads, as soon as they have nothing to carry out.
    fn close(&self) {
        let mut guests = own_lock(&self.guests);
        guests.is_closed = true;
        for (_, stream) in &guests.streams {
            // It fails if the client has gone.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(guests);
        // `accept` fails from now on.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let stream = own_lock(&self.door.guests).streams.remove(self.key);
        drop(stream);
    }
}

fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    peer_uid(stream.as_fd()).is_ok_and(|uid| uid == 0 || uid == own.as_raw())
}
