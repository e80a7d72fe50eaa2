use std::cell::Cell;
use std::sync::Mutex;

use super::*;

/// Keys with the numbers 1, 2, 3 and so on. Tests use them in their own [`Locals`] only, so it does not
/// matter that other keys have the same numbers.
static KEYS: [Key; 200] = {
    let mut keys = [const { Key::new::<Text>("a key") }; 200];
    let mut index = 0;
    while index < keys.len() {
        keys[index].number = AtomicUsize::new(index + 1);
        index += 1;
    }
    keys
};

fn key(number: usize) -> &'static Key {
    &KEYS[number - 1]
}

/// Values that leave a trace when they are dropped.
struct Text(String);

static DROPPED_TEXTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Drop for Text {
    fn drop(&mut self) {
        let text = mem::take(&mut self.0);
        if text.starts_with("traced") {
            DROPPED_TEXTS.lock().unwrap().push(text);
        }
    }
}

/// The values of a task, which the test plays.
struct Task(Locals);

impl Task {
    fn new() -> Task {
        Task(Locals::new())
    }

    /// The value of a key among `KEYS`. Made of `text` if there is none.
    fn text(&self, number: usize, text: &str) -> Option<&str> {
        // SAFETY: the test is the task, and the keys are those of `Text`. The value stays until `end`,
        // which consumes the task.
        let text = unsafe {
            let made = self.0.get_or_make(key(number), || Text(text.into()));
            made.ok()?.as_ref()
        };
        Some(&text.0)
    }

    /// Whether a key is found without a search.
    fn is_at_home(&self, number: usize) -> bool {
        // SAFETY: the test is the task, and the key is that of `Text`.
        unsafe { self.0.find::<Text>(key(number)).is_some() }
    }

    fn places(&self) -> usize {
        // SAFETY: the test is the task, and so nothing changes the table meanwhile.
        unsafe { Table::places(self.0.table()) }
    }

    fn end(self) {
        // SAFETY: the test is the task, and has no references to values any more.
        unsafe { self.0.end(|_| panic!("no destructor panics")) };
    }
}

#[test]
fn a_value_is_found_in_its_place_while_the_table_grows() {
    let task = Task::new();
    let first = task.text(1, "made").unwrap();
    for number in 2..=200 {
        assert_eq!(
            task.text(number, &number.to_string()).unwrap(),
            number.to_string()
        );
        assert!(ptr::eq(task.text(1, "again").unwrap(), first));
    }
    for number in 1..=200 {
        assert!(task.is_at_home(number));
    }
    assert_eq!(first, "made");
    task.end();
}

#[test]
fn a_task_with_few_values_has_a_small_table() {
    for number in 1..=200 {
        let task = Task::new();
        assert_eq!(task.places(), 1, "that of all tasks without values");
        task.text(number, "").unwrap();
        assert_eq!(task.places(), FEW_PLACES);
        task.end();
    }
}

#[test]
fn keys_with_the_same_home_are_separated_if_the_table_needs_not_be_large() {
    let task = Task::new();
    for number in [3, 3 + 8, 3 + 16] {
        task.text(number, &number.to_string()).unwrap();
    }
    for number in [3, 3 + 8, 3 + 16] {
        assert!(task.is_at_home(number));
        assert_eq!(task.text(number, "").unwrap(), number.to_string());
    }
    assert!(task.places() <= 3 * MOST_PLACES);
    task.end();
}

#[test]
fn keys_that_cannot_be_at_home_are_found_as_well() {
    let numbers = [63, 63 + 64, 62, 62 + 64, 62 + 128];
    let task = Task::new();
    for number in numbers {
        assert_eq!(
            task.text(number, &number.to_string()).unwrap(),
            number.to_string()
        );
    }
    assert!(task.places() <= 64);
    assert!(numbers.iter().any(|&number| !task.is_at_home(number)));
    for number in numbers {
        assert_eq!(task.text(number, "").unwrap(), number.to_string());
    }
    task.end();
}

