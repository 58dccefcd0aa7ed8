//! Failures and suites in the words of Envoy's TLS library: they stand in access
//! logs and answers, and users match on them.

use rustls::{AlertDescription, CipherSuite, Error, InvalidMessage, PeerIncompatible};

use super::notes::{Fault, Refusal};

/// Number of the library of TLS errors in a packed error.
const LIBRARY: u32 = 16 << 24;

/// The reason of a failed handshake as `%*_TRANSPORT_FAILURE_REASON%` has it.
pub fn failure(error: &std::io::Error, refusal: Option<&Refusal>) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let Some(error) = inner else {
        // The connection ended: nothing that TLS would have to say.
        return String::new();
    };
    let (number, reason) = match refusal {
        Some(refusal) if refusal.fault == Fault::KeyUsage => {
            (302, "KEY_USAGE_BIT_INCORRECT".to_owned())
        }
        _ => reason(error),
    };
    let packed = LIBRARY + number;
    let more = match (refusal, error) {
        (Some(refusal), _) if refusal.fault == Fault::KeyUsage => String::new(),
        (Some(refusal), _) => format!(":verify_cert_failed:_{}", refusal.words),
        (None, Error::NoCertificatesPresented) => {
            ":peer_did_not_provide_required_client_certificate".to_owned()
        }
        _ => String::new(),
    };
    format!("TLS_error:|{packed}:SSL_routines:OPENSSL_internal:{reason}{more}:TLS_error_end")
}

/// The reason of a connection that begins with something else than TLS.
pub fn no_tls(first: &[u8]) -> String {
    const METHODS: [&[u8]; 4] = [b"GET ", b"POST ", b"HEAD ", b"PUT "];
    let (number, reason) = match METHODS.iter().any(|m| first.starts_with(m)) {
        true => (156, "HTTP_REQUEST"),
        false => (247, "WRONG_VERSION_NUMBER"),
    };
    let packed = LIBRARY + number;
    format!("TLS_error:|{packed}:SSL_routines:OPENSSL_internal:{reason}:TLS_error_end")
}

fn reason(error: &Error) -> (u32, String) {
    let named = |number: u32, name: &str| (number, name.to_owned());
    match error {
        Error::AlertReceived(alert) => alert_reason(*alert),
        Error::InvalidCertificate(_) => named(125, "CERTIFICATE_VERIFY_FAILED"),
        Error::NoCertificatesPresented => named(192, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        Error::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoKxGroupsInCommon,
        ) => named(184, "NO_SHARED_CIPHER"),
        // rustls says so when no certificate can be shown.
        Error::General(_) => named(184, "NO_SHARED_CIPHER"),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => named(240, "UNSUPPORTED_PROTOCOL"),
        Error::NoApplicationProtocol => named(307, "NO_APPLICATION_PROTOCOL"),
        Error::DecryptError => named(137, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => named(247, "WRONG_VERSION_NUMBER"),
        Error::InvalidMessage(_) => named(131, "CLIENTHELLO_PARSE_FAILED"),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            named(233, "UNEXPECTED_MESSAGE")
        }
        _ => named(133, "CONNECTION_REJECTED"),
    }
}

/// Alerts have their numbers above a thousand.
fn alert_reason(alert: AlertDescription) -> (u32, String) {
    let number = u8::from(alert);
    let name = match number {
        0 => "SSLV3_ALERT_CLOSE_NOTIFY",
        10 => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        20 => "SSLV3_ALERT_BAD_RECORD_MAC",
        22 => "TLSV1_ALERT_RECORD_OVERFLOW",
        40 => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        42 => "SSLV3_ALERT_BAD_CERTIFICATE",
        43 => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        44 => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        45 => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        46 => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        47 => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        48 => "TLSV1_ALERT_UNKNOWN_CA",
        49 => "TLSV1_ALERT_ACCESS_DENIED",
        50 => "TLSV1_ALERT_DECODE_ERROR",
        51 => "TLSV1_ALERT_DECRYPT_ERROR",
        70 => "TLSV1_ALERT_PROTOCOL_VERSION",
        71 => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        80 => "TLSV1_ALERT_INTERNAL_ERROR",
        86 => "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
        90 => "TLSV1_ALERT_USER_CANCELLED",
        100 => "TLSV1_ALERT_NO_RENEGOTIATION",
        110 => "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
        112 => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        113 => "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
        115 => "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
        116 => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        120 => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => "UNKNOWN_ALERT_TYPE",
    };
    (1000 + u32::from(number), name.to_owned())
}

/// A suite's name in logs and statistics.
pub fn suite(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "unknown",
    }
}

/// A version's name in logs and statistics.
pub fn version(version: rustls::ProtocolVersion) -> &'static str {
    match version {
        rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "TLSv1.2",
    }
}

/// A group's name in statistics.
pub fn group(group: rustls::NamedGroup) -> &'static str {
    match group {
        rustls::NamedGroup::X25519 => "X25519",
        rustls::NamedGroup::secp256r1 => "P-256",
        rustls::NamedGroup::secp384r1 => "P-384",
        rustls::NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "unknown",
    }
}
