//! Whom the end of a request is charged to in the statistics: the cluster it was sent to, the
//! connection manager alone, or nobody, for a redirect that is followed is no answer to anybody.

/// Whose the answer of a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charge {
    /// The cluster's, and the client gets it.
    #[default]
    Cluster,
    /// The connection manager's own: the cluster has no part in it.
    Manager,
    /// Followed: the client never sees it.
    Nobody,
}

impl Charge {
    /// The status that counts as the cluster's answer; 0 = none does.
    pub fn of_cluster(self, code: u16) -> u16 {
        match self {
            Self::Cluster => code,
            Self::Manager | Self::Nobody => 0,
        }
    }

    /// The status that counts as what the client got; 0 = none does.
    pub fn of_client(self, code: u16) -> u16 {
        match self {
            Self::Cluster | Self::Manager => code,
            Self::Nobody => 0,
        }
    }
}
