//! DestinationRule.

use super::{Findings, text};
use crate::istio::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, DestinationRule,
    LoadBalancerSettings, LocalityLbSetting, OutlierDetection, SimpleLb, TrafficPolicy,
};

/// Checks a destination rule.
pub fn check(rule: &DestinationRule, f: &mut Findings<'_>) {
    match text::host_problem(&rule.host) {
        Some(problem) => f.error(
            "spec.host",
            &format!("host {:?} is not valid: {problem}", rule.host),
            "",
        ),
        None if rule.host == "*" => f.warn("spec.host", "the rule is for every host", ""),
        None => {}
    }
    f.export_to(&rule.export_to);
    if let Some(p) = &rule.traffic_policy {
        policy(p, "spec.trafficPolicy", f);
    }
    for (i, subset) in rule.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{i}]");
        if !text::is_dns_label(&subset.name) {
            f.error(
                &format!("{path}.name"),
                &format!("{:?} is no subset name", subset.name),
                "use letters, digits and dashes",
            );
        }
        if rule.subsets[..i].iter().any(|s| s.name == subset.name) {
            f.error(
                &format!("{path}.name"),
                &format!("subset {:?} is there twice", subset.name),
                "use another name, or put both sets of settings into one subset",
            );
        }
        f.labels(&format!("{path}.labels"), &subset.labels);
        if let Some(p) = &subset.traffic_policy {
            policy(p, &format!("{path}.trafficPolicy"), f);
        }
    }
    if let Some(s) = &rule.workload_selector {
        f.labels("spec.workloadSelector.matchLabels", &s.match_labels);
        if rule.export_to.iter().any(|e| e != ".") {
            f.error(
                "spec.exportTo",
                "a rule with a workloadSelector is not visible beyond its namespace",
                "use \".\" or leave it out",
            );
        }
    }
}

fn policy(p: &TrafficPolicy, path: &str, f: &mut Findings<'_>) {
    if *p == TrafficPolicy::default() {
        f.error(
            path,
            "traffic policy must have at least one field",
            "use loadBalancer, connectionPool, outlierDetection or tls, or leave it out",
        );
    }
    let parts = Parts {
        load_balancer: p.load_balancer.as_ref(),
        connection_pool: p.connection_pool.as_ref(),
        outlier: p.outlier_detection.as_ref(),
        tls: p.tls.as_ref(),
    };
    parts.check(path, f);
    if let Some(t) = &p.tunnel {
        let path = format!("{path}.tunnel");
        if p.proxy_protocol.is_some() {
            f.error(
                &path,
                "tunnel and proxyProtocol exclude each other",
                "keep one of them",
            );
        }
        if !matches!(t.protocol.as_str(), "" | "CONNECT" | "POST") {
            f.error(
                &format!("{path}.protocol"),
                &format!("{:?} is no tunnel protocol", t.protocol),
                "use CONNECT or POST",
            );
        }
        if let Some(problem) = text::host_problem(&t.target_host) {
            f.error(
                &format!("{path}.targetHost"),
                &format!("{:?} is not valid: {problem}", t.target_host),
                "",
            );
        }
        f.port(&format!("{path}.targetPort"), t.target_port);
    }
    if let Some(percent) = p.retry_budget.as_ref().and_then(|b| b.percent) {
        f.percent(&format!("{path}.retryBudget.percent"), percent);
    }
    for (i, l) in p.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{i}]");
        match &l.port {
            None => f.error(
                &format!("{path}.port"),
                "port is required",
                "use \"port: {number: ...}\"",
            ),
            Some(port) => f.port(&format!("{path}.port.number"), port.number),
        }
        let parts = Parts {
            load_balancer: l.load_balancer.as_ref(),
            connection_pool: l.connection_pool.as_ref(),
            outlier: l.outlier_detection.as_ref(),
            tls: l.tls.as_ref(),
        };
        parts.check(&path, f);
    }
}

/// What host and port policies have in common.
struct Parts<'p> {
    load_balancer: Option<&'p LoadBalancerSettings>,
    connection_pool: Option<&'p ConnectionPoolSettings>,
    outlier: Option<&'p OutlierDetection>,
    tls: Option<&'p ClientTlsSettings>,
}

impl Parts<'_> {
    fn check(&self, path: &str, f: &mut Findings<'_>) {
        if let Some(l) = self.load_balancer {
            load_balancer(
                l,
                self.outlier.is_some(),
                &format!("{path}.loadBalancer"),
                f,
            );
        }
        if let Some(c) = self.connection_pool {
            connection_pool(c, &format!("{path}.connectionPool"), f);
        }
        if let Some(o) = self.outlier {
            outlier(o, &format!("{path}.outlierDetection"), f);
        }
        if let Some(t) = self.tls {
            tls(t, &format!("{path}.tls"), f);
        }
    }
}

