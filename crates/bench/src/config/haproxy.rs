//! HAProxy's configuration.

use std::fmt::Write as _;

use super::{Given, file, names, prefix};

/// The text of its file, and of the map that chooses the backend where there are several services
/// or routes.
pub fn text(given: Given<'_>) -> (String, String) {
    let spec = given.spec;
    let mode = if spec.tcp { "tcp" } else { "http" };
    let log = match spec.log {
        Some(_) => "  log stdout format raw local0\n  option httplog\n",
        None => "",
    };
    let http = match spec.tcp {
        true => "",
        false => "  option http-keep-alive\n  http-reuse always\n  timeout http-keep-alive 1h\n",
    };
    let map = file(&spec.folder.join("map"));
    let (mut choice, mut lines) = (String::new(), String::new());
    if spec.services > 1 {
        choice = format!("  use_backend %[req.hdr(host),lower,map({map})]\n");
        for number in 0..spec.services {
            for name in names(number) {
                let _ = writeln!(lines, "{name} b{number}");
            }
        }
    } else if spec.routes > 1 {
        choice = format!("  use_backend %[path,map_beg({map})]\n");
        for number in 0..spec.routes {
            let _ = writeln!(lines, "{} b0", prefix(number));
        }
    }
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn 9000\n  tune.ssl.cachesize 0\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         {http}{log}\
         frontend f\n  bind {}{}\n{choice}{}",
        spec.listen,
        bind(given),
        // Without a choice there is one backend; with one, what it does not know is refused.
        if choice.is_empty() {
            "  default_backend b0\n"
        } else {
            ""
        },
    );
    let server = server(given);
    for number in 0..spec.services {
        let _ = write!(
            text,
            "backend b{number}\n  server s {}{server}\n",
            spec.backend
        );
    }
    (text, lines)
}

fn bind(Given { spec, pki }: Given<'_>) -> String {
    let (both, authority) = (file(&pki.both), file(&pki.authority));
    let mut bind = match spec.tls_down {
        true => format!(" ssl crt {both} ca-file {authority} verify required no-tls-tickets"),
        false => String::new(),
    };
    if spec.http2 {
        bind += " proto h2";
    }
    bind
}

fn server(Given { spec, pki }: Given<'_>) -> String {
    let (both, authority) = (file(&pki.both), file(&pki.authority));
    match spec.tls_up {
        true => {
            format!(" ssl crt {both} ca-file {authority} verify required sni str(backend.test)")
        }
        false => String::new(),
    }
}
