//! From HTTP to a WebSocket.

use std::io::{self, Write};

use tungstenite::handshake::server::{Response, create_response};

use crate::http::{Reply, Request};
use crate::websocket::{self, Limits, Messages, Outbox};

/// Changes to the WebSocket protocol. `talk` then has the conversation.
pub(crate) fn upgrade(
    request: &Request,
    reply: &mut Reply,
    limits: Limits,
    talk: impl FnOnce(&mut Messages, &Outbox) + Send + 'static,
) -> io::Result<()> {
    // Otherwise any page in the user's browser could take part in the user's name.
    let is_foreign = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host != request.field("Host")
    };
    if request.field("Origin").is_some_and(is_foreign) {
        return reply.text("403 Forbidden", "this is for the server's own page");
    }
    let response = match shake_hands(request) {
        Ok(response) => response,
        Err(error) => {
            let fields = [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")];
            let text = format!("{error}\n");
            reply.start("426 Upgrade Required", &fields, Some(text.len() as u64))?;
            return reply.write_all(text.as_bytes());
        }
    };
    let fields = response.headers().iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
    reply.upgrade(&fields.collect::<Vec<_>>(), move |connection, received| {
        websocket::converse(connection, received, &limits, talk)
    })
}

/// tungstenite's answer to the request. Fails if the request does not ask for a WebSocket in the right way.
fn shake_hands(request: &Request) -> tungstenite::Result<Response> {
    use tungstenite::http::{Request, Version};

    let version = match request.is_1_0 {
        true => Version::HTTP_10,
        false => Version::HTTP_11,
    };
    let head = Request::builder().method(request.method).version(version);
    let fields = request.fields.iter();
    let head = fields.fold(head, |head, field| head.header(field.name, field.value));
    create_response(&head.body(())?)
}
