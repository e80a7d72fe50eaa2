//! The print macros.
#![forbid(unsafe_code)]

use std::fmt::Arguments;
use std::io::Write;

use super::{stderr, stdout};
use crate::park::without_errors;

/// # Panics
///
/// As std: if the write fails.
pub fn print(args: Arguments<'_>) {
    print_to(stdout(), "stdout", args);
}

/// # Panics
///
/// As std: if the write fails.
pub fn eprint(args: Arguments<'_>) {
    print_to(stderr(), "stderr", args);
}

fn print_to(mut output: impl Write, label: &str, args: Arguments<'_>) {
    // An interrupt is no failure of the write.
    if let Err(error) = without_errors(|| output.write_fmt(args)) {
        panic!("failed printing to {label}: {error}");
    }
}

/// Like [`std::print!`], but waits park the coroutine.
///
/// Name the macro by a path (`std::print!`), or import the macro (`use std::print`): a plain `print!` is
/// std's own. See [`io::stdout`](crate::shims::io::stdout()).
#[doc(hidden)]
#[macro_export]
macro_rules! __print {
    ($($arg:tt)*) => {
        $crate::shims::io::__print::print($crate::shims::real::format_args!($($arg)*))
    };
}

/// Like [`std::println!`], but waits park the coroutine.
///
/// Name the macro by a path (`std::println!`), or import the macro (`use std::println`): a plain `println!` is
/// std's own. See [`io::stdout`](crate::shims::io::stdout()).
///
/// ```
/// use greenroom::shims as std;
///
/// std::println!("a line of {}", "text");
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __println {
    () => { $crate::__print!("\n") };
    ($($arg:tt)*) => {
        $crate::__print!("{}\n", $crate::shims::real::format_args!($($arg)*))
    };
}

/// Like [`std::eprint!`], but waits park the coroutine.
///
/// Name the macro by a path (`std::eprint!`), or import the macro (`use std::eprint`): a plain `eprint!` is
/// std's own. See [`io::stderr`](crate::shims::io::stderr()).
#[doc(hidden)]
#[macro_export]
macro_rules! __eprint {
    ($($arg:tt)*) => {
        $crate::shims::io::__print::eprint($crate::shims::real::format_args!($($arg)*))
    };
}

/// Like [`std::eprintln!`], but waits park the coroutine.
///
/// Name the macro by a path (`std::eprintln!`), or import the macro (`use std::eprintln`): a plain `eprintln!` is
/// std's own. See [`io::stderr`](crate::shims::io::stderr()).
#[doc(hidden)]
#[macro_export]
macro_rules! __eprintln {
    () => { $crate::__eprint!("\n") };
    ($($arg:tt)*) => {
        $crate::__eprint!("{}\n", $crate::shims::real::format_args!($($arg)*))
    };
}

/// Like [`std::dbg!`], but waits park the coroutine.
///
/// Name the macro by a path (`std::dbg!`), or import the macro (`use std::dbg`): a plain `dbg!` is
/// std's own. See [`io::stderr`](crate::shims::io::stderr()).
#[doc(hidden)]
#[macro_export]
macro_rules! __dbg {
    () => {
        $crate::__eprintln!(
            "[{}:{}:{}]",
            $crate::shims::real::file!(),
            $crate::shims::real::line!(),
            $crate::shims::real::column!()
        )
    };
    ($value:expr $(,)?) => {
        // `match` keeps temporaries of the expression alive while its value is used.
        match $value {
            value => {
                $crate::__eprintln!(
                    "[{}:{}:{}] {} = {:#?}",
                    $crate::shims::real::file!(),
                    $crate::shims::real::line!(),
                    $crate::shims::real::column!(),
                    $crate::shims::real::stringify!($value),
                    &&value as &dyn $crate::shims::real::fmt::Debug
                );
                value
            }
        }
    };
    ($($value:expr),+ $(,)?) => {
        ($($crate::__dbg!($value)),+,)
    };
}
