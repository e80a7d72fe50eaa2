//! Async code beside coroutines: tokio and reqwest, unchanged, on a runtime of tokio's own threads.

mod util;

use std::future::{Future, IntoFuture, pending, poll_fn};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use greenroom::shims::thread::sleep;
use greenroom::{block_on, join_all, spawn, timeout};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, LocalSet, spawn_local};
use tokio_util::context::TokioContext;
use tokio_util::task::AbortOnDropHandle;

use util::on_workers;

/// How many coroutines do the same at the same time.
const CROWD: usize = 50;

/// Longer than any step takes.
const LONG: Duration = Duration::from_secs(60);

fn tokio() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

/// Runs `test` on so many workers, beside a runtime of tokio.
fn beside_tokio(workers: usize, test: impl FnOnce(&Handle)) {
    let runtime = tokio();
    on_workers(workers, || test(runtime.handle()));
}

/// Returns when so many have arrived, as all of them count.
async fn arrive(arrived: Arc<AtomicUsize>, all: usize) {
    arrived.fetch_add(1, Ordering::SeqCst);
    while arrived.load(Ordering::SeqCst) < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Sets a flag when it is dropped.
struct Tells(Arc<AtomicBool>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = timeout(LONG, || {
        while !done() {
            sleep(Duration::from_millis(1));
        }
    });
    assert!(waited.is_ok(), "waited in vain until {what}");
}

/// An HTTP server that answers with the path of the request, once `CROWD` requests have come.
async fn serve(listener: TcpListener) {
    let arrived = Arc::new(AtomicUsize::new(0));
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let arrived = Arc::clone(&arrived);
        tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            arrive(arrived, CROWD).await;
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            let length = path.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{path}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

fn start_server(handle: &Handle) -> SocketAddr {
    let bound = TokioContext::new(TcpListener::bind("127.0.0.1:0"), handle.clone());
    let listener = block_on(bound).unwrap();
    let address = listener.local_addr().unwrap();
    handle.spawn(serve(listener));
    address
}

/// The server answers no request before all have come, so they all wait at the same time, on one OS thread.
#[test]
fn many_coroutines_of_one_worker_call_reqwest_at_the_same_time() {
    beside_tokio(1, |handle| {
        let address = start_server(handle);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let requests: Vec<_> = (0..CROWD)
            .map(|number| {
                let (client, handle) = (client.clone(), handle.clone());
                spawn(move || {
                    let url = format!("http://{address}/{number}");
                    let fetch = async { client.get(url).send().await?.text().await };
                    let text = block_on(TokioContext::new(fetch, handle));
                    assert_eq!(text.unwrap(), format!("/{number}"));
                })
            })
            .collect();
        join_all(requests).into_iter().for_each(Result::unwrap);
    });
}

/// A poll enters the runtime and leaves it again, so that the coroutines of a worker do not find the runtimes of
/// each other.
#[test]
fn coroutines_of_one_worker_enter_different_runtimes() {
    let runtimes = [tokio(), tokio()];
    on_workers(1, || {
        let waits: Vec<_> = (0..CROWD)
            .map(|number| {
                let handle = runtimes[number % 2].handle().clone();
                spawn(move || {
                    let millis = Duration::from_millis(number as u64 % 5);
                    let id = handle.id();
                    let future = async move {
                        for _ in 0..3 {
                            assert_eq!(Handle::current().id(), id);
                            tokio::time::sleep(millis).await;
                        }
                    };
                    block_on(TokioContext::new(future, handle));
                    assert!(Handle::try_current().is_err(), "it is left between polls");
                })
            })
            .collect();
        join_all(waits).into_iter().for_each(Result::unwrap);
    });
}

/// As `TokioContext` does it, for those that do not have the crate.
#[test]
fn a_handle_can_be_entered_by_hand() {
    beside_tokio(1, |handle| {
        let mut future = pin!(async { tokio::time::sleep(Duration::from_millis(1)).await });
        block_on(poll_fn(|context| {
            let _entered = handle.enter();
            future.as_mut().poll(context)
        }));
    });
}

#[test]
fn channels_of_tokio_join_coroutines_and_tasks() {
    beside_tokio(2, |handle| {
        let (sender, mut receiver) = mpsc::channel::<(usize, oneshot::Sender<usize>)>(2);
        handle.spawn(async move {
            while let Some((number, answer)) = receiver.recv().await {
                answer.send(number * number).unwrap();
            }
        });
        let callers: Vec<_> = (0..CROWD)
            .map(|number| {
                let sender = sender.clone();
                spawn(move || {
                    let (answer, answered) = oneshot::channel();
                    block_on(sender.send((number, answer))).unwrap();
                    assert_eq!(block_on(answered).unwrap(), number * number);
                })
            })
            .collect();
        join_all(callers).into_iter().for_each(Result::unwrap);
    });
}

#[test]
fn a_task_of_tokio_is_joined_by_a_coroutine() {
    beside_tokio(1, |handle| {
        assert_eq!(block_on(handle.spawn(async { 7 })).unwrap(), 7);
        let panicked: Result<(), JoinError> = block_on(handle.spawn(async {
            std::panic::resume_unwind(Box::new("its panic"));
        }));
        assert!(panicked.unwrap_err().is_panic());
    });
}

/// Requests of tokio's tasks are handled by coroutines, which block as they like.
#[test]
fn tasks_of_tokio_await_coroutines() {
    fn thread_of_coroutine() -> ThreadId {
        sleep(Duration::from_millis(1));
        std::thread::current().id()
    }
    let runtime = tokio();
    let tasks: Vec<_> = (0..CROWD)
        .map(|number| {
            runtime.spawn(async move {
                let here = std::thread::current().id();
                let coroutine = spawn(move || (thread_of_coroutine(), number));
                let (there, answer) = coroutine.await.unwrap();
                assert_ne!(here, there, "it ran on a worker");
                assert_eq!(answer, number);
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_coroutine_that_is_cancelled_cancels_the_operation_of_tokio() {
    beside_tokio(1, |handle| {
        let bound = TokioContext::new(TcpListener::bind("127.0.0.1:0"), handle.clone());
        let listener = block_on(bound).unwrap();
        let address = listener.local_addr().unwrap();
        let client = spawn({
            let handle = handle.clone();
            move || {
                let read = async {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.read_u8().await
                };
                block_on(TokioContext::new(read, handle)).unwrap();
            }
        });
        let accepted = TokioContext::new(listener.accept(), handle.clone());
        let (mut stream, _) = block_on(accepted).unwrap();
        client.cancel();
        let ended = block_on(TokioContext::new(stream.read_u8(), handle.clone()));
        let kind = ended.unwrap_err().kind();
        assert_eq!(
            kind,
            std::io::ErrorKind::UnexpectedEof,
            "the socket is closed"
        );
        assert!(client.join().unwrap_err().is::<greenroom::Cancelled>());
    });
}

#[test]
fn a_coroutine_that_is_cancelled_aborts_the_task_that_it_waits_for() {
    beside_tokio(1, |handle| {
        let dropped = Arc::new(AtomicBool::new(false));
        let tells = Tells(Arc::clone(&dropped));
        let task = handle.spawn(async move {
            let _tells = tells;
            pending::<()>().await;
        });
        let task = AbortOnDropHandle::new(task);
        let waiter = spawn(move || block_on(task).unwrap());
        sleep(Duration::from_millis(1)); // mostly it waits by now
        assert!(!dropped.load(Ordering::SeqCst));
        waiter.cancel();
        assert!(waiter.join().unwrap_err().is::<greenroom::Cancelled>());
        until("the task was aborted", || dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn a_task_that_is_aborted_ends_the_wait_of_the_coroutine() {
    beside_tokio(1, |handle| {
        let task = handle.spawn(pending::<()>());
        let abort = task.abort_handle();
        let waiter = spawn(move || block_on(task));
        sleep(Duration::from_millis(1));
        abort.abort();
        assert!(waiter.join().unwrap().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_task_that_is_aborted_cancels_the_coroutine_that_it_awaits() {
    beside_tokio(1, |handle| {
        let dropped = Arc::new(AtomicBool::new(false));
        let tells = Tells(Arc::clone(&dropped));
        let (tell, told) = oneshot::channel();
        let task = handle.spawn(async move {
            let coroutine = spawn(move || {
                let _tells = tells;
                tell.send(()).unwrap();
                sleep(LONG);
            });
            coroutine.cancel_on_drop().await
        });
        block_on(told).unwrap();
        task.abort();
        assert!(block_on(task).unwrap_err().is_cancelled());
        until("it was cancelled", || dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn a_coroutine_that_is_cancelled_fails_the_task_that_awaits_it() {
    beside_tokio(1, |handle| {
        let coroutine = spawn(|| sleep(LONG));
        let canceller = coroutine.canceller();
        let task = handle.spawn(coroutine.into_future());
        canceller.cancel();
        let result = block_on(task).unwrap();
        assert!(result.unwrap_err().is::<greenroom::Cancelled>());
    });
}

#[test]
fn a_timeout_of_either_side_ends_the_wait_for_the_other() {
    beside_tokio(1, |handle| {
        let soon = Duration::from_millis(5);
        let asleep = TokioContext::new(async { tokio::time::sleep(LONG).await }, handle.clone());
        assert!(timeout(soon, || block_on(asleep)).is_err());

        let coroutine = spawn(|| sleep(LONG)).cancel_on_drop();
        let canceller = coroutine.canceller();
        let limited = async { tokio::time::timeout(soon, coroutine.into_future()).await };
        assert!(block_on(TokioContext::new(limited, handle.clone())).is_err());
        until("it was cancelled", || canceller.is_finished());
    });
}

/// Gives a runtime of greenroom its turns, on the thread of tokio's runtime.
async fn drive(runtime: Rc<greenroom::Runtime>) {
    // SAFETY: the descriptor is borrowed from the runtime, which outlives this value, and stays the same.
    let polled =
        unsafe { AsyncFd::register_with_interest(runtime.as_fd(), Interest::READABLE) }.unwrap();
    loop {
        // Before the turn: an event of the turn's time is then not lost.
        polled.readable().await.unwrap().clear_ready();
        if runtime.turn(Some(Duration::ZERO)) == greenroom::Turn::Done {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Runs `test` on one thread with a runtime of tokio and one of greenroom, in which `test` spawns coroutines.
fn on_one_thread<F: Future<Output = ()>>(test: impl FnOnce(Rc<greenroom::Runtime>) -> F) {
    let tokio = Builder::new_current_thread().enable_all().build().unwrap();
    let workers = greenroom::RuntimeBuilder::new().workers(1);
    let runtime = Rc::new(workers.build().unwrap());
    LocalSet::new().block_on(&tokio, async {
        tokio::time::timeout(LONG, test(runtime)).await.unwrap();
    });
}

/// Both share one OS thread: the coroutines await tasks, and the tasks await coroutines.
#[test]
fn coroutines_are_driven_by_a_task_of_tokio_on_its_own_thread() {
    on_one_thread(|runtime| async move {
        let thread = std::thread::current().id();
        let handle = Handle::current();
        let coroutines: Vec<_> = (0..CROWD)
            .map(|number| {
                let handle = handle.clone();
                runtime.spawn(move || {
                    assert_eq!(std::thread::current().id(), thread);
                    sleep(Duration::from_millis(number as u64 % 5));
                    let task = handle.spawn(async move {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        number * 2
                    });
                    block_on(task).unwrap()
                })
            })
            .collect();
        let driver = spawn_local(drive(runtime));
        for (number, coroutine) in coroutines.into_iter().enumerate() {
            assert_eq!(coroutine.await.unwrap(), number * 2);
        }
        driver.await.unwrap();
    });
}

#[test]
fn on_one_thread_either_side_cancels_the_other() {
    on_one_thread(|runtime| async move {
        // A task that gives up cancels the coroutine that it awaits.
        let dropped = Arc::new(AtomicBool::new(false));
        let tells = Tells(Arc::clone(&dropped));
        let coroutine = runtime.spawn(move || {
            let _tells = tells;
            sleep(LONG);
        });
        let awaits = coroutine.cancel_on_drop().into_future();
        let driver = spawn_local(drive(Rc::clone(&runtime)));
        let limited = tokio::time::timeout(Duration::from_millis(5), awaits);
        assert!(limited.await.is_err());
        driver.await.unwrap();
        assert!(dropped.load(Ordering::SeqCst), "it has unwound");

        // A coroutine that is cancelled aborts the task that it waits for, and fails the task that awaits it.
        let dropped = Arc::new(AtomicBool::new(false));
        let tells = Tells(Arc::clone(&dropped));
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let _tells = tells;
            pending::<()>().await;
        }));
        let coroutine = runtime.spawn(move || block_on(task).unwrap());
        let canceller = coroutine.canceller();
        let driver = spawn_local(drive(Rc::clone(&runtime)));
        tokio::time::sleep(Duration::from_millis(5)).await;
        canceller.cancel();
        let ended = coroutine.await;
        assert!(ended.unwrap_err().is::<greenroom::Cancelled>());
        driver.await.unwrap();
        while !dropped.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }

        // Dropping the runtime unwinds what the task that drives it has left.
        let dropped = Arc::new(AtomicBool::new(false));
        let tells = Tells(Arc::clone(&dropped));
        runtime.spawn(move || {
            let _tells = tells;
            sleep(LONG);
        });
        let driven = drive(Rc::clone(&runtime));
        let limited = tokio::time::timeout(Duration::from_millis(5), driven);
        assert!(limited.await.is_err());
        assert!(!dropped.load(Ordering::SeqCst));
        drop(runtime);
        assert!(dropped.load(Ordering::SeqCst));
    });
}
