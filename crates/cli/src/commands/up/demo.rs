//! The Bookinfo demo: the sample manifests as they are, into the default namespace, and the wait
//! for its page.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::super::{install, objects};
use super::progress::Progress;
use crate::style;

const BOOKINFO: &str = include_str!("../../../../../samples/bookinfo/platform/kube/bookinfo.yaml");
const GATEWAY: &str =
    include_str!("../../../../../samples/bookinfo/networking/bookinfo-gateway.yaml");

/// Deploys Bookinfo and gives its page's URL once the page is whole.
pub async fn bookinfo(
    client: &Client,
    progress: &Progress,
    limit: Duration,
) -> anyhow::Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let label = json!({"metadata": {"labels": {"istio-injection": "enabled"}}});
    namespaces
        .patch("default", &PatchParams::default(), &Patch::Merge(&label))
        .await?;
    for (file, text) in [
        ("bookinfo.yaml", BOOKINFO),
        ("bookinfo-gateway.yaml", GATEWAY),
    ] {
        install::apply(client, as_applied(text, file)?)
            .await
            .with_context(|| file.to_owned())?;
    }
    progress.step("waiting for Bookinfo's pods");
    install::wait_ready(client, "default", limit).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), "istio-system");
    let service = services.get("istio-ingressgateway").await?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = ports
        .iter()
        .find(|port| port.port == 80)
        .and_then(|port| port.node_port);
    let port = port.context("the ingress gateway's Service has no node port for port 80")?;
    progress.step("waiting for the page");
    if !wait_for_page(u16::try_from(port)?, limit).await? {
        style::warning(
            "the page lacks its reviews: what the cluster keeps from before routes them elsewhere",
        );
        style::hint("`lateen analyze` says what does not fit; `lateen down --purge` begins anew");
    }
    Ok(format!("http://127.0.0.1:{port}/productpage"))
}

/// Where `kubectl apply` keeps what it was given; without it the next apply warns.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The objects of a sample's file as `kubectl apply -f` of it would make them in `default`.
fn as_applied(text: &str, file: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = objects::documents(text, file.as_ref())?;
    for object in &mut all {
        object["metadata"]["namespace"] = json!("default");
        if !object["metadata"]["annotations"].is_object() {
            object["metadata"]["annotations"] = json!({});
        }
        let applied = last_applied(object);
        object["metadata"]["annotations"][LAST_APPLIED] = json!(applied);
    }
    Ok(all)
}

/// An object as the annotation holds it: compact JSON with sorted keys, Go's escapes of `<`, `>`
/// and `&`, and the newline that Go's encoder ends with.
fn last_applied(object: &Value) -> String {
    let mut sorted = object.clone();
    sorted.sort_all_objects();
    let text = sorted.to_string();
    let text = text.replace('&', "\\u0026");
    let text = text.replace('<', "\\u003c").replace('>', "\\u003e");
    text + "\n"
}

/// How long a page that is there may be without its reviews. A user's own objects from an earlier
/// run may keep it so for ever, which is theirs to see and mend, on a cluster that runs.
const UNTIL_WHOLE: Duration = Duration::from_secs(20);

/// Waits until the page shows the book and its reviews; false where it stays without them.
async fn wait_for_page(port: u16, limit: Duration) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut answered: Option<Instant> = None;
    let mut last = String::from("no answer");
    while begun.elapsed() < limit {
        match tokio::time::timeout(Duration::from_secs(10), page(port)).await {
            Ok(Ok((200, body))) if body.contains("Reviews served by:") => return Ok(true),
            Ok(Ok((200, _))) => {
                if answered.get_or_insert_with(Instant::now).elapsed() > UNTIL_WHOLE {
                    return Ok(false);
                }
                last = "a page without reviews".to_owned();
            }
            Ok(Ok((status, _))) => last = format!("status {status}"),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last = "no answer in 10 s".to_owned(),
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    bail!(
        "the page did not come in {} s; last seen: {last}",
        limit.as_secs()
    )
}

async fn page(port: u16) -> anyhow::Result<(u16, String)> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get("/productpage")
        .header("host", format!("127.0.0.1:{port}"))
        .body(Full::<Bytes>::default())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_objects_look_as_if_kubectl_had_applied_them() {
        let mut seen = 0;
        for text in [BOOKINFO, GATEWAY] {
            let plain = objects::documents(text, "f".as_ref()).expect("documents");
            for (mut plain, made) in plain
                .into_iter()
                .zip(as_applied(text, "f").expect("objects"))
            {
                let kept = made["metadata"]["annotations"][LAST_APPLIED]
                    .as_str()
                    .expect("the annotation");
                assert!(
                    kept.starts_with("{\"apiVersion\":") && kept.ends_with("}\n"),
                    "{kept}"
                );
                let kept: Value = serde_json::from_str(kept).expect("JSON");
                plain["metadata"]["namespace"] = json!("default");
                if plain["metadata"]["annotations"].is_null() {
                    plain["metadata"]["annotations"] = json!({});
                }
                assert_eq!(
                    kept, plain,
                    "the file's object, without the annotation itself"
                );
                seen += 1;
            }
        }
        assert!(seen > 10, "{seen} objects");
    }

    #[test]
    fn the_annotation_is_written_as_go_writes_it() {
        let object = json!({"b": "<&>", "a": {"d": 1, "c": null}});
        let written = "{\"a\":{\"c\":null,\"d\":1},\"b\":\"\\u003c\\u0026\\u003e\"}\n";
        assert_eq!(last_applied(&object), written);
    }
}
