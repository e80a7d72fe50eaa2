//! Redis, through the crate `redis`.

use std::thread;
use std::time::Duration;

use redis::{Client, Commands, Connection};

use crate::at_once::{Operations, alone};
use crate::server::{Directory, Server, program};

fn start() -> Option<Server> {
    let redis = program("redis-server")?;
    let command = |directory: &Directory, port: u16| {
        let mut command = directory.command(&redis);
        command.args([
            "--save",
            "",
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ]);
        command.arg("--unixsocket").arg(directory.join("socket"));
        command
    };
    let answers = |directory: &Directory, _| connect(&by_socket(directory)).is_ok();
    let directory = Directory::new("redis");
    Some(Server::start(directory, libc::SIGTERM, command, answers))
}

fn by_socket(directory: &Directory) -> String {
    format!("redis+unix://{}", directory.join("socket").display())
}

fn by_port(server: &Server) -> String {
    format!("redis://127.0.0.1:{}", server.port())
}

fn connect(url: &str) -> redis::RedisResult<Connection> {
    Client::open(url)?.get_connection()
}

#[test]
fn pops_that_block_wait_at_once_for_pushes_or_their_timeout() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let count = 40;
    let operations = Operations {
        what: "redis, pops",
        count: 2 * count,
        each: Duration::from_millis(500),
        threads: &[],
    };
    // One half waits, over a Unix socket, for what the other half pushes later, over TCP.
    let popped = operations.run(|number| match number < count {
        true => {
            let mut connection = connect(&by_socket(server.directory())).unwrap();
            let popped: Option<(String, String)> =
                connection.blpop(format!("list {number}"), 30.0).unwrap();
            popped.unwrap().1
        }
        false => {
            thread::sleep(Duration::from_millis(500));
            let number = number - count;
            let mut connection = connect(&by_port(&server)).unwrap();
            let () = connection
                .rpush(format!("list {number}"), format!("value {number}"))
                .unwrap();
            String::new()
        }
    });
    for (number, value) in popped[..count].iter().enumerate() {
        assert_eq!(*value, format!("value {number}"));
    }
}

#[test]
fn pops_of_nothing_time_out_at_once() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "redis, pops that time out",
        count: 40,
        each: Duration::from_millis(500),
        threads: &[],
    };
    let popped = operations.run(|number| {
        let mut connection = connect(&by_port(&server)).unwrap();
        let popped: Option<(String, String)> =
            connection.blpop(format!("empty {number}"), 0.5).unwrap();
        popped
    });
    assert!(popped.iter().all(Option::is_none));
}

#[test]
fn a_subscriber_gets_the_messages_of_a_publisher() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let count = 20;
    let operations = Operations {
        what: "redis, subscribers",
        count: count + 1,
        each: Duration::from_millis(500),
        threads: &[],
    };
    let messages = operations.run(|number| {
        let mut connection = connect(&by_port(&server)).unwrap();
        if number == count {
            let subscribed = |connection: &mut Connection| -> usize {
                let (_, subscribed): (String, usize) = redis::cmd("PUBSUB")
                    .arg(&["NUMSUB", "news"])
                    .query(connection)
                    .unwrap();
                subscribed
            };
            thread::sleep(Duration::from_millis(500));
            while subscribed(&mut connection) < count {
                thread::sleep(Duration::from_millis(10));
            }
            for text in ["one", "two"] {
                let got: usize = connection.publish("news", text).unwrap();
                assert_eq!(got, count);
            }
            return Vec::new();
        }
        let mut subscription = connection.as_pubsub();
        subscription.subscribe("news").unwrap();
        (0..2)
            .map(|_| subscription.get_message().unwrap().get_payload().unwrap())
            .collect::<Vec<String>>()
    });
    assert!(
        messages[..count]
            .iter()
            .all(|messages| messages == &["one", "two"])
    );
}
