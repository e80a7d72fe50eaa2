//! A live view of the coroutines of a running program, which serves a backdoor (`greenroom::backdoor`).
//!
//! ```console
//! $ cargo run --release -p top -- /run/app/backdoor
//! ```
//!
//! `examples/README.md` has a screen. Its last line has the keys, and `?` explains them.
//!
//! What this program waits for, it waits for in coroutines of one worker: keys, signals, and the replies of the program
//! that it looks at. All of them tell the main coroutine, which draws. Replies are parsed on the pool of threads, so a
//! program with a hundred thousand coroutines does not delay the keys.

mod app;
mod keys;
mod link;
#[path = "../../util/printable.rs"]
mod printable;
mod sample;
mod table;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use greenroom::channel::{Receiver, Sender, unbounded};
use greenroom::signal::{self, SIGHUP, SIGTERM, SIGWINCH};
use greenroom::{RuntimeBuilder, spawn};

use app::{App, Flow};
use keys::Key;
use link::Link;
use sample::Sample;

/// What the main coroutine is told.
enum Event {
    Key(Key),
    /// The terminal has another size.
    Resized,
    Sample(Box<Sample>),
    /// The reply to what the user has asked for.
    Reply(link::Reply),
    /// There is no conversation with the program, for this reason.
    Lost(String),
    /// The terminal is gone, or a signal asks this program to end.
    End,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(path), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: top PATH, where PATH is the socket of the program's backdoor");
        return ExitCode::from(2);
    };
    match look_at(path.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("top: {error}");
            ExitCode::FAILURE
        }
    }
}

fn look_at(path: PathBuf) -> io::Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(io::Error::other("there is no terminal"));
    }
    RuntimeBuilder::new().workers(1).build()?.run(|| {
        // A path that is wrong is told before the screen is taken.
        let link = Link::connect(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        let (tell, events) = unbounded();
        let (ask, requests) = unbounded();
        // It puts the terminal back after a panic, too.
        let mut terminal = ratatui::try_init()?;
        spawn({
            let tell = tell.clone();
            move || {
                let _ = keys::read(|key| drop(tell.send(Event::Key(key))));
                // Without keys there is no way to quit.
                tell.send(Event::End)
            }
        });
        spawn({
            let tell = tell.clone();
            move || wait_for_signals(&tell)
        });
        spawn(move || link::watch(link, &path, &requests, &tell));
        let shown = show(&mut terminal, App::new(ask), &events);
        ratatui::try_restore()?;
        shown
    })
}

/// Draws after each event, until the user quits.
fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut app: App,
    events: &Receiver<Event>,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| view::draw(frame, &mut app))?;
        let Ok(event) = events.recv() else {
            return Ok(());
        };
        // Keys that are held down come faster than a slow terminal draws.
        for event in std::iter::once(event).chain(events.try_iter()) {
            if app.handle(event) == Flow::Quit {
                return Ok(());
            }
        }
    }
}

fn wait_for_signals(tell: &Sender<Event>) -> io::Result<()> {
    loop {
        let event = match signal::wait(&[SIGHUP, SIGTERM, SIGWINCH])? {
            SIGWINCH => Event::Resized,
            _ => Event::End,
        };
        let _ = tell.send(event);
    }
}
