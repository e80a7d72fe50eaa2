//! Paths in requests.

#![allow(dead_code, reason = "each example uses its part")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// A path without its percent signs, unless it leads out of the directory that it begins in.
pub(crate) fn decoded(path: &str) -> Option<OsString> {
    let mut bytes = path.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    let mut parts = decoded.split(|&byte| byte == b'/');
    let is_inside = parts.next() == Some(b"") && parts.all(|part| part != b"..");
    (is_inside && !decoded.contains(&0)).then(|| OsString::from_vec(decoded))
}
