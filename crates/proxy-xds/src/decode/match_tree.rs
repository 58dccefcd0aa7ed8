//! Trees of matchers.
use lateen_proxy_core::config::Name;
use lateen_proxy_core::match_tree::{Choice, Input, On, Predicate, Test, Tree};
use lateen_xds_proto::envoy::extensions::matching::common_inputs::network::v3::DynamicMetadataInput;
use lateen_xds_proto::envoy::extensions::matching::common_inputs::network::v3::dynamic_metadata_input::path_segment::Segment;
use lateen_xds_proto::envoy::extensions::matching::input_matchers::ip::v3::Ip;
use lateen_xds_proto::envoy::extensions::matching::input_matchers::metadata::v3::Metadata;
use lateen_xds_proto::envoy::r#type::matcher::v3 as envoy_matcher;
use lateen_xds_proto::xds::core::v3 as xds_core;
use lateen_xds_proto::xds::r#type::matcher::v3 as pb;
use pb::matcher::matcher_list::{self, predicate};

use super::common::{cidr, header_name, need};
use super::{matcher, type_name, typed};
use crate::error::{At, Result, list, refuse, refuse_set};

const NETWORK: &str = "envoy.extensions.matching.common_inputs.network.v3.";
const SSL: &str = "envoy.extensions.matching.common_inputs.ssl.v3.";
const HTTP: &str = "envoy.type.matcher.v3.";
const IP: &str = "envoy.extensions.matching.input_matchers.ip.v3.Ip";
const METADATA: &str = "envoy.extensions.matching.input_matchers.metadata.v3.Metadata";

/// Reads the actions of a tree; `http` = requests are looked at, not bare connections.
pub(super) struct Reader<'a, A> {
    pub http: bool,
    pub action: &'a dyn Fn(&xds_core::TypedExtensionConfig) -> Result<A>,
}

impl<A> Reader<'_, A> {
    /// A tree.
    pub(super) fn tree(&self, m: &pb::Matcher) -> Result<Tree<A>> {
        use pb::matcher::MatcherType as T;
        Ok(Tree {
            choice: match &m.matcher_type {
                None => None,
                Some(T::MatcherList(all)) => Some(Choice::List(
                    list(&all.matchers, "matchers", |one| self.field(one)).at("matcher_list")?,
                )),
                Some(T::MatcherTree(tree)) => Some(self.map(tree).at("matcher_tree")?),
            },
            otherwise: m
                .on_no_match
                .as_ref()
                .map(|on| self.on(on))
                .transpose()
                .at("on_no_match")?,
        })
    }

    fn field(&self, m: &matcher_list::FieldMatcher) -> Result<(Predicate, On<A>)> {
        let predicate = need(m.predicate.as_ref(), "predicate")
            .and_then(|p| self.predicate(p).at("predicate"))?;
        let on = need(m.on_match.as_ref(), "on_match").and_then(|on| self.on(on).at("on_match"))?;
        Ok((predicate, on))
    }

    fn on(&self, m: &pb::matcher::OnMatch) -> Result<On<A>> {
        use pb::matcher::on_match::OnMatch as O;
        refuse_set(&[(m.keep_matching, "keep_matching")])?;
        match &m.on_match {
            Some(O::Action(action)) => Ok(On::Action((self.action)(action).at("action")?)),
            Some(O::Matcher(inner)) => Ok(On::Tree(Box::new(self.tree(inner).at("matcher")?))),
            None => refuse("an action or a matcher is required"),
        }
    }

    fn map(&self, m: &pb::matcher::MatcherTree) -> Result<Choice<A>> {
        use pb::matcher::matcher_tree::TreeType as T;
        let input = need(m.input.as_ref(), "input").and_then(|i| self.input(i).at("input"))?;
        if matches!(input, Input::Metadata { .. }) {
            return refuse("is no text").at("input");
        }
        let pairs = |m: &pb::matcher::matcher_tree::MatchMap| -> Result<Vec<(Name, On<A>)>> {
            if m.map.is_empty() {
                return refuse("at least one is required").at("map");
            }
            let each = |(key, on): (&String, &pb::matcher::OnMatch)| {
                let on = self.on(on).at(&format!("map[{key:?}]"))?;
                Ok((Name::from(key.as_str()), on))
            };
            m.map.iter().map(each).collect()
        };
        match &m.tree_type {
            Some(T::ExactMatchMap(map)) => {
                let pairs = pairs(map).at("exact_match_map")?;
                Ok(Choice::Exact(input, pairs.into_iter().collect()))
            }
            Some(T::PrefixMatchMap(map)) => {
                let mut pairs = pairs(map).at("prefix_match_map")?;
                pairs.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
                Ok(Choice::Prefix(input, pairs))
            }
            Some(T::CustomMatch(m)) => {
                refuse(format!("{} is not implemented", m.name)).at("custom_match")
            }
            None => refuse("exact_match_map or prefix_match_map is required"),
        }
    }

    fn predicate(&self, m: &matcher_list::Predicate) -> Result<Predicate> {
        use predicate::MatchType as T;
        let all = |m: &predicate::PredicateList, field: &str| {
            list(&m.predicate, "predicate", |p| self.predicate(p)).at(field)
        };
        Ok(match &m.match_type {
            Some(T::SinglePredicate(single)) => self.single(single).at("single_predicate")?,
            Some(T::OrMatcher(any)) => Predicate::Any(all(any, "or_matcher")?),
            Some(T::AndMatcher(every)) => Predicate::All(all(every, "and_matcher")?),
            Some(T::NotMatcher(inner)) => {
                Predicate::Not(Box::new(self.predicate(inner).at("not_matcher")?))
            }
            None => return refuse("a predicate is required"),
        })
    }

    fn single(&self, m: &predicate::SinglePredicate) -> Result<Predicate> {
        use predicate::single_predicate::Matcher as M;
        let input = need(m.input.as_ref(), "input").and_then(|i| self.input(i).at("input"))?;
        let metadata = matches!(input, Input::Metadata { .. });
        let test = match &m.matcher {
            Some(M::ValueMatch(text)) => Test::Text(self::text(text).at("value_match")?),
            Some(M::CustomMatch(m)) => custom(m).at("custom_match")?,
            None => return refuse("value_match or custom_match is required"),
        };
        if metadata != matches!(test, Test::Value(..)) {
            return refuse("input and matcher do not fit");
        }
        Ok(Predicate::Single(input, test))
    }

    fn input(&self, m: &xds_core::TypedExtensionConfig) -> Result<Input> {
        let any = need(m.typed_config.as_ref(), "typed_config")?;
        let name = type_name(any)?;
        let unknown = || refuse(format!("input {name} is not implemented")).at("typed_config");
        if let Some(kind) = name.strip_prefix(NETWORK) {
            return match kind {
                "SourceIPInput" => Ok(Input::SourceIp),
                "DirectSourceIPInput" => Ok(Input::DirectSourceIp),
                "DestinationIPInput" => Ok(Input::DestinationIp),
                "DestinationPortInput" => Ok(Input::DestinationPort),
                "ServerNameInput" => Ok(Input::ServerName),
                "DynamicMetadataInput" => metadata(&typed(any)?).at("typed_config"),
                _ => unknown(),
            };
        }
        match (name.strip_prefix(SSL), name.strip_prefix(HTTP)) {
            (Some("UriSanInput"), _) => Ok(Input::UriSan),
            (Some("DnsSanInput"), _) => Ok(Input::DnsSan),
            (Some("SubjectInput"), _) => Ok(Input::Subject),
            (_, Some("HttpRequestHeaderMatchInput")) if self.http => {
                let m: envoy_matcher::HttpRequestHeaderMatchInput = typed(any)?;
                let name = header_name(&m.header_name).at("header_name");
                // `Host` is kept as the authority.
                let name = match &*name.at("typed_config")? {
                    "host" => ":authority".into(),
                    name => name.into(),
                };
                Ok(Input::Header(name))
            }
            _ => unknown(),
        }
    }
}