#[test]
fn values_are_dropped_once_and_the_youngest_first() {
    let task = Task::new();
    let numbers = [2, 66, 130, 5, 1];
    for number in numbers {
        task.text(number, &format!("traced {number}")).unwrap();
    }
    task.end();
    let wanted = numbers
        .iter()
        .rev()
        .map(|number| format!("traced {number}"));
    assert!(wanted.eq(DROPPED_TEXTS.lock().unwrap().drain(..)));
}

#[test]
fn a_destructor_finds_no_dropped_values_but_those_without_destructor() {
    static NUMBER: Key = Key::new::<Cell<u32>>("a key");
    static LOOKS: Key = Key::new::<Looks<'static>>("a key");
    static OTHER: Key = Key::new::<Looks<'static>>("a key");
    struct Looks<'a>(&'a Task);
    impl Drop for Looks<'_> {
        fn drop(&mut self) {
            let locals = &self.0.0;
            // SAFETY: the test is the task, and each key is used with its type.
            unsafe {
                let number = locals.get_or_make(&NUMBER, || Cell::new(100));
                let number = number.unwrap().as_ref();
                number.set(number.get() + 1);
                let own = if number.get() == 2 { &LOOKS } else { &OTHER };
                let task = NonNull::from(self.0);
                let again = locals.get_or_make(own, || Looks(task.as_ref()));
                assert!(again.is_err(), "it was dropped");
                // The first one makes the other, which grows the table amid the destructor.
                if number.get() == 2 {
                    for key in &KEYS[..50] {
                        let _ = locals.get_or_make(key, || Text(String::new()));
                    }
                    assert!(locals.get_or_make(&OTHER, || Looks(task.as_ref())).is_ok());
                }
            }
        }
    }
    let task = Task::new();
    // SAFETY: the test is the task, and each key is used with its type. The number is looked at before its
    // table is freed.
    unsafe {
        task.0.get_or_make(&NUMBER, || Cell::new(1)).unwrap();
        task.0
            .get_or_make(&LOOKS, || Looks(NonNull::from(&task).as_ref()))
            .unwrap();
        task.0.end(|_| panic!("a destructor has panicked"));
        // Values that are made after the end are fresh, and can be ended again.
        let number = task.0.get_or_make(&NUMBER, || Cell::new(7)).unwrap();
        assert_eq!(number.as_ref().get(), 7);
    }
    task.end();
}

#[test]
fn an_initialiser_that_asks_for_its_own_value_replaces_that() {
    let task = Task::new();
    // SAFETY: the test is the task, and the key is that of `Text`.
    unsafe {
        let outer = task.0.get_or_make(key(1), || {
            assert_eq!(task.text(1, "inner").unwrap(), "inner");
            Text("outer".into())
        });
        outer.unwrap();
    }
    assert_eq!(task.text(1, "").unwrap(), "outer");
    task.end();
}

#[test]
fn values_may_be_large_aligned_or_empty() {
    #[repr(align(256))]
    struct Aligned([u8; 1_000]);
    static ALIGNED: Key = Key::new::<Aligned>("a key");
    static NOTHING: Key = Key::new::<()>("a key");
    let task = Task::new();
    // SAFETY: the test is the task, and each key is used with its type.
    unsafe {
        task.0.get_or_make(&NOTHING, || ()).unwrap();
        let aligned = task
            .0
            .get_or_make(&ALIGNED, || Aligned([7; 1_000]))
            .unwrap();
        assert_eq!(aligned.addr().get() % 256, 0);
        assert_eq!(aligned.as_ref().0, [7; 1_000]);
    }
    task.end();
}

#[test]
fn a_key_takes_a_number_of_its_own_when_it_is_first_used() {
    static ONE: Key = Key::new::<u8>("a key");
    static TWO: Key = Key::new::<u8>("a key");
    let task = Task::new();
    let numbers = [&ONE, &TWO].map(|key| {
        assert_eq!(key.number.load(Ordering::Relaxed), 0);
        // SAFETY: the test is the task, and the keys are those of `u8`.
        unsafe { task.0.get_or_make(key, || 1).unwrap() };
        let number = key.number.load(Ordering::Relaxed);
        assert_eq!(key.take_number(), number);
        number
    });
    assert!(numbers.iter().all(|&number| number > 0) && numbers[0] != numbers[1]);
    task.end();
}
