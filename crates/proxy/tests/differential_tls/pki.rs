//! The certificates of the cases, made anew in every run.

use std::collections::BTreeMap;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, SigningKey, date_time_ymd,
};
use serde_json::{Value, json};

use super::case::Certificate;

/// A certificate with its key.
#[derive(Clone)]
pub struct Issued {
    /// Chain, PEM.
    pub chain: String,
    /// Key, PEM.
    pub key: String,
    /// The leaf's DER.
    pub der: Vec<u8>,
}

/// All certificates of a run.
pub struct Pki {
    authorities: BTreeMap<String, CertifiedIssuer<'static, KeyPair>>,
    /// By name.
    pub issued: BTreeMap<String, Issued>,
}

impl Pki {
    /// Makes them.
    pub fn new(wanted: &BTreeMap<String, Certificate>) -> Self {
        let mut pki = Self {
            authorities: BTreeMap::new(),
            issued: BTreeMap::new(),
        };
        let (authorities, leaves): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, c)| c.authority);
        let (roots, between): (Vec<_>, Vec<_>) =
            authorities.into_iter().partition(|(_, c)| c.self_signed);
        for (name, certificate) in roots.into_iter().chain(between) {
            pki.signer(name, certificate);
        }
        for (name, certificate) in leaves {
            pki.leaf(name, certificate);
        }
        pki
    }

    fn authority(&mut self, name: &str) -> &CertifiedIssuer<'static, KeyPair> {
        self.authorities.entry(name.to_owned()).or_insert_with(|| {
            let mut params = authority_params(name);
            params.key_usages.push(KeyUsagePurpose::DigitalSignature);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        })
    }

    fn signer(&mut self, name: &str, certificate: &Certificate) {
        let mut params = authority_params(name);
        if !certificate.key_usages.is_empty() {
            params.key_usages = key_usages(certificate);
        }
        valid(certificate, &mut params);
        let key = KeyPair::generate().unwrap();
        let by = certificate.by.clone().unwrap_or_else(|| "ca".to_owned());
        let made = match certificate.self_signed {
            true => CertifiedIssuer::self_signed(params, key),
            false => CertifiedIssuer::signed_by(params, key, self.authority(&by)),
        };
        let made = made.unwrap();
        let issued = Issued {
            chain: made.pem(),
            key: made.key().serialize_pem(),
            der: made.der().to_vec(),
        };
        self.issued.insert(name.to_owned(), issued);
        self.authorities.insert(name.to_owned(), made);
    }

    fn leaf(&mut self, name: &str, certificate: &Certificate) {
        let key = match certificate.rsa {
            true => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
            false => KeyPair::generate().unwrap(),
        };
        let params = leaf_params(certificate);
        let by = certificate.by.clone().unwrap_or_else(|| "ca".to_owned());
        let mut above = String::new();
        let made = if certificate.self_signed {
            params.self_signed(&key).unwrap()
        } else {
            if let Some(intermediate) = self.issued.get(&by) {
                above.clone_from(&intermediate.chain);
            }
            params.signed_by(&key, self.authority(&by)).unwrap()
        };
        let (mut pem, mut der) = (made.pem(), made.der().to_vec());
        if certificate.version1 {
            let signer = match certificate.self_signed {
                true => &key,
                false => self.authority(&by).key(),
            };
            der = version1(&der, signer);
            pem = pem_of(&der);
        }
        let issued = Issued {
            chain: pem + &above,
            key: key.serialize_pem(),
            der,
        };
        self.issued.insert(name.to_owned(), issued);
    }

    /// The name of a certificate.
    pub fn name_of(&self, der: &[u8]) -> String {
        let found = self.issued.iter().find(|(_, i)| i.der == der);
        found.map_or_else(|| "unknown".to_owned(), |(name, _)| name.clone())
    }

    /// Puts certificates in place of their names: `$cert.x` a whole
    /// TlsCertificate, `$ca.x`, `$ca.x+y`, `$trust.x+y` (certificates as roots)
    /// and `$crl.x:1,2` data sources, `$hash.x` and `$spki.x` pins.
    pub fn fill(&mut self, value: &mut Value) {
        match value {
            Value::Array(all) => all.iter_mut().for_each(|v| self.fill(v)),
            Value::Object(map) => map.values_mut().for_each(|v| self.fill(v)),
            Value::String(text) => {
                if let Some((kind, name)) = text.strip_prefix('$').and_then(|t| t.split_once('.')) {
                    *value = self.filler(kind, name);
                }
            }
            _ => {}
        }
    }

    fn filler(&mut self, kind: &str, name: &str) -> Value {
        let inline = |text: &str| json!({ "inline_string": text });
        let of = |pki: &Self| -> Issued {
            let found = pki.issued.get(name).cloned();
            found.unwrap_or_else(|| panic!("no certificate {name}"))
        };
        match kind {
            "cert" => {
                let issued = of(self);
                json!({ "certificate_chain": inline(&issued.chain), "private_key": inline(&issued.key) })
            }
            "ca" => {
                let all: String = name.split('+').map(|n| self.authority(n).pem()).collect();
                inline(&all)
            }
            "trust" => {
                let chain = |name: &str| self.issued[name].chain.clone();
                inline(&name.split('+').map(chain).collect::<String>())
            }
            "crl" => inline(&self.crl(name)),
            "hash" => json!(hex(&sha256(&of(self).der))),
            "spki" => {
                use base64::Engine;
                let der = of(self).der;
                let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
                let digest = sha256(parsed.tbs_certificate.subject_pki.raw);
                json!(base64::engine::general_purpose::STANDARD.encode(digest))
            }
            _ => panic!("${kind}.{name}"),
        }
    }

    fn crl(&mut self, text: &str) -> String {
        let (issuer, serials) = text.split_once(':').unwrap();
        let revoked = serials.split(',').filter(|s| !s.is_empty());
        let revoked = revoked.map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial.parse::<u64>().unwrap()),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(self.authority(issuer)).unwrap();
        list.pem().unwrap()
    }
}

