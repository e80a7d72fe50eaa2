//! Common code fits into a stack of the default size, with and without optimisation.

mod util;

use std::backtrace::Backtrace;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{catch_unwind, panic_any};
use std::process::Command;

use greenroom::shims::net::ToSocketAddrs;
use greenroom::shims::thread;
use serial_test::serial;

/// Runs `body` in a coroutine with a stack of the default size. The stack of main is larger.
fn in_a_coroutine(body: fn()) {
    for workers in [1, 2] {
        util::on_workers(workers, || thread::spawn(body).join().unwrap());
    }
    let stacks = greenroom::stats().stacks;
    let of = stacks.iter().find(|of| of.size == 256 << 10).unwrap();
    eprintln!(
        "at most {} KiB of {} KiB so far",
        of.hwm >> 10,
        of.size >> 10
    );
    assert!(
        of.hwm <= of.size / 4 * 3,
        "{of:?}: just short of an overflow"
    );
}

#[derive(Clone, Debug, Default)]
#[expect(dead_code, reason = "it is there to be printed")]
struct Node {
    name: String,
    weight: f64,
    children: Vec<Node>,
    more: BTreeMap<String, Option<Box<Node>>>,
}

/// A nested document, `depth` levels deep.
fn document(depth: usize) -> Node {
    let children = match depth {
        0 => Vec::new(),
        _ => vec![Node::default(), document(depth - 1)],
    };
    let name = format!("{depth:>8}");
    let more = BTreeMap::from([(name.clone(), Some(Box::default())), ("none".into(), None)]);
    Node {
        name,
        weight: depth as f64 / 3.0,
        children,
        more,
    }
}

#[test]
#[serial]
fn formatting_fits() {
    in_a_coroutine(|| {
        let document = document(100);
        let text = format!("{document:#?}");
        assert!(text.len() > 100_000);
        {
            println!("{:?}", document.clone().weight);
        }
        eprintln!("{:?}", document.children[0]);
        let mut numbers = String::new();
        for number in [f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2, 1e300 / 7.0] {
            write!(numbers, "{number} {number:?} {number:e} {number:.100} ").unwrap();
        }
        write!(numbers, "{:?} {:#0130b}", i128::MIN, u128::MAX).unwrap();
        assert!(numbers.len() > 1000);
        assert_eq!("1.7976931348623157e308".parse::<f64>().unwrap(), f64::MAX);
    });
}

#[test]
#[serial]
fn panics_and_backtraces_with_symbols_fit() {
    in_a_coroutine(|| {
        for message in ["one", "two"] {
            let payload = catch_unwind(|| panic_any(message)).unwrap_err();
            assert_eq!(*payload.downcast::<&str>().unwrap(), message);
        }
        let backtrace = Backtrace::force_capture().to_string();
        assert!(
            backtrace.contains("in_a_coroutine") || backtrace.contains("fits"),
            "{backtrace}"
        );
    });
}

/// The hook prints a backtrace with symbols, from the deepest frame.
#[test]
#[serial]
fn a_report_of_a_panic_with_a_backtrace_fits() {
    if util::role().is_some() {
        return in_a_coroutine(|| {
            let panics = thread::Builder::new()
                .name("traced".into())
                .spawn(|| panic!("to be seen"));
            panics.unwrap().join().unwrap_err();
        });
    }
    for detail in ["1", "full"] {
        let output = util::again!("a_report_of_a_panic_with_a_backtrace_fits", "child")
            .env("RUST_BACKTRACE", detail)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{printed}");
        assert_eq!(
            printed.matches("coroutine 'traced' panicked at").count(),
            2,
            "{printed}"
        );
        assert!(printed.contains("stack backtrace:"), "{printed}");
    }
}

#[test]
#[serial]
fn sorting_hashing_and_files_fit() {
    in_a_coroutine(|| {
        let mut numbers: Vec<u64> = (0..20_000)
            .map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        numbers.sort();
        assert!(numbers.is_sorted());
        numbers.sort_unstable_by_key(|number| number.reverse_bits());
        let mut by_name: HashMap<String, Vec<u64>> = HashMap::new();
        for number in &numbers {
            by_name
                .entry(format!("{:x}", number % 1000))
                .or_default()
                .push(*number);
        }
        assert_eq!(by_name.len(), 1000);
        let directory = std::env::temp_dir().join(format!("fits-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("a/b/c")).unwrap();
        let mut file = std::fs::File::create(directory.join("a/b/c/file")).unwrap();
        writeln!(file, "{by_name:?}").unwrap();
        assert!(
            std::fs::read_to_string(directory.join("a/b/c/file"))
                .unwrap()
                .len()
                > 100_000
        );
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
#[serial]
fn processes_threads_and_name_resolution_fit() {
    in_a_coroutine(|| {
        let output = Command::new("true")
            .env("SOME", "variable")
            .output()
            .unwrap();
        assert!(output.status.success());
        let value = std::thread::spawn(|| 1).join().unwrap();
        assert_eq!(value, 1);
        assert!(
            ("localhost", 80)
                .to_socket_addrs()
                .unwrap()
                .next()
                .is_some()
        );
        // libc resolves the name itself, on the stack of the caller.
        let resolved = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80)).unwrap();
        assert!(resolved.count() > 0);
    });
}
