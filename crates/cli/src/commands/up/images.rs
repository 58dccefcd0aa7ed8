//! The image catalogue of the one-machine cluster: which of our programs, or of the host's, stand
//! behind the image names that manifests use.

use lateen_cluster::node::image::{HostPrograms, Image, ImageCatalogue};

/// Where a container finds this program.
const PROGRAM: &str = "/usr/local/bin/lateen";

/// Everything that can run here.
pub fn catalogue() -> ImageCatalogue {
    let mut catalogue = ImageCatalogue::default();
    for service in ["details", "ratings", "reviews", "productpage"] {
        for (names, image) in bookinfo(service) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            catalogue.add(&names, &image);
        }
    }
    catalogue.add(
        &["lateen/proxyv2", "proxyv2", "proxy_debug", "proxy_init"],
        &mesh("proxy"),
    );
    catalogue.add(&["lateen/pilot", "pilot"], &mesh("control-plane"));
    let shell = Image {
        command: vec!["/bin/sh".to_owned()],
        ..Image::default()
    };
    catalogue.add(&["alpine", "busybox", "debian", "ubuntu"], &shell);
    let curl = Image {
        entrypoint: vec!["curl".to_owned()],
        command: vec!["--help".to_owned()],
        user: (100, 101),
        ..Image::default()
    };
    catalogue.add(&["curlimages/curl", "curl"], &curl);
    catalogue
}

/// The images of one Bookinfo service, each with the names it answers to. The versions of ratings
/// that misbehave differ by an environment variable only.
fn bookinfo(service: &str) -> Vec<(Vec<String>, Image)> {
    let base = Image {
        entrypoint: [PROGRAM, "bookinfo", service, "9080"]
            .map(str::to_owned)
            .to_vec(),
        command: Vec::new(),
        user: if service == "reviews" {
            (1001, 1001)
        } else {
            (1000, 1000)
        },
        // The documents call other services from inside ratings, so it has curl; reviews has none.
        programs: match service {
            "ratings" => HostPrograms::basic_and(&["curl", "wget"]),
            _ => HostPrograms::basic(),
        },
        size: 12_000_000,
        ..Image::default()
    };
    let named = |version: &str, env: &[(&str, &str)]| {
        let env = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        (
            vec![format!("examples-bookinfo-{service}-{version}")],
            Image {
                env,
                ..base.clone()
            },
        )
    };
    let rated = |color| [("ENABLE_RATINGS", "true"), ("STAR_COLOR", color)];
    match service {
        "reviews" => vec![
            named("v1", &[]),
            named("v2", &rated("black")),
            named("v3", &rated("red")),
        ],
        "ratings" => {
            let versions = ["v-faulty", "v-delayed", "v-unavailable", "v-unhealthy"];
            let steady = [named("v1", &[])].into_iter();
            steady
                .chain(versions.map(|v| named(v, &[("SERVICE_VERSION", v)])))
                .collect()
        }
        "details" => vec![
            named("v1", &[]),
            named("v2", &[("ENABLE_EXTERNAL_BOOK_SERVICE", "true")]),
        ],
        _ => vec![
            named("v1", &[]),
            named("v-flooding", &[("FLOOD_FACTOR", "100")]),
        ],
    }
}

/// The mesh's own image: this program, with the names that Istio's habits expect beside it.
fn mesh(role: &str) -> Image {
    let links = [
        "pilot-agent",
        "pilot-discovery",
        "istio-iptables",
        "istioctl",
    ];
    Image {
        entrypoint: vec![PROGRAM.to_owned()],
        command: vec![role.to_owned()],
        programs: HostPrograms::All,
        links: links
            .map(|name| (format!("/usr/local/bin/{name}"), PROGRAM.to_owned()))
            .to_vec(),
        size: 12_000_000,
        ..Image::default()
    }
}

#[cfg(test)]
mod tests {
    use super::catalogue;

    #[test]
    fn the_samples_images_are_known_by_any_registry_and_tag() {
        let catalogue = catalogue();
        for name in [
            "docker.io/istio/examples-bookinfo-details-v1:1.17.0",
            "istio/examples-bookinfo-reviews-v3:0.2.3",
            "registry.istio.io/release/examples-bookinfo-ratings-v-faulty:1.20.2",
            "docker.io/lateen/proxyv2:0.1.0",
            "docker.io/istio/proxy_debug:0.2.9",
            "alpine",
            "curlimages/curl",
        ] {
            assert!(catalogue.find(name).is_ok(), "{name}");
        }
        let red = catalogue
            .find("examples-bookinfo-reviews-v3")
            .expect("reviews");
        assert!(
            red.env
                .contains(&("STAR_COLOR".to_owned(), "red".to_owned()))
        );
        assert!(catalogue.find("nginx").is_err());
    }
}
