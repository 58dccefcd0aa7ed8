//! Bookinfo, our own implementation of the sample that mesh users know: details, ratings, reviews
//! and productpage behind one entry point, `run`.
//!
//! The services know nothing of any mesh. They read no environment themselves: the program that
//! hosts them passes the variables in, so one process can run several services in a test.

mod details;
mod http;
mod page;
mod productpage;
mod ratings;
mod reviews;
mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

/// The environment a service sees: variable name to value.
pub type Env = BTreeMap<String, String>;

/// Which of the four services a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Facts about a book.
    Details,
    /// Stars per reviewer.
    Ratings,
    /// Review texts, with or without stars by environment.
    Reviews,
    /// The web page and the public API.
    Productpage,
}

impl Service {
    /// The service a command line names, or `None` for an unknown name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "details" => Self::Details,
            "ratings" => Self::Ratings,
            "reviews" => Self::Reviews,
            "productpage" => Self::Productpage,
            _ => return None,
        })
    }
}

/// Serves `service` on `port` of every address (IPv6 any-address, which takes IPv4 too; plain IPv4
/// where IPv6 is off) until SIGTERM or SIGINT, then finishes the requests it has.
pub async fn run(service: Service, port: u16, env: Env) -> anyhow::Result<()> {
    let v6 = SocketAddr::from(([0u16; 8], port));
    let listener = match TcpListener::bind(v6).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(SocketAddr::from(([0u8; 4], port))).await?,
    };
    serve(service, listener, env, stop_signal()).await
}

/// Serves on a listener that is already bound, until `stop` completes. The form tests use.
pub async fn serve(
    service: Service,
    listener: TcpListener,
    env: Env,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    match service {
        Service::Details => {
            let app = Arc::new(details::Details::new(&env)?);
            http::serve(listener, stop, move |request| {
                let app = Arc::clone(&app);
                async move { app.answer(request).await }
            })
            .await
        }
        Service::Ratings => {
            let app = Arc::new(ratings::Ratings::new(&env));
            http::serve(listener, stop, move |request| {
                let app = Arc::clone(&app);
                async move { app.answer(request).await }
            })
            .await
        }
        Service::Reviews => {
            let app = Arc::new(reviews::Reviews::new(&env));
            http::serve(listener, stop, move |request| {
                let app = Arc::clone(&app);
                async move { app.answer(request).await }
            })
            .await
        }
        Service::Productpage => {
            let app = Arc::new(productpage::Productpage::new(&env));
            http::serve(listener, stop, move |request| {
                let app = Arc::clone(&app);
                async move { app.answer(request).await }
            })
            .await
        }
    }
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without handlers the default action ends the process, which is the same end, less gently.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
