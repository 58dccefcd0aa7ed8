//! The four services together over real sockets: what a person's browser would be given.

use std::time::Duration;

use std::sync::{Arc, Mutex};

use lateen_bookinfo::{Env, Log, Service, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn start(service: Service, env: &[(&str, String)]) -> u16 {
    start_logging(service, env, Log::new(|_| {})).await
}

async fn start_logging(service: Service, env: &[(&str, String)], log: Log) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let env: Env = env
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.clone()))
        .collect();
    let stop = std::future::pending();
    tokio::spawn(serve(service, listener, env, log, stop));
    port
}

/// Sends one request and returns the whole answer, head and body.
async fn ask(port: u16, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("a connection");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{headers}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("in time")
        .expect("read");
    answer
}

fn at(port: u16) -> String {
    port.to_string()
}

async fn shop(color: Option<&str>, ratings: u16) -> u16 {
    let local = || "127.0.0.1".to_owned();
    let details = start(Service::Details, &[]).await;
    let mut env = vec![("HOSTNAME", "reviews-pod".to_owned())];
    if let Some(color) = color {
        env.push(("ENABLE_RATINGS", "true".to_owned()));
        env.push(("STAR_COLOR", color.to_owned()));
        env.push(("RATINGS_HOSTNAME", local()));
        env.push(("RATINGS_SERVICE_PORT", at(ratings)));
    }
    let reviews = start(Service::Reviews, &env).await;
    let env = [
        ("DETAILS_HOSTNAME", local()),
        ("DETAILS_SERVICE_PORT", at(details)),
        ("REVIEWS_HOSTNAME", local()),
        ("REVIEWS_SERVICE_PORT", at(reviews)),
        ("RATINGS_HOSTNAME", local()),
        ("RATINGS_SERVICE_PORT", at(ratings)),
    ];
    start(Service::Productpage, &env).await
}

#[tokio::test]
async fn the_page_shows_stars_by_version_and_errors_when_ratings_is_away() {
    let ratings = start(Service::Ratings, &[]).await;
    let plain = ask(shop(None, ratings).await, "GET", "/productpage", "", "").await;
    assert!(
        plain.starts_with("HTTP/1.1 200") && plain.contains("reviews-pod"),
        "{plain}"
    );
    assert!(!plain.contains("glyphicon"));
    for color in ["black", "red"] {
        let page = ask(
            shop(Some(color), ratings).await,
            "GET",
            "/productpage",
            "",
            "",
        )
        .await;
        assert_eq!(
            page.matches(&format!("<font color=\"{color}\">")).count(),
            2,
            "{color}"
        );
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = nobody.local_addr().expect("an address").port();
    drop(nobody);
    let page = ask(
        shop(Some("black"), closed).await,
        "GET",
        "/productpage",
        "",
        "",
    )
    .await;
    assert!(
        page.contains("Ratings service is currently unavailable"),
        "{page}"
    );
}

#[tokio::test]
async fn login_sets_a_session_that_the_page_greets_and_logout_drops_it() {
    let page = shop(None, 1).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\nReferer: /productpage?u=x\r\n";
    let answer = ask(page, "POST", "/login", form, "username=jason&passwd=").await;
    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    assert!(answer.contains("location: /productpage?u=x"), "{answer}");
    let cookie = answer
        .lines()
        .find_map(|l| l.strip_prefix("set-cookie: "))
        .expect("a cookie");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().expect("a pair"));
    let greeted = ask(page, "GET", "/productpage", &cookie, "").await;
    assert!(
        greeted.contains("jason (<a href=\"/logout\"> sign out </a>)"),
        "{greeted}"
    );
    let out = ask(page, "GET", "/logout", &cookie, "").await;
    assert!(
        out.starts_with("HTTP/1.1 302") && out.contains("Max-Age=0"),
        "{out}"
    );
}

#[tokio::test]
async fn the_api_answers_as_the_services_do() {
    let ratings = start(Service::Ratings, &[]).await;
    let page = shop(None, ratings).await;
    let list = ask(page, "GET", "/api/v1/products", "", "").await;
    assert!(
        list.contains("\"title\":\"The Comedy of Errors\""),
        "{list}"
    );
    let one = ask(page, "GET", "/api/v1/products/7", "", "").await;
    assert!(
        one.contains("\"id\":7") && one.contains("\"ISBN-10\":\"1234567890\""),
        "{one}"
    );
    let bad = ask(page, "GET", "/api/v1/products/x", "", "").await;
    assert!(bad.starts_with("HTTP/1.1 400"), "{bad}");
    let stars = ask(ratings, "POST", "/ratings/7", "", "{\"Reviewer1\":1}").await;
    assert!(stars.starts_with("HTTP/1.1 200"), "{stars}");
    let seen = ask(page, "GET", "/api/v1/products/7/ratings", "", "").await;
    assert!(
        seen.contains("{\"id\":7,\"ratings\":{\"Reviewer1\":1}}"),
        "{seen}"
    );
    let broken = ask(ratings, "POST", "/ratings/7", "", "{").await;
    assert!(broken.starts_with("HTTP/1.1 400"), "{broken}");
}

#[tokio::test]
async fn the_log_tells_the_start_and_each_request() {
    for (service, name, path, status) in [
        (Service::Productpage, "productpage", "/nowhere?u=x", 404),
        (Service::Details, "details", "/details/0", 200),
        (Service::Reviews, "reviews", "/reviews/0", 200),
        (Service::Ratings, "ratings", "/ratings/x", 400),
    ] {
        let lines = Arc::new(Mutex::new(Vec::<String>::new()));
        let kept = Arc::clone(&lines);
        let log = Log::new(move |line| kept.lock().expect("whole").push(line.to_owned()));
        let port = start_logging(service, &[], log).await;
        let answer = ask(port, "GET", path, "", "").await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let lines = lines.lock().expect("whole");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0], format!("{name} listening on 127.0.0.1:{port}"));
        assert!(lines[1].starts_with("127.0.0.1 - - ["), "{lines:?}");
        let end = format!("] \"GET {path} HTTP/1.1\" {status} {}", body.len());
        assert!(lines[1].ends_with(&end), "{lines:?}");
    }
}
