//! The pod network: bridge, service addresses, DNS.
