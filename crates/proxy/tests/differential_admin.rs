//! The admin pages beside those of the real Envoy: the same mesh, the same requests, then every page
//! key by key. LATEEN_ENVOY names Envoy as in `differential`.

#[path = "differential_admin/mod.rs"]
mod differential_admin;
#[path = "differential/envoy.rs"]
mod envoy;
mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use differential_admin::judge::Judge;
use differential_admin::page::{self, ask, get};
use differential_admin::scene::{self, Ours, Side};
use support::whole::wait_for;

/// Statistics settle for so long: Envoy shows histograms anew every five seconds.
const SETTLE: Duration = Duration::from_secs(20);

#[test]
fn the_admin_pages_show_what_envoys_show() {
    let Some(program) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    scene::certificates(folder.path());
    let up = scene::upstream();
    let (theirs, ours) = (Side::new(up), Side::new(up));
    let mut envoy = envoy::Envoy::start(&program, folder.path(), &theirs.bootstrap(folder.path()));
    let proxy = Ours::start(&ours.bootstrap(folder.path()));
    // Whether the others are open is not tried: that would count.
    envoy.wait_for(theirs.addresses["admin"]);
    wait_for(ours.addresses["admin"]);
    for side in [&theirs, &ours] {
        let live = || ask(side, "GET", "/ready").status == 200;
        support::whole::eventually("live", live);
    }
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| scene::traffic(&theirs));
        let own = scene::traffic(&ours);
        (other.join().unwrap(), own)
    });
    assert_eq!(a, b);
    let mut judge = settled(&theirs, &ours);
    pages(&theirs, &ours, &mut judge);
    documents(&theirs, &ours, &mut judge);
    prometheus(&theirs, &ours, &mut judge);
    judge.wrong.extend(judge.unneeded());
    assert!(
        judge.wrong.is_empty(),
        "{} of the admin pages:\n{}",
        judge.wrong.len(),
        judge.wrong.join("\n")
    );
    orders(&theirs, &ours);
    assert_eq!(
        ask(&ours, "POST", "/quitquitquit").body,
        ask(&theirs, "POST", "/quitquitquit").body
    );
    proxy.join();
}

