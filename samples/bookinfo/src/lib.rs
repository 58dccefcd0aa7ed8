//! Bookinfo, our own implementation of the sample that mesh users know: details, ratings, reviews
//! and productpage behind one entry point, `run`.
//!
//! The services know nothing of any mesh. They read no environment themselves: the program that
//! hosts them passes the variables in, so one process can run several services in a test.

mod details;
mod http;
mod log;
mod page;
mod productpage;
mod ratings;
mod reviews;
mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use log::Log;

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

    /// The name that [`Service::from_name`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Details => "details",
            Self::Ratings => "ratings",
            Self::Reviews => "reviews",
            Self::Productpage => "productpage",
        }
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
    serve(service, listener, env, Log::to_stdout(), stop_signal()).await
}

/// Serves on a listener that is already bound, until `stop` completes; tells `log` that it has
/// started, and every request it has answered.
pub async fn serve(
    service: Service,
    listener: TcpListener,
    env: Env,
    log: Log,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    macro_rules! with {
        ($app:expr) => {{
            let app = Arc::new($app);
            log.line(&format!(
                "{} listening on {}",
                service.name(),
                listener.local_addr()?
            ));
            http::serve(listener, stop, log, move |request| {
                let app = Arc::clone(&app);
                async move { app.answer(request).await }
            })
            .await
        }};
    }
    match service {
        Service::Details => with!(details::Details::new(&env)?),
        Service::Ratings => with!(ratings::Ratings::new(&env)),
        Service::Reviews => with!(reviews::Reviews::new(&env)),
        Service::Productpage => with!(productpage::Productpage::new(&env)),
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
