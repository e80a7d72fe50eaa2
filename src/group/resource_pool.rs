//! Pools of resources that are dear to make, like connections to a database.
//!
//! # The limit
//!
//! A demand first takes one of `max` places, waiting in line if need be. Then it takes an idle resource, or
//! makes one if there is none. It keeps the place until the resource has been given back or dropped. So:
//!
//! - *There are never more than `max` resources.* One is counted in only by the holder of a place, under the
//!   lock, and only if none is idle then. So all others are held, or being made, by holders of other
//!   places. (Or by `fill`, if there are fewer than `min`, which is not more than `max`.) An idle one that has
//!   reached a limit, or is cleared, does not count from then on: nobody waits for its destructor.
//! - *A demand makes at most one.* A resource that is given back meanwhile stays idle for the next demand.
//! - *Nothing is left by a demand that fails, times out or unwinds.* The place, and the count of a resource
//!   that is being made, are values that give themselves back.
//! - *An interrupt costs one resource at most.* A check that it ends drops the resource, and no other one is
//!   checked, also where interrupts are errors and the check only tells that it has failed.
//!
//! # No timer
//!
//! Idle resources are looked through when one is taken or given back. A pool that nobody uses does
//! nothing, so an idle program stays idle.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::room::{Place, Room};
use crate::interrupt::deadline::Deadline;
use crate::interrupt::timeout::timeout_at;
use crate::park::{Interrupt, with_reason};
use crate::runtime::join::drop_unwanted;
use crate::task::{self, AsideGuard, Current};

/// A pool of resources that are dear to make, like connections to a database.
///
/// [`get`](ResourcePool::get) takes an idle resource, or makes one, or waits until one is given back. The
/// guard that it returns gives the resource back when it is dropped.
///
/// ```
/// use greenroom::ResourcePool;
/// use greenroom::shims::net::{TcpListener, TcpStream};
/// use std::io::Write;
///
/// # fn main() -> std::io::Result<()> {
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let addr = server.local_addr()?;
/// let pool = ResourcePool::new(10, move || TcpStream::connect(addr));
/// for _ in 0..3 {
///     let mut connection = pool.get()?; // the same connection each time
///     connection.write_all(b"query\n")?;
/// }
/// assert_eq!((pool.size(), pool.idle()), (1, 1));
/// # Ok(())
/// # }
/// ```
///
/// Those that wait are served in the order in which they came. Of the idle resources, the one that was used
/// last is taken first, so that superfluous ones reach the idle limit.
///
/// A pool works from coroutines and OS threads. Clones of it are the same pool.
///
/// # Broken resources
///
/// A guard that is dropped by an unwind does not give its resource back, but drops it: an interrupted
/// query leaves a connection in the middle of a reply. Call [`Pooled::discard`] after an error, and after
/// a [`timeout`](crate::timeout) that ends while the guard is outside of it. A
/// [check](ResourcePoolBuilder::check) finds resources that have broken while they were idle.
///
/// # Limits
///
/// They are applied when a resource is taken or given back, and by [`reap`](ResourcePool::reap). The pool has
/// no timer, and makes no resource in advance, unless [`fill`](ResourcePool::fill) is called.
pub struct ResourcePool<T, E = io::Error> {
    shared: Arc<Shared<T, E>>,
}

/// The settings of a [`ResourcePool`].
#[must_use = "must eventually build the pool"]
pub struct ResourcePoolBuilder<T> {
    min: usize,
    max: usize,
    idle_limit: Option<Duration>,
    age_limit: Option<Duration>,
    timeout: Option<Duration>,
    check: Option<Box<Check<T>>>,
}

type Check<T> = dyn Fn(&mut T) -> bool + Send + Sync;

/// What the pool and its guards share.
struct Shared<T, E> {
    settings: ResourcePoolBuilder<T>,
    make: Box<dyn Fn() -> Result<T, E> + Send + Sync>,
    room: Arc<Room>,
    resources: Mutex<Resources<T>>,
}