/// The same certificate without version and extensions, signed anew.
fn version1(der: &[u8], signer: &KeyPair) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).unwrap();
    let body = parsed.tbs_certificate.as_ref();
    let key = parsed.tbs_certificate.subject_pki.raw;
    let end = body.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    let serial = body
        .windows(5)
        .position(|w| w == [0xa0, 3, 2, 1, 2])
        .unwrap()
        + 5;
    let body = sequence(&body[serial..end]);
    // ecdsa-with-SHA256 (RFC 5758 section 3.2).
    let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let signature = signer.sign(&body).unwrap();
    let bits = [&[3, signature.len() as u8 + 1, 0], &signature[..]].concat();
    sequence(&[&body, &algorithm[..], &bits].concat())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match (high, low) {
        (0, 0..0x80) => vec![0x30, low],
        (0, _) => vec![0x30, 0x81, low],
        _ => vec![0x30, 0x82, high, low],
    };
    [&header, content].concat()
}

fn pem_of(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    let text = lines.join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf_params(certificate: &Certificate) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    if let Some(cn) = &certificate.cn {
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Lateen \"test\", Inc");
        params.distinguished_name.push(DnType::CommonName, cn);
    }
    let text = |t: &String| Ia5String::try_from(t.as_str()).unwrap();
    let names = &mut params.subject_alt_names;
    names.extend(certificate.dns.iter().map(|n| SanType::DnsName(text(n))));
    names.extend(certificate.uri.iter().map(|n| SanType::URI(text(n))));
    names.extend(
        certificate
            .email
            .iter()
            .map(|n| SanType::Rfc822Name(text(n))),
    );
    let ip = |n: &String| SanType::IpAddress(n.parse().unwrap());
    names.extend(certificate.ip.iter().map(ip));
    let usage = |name: &String| match name.as_str() {
        "client" => ExtendedKeyUsagePurpose::ClientAuth,
        "server" => ExtendedKeyUsagePurpose::ServerAuth,
        "email" => ExtendedKeyUsagePurpose::EmailProtection,
        other => panic!("usage {other}"),
    };
    params.extended_key_usages = certificate.usages.iter().map(usage).collect();
    params.key_usages = key_usages(certificate);
    params.serial_number = certificate.serial.map(SerialNumber::from);
    valid(certificate, &mut params);
    params.use_authority_key_identifier_extension = true;
    if certificate.ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// Its key usages; `none` leaves them out.
fn key_usages(certificate: &Certificate) -> Vec<KeyUsagePurpose> {
    let usage = |name: &String| match name.as_str() {
        "digitalSignature" => Some(KeyUsagePurpose::DigitalSignature),
        "keyEncipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        "keyCertSign" => Some(KeyUsagePurpose::KeyCertSign),
        "cRLSign" => Some(KeyUsagePurpose::CrlSign),
        "none" => None,
        other => panic!("key usage {other}"),
    };
    certificate.key_usages.iter().filter_map(usage).collect()
}

/// From when until when it is valid.
fn valid(certificate: &Certificate, params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2095, 1, 1);
    if certificate.expired {
        params.not_after = date_time_ymd(2020, 2, 1);
    }
    if certificate.early {
        params.not_before = date_time_ymd(2090, 1, 1);
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().to_vec()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
