//! HAProxy's configuration.

use super::{Given, file};

/// The text of its file.
pub fn text(Given { spec, pki }: Given<'_>) -> String {
    let mode = if spec.tcp { "tcp" } else { "http" };
    let (both, authority) = (file(&pki.both), file(&pki.authority));
    let mut bind = match spec.tls_down {
        true => format!(" ssl crt {both} ca-file {authority} verify required no-tls-tickets"),
        false => String::new(),
    };
    if spec.http2 {
        bind += " proto h2";
    }
    let server = match spec.tls_up {
        true => {
            format!(" ssl crt {both} ca-file {authority} verify required sni str(backend.test)")
        }
        false => String::new(),
    };
    let log = match spec.log {
        Some(_) => "  log stdout format raw local0\n  option httplog\n",
        None => "",
    };
    let http = match spec.tcp {
        true => "",
        false => "  option http-keep-alive\n  http-reuse always\n  timeout http-keep-alive 1h\n",
    };
    format!(
        "global\n  nbthread 1\n  maxconn 9000\n  tune.ssl.cachesize 0\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         {http}{log}\
         frontend f\n  bind {}{bind}\n  default_backend b\n\
         backend b\n  server s {}{server}\n",
        spec.listen, spec.backend
    )
}