fn metadata(m: &DynamicMetadataInput) -> Result<Input> {
    let path = list(&m.path, "path", |segment| match &segment.segment {
        Some(Segment::Key(key)) => Ok(Name::from(key.as_str())),
        None => refuse("a key is required"),
    })?;
    Ok(Input::Metadata {
        filter: m.filter.as_str().into(),
        path,
    })
}

fn custom(m: &xds_core::TypedExtensionConfig) -> Result<Test> {
    let any = need(m.typed_config.as_ref(), "typed_config")?;
    match type_name(any)?.as_str() {
        IP => {
            let m: Ip = typed(any)?;
            let ranges = list(&m.cidr_ranges, "cidr_ranges", cidr).at("typed_config")?;
            Ok(Test::Ip(ranges))
        }
        METADATA => {
            let m: Metadata = typed(any)?;
            let value = need(m.value.as_ref(), "value")
                .and_then(|value| matcher::value(value).at("value"))
                .at("typed_config")?;
            Ok(Test::Value(value, m.invert))
        }
        name => refuse(format!("matcher {name} is not implemented")).at("typed_config"),
    }
}

/// A text matcher: the same message in another package.
fn text(m: &pb::StringMatcher) -> Result<lateen_proxy_core::matcher::StringMatcher> {
    use envoy_matcher::string_matcher::MatchPattern as E;
    use pb::string_matcher::MatchPattern as P;
    let pattern = match &m.match_pattern {
        Some(P::Exact(text)) => Some(E::Exact(text.clone())),
        Some(P::Prefix(text)) => Some(E::Prefix(text.clone())),
        Some(P::Suffix(text)) => Some(E::Suffix(text.clone())),
        Some(P::Contains(text)) => Some(E::Contains(text.clone())),
        Some(P::SafeRegex(regex)) => Some(E::SafeRegex(envoy_matcher::RegexMatcher {
            regex: regex.regex.clone(),
            ..Default::default()
        })),
        Some(P::Custom(_)) => return refuse("is not implemented").at("custom"),
        None => None,
    };
    matcher::string(&envoy_matcher::StringMatcher {
        ignore_case: m.ignore_case,
        match_pattern: pattern,
    })
}
