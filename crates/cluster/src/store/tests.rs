//! The store's promises: conditions, versions, history, reopening.

use serde_json::json;

use super::*;
use crate::api::resource::{CONFIG_MAPS, PODS};

fn key(name: &str) -> Key {
    Key {
        res: CONFIG_MAPS.clone(),
        ns: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn object(name: &str, n: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"n": n.to_string()}})
}

fn version(o: &Value) -> u64 {
    o["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|s| s.parse().ok())
        .expect("a version")
}

#[tokio::test]
async fn writes_check_their_condition_and_number_up() {
    let dir = tempfile::tempdir().expect("dir");
    let store = Store::open(&dir.path().join("s.redb"), 100).expect("open");
    let a = store
        .write(key("a"), Write::Create(object("a", 1)))
        .await
        .expect("create");
    let again = store.write(key("a"), Write::Create(object("a", 1))).await;
    assert!(matches!(again, Err(StoreError::Exists)));
    let b = store
        .write(key("b"), Write::Create(object("b", 1)))
        .await
        .expect("create");
    assert!(version(&b) > version(&a));
    let rv = version(&a);
    let replace = |n| Write::Replace {
        rv,
        object: object("a", n),
    };
    // Of several writers with the same expectation exactly one wins.
    let results =
        futures_util::future::join_all((0..8).map(|n| store.write(key("a"), replace(n)))).await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    let gone = store
        .write(
            key("zz"),
            Write::Remove {
                rv: 1,
                last: json!({}),
            },
        )
        .await;
    assert!(matches!(gone, Err(StoreError::Missing)));
}

#[tokio::test]
async fn watchers_see_every_change_in_order_and_old_ones_expire() {
    let dir = tempfile::tempdir().expect("dir");
    let store = Store::open(&dir.path().join("s.redb"), 4).expect("open");
    let start = store.revision();
    let mut sub = store.watch(&CONFIG_MAPS, start).expect("watch");
    let mut last = store
        .write(key("a"), Write::Create(object("a", 0)))
        .await
        .expect("create");
    last = store
        .write(
            key("a"),
            Write::Replace {
                rv: version(&last),
                object: object("a", 1),
            },
        )
        .await
        .expect("replace");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(sub.next().await.expect("changes"));
    }
    assert_eq!(seen[0].kind, ChangeKind::Added);
    assert_eq!(seen[1].kind, ChangeKind::Modified);
    assert_eq!(
        seen[1].previous.as_ref().expect("previous")["data"]["n"],
        "0"
    );
    for n in 2..8 {
        last = store
            .write(
                key("a"),
                Write::Replace {
                    rv: version(&last),
                    object: object("a", n),
                },
            )
            .await
            .expect("replace");
    }
    assert!(matches!(
        store.watch(&CONFIG_MAPS, start),
        Err(StoreError::Expired { .. })
    ));
    assert!(matches!(sub.next().await, Err(StoreError::Expired { .. })));
    // Another resource's log is not touched by that.
    assert!(store.watch(&PODS, start).is_ok());
}

#[tokio::test]
async fn earlier_versions_can_be_listed() {
    let dir = tempfile::tempdir().expect("dir");
    let store = Store::open(&dir.path().join("s.redb"), 100).expect("open");
    let a = store
        .write(key("a"), Write::Create(object("a", 0)))
        .await
        .expect("create");
    let at = version(&a);
    store
        .write(key("b"), Write::Create(object("b", 0)))
        .await
        .expect("create");
    store
        .write(
            key("a"),
            Write::Remove {
                rv: at,
                last: (*a).clone(),
            },
        )
        .await
        .expect("remove");
    let then = store
        .list_at(&CONFIG_MAPS, Some("default"), at)
        .expect("page");
    assert_eq!(then.len(), 1);
    assert_eq!(then[0].1["metadata"]["name"], "a");
    let (now, _) = store.list(&CONFIG_MAPS, None);
    assert_eq!(now.len(), 1);
    assert_eq!(now[0]["metadata"]["name"], "b");
}

#[tokio::test]
async fn a_reopened_store_has_everything_and_goes_on_numbering() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("s.redb");
    let store = Store::open(&path, 100).expect("open");
    for i in 0..20 {
        let name = format!("o{i}");
        store
            .write(key(&name), Write::Create(object(&name, i)))
            .await
            .expect("create");
    }
    let rv = store.revision();
    store.close();
    let store = Store::open(&path, 100).expect("reopen");
    assert_eq!(store.count(&CONFIG_MAPS), 20);
    assert_eq!(store.revision(), rv);
    assert!(matches!(
        store.watch(&CONFIG_MAPS, rv - 1),
        Err(StoreError::Expired { .. })
    ));
    let next = store
        .write(key("next"), Write::Create(object("next", 0)))
        .await
        .expect("create");
    assert_eq!(version(&next), rv + 1);
}

/// Runs `work` in a mount namespace of its own, with a small file system at `at`.
fn with_small_disk<T: Send + 'static>(
    at: &Path,
    size: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    use nix::mount::{MsFlags, mount};
    let at = at.to_owned();
    let inside = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let options = Some(size);
        mount(Some("t"), &at, Some("tmpfs"), MsFlags::empty(), options).expect("a small disk");
        work()
    };
    std::thread::spawn(inside).join().expect("no panic")
}

/// A full disk refuses what does not fit; as soon as there is room the store goes on, and all that
/// was acknowledged is there, also after the next start.
#[test]
fn a_full_disk_is_survived() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a small disk needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let at = dir.path().to_owned();
    with_small_disk(dir.path(), "size=3m", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(fill_and_go_on(&at));
    });
}

async fn fill_and_go_on(dir: &Path) {
    let (path, ballast) = (dir.join("s.redb"), dir.join("ballast"));
    std::fs::write(&ballast, vec![1_u8; 1 << 20]).expect("ballast");
    let store = Store::open(&path, 100).expect("open");
    let mut kept = Vec::new();
    let mut round = async |from: usize| {
        for i in from..from + 200 {
            let name = format!("o{i}");
            let mut wide = object(&name, 1);
            wide["data"]["wide"] = "x".repeat(50_000).into();
            match store.write(key(&name), Write::Create(wide)).await {
                Ok(_) => kept.push(name),
                Err(error) => return (name, error.to_string()),
            }
        }
        panic!("the disk is never full");
    };
    let (refused, error) = round(0).await;
    assert!(error.contains("No space left"), "{error}");
    assert!(
        error.contains(&path.display().to_string())
            && error.ends_with("free some space on that disk"),
        "{error}"
    );
    assert!(store.get(&CONFIG_MAPS, "default", &refused).is_none());
    // Still full: still refused, for the same reason and not for the earlier failure.
    let (_, error) = round(1000).await;
    assert!(error.contains("No space left"), "{error}");
    std::fs::remove_file(&ballast).expect("room");
    let made = store.write(key(&refused), Write::Create(object(&refused, 2)));
    made.await.expect("there is room again");
    round(2000).await;
    let rv = store.revision();
    assert!(kept.iter().any(|name| name == "o2000"));
    kept.push(refused);
    kept.sort();
    store.close();
    let store = Store::open(&path, 100).expect("reopen");
    let (found, _) = store.list(&CONFIG_MAPS, None);
    let names: Vec<_> = found
        .iter()
        .filter_map(|o| o["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, kept);
    assert_eq!(store.revision(), rv);
}
