//! Code that would give another thread access to something that is not `Send` or `Sync`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Mutex;

fn captured_by_a_spawn() {
    let shared = Rc::new(1);
    greenroom::spawn(move || println!("{shared}")); //~ E0277 Rc<
}

fn captured_by_a_named_spawn() {
    let shared = Rc::new(1);
    let _ = greenroom::Builder::new().spawn(move || println!("{shared}")); //~ E0277 Rc<
}

fn captured_by_a_spawn_from_outside(runtime: &greenroom::Runtime) {
    let shared = Rc::new(1);
    runtime.spawn(move || println!("{shared}")); //~ E0277 Rc<
}

fn returned_to_the_joiner() {
    greenroom::spawn(|| Rc::new(1)); //~ E0277 Rc<
}

fn shared_with_a_scoped_child() {
    let shared = Rc::new(1);
    greenroom::scope(|s| {
        s.spawn(|| println!("{shared}")); //~ E0277 Rc<
    });
}

fn moved_into_a_scoped_child() {
    let shared = Rc::new(1);
    greenroom::scope(|s| {
        s.spawn(move || println!("{shared}")); //~ E0277 Rc<
    });
}

fn moved_into_a_named_scoped_child() {
    let shared = Rc::new(1);
    greenroom::scope(|s| {
        let _ = greenroom::Builder::new().spawn_scoped(s, move || println!("{shared}")); //~ E0277 Rc<
    });
}

fn returned_by_a_scoped_child() {
    greenroom::scope(|s| {
        s.spawn(|| Rc::new(1)); //~ E0277 Rc<
    });
}

fn a_cell_shared_with_a_scoped_child() {
    let count = Cell::new(0);
    greenroom::scope(|s| {
        s.spawn(|| count.set(1)); //~ E0277 Cell<
    });
}

fn a_borrow_of_a_ref_cell_in_another_coroutine(notes: &'static RefCell<Vec<u8>>) {
    let borrowed = notes.borrow_mut();
    greenroom::spawn(move || println!("{}", borrowed.len())); //~ E0277 Cell<
}

fn a_guard_unlocked_by_another_coroutine(mutex: &'static Mutex<u8>) {
    let guard = mutex.lock().unwrap();
    greenroom::spawn(move || drop(guard)); //~ E0277 MutexGuard<
}

fn captured_by_a_call_of_the_pool() {
    let shared = Rc::new(1);
    greenroom::unblock(move || println!("{shared}")); //~ E0277 Rc<
}

fn returned_from_the_pool() {
    greenroom::unblock(|| Rc::new(1)); //~ E0277 Rc<
}

fn a_local_handle_joined_by_another_coroutine() {
    let local = greenroom::spawn_local(|| 1);
    greenroom::spawn(move || local.join().unwrap()); //~ E0277 LocalJoinHandle<
}

fn a_local_handle_joined_by_an_os_thread() {
    let local = greenroom::spawn_local(|| 1);
    std::thread::spawn(move || drop(local.join())); //~ E0277 LocalJoinHandle<
}

fn a_runtime_run_by_another_thread(runtime: greenroom::Runtime) {
    std::thread::spawn(move || runtime.run(|| ())); //~ E0277 Runtime
}

fn a_runtime_shared_with_another_thread(runtime: &greenroom::Runtime) {
    std::thread::scope(|s| {
        s.spawn(|| runtime.run(|| ())); //~ E0277 Runtime
    });
}

fn main() {}