fn load_balancer(l: &LoadBalancerSettings, has_outlier: bool, path: &str, f: &mut Findings<'_>) {
    if l.simple.is_some() && l.consistent_hash.is_some() {
        f.error(
            path,
            "simple and consistentHash exclude each other",
            "keep one of them",
        );
    }
    if l.simple == Some(SimpleLb::LeastConn) {
        f.warn(
            &format!("{path}.simple"),
            "LEAST_CONN is deprecated",
            "use LEAST_REQUEST",
        );
    }
    if let Some(c) = &l.consistent_hash {
        consistent_hash(c, &format!("{path}.consistentHash"), f);
    }
    if let Some(s) = &l.locality_lb_setting {
        locality(s, has_outlier, &format!("{path}.localityLbSetting"), f);
    }
    f.duration(
        &format!("{path}.warmupDurationSecs"),
        l.warmup_duration_secs,
    );
    if let Some(w) = &l.warmup {
        let path = format!("{path}.warmup");
        if w.duration.is_none() {
            f.error(
                &format!("{path}.duration"),
                "duration is required",
                "use a duration such as 30s",
            );
        }
        f.duration(&format!("{path}.duration"), w.duration);
        if let Some(p) = w.minimum_percent {
            f.percent(&format!("{path}.minimumPercent"), p);
        }
        if w.aggression.is_some_and(|a| a < 1.0) {
            f.error(
                &format!("{path}.aggression"),
                "aggression is below 1",
                "use 1 or more",
            );
        }
    }
}

fn consistent_hash(c: &ConsistentHashLb, path: &str, f: &mut Findings<'_>) {
    let keys = [
        c.http_header_name.is_some(),
        c.http_cookie.is_some(),
        c.use_source_ip.is_some(),
        c.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|k| **k).count() != 1 {
        f.error(
            path,
            "exactly one thing must be hashed",
            "set one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName",
        );
    }
    if let Some(h) = &c.http_header_name
        && !text::is_header_name(h)
    {
        f.error(
            &format!("{path}.httpHeaderName"),
            &format!("{h:?} is no header name"),
            "use letters, digits and dashes",
        );
    }
    if let Some(cookie) = &c.http_cookie
        && cookie.name.is_empty()
    {
        f.error(
            &format!("{path}.httpCookie.name"),
            "the cookie needs a name",
            "use httpCookie.name",
        );
    }
    if c.ring_hash.is_some() && c.maglev.is_some() {
        f.error(
            path,
            "ringHash and maglev exclude each other",
            "keep one of them",
        );
    }
    if let Some(size) = c.maglev.as_ref().and_then(|m| m.table_size)
        && (size >= 5_000_011 || !is_prime(size))
    {
        f.error(
            &format!("{path}.maglev.tableSize"),
            &format!("{size} is not valid"),
            "use a prime below 5000011",
        );
    }
}

fn is_prime(n: u64) -> bool {
    n > 1
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
}

fn locality(s: &LocalityLbSetting, has_outlier: bool, path: &str, f: &mut Findings<'_>) {
    let fails_over = !s.failover.is_empty() || !s.failover_priority.is_empty();
    if fails_over && !s.distribute.is_empty() {
        f.error(
            path,
            "distribute and failover exclude each other",
            "keep one of them",
        );
    }
    if fails_over && !has_outlier {
        f.warn(
            path,
            "failover needs outlierDetection to take place",
            "add outlierDetection",
        );
    }
    for (i, d) in s.distribute.iter().enumerate() {
        let sum: u64 = d.to.values().map(|w| u64::from(*w)).sum();
        if sum != 100 {
            f.error(
                &format!("{path}.distribute[{i}].to"),
                &format!("shares add up to {sum}"),
                "make them 100",
            );
        }
        if d.to.values().any(|w| *w == 0) {
            f.error(
                &format!("{path}.distribute[{i}].to"),
                "a share is 0",
                "leave the locality out",
            );
        }
    }
    for (i, o) in s.failover.iter().enumerate() {
        if o.from == o.to {
            f.error(
                &format!("{path}.failover[{i}]"),
                "from and to are the same region",
                "use another region as to",
            );
        }
        if o.from.contains('*') || o.to.contains('*') {
            f.error(
                &format!("{path}.failover[{i}]"),
                "a region has no wildcard",
                "use the name of one region",
            );
        }
    }
}