/// Compares the statistics until they agree, or for so long as they may take.
fn settled(theirs: &Side, ours: &Side) -> Judge {
    let until = Instant::now() + SETTLE;
    loop {
        let mut judge = Judge::new();
        let [a, b] = [theirs, ours].map(|side| page::stats(&get(side, "/stats")));
        judge.compare("/stats", &a, &b, true);
        if judge.wrong.is_empty() || Instant::now() > until {
            return judge;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Status, media type, and for short pages the text.
fn pages(theirs: &Side, ours: &Side, judge: &mut Judge) {
    for (method, target, whole) in [
        ("GET", "/ready", true),
        ("GET", "/certs", false),
        ("GET", "/clusters", false),
        ("GET", "/clusters?format=json", false),
        ("GET", "/clusters?filter=up", false),
        ("GET", "/config_dump", false),
        ("GET", "/config_dump?resource=nonsense", false),
        ("GET", "/help", false),
        ("GET", "/hot_restart_version", false),
        ("GET", "/init_dump", false),
        ("GET", "/listeners", false),
        ("GET", "/listeners?format=json", false),
        ("GET", "/memory", false),
        ("GET", "/nonsense", false),
        ("GET", "/runtime", false),
        ("GET", "/server_info", false),
        ("GET", "/stats", false),
        ("GET", "/stats?filter=(", false),
        ("GET", "/stats?format=json", false),
        ("GET", "/stats?format=nonsense", false),
        ("GET", "/stats?type=nonsense", false),
        ("GET", "/stats/prometheus", false),
        ("GET", "/drain_listeners", true),
        ("GET", "/healthcheck/fail", true),
        ("GET", "/logging", true),
        ("GET", "/quitquitquit", true),
        ("GET", "/reset_counters", true),
        ("GET", "/reopen_logs", true),
        ("POST", "/ready", true),
        ("POST", "/stats?filter=nothing_has_this", true),
        ("POST", "/reopen_logs", true),
        ("POST", "/logging?nonsense=info", false),
        ("POST", "/logging?level=nonsense", false),
        ("POST", "/logging?level=error", false),
        ("POST", "/logging", false),
    ] {
        let [a, b] = [theirs, ours].map(|side| ask(side, method, target));
        let what = format!("{method} {target}");
        judge.same(&what, &(a.status, &a.kind), &(b.status, &b.kind));
        if whole {
            judge.same(&what, &a.body, &b.body);
        }
    }
}

/// Pages with keys and values.
fn documents(theirs: &Side, ours: &Side, judge: &mut Judge) {
    let both = |target: &str| [theirs, ours].map(|side| get(side, target));
    let [a, b] = both("/clusters").map(|text| page::clusters(&text));
    judge.compare("/clusters", &a, &b, true);
    let [a, b] = both("/clusters?filter=^up$").map(|text| page::clusters(&text));
    judge.compare("/clusters", &a, &b, true);
    let lines = |text: String| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    // Envoy's order is that of its source.
    let [a, b] = [theirs, ours].map(|side| lines(ask(side, "POST", "/logging").body));
    judge.same("/logging", &a, &b);
    let [a, b] = both("/listeners").map(lines);
    judge.same("/listeners", &a, &b);
    let commands = |text: String| -> page::Keys {
        let paths = text
            .lines()
            .filter_map(|l| l.strip_prefix("  /")?.split_once(": "));
        paths
            .map(|(path, _)| (path.to_owned(), String::new()))
            .collect()
    };
    let [a, b] = both("/help").map(commands);
    judge.compare("/help", &a, &b, true);
    for target in [
        "/clusters?format=json",
        "/listeners?format=json",
        "/certs",
        "/server_info",
        "/memory",
        "/runtime",
        "/init_dump",
        "/config_dump?include_eds",
        "/config_dump?resource=static_clusters",
        "/config_dump?resource=static_clusters&mask=cluster.name",
        "/config_dump?resource=static_listeners&name_regex=we.",
        "/config_dump?mask=static_route_configs",
        "/config_dump?name_regex=up",
    ] {
        let [a, b] = both(target).map(|text| page::json(&text));
        let page = target.split('?').next().unwrap();
        judge.compare(page, &a, &b, true);
    }
    for target in [
        "/stats?filter=^cluster\\.up\\.upstream_rq",
        "/stats?filter=cluster&invert_filter",
        "/stats?type=Gauges",
        "/stats?type=Histograms",
        "/stats?type=TextReadouts",
    ] {
        let [a, b] = both(target).map(|text| page::stats(&text));
        judge.compare("/stats", &a, &b, false);
    }
    // Which gauges were ever written is told otherwise.
    let used = both("/stats?type=Counters&usedonly").map(|text| page::stats(&text));
    judge.compare("/stats", &used[0], &used[1], false);
    // As JSON: the same statistics in another form.
    let names = |text: String| -> page::Keys {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = value["stats"].as_array().unwrap().iter();
        let plain = all.filter_map(|s| s["name"].as_str());
        plain.map(|name| (name.to_owned(), String::new())).collect()
    };
    let [a, b] = both("/stats?format=json").map(names);
    judge.compare("/stats", &a, &b, false);
}

/// Every series that is shown has Envoy's name, type and labels.
fn prometheus(theirs: &Side, ours: &Side, judge: &mut Judge) {
    let [a, b] = [theirs, ours].map(|side| page::prometheus(&get(side, "/stats/prometheus")));
    // What is left out of the statistics is left out here.
    let shown = a
        .into_iter()
        .filter(|(key, _)| b.contains_key(key))
        .collect();
    judge.compare("/stats/prometheus", &shown, &b, true);
}

/// What changes the process.
fn orders(theirs: &Side, ours: &Side) {
    for (order, ready) in [
        ("/healthcheck/fail", "DRAINING\n"),
        ("/healthcheck/ok", "LIVE\n"),
        ("/drain_listeners?graceful&skip_exit", "LIVE\n"),
    ] {
        let answers = [theirs, ours].map(|side| {
            let done = ask(side, "POST", order);
            let ready = ask(side, "GET", "/ready");
            (done.status, done.body, ready.status, ready.body)
        });
        assert_eq!(answers[0], answers[1], "{order}");
        assert_eq!(answers[1].3, ready, "{order}");
    }
    for side in [theirs, ours] {
        assert_eq!(ask(side, "POST", "/reset_counters").body, "OK\n");
        let counted = get(side, "/stats?filter=^http.web.downstream_rq_total$");
        assert_eq!(counted, "http.web.downstream_rq_total: 0\n");
    }
}