struct Resources<T> {
    /// Those that nobody has. The one that was given back last is the last.
    idle: VecDeque<Idle<T>>,
    /// How many there are: idle, in use, or being made.
    size: usize,
}

struct Idle<T> {
    resource: T,
    made: Instant,
    /// Only known if there is a limit.
    idle_since: Option<Instant>,
}

impl<T> Default for ResourcePoolBuilder<T> {
    fn default() -> Self {
        ResourcePoolBuilder {
            min: 0,
            max: 10,
            idle_limit: None,
            age_limit: None,
            timeout: None,
            check: None,
        }
    }
}

impl<T> ResourcePoolBuilder<T> {
    /// How many resources there are at most. Default: 10.
    ///
    /// Idle resources that have reached a limit, or are [cleared](ResourcePool::clear), do not count while
    /// they are being dropped. If that takes time, more than `max` may exist for so long.
    pub fn max(mut self, max: usize) -> Self {
        self.max = max;
        self
    }

    /// How many resources the idle limit leaves, and [`fill`](ResourcePool::fill) makes. Default: none.
    pub fn min(mut self, min: usize) -> Self {
        self.min = min;
        self
    }

    /// How long a resource may be idle. Default: for ever.
    pub fn idle_limit(mut self, limit: Duration) -> Self {
        self.idle_limit = Some(limit);
        self
    }

    /// For how long after it was made a resource may be given out again. Default: for ever.
    pub fn age_limit(mut self, limit: Duration) -> Self {
        self.age_limit = Some(limit);
        self
    }

