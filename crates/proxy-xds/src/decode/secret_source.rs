//! Where resources come from besides ADS: watched files, and for secrets management servers of
//! their own. What has such a source has it in its key, so that two sources may each have a
//! `default`.
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::bootstrap::WatchedFile;
use lateen_xds_proto::Message;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::transport_sockets::tls::v3 as pb;

use super::common::{fetch_timeout, only_v3};
use super::{Context, discovery_file, message};
use crate::error::{At, DecodeError, Result, refuse, refuse_set};

/// Parts a secret's own name from its source; no name has it.
const BETWEEN: char = '\u{1}';

/// Where a resource comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceSource {
    /// The one ADS stream.
    #[default]
    Ads,
    /// A file with a discovery response.
    File(WatchedFile),
    /// A stream of its own to a cluster.
    Grpc {
        /// The cluster.
        cluster: Name,
        /// Delta instead of state of the world.
        delta: bool,
    },
}

impl ResourceSource {
    /// The key of a resource of this source.
    #[must_use]
    pub fn key(&self, name: &str) -> Name {
        match self {
            Self::Ads => name.into(),
            Self::File(file) => format!("{name}{BETWEEN}{}", file.path).into(),
            Self::Grpc { cluster, delta } => format!("{name}{BETWEEN}{cluster}{delta}").into(),
        }
    }
}

/// Whether a key is that of a resource over ADS.
#[must_use]
pub fn is_over_ads(key: &str) -> bool {
    !key.contains(BETWEEN)
}

/// The name in a key.
#[must_use]
pub fn own_name(key: &str) -> &str {
    key.split_once(BETWEEN).map_or(key, |(name, _)| name)
}

/// The source that a reference names, and its fetch timeout in milliseconds.
pub(crate) fn source(m: &core::ConfigSource, context: &Context) -> Result<(ResourceSource, u64)> {
    use core::config_source::ConfigSourceSpecifier as S;
    only_v3(m)?;
    let found = match &m.config_source_specifier {
        Some(S::Ads(_) | S::Self_(_)) => ResourceSource::Ads,
        Some(S::Path(_) | S::PathConfigSource(_)) => {
            let Some(file) = discovery_file::watched(m)? else {
                return refuse("a config source is required");
            };
            if let Err(error) = (context.read_file)(&file.path) {
                let path = match &m.config_source_specifier {
                    Some(S::PathConfigSource(_)) => "path_config_source.path",
                    _ => "path",
                };
                return refuse(format!("{}: {error}", file.path)).at(path);
            }
            ResourceSource::File(file)
        }
        Some(S::ApiConfigSource(api)) => server(api).at("api_config_source")?,
        None => return refuse("a config source is required"),
    };
    Ok((found, fetch_timeout(m)?))
}

fn server(m: &core::ApiConfigSource) -> Result<ResourceSource> {
    use core::api_config_source::ApiType;
    use core::grpc_service::TargetSpecifier;
    refuse_set(&[
        (!m.cluster_names.is_empty(), "cluster_names"),
        (!m.config_validators.is_empty(), "config_validators"),
        (m.rate_limit_settings.is_some(), "rate_limit_settings"),
        (
            m.transport_api_version == core::ApiVersion::V2 as i32,
            "transport_api_version",
        ),
    ])?;
    if m.transport_api_version == core::ApiVersion::V2 as i32 {
        return refuse("must be V3").at("transport_api_version");
    }
    let delta = match ApiType::try_from(m.api_type) {
        Ok(ApiType::Grpc) => false,
        Ok(ApiType::DeltaGrpc) => true,
        _ => return refuse("is not implemented; GRPC and DELTA_GRPC are").at("api_type"),
    };
    let [service] = m.grpc_services.as_slice() else {
        return refuse("one service is required").at("grpc_services");
    };
    stream_service(service).item("grpc_services", 0)?;
    match &service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) if !grpc.cluster_name.is_empty() => {
            Ok(ResourceSource::Grpc {
                cluster: grpc.cluster_name.as_str().into(),
                delta,
            })
        }
        _ => refuse("envoy_grpc with a cluster_name is required").item("grpc_services", 0),
    }
}

/// A stream of discovery has no time limit and no retries of its own.
fn stream_service(m: &core::GrpcService) -> Result<()> {
    use core::grpc_service::TargetSpecifier;
    refuse_set(&[
        (!m.initial_metadata.is_empty(), "initial_metadata"),
        (m.retry_policy.is_some(), "retry_policy"),
    ])?;
    match &m.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => refuse_set(&[
            (!grpc.authority.is_empty(), "authority"),
            (grpc.retry_policy.is_some(), "retry_policy"),
            (
                grpc.max_receive_message_length.is_some(),
                "max_receive_message_length",
            ),
        ])
        .at("envoy_grpc"),
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            refuse("is not implemented, envoy_grpc is").at("google_grpc")
        }
        None => Ok(()),
    }
}

