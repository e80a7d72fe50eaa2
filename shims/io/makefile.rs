//! Buffered two-way files over sockets, as Python's `socket.makefile` makes them.

use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, IoSlice, IoSliceMut, Read, Write};
use std::sync::Arc;

/// A buffered two-way file over a stream: what `makefile` returns.
///
/// Reads and writes have a buffer each, and do not disturb each other: in particular, reading
/// does not flush what was written. [`flush`](Write::flush), a full buffer, and dropping the file
/// send it. What a read timeout interrupts is kept: the next read goes on with it.
///
/// The file is a [`BufRead`]: `read_line`, `read_until`, `lines` and `split` are that trait's.
///
/// ```
/// use greenroom::shims as std;
/// use std::io::{BufRead, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
///
/// std::thread::spawn(move || {
///     let mut file = listener.accept().unwrap().0.makefile();
///     let mut line = String::new();
///     while file.read_line(&mut line).unwrap() > 0 {
///         file.write_all(line.to_uppercase().as_bytes()).unwrap();
///         file.flush().unwrap();
///         line.clear();
///     }
/// });
///
/// let mut file = std::net::TcpStream::connect(addr)?.makefile();
/// file.write_all(b"hello\nworld\n")?;
/// file.flush()?;
/// let replies: Vec<String> = file.lines().take(2).collect::<Result<_, _>>()?;
/// assert_eq!(replies, ["HELLO", "WORLD"]);
/// # Ok(())
/// # }
/// ```
pub struct SocketFile<S>
where
    for<'a> &'a S: Read + Write,
{
    reader: BufReader<Half<S>>,
    writer: BufWriter<Half<S>>,
}

impl<S> SocketFile<S>
where
    for<'a> &'a S: Read + Write,
{
    /// A file over `stream`, with empty buffers of 8 KiB.
    pub fn new(stream: S) -> SocketFile<S> {
        let stream = Arc::new(stream);
        SocketFile {
            reader: BufReader::new(Half(Arc::clone(&stream))),
            writer: BufWriter::new(Half(stream)),
        }
    }

    /// The stream. What it is asked to read directly comes after what this file has buffered.
    pub fn get_ref(&self) -> &S {
        &self.reader.get_ref().0
    }

    /// What was read from the stream, and not yet from this file.
    pub fn buffer(&self) -> &[u8] {
        self.reader.buffer()
    }
}

/// The stream as one of the two buffers uses it.
struct Half<S>(Arc<S>);

impl<S> Read for Half<S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self.0).read_vectored(bufs)
    }
}

impl<S> Write for Half<S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self.0).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self.0).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

impl<S> Read for SocketFile<S>
where
    for<'a> &'a S: Read + Write,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.reader.read_vectored(bufs)
    }
}

impl<S> BufRead for SocketFile<S>
where
    for<'a> &'a S: Read + Write,
{
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

impl<S> Write for SocketFile<S>
where
    for<'a> &'a S: Read + Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.writer.write_all(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writer.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl<S: fmt::Debug> fmt::Debug for SocketFile<S>
where
    for<'a> &'a S: Read + Write,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketFile")
            .field("stream", self.get_ref())
            .field("unread", &self.buffer().len())
            .field("unflushed", &self.writer.buffer().len())
            .finish()
    }
}
