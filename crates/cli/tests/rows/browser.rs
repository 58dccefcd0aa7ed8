//! The page in a real browser: headless Chromium renders it, and the stars are looked for in the
//! rendered document and in the picture's pixels.

use std::path::Path;
use std::process::Command;

use crate::world::{Check, World};

/// The rows of this file.
pub const ROWS: &[Check] = &[("browser_shows_no_black_and_red_stars_and_the_errors", stars)];

/// The browser's name on this machine.
fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {name}")])
                .output();
            found.is_ok_and(|output| output.status.success())
        })
}

fn run(browser: &str, folder: &Path, args: &[&str]) -> Vec<u8> {
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let output = Command::new("timeout")
        .args([
            "60",
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1200,900",
            &profile,
        ])
        .args(args)
        .output()
        .expect("the browser runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the browser failed: {error}");
    output.stdout
}

/// What the browser made of the page: its document, and how many red pixels its picture has.
fn look(world: &World, browser: &str) -> (String, usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("http://{}/productpage", world.gateway);
    let document = run(browser, folder.path(), &["--dump-dom", &url]);
    let picture = folder.path().join("page.png");
    let shot = format!("--screenshot={}", picture.display());
    run(browser, folder.path(), &[&shot, &url]);
    (
        String::from_utf8_lossy(&document).into_owned(),
        red_pixels(&picture),
    )
}

fn red_pixels(picture: &Path) -> usize {
    let file = std::io::BufReader::new(std::fs::File::open(picture).expect("the picture"));
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("its pixels");
    let step = info.color_type.samples();
    assert!(step >= 3, "the picture has no colours");
    pixels
        .chunks(step)
        .filter(|p| p[0] > 170 && p[1] < 90 && p[2] < 90)
        .count()
}

fn stars(world: &World) {
    let Some(browser) = chromium() else {
        println!("SKIPPED: no Chromium to look at the page with; apt-get install chromium");
        return;
    };
    world.apply_sample("networking/destination-rule-all.yaml");
    let pin = |version: &str| {
        world.apply(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n  hosts:\n  - reviews\n  http:\n  - route:\n    - destination:\n        host: reviews\n        subset: {version}\n"
        ));
    };
    for (version, wanted) in [("v1", "none"), ("v2", "black"), ("v3", "red")] {
        pin(version);
        world.settle(version, || (0..6).all(|_| world.page().stars() == wanted));
        let (document, red) = look(world, browser);
        assert!(document.contains("The Comedy of Errors"), "{document}");
        let marks = document
            .matches("class=\"glyphicon glyphicon-star\"")
            .count();
        assert_eq!(marks, if version == "v1" { 0 } else { 9 }, "{version}");
        assert_eq!(red > 200, version == "v3", "{version}: {red} red pixels");
    }
    pin("no-such-subset");
    world.settle("the error", || {
        world
            .page()
            .body
            .contains("Error fetching product reviews!")
    });
    let (document, _) = look(world, browser);
    for text in [
        "Error fetching product reviews!",
        "Sorry, product reviews are currently unavailable for this book.",
    ] {
        assert!(document.contains(text), "{text} is not in {document}");
    }
}
