//! The proxy's protobuf door: bootstrap, ADS client, decode, ACK and NACK.
