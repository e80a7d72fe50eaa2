//! Line-based conversations, with a buffered reader and a buffered writer over two clones of one stream.

use super::{std, util};
use ::std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use util::everywhere;

type Lines = (BufReader<TcpStream>, BufWriter<TcpStream>);

fn buffered(stream: TcpStream) -> Lines {
    let reading = stream.try_clone().unwrap();
    (BufReader::new(reading), BufWriter::new(stream))
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn pause() {
    thread::sleep(Duration::from_millis(15));
}

/// Sends each piece as a separate segment, then closes the connection.
fn sent_in_pieces(pieces: &'static [&'static [u8]]) -> BufReader<TcpStream> {
    let (mut near, far) = pair();
    near.set_nodelay(true).unwrap();
    thread::spawn(move || {
        for piece in pieces {
            near.write_all(piece).unwrap();
            pause();
        }
    });
    BufReader::new(far)
}

#[test]
fn a_line_may_come_in_several_segments() {
    everywhere(|| {
        let lines = sent_in_pieces(&[b"spl", b"it", b" line\nand", b" ano", b"ther\r", b"\n"]);
        let lines: Vec<_> = lines.lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["split line", "and another"]);
    });
}

#[test]
fn several_lines_may_come_in_one_segment() {
    everywhere(|| {
        let lines = sent_in_pieces(&[b"one\ntwo\nthree\nfo", b"ur\n"]);
        let lines: Vec<_> = lines.lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["one", "two", "three", "four"]);
    });
}

#[test]
fn a_letter_may_be_cut_by_a_segment() {
    everywhere(|| {
        let lines = sent_in_pieces(&[b"gr\xc3", b"\xbcn \xe2\x82", b"\xac\n"]);
        let lines: Vec<_> = lines.lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["grün €"]);
    });
}

#[test]
fn the_last_line_may_lack_its_newline() {
    everywhere(|| {
        let mut lines = sent_in_pieces(&[b"whole\n", b"torn", b" off"]);
        let mut line = String::new();
        assert_eq!(lines.read_line(&mut line).unwrap(), 6);
        assert_eq!(line, "whole\n");
        line.clear();
        assert_eq!(lines.read_line(&mut line).unwrap(), 8);
        assert_eq!(line, "torn off");
        for _ in 0..3 {
            assert_eq!(lines.read_line(&mut line).unwrap(), 0);
        }
    });
}

#[test]
fn empty_lines_are_lines() {
    everywhere(|| {
        let lines = sent_in_pieces(&[b"\n\n", b"x\n", b"\n", b"\r\n", b"y"]);
        let lines: Vec<_> = lines.lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["", "", "x", "", "", "y"]);
    });
}

#[test]
fn no_lines_at_all_is_the_end() {
    everywhere(|| {
        let lines = sent_in_pieces(&[]);
        assert_eq!(lines.lines().count(), 0);
    });
}

#[test]
fn nothing_is_sent_before_the_flush_and_dropping_the_writer_flushes() {
    everywhere(|| {
        let (near, far) = pair();
        let (mut ours, mut writer) = buffered(near);
        let mut theirs = BufReader::new(far.try_clone().unwrap());
        writer.write_all(b"held back\n").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(60)))
            .unwrap();
        let mut line = String::new();
        let kind = theirs.read_line(&mut line).unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert_eq!(line, "");
        far.set_read_timeout(None).unwrap();
        writer.flush().unwrap();
        theirs.read_line(&mut line).unwrap();
        assert_eq!(line, "held back\n");
        line.clear();
        writer.write_all(b"last words\n").unwrap();
        drop(writer); // flushes, but does not close the connection: the other clone lives
        theirs.read_line(&mut line).unwrap();
        assert_eq!(line, "last words\n");
        (&far).write_all(b"answer\n").unwrap();
        line.clear();
        ours.read_line(&mut line).unwrap();
        assert_eq!(line, "answer\n");
    });
}

