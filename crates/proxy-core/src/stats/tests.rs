//! Cells of several workers, merged and printed.
use super::*;

fn value(r: &Registry, flat: &str) -> Option<MetricValue> {
    r.collect()
        .into_iter()
        .find(|m| &*m.name.flat == flat)
        .map(|m| m.value)
}

#[test]
fn workers_are_summed() {
    let r = Registry::new();
    let name = Scope::cluster("a").stat("upstream_rq_total");
    let (one, two) = (r.counter(&name), r.counter(&name));
    one.add(2);
    two.inc();
    assert_eq!(
        value(&r, "cluster.a.upstream_rq_total"),
        Some(MetricValue::Counter(3))
    );
    drop(one);
    drop(two);
    r.counter(&name).add(4);
    assert_eq!(
        value(&r, "cluster.a.upstream_rq_total"),
        Some(MetricValue::Counter(7)),
        "counts outlive handles"
    );
    r.reset_counters();
    assert_eq!(
        value(&r, "cluster.a.upstream_rq_total"),
        Some(MetricValue::Counter(0))
    );
    let g = r.gauge(&Scope::group("server").stat("live"));
    assert!(
        !r.collect()
            .iter()
            .any(|m| &*m.name.flat == "server.live" && m.used)
    );
    g.sub(5);
    g.add(2);
    assert_eq!(value(&r, "server.live"), Some(MetricValue::Gauge(-3)));
    r.remove_prefix("cluster.a.");
    assert_eq!(value(&r, "cluster.a.upstream_rq_total"), None);
}

#[test]
fn rejected_names_are_not_read() {
    let r = Registry::new();
    r.keep(|name| name.starts_with("server"));
    let c = r.counter(&Scope::http("x").stat("rq_total"));
    c.inc();
    assert_eq!(c.get(), 1);
    assert!(r.collect().is_empty());
}

#[test]
fn histograms() {
    let r = Registry::new();
    let h = r.histogram(&Scope::cluster("a").stat("upstream_rq_time"));
    for v in [0, 1, 1, 7, 600] {
        h.record(v);
    }
    let mut out = String::new();
    write_prometheus(&r.collect(), &mut out);
    for want in [
        "# TYPE envoy_cluster_upstream_rq_time histogram\n",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"0.5\"} 1\n",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"1\"} 3\n",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"500\"} 4\n",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"+Inf\"} 5\n",
        "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"a\"} 609\n",
        "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"a\"} 5\n",
    ] {
        assert!(out.contains(want), "{want} in\n{out}");
    }
    let MetricValue::Histogram(s) = value(&r, "cluster.a.upstream_rq_time").unwrap() else {
        panic!("kind")
    };
    assert_eq!(s.quantile(1.0), Some(600.0));
    assert!(s.quantile(0.5).unwrap() <= 1.0);
}

#[test]
fn prometheus_names_and_labels() {
    let r = Registry::new();
    r.counter(&Scope::cluster("o|80||x").code_class("upstream_rq", 2))
        .add(3);
    r.counter(&Scope::cluster("o|80||x").code("upstream_rq", 200))
        .add(3);
    r.counter(&StatName::custom(
        "istio_requests_total",
        [("reporter", "source"), ("x", "a\"b")]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
    ))
    .inc();
    r.gauge(&Scope::group("server").stat("live")).set(1);
    let mut out = String::new();
    write_prometheus(&r.collect(), &mut out);
    assert_eq!(
        out,
        "# TYPE envoy_cluster_upstream_rq counter\n\
         envoy_cluster_upstream_rq{envoy_cluster_name=\"o|80||x\",envoy_response_code=\"200\"} 3\n\
         # TYPE envoy_cluster_upstream_rq_xx counter\n\
         envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"o|80||x\",envoy_response_code_class=\"2\"} 3\n\
         # TYPE envoy_server_live gauge\n\
         envoy_server_live{} 1\n\
         # TYPE istio_requests_total counter\n\
         istio_requests_total{reporter=\"source\",x=\"a\\\"b\"} 1\n"
    );
    let mut out = String::new();
    write_text(&r.collect(), &mut out);
    assert!(out.contains("cluster.o|80||x.upstream_rq_2xx: 3\n"));
}
