//! TLS contexts of one worker: rustls configurations made from the snapshot's
//! contexts and secrets, shared by equal content, remade when a secret turns.

pub mod certificate;
mod client;
mod material;
pub mod notes;
mod roots;
mod self_trusted;
mod server;
pub mod session;
mod tickets;
mod verify;
mod version1;
pub mod words;

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use lateen_proxy_core::config::tls::{
    CertificateSource, CipherSuite, Curve, DownstreamTls, Private, Secret, TicketKeys,
    TlsCertificate, UpstreamTls, ValidationContext, ValidationSource,
};
use lateen_proxy_core::config::{Name, ResourceMap};

/// Why a TLS context cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// A secret that the context names is not there.
    #[error("secret {0} is not there")]
    MissingSecret(Name),
    /// A secret is of another kind than its use.
    #[error("secret {0} is not of the kind its use asks for")]
    WrongSecret(Name),
    /// PEM that holds no usable certificate or key.
    #[error("{0}")]
    Material(String),
    /// rustls refuses the combination.
    #[error("{0}")]
    Refused(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// What a configuration was made from; equal parts, one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    certificates: Vec<usize>,
    validation: [usize; 2],
    alpn: Vec<Name>,
    versions: (u8, u8),
    suites: Vec<CipherSuite>,
    curves: Vec<Curve>,
    flags: u8,
    name: Option<Name>,
    tickets: usize,
    /// Life of a session in seconds, or the number of sessions kept.
    sessions: u64,
}

/// What lives as long as the key's pointers mean something.
type Held = (
    Vec<Arc<TlsCertificate>>,
    [Option<Arc<ValidationContext>>; 2],
    Option<Arc<[Private]>>,
);

/// The TLS configurations of a worker.
#[derive(Debug, Default)]
pub struct TlsContexts {
    secrets: RefCell<ResourceMap<Secret>>,
    clients: RefCell<HashMap<Key, (Arc<rustls::ClientConfig>, Held)>>,
    servers: RefCell<HashMap<Key, (Arc<rustls::ServerConfig>, Held)>>,
}

/// The parts of a context with its secrets looked up.
pub(crate) struct Resolved {
    pub(crate) certificates: Vec<Arc<TlsCertificate>>,
    /// Inline rules, then rules from a secret.
    pub(crate) validation: [Option<Arc<ValidationContext>>; 2],
}

impl TlsContexts {
    /// Takes the secrets of a new snapshot; configurations made from secrets
    /// that are gone are dropped when nobody uses them.
    pub fn set_secrets(&self, secrets: ResourceMap<Secret>) {
        if Arc::ptr_eq(&self.secrets.borrow(), &secrets) {
            return;
        }
        *self.secrets.borrow_mut() = secrets;
        self.clients
            .borrow_mut()
            .retain(|_, (c, _)| Arc::strong_count(c) > 1);
        self.servers
            .borrow_mut()
            .retain(|_, (c, _)| Arc::strong_count(c) > 1);
    }

