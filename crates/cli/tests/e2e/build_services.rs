//! Services that steps of builds reach.

use std::fs;

use crate::builds::context;
use crate::harness::{Engine, text, until};

#[track_caller]
fn build(e: &Engine, dir: &std::path::Path, more: &[&str]) -> String {
    let mut args = vec!["build"];
    args.extend(more);
    args.push(dir.to_str().unwrap());
    let output = e.run(&args);
    assert!(output.status.success(), "{args:?}\n{}", text(&output.stderr));
    text(&output.stderr)
}

const SERVER: &str = "FROM bb\nHEALTHCHECK CMD test -e /ready\n\
    CMD mkdir /www && echo \"hello $WHO\" > /www/f && httpd -p 80 -h /www && sleep 0.7 && touch /ready && exec sleep 1000\n";

#[test]
fn steps_reach_services_that_are_ready() {
    let e = Engine::new();
    build(&e, &context(&e, "server", &[("Dockerfile", SERVER)]), &["-t", "server:1"]);
    let file = "# service: all=server:1,env=WHO=all\nFROM bb\n\
        # service: one=server:1,env=WHO=one,\"health=test -e /ready,\"\n\
        # service: two=bb,\"command=wget -qO /got http://one/f; mkdir /w; cat /got > /w/f; httpd -f -h /w\",health=test -e /w/f\n\
        RUN wget -qO- http://all/f http://one/f http://two/f > /got && cat /got\n\
        RUN wget -qO- http://all/f && ! grep one /etc/hosts\n\
        RUN --network=none ! grep 'all$' /etc/hosts\n";
    let file = file.replace("/ready,", "/ready");
    let dir = context(&e, "ctx", &[("Dockerfile", file.as_str())]);
    let said = build(&e, &dir, &["-t", "x"]);
    assert!(said.contains("the service two is ready"), "{said}");
    let got = e.ok(["run", "--rm", "--network", "none", "x", "cat", "/got"]);
    assert_eq!(got, "hello all\nhello one\nhello one");
    assert_eq!(e.ok(["ps", "-aq"]), "");
    assert_eq!(fs::read_dir(e.data_root().join("containers")).unwrap().count(), 0);
    let said = build(&e, &dir, &[]);
    assert!(said.contains("0 steps done"), "{said}");
    // Another variable is another service.
    fs::write(dir.join("Dockerfile"), file.replace("WHO=all", "WHO=everybody")).unwrap();
    let said = build(&e, &dir, &[]);
    assert!(said.contains("hello everybody") && said.contains("3 steps done"), "{said}");

    // By an option, and one that ends.
    fs::write(dir.join("Dockerfile"), "FROM bb\nRUN wget -qO- http://s/f\n").unwrap();
    let said = build(&e, &dir, &["--service", "s=server:1,env=WHO=option"]);
    assert!(said.contains("hello option"), "{said}");
    let path = dir.to_str().unwrap();
    let said = e.fails(1, ["build", "--service", "s=bb,command=echo no config; exit 3", path]);
    // Before it is called ready, or while the step runs.
    assert!(said.contains("the service s (bb) ended with exit code 3"), "{said}");
    assert!(said.contains("no config") && said.contains("Dockerfile:2"), "{said}");
    let said = e.fails(1, ["build", "--network", "none", "--service", "s=bb", path]);
    assert!(said.contains("--network none"), "{said}");
    let said = e.fails(1, ["build", "--service", "s", path]);
    assert!(said.contains("expected NAME=IMAGE"), "{said}");
    fs::write(dir.join("Dockerfile"), "FROM bb\n# service: what\nRUN true\n").unwrap();
    let said = e.fails(1, ["build", path]);
    assert!(said.contains("Dockerfile:2") && said.contains("expected NAME=IMAGE"), "{said}");

    // Given up while one is not ready, and killed: nothing stays.
    fs::write(dir.join("Dockerfile"), "FROM bb\nRUN true\n").unwrap();
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let service = "s=bb,command=sleep 1000,health=false";
        let mut child = e.spawn(["build", "--service", service, path]);
        until("the service", || {
            e.run_root().join("running").read_dir().is_ok_and(|list| list.count() > 0)
        });
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let code = child.wait().unwrap().code();
        assert!(code.is_none() || code == Some(130), "{code:?}");
    }
    build(&e, &dir, &[]);
    assert_eq!(fs::read_dir(e.data_root().join("containers")).unwrap().count(), 0);
    e.finish();
}
