//! Fractions of traffic, as runtime fractional percents are written.

/// A share of requests: numerator over 100, 10,000 or 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FractionalPercent {
    /// Number of hits.
    pub numerator: u32,
    /// 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl FractionalPercent {
    /// Always.
    pub const ALL: Self = Self {
        numerator: 100,
        denominator: 100,
    };
    /// Never.
    pub const NONE: Self = Self {
        numerator: 0,
        denominator: 100,
    };

    /// Whether every request is in the share.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.numerator >= self.denominator
    }

    /// Whether a request with this random number is in the share.
    #[must_use]
    pub fn hit(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}

#[cfg(test)]
mod tests {
    use super::FractionalPercent;

    #[test]
    fn share_of_random_numbers() {
        let p = FractionalPercent {
            numerator: 2500,
            denominator: 10_000,
        };
        assert_eq!((0..10_000).filter(|r| p.hit(*r)).count(), 2500);
        assert!((0..1000).all(|r| FractionalPercent::ALL.hit(r)));
        assert!(!(0..1000).any(|r| FractionalPercent::NONE.hit(r)));
    }
}
