//! Handlers that are called with data, and when the terminator of a record was found.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use greenroom::shims::io::makefile::{MakeFile, Record, SocketFile};
use greenroom::shims::net::TcpListener;

use super::accept;

/// The longest record. A client that sends a longer one is disconnected.
const MAX_RECORD: usize = 64 * 1024;

/// The handlers of a conversation.
trait Chat {
    /// Part of a record, without the terminator.
    fn collect_incoming_data(&mut self, data: &[u8]);

    /// The record is complete. What is written to `push` goes to the client.
    fn found_terminator(&mut self, push: &mut dyn Write) -> io::Result<()>;
}

/// Calls the handlers of a conversation until the client ends it.
fn converse<S: Read + Write>(
    file: &mut SocketFile<S>,
    terminator: &[u8],
    mut chat: impl Chat,
) -> io::Result<()> {
    loop {
        match file.read_until_seq(terminator)? {
            Record::Complete(record) => {
                chat.collect_incoming_data(&record[..record.len() - terminator.len()]);
                chat.found_terminator(file)?;
                file.flush()?;
            }
            Record::Incomplete(_) => return file.flush(),
        }
    }
}

#[derive(Default)]
struct Echo {
    data: Vec<u8>,
}

impl Chat for Echo {
    fn collect_incoming_data(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    fn found_terminator(&mut self, push: &mut dyn Write) -> io::Result<()> {
        push.write_all(&self.data)?;
        self.data.clear();
        Ok(())
    }
}

pub(crate) fn serve(listener: TcpListener) {
    accept::each(&listener, |stream, address: SocketAddr| {
        eprintln!("Connected from {address}");
        let options = MakeFile::new().limit(MAX_RECORD);
        let file = stream.makefile_with(&options);
        match file.and_then(|mut file| converse(&mut file, b"\n", Echo::default())) {
            Ok(()) => eprintln!("Disconnected from {address}"),
            Err(error) => eprintln!("Disconnected from {address}: {error}"),
        }
    });
}
