//! Session tickets: sealed by keys of this process or of the configuration, the
//! same in every worker and after a certificate turned, so that sessions live on.
//! What a session's peer was judged by is part of the seal: a ticket opens only
//! where the same rules hold, or resumption would skip the new ones
//! (CVE-2022-21654).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256};
use lateen_proxy_core::config::tls::{DownstreamTls, Private};
use rustls::server::ProducesTickets;

use super::certificate::Names;
use super::{Resolved, TlsError};

const NAME: usize = 16;
const KEY: usize = 80;
/// Envoy's default life of a session.
const LIFE: Duration = Duration::from_secs(7200);
/// Keys of this process seal for so long; the one before opens as long again.
const TURN: Duration = Duration::from_secs(6 * 3600);

/// One sealing key.
#[derive(Debug)]
struct Sealer {
    name: [u8; NAME],
    key: RandomizedNonceKey,
}

impl Sealer {
    fn new(secret: &[u8]) -> Option<Arc<Self>> {
        let (name, rest) = secret.split_first_chunk::<NAME>()?;
        let mut digest = Context::new(&SHA256);
        digest.update(b"lateen session ticket");
        digest.update(rest);
        let key = RandomizedNonceKey::new(&AES_256_GCM, digest.finish().as_ref()).ok()?;
        Some(Arc::new(Self { name: *name, key }))
    }

    fn random() -> Option<Arc<Self>> {
        let mut secret = [0; KEY];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Self::new(&secret)
    }
}

/// This process's own keys, the newest first, with the time the newest was made.
static OWN: Mutex<(Option<SystemTime>, Vec<Arc<Sealer>>)> = Mutex::new((None, Vec::new()));

fn own_keys() -> Vec<Arc<Sealer>> {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let now = SystemTime::now();
    let old = |made: SystemTime| now.duration_since(made).is_ok_and(|age| age >= TURN);
    if own.0.is_none_or(old)
        && let Some(sealer) = Sealer::random()
    {
        own.0 = Some(now);
        own.1.insert(0, sealer);
        own.1.truncate(2);
    }
    own.1.clone()
}

#[derive(Debug)]
enum Keys {
    Own,
    Given(Vec<Arc<Sealer>>),
}

/// The tickets of one server configuration.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Keys,
    rules: [u8; 32],
    life: Duration,
}

impl Tickets {
    /// Tickets of a context; `given` are keys of the configuration.
    pub(super) fn new(
        context: &DownstreamTls,
        parts: &Resolved,
        names: &[Arc<Names>],
        given: Option<&[Private]>,
    ) -> Result<Self, TlsError> {
        let keys = match given {
            None => Keys::Own,
            Some(given) => {
                let all = given.iter().map(|key| Sealer::new(&key.0.bytes));
                let all: Option<Vec<_>> = all.collect();
                let bad = || TlsError::Material("session ticket keys".to_owned());
                Keys::Given(all.ok_or_else(bad)?)
            }
        };
        let life = context.session_timeout.unwrap_or(LIFE);
        Ok(Self {
            life: match keys {
                Keys::Own => life.min(TURN),
                Keys::Given(_) => life,
            },
            keys,
            rules: rules(context, parts, names),
        })
    }

