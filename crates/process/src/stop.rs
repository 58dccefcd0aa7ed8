//! One fact, "this process is to stop", told once and heard by every task that holds a [`Stop`].

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The listening end: cheap to clone, never un-stops.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// The telling end. Dropping it without a word counts as a stop, so no task outlives its owner.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A fresh pair.
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Tells every holder to stop. Telling twice is fine.
    pub fn stop(&self) {
        // An error means nobody listens any more: stopped is what they are.
        let _ = self.0.send(true);
    }
}

impl Stop {
    /// Completes when the stop has been told or its teller is gone.
    pub async fn stopped(&self) {
        let mut receiver = self.0.clone();
        // An error is a dropped teller, which counts as a stop.
        let _ = receiver.wait_for(|stopped| *stopped).await;
    }

    /// Whether the stop has been told.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// What becomes of SIGHUP, which a terminal that goes sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// It stops the process: a command of someone's terminal.
    Stops,
    /// Nothing: a daemon (Envoy ignores it too).
    Ignored,
}

/// A stop that SIGTERM or SIGINT tells, and SIGHUP where it is to. Must be called inside a tokio
/// runtime.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn on_signals(hangup: Hangup) -> std::io::Result<Stop> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let (stopper, stop) = pair();
    tokio::spawn(async move {
        // Goes on after the first signal: a second one must not fall back to the default action,
        // which would cut a drain short.
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
                _ = hup.recv() => {
                    if hangup == Hangup::Ignored {
                        continue;
                    }
                    "SIGHUP"
                }
            };
            if !*stopper.0.borrow() {
                tracing::info!(signal = name, "stopping");
                stopper.stop();
            }
        }
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_terminal_that_goes_stops_commands_and_no_daemon() {
        let daemon = on_signals(Hangup::Ignored).unwrap();
        let command = on_signals(Hangup::Stops).unwrap();
        let mut shell = std::process::Command::new("sh");
        let sent = shell.args(["-c", "kill -HUP $PPID"]).status().unwrap();
        assert!(sent.success());
        command.stopped().await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!daemon.is_stopped());
    }

    #[tokio::test]
    async fn a_stop_reaches_every_clone_and_a_dropped_stopper_counts() {
        let (stopper, stop) = pair();
        let other = stop.clone();
        assert!(!other.is_stopped());
        stopper.stop();
        other.stopped().await;
        assert!(stop.is_stopped());
        let (stopper, stop) = pair();
        drop(stopper);
        stop.stopped().await;
        assert!(stop.is_stopped());
    }
}
