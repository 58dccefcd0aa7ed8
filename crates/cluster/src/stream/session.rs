//! One exec or attach between a node agent's session and a client, whatever the transport.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::node::runtime::{ExitStatus, Session, SessionReader, SessionWriter};

/// How long output may still come after the program ended (a child of it may hold the pipe).
const DRAIN: Duration = Duration::from_millis(1500);
/// Bytes read from a program at once.
const CHUNK: usize = 32 * 1024;

/// From the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes for the program.
    Stdin(Bytes),
    /// No more bytes for the program.
    StdinEnd,
    /// Columns and rows of the terminal.
    Resize(u16, u16),
}

/// Where bytes for the client go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// For the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Bytes of the program.
    Data(Channel, Bytes),
    /// The program's end, as the status channel carries it; nothing follows.
    End(Ending),
}

/// How an exec or attach ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Exit code 0, or the end of an attach.
    Success,
    /// Another exit code.
    Code(i32),
    /// No exit code is known.
    Error(String),
}

impl Ending {
    /// The Status object of protocol version 4 and later.
    pub fn status(&self) -> Value {
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::Code(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!(
                    "command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Error(message) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": message,
            }),
        }
    }

    /// The text of older protocol versions; empty on success.
    pub fn text(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::Code(code) => {
                format!("command terminated with non-zero exit code: exit status {code}")
            }
            Self::Error(message) => message.clone(),
        }
    }
}

/// Whether the end of the main process is the caller's to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Exec: the exit code is the result.
    Exec,
    /// Attach: it always ends well; kubectl reads the exit code from the pod.
    Attach,
}

