//! Code that std's threads refuse to compile, and the shims', too. Compiled once for each.

#[cfg(not(of_std))]
use greenroom::shims::thread;
#[cfg(of_std)]
use std::thread;

use std::cell::Cell;
use std::fmt::Display;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::{Mutex, mpsc};
use thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

fn a_result_that_is_not_static(text: &str) {
    thread::spawn(|| text.trim()); //~ E0521 `text`
}

fn a_closure_of_any_lifetime<F: FnOnce() + Send>(f: F) {
    thread::spawn(f); //~ E0310 `F`
}

fn a_closure_that_may_not_be_send<F: FnOnce() + 'static>(f: F) {
    thread::spawn(f); //~ E0277 `F`
}

fn a_result_that_may_not_be_send<T: Default + 'static>() {
    thread::spawn(T::default); //~ E0277 `T`
}

fn a_scoped_result_that_may_not_be_send<T: Default>() {
    thread::scope(|s| drop(s.spawn(T::default))); //~ E0277 `T`
}

fn a_closure_that_is_called_by_reference(f: &mut (dyn FnMut() + Send)) {
    thread::spawn(|| f()); //~ E0521 `f`
}

fn a_receiver_shared_by_two(receiver: mpsc::Receiver<u8>) {
    thread::scope(|s| {
        s.spawn(|| receiver.recv()); //~ E0277 Receiver<
    });
}

fn a_guard_sent_to_a_scoped_thread(mutex: &Mutex<u8>) {
    let guard = mutex.lock().unwrap();
    thread::scope(|s| {
        s.spawn(move || drop(guard)); //~ E0277 MutexGuard<
    });
}

fn a_trait_object_that_may_not_be_send(shown: Box<dyn Display>) {
    thread::spawn(move || println!("{shown}")); //~ E0277 dyn
}

fn a_raw_pointer(pointer: *const u8) {
    thread::spawn(move || drop(pointer)); //~ E0277 *const u8
}

fn an_unchecked_spawn_without_unsafe() {
    let _ = Builder::new().spawn_unchecked(|| ()); //~ E0133 spawn_unchecked
}

fn an_unchecked_spawn_of_what_is_not_send() {
    let shared = Rc::new(1);
    let _ = unsafe { Builder::new().spawn_unchecked(move || drop(shared)) }; //~ E0277 Rc<
}

fn a_builder_used_twice() {
    let builder = Builder::new();
    let _ = builder.spawn(|| ());
    let _ = builder.spawn(|| ()); //~ E0382 `builder`
}

fn a_handle_cloned(handle: JoinHandle<u8>) {
    let _ = handle.clone(); //~ E0599 clone
}

fn a_handle_joined_by_reference(handle: &JoinHandle<u8>) {
    let _ = handle.join(); //~ E0507 `*handle`
}

fn a_handle_of_a_shorter_result<'a>(handle: JoinHandle<&'static str>) -> JoinHandle<&'a str> {
    handle //~ - lifetime
}

fn a_handle_joined_beyond_a_catch(handle: JoinHandle<u8>) {
    let _ = catch_unwind(|| handle.join()); //~ E0277 UnwindSafe
}

fn a_cell_changed_beyond_a_catch_where_a_scope_may_be_used<'scope>(scope: &'scope Scope<'scope, '_>, count: &Cell<u8>) {
    let _ = catch_unwind(|| count.set(1)); //~ E0277 RefUnwindSafe
    let _ = catch_unwind(|| drop(scope.spawn(|| ())));
}

fn a_scope_that_shrinks<'long: 'short, 'short, 'env: 'long>(
    scope: &'long Scope<'long, 'env>,
) -> &'short Scope<'short, 'env> {
    scope //~ - lifetime
}

fn an_environment_that_shrinks<'scope, 'long: 'short, 'short: 'scope>(
    scope: &'scope Scope<'scope, 'long>,
) -> &'scope Scope<'scope, 'short> {
    scope //~ - lifetime
}

fn a_scoped_handle_that_grows<'long: 'short, 'short>(
    handle: ScopedJoinHandle<'short, u8>,
) -> ScopedJoinHandle<'long, u8> {
    handle //~ - lifetime
}

fn a_scoped_handle_sent_to_a_thread_outside() {
    thread::scope(|s| {
        let scoped = s.spawn(|| 1);
        thread::spawn(move || scoped.join()); //~ E0521 `s`
    });
}

fn a_scoped_handle_returned_by_its_scope() {
    let _ = thread::scope(|s| s.spawn(|| 1)); //~ - lifetime
}

fn a_scoped_handle_joined_twice() {
    thread::scope(|s| {
        let scoped = s.spawn(|| String::new());
        let _ = scoped.join();
        let _ = scoped.join(); //~ E0382 `scoped`
    });
}

fn a_value_replaced_while_a_scoped_thread_has_it() {
    let mut text = String::new();
    thread::scope(|s| {
        s.spawn(|| println!("{text}"));
        text = String::new(); //~ E0506 `text`
    });
}

fn what_a_scoped_thread_of_a_scoped_thread_borrows_from_the_first() {
    thread::scope(|s| {
        s.spawn(|| {
            let inner = String::new();
            s.spawn(|| println!("{inner}")); //~ E0373 `inner`
        });
    });
}

fn what_an_inner_scope_lends_to_the_outer_one() {
    thread::scope(|outer| {
        let lent = String::new();
        thread::scope(|_inner| {
            outer.spawn(|| println!("{lent}")); //~ E0597 `lent`
        });
    });
}

fn a_scope_made_by_hand() -> Scope<'static, 'static> {
    Scope {} //~ - Scope
}

fn main() {}
