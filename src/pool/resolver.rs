//! Host names to addresses: the resolver of the process, and the lookups that run on the pool.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::{Job, JobResult};
use crate::sys::fork;
use crate::sys::switches::own_lock;
use crate::task::{self, Deadline};

/// The most lookups that run at once: half of the pool's threads. If the name server is down, a lookup
/// takes about half a minute; other jobs of the pool should not wait for that.
const MOST_LOOKUPS: usize = 128;

/// Finds the addresses of hosts. See [`set_resolver`].
///
/// A closure with the signature of [`resolve`](Resolve::resolve) is a resolver.
pub trait Resolve: Send + Sync {
    /// Returns the addresses of `host`, each with `port`, in the order in which to try them.
    ///
    /// This may block: for a coroutine, it is called on a thread of the pool of [`unblock`]. For an
    /// OS thread, it is called on that thread, or on the pool if the caller has set a timeout. It is
    /// never called for a `host` that is an IP address.
    ///
    /// # Errors
    ///
    /// Any error. It is returned to the caller that wanted the addresses.
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

/// The system's resolver, `getaddrinfo`, which std uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }
}

/// Sets the resolver for all host names that this process passes to
/// [`shims::net`](crate::shims::net). Returns the previous resolver, which is [`SystemResolver`] at
/// first.
///
/// A lookup uses the resolver that was set when the lookup was asked for. Up to 128 lookups run at once,
/// and further ones queue.
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

/// Asks the resolver of the process. Parks a coroutine, and blocks a thread, until it has answered or
/// `deadline` has passed.
///
/// # Errors
///
/// The resolver's. `TimedOut`, if `deadline` has passed: a lookup that has begun then runs to its end,
/// and one that is queued is not begun.
///
/// # Panics
///
/// Resumes the panic, if the resolver panics.
///
/// # Unwinding
///
/// An interruption point.
pub(crate) fn resolve(
    host: &str,
    port: u16,
    deadline: Option<Instant>,
) -> io::Result<Vec<SocketAddr>> {
    let resolver = lock().resolver.clone();
    let resolver = resolver.unwrap_or_else(|| Arc::new(SystemResolver));
    // The calling thread may block for as long as the resolver takes.
    let may_block = deadline.is_none() && !task::on_coroutine();
    // A forked child has no pool, so the deadline cannot be kept there.
    if may_block || fork::has_left_runtimes() {
        return resolver.resolve(host, port);
    }
    let lookup = Arc::new(JobResult::new());
    // A weak reference: when the caller gives up a queued lookup, the lookup is not begun.
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
    let answer = lookup.wait_for_operation(deadline.map(Deadline::at))?;
    answer.unwrap_or_else(|| Err(timed_out()))
}

/// The error of a lookup that took too long.
#[cold]
fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "name resolution timed out")
}

/// Hands `job`, a lookup, to the pool; or queues it, if [`MOST_LOOKUPS`] are under way.
fn begin(job: Job) {
    let mut lookups = task::lock_aside(&LOOKUPS);
    if lookups.running == MOST_LOOKUPS {
        lookups.queued.push_back(job);
        return;
    }
    lookups.running += 1;
    drop(lookups);
    super::submit(Box::new(|| work(job)));
}

/// Runs `job`, and then the queued lookups, on a thread of the pool.
fn work(job: Job) {
    let mut next = Some(job);
    while let Some(job) = next {
        // A lookup catches the resolver's panics. But the lookup may drop an unwanted answer, or the last
        // reference to a resolver, and such a drop may panic, too. The panic hook has reported that panic.
        // The payload is leaked, because dropping it might panic once more.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
            mem::forget(payload);
        }
        let mut lookups = task::lock_aside(&LOOKUPS);
        next = lookups.queued.pop_front();
        if next.is_none() {
            // Saturating, because a resolver may fork: then this also runs in the child, where the count
            // may not include this lookup.
            lookups.running = lookups.running.saturating_sub(1);
            // Gives memory back after a burst.
            lookups.queued.shrink_to(MOST_LOOKUPS);
        }
    }
}

static LOOKUPS: Mutex<Lookups> = Mutex::new(Lookups {
    resolver: None,
    queued: VecDeque::new(),
    running: 0,
});

/// What the lookups of the process share.
struct Lookups {
    /// `None` stands for [`SystemResolver`]; an `Arc` cannot be made in a constant.
    resolver: Option<Arc<dyn Resolve>>,
    /// Lookups that wait for others to end, first in, first out.
    queued: VecDeque<Job>,
    /// The number of pool threads that run lookups.
    running: usize,
}

fn lock() -> MutexGuard<'static, Lookups> {
    own_lock(&LOOKUPS)
}