fn connection_pool(c: &ConnectionPoolSettings, path: &str, f: &mut Findings<'_>) {
    if c.tcp.is_none() && c.http.is_none() {
        f.error(
            path,
            "tcp or http is required",
            "add tcp or http, or leave connectionPool out",
        );
    }
    let mut limit = |field: String, n: Option<i32>| {
        if n.is_some_and(|n| n < 0) {
            f.error(
                &field,
                "a limit is not below 0",
                "use 1 or more, or leave it out for no limit",
            );
        }
    };
    if let Some(t) = &c.tcp {
        limit(format!("{path}.tcp.maxConnections"), t.max_connections);
    }
    if let Some(h) = &c.http {
        let limits = [
            ("http1MaxPendingRequests", h.http1_max_pending_requests),
            ("http2MaxRequests", h.http2_max_requests),
            ("maxRequestsPerConnection", h.max_requests_per_connection),
            ("maxRetries", h.max_retries),
            ("maxConcurrentStreams", h.max_concurrent_streams),
        ];
        for (name, n) in limits {
            limit(format!("{path}.http.{name}"), n);
        }
    }
    if let Some(t) = &c.tcp {
        let path = format!("{path}.tcp");
        f.duration(&format!("{path}.connectTimeout"), t.connect_timeout);
        f.duration(
            &format!("{path}.maxConnectionDuration"),
            t.max_connection_duration,
        );
        if let Some(k) = &t.tcp_keepalive {
            f.duration(&format!("{path}.tcpKeepalive.time"), k.time);
            f.duration(&format!("{path}.tcpKeepalive.interval"), k.interval);
        }
    }
    if let Some(h) = &c.http {
        let path = format!("{path}.http");
        f.duration(&format!("{path}.idleTimeout"), h.idle_timeout);
        if h.h2_upgrade_policy == Some(crate::istio::H2UpgradePolicy::Upgrade)
            && h.use_client_protocol
        {
            f.error(
                &path,
                "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other",
                "keep one of them",
            );
        }
        if let Some(k) = &h.http2_keep_alive {
            let path = format!("{path}.http2KeepAlive");
            if k.interval.is_none() || k.timeout.is_none() {
                f.error(
                    &path,
                    "interval and timeout are both required",
                    "use both, such as interval 30s and timeout 5s",
                );
            }
            f.duration(&format!("{path}.interval"), k.interval);
            f.duration(&format!("{path}.timeout"), k.timeout);
        }
    }
}

fn outlier(o: &OutlierDetection, path: &str, f: &mut Findings<'_>) {
    f.duration(&format!("{path}.interval"), o.interval);
    f.duration(&format!("{path}.baseEjectionTime"), o.base_ejection_time);
    if let Some(p) = o.max_ejection_percent {
        f.percent(&format!("{path}.maxEjectionPercent"), f64::from(p));
    }
    if let Some(p) = o.min_health_percent {
        f.percent(&format!("{path}.minHealthPercent"), f64::from(p));
    }
    if o.consecutive_errors.is_some() {
        f.warn(
            &format!("{path}.consecutiveErrors"),
            "outlier detection consecutive errors is deprecated",
            "use consecutiveGatewayErrors or consecutive5xxErrors",
        );
    }
    if !o.split_external_local_origin_errors
        && o.consecutive_local_origin_failures.is_some_and(|n| n > 0)
    {
        f.error(
            &format!("{path}.consecutiveLocalOriginFailures"),
            "local failures are counted only with splitExternalLocalOriginErrors",
            "set splitExternalLocalOriginErrors: true",
        );
    }
}

fn tls(t: &ClientTlsSettings, path: &str, f: &mut Findings<'_>) {
    let files = [
        ("clientCertificate", &t.client_certificate),
        ("privateKey", &t.private_key),
        ("caCertificates", &t.ca_certificates),
    ];
    let set = || files.iter().filter(|(_, v)| !v.is_empty());
    if t.insecure_skip_verify == Some(true)
        && (!t.ca_certificates.is_empty() || !t.subject_alt_names.is_empty())
    {
        f.error(
            path,
            "insecureSkipVerify excludes caCertificates and subjectAltNames",
            "keep one of them",
        );
    }
    if !t.credential_name.is_empty() {
        if set().next().is_some() {
            f.error(
                path,
                "credentialName excludes certificate files",
                "keep one of them",
            );
        }
        return;
    }
    match t.mode {
        ClientTlsMode::Mutual => {
            for (name, _) in files[..2].iter().filter(|(_, v)| v.is_empty()) {
                f.error(
                    &format!("{path}.{name}"),
                    &format!("{name} is required with mode MUTUAL"),
                    "use the path of its file, or credentialName, or mode SIMPLE",
                );
            }
        }
        ClientTlsMode::IstioMutual => {
            for (name, _) in set() {
                f.error(
                    &format!("{path}.{name}"),
                    &format!("{name} is not used with mode ISTIO_MUTUAL"),
                    "leave it out, or use mode MUTUAL",
                );
            }
        }
        ClientTlsMode::Disable | ClientTlsMode::Simple => {}
    }
}
