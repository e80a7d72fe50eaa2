//! Real servers, and the blocking drivers that programs use for them, unmodified: C libraries and crates.
//!
//! Each test starts a server of its own. It needs the packages that `.ci/run` installs. If a server is not on
//! the machine, its tests say so and pass, unless `GREENROOM_REQUIRE_SERVERS` is set.

greenroom::patch!(unsafe);

mod at_once;
mod fake_mysql;
mod ldap;
mod libmariadb;
mod mail;
mod mariadb;
mod memcached;
mod postgres;
mod postgres_server;
mod proxy;
mod redis;
mod server;
mod sqlite;
#[path = "../util.rs"]
mod util;
