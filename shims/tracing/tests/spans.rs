//! Every event and span belongs to the spans of its own coroutine.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use greenroom::{RuntimeBuilder, shims::thread::sleep};
use greenroom_tracing::PerCoroutine;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{
    Dispatch, Event, Metadata, Span, Subscriber, debug_span, info, info_span, trace, trace_span,
};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How many coroutines trace at the same time.
const MANY: usize = 100;

/// Fields as text: the values of `i`, and the message.
#[derive(Clone, Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "i" | "message" => write!(self.0, "{value:?}").unwrap(),
            _ => {}
        }
    }
}

/// Whether this file traces it. mio may have events, too.
fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target() == module_path!() || metadata.is_span()
}

/// Each event with the spans that it is in: "request 1:step 2: message".
#[derive(Clone, Default)]
struct Recorder {
    lines: Arc<Mutex<Vec<String>>>,
    /// Spans that were made and not closed.
    open: Arc<AtomicUsize>,
    /// The spans that each OS thread is in, as a layer sees it.
    threads: Arc<Mutex<HashMap<ThreadId, Vec<Id>>>>,
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut text = Text(format!("{} ", attributes.metadata().name()));
        attributes.record(&mut text);
        ctx.span(id).unwrap().extensions_mut().insert(text);
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    fn on_close(&self, _id: Id, _ctx: Context<'_, S>) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn on_enter(&self, id: &Id, _ctx: Context<'_, S>) {
        let mut threads = self.threads.lock().unwrap();
        let spans = threads.entry(std::thread::current().id()).or_default();
        spans.push(id.clone());
    }

    fn on_exit(&self, id: &Id, _ctx: Context<'_, S>) {
        let mut threads = self.threads.lock().unwrap();
        let spans = threads.entry(std::thread::current().id()).or_default();
        assert_eq!(spans.pop().as_ref(), Some(id), "spans are left in order");
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        if !is_own(event.metadata()) {
            return;
        }
        let mut line = String::new();
        let mut ids = Vec::new();
        for span in ctx
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            line += span
                .extensions()
                .get::<Text>()
                .map_or("?", |text| text.0.trim_end());
            line += ":";
            ids.push(span.id());
        }
        let mut text = Text(line + " ");
        event.record(&mut text);
        self.lines.lock().unwrap().push(text.0);
        if event.is_contextual() {
            let threads = self.threads.lock().unwrap();
            let entered = threads.get(&std::thread::current().id());
            assert!(entered.is_none_or(|entered| *entered == ids), "per layer");
        }
    }
}

/// Lets others run: those of this worker, and those of others.
fn pause(n: usize) {
    match n % 3 {
        0 => greenroom::yield_now(),
        1 => sleep(Duration::from_millis(1)),
        _ => drop(greenroom::park_timeout(Duration::from_micros(200))),
    }
}

