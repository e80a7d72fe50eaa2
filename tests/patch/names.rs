//! getaddrinfo(3) and its relatives.

use std::ffi::{CStr, c_char};
use std::mem;
use std::ptr::{null, null_mut};

use libc::{
    AF_INET, AF_INET6, AF_UNSPEC, AI_CANONNAME, AI_NUMERICHOST, AI_PASSIVE, EAI_BADFLAGS,
    EAI_FAMILY, EAI_NONAME, EAI_OVERFLOW, EAI_SERVICE, EAI_SOCKTYPE, ERANGE, NI_NAMEREQD,
    NI_NUMERICHOST, NI_NUMERICSERV, SOCK_STREAM, addrinfo, c_int, hostent, sockaddr_in,
};

use crate::calls::{Calls, alike, errno, on_coroutine, returned, set_errno};

fn hints(flags: c_int, family: c_int, kind: c_int) -> addrinfo {
    // SAFETY: a C struct of numbers and pointers, for which all-zero bytes are valid.
    let mut hints: addrinfo = unsafe { mem::zeroed() };
    hints.ai_flags = flags;
    hints.ai_family = family;
    hints.ai_socktype = kind;
    hints
}

/// The addresses that a lookup has found: family, type, port. And the canonical name of the first.
type Found = (Vec<(c_int, c_int, u16)>, Option<String>);

