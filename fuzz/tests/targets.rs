//! Replays each target's kept corpus, then runs mutations of it and of the target's own seeds:
//! always the same ones, so that a failure comes again. `LATEEN_FUZZ_SEED` (a number) takes
//! others, `LATEEN_FUZZ_ROUNDS` more or fewer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use lateen_fuzz::mutate::{self, Random};
use lateen_fuzz::{TARGETS, Target, bytes, find};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn top() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The kept inputs of a target, by file name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(folder) = std::fs::read_dir(top().join("corpus").join(target)) else {
        return Vec::new();
    };
    let mut all: Vec<_> = folder
        .flatten()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).expect("an input"))
        })
        .collect();
    all.sort();
    all
}

/// Runs one input; on a panic says which it was and how to run it again.
fn run(target: &Target, data: &[u8], what: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(data)));
    if outcome.is_ok() {
        return;
    }
    let name = format!("{}-{:016x}", target.name, bytes::hash(data));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let kept = match std::fs::write(&file, data) {
        Ok(()) => file.display().to_string(),
        Err(error) => format!("nowhere ({error})"),
    };
    panic!(
        "{}: {what}: {} bytes, kept in {kept}; put them into fuzz/corpus/{}/ once they pass:\n{}",
        target.name,
        data.len(),
        target.name,
        data.escape_ascii()
    );
}

fn test(name: &str) {
    let target = find(name).expect("a target");
    let kept = corpus(name);
    for (file, data) in &kept {
        run(target, data, file);
    }
    let own = (target.seeds)();
    for (at, data) in own.iter().enumerate() {
        run(target, data, &format!("seed {at}"));
    }
    let seeds: Vec<Vec<u8>> = own
        .into_iter()
        .chain(kept.into_iter().map(|k| k.1))
        .collect();
    let seed = number("LATEEN_FUZZ_SEED").unwrap_or(1);
    let mut random = Random::new(seed);
    let rounds = number("LATEEN_FUZZ_ROUNDS").unwrap_or(target.rounds.into());
    for round in 0..rounds {
        let data = mutate::input(&mut random, &seeds, target.words);
        run(
            target,
            &data,
            &format!("LATEEN_FUZZ_SEED={seed}, round {round}"),
        );
    }
}

/// The hours of a target that is gone say nothing.
#[test]
fn the_hours_are_those_of_targets() {
    let file = std::fs::read_to_string(top().join("hours")).expect("fuzz/hours");
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    assert!(!names.is_empty());
    for name in names {
        assert!(find(name).is_some(), "fuzz/hours: no target {name}");
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            test(stringify!($name));
        })*

        #[test]
        fn every_target_is_tested() {
            let tested = [$(stringify!($name)),*];
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(tested.as_slice(), all);
        }
    };
}

targets! {
    http1_request
    http1_response
    http1_body
    http2_head
    http2_frames
    proxy_http1
    proxy_http2
    proxy_upstream
    tls_hello
    http_inspector
    proxy_protocol
    path_normalize
    authority
    uri_template
    request_headers
    regex
    admin_query
    dns_answer
    jwt
    jwks
    check_response
    log_format
    xds_listener
    xds_cluster
    xds_routes
    xds_endpoints
    xds_secret
    xds_json
    bootstrap
    sidecar
    grpc_frames
    peer_metadata
    certificate
    ads_client
    ads_server
    ads_node
    ads_requests
    admission_review
    signing_request
    istio_yaml
    mesh
    mesh_config
    duration
    iptables_flags
    inject
    api_url
    api_selector
    api_body
    api_patch
    api_object
    api_custom
    account_token
    webhook_answer
    exec_websocket
    exec_spdy
    forward_websocket
    forward_spdy
    spdy
    channel
    dns
    pod_words
}

/// The seeds are made by hand; this one is of the client that the proxy itself uses.
#[test]
fn a_real_hello_is_understood() {
    let target = find("tls_hello").expect("a target");
    let hello = lateen_fuzz::targets::inspect::real_hello();
    for end in [hello.len(), hello.len() - 1, 6] {
        run(target, &hello[..end], "a real hello");
    }
}

#[test]
fn the_corpus_is_small_and_has_no_strangers() {
    for target in TARGETS {
        // Their names are what `cargo xtask fuzz` lists.
        assert!(
            !corpus(target.name).is_empty(),
            "nothing kept of {}",
            target.name
        );
    }
    let mut size = 0;
    for entry in std::fs::read_dir(top().join("corpus"))
        .expect("the corpus")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(find(&name).is_some(), "no target {name}");
        size += corpus(&name)
            .iter()
            .map(|(_, data)| data.len())
            .sum::<usize>();
    }
    assert!(size < 400_000, "{size} bytes of corpus");
}
