//! Python's `websockets`, which Debian has as `python3-websockets`.

use std::path::Path;

use crate::client::start;
use crate::program::{command, have_or_skip, succeed};

#[test]
fn python_s_websockets_talk_to_the_echo_and_to_the_chat() {
    // Debian's own, since another Python in the path would not have the package.
    let python = "/usr/bin/python3";
    let imports = command(python).args(["-c", "import websockets"]).output();
    if !have_or_skip(
        "python3-websockets",
        imports.is_ok_and(|output| output.status.success()),
    ) {
        return;
    }
    let server = start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients.py");
    let output = succeed(command(python).arg(script).arg(server.address.to_string()));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "the echo and the chat are as expected\n"
    );
}
