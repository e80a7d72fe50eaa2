//! `SendQueue`: what is sent comes whole and in order, merged into few writes; a slow writer holds senders up
//! only at the limit; an error surfaces.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread::sleep;
use greenroom::sync::Event;
use greenroom::{RuntimeBuilder, SendQueue, spawn, yield_now};

use crate::util::{self, PATIENCE, everywhere, ms};

/// A writer that keeps what was written, in a list of the writes. It waits for the gate before each.
#[derive(Clone, Default)]
struct Recorder {
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
    gate: Option<Arc<Event>>,
    flushes: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
    dropped: Arc<AtomicBool>,
}

impl Recorder {
    fn behind(gate: &Arc<Event>) -> Recorder {
        Recorder {
            gate: Some(Arc::clone(gate)),
            ..Recorder::default()
        }
    }

    /// The end that writes.
    fn writer(&self) -> Writer {
        Writer(self.clone())
    }

    fn text(&self) -> String {
        String::from_utf8(self.writes.lock().unwrap().concat()).unwrap()
    }
}

struct Writer(Recorder);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(gate) = &self.0.gate {
            gate.wait();
        }
        if self.0.fails.load(SeqCst) {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "on purpose"));
        }
        assert!(!self.0.panics.load(SeqCst), "on purpose");
        self.0.writes.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flushes.fetch_add(1, SeqCst);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.dropped.store(true, SeqCst);
    }
}

#[test]
fn small_sends_are_merged_in_order() {
    util::on_workers(1, || {
        let recorder = Recorder::default();
        let queue = SendQueue::new(recorder.writer(), 1_000);
        // Few enough that the sender need not let others go on.
        for n in 0..12 {
            queue.send(format!("{n},").as_bytes()).unwrap();
        }
        assert_eq!(
            recorder.text(),
            "",
            "nothing is written before the sender waits"
        );
        queue.flush().unwrap();
        let sent: String = (0..12).map(|n| format!("{n},")).collect();
        assert_eq!(recorder.text(), sent);
        assert!(recorder.writes.lock().unwrap().len() < 5, "few writes");
        assert_eq!((recorder.flushes.load(SeqCst), queue.queued()), (1, 0));
    });
}

#[test]
fn senders_wait_at_the_limit_only() {
    everywhere(|| {
        let gate = Arc::new(Event::new());
        let recorder = Recorder::behind(&gate);
        let queue = SendQueue::new(recorder.writer(), 10);
        queue.send(b"0123456").unwrap();
        queue.try_send(b"789").unwrap();
        assert_eq!(queue.queued(), 10);
        let full = queue.try_send(b"x").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let sent = Arc::new(AtomicBool::new(false));
        let waits = {
            let (queue, sent) = (queue.clone(), Arc::clone(&sent));
            spawn(move || {
                // More than the limit: goes alone.
                queue.send(b"abcdefghijklmnop").unwrap();
                sent.store(true, SeqCst);
            })
        };
        util::settle();
        assert!(!sent.load(SeqCst));
        gate.set();
        waits.join().unwrap();
        queue.close().unwrap();
        assert_eq!(recorder.text(), "0123456789abcdefghijklmnop");
    });
}

#[test]
fn the_bytes_of_each_of_many_senders_stay_together_and_in_order() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let recorder = Recorder::default();
            let queue = SendQueue::new(recorder.writer(), 64);
            let sends = |name: char| {
                let queue = queue.clone();
                move || {
                    for n in 0..200 {
                        queue.send(format!("{name}{n}\n").as_bytes()).unwrap();
                        if n % 32 == 0 {
                            greenroom::shims::thread::yield_now();
                        }
                    }
                }
            };
            let coroutines = ['a', 'b', 'c'].map(|name| spawn(sends(name)));
            let thread = std::thread::spawn(sends('d'));
            coroutines.into_iter().for_each(|one| one.join().unwrap());
            // Not `join`, which would block the worker, and with it the coroutine that writes.
            util::until("the thread has sent", || thread.is_finished());
            queue.close().unwrap();
            let text = recorder.text();
            for name in ["a", "b", "c", "d"] {
                let of_one = text.lines().filter_map(|line| line.strip_prefix(name));
                assert!(of_one.map(|n| n.parse::<u32>().unwrap()).eq(0..200));
            }
            assert_eq!(text.lines().count(), 800);
        });
    }
}