fn look_up(
    c: &Calls,
    node: Option<&CStr>,
    service: Option<&CStr>,
    hints: &addrinfo,
) -> Result<Found, c_int> {
    let text = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    let mut found = null_mut();
    // SAFETY: the pointers are null or to what they should be.
    let error = unsafe { (c.getaddrinfo)(text(node), text(service), hints, &raw mut found) };
    if error != 0 {
        return Err(error);
    }
    let mut addrs = Vec::new();
    let mut at: *const addrinfo = found;
    let mut name = None;
    // SAFETY: the list was made by the call, and is freed once, at the end. The port is at the same place in
    // the addresses of both families.
    unsafe {
        if let Some(first) = at.as_ref()
            && !first.ai_canonname.is_null()
        {
            name = Some(
                CStr::from_ptr(first.ai_canonname)
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
        while let Some(addr) = at.as_ref() {
            let port = u16::from_be((*addr.ai_addr.cast::<sockaddr_in>()).sin_port);
            addrs.push((addr.ai_family, addr.ai_socktype, port));
            at = addr.ai_next;
        }
        libc::freeaddrinfo(found);
    }
    Ok((addrs, name))
}

#[test]
fn names_and_numbers_are_looked_up() {
    alike(|c| {
        let stream = hints(0, AF_INET, SOCK_STREAM);
        let one = |port| Ok((vec![(AF_INET, SOCK_STREAM, port)], None));
        assert_eq!(
            look_up(c, Some(c"localhost"), Some(c"80"), &stream),
            one(80)
        );
        assert_eq!(
            look_up(c, Some(c"127.0.0.1"), Some(c"80"), &stream),
            one(80)
        );
        assert_eq!(look_up(c, Some(c"127.0.0.1"), None, &stream), one(0));
        assert_eq!(look_up(c, None, Some(c"80"), &stream), one(80));
        let any = hints(AI_PASSIVE, AF_UNSPEC, SOCK_STREAM);
        let found = look_up(c, None, Some(c"0"), &any).unwrap().0;
        assert!(found.contains(&(AF_INET, SOCK_STREAM, 0)), "{found:?}");
        let v6 = hints(0, AF_INET6, SOCK_STREAM);
        let found = look_up(c, Some(c"::1"), Some(c"9"), &v6);
        assert_eq!(found, Ok((vec![(AF_INET6, SOCK_STREAM, 9)], None)));
        let named = hints(AI_CANONNAME, AF_INET, SOCK_STREAM);
        let (_, name) = look_up(c, Some(c"localhost"), None, &named).unwrap();
        assert_eq!(name.as_deref(), Some("localhost"));
        // Without a type, each of the types is found.
        let found = look_up(c, Some(c"127.0.0.1"), None, &hints(0, 0, 0))
            .unwrap()
            .0;
        assert!(found.len() > 1, "{found:?}");
    });
}

#[test]
fn lookups_fail_with_the_errors_of_the_c_library() {
    alike(|c| {
        let any = hints(0, 0, SOCK_STREAM);
        let of = |node, service, hints: &addrinfo| look_up(c, node, service, hints).unwrap_err();
        assert_eq!(of(None, None, &any), EAI_NONAME);
        let numeric = hints(AI_NUMERICHOST, 0, 0);
        assert_eq!(of(Some(c"localhost"), None, &numeric), EAI_NONAME);
        let bad = hints(1 << 30, 0, 0);
        assert_eq!(of(Some(c"localhost"), None, &bad), EAI_BADFLAGS);
        let bad = hints(0, 77, 0);
        assert_eq!(of(Some(c"localhost"), None, &bad), EAI_FAMILY);
        let bad = hints(0, 0, 77);
        assert_eq!(of(Some(c"localhost"), None, &bad), EAI_SOCKTYPE);
        let bad = hints(AI_CANONNAME, 0, 0);
        assert_eq!(of(None, Some(c"80"), &bad), EAI_BADFLAGS);
        let no_service = of(Some(c"127.0.0.1"), Some(c"no such service"), &any);
        assert!(no_service == EAI_SERVICE || no_service == EAI_NONAME);
    });
}

#[test]
fn a_lookup_that_succeeds_leaves_the_number_of_the_last_error_alone() {
    on_coroutine(|c| {
        set_errno(77);
        look_up(c, Some(c"localhost"), None, &hints(0, 0, 0)).unwrap();
        assert_eq!(errno(), 77);
    });
}

#[test]
fn addresses_are_named() {
    alike(|c| {
        // SAFETY: all-zero is a valid `sockaddr_in`.
        let mut addr: sockaddr_in = unsafe { mem::zeroed() };
        addr.sin_family = AF_INET as _;
        addr.sin_port = 80u16.to_be();
        addr.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let name = |flags, host_len, addr_len| {
            let (mut host, mut service) = ([0 as c_char; 100], [0 as c_char; 100]);
            let addr = (&raw const addr).cast();
            let named = returned!(c.getnameinfo(
                addr,
                addr_len,
                host.as_mut_ptr(),
                host_len,
                service.as_mut_ptr(),
                100,
                flags
            ));
            // SAFETY: the buffers have a zero at their end.
            let texts = unsafe {
                [
                    CStr::from_ptr(host.as_ptr()),
                    CStr::from_ptr(service.as_ptr()),
                ]
            };
            (named, texts.map(|text| text.to_str().unwrap().to_owned()))
        };
        let numbers = NI_NUMERICHOST | NI_NUMERICSERV;
        let (named, texts) = name(numbers, 100, 16);
        assert_eq!(
            (named, texts),
            (0, ["127.0.0.1".to_owned(), "80".to_owned()])
        );
        let (named, texts) = name(NI_NUMERICSERV | NI_NAMEREQD, 100, 16);
        assert_eq!(named, 0);
        assert!(texts[0].contains("localhost"), "{texts:?}");
        assert_eq!(name(numbers, 3, 16).0, i64::from(EAI_OVERFLOW));
        assert_eq!(name(NI_NUMERICSERV, 3, 16).0, i64::from(EAI_OVERFLOW));
        assert_eq!(name(0, 100, 3).0, i64::from(EAI_FAMILY));
    });
}

/// The first address of a host, which has four bytes.
fn first_address(host: &hostent) -> [u8; 4] {
    assert_eq!((host.h_addrtype, host.h_length), (AF_INET, 4));
    // SAFETY: the C library has filled the host.
    unsafe { *(*host.h_addr_list).cast::<[u8; 4]>() }
}

#[test]
fn hosts_are_looked_up() {
    alike(|c| {
        let name = c"localhost".as_ptr();
        let local = [127u8, 0, 0, 1];
        let addr = local.as_ptr().cast();
        // SAFETY: the pointers are valid. The C library's host lives until the next call.
        unsafe {
            let host = (c.gethostbyname)(name).as_ref().unwrap();
            assert_eq!(first_address(host), local);
            let host = (c.gethostbyname2)(name, AF_INET).as_ref().unwrap();
            assert_eq!(first_address(host), local);
            let host = (c.gethostbyaddr)(addr, 4, AF_INET).as_ref().unwrap();
            assert!(
                CStr::from_ptr(host.h_name)
                    .to_str()
                    .unwrap()
                    .contains("localhost")
            );
        }
        let by = |how: usize, len: usize| {
            // SAFETY: a C struct of numbers and pointers, for which all-zero bytes are valid.
            let mut host: hostent = unsafe { mem::zeroed() };
            let mut buf = [0 as c_char; 4096];
            let (mut found, mut error) = (null_mut(), 0);
            let (host, to) = (&raw mut host, buf.as_mut_ptr());
            let (found_at, error_at) = (&raw mut found, &raw mut error);
            let done = match how {
                0 => returned!(c.gethostbyname_r(name, host, to, len, found_at, error_at)),
                1 => {
                    returned!(c.gethostbyname2_r(name, AF_INET, host, to, len, found_at, error_at))
                }
                _ => returned!(
                    c.gethostbyaddr_r(addr, 4, AF_INET, host, to, len, found_at, error_at)
                ),
            };
            assert_eq!(found.is_null(), done != 0);
            // SAFETY: null, or the host above.
            (done, unsafe { found.as_ref() }.map(first_address))
        };
        for how in 0..3 {
            assert_eq!(by(how, 4096), (0, Some(local)));
            assert_eq!(by(how, 10), (i64::from(ERANGE), None));
        }
    });
}

#[test]
fn a_host_that_does_not_exist_is_not_found() {
    alike(|c| {
        unsafe extern "C" {
            safe fn __h_errno_location() -> *mut c_int;
        }
        // No name has such a length, so no server is asked.
        let name = std::ffi::CString::new("x".repeat(300)).unwrap();
        // SAFETY: the name is a C string, and the pointer to the thread's own number.
        unsafe {
            *__h_errno_location() = 0;
            assert!((c.gethostbyname)(name.as_ptr()).is_null());
            assert_ne!(*__h_errno_location(), 0);
        }
    });
}
