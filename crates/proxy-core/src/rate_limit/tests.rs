//! Descriptors and the buckets they find.
use super::*;
use crate::config::FractionalPercent;
use crate::config::rate_limit::{MetadataEntry, VirtualHostRules};
use crate::matcher::{HeaderMatcher, HeaderRule};

const NOW: u64 = 10_000_000_000_000_000;

fn limit(most: Option<u32>, all: &[(&[(&str, &str)], u32)]) -> LocalRateLimit {
    let filling = |most| Filling {
        most,
        per_fill: 1,
        interval: Duration::from_secs(3600),
    };
    let mut descriptors = Descriptors::default();
    for (entries, most) in all {
        let entries = entries.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        assert!(descriptors.add(entries.collect(), filling(*most), false, 2));
    }
    LocalRateLimit {
        stat_prefix: "x".into(),
        status: 429,
        bucket: most.map(|most| filling(most).bucket()),
        descriptors,
        rules: Vec::new(),
        stage: 0,
        virtual_host_rules: VirtualHostRules::Override,
        always_consume_default: true,
        enabled: FractionalPercent::ALL,
        enforced: FractionalPercent::ALL,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        limit_headers: false,
        resource_exhausted: false,
    }
}

fn asked<'a>(entries: &[(&'a str, &'a str)]) -> Asked<'a> {
    Asked {
        entries: entries
            .iter()
            .map(|(k, v)| (*k, Cow::Borrowed(v.as_bytes())))
            .collect(),
        hits: 1,
    }
}

fn allowed(limit: &LocalRateLimit, all: &[Asked<'_>]) -> bool {
    limit.take(all, NOW).allowed
}

#[test]
fn a_descriptor_has_a_bucket_of_its_own() {
    let limit = limit(
        Some(10),
        &[(&[("a", "1")], 1), (&[("a", "1"), ("b", "2")], 2)],
    );
    let one = asked(&[("a", "1")]);
    assert!(allowed(&limit, std::slice::from_ref(&one)));
    assert!(!allowed(&limit, std::slice::from_ref(&one)));
    let both = asked(&[("a", "1"), ("b", "2")]);
    assert!(allowed(&limit, std::slice::from_ref(&both)));
    assert!(!allowed(&limit, &[both.clone(), one]));
    assert!(allowed(&limit, &[asked(&[("b", "2"), ("a", "1")])]));
    // The default bucket lost one for each of the allowed.
    assert_eq!(limit.bucket.as_ref().unwrap().left(NOW), 7);
}

#[test]
fn every_value_has_a_bucket_where_none_is_named() {
    let limit = limit(None, &[(&[("a", "")], 1), (&[("a", "known")], 2)]);
    for value in ["x", "y"] {
        assert!(allowed(&limit, &[asked(&[("a", value)])]));
        assert!(!allowed(&limit, &[asked(&[("a", value)])]));
    }
    for want in [true, true, false] {
        assert_eq!(allowed(&limit, &[asked(&[("a", "known")])]), want);
    }
    // A third value takes the place of the first.
    assert!(allowed(&limit, &[asked(&[("a", "z")])]));
    assert!(allowed(&limit, &[asked(&[("a", "x")])]));
    let taken = limit.take(&[asked(&[("b", "x")])], NOW);
    assert!(taken.allowed && taken.bucket.is_none());
}

#[test]
fn the_default_bucket_may_be_spared() {
    let mut limit = limit(Some(1), &[(&[("a", "1")], 3)]);
    limit.always_consume_default = false;
    let one = asked(&[("a", "1")]);
    for want in [true, true, true, false] {
        assert_eq!(allowed(&limit, std::slice::from_ref(&one)), want);
    }
    assert!(allowed(&limit, &[]) && !allowed(&limit, &[]));
}

#[test]
fn rules_make_descriptors() {
    let read = |name: &str, skip_if_absent| Read {
        name: name.into(),
        key: "k".into(),
        skip_if_absent,
    };
    let written = |value: &str| Written {
        key: "w".into(),
        value: value.into(),
    };
    let present = |name: &str| HeaderMatcher {
        name: name.into(),
        rule: HeaderRule::Present(true),
        invert: false,
        missing_as_empty: false,
    };
    let entry = |skip_if_absent| MetadataEntry {
        key: "m".into(),
        of_route: true,
        namespace: "n".into(),
        path: vec!["p".into()],
        default: Name::default(),
        skip_if_absent,
    };
    let net: ipnet::IpNet = "10.0.0.0/8".parse().unwrap();
    let headers: &[(&str, &str)] = &[(":path", "/?q=a%20b"), ("h", "v")];
    let value = Value::Struct(
        [(Name::from("p"), Value::String("here".into()))]
            .into_iter()
            .collect(),
    );
    let facts = Facts {
        headers,
        remote: "10.1.2.3".parse().unwrap(),
        source_cluster: "own",
        destination_cluster: Some("there"),
        metadata: &|_| None,
        route_metadata: &|name| (name == "n").then_some(&value),
        write: &|_| b"written".to_vec(),
    };
    use RateLimitAction as A;
    let range = vec![crate::config::CidrRange(net)];
    for (action, want) in [
        (A::SourceCluster, "source_cluster=own"),
        (A::DestinationCluster, "destination_cluster=there"),
        (A::RequestHeader(read("h", false)), "k=v"),
        (A::RequestHeader(read("x", false)), "none"),
        (A::QueryParameter(read("q", false)), "k=a b"),
        (A::RemoteAddress, "remote_address=10.1.2.3"),
        (
            A::MaskedRemoteAddress { v4: 16, v6: 64 },
            "masked_remote_address=10.1.0.0/16",
        ),
        (A::GenericKey(written("text")), "w=text"),
        (
            A::HeaderMatch(written("t"), vec![present("h")], true),
            "w=t",
        ),
        (
            A::HeaderMatch(written("t"), vec![present("h")], false),
            "none",
        ),
        (A::AddressMatch(written("t"), range.clone(), false), "w=t"),
        (A::AddressMatch(written("t"), range, true), "none"),
        (A::Metadata(entry(false)), "m=here"),
    ] {
        let shown = format!("{action:?}");
        let rule = RateLimitRule {
            stage: 0,
            actions: vec![action],
            hits: Hits::Number(2),
        };
        let made = descriptors([&rule], 0, &facts);
        let text = made.first().map_or("none".to_owned(), |asked| {
            assert_eq!(asked.hits, 2);
            let (key, value) = &asked.entries[0];
            format!("{key}={}", String::from_utf8_lossy(value))
        });
        assert_eq!(text, want, "{shown}");
        assert!(descriptors([&rule], 1, &facts).is_empty());
    }
    let rule = |skip| RateLimitRule {
        stage: 0,
        actions: vec![A::RequestHeader(read("x", skip)), A::SourceCluster],
        hits: Hits::Number(1),
    };
    assert_eq!(descriptors([&rule(true)], 0, &facts)[0].entries.len(), 1);
    assert!(descriptors([&rule(false)], 0, &facts).is_empty());
}