    /// How long [`get`](ResourcePool::get) may take: the wait, checks, and the making. Default: as long as it
    /// takes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets a function that tells whether a resource that was idle still works. It is called before such a
    /// resource is given out, and may wait. If it returns false, the resource is dropped, and the next one is
    /// tried.
    pub fn check(mut self, check: impl Fn(&mut T) -> bool + Send + Sync + 'static) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// Makes a pool of resources that `make` makes. It is empty.
    ///
    /// # Panics
    ///
    /// If the maximum is zero, or less than the minimum.
    #[track_caller]
    pub fn build<E>(
        self,
        make: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> ResourcePool<T, E> {
        assert!(self.max > 0, "a pool of no resources at all");
        assert!(
            self.min <= self.max,
            "a pool of more resources than it may have"
        );
        ResourcePool {
            shared: Arc::new(Shared {
                room: Room::new(self.max),
                make: Box::new(make),
                settings: self,
                resources: Mutex::new(Resources {
                    idle: VecDeque::new(),
                    size: 0,
                }),
            }),
        }
    }
}

impl<T> ResourcePool<T> {
    /// The settings of a pool, to be built.
    ///
    /// ```
    /// use greenroom::ResourcePool;
    /// use std::time::Duration;
    ///
    /// let pool = ResourcePool::builder()
    ///     .min(1)
    ///     .max(20)
    ///     .idle_limit(Duration::from_secs(60))
    ///     .timeout(Duration::from_secs(5))
    ///     .check(|words: &mut Vec<&str>| words.is_empty())
    ///     .build(|| Ok::<_, std::io::Error>(Vec::new()));
    /// assert_eq!(pool.size(), 0);
    /// ```
    pub fn builder() -> ResourcePoolBuilder<T> {
        ResourcePoolBuilder::default()
    }
}

impl<T, E> ResourcePool<T, E> {
    /// A pool of at most `max` resources that `make` makes, without other limits.
    ///
    /// # Panics
    ///
    /// If `max` is zero.
    #[track_caller]
    pub fn new(max: usize, make: impl Fn() -> Result<T, E> + Send + Sync + 'static) -> Self {
        ResourcePoolBuilder::default().max(max).build(make)
    }

    /// Takes an idle resource, or else makes one. Waits if all resources are in use.
    ///
    /// # Errors
    ///
    /// - [`CheckoutError::TimedOut`], if the [timeout](ResourcePoolBuilder::timeout) has passed. Where interrupts are
    ///   [delivered as errors](crate::Interrupts::Errors), also if a deadline around the call has ended a check;
    /// - [`CheckoutError::Failed`] with the error of the function that makes resources. It makes room for
    ///   the next demand, which tries again.
    ///
    /// # Panics
    ///
    /// If the function that makes or checks resources does.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The pool is left as if the call had not been made.
    pub fn get(&self) -> Result<Pooled<T, E>, CheckoutError<E>> {
        let timeout = self.shared.settings.timeout;
        self.get_until(timeout.map_or(Deadline::NEVER, Deadline::after))
    }

    /// Like [`get`](ResourcePool::get), with a timeout of its own.
    ///
    /// # Errors
    ///
    /// Those of [`get`](ResourcePool::get).
    ///
    /// # Unwinding
    ///
    /// As `get`.
    pub fn get_timeout(&self, timeout: Duration) -> Result<Pooled<T, E>, CheckoutError<E>> {
        self.get_until(Deadline::after(timeout))
    }

    /// Takes an idle resource. `None` if there is none, or if others wait for it.
    pub fn try_get(&self) -> Option<Pooled<T, E>> {
        let place = self.shared.room.try_enter()?;
        // What was counted for a resource to be made is taken back at once.
        self.take(place).ok()
    }

    fn get_until(&self, deadline: Deadline) -> Result<Pooled<T, E>, CheckoutError<E>> {
        let room = &self.shared.room;
        let place = match deadline.instant() {
            Some(at) => room.enter_until(at).ok_or(CheckoutError::TimedOut)?,
            None => room.enter(),
        };
        let make = |demand: Demand<T, E>| match with_reason(|| demand.make()) {
            (Ok(pooled), _) => Ok(pooled),
            (Err(_), Some(Interrupt::Elapsed)) if deadline.has_passed() => {
                Err(CheckoutError::TimedOut)
            }
            (Err(error), _) => Err(CheckoutError::Failed(error)),
        };
        let get = || match self.take(place) {
            Ok(pooled) => Ok(pooled),
            Err(Untaken::Make(demand)) => make(demand),
            Err(Untaken::TimedOut) => Err(CheckoutError::TimedOut),
        };
        timeout_at(deadline, get).unwrap_or(Err(CheckoutError::TimedOut))
    }

    /// Takes the first idle resource that works.
    fn take(&self, mut place: Place) -> Result<Pooled<T, E>, Untaken<T, E>> {
        loop {
            let (idle, counted) = self.shared.take_idle();
            let Some(idle) = idle else {
                return Err(Untaken::Make(Demand { counted, place }));
            };
            let mut pooled = Pooled::new(idle.resource, idle.made, Demand { counted, place });
            let Some(check) = &self.shared.settings.check else {
                return Ok(pooled);
            };
            let (works, reason) = with_reason(|| check(&mut pooled));
            if reason == Some(Interrupt::Cancelled) {
                // The check cannot return it. So the function that makes resources is told.
                Current::get().note_untold();
            }
            if works {
                return Ok(pooled);
            }
            let demand = pooled.evict();
            match reason {
                None => place = demand.place,
                Some(Interrupt::Elapsed) => return Err(Untaken::TimedOut),
                Some(_) => return Err(Untaken::Make(demand)),
            }
        }
    }

    /// Makes idle resources, until there are as many as the [minimum](ResourcePoolBuilder::min).
    ///
    /// # Errors
    ///
    /// That of the function that makes resources. Those that were made are kept.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn fill(&self) -> Result<(), E> {
        while self.size() < self.shared.settings.min {
            let place = self.shared.room.enter();
            if let Some(counted) = self.shared.count_up_to_min() {
                // Not dropped: in an unwind, that would drop the resource.
                Demand { counted, place }.make()?.give_back();
            }
        }
        Ok(())
    }

    /// Drops the idle resources that have reached a limit.
    ///
    /// For a program that keeps a pool for long without using it:
    /// `every(minute, move |_| pool.reap())`.
    pub fn reap(&self) {
        let expired = self.shared.take_expired(&mut self.shared.resources());
        drop_all(expired);
    }

    /// Drops all idle resources.
    pub fn clear(&self) {
        let idle = {
            let mut resources = self.shared.resources();
            resources.size -= resources.idle.len();
            std::mem::take(&mut resources.idle)
        };
        drop_all(idle);
    }

    /// How many resources there are: idle, in use, or being made.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shared.resources().size
    }

