//! Response flags: why a response is what it is, in Envoy's spelling, printed
//! in the order in which they were set (`URX,UF`, `DI,FI`), as Envoy does.

/// A set of response flags that knows the order in which they were set.
#[derive(Clone, Copy, Default)]
pub struct ResponseFlags {
    bits: u32,
    /// Numbers of the flags plus one, five bits each, the first in the lowest.
    order: u64,
}

/// Bits of a flag's number in [`ResponseFlags`]' order.
const STEP: u32 = 5;
/// Flags whose order is kept; more than this never come together.
const KEPT: u32 = u64::BITS / STEP;

macro_rules! flags {
    ($($bit:literal $ident:ident $short:literal $long:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = concat!("`", $short, "`, ", $long, ".")]
            pub const $ident: Self = Self { bits: 1 << $bit, order: $bit + 1 };)*
        }
        /// (flag, short name, long name), by number.
        pub const NAMES: &[(ResponseFlags, &str, &str)] =
            &[$((ResponseFlags::$ident, $short, $long)),*];
    };
}

flags! {
    0 FAILED_LOCAL_HEALTH_CHECK "LH" "FailedLocalHealthCheck";
    1 NO_HEALTHY_UPSTREAM "UH" "NoHealthyUpstream";
    2 UPSTREAM_REQUEST_TIMEOUT "UT" "UpstreamRequestTimeout";
    3 LOCAL_RESET "LR" "LocalReset";
    4 UPSTREAM_REMOTE_RESET "UR" "UpstreamRemoteReset";
    5 UPSTREAM_CONNECTION_FAILURE "UF" "UpstreamConnectionFailure";
    6 UPSTREAM_CONNECTION_TERMINATION "UC" "UpstreamConnectionTermination";
    7 UPSTREAM_OVERFLOW "UO" "UpstreamOverflow";
    8 NO_ROUTE_FOUND "NR" "NoRouteFound";
    9 DELAY_INJECTED "DI" "DelayInjected";
    10 FAULT_INJECTED "FI" "FaultInjected";
    11 RATE_LIMITED "RL" "RateLimited";
    12 UNAUTHORIZED_EXTERNAL_SERVICE "UAEX" "UnauthorizedExternalService";
    13 RATE_LIMIT_SERVICE_ERROR "RLSE" "RateLimitServiceError";
    14 DOWNSTREAM_CONNECTION_TERMINATION "DC" "DownstreamConnectionTermination";
    15 UPSTREAM_RETRY_LIMIT_EXCEEDED "URX" "UpstreamRetryLimitExceeded";
    16 STREAM_IDLE_TIMEOUT "SI" "StreamIdleTimeout";
    17 INVALID_ENVOY_REQUEST_HEADERS "IH" "InvalidEnvoyRequestHeaders";
    18 DOWNSTREAM_PROTOCOL_ERROR "DPE" "DownstreamProtocolError";
    19 UPSTREAM_MAX_STREAM_DURATION_REACHED "UMSDR" "UpstreamMaxStreamDurationReached";
    20 RESPONSE_FROM_CACHE_FILTER "RFCF" "ResponseFromCacheFilter";
    21 NO_FILTER_CONFIG_FOUND "NFCF" "NoFilterConfigFound";
    22 DURATION_TIMEOUT "DT" "DurationTimeout";
    23 UPSTREAM_PROTOCOL_ERROR "UPE" "UpstreamProtocolError";
    24 NO_CLUSTER_FOUND "NC" "NoClusterFound";
    25 OVERLOAD_MANAGER "OM" "OverloadManagerTerminated";
    26 DNS_FAIL "DF" "DnsResolutionFailed";
    27 DROP_OVERLOAD "DO" "DropOverload";
    28 DOWNSTREAM_REMOTE_RESET "DR" "DownstreamRemoteReset";
    29 UNCONDITIONAL_DROP_OVERLOAD "UDO" "UnconditionalDropOverload";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self { bits: 0, order: 0 };

    /// Sets the flags of `other`, those that are new last.
    pub fn set(&mut self, other: Self) {
        for number in other.in_order() {
            self.push(number);
        }
        self.bits |= other.bits;
    }

    /// These flags but those of `other`, in their order.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        let mut left = Self::NONE;
        for number in self.in_order() {
            if other.bits & (1 << number) == 0 {
                left.push(number);
            }
        }
        left
    }

    fn push(&mut self, number: u32) {
        let at = self.bits.count_ones();
        if self.bits & (1 << number) != 0 {
            return;
        }
        self.bits |= 1 << number;
        if at < KEPT {
            self.order |= u64::from(number + 1) << (at * STEP);
        }
    }

    /// The flags' numbers, in the order they were set.
    fn in_order(self) -> impl Iterator<Item = u32> {
        let numbers = (0..KEPT).map(move |at| (self.order >> (at * STEP)) as u32 & 31);
        numbers.map_while(|number| number.checked_sub(1))
    }

    /// Whether all flags of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Whether one flag of `other` is set.
    #[must_use]
    pub fn intersects(self, other: Self) -> bool {
        self.bits & other.bits != 0
    }

    /// Whether no flag is set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The flag of a short name.
    #[must_use]
    pub fn from_short(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(_, short, _)| *short == name)
            .map(|(f, _, _)| *f)
    }

    /// Writes the names, comma-separated; nothing for an empty set.
    pub fn write(self, long: bool, out: &mut Vec<u8>) {
        for (at, number) in self.in_order().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let (_, short, name) = NAMES[number as usize];
            out.extend_from_slice(if long { name } else { short }.as_bytes());
        }
    }
}

impl std::fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names = Vec::new();
        self.write(false, &mut names);
        write!(f, "ResponseFlags({})", String::from_utf8_lossy(&names))
    }
}

/// The order is for readers: sets with the same flags are equal.
impl PartialEq for ResponseFlags {
    fn eq(&self, other: &Self) -> bool {
        self.bits == other.bits
    }
}

impl Eq for ResponseFlags {}

impl std::hash::Hash for ResponseFlags {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bits.hash(state);
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = Self;

    fn bitor(mut self, other: Self) -> Self {
        self.set(other);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(flags: ResponseFlags) -> String {
        let mut out = Vec::new();
        flags.write(false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn printed_in_the_order_they_were_set() {
        use ResponseFlags as F;
        let (urx, uf) = (
            F::UPSTREAM_RETRY_LIMIT_EXCEEDED,
            F::UPSTREAM_CONNECTION_FAILURE,
        );
        assert_eq!(text(urx | uf), "URX,UF");
        assert_eq!(text(uf | urx), "UF,URX");
        assert_eq!(text(uf | urx | uf), "UF,URX", "set once");
        assert_eq!(text(F::NONE), "");
        assert_eq!(urx | uf, uf | urx);
        let all = NAMES.iter().fold(F::NONE, |all, (flag, ..)| all | *flag);
        assert!(NAMES.iter().all(|(flag, ..)| all.has(*flag)));
        assert_eq!(text(all).split(',').count(), KEPT as usize);
    }

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(NAMES.len(), 30);
        for (number, (flag, short, _)) in NAMES.iter().enumerate() {
            assert_eq!(flag.bits, 1 << number);
            assert_eq!(text(*flag), *short);
            assert_eq!(ResponseFlags::from_short(short), Some(*flag));
        }
    }
}
