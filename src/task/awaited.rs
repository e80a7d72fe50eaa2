//! What a task waits for, as a dump tells it.
//!
//! A wait passes an [`Awaiting`], and nothing is described before a dump asks. So a wait pays for two or three
//! words in its frame.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;

/// What a task is about to wait for.
#[derive(Clone, Copy)]
pub(crate) enum Awaiting<'a> {
    /// Something that is known by its address. Of null, nothing else is known.
    ///
    /// For the waits of which each instruction counts: this takes fewer than a `Described`.
    Object(Reason, *const ()),
    Described(&'a dyn Awaited),
}

impl<'a> Awaiting<'a> {
    /// Waits for `object`, which is known by its address.
    #[inline(always)]
    pub(crate) fn object<T: ?Sized>(reason: Reason, object: &'a T) -> Awaiting<'a> {
        Awaiting::Object(reason, std::ptr::from_ref(object).cast())
    }

    /// Waits for something of which nothing is known but the reason.
    #[inline(always)]
    pub(crate) fn only(reason: Reason) -> Awaiting<'static> {
        Awaiting::Object(reason, std::ptr::null())
    }

    pub(crate) fn describe(&self) -> Awaits {
        match self {
            Awaiting::Object(reason, address) => Awaits {
                address: address.addr(),
                ..Awaits::new(*reason)
            },
            Awaiting::Described(awaited) => awaited.describe(),
        }
    }
}

/// Something that a task can wait for, and that has more to tell than its address.
pub(crate) trait Awaited {
    /// Describes it. Called on the thread of the waiting task, while the task is suspended. Must neither wait
    /// nor run code of the user's.
    fn describe(&self) -> Awaits;
}

/// Why a task waits: the kind of what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It does not wait: it lets others run first.
    Yield,
    Park,
    Sleep,
    Read,
    Write,
    Descriptors,
    Child,
    Mutex,
    RwLock,
    Condvar,
    Once,
    Futex,
    Semaphore,
    Barrier,
    Event,
    WaitGroup,
    Queue,
    Receive,
    Send,
    Join,
    Members,
    Idle,
    Select,
    Job,
    Future,
    Tick,
    Timers,
    Dump,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub(crate) const ALL: [Reason; 28] = [
        Reason::Yield,
        Reason::Park,
        Reason::Sleep,
        Reason::Read,
        Reason::Write,
        Reason::Descriptors,
        Reason::Child,
        Reason::Mutex,
        Reason::RwLock,
        Reason::Condvar,
        Reason::Once,
        Reason::Futex,
        Reason::Semaphore,
        Reason::Barrier,
        Reason::Event,
        Reason::WaitGroup,
        Reason::Queue,
        Reason::Receive,
        Reason::Send,
        Reason::Join,
        Reason::Members,
        Reason::Idle,
        Reason::Select,
        Reason::Job,
        Reason::Future,
        Reason::Tick,
        Reason::Timers,
        Reason::Dump,
    ];

    /// The name of the reason: one word.
    pub(crate) fn name(self) -> &'static str {
        self.names().0
    }

    /// What a task with this reason does, as the end of a sentence.
    pub(crate) fn text(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Reason::Yield => ("yield", "lets others run first"),
            Reason::Park => ("park", "waits to be unparked"),
            Reason::Sleep => ("sleep", "sleeps"),
            Reason::Read => ("read", "reads"),
            Reason::Write => ("write", "writes"),
            Reason::Descriptors => ("descriptors", "waits for descriptors"),
            Reason::Child => ("child", "waits for a child process"),
            Reason::Mutex => ("mutex", "waits for a mutex"),
            Reason::RwLock => ("rwlock", "waits for a reader-writer lock"),
            Reason::Condvar => ("condvar", "waits for a condition variable"),
            Reason::Once => ("once", "waits for an initialiser"),
            Reason::Futex => ("futex", "waits for a futex"),
            Reason::Semaphore => ("semaphore", "waits for a semaphore"),
            Reason::Barrier => ("barrier", "waits at a barrier"),
            Reason::Event => ("event", "waits for an event"),
            Reason::WaitGroup => ("wait_group", "waits for a wait group"),
            Reason::Queue => ("queue", "waits for the items of a queue"),
            Reason::Receive => ("receive", "receives from a channel"),
            Reason::Send => ("send", "sends to a channel"),
            Reason::Join => ("join", "joins"),
            Reason::Members => ("members", "waits for the coroutines of a scope or group"),
            Reason::Idle => ("idle", "waits until all other coroutines have finished"),
            Reason::Select => ("select", "waits for the first of several things"),
            Reason::Job => ("job", "waits for a job of a thread pool"),
            Reason::Future => ("future", "awaits a future"),
            Reason::Tick => ("tick", "waits for its next tick"),
            Reason::Timers => ("timers", "keeps the timers"),
            Reason::Dump => ("dump", "makes this dump"),
        }
    }
}

/// The description of one wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Awaits {
    pub(crate) reason: Reason,
    /// The address of what is waited for, which tells two of a kind from each other. Zero for none.
    pub(crate) address: usize,
    /// The number of the [`Holder`](super::Holder) of a lock.
    pub(crate) holder: Option<u32>,
    pub(crate) descriptors: Vec<AwaitedDescriptor>,
    /// The ids of the joined tasks.
    pub(crate) tasks: Vec<u64>,
    /// What else is known.
    pub(crate) detail: Option<String>,
    /// The arms of a select.
    pub(crate) arms: Vec<Awaits>,
}

/// A descriptor that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwaitedDescriptor {
    pub(crate) number: RawFd,
    pub(crate) interest: &'static str,
    /// What the descriptor is: the addresses of a socket, for instance.
    pub(crate) object: Option<String>,
}

impl Awaits {
    pub(crate) fn new(reason: Reason) -> Awaits {
        Awaits {
            reason,
            address: 0,
            holder: None,
            descriptors: Vec::new(),
            tasks: Vec::new(),
            detail: None,
            arms: Vec::new(),
        }
    }

    /// Waits for `object`, which is known by its address.
    pub(crate) fn of<T: ?Sized>(reason: Reason, object: &T) -> Awaits {
        Awaits {
            address: std::ptr::from_ref(object).addr(),
            ..Awaits::new(reason)
        }
    }
}
