//! The spans of [tracing](https://docs.rs/tracing), per coroutine instead of per OS thread.
//!
//! The subscribers of tracing keep the spans that a thread has entered in a thread-local. The coroutines of a worker
//! share it. So if one enters a span and waits, the events and spans of the next one seem to belong to that span.
//! [`PerCoroutine`] is a wrapper around any subscriber with which they do not:
//!
//! ```
//! use greenroom_tracing::PerCoroutine;
//! use tracing_subscriber::prelude::*;
//!
//! let subscriber = tracing_subscriber::registry().with(tracing_subscriber::fmt::layer());
//! PerCoroutine::new(subscriber).with_spans().init();
//!
//! greenroom::run(|| {
//!     let requests = [0, 1].map(|i| {
//!         greenroom::Builder::new().name(format!("client {i}")).spawn(move || {
//!             let _request = tracing::info_span!("request", i).entered();
//!             greenroom::yield_now();
//!             tracing::info!("half-way"); // coroutine{name="client 0" ...}:request{i=0}: half-way
//!         })
//!     });
//!     requests.into_iter().for_each(|request| request.unwrap().join().unwrap());
//! });
//! ```
//!
//! A program that `cargo greenroom` has built does not need this crate, since its thread-locals belong to the
//! coroutines. It may have it for [`with_spans`](PerCoroutine::with_spans).
//!
//! # How it works
//!
//! The wrapper keeps the spans that each coroutine has entered, and knows which ones the subscriber believes its OS
//! thread to be in. When a coroutine uses tracing and the two differ, the wrapper has the subscriber leave the spans
//! of the other coroutine and enter those of this one. So the subscriber and all its layers see what they see of
//! async tasks, which leave their spans when they wait and enter them when they go on. This includes filters and
//! layers that keep something per thread themselves.
//!
//! A switch between coroutines costs nothing. A coroutine that is the first to use tracing after a switch pays for
//! leaving and entering.
//!
//! # Limits
//!
//! - The wrapper must be the outermost subscriber.
//! - The time in which a span counts as entered (`time.busy` of `FmtSpan`) ends when another coroutine of the thread
//!   uses tracing, which may be later than the switch.
//! - `tracing::subscriber::with_default` and `set_default` set the subscriber of an OS thread. Code inside
//!   `with_default` must not wait, or other coroutines of the worker use its subscriber, too. Set the subscriber of
//!   the whole process instead: `init`, or `set_global_default`.
//! - With filters of single layers, the arguments of `info!` and the like should not wait. tracing notes per OS
//!   thread which filters have let an event through, before it evaluates the arguments.

use std::any::TypeId;
use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenroom::on_coroutine;
use tracing_core::callsite::DefaultCallsite;
use tracing_core::dispatcher::WeakDispatch;
use tracing_core::field::{Value, debug};
use tracing_core::metadata::{Kind, LevelFilter};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Dispatch, Event, Level, Metadata, Subscriber};

/// A subscriber that wraps another one, and tells it which spans the running coroutine is in. See the
/// [crate's documentation](crate).
///
/// Off-coroutine, each OS thread has its own spans, as usual.
pub struct PerCoroutine<S> {
    inner: S,
    /// Unique in the process.
    number: usize,
    with_spans: bool,
    /// This subscriber as coroutines can keep it.
    dispatch: OnceLock<WeakDispatch>,
}

/// Spans that were entered and not left, with the numbers of their subscribers. The last one is the innermost.
type Entered = RefCell<Vec<(usize, Id)>>;

greenroom::coroutine_local! {
    /// The spans that the calling coroutine or OS thread is in.
    static OWN: Entered = const { RefCell::new(Vec::new()) };

    /// What [`PerCoroutine::with_spans`] has made for this coroutine: one entry for each subscriber that it has used.
    static COROUTINE_SPANS: RefCell<Vec<CoroutineSpan>> = const { RefCell::new(Vec::new()) };
}

thread_local! {
    /// The spans that the wrapped subscribers believe this OS thread to be in.
    static TOLD: Entered = const { RefCell::new(Vec::new()) };
}