/// Traces with nested spans and waits in between. Returns the lines that are to be recorded.
fn trace_request(i: usize) -> Vec<String> {
    let mut expected = Vec::new();
    let mut event = |path: &str| {
        info!("{path}");
        expected.push(format!("{path} {path}"));
    };
    let outside = Span::current().id();
    let request = info_span!("request", i).entered();
    pause(i);
    event(&format!("request {i}:"));
    for j in 0..3 {
        let step = debug_span!("step", i = j);
        pause(i + j);
        step.in_scope(|| {
            pause(j);
            event(&format!("request {i}:step {j}:"));
            assert_eq!(Span::current().id(), step.id());
            let inner = info_span!("inner");
            pause(i + j);
            let _inner = inner.enter();
            pause(j);
            event(&format!("request {i}:step {j}:inner:"));
        });
        pause(i);
        assert_eq!(Span::current().id(), request.id());
    }
    event(&format!("request {i}:"));
    drop(request);
    pause(i);
    assert_eq!(Span::current().id(), outside);
    expected
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Runs `MANY` coroutines that trace, on a runtime with `workers` workers, and OS threads beside them. Returns the
/// lines that are to be recorded.
fn trace_requests(workers: usize, threads: usize) -> Vec<String> {
    let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
    runtime.run(|| {
        let threads = (MANY..MANY + threads).map(|i| std::thread::spawn(move || trace_request(i)));
        let threads: Vec<_> = threads.collect();
        let requests = (0..MANY).map(|i| greenroom::spawn(move || trace_request(i)));
        let requests: Vec<_> = requests.collect();
        let requests = requests
            .into_iter()
            .flat_map(|request| request.join().unwrap());
        let threads = threads
            .into_iter()
            .flat_map(|thread| greenroom::join_thread(thread).unwrap());
        requests.chain(threads).collect()
    })
}

/// Calls `f` with a subscriber for the calling thread alone.
fn with_subscriber<T>(subscriber: impl Into<Dispatch>, f: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(&subscriber.into(), f)
}

#[test]
fn each_event_is_in_the_spans_of_its_own_coroutine_or_thread() {
    // The only test that sets the subscriber of the process.
    let recorder = Recorder::default();
    PerCoroutine::new(Registry::default().with(recorder.clone())).init();
    for workers in [1, 4] {
        let expected = trace_requests(workers, 4);
        assert_eq!(expected.len(), (MANY + 4) * 8);
        assert_eq!(
            sorted(recorder.take()),
            sorted(expected),
            "{workers} workers"
        );
        assert_eq!(recorder.open.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn without_the_wrapper_spans_are_those_of_other_coroutines() {
    // The wrapper is needed, and these tests can fail.
    let lines = Arc::new(Mutex::new(String::new()));
    let layer = written_to(&lines);
    with_subscriber(Registry::default().with(layer), || {
        greenroom::run(|| {
            let requests = [0, 1].map(|i| {
                greenroom::spawn_local(move || {
                    let _request = info_span!("request", i).entered();
                    sleep(Duration::from_millis(5));
                    info!("half-way");
                })
            });
            requests
                .into_iter()
                .for_each(|request| request.join().unwrap());
        });
    });
    let lines = lines.lock().unwrap();
    assert!(lines.contains("request{i=0}:request{i=1}"), "{lines}");
}

/// A layer that writes this file's events to `lines`.
fn written_to<S>(lines: &Arc<Mutex<String>>) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let output = Output(Arc::clone(lines));
    let layer = tracing_subscriber::fmt::layer().with_ansi(false);
    let layer = layer.with_writer(move || output.clone());
    layer.with_filter(tracing_subscriber::filter::filter_fn(is_own))
}

/// What a layer writes.
#[derive(Clone)]
struct Output(Arc<Mutex<String>>);

impl io::Write for Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap()
            .push_str(std::str::from_utf8(text).unwrap());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_coroutine_has_a_span_with_its_name_and_number() {
    let lines = Arc::new(Mutex::new(String::new()));
    let recorder = Recorder::default();
    let layer = written_to(&lines);
    let subscriber = Registry::default().with(layer).with(recorder.clone());
    let mut expected = Vec::new();
    with_subscriber(PerCoroutine::new(subscriber).with_spans(), || {
        info!("no coroutine");
        expected.push("INFO spans: no coroutine".to_owned());
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let own = greenroom::current().id();
            expected.push(format!(
                "coroutine{{name=\"main\" id={own:?}}}: spans: main"
            ));
            info!("main");
            let silent = greenroom::spawn(|| sleep(Duration::from_millis(1)));
            let clients = [0, 1, 2].map(|i| {
                let builder = greenroom::Builder::new();
                // The last one has no name.
                let builder = if i < 2 {
                    builder.name(format!("client {i}"))
                } else {
                    builder
                };
                let client = builder.spawn(move || {
                    let _request = info_span!("request", i).entered();
                    greenroom::yield_now();
                    info!("half-way");
                    greenroom::yield_now();
                });
                client.unwrap()
            });
            for (i, client) in clients.into_iter().enumerate() {
                let id = client.thread().id();
                let name = if i < 2 {
                    format!("name=\"client {i}\" ")
                } else {
                    String::new()
                };
                let line =
                    format!("coroutine{{{name}id={id:?}}}:request{{i={i}}}: spans: half-way");
                expected.push(line);
                client.join().unwrap();
            }
            silent.join().unwrap();
            // Those of the clients are closed. This one, and no other, is left.
            assert_eq!(recorder.open.load(Ordering::SeqCst), 1);
        });
        assert_eq!(recorder.open.load(Ordering::SeqCst), 0);
        info!("no coroutine");
        expected.push("INFO spans: no coroutine".to_owned());
    });
    let lines = lines.lock().unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.ends_with(expected), "{line:?} ends with {expected:?}");
    }
}

