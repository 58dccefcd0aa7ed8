//! What a proxy does less, or no more, when it has too much on its hands: resources have a pressure
//! (what is taken of what may be), triggers make of it how far an action is taken, and where it is
//! taken in part a draw decides for each connection or request. Names and meaning are those of
//! Envoy's overload manager; who reads the resources, and when, is not known here.
use std::time::Duration;

/// What is done about too much work. Those named `At...` are Envoy's load shed points, which count
/// what they turn away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Requests are answered with 503 as soon as their heads are read.
    StopAcceptingRequests,
    /// Answers end their connections.
    DisableHttpKeepalive,
    /// Nobody is accepted: who connects waits in the system's queue.
    StopAcceptingConnections,
    /// Who is accepted is closed at once.
    RejectIncomingConnections,
    /// The allocator gives free memory back to the system.
    ShrinkHeap,
    /// Timeouts become shorter.
    ReduceTimeouts,
    /// Who is accepted is closed at once.
    AtAccept,
    /// A connection whose first bytes have come is closed before its protocol is served.
    AtCodec,
    /// Requests are answered with 503 as soon as their heads are read.
    AtHeaders,
    /// An HTTP/1 connection ends with 500 where its next request begins.
    AtHttp1,
    /// An HTTP/2 connection on which something comes is asked to go.
    AtHttp2,
    /// An HTTP/2 connection on which something comes ends.
    AtHttp2Ending,
    /// A request whose cluster is found is answered with 503.
    AtRouter,
    /// A TCP connection ends before its upstream's is opened.
    AtTcpConnect,
}

impl Action {
    /// All of them, in the order of [`Action::number`].
    pub const ALL: [Self; 14] = [
        Self::StopAcceptingRequests,
        Self::DisableHttpKeepalive,
        Self::StopAcceptingConnections,
        Self::RejectIncomingConnections,
        Self::ShrinkHeap,
        Self::ReduceTimeouts,
        Self::AtAccept,
        Self::AtCodec,
        Self::AtHeaders,
        Self::AtHttp1,
        Self::AtHttp2,
        Self::AtHttp2Ending,
        Self::AtRouter,
        Self::AtTcpConnect,
    ];

    /// Its place in [`Action::ALL`].
    #[must_use]
    pub fn number(self) -> usize {
        self as usize
    }

    /// Whether it is a load shed point.
    #[must_use]
    pub fn is_point(self) -> bool {
        self.number() >= Self::AtAccept.number()
    }

    /// Envoy's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StopAcceptingRequests => "envoy.overload_actions.stop_accepting_requests",
            Self::DisableHttpKeepalive => "envoy.overload_actions.disable_http_keepalive",
            Self::StopAcceptingConnections => "envoy.overload_actions.stop_accepting_connections",
            Self::RejectIncomingConnections => "envoy.overload_actions.reject_incoming_connections",
            Self::ShrinkHeap => "envoy.overload_actions.shrink_heap",
            Self::ReduceTimeouts => "envoy.overload_actions.reduce_timeouts",
            Self::AtAccept => "envoy.load_shed_points.tcp_listener_accept",
            Self::AtCodec => "envoy.load_shed_points.hcm_ondata_creating_codec",
            Self::AtHeaders => "envoy.load_shed_points.http_connection_manager_decode_headers",
            Self::AtHttp1 => "envoy.load_shed_points.http1_server_abort_dispatch",
            Self::AtHttp2 => "envoy.load_shed_points.http2_server_go_away_on_dispatch",
            Self::AtHttp2Ending => {
                "envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch"
            }
            Self::AtRouter => "envoy.load_shed_points.http_downstream_filter_check",
            Self::AtTcpConnect => "envoy.load_shed_points.tcp_proxy_upstream_connect",
        }
    }

    /// The action of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// How far an action is taken, from 0 (not at all) to 1 (wherever it applies).
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Degree(f64);

impl Degree {
    /// Not at all.
    pub const NONE: Self = Self(0.0);
    /// Wherever it applies.
    pub const FULL: Self = Self(1.0);

    /// Whether it is taken wherever it applies.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.0 >= 1.0
    }

    /// In whole percent, as Envoy's `scale_percent` has it.
    #[must_use]
    pub fn percent(self) -> i64 {
        (self.0 * 100.0) as i64
    }

    /// As a chance that [`hits`] takes.
    #[must_use]
    pub fn chance(self) -> u32 {
        match self.is_full() {
            true => u32::MAX,
            false => (self.0 * f64::from(u32::MAX - 1)) as u32,
        }
    }

    /// The degree of a chance, as near as it is kept.
    #[must_use]
    pub fn of_chance(chance: u32) -> Self {
        Self(f64::from(chance) / f64::from(u32::MAX))
    }

    /// What is left of a timeout: all of it at 0, no less than `least` at 1, in between in
    /// proportion.
    #[must_use]
    pub fn shortened(self, timeout: Duration, least: Least) -> Duration {
        let least = match least {
            Least::Time(time) => time,
            Least::Share(share) => timeout.mul_f64(share),
        };
        let room = timeout.saturating_sub(least);
        // Never past the timeout itself: a least above it changes nothing.
        timeout - room.mul_f64(self.0)
    }
}

