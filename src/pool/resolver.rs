//! Host names to addresses: which resolver does it, where, and for how long.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::{Job, Pending};
use crate::sys::fork;
use crate::sys::switches::own_lock;
use crate::task::word::Kind;
use crate::task::{self, Deadline};

/// The most lookups that run at once: they are to leave threads of the pool to other jobs, even if
/// the name server has gone and each takes its half a minute.
const LOOKUPS: usize = 128;

/// What finds the addresses of hosts: see [`set_resolver`].
///
/// Closures of this signature are resolvers.
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, each with `port`, in the order in which they are to be tried.
    ///
    /// This may block. When a coroutine asks, it is called on the pool of [`unblock`], and else
    /// where the question is; never for what is an address already.
    ///
    /// # Errors
    ///
    /// Go to whoever asked.
    ///
    /// [`unblock`]: crate::unblock()
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

impl<F> Resolve for F
where
    F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync,
{
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self(host, port)
    }
}

/// The system's resolver, which std asks too: `getaddrinfo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// Makes `resolver` the one that host names are resolved by, wherever this process passes them to
/// [`shims::net`](crate::shims::net); returns the one before it, at first [`SystemResolver`].
///
/// Lookups under way go on with the resolver that they have begun with. Up to 128 run at once;
/// beyond that, they queue.
///
/// ```
/// use greenroom::{Resolve, SystemResolver};
/// use greenroom::shims as std;
/// use std::net::{Ipv4Addr, ToSocketAddrs};
/// use std::sync::Arc;
///
/// greenroom::set_resolver(Arc::new(|host: &str, port: u16| match host {
///     "database" => Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]),
///     _ => SystemResolver.resolve(host, port),
/// }));
///
/// let mut addrs = "database:5432".to_socket_addrs()?;
/// assert_eq!(addrs.next(), Some("127.0.0.1:5432".parse().unwrap()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn set_resolver(resolver: Arc<dyn Resolve>) -> Arc<dyn Resolve> {
    let before = lock().resolver.replace(resolver);
    before.unwrap_or_else(|| Arc::new(SystemResolver))
}

/// Asks the resolver.
///
/// # Errors
///
/// The resolver's; `TimedOut` when `deadline` has passed. The resolver is then left to itself.
///
/// # Panics
///
/// With the resolver's panic.
pub(crate) fn resolve(
    host: &str,
    port: u16,
    deadline: Option<Instant>,
) -> io::Result<Vec<SocketAddr>> {
    let resolver = lock().resolver.clone();
    let resolver = resolver.unwrap_or_else(|| Arc::new(SystemResolver));
    let blocks = deadline.is_none() && !task::on_coroutine();
    if blocks || fork::has_left_runtimes() {
        return resolver.resolve(host, port);
    }
    let lookup = Arc::new(Pending::new());
    // Weakly, so that one that was given up while it queued is not begun.
    let asked = Arc::downgrade(&lookup);
    let host = host.to_owned();
    begin(Box::new(move || {
        if asked.strong_count() == 0 {
            return;
        }
        let answer = catch_unwind(AssertUnwindSafe(|| resolver.resolve(&host, port)));
        if let Some(lookup) = asked.upgrade() {
            lookup.fill(answer);
        }
    }));
    let answer = lookup.wait(Kind::Event, deadline.map(Deadline::at));
    answer.unwrap_or_else(|| Err(timed_out()))
}

#[cold]
fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "name resolution timed out")
}

/// Has the pool do `job`, as soon as fewer than the most are under way.
fn begin(job: Job) {
    let mut state = task::lock_aside(&STATE);
    if state.running == LOOKUPS {
        state.queued.push_back(job);
        return;
    }
    state.running += 1;
    drop(state);
    super::submit(Box::new(|| work(job)));
}

/// Does `job`, and then those that queue.
fn work(job: Job) {
    let mut next = Some(job);
    while let Some(job) = next {
        // It fails where an answer that nobody wants is dropped; the hook has reported that.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
            mem::forget(payload);
        }
        let mut state = lock();
        next = state.queued.pop_front();
        if next.is_none() {
            // In a process that was forked from a lookup, this one is not counted.
            state.running = state.running.saturating_sub(1);
            // After a burst.
            state.queued.shrink_to(LOOKUPS);
        }
    }
}

static STATE: Mutex<State> = Mutex::new(State {
    resolver: None,
    queued: VecDeque::new(),
    running: 0,
});

struct State {
    /// None for the system's.
    resolver: Option<Arc<dyn Resolve>>,
    /// Lookups that wait for others to end.
    queued: VecDeque<Job>,
    /// How many threads of the pool do lookups.
    running: usize,
}

fn lock() -> MutexGuard<'static, State> {
    own_lock(&STATE)
}
