//! Subset balancing.
use std::collections::BTreeSet;

use lateen_proxy_core::config::cluster::{SubsetConfig, SubsetFallback, SubsetSelector};
use lateen_proxy_core::config::{Fields, Metadata, Name, Value};
use lateen_xds_proto::envoy::config::cluster::v3::cluster as pb;
use lateen_xds_proto::envoy::config::core::v3 as core;

use super::common::{metadata, struct_to_value};
use crate::error::{At, Result, list, refuse, refuse_set};

pub(super) fn config(m: &pb::LbSubsetConfig) -> Result<SubsetConfig> {
    use pb::lb_subset_config::LbSubsetFallbackPolicy as F;
    refuse_set(&[
        (m.scale_locality_weight, "scale_locality_weight"),
        (m.metadata_fallback_policy != 0, "metadata_fallback_policy"),
    ])?;
    let fallback = match F::try_from(m.fallback_policy) {
        Ok(F::NoFallback) => SubsetFallback::None,
        Ok(F::AnyEndpoint) => SubsetFallback::Any,
        Ok(F::DefaultSubset) => SubsetFallback::Default,
        Err(_) => return refuse("is no known policy").at("fallback_policy"),
    };
    let mut selectors: Vec<SubsetSelector> = Vec::new();
    for selector in list(&m.subset_selectors, "subset_selectors", selector)? {
        // Several selectors of the same keys are one, as under Envoy: the last.
        selectors.retain(|s| s.keys != selector.keys);
        selectors.push(selector);
    }
    Ok(SubsetConfig {
        fallback,
        default_subset: match m.default_subset.as_ref().map(struct_to_value) {
            Some(Value::Struct(map)) => map,
            _ => Fields::new(),
        },
        selectors,
        locality_weight_aware: m.locality_weight_aware,
        panic_mode_any: m.panic_mode_any,
        list_as_any: m.list_as_any,
    })
}

fn selector(m: &pb::lb_subset_config::LbSubsetSelector) -> Result<SubsetSelector> {
    use pb::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy as F;
    refuse_set(&[(m.single_host_per_subset, "single_host_per_subset")])?;
    let set =
        |list: &[String]| -> BTreeSet<Name> { list.iter().map(|k| k.as_str().into()).collect() };
    let (keys, fallback_keys) = (set(&m.keys), set(&m.fallback_keys_subset));
    let fallback = match F::try_from(m.fallback_policy) {
        Ok(F::NotDefined) => None,
        Ok(F::NoFallback) => Some(SubsetFallback::None),
        Ok(F::AnyEndpoint) => Some(SubsetFallback::Any),
        Ok(F::DefaultSubset) => Some(SubsetFallback::Default),
        Ok(F::KeysSubset) => Some(SubsetFallback::Keys),
        Err(_) => return refuse("is no known policy").at("fallback_policy"),
    };
    if fallback == Some(SubsetFallback::Keys) {
        let fewer = fallback_keys.is_subset(&keys) && fallback_keys.len() < keys.len();
        if fallback_keys.is_empty() || !fewer {
            return refuse("must be some of keys, and not all of them").at("fallback_keys_subset");
        }
    } else if !fallback_keys.is_empty() {
        return refuse("is of use with KEYS_SUBSET only").at("fallback_keys_subset");
    }
    Ok(SubsetSelector {
        keys,
        fallback,
        fallback_keys,
    })
}

/// What a route asks of endpoints, with what one of its clusters asks on top.
pub(super) fn criteria(outer: Option<&core::Metadata>, own: Option<&core::Metadata>) -> Metadata {
    const NAMESPACE: &str = "envoy.lb";
    let outer = metadata(outer);
    let own = metadata(own);
    let mut all = match outer.get(NAMESPACE) {
        Some(Value::Struct(map)) => map.clone(),
        _ => Fields::new(),
    };
    if let Some(Value::Struct(map)) = own.get(NAMESPACE) {
        all.extend(map.clone());
    }
    if all.is_empty() {
        return Metadata::default();
    }
    Metadata::from(Fields::from([(NAMESPACE.into(), Value::Struct(all))]))
}
