//! What the ADS client asks, beside what the real Envoy asks: the same management server, the same
//! responses, in both forms of the protocol; the requests must be the same, in the same order. The
//! lives are data in `transcript/lives.yaml`. Envoy is found by LATEEN_ENVOY or on PATH; without it
//! the test says SKIPPED. LATEEN_LIVES runs those whose names contain it, LATEEN_SHOW prints all.

#[path = "support/envoy.rs"]
mod envoy;
#[path = "support/grpc.rs"]
mod grpc;
#[path = "transcript/life.rs"]
mod life;
#[path = "transcript/peer.rs"]
mod peer;
#[path = "transcript/server.rs"]
mod server;

use life::{Form, Life, Step};
use peer::Peer;

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_those_of_envoy() {
    let wanted = std::env::var("LATEEN_LIVES").unwrap_or_default();
    let lives: Vec<Life> = life::read()
        .into_iter()
        .filter(|life| life.name.contains(&wanted))
        .collect();
    assert!(!lives.is_empty(), "no life has {wanted:?} in its name");
    let Some(envoy) = envoy::find() else {
        println!("SKIPPED: real Envoy not found (set LATEEN_ENVOY or put envoy on PATH)");
        return;
    };
    let show = std::env::var_os("LATEEN_SHOW").is_some();
    let mut plays = tokio::task::JoinSet::new();
    for life in lives {
        for form in [Form::Sotw, Form::Delta] {
            let (life, envoy) = (life.clone(), envoy.clone());
            plays.spawn(async move {
                let theirs = life::play(&life, form, Peer::Envoy(envoy)).await;
                let ours = life::play(&life, form, Peer::Ours).await;
                (life, form, theirs, ours)
            });
        }
    }
    let rows = std::fs::read_to_string(DIFFERENCES).unwrap();
    let mut wrong = Vec::new();
    while let Some(play) = plays.join_next().await {
        let (life, form, theirs, ours) = play.unwrap();
        let mut lines = vec![format!("== {} ({form:?})", life.name)];
        let mut bad = false;
        for (step, (theirs, ours)) in life.steps.iter().zip(theirs.iter().zip(&ours)) {
            lines.push(format!("-- {}", step.what));
            lines.extend(beside(theirs, ours));
            if let Err(why) = judge(step, form, theirs, ours, &rows) {
                lines.push(format!("  !! {why}"));
                bad = true;
            }
        }
        if show {
            println!("{}", lines.join("\n"));
        }
        if bad {
            wrong.push(lines.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const DIFFERENCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/differences.md");

/// Whether a step agrees, or differs as it says.
fn judge(
    step: &Step,
    form: Form,
    theirs: &[String],
    ours: &[String],
    rows: &str,
) -> Result<(), String> {
    let Some(own) = step.ours.of(form) else {
        return if theirs == ours {
            Ok(())
        } else {
            Err("differs".to_owned())
        };
    };
    let row = step.differs.as_deref().unwrap_or("(none)");
    if !rows.contains(&format!("| {row} |")) {
        Err(format!("no row {row:?} in docs/differences.md"))
    } else if theirs == ours {
        Err("agrees, though it has `ours`".to_owned())
    } else if own != ours {
        Err(format!("ours should be {own:#?}"))
    } else {
        Ok(())
    }
}

/// Both lists line by line; lines that agree stand once.
fn beside(theirs: &[String], ours: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for at in 0..theirs.len().max(ours.len()) {
        match (theirs.get(at), ours.get(at)) {
            (Some(l), Some(r)) if l == r => out.push(format!("        {l}")),
            (l, r) => {
                out.extend(l.map(|l| format!("  envoy {l}")));
                out.extend(r.map(|r| format!("  ours  {r}")));
            }
        }
    }
    out
}
