//! The arguments of the small servers among the examples.

use crate::program::{command, example};

#[test]
fn wrong_arguments_get_a_clear_error_and_the_usage() {
    for (name, arguments, error) in [
        (
            "echo_server",
            &["nowhere"][..],
            "nowhere: invalid socket address",
        ),
        (
            "echo_server",
            &["127.0.0.1:0", "/no/such/door"],
            "/no/such/door: No such file",
        ),
        (
            "echo_server",
            &["a", "b", "c"],
            "more than an address and a path",
        ),
        ("proxy", &["127.0.0.1:0"], "not two addresses"),
        (
            "proxy",
            &["127.0.0.1:0", "nowhere"],
            "nowhere: invalid socket address",
        ),
        (
            "proxy",
            &["nowhere", "127.0.0.1:1"],
            "nowhere: invalid socket address",
        ),
        (
            "request_id",
            &["nowhere"],
            "nowhere: invalid socket address",
        ),
        ("request_id", &["127.0.0.1:0", "b"], "more than an address"),
        ("metrics", &["nowhere"], "nowhere: invalid socket address"),
        ("metrics", &["127.0.0.1:0", "b"], "more than an address"),
    ] {
        let output = command(example(name)).args(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{name} {arguments:?}");
        assert!(
            told.starts_with(&format!("error: {error}")),
            "{name} {arguments:?}: {told}"
        );
        assert!(told.contains(&format!("\nUsage: {name} ")), "{told}");
    }
}
