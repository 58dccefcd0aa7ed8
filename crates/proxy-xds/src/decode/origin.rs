//! Extensions of the connection manager that look at a request before all else: edits of its head,
//! and who its client is.
use lateen_proxy_core::config::http_filter::HeaderEdit;
use lateen_proxy_core::original_ip::OriginalIp;
use lateen_xds_proto::envoy::config::core::v3 as core;
use lateen_xds_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use lateen_xds_proto::envoy::extensions::http::early_header_mutation::header_mutation::v3 as early;
use lateen_xds_proto::envoy::extensions::http::original_ip_detection::{
    custom_header::v3 as header, xff::v3 as xff,
};

use super::common::{bool_or, cidr, header_name, need};
use super::{http_filter, type_name, typed};
use crate::error::{At, Result, list, refuse};

const EARLY: &str = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
const XFF: &str = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
const HEADER: &str =
    "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";

/// `early_header_mutation_extensions`: the edits of all of them, in order.
pub(super) fn early_edits(m: &pb::HttpConnectionManager) -> Result<Box<[HeaderEdit]>> {
    let field = "early_header_mutation_extensions";
    let all = list(&m.early_header_mutation_extensions, field, |extension| {
        let any = need(extension.typed_config.as_ref(), "typed_config")?;
        if type_name(any)? != EARLY {
            return unknown(extension);
        }
        let m: early::HeaderMutation = typed(any).at("typed_config")?;
        list(&m.mutations, "mutations", http_filter::header_edit).at("typed_config")
    })?;
    Ok(all.into_iter().flatten().collect())
}

/// `original_ip_detection_extensions`.
pub(super) fn original_ip(m: &pb::HttpConnectionManager) -> Result<Box<[OriginalIp]>> {
    let field = "original_ip_detection_extensions";
    let all = &m.original_ip_detection_extensions;
    if !all.is_empty() {
        for (set, other) in [
            (
                bool_or(m.use_remote_address.as_ref(), false),
                "use_remote_address",
            ),
            (m.xff_num_trusted_hops > 0, "xff_num_trusted_hops"),
        ] {
            if set {
                return refuse(format!("{other} must not be set beside it")).at(field);
            }
        }
    }
    Ok(list(all, field, one)?.into())
}

fn one(m: &core::TypedExtensionConfig) -> Result<OriginalIp> {
    let any = need(m.typed_config.as_ref(), "typed_config")?;
    match type_name(any)?.as_str() {
        XFF => forwarded_for(&typed(any).at("typed_config")?).at("typed_config"),
        HEADER => by_header(&typed(any).at("typed_config")?).at("typed_config"),
        _ => unknown(m),
    }
}

fn unknown<T>(m: &core::TypedExtensionConfig) -> Result<T> {
    refuse(format!("extension {} is not implemented", m.name)).at("typed_config")
}

fn forwarded_for(m: &xff::XffConfig) -> Result<OriginalIp> {
    let trusted = match &m.xff_trusted_cidrs {
        Some(_) if m.xff_num_trusted_hops > 0 => {
            return refuse("must not be set beside xff_num_trusted_hops").at("xff_trusted_cidrs");
        }
        Some(trusted) => list(&trusted.cidrs, "cidrs", cidr).at("xff_trusted_cidrs")?,
        None => Vec::new(),
    };
    Ok(OriginalIp::ForwardedFor {
        hops: m.xff_num_trusted_hops,
        trusted,
        skip_append: bool_or(m.skip_xff_append.as_ref(), true),
    })
}

fn by_header(m: &header::CustomHeaderConfig) -> Result<OriginalIp> {
    // Who asks for what is no refusal gets 403.
    let status = |code: i32| u16::try_from(code).ok().filter(|c| (400..600).contains(c));
    Ok(OriginalIp::Header {
        name: header_name(&m.header_name).at("header_name")?,
        trusted: m.allow_extension_to_set_address_as_trusted,
        refusal: m
            .reject_with_status
            .as_ref()
            .map(|s| status(s.code).unwrap_or(403)),
    })
}
