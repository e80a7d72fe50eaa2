//! What becomes an address: the shims' trait does as std's.

use crate::util;

/// Ported and unported code pass addresses to each other, so the types must be the same.
#[test]
fn address_types_are_those_of_std() {
    use greenroom::shims::net as shims;

    fn same<T>(_: fn(T) -> T) {}
    same::<std::net::IpAddr>(|it: shims::IpAddr| it);
    same::<std::net::Ipv4Addr>(|it: shims::Ipv4Addr| it);
    same::<std::net::Ipv6Addr>(|it: shims::Ipv6Addr| it);
    same::<std::net::SocketAddr>(|it: shims::SocketAddr| it);
    same::<std::net::SocketAddrV4>(|it: shims::SocketAddrV4| it);
    same::<std::net::SocketAddrV6>(|it: shims::SocketAddrV6| it);
    same::<std::net::AddrParseError>(|it: shims::AddrParseError| it);
    same::<std::net::Shutdown>(|it: shims::Shutdown| it);
}

/// The errors are the same, down to the text.
#[test]
fn invalid_addresses_fail_as_in_std() {
    let hosts = [
        "",
        "\0",
        "with\0nul",
        "[::1]",
        "1200::AB00:1234::2552:7777:1313",
    ];
    let strings = [
        "",
        ":",
        "localhost",
        "localhost:",
        "localhost:-1",
        "localhost:65536",
        "localhost:0x50",
        "localhost: 80",
        "[::1]",
        "[::1:80",
        "127.0.0.1",
        "127.0.0.1:port",
        ":80",
        "\0:80",
        "1200::AB00:1234::2552:7777:1313:34300",
    ];
    fn told<T>(result: std::io::Result<T>) -> Option<(std::io::ErrorKind, String)> {
        result.err().map(|error| (error.kind(), error.to_string()))
    }
    util::everywhere(|| {
        use greenroom::shims::net::ToSocketAddrs as Ours;
        use std::net::ToSocketAddrs as Stds;
        for string in strings {
            let (ours, stds) = (Ours::to_socket_addrs(string), Stds::to_socket_addrs(string));
            assert_eq!(told(ours), told(stds), "{string:?}");
        }
        for host in hosts {
            let (ours, stds) = (
                Ours::to_socket_addrs(&(host, 80)),
                Stds::to_socket_addrs(&(host, 80)),
            );
            assert_eq!(told(ours), told(stds), "{host:?}");
        }
    });
}