/// Carries bytes until the program ends or the client is gone (`input` closed).
pub async fn carry(
    session: Session,
    purpose: Purpose,
    input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Output>,
) {
    let Session {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    let mut pumps = JoinSet::new();
    for (channel, source) in [(Channel::Stdout, stdout), (Channel::Stderr, stderr)] {
        if let Some(source) = source {
            pumps.spawn(pump(source, channel, output.clone()));
        }
    }
    let mut feeder = tokio::spawn(feed(input, stdin, resize));
    let ended = tokio::select! {
        ended = finish(exit, &mut pumps) => Some(ended),
        _ = &mut feeder => None,
    };
    // Dropping what is left of the session hangs up an exec'd program.
    feeder.abort();
    pumps.shutdown().await;
    if let Some(ended) = ended {
        let ending = match (purpose, ended) {
            (Purpose::Attach, _) | (_, Some(ExitStatus::Code(0))) => Ending::Success,
            (_, Some(status)) => Ending::Code(status.code()),
            (_, None) => Ending::Error("the program's exit status was lost".to_owned()),
        };
        let _ = output.send(Output::End(ending)).await;
    }
}

/// Waits for the end of the program and then, for a while, of its output.
async fn finish(
    exit: oneshot::Receiver<ExitStatus>,
    pumps: &mut JoinSet<()>,
) -> Option<ExitStatus> {
    let status = exit.await.ok();
    let drained = async { while pumps.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    status
}

async fn pump(mut source: SessionReader, channel: Channel, output: mpsc::Sender<Output>) {
    while let Some(data) = read_chunk(&mut source).await {
        if output.send(Output::Data(channel, data)).await.is_err() {
            return;
        }
    }
}

/// The next bytes of a source; `None` at its end. A terminal whose other side is closed reads as
/// an error (EIO), which is its end too.
pub async fn read_chunk(source: &mut (impl AsyncRead + Unpin)) -> Option<Bytes> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    match source.read_buf(&mut buffer).await {
        Ok(read) if read > 0 => Some(buffer.freeze()),
        _ => None,
    }
}

/// Feeds the program; ends when the client is gone.
async fn feed(
    mut input: mpsc::Receiver<Input>,
    mut stdin: Option<SessionWriter>,
    resize: mpsc::Sender<(u16, u16)>,
) {
    while let Some(event) = input.recv().await {
        match event {
            Input::Stdin(data) => {
                if let Some(writer) = &mut stdin {
                    let written = writer.write_all(&data).await;
                    if written.is_err() || writer.flush().await.is_err() {
                        stdin = None; // The program reads no more.
                    }
                }
            }
            Input::StdinEnd => {
                if let Some(mut writer) = stdin.take() {
                    let _ = writer.shutdown().await;
                }
            }
            Input::Resize(columns, rows) => {
                let _ = resize.try_send((columns, rows));
            }
        }
    }
}

/// Reads a resize message, `{"Width":100,"Height":30}`; `None` when malformed or empty.
pub fn parse_resize(message: &[u8]) -> Option<(u16, u16)> {
    let value: Value = serde_json::from_slice(message).ok()?;
    let size = |field: &str| {
        value
            .get(field)
            .and_then(Value::as_u64)
            .and_then(|n| u16::try_from(n).ok())
    };
    Some((size("Width")?, size("Height")?)).filter(|(width, height)| *width > 0 && *height > 0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A program that upper-cases its input line by line, and exits with `code` at its end.
    pub fn upper(code: i32) -> Session {
        let (stdin, input) = tokio::io::duplex(1024);
        let (mut out, stdout) = tokio::io::duplex(1024);
        let (resize, _) = mpsc::channel(4);
        let (done, exit) = oneshot::channel();
        tokio::spawn(async move {
            let mut input = input;
            let mut buffer = [0; 256];
            while let Ok(n @ 1..) = input.read(&mut buffer).await {
                if out
                    .write_all(&buffer[..n].to_ascii_uppercase())
                    .await
                    .is_err()
                {
                    return;
                }
            }
            drop(out);
            let _ = done.send(ExitStatus::Code(code));
        });
        Session {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize,
            exit,
        }
    }

    async fn run(code: i32, purpose: Purpose) -> Vec<Output> {
        let (to, input) = mpsc::channel(8);
        let (output, mut from) = mpsc::channel(8);
        tokio::spawn(carry(upper(code), purpose, input, output));
        to.send(Input::Stdin(Bytes::from_static(b"abc")))
            .await
            .expect("open");
        to.send(Input::StdinEnd).await.expect("open");
        let mut all = Vec::new();
        while let Some(output) = from.recv().await {
            all.push(output);
        }
        all
    }

    #[tokio::test]
    async fn output_comes_before_the_exit_code() {
        let data = Output::Data(Channel::Stdout, Bytes::from_static(b"ABC"));
        let expected = [data.clone(), Output::End(Ending::Code(3))];
        assert_eq!(run(3, Purpose::Exec).await, expected);
        assert_eq!(
            run(3, Purpose::Attach).await,
            [data, Output::End(Ending::Success)]
        );
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_session() {
        let (to, input) = mpsc::channel(8);
        let (output, mut from) = mpsc::channel(8);
        let task = tokio::spawn(carry(upper(0), Purpose::Exec, input, output));
        drop(to);
        tokio::time::timeout(Duration::from_secs(60), task)
            .await
            .expect("ends")
            .expect("no panic");
        assert_eq!(from.recv().await, None);
    }

    #[test]
    fn statuses_have_the_documented_shape() {
        assert_eq!(Ending::Success.status()["status"], "Success");
        let failed = Ending::Code(3).status();
        assert_eq!(
            failed["details"]["causes"][0],
            json!({"reason": "ExitCode", "message": "3"})
        );
        assert!(Ending::Success.text().is_empty() && Ending::Code(1).text().ends_with('1'));
    }

    #[test]
    fn resizes_are_checked() {
        assert_eq!(
            parse_resize(b"{\"Width\":100,\"Height\":30}\n"),
            Some((100, 30))
        );
        for bad in [
            "",
            "{}",
            "{\"Width\":-1,\"Height\":3}",
            "{\"Width\":99999,\"Height\":3}",
        ] {
            assert_eq!(parse_resize(bad.as_bytes()), None);
        }
    }
}