/// What the wrapped subscriber must be told next.
enum Step {
    Exit(Id),
    Enter(Id),
    /// Nothing yet. `TOLD` has no room for more than this number of spans.
    MakeRoom(usize),
}

/// Makes room in `TOLD` for more than `len` spans. Memory is allocated and freed while nothing is borrowed, since the
/// allocator may wait.
#[cold]
fn make_room(len: usize) {
    let mut larger = Vec::with_capacity((2 * len).max(8));
    let _ = TOLD.try_with(|told| {
        let mut told = told.borrow_mut();
        // Another coroutine of the thread may have been here meanwhile.
        if told.capacity() < larger.capacity() {
            larger.append(&mut told);
            mem::swap(&mut larger, &mut told);
        }
    });
}

impl<S: Subscriber> PerCoroutine<S> {
    /// Wraps `subscriber`.
    pub fn new(subscriber: S) -> PerCoroutine<S> {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        PerCoroutine {
            inner: subscriber,
            number: LAST.fetch_add(1, Ordering::Relaxed),
            with_spans: false,
            dispatch: OnceLock::new(),
        }
    }

    /// Has each coroutine that uses tracing be in a span of its own, from then until its end.
    ///
    /// The span is called `coroutine`, has the target `greenroom` and the level INFO, and no parent, as the first
    /// span of a thread has none. Its fields are `name`, if the coroutine has one, and `id`, the
    /// [number](greenroom::Thread::id) of the coroutine.
    #[must_use]
    pub fn with_spans(mut self) -> PerCoroutine<S> {
        // Now, because it would not find this subscriber while that is being called.
        CALLSITE.register();
        self.with_spans = true;
        self
    }

    /// Has the wrapped subscriber believe that the thread is in the spans of the caller.
    fn sync(&self) {
        self.begin_coroutine_span();
        // The subscriber is called while nothing is borrowed, since it may itself use tracing, or wait. So the
        // next step is found anew each time.
        while let Some(step) = self.next_step() {
            match step {
                Step::Exit(id) => self.inner.exit(&id),
                Step::Enter(id) => self.inner.enter(&id),
                Step::MakeRoom(len) => make_room(len),
            }
        }
    }

    /// Finds, and notes as done, the next step that `sync` has to take.
    fn next_step(&self) -> Option<Step> {
        let find = |own: &[(usize, Id)], told: &mut Vec<(usize, Id)>| {
            let is_mine = |entry: &&(usize, Id)| entry.0 == self.number;
            let both = own.iter().filter(is_mine).zip(told.iter().filter(is_mine));
            let common = both.take_while(|(own, told)| own == told).count();
            if told.iter().filter(is_mine).count() > common {
                let last = told.iter().rposition(|entry| is_mine(&entry))?;
                return Some(Step::Exit(told.remove(last).1));
            }
            let next = own.iter().filter(is_mine).nth(common)?;
            if told.len() == told.capacity() {
                return Some(Step::MakeRoom(told.len()));
            }
            told.push(next.clone());
            Some(Step::Enter(next.1.clone()))
        };
        // In the destructor of another local they may be gone. Then the spans of the thread stay as they are.
        let step = OWN.try_with(|own| {
            TOLD.try_with(|told| find(&own.borrow(), &mut told.borrow_mut()))
                .ok()
        });
        step.ok()??
    }

    /// Makes the span of the calling coroutine, if it is to have one and has none.
    fn begin_coroutine_span(&self) {
        if !self.with_spans || !on_coroutine() {
            return;
        }
        // Made first, and so dropped after the span.
        if OWN.try_with(|_| ()).is_err() {
            return;
        }
        let is_first = COROUTINE_SPANS.try_with(|spans| {
            let mut spans = spans.borrow_mut();
            let is_first = spans.iter().all(|span| span.number != self.number);
            if is_first {
                spans.push(CoroutineSpan {
                    number: self.number,
                    made: None,
                });
            }
            is_first
        });
        if !is_first.unwrap_or(false) || CALLSITE.interest().is_never() {
            return;
        }
        // A filter may depend on the spans that the thread is in.
        self.sync();
        if !CALLSITE.interest().is_always() && !self.inner.enabled(&METADATA) {
            return;
        }
        let id = self.make_coroutine_span();
        let _ = OWN.try_with(|own| own.borrow_mut().push((self.number, id.clone())));
        let _ = COROUTINE_SPANS.try_with(|spans| {
            let mut spans = spans.borrow_mut();
            let span = spans.iter_mut().find(|span| span.number == self.number);
            let span = span.expect("it was entered above");
            span.made = self.dispatch.get().cloned().map(|dispatch| (dispatch, id));
        });
    }

