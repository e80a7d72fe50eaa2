//! A game with a loop of its own, which draws frames, reads keys, and gives greenroom its turns.
//!
//! The hero is a coroutine: sequential code that waits for keys, for frames, and for a server, and that shares the
//! world with the loop, without a lock. The loop waits for the keyboard and for the runtime by one `poll(2)`, and
//! never for longer than a frame.
//!
//! ```text
//! $ cargo run --example game_loop
//! |@....| the hero wakes up
//! |.@...| right
//! |..@..| right
//! |.@...| left
//! |.@...| the hero asks the oracle
//! |.@...| the oracle says: go home, after 3 frames
//! |@....| home
//! ```

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use greenroom::channel::{self, Receiver};
use greenroom::shims::net::TcpStream;
use greenroom::{RuntimeBuilder, Turn};
use rustix::event::{PollFd, PollFlags, poll};

const FRAME: Duration = Duration::from_millis(5);

/// How many frames have been drawn.
static FRAMES: AtomicU64 = AtomicU64::new(0);

struct World {
    hero: usize,
    story: String,
}

impl World {
    fn draw(&self) -> String {
        let field: String = (0..5)
            .map(|at| if at == self.hero { '@' } else { '.' })
            .collect();
        format!("|{field}| {}", self.story)
    }
}

/// The life of the hero, on a coroutine.
fn hero(
    world: &RefCell<World>,
    keys: &Receiver<u8>,
    frames: &Receiver<()>,
    oracle: SocketAddr,
) -> io::Result<()> {
    let tell = |steps: isize, story: &str| {
        let mut world = world.borrow_mut();
        world.hero = world.hero.saturating_add_signed(steps);
        world.story = story.into();
        drop(world);
        // Until it was drawn.
        frames.iter().take(1).for_each(drop);
    };
    tell(0, "the hero wakes up");
    for key in keys {
        match key {
            b'r' => tell(1, "right"),
            _ => tell(-1, "left"),
        }
    }
    tell(0, "the hero asks the oracle");
    let mut answer = String::new();
    TcpStream::connect(oracle)?.read_to_string(&mut answer)?;
    tell(0, &format!("the oracle says: {answer}"));
    tell(-1, "home");
    Ok(())
}

/// A server that takes its time: the game must have drawn three frames before it answers.
fn oracle() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> io::Result<()> {
        let (mut pilgrim, _) = listener.accept()?;
        let begun = FRAMES.load(Ordering::Relaxed);
        while FRAMES.load(Ordering::Relaxed) < begun + 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        pilgrim.write_all(b"go home, after 3 frames")
    });
    Ok(address)
}

fn main() -> io::Result<()> {
    let runtime = RuntimeBuilder::new().workers(1).build()?;
    let world = Rc::new(RefCell::new(World {
        hero: 0,
        story: String::new(),
    }));
    // Stands for the keyboard. No more keys are pressed after these.
    let (mut player, mut keyboard) = UnixStream::pair()?;
    player.write_all(b"rrl")?;
    drop(player);

    let (press, keys) = channel::unbounded();
    let mut press = Some(press);
    // A frame that nobody waits for is not kept.
    let (drawn, frames) = channel::bounded(0);
    let oracle = oracle()?;
    let result = Rc::new(Cell::new(None));
    runtime.spawn_local({
        let (world, result) = (Rc::clone(&world), Rc::clone(&result));
        move || result.set(Some(hero(&world, &keys, &frames, oracle)))
    });

    let mut shown = String::new();
    loop {
        let end_of_frame = Instant::now() + FRAME;
        loop {
            let left = end_of_frame.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let mut fds = vec![PollFd::from_borrowed_fd(runtime.as_fd(), PollFlags::IN)];
            if press.is_some() {
                fds.push(PollFd::from_borrowed_fd(keyboard.as_fd(), PollFlags::IN));
            }
            poll(&mut fds, Some(&left.try_into().expect("a frame is short")))?;
            let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
            if is_ready(&fds[0]) && runtime.turn(Some(Duration::ZERO)) == Turn::Done {
                break;
            }
            if fds.get(1).is_some_and(is_ready) {
                let mut key = [0];
                match keyboard.read(&mut key)? {
                    // The hero's loop over the keys ends.
                    0 => press = None,
                    _ => press.iter().for_each(|press| press.send(key[0]).unwrap()),
                }
            }
        }
        let picture = world.borrow().draw();
        if picture != shown && !world.borrow().story.is_empty() {
            println!("{picture}");
            shown = picture;
        }
        FRAMES.fetch_add(1, Ordering::Relaxed);
        let _ = drawn.try_send(());
        if let Some(result) = result.take() {
            return result;
        }
    }
}
