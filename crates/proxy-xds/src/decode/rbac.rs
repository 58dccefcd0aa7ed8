//! Role-based access control filters, HTTP and network.
use std::sync::Arc;

use lateen_proxy_core::config::Name;
use lateen_proxy_core::config::rbac::{
    Action, NetworkRbac, Permission, Policy, Principal, Rbac, Rules,
};
use lateen_proxy_core::matcher::PathMatcher;
use lateen_proxy_core::uri_template::UriTemplate;
use lateen_xds_proto::envoy::config::rbac::v3 as pb;
use lateen_xds_proto::envoy::extensions::filters::http::rbac::v3 as http;
use lateen_xds_proto::envoy::extensions::filters::network::rbac::v3 as network;
use lateen_xds_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use lateen_xds_proto::envoy::r#type::matcher::v3 as matcher_pb;
use lateen_xds_proto::xds::core::v3 as xds_core;
use lateen_xds_proto::xds::r#type::matcher::v3 as xds_matcher;

use super::common::{cidr, need, opt_duration, port};
use super::match_tree::Reader;
use super::{matcher, typed};
use crate::error::{At, Result, list, refuse, refuse_set};

pub(super) fn http(m: &http::Rbac) -> Result<Rbac> {
    for (set, field) in [(m.track_per_rule_stats, "track_per_rule_stats")] {
        if set {
            return refuse("is not implemented").at(field);
        }
    }
    Ok(Rbac {
        rules: of("matcher", m.matcher.as_ref(), m.rules.as_ref(), true)?,
        shadow_rules: of(
            "shadow_matcher",
            m.shadow_matcher.as_ref(),
            m.shadow_rules.as_ref(),
            true,
        )?,
        shadow_rules_stat_prefix: m.shadow_rules_stat_prefix.as_str().into(),
        rules_stat_prefix: m.rules_stat_prefix.as_str().into(),
    })
}

