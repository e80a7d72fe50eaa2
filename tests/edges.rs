//! What comes of nothing, of too much and of nonsense: the same, whether std's or the shims'.

mod util;

/// The real thing: shows that what is demanded below is what std does.
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    include!("behaviour/edges.rs");
}

mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    include!("behaviour/edges.rs");
}
