//! What locks and their like promise: the same, whether std's or the shims'.

mod util;

/// Includes each source, once with what `std` and `util` are to be.
macro_rules! behaviours {
    ($std:path, $util:path: $($name:ident $source:literal)*) => {
        $(mod $name {
            use $std as std;
            use $util as util;

            include!($source);
        })*
    };
}

/// The real thing: shows that what is demanded is what std does.
mod of_std {
    behaviours! {
        ::std, crate::util::of_std:
        mutex "behaviour/mutex.rs"
        rwlock "behaviour/rwlock.rs"
        condvar "behaviour/condvar.rs"
        once "behaviour/once.rs"
        once_lock "behaviour/once_lock.rs"
        lazy_lock "behaviour/lazy_lock.rs"
        barrier "behaviour/barrier.rs"
    }
}

mod of_shims {
    behaviours! {
        greenroom::shims, crate::util:
        mutex "behaviour/mutex.rs"
        rwlock "behaviour/rwlock.rs"
        condvar "behaviour/condvar.rs"
        once "behaviour/once.rs"
        once_lock "behaviour/once_lock.rs"
        lazy_lock "behaviour/lazy_lock.rs"
        barrier "behaviour/barrier.rs"
    }
}
