//! What a certificate says, as policies, headers and logs tell it: names,
//! subject and issuer in RFC 2253 form, serial number, fingerprints, PEM.

use std::fmt::Write as _;

use lateen_proxy_core::config::tls::SanType;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// The names of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// Addresses.
    pub ips: Vec<String>,
    /// Subject, RFC 2253.
    pub subject: String,
    /// The last common name of the subject.
    pub common_name: Option<String>,
}

impl Names {
    /// Reads a certificate; none of it can be read, no names.
    pub fn of(der: &[u8]) -> Self {
        let mut names = Self::default();
        let Ok((_, parsed)) = X509Certificate::from_der(der) else {
            return names;
        };
        names.subject = rfc2253(parsed.subject());
        let common = parsed.subject().iter_common_name().last();
        names.common_name = common.and_then(|n| n.as_str().ok()).map(str::to_owned);
        each_san(&parsed, |kind, text| match kind {
            SanType::Uri => names.uris.push(text.to_owned()),
            SanType::Dns => names.dns.push(text.to_owned()),
            SanType::Email => names.emails.push(text.to_owned()),
            SanType::IpAddress => names.ips.push(text.to_owned()),
            SanType::Any => {}
        });
        names
    }
}

/// Visits every alternative name. A name with a control character in it is
/// none: a NUL would end it for a C program and not for us, and a policy must
/// not see a prefix that another reader takes for the whole (CVE-2025-66220).
pub fn each_san(parsed: &X509Certificate<'_>, mut visit: impl FnMut(SanType, &str)) {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return;
    };
    let mut clean = |kind, text: &str| {
        if !text.bytes().any(|b| b.is_ascii_control()) {
            visit(kind, text);
        }
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(text) => clean(SanType::Dns, text),
            GeneralName::URI(text) => clean(SanType::Uri, text),
            GeneralName::RFC822Name(text) => clean(SanType::Email, text),
            GeneralName::IPAddress(bytes) => {
                if let Some(ip) = ip_text(bytes) {
                    clean(SanType::IpAddress, &ip);
                }
            }
            _ => {}
        }
    }
}

fn ip_text(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

/// Short names of attribute types (RFC 4514 section 3 and OpenSSL's).
const ATTRIBUTES: [(&str, &str); 15] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// A distinguished name in RFC 2253 form: the last part first.
pub fn rfc2253(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter().collect();
    let mut out = String::new();
    for part in parts.iter().rev() {
        let mut separator = if out.is_empty() { "" } else { "," };
        for attribute in part.iter() {
            let oid = attribute.attr_type().to_id_string();
            let short = ATTRIBUTES.iter().find(|(id, _)| *id == oid);
            let short = short.map_or(oid.as_str(), |(_, short)| *short);
            out.push_str(separator);
            out.push_str(short);
            out.push('=');
            match attribute.as_str() {
                Ok(text) => escape(text, &mut out),
                Err(_) => {
                    out.push('#');
                    hex_into(attribute.attr_value().data, &mut out);
                }
            }
            separator = "+";
        }
    }
    out
}

/// RFC 2253 section 2.4; bytes beyond ASCII as their hex pairs.
fn escape(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
}

fn hex_into(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    hex_into(bytes, &mut out);
    out
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    hex(digest.as_ref())
}

/// SHA-1 in lower-case hex, for logs alone.
pub fn sha1_hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    hex(digest.as_ref())
}

/// Certificates as PEM in the form of a URL's query, as headers and logs carry them.
pub fn url_pem<'a>(chain: impl Iterator<Item = &'a [u8]>) -> String {
    use base64::Engine as _;
    let mut pem = String::new();
    for der in chain {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    let mut out = String::with_capacity(pem.len() + pem.len() / 8);
    for byte in pem.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// A field of a certificate that logs ask for seldom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Issuer, RFC 2253.
    Issuer,
    /// Serial number, lower-case hex.
    Serial,
    /// SHA-256 of the DER.
    Sha256,
    /// SHA-1 of the DER.
    Sha1,
    /// PEM, URL-encoded.
    Pem,
    /// Addresses, joined by commas.
    Ips,
    /// E-mail addresses, joined by commas.
    Emails,
}

/// A field of a certificate; none when it is empty.
pub fn detail(der: &[u8], detail: Detail) -> Option<String> {
    let parsed = || Some(X509Certificate::from_der(der).ok()?.1);
    let text = match detail {
        Detail::Issuer => rfc2253(parsed()?.issuer()),
        Detail::Serial => serial(parsed()?.raw_serial()),
        Detail::Sha256 => sha256_hex(der),
        Detail::Sha1 => sha1_hex(der),
        Detail::Pem => url_pem(std::iter::once(der)),
        Detail::Ips => Names::of(der).ips.join(","),
        Detail::Emails => Names::of(der).emails.join(","),
    };
    Some(text).filter(|t| !t.is_empty())
}

/// A serial number's bytes as Envoy shows them: lower-case hex without the zero octets in front, of
/// which DER puts one before a first bit that is set (X.690 section 8.3).
pub fn serial(raw: &[u8]) -> String {
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    match &raw[zeros..] {
        [] => "0".to_owned(),
        number => hex(number),
    }
}

/// When a certificate begins and ends to be valid, nanoseconds since the Unix epoch.
pub fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let ns = |t: i64| u64::try_from(t).unwrap_or(0).saturating_mul(1_000_000_000);
    let validity = parsed.validity();
    Some((
        ns(validity.not_before.timestamp()),
        ns(validity.not_after.timestamp()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_bear_no_padding() {
        assert_eq!(serial(&[0x00, 0xd2, 0x37]), "d237");
        assert_eq!(serial(&[0x05, 0x00]), "0500");
        assert_eq!(serial(&[0x00]), "0");
    }

    #[test]
    fn subjects_are_escaped() {
        let mut out = String::new();
        escape(" a,b+c\"d\\e<f>;é ", &mut out);
        assert_eq!(out, "\\ a\\,b\\+c\\\"d\\\\e\\<f\\>\\;\\C3\\A9\\ ");
        let mut out = String::new();
        escape("#x#", &mut out);
        assert_eq!(out, "\\#x#");
    }

    #[test]
    fn pem_in_a_header() {
        let pem = url_pem(std::iter::once(&[0xff_u8; 60][..]));
        assert!(
            pem.starts_with("-----BEGIN%20CERTIFICATE-----%0A%2F%2F"),
            "{pem}"
        );
        assert!(pem.ends_with("%0A-----END%20CERTIFICATE-----%0A"), "{pem}");
    }
}