/// Whether a draw of any number takes an action of this chance.
#[must_use]
pub fn hits(chance: u32, random: u32) -> bool {
    chance == u32::MAX || random < chance
}

/// What a timeout never gets below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Least {
    /// So long.
    Time(Duration),
    /// This share of the timeout itself, 0 to 1.
    Share(f64),
}

/// What a pressure means for an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trigger {
    /// It is taken in full from this pressure on.
    Threshold(f64),
    /// It begins above `from` and is taken in full from `full` on.
    Scaled {
        /// Up to here nothing is done.
        from: f64,
        /// From here on everything.
        full: f64,
    },
}

impl Trigger {
    /// How far the action is taken at a pressure.
    #[must_use]
    pub fn degree(self, pressure: f64) -> Degree {
        match self {
            Self::Threshold(value) if pressure >= value => Degree::FULL,
            Self::Scaled { full, .. } if pressure >= full => Degree::FULL,
            Self::Scaled { from, full } if pressure > from => {
                Degree((pressure - from) / (full - from))
            }
            Self::Threshold(_) | Self::Scaled { .. } => Degree::NONE,
        }
    }
}

/// When an action is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Which.
    pub action: Action,
    /// What it is triggered by: the place of a resource's pressure, and its meaning.
    pub triggers: Vec<(usize, Trigger)>,
}

impl Rule {
    /// How far the action is taken: as far as the one trigger that asks for most says. Of a
    /// resource that was never read there is no pressure.
    #[must_use]
    pub fn degree(&self, pressures: &[Option<f64>]) -> Degree {
        let of = |(place, trigger): &(usize, Trigger)| {
            let pressure = pressures.get(*place).copied().flatten()?;
            Some(trigger.degree(pressure))
        };
        let all = self.triggers.iter().filter_map(of);
        all.fold(Degree::NONE, |most, next| match next > most {
            true => next,
            false => most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for (number, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action.number(), number);
            assert_eq!(Action::named(action.name()), Some(action));
            let point = action.name().starts_with("envoy.load_shed_points.");
            assert_eq!(action.is_point(), point);
        }
        assert_eq!(Action::named("envoy.overload_actions.nonsense"), None);
    }

    #[test]
    fn a_threshold_is_all_or_nothing() {
        let trigger = Trigger::Threshold(0.9);
        assert_eq!(trigger.degree(0.89), Degree::NONE);
        assert_eq!(trigger.degree(0.9), Degree::FULL);
        assert_eq!(Trigger::Threshold(0.0).degree(0.0), Degree::FULL);
        assert_eq!(trigger.degree(f64::NAN), Degree::NONE);
    }

    /// The pressures and percents that the real Envoy 1.40 showed for 0.4 to 0.6.
    #[test]
    fn a_scaled_one_rises() {
        let (from, full) = (0.4, 0.6);
        let trigger = Trigger::Scaled { from, full };
        for (pressure, percent) in [
            (0.3, 0),
            (0.4, 0),
            (0.5, 50),
            (0.555, 77),
            (0.6, 100),
            (1.0, 100),
        ] {
            assert_eq!(trigger.degree(pressure).percent(), percent, "{pressure}");
        }
        assert!(!trigger.degree(0.5999).is_full());
        assert!(trigger.degree(0.6).is_full());
    }

    #[test]
    fn the_hardest_pressed_trigger_decides() {
        let rule = Rule {
            action: Action::ShrinkHeap,
            triggers: vec![
                (0, Trigger::Threshold(0.5)),
                (
                    1,
                    Trigger::Scaled {
                        from: 0.0,
                        full: 1.0,
                    },
                ),
            ],
        };
        assert_eq!(rule.degree(&[None, None]), Degree::NONE);
        assert_eq!(rule.degree(&[Some(0.4), Some(0.25)]).percent(), 25);
        assert_eq!(rule.degree(&[Some(0.5), Some(0.25)]), Degree::FULL);
        assert_eq!(rule.degree(&[None, Some(0.25)]).percent(), 25);
    }

    #[test]
    fn draws_are_as_frequent_as_the_degree() {
        let spread = |chance: u32| {
            let draws = (0..1000_u32).map(|n| n * (u32::MAX / 999));
            draws.filter(|random| hits(chance, *random)).count()
        };
        assert_eq!(spread(Degree::NONE.chance()), 0);
        assert_eq!(spread(Degree::FULL.chance()), 1000);
        let quarter = spread(Degree(0.25).chance());
        assert!((249..=251).contains(&quarter), "{quarter}");
        assert!(!hits(Degree(0.999_999).chance(), u32::MAX));
        let near = Degree::of_chance(Degree(0.5).chance());
        assert!((near.0 - 0.5).abs() < 1e-6);
    }

    #[test]
    fn timeouts_shrink_to_their_least() {
        let minute = Duration::from_secs(60);
        let at = |degree: f64, least| Degree(degree).shortened(minute, least).as_secs_f64();
        let least = Least::Time(Duration::from_secs(10));
        assert_eq!(at(0.0, least), 60.0);
        assert_eq!(at(0.5, least), 35.0);
        assert_eq!(at(1.0, least), 10.0);
        assert_eq!(at(1.0, Least::Share(0.25)), 15.0);
        assert_eq!(at(1.0, Least::Time(Duration::from_secs(600))), 60.0);
    }
}
