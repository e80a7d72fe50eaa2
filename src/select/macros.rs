//! The macro `select!`.
//!
//! ```text
//! select! { recv(a) -> x => f(x), default => g() }
//!
//! @arms, @body   split the arms:       { [parts::recv(&a)] x {f(x)} }  { [parts::at_once()] _ {g()} }
//! @outcome       make a part of each, and choose one; the parts are dropped with that
//!                    match parts::recv(&a) { arm => match parts::at_once() { arm => {
//!                        parts::choose([arm.role(), arm.role()]);
//! @taken                 Or::This(result of the first), or Or::That(Or::This(result of the second))
//!                    } } }
//! @bodies        match that, and run the code of the arm
//! ```
//!
//! Each `arm` is another variable, since each comes from another expansion.

/// Waits until one of several operations can be completed, completes it, and runs the code of that arm.
///
/// ```
/// use greenroom::{channel, select, spawn};
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let (orders, inbox) = channel::unbounded();
///     let (stop, stopped) = channel::oneshot();
///     let waiter = spawn(move || {
///         let mut served = 0;
///         loop {
///             select! {
///                 recv(inbox) -> order => match order {
///                     Ok("tea" | "coffee") => served += 1,
///                     _ => break,
///                 },
///                 recv(stopped) -> _ => break,
///                 default(Duration::from_secs(10)) => panic!("nobody comes"),
///             }
///         }
///         served
///     });
///     orders.send("tea").unwrap();
///     stop.send(()).unwrap();
///     assert!(waiter.join().unwrap() <= 1);
/// });
/// ```
///
/// # Arms
///
/// | Arm | is chosen when | and gives |
/// |---|---|---|
/// | `recv(receiver) -> pattern => code` | there is a message, or there will be none any more | `Result<T, RecvError>` |
/// | `send(sender, message) -> pattern => code` | the message was sent, or cannot be any more | `Result<(), SendError<T>>` |
/// | `join(handle) -> pattern => code` | the coroutine has ended | what [`join`](crate::JoinHandle::join) returns |
/// | `ready(descriptor, interest) -> pattern => code` | the descriptor is ready, see [`wait_fd`](crate::wait_fd) | `io::Result<Readiness>` |
/// | `futex(word, expected) -> pattern => code` | the [word](crate::sync::futex) has another value, or a wake-up comes | [`Waited`](crate::sync::futex::Waited) |
/// | `deadline(moment) => code` | no other arm could be chosen until that [`Instant`](std::time::Instant) or [`Deadline`](crate::Deadline) | |
/// | `default(timeout) => code` | no other arm could be chosen for that [`Duration`](std::time::Duration) | |
/// | `default => code` | no other arm can be chosen at once | |
///
/// `recv` takes the receivers of [`channel`](mod@crate::channel), of its [`oneshot`](crate::channel::oneshot())
/// form, and of [`shims::sync::mpsc`](crate::shims::sync::mpsc); `send` takes the senders of the first and
/// the last; `join` takes any [`Joinable`](crate::Joinable).
///
/// An arm `... if condition => code`, behind the pattern where there is one, is disabled if the condition is
/// false. Its operands are not evaluated then.
///
/// # What is not chosen stays
///
/// Exactly one arm is completed. Of the others nothing happens: no message is taken, none is sent, no
/// registration is left. For that, the message of `send` and the handle of `join` are in an `Option` of the
/// caller's, and leave it only if the arm is chosen. If the `Option` is empty, the arm is disabled.
///
/// ```
/// use greenroom::{channel, select};
///
/// let (sender, receiver) = channel::bounded(1);
/// let (_quiet, silent) = channel::unbounded::<u8>();
/// let mut message = Some("hello".to_owned());
/// for _ in 0..2 {
///     select! {
///         send(sender, message) -> sent => sent.unwrap(),
///         recv(silent) -> _ => unreachable!(),
///         default => message = Some("is full".to_owned()),
///     }
/// }
/// assert_eq!(receiver.try_recv().unwrap(), "hello");
/// assert_eq!(message, Some("is full".to_owned()));
/// ```
///
/// # Order
///
/// If several arms could be chosen at once, one of them is, at random: each is as likely as the others. Those with
/// a time come last.
///
/// # Which callers
///
/// Coroutines and OS threads, with or without a runtime. An OS thread that waits for descriptors, too, blocks in
/// the kernel's `poll`.
///
/// # Limits
///
/// A single invocation takes 30 arms, before the compiler's recursion limit is reached. [`Select`] takes
/// any number, which need not be known when the program is compiled.
///
/// [`Select`]: crate::Select
///
/// # Panics
///
/// If all arms are disabled. If a coroutine would wait for its own end.
///
/// # Unwinding
///
/// An interruption point, also where an arm joins a coroutine of
/// [`spawn_unchecked`](crate::Builder::spawn_unchecked). Then no arm is chosen.
#[macro_export]
macro_rules! select {
    ($($arms:tt)+) => {
        $crate::__select!(@arms [] $($arms)+)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    // All arms are split.
    (@arms [$($arms:tt)+]) => {{
        let outcome = $crate::__select!(@outcome [] $($arms)+);
        $crate::__select!(@bodies outcome $($arms)+)
    }};

    // The head of the next arm. The condition of a disabled arm keeps its operands from being evaluated.
    // There, channels are borrowed by a method call, since `&` of a reference would be a temporary, which
    // does not outlive the `if`.
    (@arms $done:tt recv($receiver:expr $(,)?) -> $result:pat if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(@if $condition, $done $result, [{
            use $crate::select::parts::Receives as _;
            $receiver.__select_part()
        }] $($rest)+)
    };
    (@arms $done:tt recv($receiver:expr $(,)?) -> $result:pat => $($rest:tt)+) => {
        $crate::__select!(@body $done $result, [$crate::select::parts::recv(&$receiver)] $($rest)+)
    };
    (@arms $done:tt send($sender:expr, $message:expr $(,)?) -> $result:pat if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(
            @if $condition, $done $result, [{
            use $crate::select::parts::Sends as _;
            $sender.__select_part(&mut $message)
        }] $($rest)+
        )
    };
    (@arms $done:tt send($sender:expr, $message:expr $(,)?) -> $result:pat => $($rest:tt)+) => {
        $crate::__select!(
            @body $done $result, [$crate::select::parts::send(&$sender, &mut $message)] $($rest)+
        )
    };
    (@arms $done:tt join($handle:expr $(,)?) -> $result:pat if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(@if $condition, $done $result, [$crate::select::parts::join(&mut $handle)] $($rest)+)
    };
    (@arms $done:tt join($handle:expr $(,)?) -> $result:pat => $($rest:tt)+) => {
        $crate::__select!(@body $done $result, [$crate::select::parts::join(&mut $handle)] $($rest)+)
    };
    (@arms $done:tt ready($fd:expr, $interest:expr $(,)?) -> $result:pat if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(
            @if $condition, $done $result, [$crate::select::parts::ready(&$fd, $interest)] $($rest)+
        )
    };
    (@arms $done:tt ready($fd:expr, $interest:expr $(,)?) -> $result:pat => $($rest:tt)+) => {
        $crate::__select!(@body $done $result, [$crate::select::parts::ready(&$fd, $interest)] $($rest)+)
    };
    (@arms $done:tt futex($word:expr, $expected:expr $(,)?) -> $result:pat if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(
            @if $condition, $done $result, [$crate::select::parts::futex(&$word, $expected)] $($rest)+
        )
    };
    (@arms $done:tt futex($word:expr, $expected:expr $(,)?) -> $result:pat => $($rest:tt)+) => {
        $crate::__select!(@body $done $result, [$crate::select::parts::futex(&$word, $expected)] $($rest)+)
    };
    (@arms $done:tt deadline($at:expr $(,)?) if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(@if $condition, $done _, [$crate::select::parts::deadline($at)] $($rest)+)
    };
    (@arms $done:tt deadline($at:expr $(,)?) => $($rest:tt)+) => {
        $crate::__select!(@body $done _, [$crate::select::parts::deadline($at)] $($rest)+)
    };
    (@arms $done:tt default($timeout:expr $(,)?) if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(@if $condition, $done _, [$crate::select::parts::timeout($timeout)] $($rest)+)
    };
    (@arms $done:tt default($timeout:expr $(,)?) => $($rest:tt)+) => {
        $crate::__select!(@body $done _, [$crate::select::parts::timeout($timeout)] $($rest)+)
    };
    (@arms $done:tt default if $condition:expr => $($rest:tt)+) => {
        $crate::__select!(@if $condition, $done _, [$crate::select::parts::at_once()] $($rest)+)
    };
    (@arms $done:tt default => $($rest:tt)+) => {
        $crate::__select!(@body $done _, [$crate::select::parts::at_once()] $($rest)+)
    };

    (@if $condition:expr, $done:tt $result:pat, [$($part:tt)+] $($rest:tt)+) => {
        $crate::__select!(
            @body $done $result,
            [if $condition {
                ::core::option::Option::Some($($part)+)
            } else {
                ::core::option::Option::None
            }]
            $($rest)+
        )
    };

    // The code of the arm.
    (@body [$($done:tt)*] $result:pat, $part:tt $code:block, $($rest:tt)*) => {
        $crate::__select!(@arms [$($done)* { $part [$result] $code }] $($rest)*)
    };
    (@body [$($done:tt)*] $result:pat, $part:tt $code:block $($rest:tt)*) => {
        $crate::__select!(@arms [$($done)* { $part [$result] $code }] $($rest)*)
    };
    (@body [$($done:tt)*] $result:pat, $part:tt $code:expr, $($rest:tt)*) => {
        $crate::__select!(@arms [$($done)* { $part [$result] $code }] $($rest)*)
    };
    (@body [$($done:tt)*] $result:pat, $part:tt $code:expr) => {
        $crate::__select!(@arms [$($done)* { $part [$result] $code }])
    };

    (@outcome [$($arms:tt)*] { [$($part:tt)+] $result:tt $code:tt } $($rest:tt)*) => {
        match ($($part)+) {
            arm => $crate::__select!(@outcome [$($arms)* arm] $($rest)*),
        }
    };
    (@outcome [$($arms:tt)+]) => {{
        $crate::select::parts::choose([$($crate::select::parts::Part::role(&$arms)),+]);
        $crate::__select!(@taken $($arms)+)
    }};

    (@taken $arm:tt $($rest:tt)*) => {
        match $crate::select::parts::Part::take(&$arm) {
            ::core::option::Option::Some(result) => $crate::select::parts::Or::This(result),
            ::core::option::Option::None => {
                $crate::select::parts::Or::That($crate::__select!(@taken $($rest)*))
            }
        }
    };
    (@taken) => {
        $crate::select::parts::none_chosen()
    };

    (@bodies $outcome:ident { $part:tt [$result:pat] $code:expr } $($rest:tt)*) => {
        match $outcome {
            $crate::select::parts::Or::This($result) => $code,
            $crate::select::parts::Or::That(rest) => $crate::__select!(@bodies rest $($rest)*),
        }
    };
    (@bodies $outcome:ident) => {
        match $outcome {}
    };
}