    /// How many resources are idle.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shared.resources().idle.len()
    }

    /// How many resources there are at most.
    #[must_use]
    pub fn max(&self) -> usize {
        self.shared.settings.max
    }
}

impl<T, E> Shared<T, E> {
    fn resources(&self) -> AsideGuard<'_, Resources<T>> {
        task::lock_aside(&self.resources)
    }

    /// Takes the resource that was used last, with its count; or counts one to be made, if none is idle. Drops
    /// those that have reached a limit.
    fn take_idle(self: &Arc<Self>) -> (Option<Idle<T>>, Counted<T, E>) {
        let (taken, expired) = {
            let mut resources = self.resources();
            let expired = self.take_expired(&mut resources);
            let taken = resources.idle.pop_back();
            if taken.is_none() {
                resources.size += 1;
            }
            (taken, expired)
        };
        let counted = Counted(Some(Arc::clone(self)));
        drop_all(expired);
        (taken, counted)
    }

    /// Counts a resource to be made, if there are fewer than the minimum.
    fn count_up_to_min(self: &Arc<Self>) -> Option<Counted<T, E>> {
        let mut resources = self.resources();
        let has_fewer = resources.size < self.settings.min;
        has_fewer.then(|| {
            resources.size += 1;
            Counted(Some(Arc::clone(self)))
        })
    }

    /// Keeps a resource that is given back. Drops it, and others, if they have reached a limit.
    fn give_back(&self, resource: T, made: Instant) {
        let idle = Idle {
            resource,
            made,
            idle_since: self.settings.idle_limit.map(|_| Instant::now()),
        };
        let expired = {
            let mut resources = self.resources();
            resources.idle.push_back(idle);
            self.take_expired(&mut resources)
        };
        drop_all(expired);
    }

    /// Takes the idle resources that have reached a limit. They do not count any more.
    fn take_expired(&self, resources: &mut Resources<T>) -> VecDeque<Idle<T>> {
        let mut expired = VecDeque::new();
        let (idle_limit, age_limit) = (self.settings.idle_limit, self.settings.age_limit);
        if idle_limit.is_none() && age_limit.is_none() {
            return expired;
        }
        let now = Instant::now();
        let reached = |since: Option<Instant>, limit: Option<Duration>| {
            since.is_some_and(|since| limit.is_some_and(|limit| now - since >= limit))
        };
        let mut index = 0;
        while let Some(idle) = resources.idle.get(index) {
            let superfluous = resources.size > self.settings.min;
            if reached(Some(idle.made), age_limit)
                || superfluous && reached(idle.idle_since, idle_limit)
            {
                expired.extend(resources.idle.remove(index));
                resources.size -= 1;
            } else {
                index += 1;
            }
        }
        expired
    }
}

/// Drops resources. Not under the lock, since a destructor may wait.
fn drop_all<T>(resources: VecDeque<Idle<T>>) {
    for idle in resources {
        // The panic of a destructor is reported, and keeps no other resource.
        drop_unwanted(idle.resource);
    }
}

/// The count of a resource that is in use or being made. Dropping this takes the count back.
struct Counted<T, E>(
    /// `None` once the resource is idle.
    Option<Arc<Shared<T, E>>>,
);

impl<T, E> Counted<T, E> {
    /// Gives the resource back to the pool, where it still counts.
    fn give_back(mut self, resource: T, made: Instant) {
        if let Some(shared) = self.0.take() {
            shared.give_back(resource, made);
        }
    }
}

impl<T, E> Drop for Counted<T, E> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.resources().size -= 1;
        }
    }
}

/// The right to have one resource. The place is given back last, when the resource does not count any more.
struct Demand<T, E> {
    counted: Counted<T, E>,
    place: Place,
}

/// Why an idle resource was not taken.
enum Untaken<T, E> {
    /// There is none, or a cancellation has ended its check.
    Make(Demand<T, E>),
    /// A deadline has ended its check.
    TimedOut,
}

