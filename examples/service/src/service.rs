//! What the service answers.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use greenroom::server::Connection;
use greenroom::timeout;
use tracing::{info, info_span};

use crate::http::{self, Body, Limits, Reply, Request};
use crate::links::{self, Links};
use crate::numbers::{Numbers, Sample};
use crate::prometheus;

/// The longest address, in bytes.
const MAX_ADDRESS: u64 = 2000;

const PAGE: &str = include_str!("page.html");

pub(crate) struct Service {
    pub(crate) numbers: Numbers,
    links: Links,
    /// How long a request may take.
    deadline: Duration,
}

struct Answer {
    status: &'static str,
    content_type: &'static str,
    /// Where a redirect leads to, or what was made.
    location: Option<String>,
    content: Cow<'static, str>,
}

impl Answer {
    fn ok(content_type: &'static str, content: impl Into<Cow<'static, str>>) -> Answer {
        Answer {
            status: "200 OK",
            content_type,
            location: None,
            content: content.into(),
        }
    }

    fn text(status: &'static str, text: impl Display) -> Answer {
        Answer {
            status,
            ..Answer::ok("text/plain; charset=utf-8", format!("{text}\n"))
        }
    }

    fn at(self, location: String) -> Answer {
        Answer {
            location: Some(location),
            ..self
        }
    }

    fn send(&self, reply: &mut Reply<'_>) -> io::Result<()> {
        let mut fields = vec![("Content-Type", self.content_type)];
        if let Some(location) = &self.location {
            fields.push(("Location", location));
        }
        reply.start(self.status, &fields, Some(self.content.len() as u64))?;
        reply.write_all(self.content.as_bytes())
    }
}

impl Service {
    pub(crate) fn new(links: Links, deadline: Duration) -> Service {
        Service {
            numbers: Numbers::new(),
            links,
            deadline,
        }
    }

    /// Serves a connection. All that is logged meanwhile, here or below, names the connection and the request.
    pub(crate) fn converse(&self, connection: &Connection) -> io::Result<()> {
        let open = self.numbers.connection();
        let peer = connection.peer().map(tracing::field::display);
        let _span = info_span!("connection", id = open.number, peer).entered();
        let limits = Limits {
            head: self.deadline,
            ..Limits::default()
        };
        http::converse(connection, limits, |request, body, reply| {
            let (method, path) = (request.method, request.path_and_query().0);
            let _span = info_span!("request", method, path).entered();
            match (method, path) {
                ("GET", "/plot") => self.stream_plot(connection, reply),
                _ => self.answer_in_time(request, body, reply),
            }
        })
    }

    fn answer_in_time(
        &self,
        request: &Request,
        body: &mut Body<'_>,
        reply: &mut Reply<'_>,
    ) -> io::Result<()> {
        let start = Instant::now();
        let answer = timeout(self.deadline, || self.answer(request, body));
        let answer = answer.unwrap_or_else(|elapsed| Err(elapsed.into()));
        let answer = answer.unwrap_or_else(|error| {
            info!(%error);
            Answer::text(http::status_of(&error), error)
        });
        let took = start.elapsed();
        self.numbers.request(answer.status, took);
        info!(status = answer.status, ?took);
        answer.send(reply)
    }

    fn answer(&self, request: &Request, body: &mut Body<'_>) -> io::Result<Answer> {
        let path = request.path_and_query().0;
        match (request.method, path) {
            ("GET" | "HEAD", "/") => Ok(Answer::ok("text/html; charset=utf-8", PAGE)),
            ("GET" | "HEAD", "/metrics") => {
                let text = self.numbers.text(self.links.count())?;
                Ok(Answer::ok(prometheus::CONTENT_TYPE, text))
            }
            ("POST", "/links") => {
                let address = read_address(body)?;
                let path = format!("/l/{}", self.links.add(&address)?);
                Ok(Answer::text("201 Created", &path).at(path))
            }
            ("GET" | "HEAD", _) => {
                let code = path.strip_prefix("/l/");
                Ok(match code.and_then(|code| self.links.get(code)) {
                    Some(address) => Answer::text("302 Found", &address).at(address),
                    None => Answer::text("404 Not Found", "there is no such page"),
                })
            }
            _ => Ok(Answer::text(
                "405 Method Not Allowed",
                "GET a page, or POST to /links",
            )),
        }
    }

    /// Streams the points of the plot, as server-sent events, until the client leaves or the service stops.
    fn stream_plot(&self, connection: &Connection, reply: &mut Reply<'_>) -> io::Result<()> {
        info!("begins");
        let fields = [
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store"),
        ];
        reply.start("200 OK", &fields, None)?;
        let mut history = self.numbers.subscribe();
        let mut sent = 0;
        while !connection.is_stopping() {
            let samples = history.borrow_and_update();
            let is_new = |sample: &&Sample| sample.number > sent;
            for sample in samples.iter().filter(is_new) {
                let event = format!("data: {}\n\n", sample.json());
                reply.write_all(event.as_bytes())?;
            }
            sent = samples.last().map_or(0, |sample| sample.number);
            reply.flush()?;
            if history.changed().is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn read_address(body: &mut Body<'_>) -> io::Result<String> {
    let mut address = String::new();
    body.take(MAX_ADDRESS + 1).read_to_string(&mut address)?;
    if address.len() as u64 > MAX_ADDRESS {
        let why = format!("an address has {MAX_ADDRESS} bytes at most");
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    links::check(&address)?;
    Ok(address)
}
