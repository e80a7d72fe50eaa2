//! Programs of other packages: an ordinary one, in `benches/peers/program`, and the clients in
//! `benches/peers/clients`, which are one program with all peers.
//!
//! There are two builds of the ordinary program: by `cargo build`, on std's threads, and by `cargo greenroom build`, on
//! green threads. tokio has counterparts of its commands `serve` and `sleeps`, which are here. The programs
//! run as they come: on all CPUs, unless the work says otherwise.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::child::{Process, own};
use crate::database::Database;
use crate::load::Load;
use crate::peers::{ANY_PORT, Peer, run_tokio};
use crate::usage::{self, Usage};
use crate::works::Work;

/// What the program does in a work.
#[derive(Clone, Copy)]
pub(crate) enum Program {
    /// It serves this load.
    Serve(Load),
    /// It runs this command. `{url}` stands for a page that takes 100 ms.
    Run(&'static [&'static str]),
    /// The clients run this command. `{peer}` stands for the name of the peer, and `{database}` for the address
    /// of a PostgreSQL server.
    Clients(&'static [&'static str]),
}

/// How long the page takes that the program fetches.
const PAGE_TIME: Duration = Duration::from_millis(100);

/// How often the memory and the threads of a program are looked at.
const SAMPLING: Duration = Duration::from_millis(2);

impl Program {
    /// Builds the programs, and says what the work is scaled down to.
    pub(crate) fn prepare(self) -> io::Result<()> {
        match self {
            Program::Clients(args) => drop(clients(args.contains(&"{database}"))?),
            Program::Serve(_) | Program::Run(_) => drop(Builds::get()?),
        }
        if let Program::Serve(load) = self
            && load.fitting().connections < load.connections
        {
            println!(
                "  Only {} connections: {} take a limit of {} descriptors (ulimit -n), and here it is {}.",
                load.fitting().connections,
                load.connections,
                load.connections + Load::OTHER_DESCRIPTORS,
                Load::descriptors(),
            );
        }
        Ok(())
    }
}

/// Runs one round of one peer: `[wall ms, CPU ms, MiB of RSS, OS threads]`
///
/// For a server, the memory and the threads are those at the end, when all clients are connected. Otherwise
/// they are the most that there were.
pub(crate) fn round(program: Program, work: &Work, peer: Peer) -> io::Result<Vec<f64>> {
    match program {
        Program::Serve(load) => serve(load, work, &mut command(peer, work, &["serve"])?),
        Program::Run(args) => {
            let args = filled_in(args, peer, None)?;
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut command = command(peer, work, &args)?;
            if args[0] == "gets" {
                command.env("GREENROOM_WORKERS", "1");
            }
            run(&mut command)
        }
        Program::Clients(args) => {
            let queries = args.contains(&"{database}");
            let database = queries.then(Database::start).transpose()?;
            let mut command = Command::new(clients(queries)?);
            command.args(filled_in(args, peer, database.as_ref())?);
            run(&mut command)
        }
    }
}

/// The arguments with what stands in braces.
fn filled_in(args: &[&str], peer: Peer, database: Option<&Database>) -> io::Result<Vec<String>> {
    let fill = |arg: &&str| {
        Ok(match *arg {
            "{url}" => format!("http://{}/", page()?),
            "{peer}" => peer.name().to_owned(),
            "{database}" => database.expect("started for it").address(),
            arg => arg.to_owned(),
        })
    };
    args.iter().map(fill).collect()
}

fn command(peer: Peer, work: &Work, args: &[&str]) -> io::Result<Command> {
    let builds = Builds::get()?;
    let program = match peer {
        Peer::Greenroom => &builds.greenroom,
        Peer::Threads => &builds.std,
        _ => return own(&["--counterpart", work.name]),
    };
    let mut command = Command::new(program);
    command.args(args).stderr(Stdio::null());
    Ok(command)
}

fn serve(load: Load, work: &Work, command: &mut Command) -> io::Result<Vec<f64>> {
    let mut server = Process::start(command)?;
    let addr = server.line()?;
    let cpu_before = usage::cpu_time(server.id())?;
    let start = Instant::now();
    let mut client = own(&["--load", work.name, &addr, &load.messages.to_string()])?;
    let mut client = Process::start(&mut client)?;
    client.line()?; // All are connected, and the server is warm.
    client.say()?;
    client.numbers()?;
    let wall = start.elapsed();
    let cpu = usage::cpu_time(server.id())? - cpu_before;
    let process = server.id().to_string();
    let ended = || io::Error::other("the server has ended");
    let resident = usage::resident_bytes(&process).ok_or_else(ended)?;
    let (_, threads) = usage::peak_and_threads(&process).ok_or_else(ended)?;
    client.end()?;
    Ok(vec![
        wall.as_secs_f64() * 1e3,
        cpu / 1e6,
        resident / MIB,
        threads,
    ])
}

