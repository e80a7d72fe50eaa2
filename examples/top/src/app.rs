//! What is shown, and what the keys do.

use greenroom::channel::Sender;

use crate::Event;
use crate::keys::Key;
use crate::link::{Reply, Request, Scope};
use crate::sample::{Coroutines, Frame, Numbers, Rates, Sample};
use crate::table::{Column, Row, Settings, rows};

#[derive(PartialEq, Eq)]
pub(crate) enum Flow {
    GoOn,
    Quit,
}

/// What has the keys.
pub(crate) enum Mode {
    Table,
    /// The filter is typed.
    Filter,
    Backtrace {
        title: String,
        frames: Vec<Frame>,
        /// The first line that is shown.
        first: usize,
    },
    /// Whether this coroutine is to be cancelled.
    Confirm {
        id: u64,
        name: String,
    },
    Help,
}

pub(crate) struct App {
    ask: Sender<Request>,
    pub(crate) numbers: Option<Numbers>,
    pub(crate) rates: Rates,
    pub(crate) coroutines: Coroutines,
    pub(crate) rows: Vec<Row>,
    pub(crate) settings: Settings,
    pub(crate) is_frozen: bool,
    /// Why there is no program, if there is none.
    pub(crate) lost: Option<String>,
    /// What came of the last request.
    pub(crate) note: Option<String>,
    pub(crate) mode: Mode,
    /// The index of the selected row.
    pub(crate) selected: usize,
    /// The first row that is shown, and how many there is room for.
    pub(crate) first: usize,
    pub(crate) page: usize,
}

impl App {
    pub(crate) fn new(ask: Sender<Request>) -> App {
        App {
            ask,
            numbers: None,
            rates: Rates::default(),
            coroutines: Coroutines::default(),
            rows: Vec::new(),
            settings: Settings {
                filter: String::new(),
                is_grouped: false,
                column: Column::Id,
                is_descending: false,
            },
            is_frozen: false,
            lost: None,
            note: None,
            mode: Mode::Table,
            selected: 0,
            first: 0,
            page: 1,
        }
    }

    pub(crate) fn handle(&mut self, event: Event) -> Flow {
        match event {
            Event::Key(key) => return self.press(key),
            Event::Resized => {}
            Event::Sample(sample) => self.take(*sample),
            Event::Reply(reply) => self.take_reply(reply),
            Event::Lost(why) => {
                self.lost = Some(why);
                self.rates = Rates::default();
                // The next process may have another coroutine with this id.
                if matches!(self.mode, Mode::Confirm { .. }) {
                    self.mode = Mode::Table;
                }
            }
            Event::End => return Flow::Quit,
        }
        Flow::GoOn
    }

    fn take(&mut self, sample: Sample) {
        self.lost = None;
        let rates = self
            .numbers
            .as_ref()
            .map(|before| sample.numbers.since(before));
        if let Some(None) = rates {
            self.freeze(false);
        }
        self.rates = rates.flatten().unwrap_or_default();
        self.numbers = Some(sample.numbers);
        // One that was under way when the table was frozen comes too late.
        if let Some(coroutines) = sample.coroutines.filter(|_| !self.is_frozen) {
            self.coroutines = coroutines;
            self.arrange();
        }
    }

    fn take_reply(&mut self, reply: Reply) {
        match reply {
            // The user may have gone on.
            Reply::Backtrace(_, Ok(_)) if !matches!(self.mode, Mode::Table) => {}
            Reply::Backtrace(id, Ok(frames)) => {
                self.mode = backtrace(format!("coroutine {id}"), frames);
            }
            Reply::Backtrace(id, Err(why)) => self.note = Some(format!("coroutine {id}: {why}")),
            Reply::Cancelled(id, Ok(())) => {
                self.note = Some(format!("coroutine {id} was cancelled"));
            }
            Reply::Cancelled(_, Err(why)) => self.note = Some(why),
        }
    }

    /// Makes the rows anew. The selection stays at its coroutine.
    fn arrange(&mut self) {
        let selected = self.selected_row().map(|row| row.coroutine.id);
        self.rows = rows(&self.coroutines, &self.settings);
        let mut ids = self.rows.iter().map(|row| row.coroutine.id);
        if let Some(at) = ids.position(|id| Some(id) == selected) {
            self.selected = at;
        }
        self.select(self.selected);
    }

    fn select(&mut self, row: usize) {
        self.selected = row.min(self.rows.len().saturating_sub(1));
    }

    fn selected_row(&self) -> Option<&Row> {
        self.rows.get(self.selected)
    }

