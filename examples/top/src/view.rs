//! The screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, Wrap};

use crate::app::{App, Mode};
use crate::sample;
use crate::table::{self, Column};

const KEYS: &str =
    "q quit  / filter  < > sort  r reverse  g group  f freeze  Enter backtrace  k cancel  ? help";

const HELP: &str = "\
up, down, page up, page down, home, end: select a coroutine
/   filter by a text; Esc shows all again
< > sort by another column
r   reverse the order
g   group the coroutines that do the same with the same stack
f   freeze the table, or go on
Enter  the backtrace of the coroutine or of the group
k   cancel the coroutine, after a question
q   quit";

pub(crate) fn draw(frame: &mut Frame, app: &mut App) {
    let [header, status, rows, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Line::from(numbers(app)).bold(), header);
    frame.render_widget(status_line(app), status);
    draw_table(frame, app, rows);
    frame.render_widget(last_line(app), footer);
    match &app.mode {
        Mode::Backtrace {
            title,
            frames,
            first,
        } => draw_box(frame, title, backtrace(&frames[*first..])),
        Mode::Help => draw_box(frame, "keys", HELP.lines().map(Line::from).collect()),
        Mode::Table | Mode::Filter | Mode::Confirm { .. } => {}
    }
}

/// The header.
fn numbers(app: &App) -> String {
    let Some(numbers) = &app.numbers else {
        return "…".into();
    };
    let rates = &app.rates;
    let delay = rates.delay.map_or("-".into(), time);
    format!(
        "pid {}  live {}  runnable {}  spawns/s {:.0}  polls/s {:.0}  run-queue delay {delay}",
        numbers.pid, numbers.live, numbers.runnable, rates.spawns, rates.polls
    )
}

fn status_line(app: &App) -> Line<'_> {
    let (shown, all) = (app.rows.len(), app.coroutines.all.len());
    let what = match app.settings.is_grouped {
        true => format!("{shown} groups of {all} coroutines"),
        false => format!("{shown} of {all} coroutines"),
    };
    let mut line = Line::from(what);
    if !app.settings.filter.is_empty() {
        line.push_span(format!("  with \"{}\"", app.settings.filter));
    }
    if app.is_frozen {
        line.push_span("  FROZEN".bold());
    }
    if let Some(why) = &app.lost {
        line.push_span(format!("  LOST: {why}").red().bold());
    }
    for held in &app.coroutines.held {
        line.push_span(format!("  {held}").red());
    }
    line
}

/// What is asked of the user, what came of the last request, or the keys.
fn last_line(app: &App) -> Line<'_> {
    match (&app.mode, &app.note) {
        (Mode::Filter, _) => Line::from(format!("filter: {}_", app.settings.filter)),
        (Mode::Confirm { id, name }, _) => {
            Line::from(format!("cancel coroutine {id} '{name}'? y/n")).red()
        }
        (_, Some(note)) => Line::from(note.as_str()).bold(),
        (_, None) => Line::from(KEYS).dim(),
    }
}

fn draw_table(frame: &mut Frame, app: &mut App, area: Rect) {
    // The first line has the titles.
    app.page = usize::from(area.height.saturating_sub(1)).max(1);
    app.first = app.first.min(app.selected);
    app.first = app.first.max((app.selected + 1).saturating_sub(app.page));
    let settings = &app.settings;
    let titles = Column::ALL.map(|column| {
        let arrow = match settings.is_descending {
            _ if column != settings.column => "",
            true => " v",
            false => " ^",
        };
        format!("{}{arrow}", title(column, settings.is_grouped))
    });
    let shown = app.rows.iter().enumerate().skip(app.first).take(app.page);
    let rows = shown.map(|(index, row)| {
        let style = match index == app.selected {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        Row::new(cells(row, settings.is_grouped)).style(style)
    });
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Fill(6),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Fill(4),
    ];
    let titles = Row::new(titles.map(Cell::from)).underlined();
    frame.render_widget(Table::new(rows, widths).header(titles), area);
}

fn title(column: Column, is_grouped: bool) -> &'static str {
    match column {
        Column::Id if is_grouped => "count",
        Column::Id => "id",
        Column::Name => "name",
        Column::State => "state",
        Column::WaitsFor => "waits for",
        Column::Since => "since",
        Column::Stack => "stack",
        Column::SpawnedAt => "spawned at",
    }
}

fn cells(row: &table::Row, is_grouped: bool) -> [String; 7] {
    let coroutine = &row.coroutine;
    let first = match is_grouped {
        true => row.count as u64,
        false => coroutine.id,
    };
    [
        first.to_string(),
        coroutine.name.clone(),
        coroutine.state.clone(),
        coroutine.waits_for.clone(),
        coroutine.since.map_or(String::new(), time),
        bytes(coroutine.stack),
        coroutine.spawned_at.clone(),
    ]
}

/// The lines of a backtrace. The program's own functions are brighter than those of the libraries.
fn backtrace(frames: &[sample::Frame]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for frame in frames {
        let style = match frame.is_of_library() {
            true => Style::new().dim(),
            false => Style::new().bold(),
        };
        lines.push(Line::styled(frame.function.as_str(), style));
        if let Some(at) = &frame.at {
            lines.push(Line::styled(format!("    at {at}"), style));
        }
    }
    lines
}

/// Draws lines in a box above the table.
fn draw_box(frame: &mut Frame, title: &str, lines: Vec<Line<'_>>) {
    let area = frame.area();
    let margin = |length: u16| if length > 20 { 2 } else { 0 };
    let area = area.inner(ratatui::layout::Margin {
        horizontal: margin(area.width),
        vertical: margin(area.height),
    });
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(Clear, area);
    frame.render_widget(text.block(Block::bordered().title(title)), area);
}

/// A number of seconds.
fn time(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        3600.. => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        60.. => format!("{}m{:02}s", whole / 60, whole % 60),
        10.. => format!("{whole}s"),
        1.. => format!("{seconds:.1}s"),
        0 if seconds >= 1e-3 => format!("{:.0}ms", seconds * 1e3),
        0 => format!("{:.0}µs", seconds * 1e6),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0 => String::new(),
        1..1024 => format!("{count}"),
        1024..1_048_576 => format!("{:.1}K", count as f64 / 1024.0),
        _ => format!("{:.1}M", count as f64 / 1_048_576.0),
    }
}
