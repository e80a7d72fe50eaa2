//! What a module offers.

use crate::signature::Signature;
use crate::standing::Standing;

/// A struct, enum, trait, function, macro, constant or type alias.
#[derive(Debug)]
pub(crate) struct Item {
    /// `struct`, as the file of its page begins.
    pub(crate) kind: String,
    pub(crate) declaration: Signature,
    pub(crate) parts: Vec<Part>,
}

/// A method, associated item, variant, field or implementation of an [`Item`].
#[derive(Debug)]
pub(crate) struct Part {
    /// `connect`, or `impl Read for &TcpStream`.
    pub(crate) name: String,
    /// What its counterpart has in common with it.
    pub(crate) key: String,
    pub(crate) standing: Standing,
    pub(crate) signature: Signature,
    /// The trait that is implemented.
    pub(crate) of_trait: Option<String>,
}

impl Part {
    pub(crate) fn is_implementation(&self) -> bool {
        self.name.starts_with("impl ")
    }
}
