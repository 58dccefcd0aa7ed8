//! Signing requests of workloads, as the control plane's authority reads them. Whatever they ask
//! for, the certificate names the caller, for a time within bounds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lateen_control_plane::ads::Caller;
use lateen_control_plane::ca::{Authority, CaService};
use lateen_identity::{CertificateInfo, SpiffeId, certificate_info, signing_request};
use lateen_xds_proto::istio::certificate_service::{
    IstioCertificateRequest, IstioCertificateService as _,
};

use crate::Target;
use crate::bytes::{choice, seeds_after, text};
use crate::runtime::run_paused;

/// Signing requests: as PEM, as DER, or what is signed in them, then signed here.
pub const REQUEST: Target = Target {
    name: "signing_request",
    run: |data| drop(issued(data)),
    seeds: || {
        let info = BASE64.decode(INFO).expect("base64");
        let id = SpiffeId::new("cluster.local", "x", "y");
        let (pem, _) = signing_request(&id).expect("a request");
        let mut list = seeds_after(
            0,
            &[
                &pem,
                "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
            ],
        );
        list.push([&[1][..], &signed(&info)].concat());
        for option in [2, 6, 10, 14] {
            list.push([&[option][..], &info].concat());
        }
        list
    },
    words: &[
        "-----BEGIN CERTIFICATE REQUEST-----\n",
        "-----BEGIN NEW CERTIFICATE REQUEST-----\n",
        "\u{2}\u{1}\0",
        "\u{6}\u{3}U\u{1d}\u{11}",
        "\u{6}\u{3}U\u{1d}\u{13}",
        "\u{6}\u{3}U\u{4}\u{3}",
        "\u{c}\u{1}b",
        "0\0",
        "spiffe://cluster.local/ns/kube-system/sa/admin",
    ],
    rounds: 400,
};

/// A key of this target's own, PKCS#8, and a request's content that names it (RFC 2986 4.1), with
/// subject and alternative names.
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwT8qmkQQ5M4j+uHSRH9wwLZjIYLLT0XyYmnCqJvYEnChRANCAAQDmsqIHwouno+EjA8P70e84UAB58ORvNtIIfahqfb7TC7tbYUSli7c0suzAcVz5zNzVgIfCfKB/1/CoJSWAfhd";
const INFO: &str = "MIG9AgEAMBgxCjAIBgNVBAoMAWExCjAIBgNVBAMMAWIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQDmsqIHwouno+EjA8P70e84UAB58ORvNtIIfahqfb7TC7tbYUSli7c0suzAcVz5zNzVgIfCfKB/1/CoJSWAfhdoEMwQQYJKoZIhvcNAQkOMTQwMjAwBgNVHREEKTAnhiBzcGlmZmU6Ly9jbHVzdGVyLmxvY2FsL25zL3gvc2EveYIDYS5i";

/// A DER value of this tag.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length = u32::try_from(content.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes();
            out.push(0x84);
            out.extend(length);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A request with this content, signed: ecdsa-with-SHA256 and the signature as a bit string.
fn signed(info: &[u8]) -> Vec<u8> {
    let key = BASE64.decode(KEY).expect("base64");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key).expect("a key");
    let signature = key.sign(&SystemRandom::new(), info).expect("signed");
    let algorithm = der(0x30, b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02");
    let signature = der(3, &[&[0], signature.as_ref()].concat());
    der(0x30, &[info, &algorithm, &signature].concat())
}

/// The leaf certificate, where one is given.
fn issued(data: &[u8]) -> Option<CertificateInfo> {
    thread_local! {
        static SERVICE: CaService = CaService::new(
            Arc::new(Authority::self_signed(SystemTime::now()).expect("a root")),
            || "cluster.local".to_owned(),
            Arc::default(),
        );
    }
    const LIVES: [i64; 4] = [0, 60, i64::MAX, i64::MIN];
    let (option, input) = choice(data);
    let pem = |bytes: &[u8]| {
        let text = BASE64.encode(bytes);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    };
    let csr = match option & 3 {
        0 => text(input)?.to_owned(),
        1 => pem(input),
        _ => pem(&signed(input)),
    };
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr,
        validity_duration: LIVES[usize::from(option >> 2 & 3)],
        ..Default::default()
    });
    request.extensions_mut().insert(Caller::ServiceAccount {
        namespace: "default".to_owned(),
        name: "reviews".to_owned(),
    });
    let answer = SERVICE.with(|service| run_paused(service.create_certificate(request)));
    let chain = answer.ok()?.into_inner().cert_chain;
    let leaf = certificate_info(&chain[0]).expect("a certificate of ours");
    assert_eq!(leaf.uris, ["spiffe://cluster.local/ns/default/sa/reviews"]);
    assert!(leaf.dns_names.is_empty() && leaf.ips.is_empty() && !leaf.is_ca);
    assert_eq!(leaf.common_name, "");
    let life = leaf
        .not_after
        .duration_since(leaf.not_before)
        .expect("a life");
    assert!(life <= Duration::from_secs(91 * 24 * 3600), "{life:?}");
    Some(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_signed() {
        let signed: Vec<bool> = (REQUEST.seeds)()
            .iter()
            .map(|seed| issued(seed).is_some())
            .collect();
        assert_eq!(signed, [true, false, true, true, true, true, true]);
    }
}