    fn make_coroutine_span(&self) -> Id {
        let thread = greenroom::current();
        let (name, id) = (thread.name(), debug(thread.id()));
        let name = name.as_ref().map(|name| name as &dyn Value);
        let fields = METADATA.fields();
        let mut keys = fields.iter();
        let mut key = || keys.next().expect("there are two fields");
        let values = [(&key(), name), (&key(), Some(&id as &dyn Value))];
        let values = fields.value_set(&values);
        self.inner
            .new_span(&Attributes::new_root(&METADATA, &values))
    }
}

static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);

static METADATA: Metadata<'static> = tracing_core::metadata! {
    name: "coroutine",
    target: "greenroom",
    level: Level::INFO,
    fields: &["name", "id"],
    callsite: &CALLSITE,
    kind: Kind::SPAN,
};

/// The span of a coroutine for one subscriber. Dropped at the coroutine's end.
struct CoroutineSpan {
    /// The number of the subscriber.
    number: usize,
    /// `None` if the subscriber is not interested in such spans.
    made: Option<(WeakDispatch, Id)>,
}

impl Drop for CoroutineSpan {
    fn drop(&mut self) {
        if let Some((dispatch, id)) = self.made.take()
            && let Some(dispatch) = dispatch.upgrade()
        {
            dispatch.exit(&id);
            dispatch.try_close(id);
        }
    }
}

impl<S: Subscriber> Subscriber for PerCoroutine<S> {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
        self.inner.on_register_dispatch(dispatch);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.inner.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.sync();
        self.inner.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.inner.max_level_hint()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.sync();
        self.inner.new_span(attributes)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.inner.record(id, values);
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        self.inner.record_follows_from(id, follows);
    }

    fn event_enabled(&self, event: &Event<'_>) -> bool {
        self.sync();
        self.inner.event_enabled(event)
    }

    fn event(&self, event: &Event<'_>) {
        self.sync();
        self.inner.event(event);
    }

    fn enter(&self, id: &Id) {
        self.sync();
        let entry = (self.number, id.clone());
        match OWN.try_with(|own| own.borrow_mut().push(entry)) {
            Ok(()) => self.sync(),
            Err(_) => self.inner.enter(id),
        }
    }

    fn exit(&self, id: &Id) {
        self.sync();
        let entry = (self.number, id.clone());
        let forget = |entered: &Entered| {
            let mut entered = entered.borrow_mut();
            if let Some(last) = entered.iter().rposition(|other| *other == entry) {
                entered.remove(last);
            }
        };
        // A span need not be the innermost one to be left.
        if OWN.try_with(forget).is_ok() {
            let _ = TOLD.try_with(forget);
        }
        self.inner.exit(id);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.inner.clone_span(id)
    }

    #[allow(deprecated, reason = "the wrapped subscriber may rely on it")]
    fn drop_span(&self, id: Id) {
        self.inner.drop_span(id);
    }

    fn try_close(&self, id: Id) -> bool {
        self.inner.try_close(id)
    }

    fn current_span(&self) -> Current {
        self.sync();
        self.inner.current_span()
    }

    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        if id == TypeId::of::<Self>() {
            return Some((&raw const *self).cast());
        }
        // SAFETY: the wrapped subscriber lives as long as this one. What it returns, it answers for.
        unsafe { self.inner.downcast_raw(id) }
    }
}

impl<S: fmt::Debug> fmt::Debug for PerCoroutine<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCoroutine")
            .field("inner", &self.inner)
            .field("with_spans", &self.with_spans)
            .finish_non_exhaustive()
    }
}
