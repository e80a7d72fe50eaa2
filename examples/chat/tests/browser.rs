//! The page, in Chromium: Debian's packages `chromium` and `chromium-driver`.

use serde_json::json;

use crate::client::{Client, program, start, terminate};
use crate::program::{Server, have};
use crate::util::own_loopback;
use crate::webdriver::{Browser, ENTER, Tab};

const NAMES: &str = "[...document.querySelectorAll('#here li')].map(li => li.textContent)";
const LAST: &str = "document.querySelector('#talk li:last-child p')?.textContent";
const SAID: &str = "[...document.querySelectorAll('#talk p')].map(p => p.textContent)";
const LAST_NOTE: &str = "[...document.querySelectorAll('#talk .note')].at(-1)?.textContent";
const STATE: &str = "document.getElementById('state').textContent";

/// Keeps all states that the page shows from now on in `window.seen`. The page stays in some for a second only.
const KEEP_STATES: &str = "(window.seen = [], new MutationObserver(() => \
    seen.push(document.getElementById('state').textContent))\
    .observe(document.getElementById('state'), { childList: true, characterData: true, subtree: true }))";

/// What would change the title, if the page took it for HTML.
const MARKUP: &str =
    r#"<img src=x onerror="document.title='bad'"><script>document.title='bad'</script>"#;

fn join(tab: &Tab, server: &Server, name: &str) {
    tab.open(&format!("http://{}/", server.address));
    tab.wait_until(STATE, json!("connected"));
    tab.type_into("#name", &format!("{name}{ENTER}"));
}

fn say(tab: &Tab, text: &str) {
    tab.type_into("#text", &format!("{text}{ENTER}"));
}

#[test]
fn people_use_the_page_in_a_browser() {
    if !have(&["chromium", "chromedriver"]) {
        return;
    }
    // Nothing else listens there while the server is restarted.
    let mut server = Server::start_command(&mut program(&[&format!("{}:0", own_loopback())]));
    let browser = Browser::start();

    let ada = browser.first_tab();
    join(&ada, &server, "Ada");
    ada.wait_until(NAMES, json!(["Ada"]));
    let ben = browser.new_tab();
    join(&ben, &server, "Ada");
    ben.wait_until(
        "document.getElementById('why').textContent",
        json!("This name is taken."),
    );
    join(&ben, &server, "Ben");
    ben.wait_until(NAMES, json!(["Ada", "Ben"]));
    ada.wait_until(NAMES, json!(["Ada", "Ben"]));
    ada.wait_until(LAST_NOTE, json!("Ben has joined"));

    say(&ada, "hello, Ben");
    ben.wait_until(LAST, json!("hello, Ben"));
    say(&ben, "hello, Ada");
    ada.wait_until(LAST, json!("hello, Ada"));

    // Markup is text: in messages, in names, and in the history.
    say(&ada, MARKUP);
    ben.wait_until(LAST, json!(MARKUP));
    let (eve, _) = Client::join(&server, "<i>Eve</i>");
    ben.wait_until(NAMES, json!(["Ada", "Ben", "<i>Eve</i>"]));
    drop(eve);
    ben.wait_until(LAST_NOTE, json!("<i>Eve</i> has left"));
    join(&ben, &server, "Ben");
    ben.wait_until(LAST, json!(MARKUP));
    for tab in [&ada, &ben] {
        assert_eq!(
            tab.value("document.querySelectorAll('main :is(img, script, i)').length"),
            0
        );
        assert_eq!(tab.value("document.title"), "The green room");
    }

    assert_eq!(
        ada.role_and_label("#talk"),
        (json!("log"), json!("Messages"))
    );
    assert_eq!(
        ada.role_and_label("#text"),
        (json!("textbox"), json!("Message"))
    );
    assert_eq!(ada.role_and_label("#state"), (json!("status"), json!("")));
    assert_eq!(browser_complaints(&[&ada, &ben]), Vec::<String>::new());

    let address = server.address.to_string();
    for tab in [&ada, &ben] {
        tab.value(KEEP_STATES);
    }
    terminate(&server);
    for tab in [&ada, &ben] {
        let seen = "seen.includes('disconnected: the server stops')";
        tab.wait_until(seen, json!(true));
        tab.wait_until("document.getElementById('reconnect').hidden", json!(false));
    }
    server.assert_ends();
    let _server = Server::start_command(&mut program(&[&address]));
    // The other one connects by itself.
    ada.value("document.getElementById('reconnect').click()");
    for tab in [&ada, &ben] {
        tab.wait_until(STATE, json!("connected"));
        tab.wait_until(&format!("{NAMES}.sort()"), json!(["Ada", "Ben"]));
    }
    say(&ada, "we are back");
    ben.wait_until(LAST, json!("we are back"));
}

#[test]
fn a_page_waits_for_its_name_while_the_server_has_not_noticed_the_lost_connection() {
    if !have(&["chromium", "chromedriver"]) {
        return;
    }
    let server = start();
    let browser = Browser::start();
    let tab = browser.first_tab();
    join(&tab, &server, "Ben");
    tab.wait_until(NAMES, json!(["Ben"]));
    // As if the page had been welcomed by this name, which the server still has for a connection.
    let (lost, _) = Client::join(&server, "Ada");
    tab.wait_until(NAMES, json!(["Ben", "Ada"]));
    tab.value("(name = 'Ada', socket.close(), 0)");
    tab.wait_until(STATE, json!("connected, and waiting for your name"));
    drop(lost);
    tab.wait_until(NAMES, json!(["Ada"]));
    tab.wait_until(STATE, json!("connected"));
    assert_eq!(tab.value("document.getElementById('join').hidden"), true);
    say(&tab, "back again");
    tab.wait_until(SAID, json!(["back again"]));
}

#[test]
fn a_double_click_sends_the_name_once() {
    if !have(&["chromium", "chromedriver"]) {
        return;
    }
    let server = start();
    let browser = Browser::start();
    let tab = browser.first_tab();
    // A name that is refused does not disable the button for ever.
    let (_ada, _) = Client::join(&server, "Ada");
    join(&tab, &server, "Ada");
    tab.wait_until(
        "document.getElementById('why').textContent",
        json!("This name is taken."),
    );
    tab.type_into("#name", " B");
    tab.value(
        "(button => { button.click(); button.click(); })(document.querySelector('#join button'))",
    );
    tab.wait_until(NAMES, json!(["Ada", "Ada B"]));
    say(&tab, "hello");
    tab.wait_until(LAST, json!("hello"));
    assert_eq!(tab.value(SAID), json!(["hello"]));
}

fn browser_complaints(tabs: &[&Tab]) -> Vec<String> {
    let all = tabs.iter().flat_map(|tab| tab.complaints());
    all.map(|complaint| complaint.to_string()).collect()
}
