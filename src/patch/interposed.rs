//! The functions of the program that have the names of the C library's: what they do, for each kind of entry in the
//! table.
#![allow(clippy::too_many_arguments, reason = "the C library's")]

use super::functions::patched_functions;
use super::types::*;

/// Calls what has a function, by its kind in the table.
macro_rules! choose {
    (parks $name:ident($($arg:ident),*)) => {
        match crate::task::on_coroutine() {
            false => crate::patch::original::$name($($arg),*),
            true => on_coroutine::$name($($arg),*),
        }
    };
    (always $name:ident($($arg:ident),*)) => {
        on_coroutine::$name($($arg),*)
    };
}

macro_rules! define_functions {
    ($($kind:ident fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $(= ($($probe:expr),*))?;)*) => {
        $(
            /// # Safety
            ///
            /// As the function of the C library.
            #[inline(always)]
            pub unsafe fn $name($($arg: $type),*) -> $ret {
                // SAFETY: the caller's.
                unsafe { choose!($kind $name($($arg),*)) }
            }
        )*

        /// What they do on a coroutine.
        mod on_coroutine {
            use crate::patch::types::*;
            use crate::patch::{replacements, status};

            $(
                #[inline(never)]
                pub(super) unsafe fn $name($($arg: $type),*) -> $ret {
                    if status::is_asking() {
                        return status::answer();
                    }
                    // SAFETY: the caller's.
                    unsafe { replacements::$name($($arg),*) }
                }
            )*
        }
    };
}

patched_functions!([define_functions]);
