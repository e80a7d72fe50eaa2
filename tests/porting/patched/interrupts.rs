//! Timeouts and cancellation of waits in crates and in C code.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use curl::easy::Easy;

use crate::Outcome;
use crate::alone::{alone, on_one_worker};

/// Far less than a wait takes that goes on.
const SOON: Duration = Duration::from_secs(10);

/// A server whose connections are established, and get no answer.
fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn by_libcurl(address: SocketAddr) -> Outcome<()> {
    let mut request = Easy::new();
    request.url(&format!("http://{address}/"))?;
    request.signal(false)?;
    Ok(request.perform()?)
}

fn by_ureq(address: SocketAddr) -> Outcome<()> {
    ureq::get(format!("http://{address}/")).call()?;
    Ok(())
}

#[test]
fn a_timeout_makes_the_calls_of_crates_and_of_c_code_fail() {
    alone(|| {
        let (_listener, address) = silent();
        on_one_worker(|| {
            let start = Instant::now();
            let soon = Duration::from_millis(50);
            let error = greenroom::timeout(soon, || by_libcurl(address).unwrap_err()).unwrap();
            eprintln!("libcurl: {error}");
            let error = greenroom::timeout(soon, || by_ureq(address).unwrap_err()).unwrap();
            eprintln!("ureq: {error}");
            let error: ureq::Error = *error.downcast().unwrap();
            assert!(matches!(error, ureq::Error::Timeout(_)), "{error}");
            assert!(start.elapsed() < SOON);
        });
    });
}

#[test]
fn a_cancellation_makes_one_call_fail() {
    alone(|| {
        let (_listener, address) = silent();
        on_one_worker(|| {
            for ask in [by_libcurl, by_ureq] {
                let start = Instant::now();
                let asking = greenroom::spawn(move || {
                    let canceled = ask(address).unwrap_err();
                    let soon = Duration::from_millis(50);
                    let timed_out = greenroom::timeout(soon, || ask(address).unwrap_err());
                    (canceled, timed_out.unwrap(), start.elapsed())
                });
                std::thread::sleep(Duration::from_millis(50));
                asking.cancel();
                let (canceled, timed_out, took) = asking.join().unwrap();
                eprintln!("{canceled}; then {timed_out}, after {took:.1?}");
                // The second call is not told of the cancellation: it has waited until the timeout.
                assert!(
                    took >= Duration::from_millis(100) && took < SOON,
                    "{took:?}"
                );
                if let Ok(error) = canceled.downcast::<ureq::Error>() {
                    let errno = error.into_io().raw_os_error();
                    assert_eq!(errno, Some(libc::ECANCELED));
                }
            }
        });
    });
}
