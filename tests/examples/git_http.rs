//! `examples/git_http.rs`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::program::{Directory, Server, command, have, succeed};
use crate::util::{noise, settle, until};

const CLIENTS: usize = 20;

/// A git that reads no configuration of the machine.
fn git(directory: &Path) -> Command {
    let mut git = command("git");
    git.current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["-c", "user.name=Ray", "-c", "user.email=ray@example.com"])
        .args(["-c", "http.postBuffer=65536"]);
    git
}

fn start(directory: &Directory) -> Server {
    let root = directory.join("repositories");
    fs::create_dir(&root).unwrap();
    let init = ["init", "--quiet", "--bare", "--initial-branch=main"];
    succeed(git(&root).args(init).arg("example.git"));
    let arguments = [OsStr::new("127.0.0.1:0"), root.as_os_str()];
    Server::start("git_http", &arguments)
}

/// Clones, commits a file that is larger than git's buffer, and pushes it to a branch of its own.
fn clone_and_push(directory: &Path, url: &str, client: usize) {
    let clone = directory.join(format!("clone-{client}"));
    succeed(git(directory).args(["clone", "--quiet", url]).arg(&clone));
    let content = noise(300_000 + client, client as u64 + 1);
    fs::write(clone.join("file"), content).unwrap();
    succeed(git(&clone).args(["add", "file"]));
    succeed(git(&clone).args(["commit", "--quiet", "-m", "A file"]));
    let mut push = git(&clone);
    push.env("GIT_TRACE_CURL", "1")
        .env("GIT_TRACE_CURL_NO_DATA", "1");
    push.args(["push", "origin", &format!("HEAD:client-{client}")]);
    let told = String::from_utf8_lossy(&succeed(&mut push).stderr).into_owned();
    let chunked = "=> Send header: Transfer-Encoding: chunked";
    assert!(told.contains(chunked), "{told}");
}

#[test]
fn twenty_clients_of_git_push_in_chunks_and_clone_at_once() {
    if !have(&["git"]) {
        return;
    }
    let directory = Directory::new();
    let mut server = start(&directory);
    let url = format!("http://{}/example.git", server.address);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (directory, url) = (directory.path(), &url);
            scope.spawn(move || clone_and_push(directory, url, client));
        }
    });
    let repository = directory.join("repositories/example.git");
    succeed(git(&repository).args(["fsck", "--strict"]));

    // Each client gets the pushes of all.
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (directory, url) = (directory.path(), &url);
            scope.spawn(move || {
                let clone = directory.join(format!("again-{client}"));
                succeed(git(directory).args(["clone", "--quiet", url]).arg(&clone));
                for other in 0..CLIENTS {
                    let name = format!("origin/client-{other}:file");
                    let file = succeed(git(&clone).args(["show", &name])).stdout;
                    assert!(file == noise(300_000 + other, other as u64 + 1), "{name}");
                }
            });
        }
    });
    server.assert_alive();
}

#[test]
fn wrong_paths_and_broken_pushes_end_only_themselves() {
    if !have(&["git"]) {
        return;
    }
    let directory = Directory::new();
    let mut server = start(&directory);
    let service =
        "/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let ask = |path: &str| server.ask(format!("GET {path}{service}").as_bytes());
    ask("/example.git"); // From now on, the server has what it needs for itself.
    settle();
    let idle = server.open_descriptors();
    for (path, wanted) in [
        ("/absent.git", "404"),
        ("/../repositories/example.git", "400"),
        ("/%2e%2e/repositories/example.git", "400"),
        ("/example.git%00", "400"),
        ("/%zz", "400"),
        ("/example.git", "200"),
    ] {
        let answer = ask(path);
        let wanted = format!("HTTP/1.1 {wanted} ");
        assert!(answer.starts_with(&wanted), "{path}: {answer}");
    }
    // Not git's protocol, a chunk that is none, and a client that leaves: the backend ends in each case.
    let post = "POST /example.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n\
        Content-Type: application/x-git-receive-pack-request\r\nTransfer-Encoding: chunked\r\n\
        Connection: close\r\n\r\n";
    server.ask(format!("{post}5\r\nhello\r\n0\r\n\r\n").as_bytes());
    let answer = server.ask(format!("{post}4\r\n0010\r\nnot a chunk\r\n").as_bytes());
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer:?}");
    {
        use std::io::Write;
        let mut stream = server.connect();
        stream.write_all(post.as_bytes()).unwrap();
        stream.write_all(b"4\r\n0010\r\n").unwrap();
    }
    until("nothing is left", || server.open_descriptors() <= idle);
    server.assert_alive();

    let url = format!("http://{}/example.git", server.address);
    clone_and_push(directory.path(), &url, 0);
}