    fn press(&mut self, key: Key) -> Flow {
        if key == Key::Interrupt {
            return Flow::Quit;
        }
        self.note = None;
        match &mut self.mode {
            Mode::Table => return self.press_in_table(key),
            Mode::Filter => self.press_in_filter(key),
            Mode::Backtrace { frames, first, .. } => {
                let last = frames.len().saturating_sub(1);
                match key {
                    Key::Char('q') => return Flow::Quit,
                    Key::Escape | Key::Enter => self.mode = Mode::Table,
                    key => *first = moved(*first, key, self.page).unwrap_or(*first).min(last),
                }
            }
            Mode::Confirm { id, .. } => {
                if key == Key::Char('y') {
                    let _ = self.ask.send(Request::Cancel(*id));
                }
                self.mode = Mode::Table;
            }
            Mode::Help => {
                self.mode = Mode::Table;
                if key == Key::Char('q') {
                    return Flow::Quit;
                }
            }
        }
        Flow::GoOn
    }

    fn press_in_table(&mut self, key: Key) -> Flow {
        match key {
            Key::Char('q') => return Flow::Quit,
            Key::Char('?') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Escape => self.filter(String::clear),
            Key::Left | Key::Char('<') => self.sort_by(self.settings.column.neighbour(-1)),
            Key::Right | Key::Char('>') => self.sort_by(self.settings.column.neighbour(1)),
            Key::Char('r') => {
                self.settings.is_descending ^= true;
                self.arrange();
            }
            Key::Char('g') => {
                self.settings.is_grouped ^= true;
                self.watch();
                self.arrange();
            }
            Key::Char('f') => self.freeze(!self.is_frozen),
            Key::Enter => self.show_backtrace(),
            Key::Char('k') => self.confirm_cancel(),
            key => {
                if let Some(row) = moved(self.selected, key, self.page) {
                    self.select(row);
                }
            }
        }
        Flow::GoOn
    }

    fn press_in_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.mode = Mode::Table,
            Key::Escape => {
                self.mode = Mode::Table;
                self.filter(String::clear);
            }
            Key::Backspace => self.filter(|filter| {
                filter.pop();
            }),
            Key::Char(c) => self.filter(|filter| filter.push(c)),
            _ => {}
        }
    }

    fn filter(&mut self, change: impl FnOnce(&mut String)) {
        change(&mut self.settings.filter);
        self.arrange();
    }

    fn sort_by(&mut self, column: Column) {
        self.settings.column = column;
        self.arrange();
    }

    fn freeze(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
        self.watch();
    }

    /// Asks for what is shown, and for no more.
    fn watch(&self) {
        let scope = match (self.is_frozen, self.settings.is_grouped) {
            (true, _) => Scope::Nothing,
            (false, false) => Scope::Coroutines,
            (false, true) => Scope::WithStacks,
        };
        let _ = self.ask.send(Request::Watch(scope));
    }

    /// Shows the stack of the selected group, or asks for that of the selected coroutine.
    fn show_backtrace(&mut self) {
        let Some(row) = self.selected_row() else {
            return;
        };
        if !self.settings.is_grouped {
            if self.has_program() {
                let id = self.rows[self.selected].coroutine.id;
                let _ = self.ask.send(Request::Backtrace(id));
            }
            return;
        }
        let trace = row.coroutine.trace;
        match trace.and_then(|trace| self.coroutines.traces.get(trace)) {
            Some(frames) => {
                self.mode = backtrace(format!("{} coroutines", row.count), frames.clone());
            }
            None => self.note = Some("these have no backtrace".into()),
        }
    }

    fn confirm_cancel(&mut self) {
        if self.settings.is_grouped {
            self.note = Some("only single coroutines are cancelled: g shows them".into());
        } else if self.has_program()
            && let Some(row) = self.selected_row()
        {
            self.mode = Mode::Confirm {
                id: row.coroutine.id,
                name: row.coroutine.name.clone(),
            };
        }
    }

    fn has_program(&mut self) -> bool {
        if self.lost.is_some() {
            self.note = Some("there is no program to ask".into());
        }
        self.lost.is_none()
    }
}

/// Shows a stack from the call on in which the program's own code waits. What is below that is one key away.
fn backtrace(title: String, frames: Vec<Frame>) -> Mode {
    let own = frames.iter().position(|frame| !frame.is_of_library());
    Mode::Backtrace {
        title,
        first: own.unwrap_or(0).saturating_sub(1),
        frames,
    }
}

/// Where a key leads from line `at`. `None` if it leads nowhere.
fn moved(at: usize, key: Key, page: usize) -> Option<usize> {
    Some(match key {
        Key::Up => at.saturating_sub(1),
        Key::Down => at.saturating_add(1),
        Key::PageUp => at.saturating_sub(page),
        Key::PageDown => at.saturating_add(page),
        Key::Home => 0,
        Key::End => usize::MAX,
        _ => return None,
    })
}