#[test]
fn a_conversation_goes_question_by_question() {
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut reader, mut writer) = buffered(listener.accept().unwrap().0);
            writeln!(writer, "220 ready").unwrap();
            writer.flush().unwrap();
            let mut line = String::new();
            let mut answered = 0;
            while reader.read_line(&mut line).unwrap() > 0 {
                match line
                    .trim_end()
                    .split_once(' ')
                    .unwrap_or((line.trim_end(), ""))
                {
                    ("ADD", numbers) => {
                        let sum: i64 = numbers.split(' ').map(|n| n.parse::<i64>().unwrap()).sum();
                        writeln!(writer, "200 {sum}").unwrap();
                    }
                    ("LIST", count) => {
                        for n in 0..count.parse::<u32>().unwrap() {
                            writeln!(writer, "item {n}").unwrap();
                        }
                        writeln!(writer, ".").unwrap();
                    }
                    ("QUIT", _) => {
                        writeln!(writer, "221 bye").unwrap();
                        writer.flush().unwrap();
                        return answered;
                    }
                    _ => writeln!(writer, "500 what?").unwrap(),
                }
                writer.flush().unwrap();
                answered += 1;
                line.clear();
            }
            panic!("the client left without a word");
        });

        let (reader, mut writer) = buffered(TcpStream::connect(addr).unwrap());
        let mut replies = reader.lines().map(Result::unwrap);
        let mut ask = |question: &str| {
            writeln!(writer, "{question}").unwrap();
            writer.flush().unwrap();
        };
        assert_eq!(replies.next().unwrap(), "220 ready");
        for n in 0..100 {
            ask(&format!("ADD {n} 10 -3"));
            assert_eq!(replies.next().unwrap(), format!("200 {}", n + 7));
        }
        ask("LIST 1000");
        let items: Vec<_> = replies.by_ref().take_while(|line| line != ".").collect();
        assert_eq!(items.len(), 1000);
        assert_eq!(items[999], "item 999");
        ask("SING");
        assert_eq!(replies.next().unwrap(), "500 what?");
        ask("QUIT");
        assert_eq!(replies.next().unwrap(), "221 bye");
        assert_eq!(replies.next(), None);
        assert_eq!(server.join().unwrap(), 102);
    });
}

/// Line `n` of one side. The lengths vary, and some lines are empty.
fn line(side: &str, n: usize) -> String {
    match n % 17 {
        0 => String::new(),
        short => format!("{side} {n} {}", "~".repeat(short * (n % 13))),
    }
}

#[test]
fn ten_thousand_lines_go_both_ways_at_once() {
    everywhere(|| {
        const LINES: usize = 10_000;
        fn talk(
            stream: TcpStream,
            ours: &'static str,
            theirs: &'static str,
        ) -> [thread::JoinHandle<()>; 2] {
            let (reader, mut writer) = buffered(stream);
            [
                thread::spawn(move || {
                    for n in 0..LINES {
                        writeln!(writer, "{}", line(ours, n)).unwrap();
                        if n % 1000 == 0 {
                            writer.flush().unwrap();
                        }
                    }
                    writer.flush().unwrap();
                    writer.get_ref().shutdown(Shutdown::Write).unwrap();
                }),
                thread::spawn(move || {
                    let mut seen = 0;
                    for got in reader.lines() {
                        assert_eq!(got.unwrap(), line(theirs, seen));
                        seen += 1;
                    }
                    assert_eq!(seen, LINES);
                }),
            ]
        }
        let (near, far) = pair();
        let near = talk(near, "near", "far");
        let far = talk(far, "far", "near");
        for task in near.into_iter().chain(far) {
            task.join().unwrap();
        }
    });
}

#[test]
fn ten_thousand_lines_are_echoed() {
    everywhere(|| {
        const LINES: usize = 10_000;
        let (near, far) = pair();
        let echo = thread::spawn(move || {
            let (mut reader, mut writer) = buffered(far);
            let mut line = Vec::new();
            let mut count = 0;
            while reader.read_until(b'\n', &mut line).unwrap() > 0 {
                line.make_ascii_uppercase();
                writer.write_all(&line).unwrap();
                line.clear();
                count += 1;
            }
            writer.flush().unwrap();
            count
        });
        let (reader, mut writer) = buffered(near);
        let sender = thread::spawn(move || {
            for n in 0..LINES {
                writeln!(writer, "{}", line("echo", n)).unwrap();
            }
            writer.flush().unwrap();
            writer.get_ref().shutdown(Shutdown::Write).unwrap();
        });
        let mut seen = 0;
        for got in reader.lines() {
            assert_eq!(got.unwrap(), line("ECHO", seen));
            seen += 1;
        }
        assert_eq!(seen, LINES);
        sender.join().unwrap();
        assert_eq!(echo.join().unwrap(), LINES);
    });
}
