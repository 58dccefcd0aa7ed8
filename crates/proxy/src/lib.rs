//! The proxy's hands: accept, codecs, pools, drain, sinks, admin.
