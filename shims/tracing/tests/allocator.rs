//! A global allocator that lets other coroutines of the thread run.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;

use greenroom::{RuntimeBuilder, on_coroutine, spawn, yield_now};
use greenroom_tracing::PerCoroutine;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

thread_local! {
    /// Whether allocations of coroutines of this thread yield.
    static YIELDS: Cell<bool> = const { Cell::new(false) };
}

struct Yielding;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Yielding {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if YIELDS.get() && on_coroutine() {
            yield_now();
        }
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if YIELDS.get() && on_coroutine() {
            yield_now();
        }
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Yielding = Yielding;

/// The spans that it believes its one thread to be in.
struct Spans(&'static Mutex<Vec<u64>>);

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("the test makes its own")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let left = self.0.lock().unwrap().pop();
        assert_eq!(left, Some(id.into_u64()));
    }
}

#[test]
fn coroutines_enter_spans_while_others_of_their_worker_allocate() {
    const COROUTINES: u64 = 5;
    const SPANS: u64 = 20;
    static ENTERED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    // It allocates nothing under this lock.
    ENTERED
        .lock()
        .unwrap()
        .reserve((COROUTINES * SPANS) as usize);
    let subscriber: &PerCoroutine<Spans> = Box::leak(Box::new(PerCoroutine::new(Spans(&ENTERED))));
    RuntimeBuilder::new().workers(1).build().unwrap().run(|| {
        let coroutines: Vec<_> = (0..COROUTINES)
            .map(|number| {
                spawn(move || {
                    let spans = number * SPANS + 1..=(number + 1) * SPANS;
                    for span in spans.clone() {
                        subscriber.enter(&Id::from_u64(span));
                        // Has the subscriber believe that it is in the spans of this coroutine.
                        subscriber.current_span();
                        let entered = ENTERED.lock().unwrap();
                        assert!(entered.iter().copied().eq(*spans.start()..=span));
                    }
                    for span in spans.rev() {
                        subscriber.exit(&Id::from_u64(span));
                    }
                })
            })
            .collect();
        YIELDS.set(true);
        for coroutine in coroutines {
            coroutine.join().unwrap();
        }
        YIELDS.set(false);
    });
    assert!(ENTERED.lock().unwrap().is_empty());
}
