//! MariaDB, through its C library and through the crate `mysql`.

use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Pool, PoolConstraints, PoolOpts};

use crate::at_once::{Operations, alone};
use crate::libmariadb::{CConnection, start};
use crate::server::Server;

const HALF: Duration = Duration::from_millis(500);

/// A query that takes half a second, and its answer.
fn query(number: usize) -> String {
    format!("select sleep(0.5), {number} * 2, 'number {number}'")
}

fn answer(number: usize) -> [String; 3] {
    [
        "0".to_owned(),
        (number * 2).to_string(),
        format!("number {number}"),
    ]
}

#[test]
fn queries_of_libmariadb_wait_at_once() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "libmariadb",
        count: 40,
        each: HALF,
        threads: &[],
    };
    let rows = operations.run(|number| {
        // One half over a Unix socket, the other over TCP.
        let connection = match number % 2 {
            0 => CConnection::to_socket(server.directory()),
            _ => CConnection::to_port(&server),
        };
        connection.unwrap().first_row(&query(number)).unwrap()
    });
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row[..], answer(number));
    }
}

#[test]
fn a_late_error_of_the_server_reaches_the_caller_of_libmariadb() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "libmariadb, statements that fail",
        count: 20,
        each: HALF,
        threads: &[],
    };
    let outcomes = operations.run(|number| {
        let connection = CConnection::to_port(&server).unwrap();
        let outcome = connection.first_row(&format!(
            "begin not atomic
                do sleep(0.5);
                signal sqlstate '45000' set message_text = 'refused {number}';
            end"
        ));
        // The connection goes on.
        assert_eq!(connection.first_row("select 1"), Ok(vec!["1".to_owned()]));
        outcome
    });
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome, Err(format!("refused {number}")));
    }
}

fn options(server: &Server) -> OptsBuilder {
    OptsBuilder::new()
        .ip_or_hostname(Some("127.0.0.1"))
        .tcp_port(server.port())
        .user(Some("test"))
        .pass(Some("secret"))
        .prefer_socket(false)
}

#[test]
fn queries_of_the_crate_mysql_wait_at_once() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "mysql",
        count: 40,
        each: HALF,
        threads: &[],
    };
    let rows = operations.run(|number| {
        let mut connection = Conn::new(options(&server)).unwrap();
        let row: Option<(u32, usize, String)> = connection.query_first(query(number)).unwrap();
        row.unwrap()
    });
    for (number, row) in rows.into_iter().enumerate() {
        assert_eq!(row, (0, number * 2, format!("number {number}")));
    }
}

#[test]
fn a_pool_of_the_crate_mysql_lends_its_ten_connections_to_forty_callers() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let ten = PoolConstraints::new(10, 10).unwrap();
    let options = options(&server).pool_opts(PoolOpts::default().with_constraints(ten));
    let pool = Pool::new(options).unwrap();
    let operations = Operations {
        what: "mysql's pool of 10",
        count: 40,
        each: HALF,
        threads: &[],
    };
    let connections = operations.run(|number| {
        let mut connection = pool.get_conn().unwrap();
        let row: Option<(u32, u64, usize)> = connection
            .exec_first("select sleep(0.5), connection_id(), ?", (number,))
            .unwrap();
        let (_, connection, answer) = row.unwrap();
        assert_eq!(answer, number);
        connection
    });
    let mut different = connections;
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 10);
}
