//! A client of a key-value store that answers by callbacks, used by sequential code. Its callbacks come from an
//! OS thread of its own, or at once, or never; a lookup returns, or fails, in each case.
//!
//! ```text
//! $ cargo run --example callback_kv
//! ada has ordered: tea, ink
//! grace: there is no such item
//! alan: the store has dropped the request
//! edsger: no answer in time
//! ```

use std::io::{self, ErrorKind};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use greenroom::{from_callback, join_all, spawn, timeout};

/// What the store calls with the item, or with `None` if there is no such key.
type Callback = Box<dyn FnOnce(Option<String>) + Send>;

/// The client as its library has it: it knows nothing of coroutines.
#[derive(Clone)]
struct Store {
    requests: Sender<(String, Callback)>,
}

impl Store {
    fn connect() -> Store {
        let (requests, queue) = channel::<(String, Callback)>();
        thread::spawn(move || {
            let mut kept = Vec::new();
            for (key, callback) in queue {
                match key.as_str() {
                    "users/ada" => callback(Some("17".into())),
                    "orders/17" => callback(Some("tea, ink".into())),
                    "users/alan" => drop(callback),
                    "users/edsger" => kept.push(callback),
                    _ => callback(None),
                }
            }
        });
        Store { requests }
    }

    fn get_item(&self, table: &str, key: &str, callback: Callback) {
        if key.is_empty() {
            return callback(None); // It need not ask for that.
        }
        let request = (format!("{table}/{key}"), callback);
        self.requests.send(request).expect("the thread runs");
    }
}

/// The same call, as sequential code has it.
fn get(store: &Store, table: &str, key: &str) -> io::Result<String> {
    let item = timeout(Duration::from_secs(2), || {
        from_callback(|done| {
            let callback = move |item| _ = done.call(item);
            store.get_item(table, key, Box::new(callback));
        })
    });
    let item = item.map_err(|_| io::Error::new(ErrorKind::TimedOut, "no answer in time"))?;
    let item = item.map_err(|_| io::Error::other("the store has dropped the request"))?;
    item.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "there is no such item"))
}

fn orders(store: &Store, user: &str) -> io::Result<String> {
    let number = get(store, "users", user)?;
    get(store, "orders", &number)
}

fn main() {
    let store = Store::connect();
    let users = ["ada", "grace", "alan", "edsger"];
    let lookups = users.map(|user| {
        let store = store.clone();
        spawn(move || orders(&store, user))
    });
    for (user, orders) in users.iter().zip(join_all(lookups)) {
        match orders.expect("a lookup does not panic") {
            Ok(orders) => println!("{user} has ordered: {orders}"),
            Err(error) => println!("{user}: {error}"),
        }
    }
}
