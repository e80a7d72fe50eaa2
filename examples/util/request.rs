//! The head of a request.

use std::mem::MaybeUninit;

use httparse::Header;

/// How many fields a head may have.
pub(crate) const MAX_FIELDS: usize = 64;

/// The head of a request, in the buffer that it was read into.
pub(crate) struct Request<'r> {
    pub(crate) method: &'r str,
    pub(crate) target: &'r str,
    pub(crate) fields: &'r [Header<'r>],
    pub(crate) is_1_0: bool,
    pub(crate) length: Length,
    pub(crate) keeps_alive: bool,
    pub(crate) awaits_continue: bool,
}

/// The length of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Known(u64),
    Chunked,
}

/// A status and a reason for the client.
pub(crate) type Refusal = (&'static str, &'static str);

fn bad(why: &'static str) -> Refusal {
    ("400 Bad Request", why)
}

impl<'r> Request<'r> {
    /// Returns the request at the front of `input` and the length of its head, or `None` if not all of the head has
    /// come.
    pub(crate) fn parse(
        input: &'r [u8],
        fields: &'r mut [MaybeUninit<Header<'r>>],
    ) -> Result<Option<(Request<'r>, usize)>, Refusal> {
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(input, fields) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(("431 Request Header Fields Too Large", "too many fields"));
            }
            Err(httparse::Error::Version) => {
                return Err(("505 HTTP Version Not Supported", "not HTTP/1.1"));
            }
            Err(_) => return Err(bad("malformed head")),
        };
        let is_1_0 = parsed.version == Some(0);
        let mut request = Request {
            method: parsed.method.unwrap_or_default(),
            target: parsed.path.unwrap_or_default(),
            fields: parsed.headers,
            is_1_0,
            length: Length::Known(0),
            keeps_alive: !is_1_0,
            awaits_continue: false,
        };
        request.understand()?;
        Ok(Some((request, length)))
    }

    /// Looks at the fields that say how to go on with the connection.
    fn understand(&mut self) -> Result<(), Refusal> {
        let (mut hosts, mut length, mut coding) = (0, None, None);
        for field in self.fields {
            // Most clients spell a name as it is here.
            let is = |name: &str| field.name == name || field.name.eq_ignore_ascii_case(name);
            let value = field.value;
            if is("Host") {
                hosts += 1;
            } else if is("Connection") && value == b"keep-alive" {
                // No need to split what most clients send.
                self.keeps_alive |= self.is_1_0;
            } else if is("Connection") {
                for option in value.split(|&byte| byte == b',') {
                    let option = option.trim_ascii();
                    if option.eq_ignore_ascii_case(b"close") {
                        self.keeps_alive = false;
                    } else if self.is_1_0 && option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keeps_alive = true;
                    }
                }
            } else if is("Content-Length") {
                if length.replace(value).is_some() {
                    return Err(bad("more than one Content-Length"));
                }
            } else if is("Transfer-Encoding") {
                if coding.replace(value).is_some() {
                    return Err(bad("more than one Transfer-Encoding"));
                }
            } else if is("Expect") {
                if self.awaits_continue || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(("417 Expectation Failed", "unknown Expect"));
                }
                self.awaits_continue = !self.is_1_0;
            }
        }
        if hosts > 1 || (hosts == 0 && !self.is_1_0) {
            return Err(bad("there must be one field Host"));
        }
        // A length that could be understood in two ways lets a request hide in another, behind a proxy.
        self.length = match (coding, length) {
            (None, None) => Length::Known(0),
            (None, Some(digits)) => {
                let number = str::from_utf8(digits).ok();
                let number = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let length = number.and_then(|text| text.parse().ok());
                Length::Known(length.ok_or(bad("malformed Content-Length"))?)
            }
            (Some(coding), None) if !self.is_1_0 => match coding.eq_ignore_ascii_case(b"chunked") {
                true => Length::Chunked,
                false => return Err(("501 Not Implemented", "unknown Transfer-Encoding")),
            },
            _ => return Err(bad("contradictory lengths")),
        };
        Ok(())
    }

    /// The first field of this name, if it is UTF-8.
    pub(crate) fn field(&self, name: &str) -> Option<&'r str> {
        let mut fields = self.fields.iter();
        let field = fields.find(|field| field.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(field.value).ok()
    }

    /// The target up to its `?`, and the part behind it.
    pub(crate) fn path_and_query(&self) -> (&'r str, &'r str) {
        let mut bytes = self.target.bytes();
        match bytes.position(|byte| byte == b'?') {
            Some(at) => (&self.target[..at], &self.target[at + 1..]),
            None => (self.target, ""),
        }
    }

    /// The length of the body, unless it comes in chunks.
    pub(crate) fn content_length(&self) -> Option<u64> {
        match self.length {
            Length::Known(length) => Some(length),
            Length::Chunked => None,
        }
    }
}