#[test]
fn a_coroutine_that_is_cancelled_leaves_its_spans() {
    let recorder = Recorder::default();
    let subscriber = Registry::default().with(recorder.clone());
    with_subscriber(PerCoroutine::new(subscriber).with_spans(), || {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let mut waiting = greenroom::spawn(|| {
                let _outer = info_span!("outer").entered();
                let _inner = info_span!("inner").entered();
                info!("waits");
                sleep(Duration::MAX);
            });
            greenroom::yield_now();
            info!("before");
            assert!(waiting.cancel_wait(Duration::MAX));
            info!("after");
            // Those that are left wait when the runtime ends.
            greenroom::spawn(|| {
                let _outer = info_span!("last").entered();
                sleep(Duration::MAX);
            });
            greenroom::yield_now();
        });
        info!("outside");
    });
    let expected = [
        "coroutine:outer:inner: waits",
        "coroutine: before",
        "coroutine: after",
        " outside",
    ];
    assert_eq!(recorder.take(), expected);
    assert_eq!(recorder.open.load(Ordering::SeqCst), 0);
}

#[test]
fn filters_go_by_the_spans_of_the_coroutine() {
    let whole = Recorder::default();
    let filter = EnvFilter::new("info,[request{i=3}]=trace");
    let filtered = PerCoroutine::new(Registry::default().with(filter).with(whole.clone()));
    let single = Recorder::default();
    let inner_spans = tracing_subscriber::filter::filter_fn(|metadata| metadata.name() != "inner");
    let by_layer =
        PerCoroutine::new(Registry::default().with(single.clone().with_filter(inner_spans)));
    let trace_all = || {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let requests = [1, 2, 3, 4].map(|i| {
                greenroom::spawn(move || {
                    let _request = info_span!("request", i).entered();
                    pause(0);
                    trace!("detail");
                    let _inner = trace_span!("inner").entered();
                    pause(1);
                    info!("summary");
                })
            });
            requests
                .into_iter()
                .for_each(|request| request.join().unwrap());
        });
    };
    with_subscriber(filtered, trace_all);
    let expected = [
        "request 1: summary",
        "request 2: summary",
        "request 3: detail",
        "request 3:inner: summary",
        "request 4: summary",
    ];
    assert_eq!(sorted(whole.take()), expected);
    with_subscriber(by_layer, trace_all);
    let both = |i| ["detail", "summary"].map(|what| format!("request {i}: {what}"));
    assert_eq!(sorted(single.take()), [1, 2, 3, 4].map(both).concat());
}

#[test]
fn spans_that_are_left_in_another_order_leave_the_right_ones() {
    let lines = Arc::new(Mutex::new(String::new()));
    let layer = written_to(&lines);
    with_subscriber(PerCoroutine::new(Registry::default().with(layer)), || {
        greenroom::run(|| {
            greenroom::spawn_local(|| {
                let _other = info_span!("other").entered();
                sleep(Duration::from_millis(5));
            });
            let first = info_span!("first").entered();
            let second = info_span!("second").entered();
            greenroom::yield_now();
            drop(first);
            greenroom::yield_now();
            info!("second");
            drop(second);
            info!("none");
        });
    });
    let lines = lines.lock().unwrap();
    let ends: Vec<_> = lines
        .lines()
        .map(|line| line.split_once("INFO ").unwrap().1)
        .collect();
    assert_eq!(ends, ["first:second: spans: second", "spans: none"]);
}

#[test]
fn what_is_wrapped_can_be_found() {
    let dispatch = Dispatch::new(PerCoroutine::new(Registry::default()));
    assert!(dispatch.downcast_ref::<Registry>().is_some());
    assert!(dispatch.is::<PerCoroutine<Registry>>());
    assert!(!dispatch.is::<EnvFilter>());
}
