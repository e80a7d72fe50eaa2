//! Clients of PostgreSQL: [`libpq`](libpq::Connection), the C library, whose calls block; and
//! [`wire`](wire::Connection), the protocol in sequential code over greenroom's streams.
//!
//! A [`Database`] is a pool of connections, which it uses in one of three ways.

pub mod libpq;
pub mod wire;

use std::fmt;
use std::os::fd::AsFd;
use std::time::Duration;

use greenroom::{CheckoutError, Pooled, ResourcePool, ThreadPool};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Where the server is, and who logs in.
#[derive(Clone)]
pub struct Login {
    /// A name, an address, or the directory of the server's Unix socket.
    pub host: String,
    /// The port, which is also in the name of a Unix socket.
    pub port: u16,
    /// The user of the database.
    pub user: String,
    /// Needed if the server asks for one.
    pub password: Option<String>,
    /// The name of the database.
    pub database: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        write!(f, "{self}")
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Login {
            host, port, user, ..
        } = self;
        write!(f, "{user} at {host}:{port}")
    }
}

/// The columns of a row, as text. `None` is SQL's null.
pub type Row = Vec<Option<String>>;

/// Why there are no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no connection: the server is not there, or refuses the login.
    Connect(String),
    /// The connection has ended amid the query. The server may have carried it out, or not.
    Lost(String),
    /// The server refuses the query. The connection goes on.
    Query {
        /// The code that PostgreSQL's manual lists in its appendix A.
        code: String,
        /// What the server says.
        message: String,
    },
    /// For so long, all connections were in use, or the server did not answer a login.
    Busy(Duration),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect(why) => write!(f, "no connection: {why}"),
            Error::Lost(why) => write!(f, "the connection was lost: {why}"),
            Error::Query { code, message } => write!(f, "{message} ({code})"),
            Error::Busy(patience) => write!(f, "no connection was free within {patience:?}"),
        }
    }
}

impl std::error::Error for Error {}

/// A connection to the server, for one query at a time.
pub trait Connection: fmt::Debug + Send {
    /// Runs the statements of `query`, and returns the rows of the last one.
    ///
    /// # Errors
    ///
    /// [`Error::Query`]; or [`Error::Lost`], after which the connection is of no more use.
    fn rows(&mut self, query: &str) -> Result<Vec<Row>, Error>;

    /// Whether the connection can take a query. Does not wait.
    fn is_usable(&self) -> bool;
}

type AnyConnection = Box<dyn Connection>;

/// How queries are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// OS threads call libpq, as many as there are connections. Coroutines wait for them.
    Threads,
    /// Coroutines call libpq, under `greenroom::patch!`.
    Patch,
    /// Coroutines talk the protocol.
    Wire,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Threads, Way::Patch, Way::Wire];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Way::Threads => "threads",
            Way::Patch => "patch",
            Way::Wire => "wire",
        }
    }

    fn open(self, login: &Login) -> Result<AnyConnection, Error> {
        Ok(match self {
            Way::Threads | Way::Patch => Box::new(libpq::Connection::open(login)?),
            Way::Wire => Box::new(wire::Connection::open(login)?),
        })
    }
}

/// Connections to a server, which are made when they are needed.
#[derive(Clone, Debug)]
pub struct Database {
    connections: ResourcePool<AnyConnection, Error>,
    /// The threads that call the driver, unless the coroutines do.
    threads: Option<ThreadPool>,
    patience: Duration,
}

impl Database {
    /// At most `connections` connections of this login. A query waits for one as long as `patience`, login
    /// included.
    pub fn new(way: Way, login: Login, connections: usize, patience: Duration) -> Database {
        let threads = (way == Way::Threads).then(|| ThreadPool::new(connections));
        let openers = threads.clone();
        let open = move || match &openers {
            None => way.open(&login),
            Some(threads) => {
                let login = login.clone();
                threads.call(move || way.open(&login))
            }
        };
        let connections = ResourcePool::builder()
            .max(connections)
            .timeout(patience)
            .check(|connection: &mut AnyConnection| connection.is_usable())
            .build(open);
        Database {
            connections,
            threads,
            patience,
        }
    }

    /// Runs a query on the next free connection. See [`Connection::rows`].
    ///
    /// A caller that is interrupted meanwhile leaves no connection in the middle of a reply: the connection is
    /// dropped, or its thread finishes the query first.
    ///
    /// # Errors
    ///
    /// All of [`Error`].
    pub fn rows(&self, query: &str) -> Result<Vec<Row>, Error> {
        let connection = self.connections.get().map_err(|error| match error {
            CheckoutError::TimedOut => Error::Busy(self.patience),
            CheckoutError::Failed(error) => error,
        })?;
        match &self.threads {
            None => ask(connection, query),
            Some(threads) => {
                let query = query.to_owned();
                threads.call(move || ask(connection, &query))
            }
        }
    }

    /// How many connections there are.
    pub fn size(&self) -> usize {
        self.connections.size()
    }
}

/// Keeps the connection for the next query, unless it was lost.
fn ask(mut connection: Pooled<AnyConnection, Error>, query: &str) -> Result<Vec<Row>, Error> {
    let outcome = connection.rows(query);
    if let Err(Error::Lost(_)) = outcome {
        connection.discard();
    }
    outcome
}

/// Whether nothing has come, not even the end: between queries, a server that sends something mostly says that
/// it goes away.
fn is_quiet(socket: impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(socket, &mut [0; 1], flags) == Err(Errno::AGAIN)
}

const NO_COPY: &str = "COPY is not supported";

/// The error of a query that no driver can send.
fn zero_byte() -> Error {
    Error::Query {
        // "character_not_in_repertoire", which the server has for this.
        code: "22021".into(),
        message: "the query contains a zero byte".into(),
    }
}

/// What the server has sent as text.
fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_owned()).map_err(|_| "a text is not UTF-8".to_owned())
}
