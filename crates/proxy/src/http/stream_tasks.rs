//! The tasks that serve the streams of an HTTP/2 connection. A task takes one stream after another
//! and keeps its record, its heads and its timer between them, so that a stream costs no new task.
//! While the connection rests there are none.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use lateen_proxy_core::flags::ResponseFlags;

use super::head::Head;
use super::heads;
use super::known::Known;
use super::reader::{BodyReader, H2Reader};
use super::record::{Protocol, StreamRecord, now_ns};
use super::responder::Responder;
use super::stream::{Asks, HttpContext, Stream};
use super::wire::StreamHandle;
use crate::conn::Connection;
use crate::http1::{Reject, RejectKind};
use crate::http2::{Accepted, Reason};
use crate::io::Timer;

/// A request with its stream.
type Waiting = (Accepted, StreamHandle);

/// The streams of a connection that wait for a task, and the tasks that wait for a stream.
#[derive(Debug, Default)]
struct Queue {
    streams: RefCell<VecDeque<Waiting>>,
    /// The one that waits since last comes first.
    tasks: RefCell<Vec<Waker>>,
    /// Counts the calls to end the tasks that wait.
    rests: Cell<u32>,
    /// Nothing comes any more.
    over: Cell<bool>,
}

/// The tasks of a connection, held by the connection's own task.
#[derive(Debug)]
pub(super) struct StreamTasks {
    conn: Rc<Connection>,
    http: Rc<HttpContext>,
    queue: Rc<Queue>,
}

impl StreamTasks {
    /// No tasks yet.
    pub(super) fn new(conn: Rc<Connection>, http: Rc<HttpContext>) -> Self {
        Self {
            conn,
            http,
            queue: Rc::default(),
        }
    }

    /// Has a stream served.
    pub(super) fn serve(&self, accepted: Accepted, handle: StreamHandle) {
        let queue = &self.queue;
        queue.streams.borrow_mut().push_back((accepted, handle));
        let task = queue.tasks.borrow_mut().pop();
        match task {
            Some(task) => task.wake(),
            None => {
                let (conn, http) = (self.conn.clone(), self.http.clone());
                // In a box of its own, so that it is not copied on its way into the task.
                let serving = Box::pin(serve_streams(conn, http, queue.clone()));
                tokio::task::spawn_local(serving);
            }
        }
    }

    /// Ends the tasks that wait: the next stream comes much later, if ever.
    pub(super) fn rest(&self) {
        self.queue.rests.set(self.queue.rests.get().wrapping_add(1));
        for task in self.queue.tasks.take() {
            task.wake();
        }
    }
}

impl Drop for StreamTasks {
    fn drop(&mut self) {
        self.queue.over.set(true);
        self.rest();
    }
}

impl Queue {
    /// The next stream; `None` when the task is to end.
    async fn next(&self) -> Option<Waiting> {
        let rests = self.rests.get();
        poll_fn(|cx| {
            let next = self.streams.borrow_mut().pop_front();
            if next.is_some() || self.over.get() || self.rests.get() != rests {
                return Poll::Ready(next);
            }
            let mut tasks = self.tasks.borrow_mut();
            if !tasks.iter().any(|task| task.will_wake(cx.waker())) {
                tasks.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

async fn serve_streams(conn: Rc<Connection>, http: Rc<HttpContext>, queue: Rc<Queue>) {
    let mut record = StreamRecord::new(conn);
    record.response = heads::take();
    let timer = Timer::new();
    while let Some((accepted, handle)) = queue.next().await {
        serve_stream(&http, &mut record, &timer, accepted, handle).await;
    }
    heads::give(std::mem::take(&mut record.response));
}

async fn serve_stream(
    http: &HttpContext,
    record: &mut StreamRecord,
    timer: &Timer,
    accepted: Accepted,
    handle: StreamHandle,
) {
    record.request = accepted.head;
    record.begin(Protocol::Http2, now_ns());
    http.stats.cells.downstream_rq_active.add(1);
    let extended = !accepted.protocol.is_empty();
    if extended {
        // The same request in HTTP/1.1's words (RFC 8441 section 5).
        record.request.set_method(b"GET");
        record.request.set_known(Known::Upgrade, &accepted.protocol);
    }
    let asks = Asks {
        upgrade: extended,
        expect_continue: accepted.expects,
        refused: refused(&record.request),
    };
    let mut out = Responder::H2 {
        stream: &handle,
        extended,
        to_head: record.request.method() == b"HEAD",
    };
    let body = BodyReader::H2(H2Reader::new(&handle));
    Stream::new(http, record, timer)
        .serve(body, &mut out, asks)
        .await;
    if let Some(details) = handle.broken() {
        let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        record.flags = ResponseFlags::NONE;
        record.flags.set(flag);
        record.details = Cow::Borrowed(details);
    }
    let gone = ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;
    if record.flags.has(gone)
        && let Some(reason) = handle.reset_by_peer()
    {
        // The stream alone is gone, its connection lives.
        record.flags = record.flags.without(gone);
        record.conn.broken.set(false);
        if reason != Reason::NO_ERROR {
            record.flags.set(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
        }
        record.details = Cow::Borrowed(match reason {
            Reason::NO_ERROR if record.code != 0 => "via_upstream",
            Reason::REFUSED_STREAM => "http2.remote_refuse",
            _ => "http2.remote_reset",
        });
    }
    record.conn.worker.close_stream(record, http);
    heads::give(std::mem::take(&mut record.request));
}

/// What the connection manager refuses, over HTTP/1 too.
fn refused(request: &Head) -> Option<Reject> {
    let (status, details) = match request.method() {
        _ if request.path() == b"*" => (404, "absolute_path_rejected"),
        b"QUERY" => {
            let typed = request.known(Known::ContentType);
            if typed.is_some_and(|v| !v.is_empty()) {
                return None;
            }
            (400, "query_missing_content_type")
        }
        _ => return None,
    };
    Some(Reject {
        status,
        details,
        kind: RejectKind::Request,
    })
}
