//! The room of the chat: its members, and what was said last.
//!
//! What happens is told to all members in one order, as JSON:
//!
//! ```text
//! {"kind": "welcome", "names": [...], "history": [...]}   to a new member, before all else
//! {"kind": "refused", "why": "..."}                       to one that must choose another name
//! {"kind": "joined", "name": "..."}
//! {"kind": "left", "name": "..."}
//! {"kind": "said", "name": "...", "text": "...", "at": 1700000000000}
//! ```

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use greenroom::shims::sync::{Mutex, MutexGuard, PoisonError};
use serde_json::{Value, json};

use crate::websocket::{self, Outbox};

/// How many messages a new member is shown.
const HISTORY: usize = 20;

/// The longest name, in characters.
const LONGEST_NAME: usize = 20;

#[derive(Default)]
pub(crate) struct Room(Mutex<State>);

#[derive(Default)]
struct State {
    members: Vec<(String, Outbox)>,
    history: VecDeque<Value>,
}

impl Room {
    /// Adds a member, which leaves when the result is dropped. Fails if the name cannot be had.
    pub(crate) fn join(&self, name: &str, outbox: &Outbox) -> Result<Member<'_>, &'static str> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > LONGEST_NAME {
            return Err("A name has 1 to 20 characters.");
        }
        if name.chars().any(char::is_control) {
            return Err("A name has no control characters.");
        }
        let mut state = self.lock();
        let folded = name.to_lowercase();
        if state.names().any(|other| other.to_lowercase() == folded) {
            return Err("This name is taken.");
        }
        state.tell(json!({"kind": "joined", "name": name}));
        state.members.push((name.to_owned(), outbox.clone()));
        let names: Vec<_> = state.names().collect();
        let welcome = json!({"kind": "welcome", "names": names, "history": state.history});
        let _ = outbox.offer(websocket::text(welcome.to_string()));
        Ok(Member {
            room: self,
            name: name.to_owned(),
            outbox: outbox.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A member that is cancelled at the end of the server may be in the midst of a telling.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a member whose name cannot be had.
pub(crate) fn refuse(outbox: &Outbox, why: &str) {
    let refused = json!({"kind": "refused", "why": why});
    let _ = outbox.offer(websocket::text(refused.to_string()));
}

impl State {
    /// Whether the member has not left. Another one may have its name by now.
    fn has(&self, member: &Outbox) -> bool {
        self.members.iter().any(|(_, other)| other.is(member))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }

    /// Tells all members, without waiting for any of them. Those that are too slow leave, which is told, too.
    fn tell(&mut self, event: Value) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let frame = websocket::text(event.to_string());
            self.members.retain(|(name, outbox)| {
                let told = outbox.offer(frame.clone());
                if told.is_err() {
                    events.push_back(json!({"kind": "left", "name": name}));
                }
                told.is_ok()
            });
        }
    }
}

pub(crate) struct Member<'r> {
    room: &'r Room,
    name: String,
    outbox: Outbox,
}

impl Member<'_> {
    /// Says something to all members. Blanks alone are nothing.
    pub(crate) fn say(&self, text: &str) {
        let text = text.trim();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = since.unwrap_or_default().as_millis() as u64;
        let mut state = self.room.lock();
        if text.is_empty() || !state.has(&self.outbox) {
            return;
        }
        let said = json!({"kind": "said", "name": self.name, "text": text, "at": at});
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        state.history.push_back(said.clone());
        state.tell(said);
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        if state.has(&self.outbox) {
            state.members.retain(|(_, other)| !other.is(&self.outbox));
            state.tell(json!({"kind": "left", "name": self.name}));
        }
    }
}
