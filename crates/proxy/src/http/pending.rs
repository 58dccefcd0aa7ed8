//! Work that a request waits for before it goes on. A client that goes away meanwhile ends it:
//! the work is dropped, and with it whatever it had begun.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::responder::Responder;
use super::source::RequestBody;
use super::stream::Stream;

impl Stream<'_> {
    /// Waits for the work; none when the client went away first.
    pub(super) async fn pending<T>(
        &self,
        body: &mut RequestBody<'_>,
        out: &mut Responder<'_>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            // Data that comes waits in its buffer; only an end is news.
            let gone = out.poll_gone(cx).is_ready() || body.reader.poll_gone(cx).is_ready();
            match gone {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }
}