impl<T, E> Demand<T, E> {
    /// Makes a resource.
    fn make(self) -> Result<Pooled<T, E>, E> {
        let shared = self.counted.0.as_ref();
        let resource = (shared.expect("nothing was given back").make)()?;
        Ok(Pooled::new(resource, Instant::now(), self))
    }
}

impl<T, E> Clone for ResourcePool<T, E> {
    fn clone(&self) -> Self {
        ResourcePool {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T, E> fmt::Debug for ResourcePool<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourcePool")
            .field("size", &self.size())
            .field("idle", &self.idle())
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ResourcePoolBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourcePoolBuilder")
            .field("min", &self.min)
            .field("max", &self.max)
            .field("idle_limit", &self.idle_limit)
            .field("age_limit", &self.age_limit)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A resource that was taken from a [`ResourcePool`]. Dropping this gives the resource back; in an unwind, it
/// drops the resource.
#[must_use = "dropping it gives the resource back"]
pub struct Pooled<T, E = io::Error> {
    /// `None` once it was taken out of this.
    held: Option<Held<T, E>>,
}

/// A resource in use. It is dropped before its count and its place are given back.
struct Held<T, E> {
    resource: T,
    made: Instant,
    demand: Demand<T, E>,
}

const TAKEN: &str = "the resource is there until it is taken";

impl<T, E> Pooled<T, E> {
    fn new(resource: T, made: Instant, demand: Demand<T, E>) -> Pooled<T, E> {
        Pooled {
            held: Some(Held {
                resource,
                made,
                demand,
            }),
        }
    }

    /// Drops the resource instead of giving it back, because it is broken. The pool makes another one when
    /// one is needed.
    pub fn discard(mut self) {
        self.held = None;
    }

    /// Takes the resource out of the pool, which may then make another one.
    #[must_use]
    pub fn into_inner(mut self) -> T {
        self.held.take().expect(TAKEN).resource
    }

    /// When the resource was made.
    #[must_use]
    pub fn made(&self) -> Instant {
        self.held.as_ref().expect(TAKEN).made
    }

    /// Gives the resource back.
    fn give_back(mut self) {
        let Held {
            resource,
            made,
            demand: Demand { counted, place },
        } = self.held.take().expect(TAKEN);
        // The resource is idle before the next demand gets the place.
        counted.give_back(resource, made);
        drop(place);
    }

    /// Drops the resource. Returns what it was held by.
    fn evict(mut self) -> Demand<T, E> {
        let held = self.held.take().expect(TAKEN);
        drop(held.resource);
        held.demand
    }
}

impl<T, E> Deref for Pooled<T, E> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held.as_ref().expect(TAKEN).resource
    }
}

impl<T, E> DerefMut for Pooled<T, E> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held.as_mut().expect(TAKEN).resource
    }
}

impl<T, E> Drop for Pooled<T, E> {
    fn drop(&mut self) {
        let held = self.held.take();
        if held.is_some() && !task::is_unwinding() {
            Pooled { held }.give_back();
        }
    }
}

impl<T: fmt::Debug, E> fmt::Debug for Pooled<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&**self).finish()
    }
}

/// Why [`ResourcePool::get`] has no resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckoutError<E> {
    /// The time was over before there was one.
    TimedOut,
    /// The function that makes resources has failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for CheckoutError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckoutError::TimedOut => f.write_str("no resource of the pool was available in time"),
            CheckoutError::Failed(error) => write!(f, "no resource could be made: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for CheckoutError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CheckoutError::TimedOut => None,
            CheckoutError::Failed(error) => Some(error),
        }
    }
}

impl From<CheckoutError<io::Error>> for io::Error {
    /// The error of the function that makes resources, or one of the kind `TimedOut`.
    fn from(error: CheckoutError<io::Error>) -> io::Error {
        match error {
            CheckoutError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
            CheckoutError::Failed(error) => error,
        }
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<ResourcePool<std::cell::Cell<u8>, std::cell::Cell<u8>>>();
};
