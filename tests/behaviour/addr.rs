//! Which types convert to addresses, and how.

use super::{std, util};
use ::std::{iter, option, slice, vec};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::net::{ToSocketAddrs, UdpSocket};
use util::everywhere;

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 17);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 9);

#[track_caller]
fn assert_becomes(from: impl ToSocketAddrs, wanted: &[SocketAddr]) {
    let got: Vec<_> = from.to_socket_addrs().unwrap().collect();
    assert_eq!(got, wanted);
}

#[test]
fn addresses_become_themselves() {
    everywhere(|| {
        let v4 = SocketAddrV4::new(V4, 24_352);
        let v6 = SocketAddrV6::new(V6, 53, 7, 8);
        assert_becomes(v4, &[v4.into()]);
        assert_becomes(v6, &[v6.into()]);
        assert_becomes(SocketAddr::from(v4), &[v4.into()]);
        assert_becomes(SocketAddr::from(v6), &[v6.into()]);
        assert_becomes((V4, 1), &[SocketAddr::new(V4.into(), 1)]);
        assert_becomes((V6, 2), &[SocketAddr::new(V6.into(), 2)]);
        assert_becomes((IpAddr::V4(V4), 3), &[SocketAddr::new(V4.into(), 3)]);
        assert_becomes((IpAddr::V6(V6), 4), &[SocketAddr::new(V6.into(), 4)]);
        let list = [v6.into(), v4.into(), v4.into()];
        assert_becomes(&list[..], &list);
        assert_becomes(&list[..0], &[]);
    });
}

#[test]
fn text_that_is_an_address_becomes_it() {
    everywhere(|| {
        let v4 = SocketAddr::from((V4, 24_352));
        let v6 = SocketAddr::from((V6, 53));
        assert_becomes("192.0.2.17:24352", &[v4]);
        assert_becomes("[2001:db8:0:1::9]:53", &[v6]);
        assert_becomes("2001:db8:0:1::9:53", &[v6]);
        assert_becomes(String::from("192.0.2.17:24352"), &[v4]);
        assert_becomes(&String::from("[2001:db8:0:1::9]:53"), &[v6]);
        assert_becomes(("192.0.2.17", 24_352), &[v4]);
        assert_becomes(("2001:db8:0:1::9", 53), &[v6]);
        assert_becomes((String::from("2001:db8:0:1::9"), 53), &[v6]);
        assert_becomes("[fe80::9%3]:53", &["[fe80::9%3]:53".parse().unwrap()]);
    });
}

#[test]
fn references_to_what_becomes_addresses_do_so_too() {
    everywhere(|| {
        let v4 = SocketAddr::from((V4, 80));
        assert_becomes(&v4, &[v4]);
        assert_becomes(&&v4, &[v4]);
        assert_becomes(&(V4, 80), &[v4]);
        assert_becomes(&"192.0.2.17:80", &[v4]);
        assert_becomes(&("192.0.2.17", 80), &[v4]);
        assert_becomes(&&[v4][..], &[v4]);
        // Unsized text, behind a reference.
        fn of_unsized<T: ToSocketAddrs + ?Sized>(text: &T) -> Vec<SocketAddr> {
            text.to_socket_addrs().unwrap().collect()
        }
        assert_eq!(of_unsized("192.0.2.17:80"), [v4]);
    });
}

#[test]
fn localhost_has_the_loopback_address() {
    everywhere(|| {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 23_924));
        let of = |name: &str| name.to_socket_addrs().unwrap().any(|addr| addr == loopback);
        assert!(of("localhost:23924"));
        let mut addrs = ("localhost", 23_924).to_socket_addrs().unwrap();
        assert!(addrs.any(|addr| addr == loopback));
    });
}

#[test]
fn colons_that_make_no_address_cannot_be_bound() {
    everywhere(|| {
        assert!(UdpSocket::bind("1200::AB00:1234::2552:7777:1313:34300").is_err());
    });
}

/// Code that names the iterator types in signatures compiles with std's types.
#[test]
fn the_iterators_are_those_of_std() {
    fn gives<A: ToSocketAddrs<Iter = I> + ?Sized, I>() {}
    type One = option::IntoIter<SocketAddr>;
    type Some = vec::IntoIter<SocketAddr>;
    gives::<SocketAddr, One>();
    gives::<SocketAddrV4, One>();
    gives::<SocketAddrV6, One>();
    gives::<(IpAddr, u16), One>();
    gives::<(Ipv4Addr, u16), One>();
    gives::<(Ipv6Addr, u16), One>();
    gives::<(&str, u16), Some>();
    gives::<(String, u16), Some>();
    gives::<str, Some>();
    gives::<String, Some>();
    gives::<&[SocketAddr], iter::Cloned<slice::Iter<'_, SocketAddr>>>();
    gives::<&str, Some>();
}