fn run(command: &mut Command) -> io::Result<Vec<f64>> {
    let before = Usage::children();
    let mut process = Process::start(command)?;
    let id = process.id().to_string();
    let running = AtomicBool::new(true);
    let (wall, peaks) = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peaks = (0.0_f64, 0.0_f64);
            while running.load(Relaxed) {
                if let Some((resident, threads)) = usage::peak_and_threads(&id) {
                    peaks = (peaks.0.max(resident), peaks.1.max(threads));
                }
                thread::sleep(SAMPLING);
            }
            peaks
        });
        let wall = process.numbers();
        running.store(false, Relaxed);
        (wall, sampler.join().expect("a sampler that does not panic"))
    });
    let wall = match wall?[..] {
        [wall] => wall,
        _ => return Err(io::Error::other("not the time that a program took")),
    };
    process.end()?;
    let used = Usage::children() - before;
    Ok(vec![wall / 1e6, used.total() / 1e6, peaks.0 / MIB, peaks.1])
}

const MIB: f64 = (1 << 20) as f64;

// ------------------------------------------------------- the builds

/// The executables of the program.
struct Builds {
    std: PathBuf,
    greenroom: PathBuf,
}

impl Builds {
    /// Builds the program in both ways, the first time.
    fn get() -> io::Result<&'static Builds> {
        static BUILDS: OnceLock<Builds> = OnceLock::new();
        if let Some(builds) = BUILDS.get() {
            return Ok(builds);
        }
        let cargo_greenroom = [
            "run",
            "--quiet",
            "--release",
            "--package",
            "cargo-greenroom",
        ];
        let greenroom = [&cargo_greenroom[..], &["--", "build"]].concat();
        let builds = Builds {
            std: build(&["build"], "peers-program")?,
            greenroom: build(&greenroom, "peers-program")?,
        };
        Ok(BUILDS.get_or_init(|| builds))
    }
}

/// The executable of the clients, with or without the queries. Builds it, the first time.
fn clients(with_queries: bool) -> io::Result<&'static Path> {
    static CLIENTS: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    let clients = &CLIENTS[usize::from(with_queries)];
    if let Some(clients) = clients.get() {
        return Ok(clients);
    }
    let command: &[&str] = match with_queries {
        true => &["build", "--features", "queries"],
        false => &["build"],
    };
    let built = build(command, "peers-clients")?;
    Ok(clients.get_or_init(|| built))
}

/// Builds a package with this command of cargo's. Returns the path of its executable.
fn build(command: &[&str], package: &str) -> io::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .args(command)
        .args(["--release", "--package", package])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        let message = format!("cargo {} ended with {}", command.join(" "), output.status);
        return Err(io::Error::other(message));
    }
    // The path stands in one of the lines of JSON, as a string.
    let messages = String::from_utf8_lossy(&output.stdout);
    let path = messages
        .lines()
        .filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next())
        .next_back();
    path.map(PathBuf::from)
        .ok_or_else(|| io::Error::other("cargo has not said where the program is"))
}

// ------------------------------------------------------- the page

/// The address of the page. Starts its server, the first time.
fn page() -> io::Result<SocketAddr> {
    static PAGE: OnceLock<SocketAddr> = OnceLock::new();
    if let Some(addr) = PAGE.get() {
        return Ok(*addr);
    }
    let listener = std::net::TcpListener::bind(ANY_PORT)?;
    // std's backlog of 128 is too short for as many clients as come at once.
    // SAFETY: `listen` only takes numbers, and the listener is open.
    if unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 4_096) } != 0 {
        return Err(io::Error::last_os_error());
    }
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    thread::Builder::new().spawn(move || run_tokio(Peer::Tokio, 1, serve_page(listener)))?;
    Ok(*PAGE.get_or_init(|| addr))
}

async fn serve_page(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await? == 0 {
                    return Ok(());
                }
            }
            tokio::time::sleep(PAGE_TIME).await;
            let page = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n";
            stream.write_all(page.as_bytes()).await
        });
    }
}

// ------------------------------------------------------- the counterparts on tokio

/// Does what the program does in `program`, on tokio, and prints the same.
pub(crate) fn counterpart(program: Program) -> io::Result<()> {
    let workers = thread::available_parallelism()?.get();
    match program {
        Program::Serve(_) => run_tokio(Peer::TokioMt, workers, echo_server()),
        Program::Run(&["sleeps", count, ms]) => {
            let count = count.parse().map_err(io::Error::other)?;
            let ms = ms.parse().map_err(io::Error::other)?;
            let start = Instant::now();
            run_tokio(
                Peer::TokioMt,
                workers,
                sleeps(count, Duration::from_millis(ms)),
            );
            println!("{}", start.elapsed().as_nanos());
            Ok(())
        }
        Program::Run(_) | Program::Clients(_) => Err(io::Error::other("tokio has no counterpart")),
    }
}

async fn echo_server() -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let mut buf = [0; 1024];
            loop {
                let n = stream.read(&mut buf).await?;
                if n == 0 {
                    return io::Result::Ok(());
                }
                stream.write_all(&buf[..n]).await?;
            }
        });
    }
}

async fn sleeps(count: usize, duration: Duration) {
    let mut tasks = Vec::with_capacity(count);
    for _ in 0..count {
        tasks.push(tokio::spawn(tokio::time::sleep(duration)));
    }
    for task in tasks {
        task.await.expect("a task that does not panic");
    }
}
