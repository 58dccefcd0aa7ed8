//! SPIFFE names, certificates and the rules of a certificate authority.