pub(super) fn network(m: &network::Rbac) -> Result<NetworkRbac> {
    for (set, field) in [
        (m.delay_deny.is_some(), "delay_deny"),
        (
            m.enforcement_type == network::rbac::EnforcementType::Continuous as i32,
            "enforcement_type",
        ),
    ] {
        if set {
            return refuse("is not implemented").at(field);
        }
    }
    let delay = opt_duration(m.delay_deny.as_ref(), "delay_deny")?;
    Ok(NetworkRbac {
        rbac: Rbac {
            rules: of("matcher", m.matcher.as_ref(), m.rules.as_ref(), false)?,
            shadow_rules: of(
                "shadow_matcher",
                m.shadow_matcher.as_ref(),
                m.shadow_rules.as_ref(),
                false,
            )?,
            shadow_rules_stat_prefix: m.shadow_rules_stat_prefix.as_str().into(),
            rules_stat_prefix: Default::default(),
        },
        stat_prefix: m.stat_prefix.as_str().into(),
        continuous: m.enforcement_type == network::rbac::EnforcementType::Continuous as i32,
        delay_deny_ms: delay.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// Rules, or the tree that stands in their place.
fn of(
    field: &str,
    tree: Option<&xds_matcher::Matcher>,
    plain: Option<&pb::Rbac>,
    http: bool,
) -> Result<Option<Arc<Rules>>> {
    let Some(tree) = tree else {
        let name = match field {
            "matcher" => "rules",
            _ => "shadow_rules",
        };
        return plain.map(rules).transpose().at(name);
    };
    let reader = Reader {
        http,
        action: &named_action,
    };
    Ok(Some(Arc::new(Rules {
        action: Action::Allow,
        policies: Vec::new(),
        tree: Some(Box::new(reader.tree(tree).at(field)?)),
    })))
}

fn named_action(m: &xds_core::TypedExtensionConfig) -> Result<(Name, Action)> {
    let any = need(m.typed_config.as_ref(), "typed_config")?;
    let m: pb::Action = typed(any).at("typed_config")?;
    if m.name.is_empty() {
        return refuse("is required").at("name").at("typed_config");
    }
    let action = action(m.action).at("typed_config")?;
    Ok((m.name.as_str().into(), action))
}

fn action(m: i32) -> Result<Action> {
    match pb::rbac::Action::try_from(m) {
        Ok(pb::rbac::Action::Allow) => Ok(Action::Allow),
        Ok(pb::rbac::Action::Deny) => Ok(Action::Deny),
        Ok(pb::rbac::Action::Log) => Ok(Action::Log),
        Err(_) => refuse("is no known action").at("action"),
    }
}

fn rules(m: &pb::Rbac) -> Result<Arc<Rules>> {
    refuse_set(&[(m.audit_logging_options.is_some(), "audit_logging_options")])?;
    let action = action(m.action)?;
    let mut policies = Vec::with_capacity(m.policies.len());
    for (name, p) in &m.policies {
        policies.push((
            name.as_str().into(),
            policy(p).at(&format!("policies[{name:?}]"))?,
        ));
    }
    policies.sort_by(|a: &(Arc<str>, Policy), b| a.0.cmp(&b.0));
    Ok(Arc::new(Rules {
        action,
        policies,
        tree: None,
    }))
}

fn policy(m: &pb::Policy) -> Result<Policy> {
    refuse_set(&[
        (m.condition.is_some(), "condition"),
        (m.checked_condition.is_some(), "checked_condition"),
        (m.cel_config.is_some(), "cel_config"),
    ])?;
    if m.permissions.is_empty() || m.principals.is_empty() {
        return refuse("at least one permission and one principal are required");
    }
    Ok(Policy {
        permissions: list(&m.permissions, "permissions", permission)?,
        principals: list(&m.principals, "principals", principal)?,
    })
}

fn path(m: &matcher_pb::PathMatcher) -> Result<PathMatcher> {
    match &m.rule {
        Some(matcher_pb::path_matcher::Rule::Path(p)) => {
            Ok(PathMatcher(matcher::string(p).at("path")?))
        }
        None => refuse("is required").at("path"),
    }
}

fn permission(m: &pb::Permission) -> Result<Permission> {
    use pb::permission::Rule as R;
    Ok(match m.rule.as_ref() {
        Some(R::Any(true)) => Permission::Any,
        Some(R::Any(false)) => return refuse("must be true").at("any"),
        Some(R::AndRules(s)) => Permission::And(list(&s.rules, "and_rules.rules", permission)?),
        Some(R::OrRules(s)) => Permission::Or(list(&s.rules, "or_rules.rules", permission)?),
        Some(R::NotRule(r)) => Permission::Not(Box::new(permission(r).at("not_rule")?)),
        Some(R::Header(h)) => Permission::Header(Box::new(matcher::header(h).at("header")?)),
        Some(R::UrlPath(p)) => Permission::UrlPath(Box::new(path(p).at("url_path")?)),
        Some(R::UriTemplate(t)) => {
            let any = need(t.typed_config.as_ref(), "typed_config").at("uri_template")?;
            let config: UriTemplateMatchConfig = typed(any).at("uri_template.typed_config")?;
            let template = UriTemplate::parse(&config.path_template)
                .at("uri_template.typed_config.path_template")?;
            Permission::UriTemplate(Arc::new(template))
        }
        Some(R::DestinationIp(r)) => Permission::DestinationIp(cidr(r).at("destination_ip")?),
        Some(R::DestinationPort(p)) => {
            Permission::DestinationPort(port(*p).at("destination_port")?)
        }
        Some(R::DestinationPortRange(r)) => match (u32::try_from(r.start), u32::try_from(r.end)) {
            (Ok(start), Ok(end)) if start < end && end <= 65536 => {
                Permission::DestinationPortRange(start, end)
            }
            _ => {
                return refuse("ports are 0 to 65535, the end is exclusive")
                    .at("destination_port_range");
            }
        },
        Some(R::Metadata(d)) => {
            Permission::Metadata(Box::new(matcher::metadata(d).at("metadata")?))
        }
        Some(R::RequestedServerName(s)) => Permission::RequestedServerName(Box::new(
            matcher::string(s).at("requested_server_name")?,
        )),
        Some(R::Matcher(e)) => {
            return refuse(format!("{} is not implemented", e.name)).at("matcher");
        }
        Some(R::SourcedMetadata(_)) => return refuse("is not implemented").at("sourced_metadata"),
        None => return refuse("a rule is required"),
    })
}

fn principal(m: &pb::Principal) -> Result<Principal> {
    use pb::principal::Identifier as I;
    Ok(match m.identifier.as_ref() {
        Some(I::Any(true)) => Principal::Any,
        Some(I::Any(false)) => return refuse("must be true").at("any"),
        Some(I::AndIds(s)) => Principal::And(list(&s.ids, "and_ids.ids", principal)?),
        Some(I::OrIds(s)) => Principal::Or(list(&s.ids, "or_ids.ids", principal)?),
        Some(I::NotId(p)) => Principal::Not(Box::new(principal(p).at("not_id")?)),
        Some(I::Authenticated(a)) => Principal::Authenticated(
            a.principal_name
                .as_ref()
                .map(|n| matcher::string(n).map(Box::new))
                .transpose()
                .at("authenticated.principal_name")?,
        ),
        Some(I::SourceIp(r)) => Principal::SourceIp(cidr(r).at("source_ip")?),
        Some(I::DirectRemoteIp(r)) => Principal::DirectRemoteIp(cidr(r).at("direct_remote_ip")?),
        Some(I::RemoteIp(r)) => Principal::RemoteIp(cidr(r).at("remote_ip")?),
        Some(I::Header(h)) => Principal::Header(Box::new(matcher::header(h).at("header")?)),
        Some(I::UrlPath(p)) => Principal::UrlPath(Box::new(path(p).at("url_path")?)),
        Some(I::Metadata(d)) => Principal::Metadata(Box::new(matcher::metadata(d).at("metadata")?)),
        Some(I::FilterState(f)) => match &f.matcher {
            Some(matcher_pb::filter_state_matcher::Matcher::StringMatch(s)) => {
                Principal::FilterState(
                    f.key.as_str().into(),
                    Box::new(matcher::string(s).at("filter_state.string_match")?),
                )
            }
            Some(matcher_pb::filter_state_matcher::Matcher::AddressMatch(_)) => {
                return refuse("is not implemented").at("filter_state.address_match");
            }
            None => return refuse("string_match is required").at("filter_state"),
        },
        Some(I::SourcedMetadata(_)) => return refuse("is not implemented").at("sourced_metadata"),
        Some(I::Custom(e)) => return refuse(format!("{} is not implemented", e.name)).at("custom"),
        None => return refuse("an identifier is required"),
    })
}
