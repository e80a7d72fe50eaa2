//! The addresses of pages: as much of RFC 3986 as `http` and `https` need.

use std::fmt;
use std::io;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The path and the query.
    pub(crate) target: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn usual_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

fn malformed(text: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?}: {why}"))
}

impl Url {
    /// # Errors
    ///
    /// `InvalidInput`, if it is no such address, or has another scheme.
    pub(crate) fn parse(text: &str) -> io::Result<Url> {
        let bad = |why| malformed(text, why);
        let (scheme, rest) = text.split_once("://").ok_or(bad("not an address"))?;
        let scheme = [Scheme::Http, Scheme::Https]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known.name()))
            .ok_or(bad("only http and https are spoken here"))?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("spaces and other characters must be escaped"));
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(bad("a bracket is missing"))?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => scheme.usual_port(),
            None | Some("") => return Err(bad("not a port")),
            Some(port) => port.parse().map_err(|_| bad("not a port"))?,
        };
        if host.is_empty() || host.contains('@') {
            return Err(bad("not a host"));
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url {
            scheme,
            host: host.to_owned(),
            port,
            target: format!("{slash}{target}"),
        })
    }

    /// The address that `reference` means on this page.
    pub(crate) fn join(&self, reference: &str) -> io::Result<Url> {
        let reference = reference.split('#').next().unwrap_or_default();
        let path_end = self.target.find('?').unwrap_or(self.target.len());
        let path = &self.target[..path_end];
        let end_of_first = reference.find(['/', '?']).unwrap_or(reference.len());
        let target = if reference[..end_of_first].contains(':') {
            return Url::parse(reference);
        } else if reference.starts_with("//") {
            return Url::parse(&format!("{}:{reference}", self.scheme.name()));
        } else if reference.is_empty() {
            self.target.clone()
        } else if reference.starts_with('/') {
            without_dots(reference)
        } else if reference.starts_with('?') {
            format!("{path}{reference}")
        } else {
            let directory = &path[..=path.rfind('/').unwrap_or(0)];
            without_dots(&format!("{directory}{reference}"))
        };
        let url = Url {
            target,
            ..self.clone()
        };
        // Also checks the characters.
        Url::parse(&url.to_string())
    }

    /// The host, and the port unless it is the usual one.
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == self.scheme.usual_port() {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.name();
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// Resolves the parts `.` and `..` of a path, which may have a query.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if matches!(path.rsplit('/').next(), Some("." | "..")) {
        parts.push("");
    }
    format!("/{}{query}", parts.join("/"))
}