    fn sealers(&self) -> Vec<Arc<Sealer>> {
        match &self.keys {
            Keys::Own => own_keys(),
            Keys::Given(all) => all.clone(),
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// What a session was made under: who the server says it is, and how clients
/// are judged. A certificate that turns keeps its names, so it is no part.
fn rules(context: &DownstreamTls, parts: &Resolved, names: &[Arc<Names>]) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    add(&[u8::from(context.require_client_certificate)]);
    for own in names {
        add(own.subject.as_bytes());
        own.uris
            .iter()
            .chain(&own.dns)
            .for_each(|n| add(n.as_bytes()));
    }
    for rules in &parts.validation {
        let Some(rules) = rules else {
            add(b"none");
            continue;
        };
        let optional = |m: &Option<lateen_proxy_core::config::tls::Material>| {
            m.as_ref().map_or(Vec::new(), |m| m.bytes.to_vec())
        };
        add(&optional(&rules.trusted_ca));
        add(&optional(&rules.crl));
        for (domain, bundle) in &rules.spiffe_bundles {
            add(domain.as_bytes());
            add(&bundle.bytes);
        }
        add(format!("{:?}", rules.match_sans).as_bytes());
        let pins = rules.verify_certificate_hash.iter();
        pins.chain(&rules.verify_certificate_spki)
            .for_each(|p| add(p.as_bytes()));
        add(&[
            u8::from(rules.system_root_certs),
            u8::from(rules.allow_expired_certificate),
            u8::from(rules.accept_untrusted),
            u8::from(rules.only_verify_leaf_cert_crl),
        ]);
    }
    let mut out = [0; 32];
    out.copy_from_slice(digest.finish().as_ref());
    out
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.life.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let sealers = self.sealers();
        let sealer = sealers.first()?;
        let mut sealed = now().to_be_bytes().to_vec();
        sealed.extend_from_slice(plain);
        let aad = Aad::from(self.rules);
        let nonce = sealer.key.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        let mut ticket = sealer.name.to_vec();
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let sealers = self.sealers();
        let sealer = sealers.iter().find(|s| s.name == *name)?;
        let mut sealed = sealed.to_vec();
        let (nonce, aad) = (Nonce::from(nonce), Aad::from(self.rules));
        let opened = sealer.key.open_in_place(nonce, aad, &mut sealed).ok()?;
        let (made, plain) = opened.split_first_chunk::<8>()?;
        let age = now().saturating_sub(u64::from_be_bytes(*made));
        (age < self.life.as_secs()).then(|| plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_proxy_core::config::tls::{Material, ValidationContext};

    fn trusting(pem: &str) -> Resolved {
        let rules = ValidationContext {
            trusted_ca: Some(Material {
                bytes: pem.as_bytes().into(),
                path: None,
            }),
            ..ValidationContext::default()
        };
        Resolved {
            certificates: vec![],
            validation: [Some(Arc::new(rules)), None],
        }
    }

    fn key(byte: u8) -> Private {
        Private(Material {
            bytes: Arc::new([byte; KEY]),
            path: None,
        })
    }

    fn tickets(pem: &str, given: Option<&[Private]>) -> Tickets {
        let context = DownstreamTls::default();
        Tickets::new(&context, &trusting(pem), &[], given).unwrap()
    }

    /// CVE-2022-21654: a session made under other rules is no session.
    #[test]
    fn cve_2022_21654_a_ticket_opens_under_its_own_rules_only() {
        let (a, again, b) = (tickets("a", None), tickets("a", None), tickets("b", None));
        let ticket = a.encrypt(b"session").unwrap();
        assert_eq!(again.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(b.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut broken = ticket.clone();
            broken[at] ^= 1;
            assert_eq!(a.decrypt(&broken), None, "{at}");
            assert_eq!(a.decrypt(&ticket[..at]), None, "{at}");
        }
    }

    #[test]
    fn given_keys_turn() {
        let old = tickets("a", Some(&[key(1)]));
        let both = tickets("a", Some(&[key(2), key(1)]));
        let new = tickets("a", Some(&[key(2)]));
        let ticket = old.encrypt(b"session").unwrap();
        assert!(both.decrypt(&ticket).is_some(), "kept while it is named");
        assert!(new.decrypt(&ticket).is_none());
        let ticket = both.encrypt(b"session").unwrap();
        assert!(new.decrypt(&ticket).is_some(), "the first key seals");
        assert!(tickets("a", None).decrypt(&ticket).is_none());
    }

    #[test]
    fn tickets_end() {
        let mut over = tickets("a", None);
        over.life = Duration::ZERO;
        let ticket = over.encrypt(b"session").unwrap();
        assert_eq!(over.decrypt(&ticket), None);
    }
}
