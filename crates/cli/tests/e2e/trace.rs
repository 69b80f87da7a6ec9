//! `--trace`: the phases of a start, of all who take part in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::Engine;

#[test]
fn a_trace_has_the_phases_of_all_three_sides() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    let file = e.path("trace.json");
    let trace = file.to_str().unwrap();
    // The second time keeper and name server run already.
    for _ in 0..2 {
        e.ok(["--trace", trace, "run", "--rm", "--network", "net", "bb", "true"]);
        let events: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let mut sides: BTreeMap<String, (BTreeSet<u64>, Vec<String>)> = BTreeMap::new();
        for event in &events {
            assert_eq!(event["ph"], "X", "{event}");
            assert!(event["ts"].as_f64().unwrap() >= 0.0, "{event}");
            assert!(event["dur"].as_f64().unwrap() >= 0.0, "{event}");
            let side = sides.entry(event["cat"].as_str().unwrap().to_owned()).or_default();
            side.0.insert(event["pid"].as_u64().unwrap());
            side.1.push(event["name"].as_str().unwrap().to_owned());
        }
        let names: Vec<_> = sides.keys().map(String::as_str).collect();
        assert_eq!(names, ["caller", "child", "keeper"], "{events:?}");
        for (side, (pids, _)) in &sides {
            assert_eq!(pids.len(), 1, "{side}: {events:?}");
        }
        let pids: BTreeSet<_> = sides.values().flat_map(|(pids, _)| pids).collect();
        assert_eq!(pids.len(), 3, "three processes: {events:?}");
        for (side, phase) in [
            ("caller", "the whole command"),
            ("caller", "insert the record"),
            ("caller", "set up the network"),
            ("caller", "have it started"),
            ("caller", "remove it"),
            ("keeper", "make the child"),
            ("keeper", "note the start"),
            ("child", "mount"),
            ("child", "change the root"),
            ("child", "execute"),
        ] {
            assert!(sides[side].1.iter().any(|name| name == phase), "{side} {phase}: {events:?}");
        }
        // All are within the command.
        let end = |event: &Value| event["ts"].as_f64().unwrap() + event["dur"].as_f64().unwrap();
        let whole = events.iter().find(|event| event["name"] == "the whole command").unwrap();
        assert!(events.iter().all(|event| end(event) <= end(whole) + 0.001), "{events:?}");
    }
    e.finish();
}

#[test]
fn a_trace_of_a_failure_is_written_too() {
    let e = Engine::new();
    let file = e.path("trace.json");
    let failed = e.run(["--trace", file.to_str().unwrap(), "run", "--rm", "bb", "no-such-program"]);
    assert_eq!(failed.status.code(), Some(127));
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(events.iter().any(|event| event["name"] == "have it started"), "{events:?}");
    let nowhere = e.run(["--trace", "/nowhere/trace.json", "ps"]);
    assert_eq!(nowhere.status.code(), Some(125));
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(said.contains("cannot write the trace to /nowhere/trace.json"), "{said}");
    e.finish();
}
