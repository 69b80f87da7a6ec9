//! The fuzz targets' own seeds, by the same way: each is answered, and what is refused says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../fuzz/targets/door.rs"]
mod door;

#[test]
fn every_seed_is_answered() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds");
    let resources: [(&str, &[&str]); 6] = [
        (
            "system",
            &["/info", "/version", "/_ping", "/auth", "/events", "/system", "/plugins", "/swarm"],
        ),
        ("containers", &["/containers"]),
        ("exec", &["/exec", "/containers/c1/exec"]),
        ("images", &["/images", "/commit", "/distribution"]),
        ("networks", &["/networks"]),
        ("volumes", &["/volumes"]),
    ];
    let mut count = 0;
    for (name, paths) in resources {
        for entry in std::fs::read_dir(format!("{seeds}/api_{name}")).unwrap() {
            door::ask(paths, &std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
    let _ = std::fs::remove_dir_all(format!("/dev/shm/wherry-fuzz-{}", std::process::id()));
}