/// Why a file gives no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotTaken {
    /// The file could be read; what it holds is not what is wanted.
    pub(crate) rejected: bool,
    /// What is wrong, with the file, the line and the field.
    pub(crate) problem: String,
}

/// The wire bytes of a secret in a file, the one of this name, and its place in the list.
pub(crate) fn in_file(
    path: &str,
    name: &str,
    context: &Context,
) -> std::result::Result<(usize, Vec<u8>), NotTaken> {
    let response = discovery_file::read(path, context).map_err(|problem| NotTaken {
        rejected: discovery_file::is_text(path, context),
        problem,
    })?;
    let rejected = |index: Option<usize>, error: DecodeError| NotTaken {
        rejected: true,
        problem: match index {
            Some(index) => in_list(path, index, &error, context),
            None => format!("{path}: {error}"),
        },
    };
    let mut others = Vec::new();
    for (index, any) in response.resources.iter().enumerate() {
        let secret: pb::Secret = super::typed(any).map_err(|e| rejected(Some(index), e))?;
        if secret.name == name {
            return Ok((index, secret.encode_to_vec()));
        }
        others.push(secret.name);
    }
    let found = match others.as_slice() {
        [] => "nothing".to_owned(),
        all => format!("`{}`", all.join("`, `")),
    };
    let first = (!others.is_empty()).then_some(0);
    let problem = format!("holds {found}; the secret `{name}` is expected");
    Err(rejected(first, DecodeError::new(problem)))
}

/// `path:line: resources[index].field: problem` of what is wrong with a resource of a file.
pub(crate) fn in_list(path: &str, index: usize, error: &DecodeError, context: &Context) -> String {
    let error = error.clone().within(&format!("resources[{index}]"));
    let line = discovery_file::line_of(path, &error.path, context);
    format!("{path}{line}: {error}")
}

/// Tells whether the files that a secret names are as they were; none = it
/// names no file.
pub(crate) fn files_stamp(raw: &[u8], context: &Context) -> Option<u64> {
    use pb::secret::Type as T;
    let secret: pb::Secret = message(raw).ok()?;
    let sources: Vec<Option<core::DataSource>> = match secret.r#type? {
        T::TlsCertificate(c) => vec![c.certificate_chain, c.private_key, c.password],
        T::ValidationContext(v) => vec![v.trusted_ca, v.crl],
        T::SessionTicketKeys(keys) => keys.keys.into_iter().map(Some).collect(),
        T::GenericSecret(generic) => vec![generic.secret],
    };
    let files = sources
        .into_iter()
        .flatten()
        .filter_map(|s| match s.specifier {
            Some(core::data_source::Specifier::Filename(path)) => Some(path),
            _ => None,
        });
    let mut hasher = DefaultHasher::new();
    let mut any = false;
    for path in files {
        any = true;
        match (context.read_file)(&path) {
            Ok(bytes) => bytes.hash(&mut hasher),
            Err(error) => error.kind().to_string().hash(&mut hasher),
        }
    }
    any.then(|| hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_sources_apart() {
        let ads = ResourceSource::Ads.key("default");
        let file = ResourceSource::File(WatchedFile {
            path: "/a".into(),
            directory: None,
            written: false,
        })
        .key("default");
        let grpc = ResourceSource::Grpc {
            cluster: "sds".into(),
            delta: false,
        };
        assert_eq!(&*ads, "default");
        assert_ne!(file, grpc.key("default"));
        for key in [ads, file, grpc.key("default")] {
            assert_eq!(own_name(&key), "default");
            assert_eq!(is_over_ads(&key), &*key == "default");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line_and_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sds.yaml");
        let context = Context::files();
        let wrong = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let wrong = in_file(path.to_str().unwrap(), "s", &context).unwrap_err();
            let own = format!("{}", path.display());
            (wrong.rejected, wrong.problem.replace(&own, "sds.yaml"))
        };
        let head = "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n";
        let (rejected, problem) = wrong("resources: [{bad");
        assert!(!rejected && problem.starts_with("sds.yaml: "), "{problem}");
        let (rejected, problem) = wrong(&format!("{head}  name: s\n  tls_certificat: {{}}\n"));
        assert!(rejected, "{problem}");
        assert!(problem.starts_with("sds.yaml:4: resources[0]"), "{problem}");
        assert!(problem.contains("tls_certificat"), "{problem}");
        assert_eq!(
            wrong(&format!("{head}  name: other\n")),
            (
                true,
                "sds.yaml:2: resources[0]: holds `other`; the secret `s` is expected".to_owned()
            )
        );
        let (rejected, problem) = wrong("resources: []");
        assert!(rejected && problem.contains("holds nothing"), "{problem}");
    }
}
