//! nginx's configuration: HTTP only.

use super::{Given, file, names, prefix};

/// The text of its file.
pub fn text(Given { spec, pki }: Given<'_>) -> String {
    let folder = file(&spec.folder);
    let (certificate, key, authority) =
        (file(&pki.certificate), file(&pki.key), file(&pki.authority));
    let (mut listen, mut tls) = (String::new(), String::new());
    if spec.tls_down {
        listen += " ssl";
        tls += &format!(
            "ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;\n\
             ssl_client_certificate {authority}; ssl_verify_client on; ssl_session_tickets off;\n"
        );
    }
    if spec.http2 {
        listen += " http2";
    }
    let scheme = if spec.tls_up { "https" } else { "http" };
    if spec.tls_up {
        tls += &format!(
            "proxy_ssl_certificate {certificate}; proxy_ssl_certificate_key {key};\n\
             proxy_ssl_trusted_certificate {authority}; proxy_ssl_verify on;\n\
             proxy_ssl_name backend.test; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;\n"
        );
    }
    let log = match &spec.log {
        Some(path) => format!("{} combined buffer=64k flush=1s", file(path)),
        None => "off".to_owned(),
    };
    let server = |number: usize| {
        let mut places = String::new();
        let pass = format!(
            "{{ proxy_pass {scheme}://b{number}; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $host; }}\n"
        );
        match spec.routes {
            0 | 1 => places += &format!("location / {pass}"),
            many => {
                for route in 0..many {
                    places += &format!("location {} {pass}", prefix(route));
                }
            }
        }
        let name = match spec.services {
            1 => String::new(),
            _ => {
                let [_, _, long, short] = names(number);
                format!("server_name {long} {short};\n")
            }
        };
        // Room for connections is taken at the start: for one service as many as the load has.
        let keep = if spec.services == 1 { 256 } else { 16 };
        format!(
            "upstream b{number} {{ server {}; keepalive {keep}; keepalive_requests 1000000000; }}\n\
             server {{\nlisten {}{listen};\n{name}{tls}{places}}}\n",
            spec.backend, spec.listen
        )
    };
    let servers: String = (0..spec.services).map(server).collect();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {folder}/nginx.pid;\n\
         error_log stderr crit;\nevents {{ worker_connections 10000; }}\n\
         http {{\naccess_log {log};\n{temporary}\
         keepalive_requests 1000000000; keepalive_timeout 1h; http2_max_requests 1000000000;\n\
         server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n\
         {servers}}}\n"
    )
}
