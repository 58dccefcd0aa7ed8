//! What a proxy knows of the mesh around it: who it is, who its peers are, and
//! Istio's standard metrics in those terms.

mod labels;
pub(crate) mod peer;
mod telemetry;
mod workload;

pub use telemetry::{Mesh, Side};
pub use workload::{Own, Workload};
