//! Resolving names: calls for threads of the pool.

use std::ffi::{CStr, CString};
use std::mem;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::errno;
use super::original;
use super::types::*;
use super::wait::{self, Borrowed, may_park, on_pool, with_errors};
use crate::pool::{self, JobResult};

/// Runs `f`, a call that leaves the number of its error behind, on a thread of the pool.
fn resolve<R: Copy>(f: impl Fn() -> R) -> R {
    let lent = Borrowed(f);
    let (Borrowed(returned), errno, h_errno) = on_pool(move || {
        let Borrowed(f) = { lent };
        let returned = f();
        // SAFETY: the pointer is to the calling thread's own variable.
        (Borrowed(returned), errno::get(), unsafe { *h_errno() })
    });
    errno::set(errno);
    // SAFETY: the pointer is to the calling thread's own variable.
    unsafe { *self::h_errno() = h_errno };
    returned
}

/// The number of the last error in resolving a name, of the calling thread.
fn h_errno() -> *mut c_int {
    unsafe extern "C" {
        safe fn __h_errno_location() -> *mut c_int;
    }
    __h_errno_location()
}

/// What `getaddrinfo` has returned.
struct Answer {
    returned: c_int,
    errno: c_int,
    found: *mut addrinfo,
}

// SAFETY: the list belongs to this value, and may be freed by any thread.
unsafe impl Send for Answer {}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.found.is_null() {
            // SAFETY: the list came from `getaddrinfo`, and was given to nobody.
            unsafe { libc::freeaddrinfo(self.found) };
        }
    }
}

/// The arguments of a lookup, copied: the lookup goes on if its caller is interrupted.
struct Asked {
    node: Option<CString>,
    service: Option<CString>,
    hints: Option<addrinfo>,
}

// SAFETY: the pointers of the hints are null.
unsafe impl Send for Asked {}

impl Asked {
    fn ask(&self) -> Answer {
        let text = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
        let hints = self
            .hints
            .as_ref()
            .map_or(null(), |hints| &raw const *hints);
        let mut found = null_mut();
        // SAFETY: the pointers are null or to values that live until the call returns.
        let returned = unsafe {
            original::getaddrinfo(text(&self.node), text(&self.service), hints, &raw mut found)
        };
        Answer {
            returned,
            errno: errno::get(),
            found: if returned == 0 { found } else { null_mut() },
        }
    }

    /// Whether no resolver is asked.
    fn is_numeric(&self) -> bool {
        let is_number = |text: &CString| text.to_bytes().iter().all(u8::is_ascii_digit);
        let is_address = |text: &CString| {
            text.to_str()
                .is_ok_and(|text| text.parse::<IpAddr>().is_ok())
        };
        self.node.as_ref().is_none_or(is_address) && self.service.as_ref().is_none_or(is_number)
    }
}

pub(super) unsafe fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    found: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: the caller's: null, or a C string.
    let text =
        |text: *const c_char| (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned());
    let asked = Asked {
        node: text(node),
        service: text(service),
        // SAFETY: the caller's: null, or valid.
        hints: unsafe { hints.as_ref() }.map(|hints| addrinfo {
            ai_addr: null_mut(),
            ai_canonname: null_mut(),
            ai_next: null_mut(),
            ..*hints
        }),
    };
    if asked.is_numeric() || !may_park() {
        drop(asked);
        // SAFETY: the caller's.
        return unsafe { original::getaddrinfo(node, service, hints, found) };
    }
    let before = errno::get();
    let lookup = Arc::new(JobResult::new());
    let filled = Arc::clone(&lookup);
    pool::submit(Box::new(move || {
        filled.fill(catch_unwind(AssertUnwindSafe(|| asked.ask())));
    }));
    let (returned, errno) = match with_errors(|| lookup.wait_for_operation(None)) {
        Ok(answer) => {
            let mut answer = answer.expect("there is no deadline");
            if answer.returned == 0 {
                // SAFETY: the caller's: a pointer that is written if the call succeeds.
                unsafe { *found = mem::replace(&mut answer.found, null_mut()) };
            }
            (answer.returned, answer.errno)
        }
        Err(error) => (libc::EAI_SYSTEM, wait::errno(&error).raw_os_error()),
    };
    drop(lookup);
    errno::set(match returned {
        libc::EAI_SYSTEM => errno,
        _ => before,
    });
    returned
}

pub(super) unsafe fn getnameinfo(
    address: *const sockaddr,
    len: socklen_t,
    host: *mut c_char,
    host_len: socklen_t,
    service: *mut c_char,
    service_len: socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's. It waits.
    let call = || unsafe {
        original::getnameinfo(address, len, host, host_len, service, service_len, flags)
    };
    let numeric = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    match flags & numeric == numeric {
        true => call(),
        false => resolve(call),
    }
}

pub(super) unsafe fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: the caller's. It waits.
    resolve(|| unsafe { original::gethostbyname(name) })
}

pub(super) unsafe fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: the caller's. It waits.
    resolve(|| unsafe { original::gethostbyname2(name, family) })
}

pub(super) unsafe fn gethostbyaddr(
    address: *const c_void,
    len: socklen_t,
    family: c_int,
) -> *mut hostent {
    // SAFETY: the caller's. It waits.
    resolve(|| unsafe { original::gethostbyaddr(address, len, family) })
}

pub(super) unsafe fn gethostbyname_r(
    name: *const c_char,
    host: *mut hostent,
    buf: *mut c_char,
    len: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's. It waits.
    resolve(|| unsafe { original::gethostbyname_r(name, host, buf, len, found, error) })
}

pub(super) unsafe fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    host: *mut hostent,
    buf: *mut c_char,
    len: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's. It waits.
    resolve(|| unsafe { original::gethostbyname2_r(name, family, host, buf, len, found, error) })
}

#[expect(clippy::too_many_arguments, reason = "the C library's")]
pub(super) unsafe fn gethostbyaddr_r(
    address: *const c_void,
    len: socklen_t,
    family: c_int,
    host: *mut hostent,
    buf: *mut c_char,
    buf_len: size_t,
    found: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: the caller's. It waits.
    resolve(|| unsafe {
        original::gethostbyaddr_r(address, len, family, host, buf, buf_len, found, error)
    })
}