#[test]
fn a_failure_surfaces_at_the_next_calls_and_frees_those_that_wait() {
    everywhere(|| {
        let gate = Arc::new(Event::new());
        let recorder = Recorder::behind(&gate);
        recorder.fails.store(true, SeqCst);
        let queue = SendQueue::new(recorder.writer(), 4);
        queue.send(b"full").unwrap();
        let waits = {
            let queue = queue.clone();
            spawn(move || queue.send(b"more").unwrap_err().kind())
        };
        util::settle();
        gate.set();
        assert_eq!(waits.join().unwrap(), io::ErrorKind::BrokenPipe);
        for _ in 0..2 {
            let error = queue.send(b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(error.to_string(), "on purpose");
            assert_eq!(queue.try_send(b"x").unwrap_err().kind(), error.kind());
        }
        assert_eq!(queue.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        util::until("the writer is dropped", || recorder.dropped.load(SeqCst));
        assert_eq!(recorder.text(), "");
    });
}

#[test]
fn a_flush_that_waits_gets_the_failure() {
    everywhere(|| {
        let gate = Arc::new(Event::new());
        let recorder = Recorder::behind(&gate);
        let queue = SendQueue::new(recorder.writer(), 100);
        queue.send(b"x").unwrap();
        let flushes = {
            let queue = queue.clone();
            spawn(move || queue.flush().unwrap_err().kind())
        };
        util::settle();
        recorder.fails.store(true, SeqCst);
        gate.set();
        assert_eq!(flushes.join().unwrap(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_writer_that_panics_frees_those_that_wait_for_room() {
    everywhere(|| {
        let gate = Arc::new(Event::new());
        let recorder = Recorder::behind(&gate);
        recorder.panics.store(true, SeqCst);
        let queue = SendQueue::new(recorder.writer(), 4);
        queue.send(b"full").unwrap();
        let waits = [(); 3].map(|()| {
            let queue = queue.clone();
            spawn(move || queue.send(b"more").unwrap_err())
        });
        util::settle();
        gate.set();
        for waits in waits {
            util::until("the sender is free", || waits.is_finished());
            waits.join().unwrap();
        }
        for result in [queue.send(b"x"), queue.try_send(b"x"), queue.flush()] {
            assert!(result.is_err());
        }
        util::until("the writer is dropped", || recorder.dropped.load(SeqCst));
        assert_eq!((recorder.text(), queue.queued()), (String::new(), 0));
    });
}

#[test]
fn a_queue_fails_whose_runtime_ends_before_it_writes() {
    util::on_an_os_thread(|| {
        let recorder = Recorder::default();
        let queue = SendQueue::new(recorder.writer(), 4);
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| queue.try_send(b"full")).unwrap();
        drop(runtime);
        let (tell, told) = mpsc::channel();
        let calls: [fn(&SendQueue) -> io::Result<()>; 2] =
            [SendQueue::flush, |queue| queue.send(b"more")];
        for call in calls {
            let (queue, tell) = (queue.clone(), tell.clone());
            std::thread::spawn(move || tell.send(call(&queue).is_err()).unwrap());
        }
        for _ in 0..2 {
            assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
        }
        assert!(recorder.dropped.load(SeqCst));
        assert_eq!((recorder.text(), queue.queued()), (String::new(), 0));
    });
}

#[test]
fn what_is_queued_is_written_after_the_last_handle_is_dropped() {
    everywhere(|| {
        let recorder = Recorder::default();
        let queue = SendQueue::new(recorder.writer(), 100);
        queue.send(b"the rest").unwrap();
        drop(queue);
        util::until("the writer is dropped", || recorder.dropped.load(SeqCst));
        assert_eq!(recorder.text(), "the rest");

        let unused = Recorder::default();
        drop(SendQueue::new(unused.writer(), 1));
        assert!(unused.dropped.load(SeqCst));
    });
}

#[test]
fn a_slow_peer_holds_senders_up_and_nothing_else() {
    util::on_workers(1, || {
        const BYTES: usize = 8 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let queue = SendQueue::new(stream, 256 * 1024);
        let data = util::noise(BYTES, 5);
        let ticks = Arc::new(AtomicUsize::new(0));
        let sends = spawn({
            let (data, queue) = (data.clone(), queue.clone());
            move || {
                data.chunks(1_000)
                    .for_each(|chunk| queue.send(chunk).unwrap());
                queue.close().unwrap();
            }
        });
        spawn({
            let ticks = Arc::clone(&ticks);
            move || {
                loop {
                    sleep(ms(1));
                    ticks.fetch_add(1, SeqCst);
                }
            }
        });
        // The peer reads nothing: the sender waits, and others run.
        util::until("others run", || ticks.load(SeqCst) > 10);
        assert!(!sends.is_finished());
        drop(queue);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        util::assert_same_bytes(&received, &data);
        sends.join().unwrap();
        yield_now();
    });
}
