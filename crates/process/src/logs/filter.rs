//! Which events are logged: a level for all, and levels of targets. A target's level is that of its
//! own name or of the longest name that it lies under (`h2` holds for `h2::proto` and `h2_util`,
//! not for `h2x`). The answer is kept by each place that logs until the levels change, so that
//! what is off costs a comparison.

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The levels, read.
#[derive(Debug)]
pub(super) struct Filter {
    all: LevelFilter,
    /// The longest name first.
    targets: Vec<(String, LevelFilter)>,
}

/// A level by its name, ours or Envoy's.
pub(super) fn level(name: &str) -> Option<LevelFilter> {
    Some(match name {
        "off" => LevelFilter::OFF,
        "error" | "critical" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

impl Filter {
    pub(super) fn new(all: LevelFilter, mut targets: Vec<(String, LevelFilter)>) -> Self {
        targets.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { all, targets }
    }

    fn of(&self, target: &str) -> LevelFilter {
        let under = |name: &str| {
            let rest = target.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '_']))
        };
        let own = self.targets.iter().find(|(name, _)| under(name));
        own.map_or(self.all, |(_, level)| *level)
    }

    fn passes(&self, about: &Metadata<'_>) -> bool {
        *about.level() <= self.of(about.target())
    }
}

impl<S: Subscriber> Layer<S> for Filter {
    fn register_callsite(&self, about: &'static Metadata<'static>) -> Interest {
        match self.passes(about) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, about: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.passes(about)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let own = self.targets.iter().map(|(_, level)| *level);
        own.chain([self.all]).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_holds() {
        let targets = [
            ("http", "debug"),
            ("lateen", "error"),
            ("lateen_x::y", "off"),
        ];
        let targets = targets.map(|(name, word)| (name.to_owned(), level(word).expect("a level")));
        let filter = Filter::new(LevelFilter::INFO, targets.into());
        for (target, wanted) in [
            ("http", LevelFilter::DEBUG),
            ("http::a", LevelFilter::DEBUG),
            ("http2", LevelFilter::INFO),
            ("rbac", LevelFilter::INFO),
            ("lateen_proxy::http", LevelFilter::ERROR),
            ("lateen_x::y::z", LevelFilter::OFF),
            ("lateen_x::yy", LevelFilter::ERROR),
        ] {
            assert_eq!(filter.of(target), wanted, "{target}");
        }
        let most = Layer::<tracing_subscriber::Registry>::max_level_hint(&filter);
        assert_eq!(most, Some(LevelFilter::DEBUG));
    }
}
