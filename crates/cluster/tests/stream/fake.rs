//! A node agent whose containers are ordinary processes of this machine.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use lateen_cluster::node::runtime::{
    AttachRequest, Duplex, ExecRequest, ExitStatus, LogOptions, LogStream, NodeRuntime, PodRef,
    RuntimeError, Session,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

/// See the module.
pub struct Host;

#[async_trait]
impl NodeRuntime for Host {
    async fn exec(
        &self,
        pod: &PodRef,
        container: &str,
        request: ExecRequest,
    ) -> Result<Session, RuntimeError> {
        if pod.name == "ended" {
            let text = format!("container not found ({container:?})");
            return Err(RuntimeError::NotFound(text));
        }
        if request.tty {
            return Ok(terminal());
        }
        let piped = |wanted: bool| {
            if wanted {
                Stdio::piped()
            } else {
                Stdio::null()
            }
        };
        let mut child = Command::new(&request.command[0])
            .args(&request.command[1..])
            .stdin(piped(request.stdin))
            .stdout(piped(request.stdout))
            .stderr(piped(request.stderr))
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| RuntimeError::Start {
                code: 127,
                message: format!("exec: {:?}: {error}", request.command[0]),
            })?;
        let (resize, _) = mpsc::channel(4);
        let (done, exit) = oneshot::channel();
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                let _ = done.send(ExitStatus::Code(status.code().unwrap_or(137)));
            }
        });
        Ok(Session {
            stdin: stdin.map(|s| Box::new(s) as _),
            stdout: stdout.map(|s| Box::new(s) as _),
            stderr: stderr.map(|s| Box::new(s) as _),
            resize,
            exit,
        })
    }

    async fn attach(&self, _: &PodRef, _: &str, _: AttachRequest) -> Result<Session, RuntimeError> {
        let (mut near, stdout) = tokio::io::duplex(1024);
        let (stdin, mut input) = tokio::io::duplex(1024);
        let (resize, _) = mpsc::channel(4);
        let (done, exit) = oneshot::channel();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let read = input.read(&mut buffer).await.unwrap_or(0);
            let _ = near.write_all(b"attached: ").await;
            let _ = near.write_all(&buffer[..read]).await;
            drop(near);
            let _ = done.send(ExitStatus::Code(7));
        });
        Ok(Session {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize,
            exit,
        })
    }

    async fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        options: LogOptions,
    ) -> Result<LogStream, RuntimeError> {
        if options.previous {
            return Err(RuntimeError::BadRequest(format!(
                "previous terminated container {container:?} in pod {:?} not found",
                pod.name
            )));
        }
        let skip = options
            .tail_lines
            .map_or(0, |tail| 3usize.saturating_sub(tail as usize));
        let first: String = (1..=3).skip(skip).map(|n| format!("line {n}\n")).collect();
        let now = futures_util::stream::iter([Ok(Bytes::from(first))]);
        if !options.follow {
            return Ok(Box::pin(now));
        }
        let later = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok(Bytes::from_static(b"line 4\n"))
        });
        Ok(Box::pin(
            now.chain(later).chain(futures_util::stream::pending()),
        ))
    }

    async fn port_forward(&self, _: &PodRef, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        Ok(Box::new(
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await?,
        ))
    }
}

/// A program that prints the sizes of its terminal and ends at the first key.
fn terminal() -> Session {
    let (mut out, stdout) = tokio::io::duplex(1024);
    let (stdin, mut input) = tokio::io::duplex(1024);
    let (resize, mut sizes) = mpsc::channel(4);
    let (done, exit) = oneshot::channel();
    tokio::spawn(async move {
        let mut key = [0; 1];
        loop {
            tokio::select! {
                Some((columns, rows)) = sizes.recv() => {
                    let line = format!("size {columns}x{rows}\r\n");
                    let _ = out.write_all(line.as_bytes()).await;
                }
                read = input.read(&mut key) => {
                    let _ = out.write_all(b"typed: ").await;
                    let _ = out.write_all(&key[..read.unwrap_or(0)]).await;
                    break;
                }
            }
        }
        drop(out);
        let _ = done.send(ExitStatus::Code(0));
    });
    Session {
        stdin: Some(Box::new(stdin)),
        stdout: Some(Box::new(stdout)),
        stderr: None,
        resize,
        exit,
    }
}