    /// The configuration for a client context. `san` is a name that the
    /// certificate must bear besides what the context says; `alpn` overrides
    /// the context's list.
    pub fn client(
        &self,
        context: &UpstreamTls,
        san: Option<&Name>,
        alpn: Option<&[Name]>,
    ) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let parts = self.resolve(&context.common.certificates, &context.common.validation)?;
        let alpn = alpn.unwrap_or(&context.common.alpn_protocols);
        let mut key = Key::new(&parts, alpn, &context.common);
        key.name = san.cloned();
        key.sessions = context.max_session_keys.map_or(u64::MAX, u64::from);
        if let Some((config, _)) = self.clients.borrow().get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(client::config(context, &parts, san, alpn)?);
        let held = (parts.certificates, parts.validation, None);
        self.clients
            .borrow_mut()
            .insert(key, (config.clone(), held));
        Ok(config)
    }

    /// The configuration for a server context; `alpn` overrides its list.
    pub fn server(
        &self,
        context: &DownstreamTls,
        alpn: Option<&[Name]>,
    ) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let parts = self.resolve(&context.common.certificates, &context.common.validation)?;
        let tickets = self.ticket_keys(&context.ticket_keys)?;
        let alpn = alpn.unwrap_or(&context.common.alpn_protocols);
        let mut key = Key::new(&parts, alpn, &context.common);
        let flags = [
            context.require_client_certificate,
            context.require_sni,
            context.disable_stateless_session_resumption,
            context.disable_stateful_session_resumption,
            context.prefer_client_ciphers,
        ];
        key.flags = flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag));
        key.tickets = tickets.as_ref().map_or(0, |k| k.as_ptr() as usize);
        key.sessions = context.session_timeout.map_or(u64::MAX, |d| d.as_secs());
        if let Some((config, _)) = self.servers.borrow().get(&key) {
            return Ok(config.clone());
        }
        let config = server::config(context, &parts, tickets.as_deref(), alpn)?;
        let config = Arc::new(config);
        let held = (parts.certificates, parts.validation, tickets);
        self.servers
            .borrow_mut()
            .insert(key, (config.clone(), held));
        Ok(config)
    }

    fn ticket_keys(&self, keys: &TicketKeys) -> Result<Option<Arc<[Private]>>, TlsError> {
        match keys {
            TicketKeys::Own => Ok(None),
            TicketKeys::Inline(keys) => Ok(Some(keys.clone())),
            TicketKeys::Sds(name) => match &*self.secret(name)? {
                Secret::SessionTicketKeys(keys) => Ok(Some(keys.clone())),
                _ => Err(TlsError::WrongSecret(name.clone())),
            },
        }
    }

    fn resolve(
        &self,
        certificates: &[CertificateSource],
        validation: &ValidationSource,
    ) -> Result<Resolved, TlsError> {
        let certificate = |source: &CertificateSource| match source {
            CertificateSource::Inline(certificate) => Ok(certificate.clone()),
            CertificateSource::Sds(name) => match &*self.secret(name)? {
                Secret::Certificate(certificate) => Ok(certificate.clone()),
                _ => Err(TlsError::WrongSecret(name.clone())),
            },
        };
        let rules = |name: &Name| match &*self.secret(name)? {
            Secret::Validation(rules) => Ok(rules.clone()),
            _ => Err(TlsError::WrongSecret(name.clone())),
        };
        Ok(Resolved {
            certificates: certificates
                .iter()
                .map(certificate)
                .collect::<Result<_, _>>()?,
            validation: match validation {
                ValidationSource::None => [None, None],
                ValidationSource::Inline(inline) => [Some(inline.clone()), None],
                ValidationSource::Sds(name) => [None, Some(rules(name)?)],
                ValidationSource::Combined { default, sds } => {
                    [Some(default.clone()), Some(rules(sds)?)]
                }
            },
        })
    }

    fn secret(&self, name: &Name) -> Result<Arc<Secret>, TlsError> {
        let found = self.secrets.borrow().get(name).cloned();
        found.ok_or_else(|| TlsError::MissingSecret(name.clone()))
    }
}

impl Key {
    fn new(
        parts: &Resolved,
        alpn: &[Name],
        common: &lateen_proxy_core::config::tls::CommonTls,
    ) -> Self {
        let rules =
            |v: &Option<Arc<ValidationContext>>| v.as_ref().map_or(0, |v| Arc::as_ptr(v) as usize);
        let version =
            |v: Option<lateen_proxy_core::config::tls::TlsVersion>| v.map_or(255, |v| v as u8);
        Self {
            certificates: parts
                .certificates
                .iter()
                .map(|c| Arc::as_ptr(c) as usize)
                .collect(),
            validation: [rules(&parts.validation[0]), rules(&parts.validation[1])],
            alpn: alpn.to_vec(),
            versions: (version(common.min_version), version(common.max_version)),
            suites: common.cipher_suites.clone(),
            curves: common.ecdh_curves.clone(),
            flags: 0,
            name: None,
            tickets: 0,
            sessions: 0,
        }
    }
}
