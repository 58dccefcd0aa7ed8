//! Exec and attach over SPDY: one stream per header `streamtype`.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::session::{Channel, Input, Output, parse_resize};
use super::spdy::{Connection, IncomingStream, StreamReader, StreamWriter};

/// How long the client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// How long the client may take to close the connection after the end.
const CLOSING: Duration = Duration::from_secs(10);
/// The longest resize message.
const MAX_RESIZE: usize = 4096;

/// The streams that a client of this command opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Bytes for the program.
    pub stdin: bool,
    /// Bytes of the program.
    pub stdout: bool,
    /// Its errors.
    pub stderr: bool,
    /// Sizes of the terminal (with a terminal, from protocol version 3).
    pub resize: bool,
    /// The `error` stream carries a Status instead of text (from version 4).
    pub status: bool,
}

#[derive(Debug, Default)]
struct Streams {
    error: Option<IncomingStream>,
    stdin: Option<IncomingStream>,
    stdout: Option<IncomingStream>,
    stderr: Option<IncomingStream>,
    resize: Option<IncomingStream>,
}

impl Streams {
    /// Takes streams until all expected ones are there; false when the client leaves before.
    async fn collect(&mut self, connection: &mut Connection, expected: Expected) -> bool {
        while !self.complete(expected) {
            let Some(stream) = connection.accept().await else {
                return false;
            };
            let slot = match stream.header("streamtype") {
                "error" => &mut self.error,
                "stdin" => &mut self.stdin,
                "stdout" => &mut self.stdout,
                "stderr" => &mut self.stderr,
                "resize" => &mut self.resize,
                _ => continue, // Dropping it resets it.
            };
            *slot = Some(stream);
        }
        true
    }

    fn complete(&self, expected: Expected) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !expected.stdin)
            && (self.stdout.is_some() || !expected.stdout)
            && (self.stderr.is_some() || !expected.stderr)
            && (self.resize.is_some() || !expected.resize)
    }
}

/// Joins a SPDY connection with a session's channels; returns when both sides are done.
pub async fn remote_command<T>(
    transport: T,
    expected: Expected,
    input: mpsc::Sender<Input>,
    mut output: mpsc::Receiver<Output>,
) where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = Connection::start(transport);
    let mut streams = Streams::default();
    let collecting = streams.collect(&mut connection, expected);
    if !matches!(tokio::time::timeout(OPENING, collecting).await, Ok(true)) {
        return;
    }
    let Streams {
        error,
        stdin,
        stdout,
        stderr,
        resize,
    } = streams;
    let mut writers = Vec::new();
    let mut readers = tokio::task::JoinSet::new();
    if let Some(IncomingStream { reader, writer, .. }) = stdin {
        writers.push(writer);
        readers.spawn(read_stdin(reader, input.clone()));
    }
    if let Some(IncomingStream { reader, writer, .. }) = resize {
        writers.push(writer);
        readers.spawn(read_resize(reader, input.clone()));
    }
    let mut stdout = stdout.map(|stream| stream.writer);
    let mut stderr = stderr.map(|stream| stream.writer);
    let mut error = error.map(|stream| stream.writer);
    let sending = send_output(
        &mut output,
        &mut stdout,
        &mut stderr,
        &mut error,
        expected.status,
    );
    tokio::select! {
        () = sending => {}
        () = connection.closed() => {}
    }
    // With the last sender gone the session learns that the client is.
    readers.shutdown().await;
    drop(input);
    for writer in writers
        .iter_mut()
        .chain(&mut stdout)
        .chain(&mut stderr)
        .chain(&mut error)
    {
        writer.finish().await;
    }
    let _ = tokio::time::timeout(CLOSING, connection.closed()).await;
}

async fn send_output(
    output: &mut mpsc::Receiver<Output>,
    stdout: &mut Option<StreamWriter>,
    stderr: &mut Option<StreamWriter>,
    error: &mut Option<StreamWriter>,
    status: bool,
) {
    while let Some(next) = output.recv().await {
        let (writer, data) = match next {
            Output::Data(Channel::Stdout, data) => (&mut *stdout, data),
            Output::Data(Channel::Stderr, data) => (&mut *stderr, data),
            Output::End(ending) if status => {
                (&mut *error, Bytes::from(ending.status().to_string()))
            }
            Output::End(ending) => (&mut *error, Bytes::from(ending.text())),
        };
        if let Some(writer) = writer
            && !data.is_empty()
            && !writer.write(data).await
        {
            return;
        }
    }
}

async fn read_stdin(mut reader: StreamReader, input: mpsc::Sender<Input>) {
    while let Some(data) = reader.read().await {
        if input.send(Input::Stdin(data)).await.is_err() {
            return;
        }
    }
    let _ = input.send(Input::StdinEnd).await;
}

async fn read_resize(mut reader: StreamReader, input: mpsc::Sender<Input>) {
    let mut line = Vec::new();
    while let Some(data) = reader.read().await {
        for &byte in &data {
            if byte != b'\n' && line.len() < MAX_RESIZE {
                line.push(byte);
                continue;
            }
            if let Some((columns, rows)) = parse_resize(&line) {
                let _ = input.send(Input::Resize(columns, rows)).await;
            }
            line.clear();
        }
    }
}
