//! Code that would give a coroutine access to something dropped, or to something that another coroutine
//! changes.

fn a_spawn_that_borrows_from_its_spawner() {
    let local = String::new();
    greenroom::spawn(|| println!("{local}")); //~ E0373 `local`
}

fn a_spawn_that_is_given_a_reference() {
    let local = String::new();
    let borrowed = &local; //~ E0597 `local`
    greenroom::spawn(move || println!("{borrowed}"));
}

fn a_local_spawn_that_borrows_from_its_spawner() {
    let local = String::new();
    greenroom::spawn_local(|| println!("{local}")); //~ E0373 `local`
}

fn a_spawn_from_outside_that_borrows(runtime: &greenroom::Runtime) {
    let local = String::new();
    runtime.spawn(|| println!("{local}")); //~ E0373 `local`
}

fn a_call_of_the_pool_that_borrows() {
    let local = String::new();
    greenroom::unblock(|| println!("{local}")); //~ E0373 `local`
}

fn a_scoped_child_that_borrows_from_inside_the_scope() {
    greenroom::scope(|s| {
        let inner = String::new();
        s.spawn(|| println!("{inner}")); //~ E0373 `inner`
    });
}

fn a_scoped_result_that_borrows_from_inside_the_scope() {
    greenroom::scope(|s| {
        let inner = String::new();
        let borrowed = &inner; //~ E0597 `inner`
        s.spawn(move || borrowed);
    });
}

fn a_scope_that_escapes() {
    let mut escaped = None;
    greenroom::scope(|s| escaped = Some(s)); //~ E0521 `s`
    escaped.unwrap().spawn(|| ());
}

fn a_scope_used_by_a_coroutine_outside_it() {
    greenroom::scope(|s| {
        greenroom::spawn(move || drop(s.spawn(|| ()))); //~ E0521 `s`
    });
}

fn a_scoped_handle_that_escapes() {
    let mut escaped = None;
    greenroom::scope(|s| escaped = Some(s.spawn(|| 1))); //~ E0521 `s`
    escaped.unwrap().join().unwrap();
}

fn two_scoped_children_that_change_one_value() {
    let mut sum = 0;
    greenroom::scope(|s| {
        s.spawn(|| sum += 1);
        s.spawn(|| sum += 2); //~ E0499 `sum`
    });
}

fn a_value_changed_while_a_scoped_child_has_it() {
    let mut notes = vec![1];
    greenroom::scope(|s| {
        s.spawn(|| println!("{notes:?}"));
        notes.push(2); //~ E0502 `notes`
    });
}

fn joined_twice() {
    let handle = greenroom::spawn(|| String::new());
    let _ = handle.join();
    let _ = handle.join(); //~ E0382 JoinHandle<
}

fn used_after_it_was_moved_into_a_coroutine() {
    let text = String::new();
    greenroom::spawn(move || println!("{text}"));
    println!("{text}"); //~ E0382 `text`
}

fn main() {}
