//! [`greenroom::shims`] under the name of std, for a whole crate or a whole program.
//!
//! For a crate, a renamed dependency:
//!
//! ```toml
//! [dependencies]
//! std = { package = "greenroom-std", version = "0.1" }
//! ```
//!
//! Every file of that package, its tests and examples included, then means the shims where it says
//! `std`, and no source changes. For a whole program and all its dependencies, `cargo greenroom`
//! does the same. `greenroom::guide::porting` says what both cover.
//!
//! # Macros without a path
//!
//! The compiler takes the prelude of a crate from the `std` that it finds. So this crate has
//! [`prelude`] modules, and `thread_local!`, `print!`, `println!`, `eprint!`, `eprintln!` and `dbg!`
//! are the shims' even without a path.

pub use greenroom::shims::*;

pub mod prelude {
    //! [`std::prelude`], with the shims' macros.

    /// Defines a prelude: all of std's, but the shims' macros. An explicit import shadows a glob.
    macro_rules! preludes {
        ($($name:ident: $edition:literal,)*) => {
            $(
                #[doc = concat!("The prelude of ", $edition, ", with the shims' macros.")]
                pub mod $name {
                    pub use ::std::prelude::$name::*;
                    pub use greenroom::shims::{
                        dbg, eprint, eprintln, print, println, thread_local,
                    };
                }
            )*
        };
    }

    preludes! {
        v1: "all editions",
        rust_2015: "edition 2015",
        rust_2018: "edition 2018",
        rust_2021: "edition 2021",
        rust_2024: "edition 2024",
    }
}
