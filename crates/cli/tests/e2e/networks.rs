//! Networks, with namespaces that stand for hosts: nothing here is in the machine's own.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use net::link::{Links, NewLink};
use net::namespace::within;
use net::netlink::Batch;

use crate::harness::{Engine, Namespace, text, until};

const HOST: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.9";

/// Another host, next to the engine's: 192.0.2.1 and 192.0.2.9, 2001:db8::1 and 2001:db8::9.
fn outside(e: &Engine) -> Namespace {
    let outside = Namespace::new();
    let links = Links::open_in(e.host.fd()).unwrap();
    let mut batch = Batch::new();
    let link = |name| NewLink { name, mtu: 1500, mac: None };
    batch.veth(&link("up0"), 0, &link("up0"), outside.fd());
    links.commit(&mut batch).unwrap();
    for (namespace, v4, v6) in [
        (e.host.fd(), "192.0.2.1/24", "2001:db8::1/64"),
        (outside.fd(), "192.0.2.9/24", "2001:db8::9/64"),
    ] {
        let set_up = || {
            net::namespace::set_sysctl("ipv6/conf/up0/accept_dad", "0").unwrap();
            let links = Links::open().unwrap();
            let index = links.index("up0").unwrap();
            let mut batch = Batch::new();
            batch.address(index, v4.parse().unwrap());
            batch.address(index, v6.parse().unwrap());
            batch.up(index, true);
            links.commit(&mut batch).unwrap();
        };
        within(namespace, set_up).unwrap();
    }
    outside
}

/// What answers there, seen from a namespace.
fn ask(from: &Namespace, address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    within(from.fd(), move || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(1500))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.trim().to_owned())
    })
    .unwrap()
}

#[track_caller]
fn answers(from: &Namespace, address: &str, wanted: &str) {
    until(&format!("{address} answers {wanted}"), || {
        ask(from, address).is_ok_and(|answer| answer == wanted)
    });
}

/// A server of datagrams in a container's network: it gives back what it gets, with `got ` before.
/// Its socket holds the namespace, so it ends with this.
struct Datagrams(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Datagrams {
    fn new(e: &Engine, container: &str, port: u16) -> Self {
        let pid = e.inspect("{{.State.Pid}}", container);
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let socket = within(namespace.as_fd(), || UdpSocket::bind(("::", port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, to)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&[b"got ", &buffer[..length]].concat(), to);
                }
            }
        });
        Self(over, Some(thread))
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().unwrap().join();
    }
}

/// What a server of datagrams answers.
fn says(from: &Namespace, address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = within(from.fd(), || UdpSocket::bind(any)).unwrap()?;
    socket.set_read_timeout(Some(Duration::from_millis(1500)))?;
    socket.send_to(b"you", address)?;
    let mut buffer = [0; 64];
    let (length, sender) = socket.recv_from(&mut buffer)?;
    assert_eq!(sender, address, "the answer is from whom was asked");
    Ok(text(&buffer[..length]))
}

/// Starts a container that says a word on a port.
fn serve(e: &Engine, name: &str, word: &str, port: u16, options: &[&str]) -> String {
    let script = format!("exec nc -ll -p {port} -e echo {word}");
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(options);
    args.extend(["bb", "sh", "-c", &script]);
    e.ok(args)
}

/// What another container hears there.
fn hears(e: &Engine, container: &str, host: &str, port: u16) -> String {
    text(&e.run(["exec", container, "timeout", "2", "nc", host, &port.to_string()]).stdout)
}

fn address(e: &Engine, name: &str, network: &str) -> String {
    e.inspect(&format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"), name)
}

/// Everything of the engine's is gone from its host, once nobody needs it.
#[track_caller]
fn nothing_left(e: &Engine) {
    e.ok(["network", "prune", "-f"]);
    let links = Links::open_in(e.host.fd()).unwrap();
    until("all interfaces are gone", || {
        links.list().unwrap().iter().all(|l| !l.alias.starts_with("wherry "))
    });
    let tables = e.host.command("nft").args(["list", "tables"]).output().unwrap();
    assert_eq!(text(&tables.stdout), "");
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let e = Engine::new();
    let outside = outside(&e);
    serve(&e, "web", "hello", 80, &["-p", "8080:80"]);
    answers(&outside, &format!("{HOST}:8080"), "hello");
    answers(&e.host, "127.0.0.1:8080", "hello");
    answers(&e.host, &format!("{HOST}:8080"), "hello");
    e.ok(["run", "-d", "--name", "other", "bb", "sleep", "1000"]);
    let gateway = e.inspect("{{.NetworkSettings.Gateway}}", "web");
    for host in [HOST, gateway.as_str()] {
        assert_eq!(hears(&e, "other", host, 8080), "hello", "from another container to {host}");
        assert_eq!(hears(&e, "web", host, 8080), "hello", "from itself to {host}");
    }
    let own = e.inspect("{{.NetworkSettings.IPAddress}}", "web");
    assert_eq!(hears(&e, "other", &own, 80), "hello");
    // The way out, under the host's address.
    let listener = within(outside.fd(), || TcpListener::bind((OUTSIDE, 7000))).unwrap().unwrap();
    let accept = std::thread::spawn(move || listener.accept().unwrap().1.ip().to_string());
    e.run(["exec", "other", "timeout", "1", "nc", OUTSIDE, "7000"]);
    assert_eq!(accept.join().unwrap(), HOST);
    assert_eq!(e.ok(["port", "web"]), "80/tcp -> 0.0.0.0:8080");
    assert_eq!(e.ok(["port", "web", "80"]), "0.0.0.0:8080");
    assert!(e.ok(["ps"]).contains("0.0.0.0:8080->80/tcp"));
    // Nothing is accepted before something listens.
    e.ok(["run", "-d", "--name", "mute", "-p", "8081:80", "bb", "sleep", "1000"]);
    assert!(ask(&e.host, "127.0.0.1:8081").is_err());
    e.ok(["rm", "-f", "web", "mute", "other"]);
    assert!(ask(&e.host, "127.0.0.1:8080").is_err());
    nothing_left(&e);
    e.finish();
}

#[test]
fn ports_in_all_their_forms() {
    let e = Engine::new();
    let outside = outside(&e);
    serve(&e, "one", "one", 80, &["-p", "127.0.0.1:8080:80"]);
    answers(&e.host, "127.0.0.1:8080", "one");
    assert!(ask(&e.host, &format!("{HOST}:8080")).is_err());
    assert!(ask(&outside, &format!("{HOST}:8080")).is_err());
    // One address and all of them exclude each other, as does what is there already.
    for (port, message) in [
        ("8080:80", "Bind for 0.0.0.0:8080 failed: port is already allocated"),
        ("127.0.0.1:8080:80", "Bind for 127.0.0.1:8080 failed: port is already allocated"),
    ] {
        let refused = e.fails(125, ["run", "--rm", "-p", port, "bb", "true"]);
        assert!(refused.contains(message), "{refused}");
    }
    assert_eq!(e.ok(["run", "--rm", "-p", "8080:80/udp", "bb", "echo", "udp"]), "udp");
    let listener = within(e.host.fd(), || TcpListener::bind("0.0.0.0:8099")).unwrap().unwrap();
    let refused = e.fails(125, ["run", "--rm", "-p", "8099:80", "bb", "true"]);
    assert!(refused.contains("address already in use"), "{refused}");
    drop(listener);
    assert_eq!(e.ok(["run", "--rm", "-p", "8099:80", "bb", "echo", "free"]), "free");
    // The first free one of a range; as many as asked for; any; all that are exposed.
    e.ok([
        "run",
        "-d",
        "--name",
        "range",
        "-p",
        "8080-8082:80",
        "-p",
        "9000-9002:9000-9002",
        "bb",
        "sleep",
        "1000",
    ]);
    assert_eq!(e.ok(["port", "range", "80"]), "0.0.0.0:8081");
    assert_eq!(e.ok(["port", "range", "9002/tcp"]), "0.0.0.0:9002");
    e.ok([
        "run", "-d", "--name", "all", "-P", "--expose", "70-71", "--expose", "53/udp", "bb",
        "sleep", "1000",
    ]);
    let ports = e.ok(["port", "all"]);
    assert_eq!(ports.lines().count(), 3, "{ports}");
    assert!(
        e.fails(1, ["port", "all", "99"]).contains("no public port '99/tcp' published for all")
    );
    let exposed = e.ok(["ps", "--filter", "expose=71", "--format", "{{.Names}}"]);
    assert_eq!(exposed, "all");
    assert_eq!(e.ok(["ps", "--filter", "publish=8081", "--format", "{{.Names}}"]), "range");
    // With the container the port is free again; its restart takes it anew.
    e.ok(["stop", "-t", "0", "one"]);
    serve(&e, "two", "two", 80, &["-p", "8080:80"]);
    answers(&outside, &format!("{HOST}:8080"), "two");
    assert!(e.fails(1, ["start", "one"]).contains("port is already allocated"));
    e.ok(["rm", "-f", "two"]);
    e.ok(["start", "one"]);
    answers(&e.host, "127.0.0.1:8080", "one");
    e.finish();
}

#[test]
fn ipv6_from_end_to_end() {
    let e = Engine::new();
    let outside = outside(&e);
    let args = [
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.50.0.0/24",
        "--subnet",
        "fd00:50::/64",
        "six",
    ];
    e.ok(args);
    serve(&e, "web", "six", 80, &["--network", "six", "-p", "8080:80", "--ip6", "fd00:50::80"]);
    answers(&outside, "[2001:db8::1]:8080", "six");
    answers(&outside, &format!("{HOST}:8080"), "six");
    answers(&e.host, "[2001:db8::1]:8080", "six");
    e.ok(["run", "-d", "--name", "other", "--network", "six", "bb", "sleep", "1000"]);
    assert_eq!(hears(&e, "other", "fd00:50::80", 80), "six");
    let found = e.ok(["exec", "other", "nslookup", "web"]);
    assert!(found.contains("fd00:50::80"), "{found}");
    let out = e.inspect("{{json .NetworkSettings.Ports}}", "web");
    assert!(out.contains(r#""HostIp":"::""#), "{out}");
    let said = e.run(["create", "-p", "[::1]:8081:80", "bb", "true"]);
    let (made, said) =
        (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.contains("nobody reaches it"), "{said}");
    e.ok(["rm", made.trim()]);
    let said = e.run(["run", "--rm", "-p", "203.0.113.7:8081:80", "bb", "true"]);
    assert!(said.status.success());
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("not an address of this host"), "{said}");
    e.ok(["rm", "-f", "web", "other"]);
    nothing_left(&e);
    e.finish();
}

#[test]
fn networks_are_apart() {
    let e = Engine::new();
    let outside = outside(&e);
    e.ok(["network", "create", "front"]);
    e.ok(["network", "create", "--internal", "back"]);
    e.ok(["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "cells"]);
    serve(&e, "f1", "front", 80, &["--network", "front"]);
    serve(&e, "b1", "back", 80, &["--network", "back"]);
    serve(&e, "i1", "cell", 80, &["--network", "cells"]);
    for (name, network) in [("f2", "front"), ("b2", "back"), ("i2", "cells"), ("d1", "bridge")] {
        e.ok(["run", "-d", "--name", name, "--network", network, "bb", "sleep", "1000"]);
    }
    let (front, back) = (address(&e, "f1", "front"), address(&e, "b1", "back"));
    let cell = address(&e, "i1", "cells");
    until("the neighbours answer", || hears(&e, "f2", "f1", 80) == "front");
    until("the neighbours answer", || hears(&e, "b2", "b1", 80) == "back");
    for (from, to) in [("d1", &front), ("f2", &back), ("b2", &front), ("i2", &cell), ("d1", &back)]
    {
        assert_eq!(hears(&e, from, to, 80), "", "{from} reaches {to}");
    }
    // The host reaches its containers; the outside does not, nor do they get out of `back`.
    answers(&e.host, &format!("{front}:80"), "front");
    assert!(ask(&outside, &format!("{front}:80")).is_err());
    assert_ne!(e.run(["exec", "b2", "ping", "-c1", "-W1", OUTSIDE]).status.code(), Some(0));
    e.ok(["exec", "f2", "ping", "-c1", "-W1", OUTSIDE]);
    e.finish();
}

#[test]
fn names_of_containers() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    let one = e.ok([
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "net",
        "--network-alias",
        "pair",
        "--hostname",
        "box",
        "bb",
        "sleep",
        "1000",
    ]);
    e.ok([
        "run",
        "-d",
        "--name",
        "two",
        "--network",
        "net",
        "--network-alias",
        "pair",
        "--link",
        "one:uno",
        "bb",
        "sleep",
        "1000",
    ]);
    let (first, second) = (address(&e, "one", "net"), address(&e, "two", "net"));
    let look = |name: &str| text(&e.run(["exec", "two", "nslookup", name]).stdout);
    for name in ["one", "ONE", &one[..12], "box", "uno", "one.net"] {
        assert!(look(name).contains(&format!("Address: {first}")), "{name}: {}", look(name));
    }
    let both = look("pair");
    assert!(both.contains(&first) && both.contains(&second), "{both}");
    assert!(look(&first).contains("one.net"), "{}", look(&first));
    // A container may be a name server itself.
    serve(&e, "dns", "mine", 53, &["--network", "net"]);
    assert_eq!(hears(&e, "two", "dns", 53), "mine");
    assert!(text(&e.run(["exec", "dns", "nslookup", "one"]).stdout).contains(&first));
    e.ok(["rename", "one", "uni"]);
    assert!(look("uni").contains(&first));
    assert!(!look("one").contains(&format!("Address: {first}")));
    // In the default network there are no names, as in Docker; links are in the hosts file.
    e.ok(["run", "-d", "--name", "d1", "bb", "sleep", "1000"]);
    let hosts = e.ok(["run", "--rm", "--link", "d1:db", "bb", "cat", "/etc/hosts"]);
    assert!(hosts.contains("db ") && hosts.contains("d1"), "{hosts}");
    assert!(!e.ok(["exec", "d1", "cat", "/etc/resolv.conf"]).contains("127.0.0.11"));
    e.ok(["stop", "-t", "0", "uni"]);
    until("a stopped container has no name", || !look("uni").contains(&first));
    e.finish();
}

/// Nobody waits for the name server, and yet the first question is answered, whether it runs already or
/// begins with this container; whether the container's first process asks or a peer.
#[test]
fn names_resolve_as_soon_as_a_container_runs() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    let ask = ["run", "--rm", "--network", "net", "--name", "asks", "bb", "nslookup", "asks"];
    for turn in 0..3 {
        let began = std::time::Instant::now();
        let answer = e.ok(ask);
        assert!(answer.contains("Name:\tasks"), "turn {turn}: {answer}");
        // A question that is lost is asked again after five seconds.
        assert!(began.elapsed() < Duration::from_secs(4), "turn {turn}: {:?}", began.elapsed());
        if turn == 1 {
            let pid = e.keeper("wherry-names");
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
    e.ok(["run", "-d", "--name", "peer", "--network", "net", "bb", "sleep", "1000"]);
    let peer = e.ok(["run", "--rm", "--network", "net", "bb", "nslookup", "peer"]);
    assert!(peer.contains(&address(&e, "peer", "net")), "{peer}");
    e.finish();
}

#[test]
fn the_name_server_comes_back_and_leaves() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    e.ok(["run", "-d", "--name", "one", "--network", "net", "bb", "sleep", "1000"]);
    let own = address(&e, "one", "net");
    let found = || text(&e.run(["exec", "one", "nslookup", "one"]).stdout).contains(&own);
    assert!(found());
    for victims in
        [vec!["wherry-names"], vec!["wherry-keeper"], vec!["wherry-names", "wherry-keeper"]]
    {
        for name in &victims {
            let pid = e.keeper(name);
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let since = std::time::Instant::now();
        until("names are found again", found);
        assert!(since.elapsed() < Duration::from_secs(5), "{victims:?}: {:?}", since.elapsed());
        assert_eq!(e.inspect("{{.State.Running}}", "one"), "true");
    }
    e.ok(["rm", "-f", "one"]);
    until("the name server has left", || {
        e.keepers().iter().all(|(_, name)| name != "wherry-names")
    });
    e.finish();
}

#[test]
fn connect_and_disconnect_while_traffic_runs() {
    let e = Engine::new();
    e.ok(["network", "create", "aa"]);
    e.ok(["network", "create", "bb"]);
    serve(&e, "web", "hello", 80, &["--network", "aa", "-p", "8080:80"]);
    e.ok(["run", "-d", "--name", "peer", "--network", "bb", "bb", "sleep", "1000"]);
    e.ok(["run", "-d", "--name", "user", "--network", "aa", "bb", "sleep", "1000"]);
    let ping = e.spawn(["exec", "user", "ping", "-i", "0.05", "-c", "40", "-W", "1", "web"]);
    for _ in 0..4 {
        e.ok(["network", "connect", "--alias", "shop", "bb", "web"]);
        assert_eq!(hears(&e, "peer", "shop", 80), "hello");
        assert!(e.ok(["exec", "web", "cat", "/etc/hosts"]).contains(&address(&e, "web", "bb")));
        e.ok(["network", "disconnect", "bb", "web"]);
        assert_eq!(hears(&e, "peer", "shop", 80), "");
    }
    let output = ping.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains(" 0% packet loss"), "{}", text(&output.stdout));
    // The way out goes along with the network that has it.
    e.ok(["network", "connect", "bb", "web"]);
    e.ok(["network", "disconnect", "aa", "web"]);
    let routes = e.ok(["exec", "web", "ip", "route"]);
    assert!(routes.contains("default via"), "{routes}");
    answers(&e.host, "127.0.0.1:8080", "hello");
    assert!(e.fails(1, ["network", "connect", "bb", "web"]).contains("already exists"));
    assert!(e.fails(1, ["network", "disconnect", "aa", "web"]).contains("is not connected"));
    // One that does not run is connected at its start.
    e.ok(["create", "--name", "late", "--network", "aa", "bb", "ls", "/sys/class/net"]);
    e.ok(["network", "connect", "bb", "late"]);
    assert_eq!(e.ok(["start", "-a", "late"]), "eth0\neth1\nlo");
    let kinds = e.past_events("{{.Action}}", &["type=network"]);
    assert!(kinds.contains("connect") && kinds.contains("disconnect") && kinds.contains("create"));
    e.finish();
}

#[test]
fn many_starts_at_once() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    let starts: Vec<_> = (0..50)
        .map(|n| {
            let network = if n % 2 == 0 { "net" } else { "bridge" };
            e.spawn(["run", "-d", "--network", network, "-p", "80", "bb", "sleep", "1000"])
        })
        .collect();
    let ids: Vec<String> = starts
        .into_iter()
        .map(|start| {
            let output = start.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            text(&output.stdout)
        })
        .collect();
    let mut addresses = Vec::new();
    let mut ports = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let network = if n % 2 == 0 { "net" } else { "bridge" };
        addresses.push(address(&e, id, network));
        ports.push(e.ok(["port", id, "80"]));
    }
    for list in [&mut addresses, &mut ports] {
        list.sort();
        list.dedup();
        assert_eq!(list.len(), 50, "{list:?}");
    }
    for to in addresses.iter().filter(|a| **a != address(&e, &ids[0], "net")).take(3) {
        let network = address(&e, &ids[0], "net");
        if to.split('.').take(2).eq(network.split('.').take(2)) {
            e.ok(["exec", &ids[0], "ping", "-c1", "-W2", to]);
        }
    }
    assert_eq!(e.ok(["network", "repair"]), "nothing to mend");
    let mut remove = vec!["rm", "-f"];
    remove.extend(ids.iter().map(String::as_str));
    e.ok(remove);
    nothing_left(&e);
    e.finish();
}

#[test]
fn what_is_broken_is_mended() {
    let e = Engine::new();
    e.ok(["network", "create", "-o", "com.docker.network.bridge.name=brx", "net"]);
    serve(&e, "web", "hello", 80, &["--network", "net", "-p", "8080:80"]);
    serve(&e, "plain", "plain", 80, &["-p", "8081:80"]);
    answers(&e.host, "127.0.0.1:8080", "hello");
    assert_eq!(e.ok(["network", "repair"]), "nothing to mend");
    let links = Links::open_in(e.host.fd()).unwrap();
    let all_is_well = |how: &str| {
        answers(&e.host, "127.0.0.1:8080", "hello");
        answers(&e.host, "127.0.0.1:8081", "plain");
        assert_eq!(e.ok(["network", "repair"]), "nothing to mend", "{how}");
    };
    links.delete(["brx"]).unwrap();
    assert!(e.ok(["network", "repair"]).contains("made bridge brx of network net anew"));
    all_is_well("bridge");
    for name in e.interfaces() {
        links.delete([name.as_str()]).unwrap();
    }
    assert!(e.ok(["network", "repair"]).contains("plugged container web into network net anew"));
    all_is_well("interfaces");
    let flushed = e.host.command("nft").args(["flush", "ruleset"]).status().unwrap();
    assert!(flushed.success());
    // Any start finds that the rules are gone.
    e.ok(["run", "--rm", "bb", "true"]);
    // The kernel takes the pair of one that has ended away when it comes to it.
    until("its interface is gone", || e.interfaces().len() == 2);
    all_is_well("rules");
    e.finish();
}

#[test]
fn nothing_stays_after_a_reboot() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    e.ok([
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "net",
        "-p",
        "8080:80",
        "bb",
        "sleep",
        "1000",
    ]);
    let before = address(&e, "one", "net");
    let pid = e.inspect("{{.State.Pid}}", "one");
    let kill = |pid: &str| {
        let _ = std::process::Command::new("kill").args(["-9", pid]).status();
    };
    while let Some((keeper, _)) = e.keepers().into_iter().next() {
        kill(&keeper.to_string());
    }
    kill(&pid);
    std::fs::remove_dir_all(e.run_root()).unwrap();
    assert_eq!(e.ok(["ps", "-q"]), "");
    until("the pair is gone", || e.interfaces().is_empty());
    serve(&e, "two", "two", 80, &["-p", "8080:80"]);
    answers(&e.host, "127.0.0.1:8080", "two");
    e.ok(["rm", "-f", "two"]);
    e.ok(["start", "one"]);
    assert_eq!(address(&e, "one", "net"), before);
    assert_eq!(e.ok(["network", "repair"]), "nothing to mend");
    e.finish();
}

#[test]
fn restarts_plug_in_again() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    let script = "nc -ll -p 80 -e echo hello & sleep 0.5; kill $!; exit 1";
    e.ok([
        "run",
        "-d",
        "--name",
        "web",
        "--restart",
        "always",
        "--network",
        "net",
        "-p",
        "8080:80",
        "bb",
        "sh",
        "-c",
        script,
    ]);
    let first = address(&e, "web", "net");
    until("it was started again", || {
        e.inspect("{{.RestartCount}}", "web").parse::<u32>().is_ok_and(|n| n >= 2)
    });
    answers(&e.host, "127.0.0.1:8080", "hello");
    until("it runs", || e.inspect("{{.State.Status}}", "web") == "running");
    let again = address(&e, "web", "net");
    assert!(again == first || again.is_empty(), "{again} is not {first}");
    e.ok(["rm", "-f", "web"]);
    assert!(ask(&e.host, "127.0.0.1:8080").is_err());
    nothing_left(&e);
    e.finish();
}

#[test]
fn the_default_network_is_as_configured() {
    let e = Engine::new();
    let path = e.path("config.toml");
    let settings = "bridge = \"mybridge\"\nbridge-address = \"10.99.0.1/24\"\nbridge-mtu = 1300\n\
                    publish-address = \"127.0.0.1\"\n";
    std::fs::write(&path, settings).unwrap();
    let with = |args: &[&str]| {
        let output = e.command().arg("--config").arg(&path).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let shown = with(&["config", "show"]);
    assert!(shown.contains("10.99.0.1/24") && shown.contains("mybridge"), "{shown}");
    with(&[
        "run", "-d", "--name", "web", "-p", "8080:80", "bb", "nc", "-ll", "-p", "80", "-e", "echo",
        "hello",
    ]);
    answers(&e.host, "127.0.0.1:8080", "hello");
    assert_eq!(with(&["port", "web"]), "80/tcp -> 127.0.0.1:8080");
    assert_eq!(with(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "web"]), "10.99.0.1");
    let link = Links::open_in(e.host.fd()).unwrap().get("mybridge").unwrap().unwrap();
    assert_eq!(link.mtu, 1300);
    assert!(with(&["exec", "web", "ip", "link", "show", "eth0"]).contains("mtu 1300"));
    // Where the host is.
    let hosts =
        with(&["run", "--rm", "--add-host", "here:host-gateway", "bb", "cat", "/etc/hosts"]);
    assert!(hosts.contains("10.99.0.1\there"), "{hosts}");
    with(&["rm", "-f", "web"]);
    e.finish();
}

#[test]
fn making_and_removing_networks() {
    let e = Engine::new();
    let listed = e.ok(["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
    assert_eq!(listed, "bridge bridge local\nhost host local\nnone null local");
    let id = e.ok([
        "network",
        "create",
        "--subnet",
        "10.60.0.0/16",
        "--ip-range",
        "10.60.5.0/24",
        "--gateway",
        "10.60.0.254",
        "--aux-address",
        "printer=10.60.5.1",
        "--label",
        "a=b",
        "-o",
        "com.docker.network.driver.mtu=9000",
        "net",
    ]);
    assert_eq!(e.ok(["network", "ls", "-qf", "label=a=b"]), id[..12]);
    assert_eq!(
        e.ok(["network", "inspect", "-f", "{{(index .IPAM.Config 0).IPRange}}", &id[..6]]),
        "10.60.5.0/24"
    );
    // As Docker shows options that were given and are none.
    assert_eq!(e.ok(["network", "inspect", "-f", "{{json .IPAM.Options}}", "net"]), "{}");
    assert_eq!(e.ok(["network", "inspect", "-f", "{{json .IPAM.Options}}", "bridge"]), "null");
    let options = e.ok(["network", "inspect", "-f", "{{json .Options}}", "net"]);
    assert_eq!(options, "{\"com.docker.network.driver.mtu\":\"9000\"}");
    let out =
        e.ok(["run", "--rm", "--network", "net", "bb", "sh", "-c", "ip addr show eth0; ip route"]);
    for part in ["mtu 9000", "10.60.5.0/16", "default via 10.60.0.254"] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let out = e.ok([
        "run",
        "--rm",
        "--network",
        "name=net,ip=10.60.9.9,mac-address=02:00:00:00:00:07",
        "bb",
        "ip",
        "addr",
    ]);
    assert!(out.contains("10.60.9.9/16") && out.contains("02:00:00:00:00:07"), "{out}");
    for (args, code, message) in [
        (vec!["network", "create", "net"], 1, "network with name net already exists"),
        (vec!["network", "create", "--subnet", "10.60.1.0/24", "over"], 1, "Pool overlaps"),
        (vec!["network", "create", "host"], 1, "not permitted on predefined host network"),
        (vec!["network", "create", "-d", "overlay", "over"], 1, "plugin not found"),
        (vec!["network", "rm", "bridge"], 1, "pre-defined network and cannot be removed"),
        (vec!["network", "rm", "nope"], 1, "network nope not found"),
        (vec!["run", "--rm", "--network", "nope", "bb", "true"], 125, "network nope not found"),
        (
            vec!["run", "--rm", "--network", "net", "--ip", "10.61.0.1", "bb", "true"],
            125,
            "no configured subnet",
        ),
        (
            vec!["run", "--rm", "--ip", "172.17.0.9", "bb", "true"],
            125,
            "user defined networks only",
        ),
        (vec!["run", "--rm", "--network-alias", "x", "bb", "true"], 125, "user defined networks"),
        (
            vec!["run", "--rm", "--network", "net", "--network", "host", "bb", "true"],
            125,
            "conflicting options",
        ),
    ] {
        let refused = e.fails(code, &args);
        assert!(refused.contains(message), "{args:?}: {refused}");
    }
    e.ok(["run", "-d", "--name", "one", "--network", "net", "bb", "sleep", "1000"]);
    assert!(e.fails(1, ["network", "rm", "net"]).contains("has active endpoints (name:\"one\""));
    assert_eq!(e.ok(["network", "prune", "-f"]), "");
    e.ok(["rm", "-f", "one"]);
    assert!(e.ok(["network", "prune", "-f"]).contains("Deleted Networks:\nnet"));
    nothing_left(&e);
    e.finish();
}

#[test]
fn bridges_and_parents_of_others() {
    let e = Engine::new();
    let links = Links::open_in(e.host.fd()).unwrap();
    let mut batch = Batch::new();
    batch.bridge(&NewLink { name: "mine", mtu: 1500, mac: None });
    // Its other end leads nowhere.
    let nowhere = Namespace::new();
    let link = |name| NewLink { name, mtu: 1500, mac: None };
    batch.veth(&link("nic0"), 0, &link("nic1"), nowhere.fd());
    links.commit(&mut batch).unwrap();
    let other_end = || {
        let links = Links::open().unwrap();
        let mut batch = Batch::new();
        batch.address(links.index("nic1").unwrap(), "10.71.0.254/24".parse().unwrap());
        batch.up(links.index("nic1").unwrap(), true);
        links.commit(&mut batch).unwrap();
    };
    within(nowhere.fd(), other_end).unwrap();
    let mut batch = Batch::new();
    batch.address(links.index("mine").unwrap(), "10.70.0.1/24".parse().unwrap());
    batch.up(links.index("mine").unwrap(), true);
    batch.address(links.index("nic0").unwrap(), "10.71.0.253/24".parse().unwrap());
    batch.up(links.index("nic0").unwrap(), true);
    links.commit(&mut batch).unwrap();
    e.ok(["network", "create", "-o", "com.docker.network.bridge.name=mine", "theirs"]);
    let out = e.ok(["run", "--rm", "--network", "theirs", "bb", "ip", "route"]);
    assert!(out.contains("default via 10.70.0.1"), "{out}");
    e.ok(["network", "rm", "theirs"]);
    assert!(links.get("mine").unwrap().is_some(), "it is not ours to remove");
    // The parent's own network is the macvlan's, but no bridge's.
    let clash = e.fails(1, ["network", "create", "--subnet", "10.71.0.0/16", "clash"]);
    assert!(clash.contains("Pool overlaps"), "{clash}");
    let args = [
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        "parent=nic0",
        "--subnet",
        "10.71.0.0/24",
        "--ip-range",
        "10.71.0.0/25",
        "mac",
    ];
    e.ok(args);
    e.ok(["run", "-d", "--name", "m1", "--network", "mac", "bb", "sleep", "1000"]);
    e.ok(["run", "-d", "--name", "m2", "--network", "mac", "bb", "sleep", "1000"]);
    e.ok(["exec", "m1", "ping", "-c1", "-W2", "m2"]);
    e.ok(["exec", "m1", "ping", "-c1", "-W2", "10.71.0.254"]);
    e.ok(["network", "disconnect", "mac", "m2"]);
    assert_eq!(e.ok(["exec", "m2", "ls", "/sys/class/net"]), "lo");
    e.ok(["rm", "-f", "m1", "m2"]);
    let args = ["network", "create", "-d", "ipvlan", "-o", "parent=nic0", "ipv"];
    if links.knows("ipvlan").unwrap() {
        e.ok(args);
        e.ok(["run", "--rm", "--network", "ipv", "bb", "ls", "/sys/class/net/eth0"]);
    } else {
        assert!(e.fails(1, args).contains("this kernel has no ipvlan interfaces"));
    }
    assert!(links.knows("macvlan").unwrap() && !links.knows("nonsense").unwrap());
    e.finish();
}

#[test]
fn addresses_of_one_link() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    let own = ["--link-local-ip", "169.254.7.7", "--link-local-ip", "fe80::77"];
    let mut args = vec!["run", "-d", "--name", "one", "--network", "net"];
    args.extend(own);
    args.extend(["bb", "sleep", "1000"]);
    e.ok(args);
    let has = e.ok(["exec", "one", "ip", "addr", "show", "eth0"]);
    for part in [&address(&e, "one", "net"), "169.254.7.7/16", "fe80::77/64"] {
        assert!(has.contains(part), "{part} in {has}");
    }
    e.ok(["network", "connect", "--link-local-ip", "169.254.7.8", "bridge", "one"]);
    assert!(e.ok(["exec", "one", "ip", "addr", "show", "eth1"]).contains("169.254.7.8/16"));
    let wrong = ["run", "--rm", "--network", "net", "--link-local-ip", "10.0.0.1", "bb", "true"];
    assert!(e.fails(125, wrong).contains("invalid link-local IP address: 10.0.0.1"));
    e.finish();
}

#[test]
fn a_network_that_is_shared() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    serve(&e, "web", "hello", 80, &["--network", "net"]);
    assert_eq!(hears(&e, "web", "127.0.0.1", 80), "hello");
    let out = e.ok([
        "run",
        "--rm",
        "--network",
        "container:web",
        "bb",
        "sh",
        "-c",
        "timeout 2 nc 127.0.0.1 80; cat /etc/resolv.conf",
    ]);
    assert!(out.contains("hello") && out.contains("127.0.0.11"), "{out}");
    for (args, message) in [
        (
            vec!["run", "--rm", "--network", "container:web", "-p", "80:80", "bb", "true"],
            "port publishing and the container type",
        ),
        (
            vec!["run", "--rm", "--network", "container:web", "--hostname", "x", "bb", "true"],
            "hostname and the network mode",
        ),
    ] {
        assert!(e.fails(125, &args).contains(message), "{args:?}");
    }
    e.finish();
}

/// Two engines on one host know nothing of each other, and yet have bridges, subnets and rules apart.
#[test]
fn two_engines_on_one_host() {
    let e = Engine::new();
    let other = |args: &[&str]| {
        let mut command = e.command();
        command.env("WHERRY_DATA_ROOT", e.path("data2")).env("WHERRY_RUN_ROOT", e.path("run2"));
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    other(&["image", "import", e.path("bb.tar").to_str().unwrap(), "bb"]);
    serve(&e, "web", "one", 80, &["-p", "8080:80"]);
    other(&[
        "run", "-d", "--name", "web", "-p", "8081:80", "bb", "nc", "-ll", "-p", "80", "-e", "echo",
        "two",
    ]);
    answers(&e.host, "127.0.0.1:8080", "one");
    answers(&e.host, "127.0.0.1:8081", "two");
    let (first, second) = (
        address(&e, "web", "bridge"),
        other(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]),
    );
    assert_ne!(first.split('.').nth(1), second.split('.').nth(1), "{first} {second}");
    assert_eq!(hears(&e, "web", &second, 80), "", "they are apart");
    let gateway = e.inspect("{{.NetworkSettings.Gateway}}", "web");
    assert_eq!(hears(&e, "web", &gateway, 8081), "two", "but for what is published");
    other(&["rm", "-f", "web"]);
    other(&["network", "prune", "-f"]);
    answers(&e.host, "127.0.0.1:8080", "one");
    assert_eq!(e.ok(["network", "repair"]), "nothing to mend");
    e.ok(["rm", "-f", "web"]);
    nothing_left(&e);
    let run = e.path("run2").display().to_string();
    until("the other engine's keeper has left", || {
        std::fs::read_dir("/proc").unwrap().flatten().all(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            !String::from_utf8_lossy(&line).contains(&run)
        })
    });
    e.finish();
}

/// Whoever starts a container may be killed at any moment.
#[test]
fn killed_starts_leave_nothing() {
    let e = Engine::new();
    e.ok(["network", "create", "net"]);
    e.ok(["run", "--rm", "--network", "net", "bb", "true"]);
    for n in 0..24 {
        // (A `create` that was killed leaves files for the next clean-up, on purpose.)
        e.ok([
            "create",
            "--name",
            "one",
            "--network",
            "net",
            "-p",
            "8080:80",
            "bb",
            "sleep",
            "1000",
        ]);
        let mut start = e.spawn(["start", "one"]);
        // Somewhere on its way.
        std::thread::sleep(Duration::from_micros(1000 * n));
        let _ = start.kill();
        start.wait().unwrap();
        e.ok(["rm", "-f", "one"]);
        // Its port and its address are free again.
        e.ok(["run", "--rm", "--network", "net", "-p", "8080:80", "bb", "true"]);
    }
    until("all ports were taken back", || e.ok(["network", "repair"]) == "nothing to mend");
    e.ok(["network", "rm", "net"]);
    nothing_left(&e);
    e.finish();
}

/// What comes from elsewhere passes the host's own input chains, if the settings say so.
#[test]
fn a_host_firewall_is_honoured() {
    let e = Engine::new();
    let outside = outside(&e);
    let firewall = "table inet fw {
        chain input {
            type filter hook input priority 0; policy drop
            ct state established,related accept
            iif lo accept
            meta l4proto ipv6-icmp accept
            tcp dport { 8080, 8082 } accept
            udp dport 8080 accept
        }
    }\n";
    let rules = e.path("firewall");
    std::fs::write(&rules, firewall).unwrap();
    assert!(e.host.command("nft").arg("-f").arg(&rules).status().unwrap().success());
    // As strict as a host may be about where packets come from.
    let strict = || net::namespace::set_sysctl("ipv4/conf/all/rp_filter", "1").unwrap();
    within(e.host.fd(), strict).unwrap();
    let config = e.path("config.toml");
    std::fs::write(&config, "publish-respects-input = true\n").unwrap();
    let with = |args: &[&str]| {
        let output = e.command().arg("--config").arg(&config).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    with(&["network", "create", "--ipv6", "--subnet", "fd00:60::/64", "six"]);
    let run: Vec<&str> = ["run", "-d", "--name", "web", "--network", "six"]
        .into_iter()
        .chain(["-p", "8080:80", "-p", "8081:80", "-p", "8082:99"])
        .chain(["-p", "8080:81/udp", "-p", "8081:81/udp"])
        .chain(["bb", "nc", "-ll", "-p", "80", "-e", "echo", "hello"])
        .collect();
    with(&run);
    let server = Datagrams::new(&e, "web", 81);
    with(&["run", "-d", "--name", "other", "bb", "sleep", "1000"]);
    answers(&outside, &format!("{HOST}:8080"), "hello");
    answers(&outside, "[2001:db8::1]:8080", "hello");
    answers(&e.host, "127.0.0.1:8081", "hello");
    answers(&e.host, &format!("{HOST}:8081"), "hello");
    assert_eq!(hears(&e, "other", HOST, 8080), "hello");
    let says = |port: u16| says(&outside, &format!("{HOST}:{port}"));
    assert_eq!(says(8080).unwrap(), "got you");
    // What the firewall says nothing of, and what nobody listens on.
    assert!(says(8081).is_err());
    for address in [format!("{HOST}:8081"), "[2001:db8::1]:8081".into()] {
        assert_eq!(ask(&outside, &address).unwrap_err().kind(), ErrorKind::TimedOut, "{address}");
    }
    assert_eq!(hears(&e, "other", HOST, 8081), "");
    let refused = ask(&outside, &format!("{HOST}:8082")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(with(&["network", "repair"]), "nothing to mend");
    // Somebody takes the pair of interfaces away, or whoever made it was killed half-way.
    let links = Links::open_in(e.host.fd()).unwrap();
    let circle = links.list().unwrap().into_iter().find(|l| l.name.starts_with("whin-")).unwrap();
    links.delete([circle.name.as_str()]).unwrap();
    assert!(with(&["network", "repair"]).contains("made the table of rules anew"));
    answers(&outside, &format!("{HOST}:8080"), "hello");
    for link in links.list().unwrap().into_iter().filter(|l| l.name.starts_with("whin-")) {
        let mut batch = Batch::new();
        batch.up(link.index, false);
        links.commit(&mut batch).unwrap();
    }
    with(&["network", "repair"]);
    answers(&outside, &format!("{HOST}:8080"), "hello");
    // Without the setting the rules are others, and the pair of interfaces goes.
    assert!(e.ok(["network", "repair"]).contains("made the table of rules anew"));
    answers(&outside, &format!("{HOST}:8081"), "hello");
    let links = Links::open_in(e.host.fd()).unwrap().list().unwrap();
    assert!(links.iter().all(|l| !l.name.starts_with("whin-")));
    with(&["network", "repair"]);
    assert_eq!(ask(&outside, &format!("{HOST}:8081")).unwrap_err().kind(), ErrorKind::TimedOut);
    answers(&outside, &format!("{HOST}:8080"), "hello");
    drop(server);
    with(&["rm", "-f", "web", "other"]);
    with(&["network", "rm", "six"]);
    assert!(
        e.host.command("nft").args(["delete", "table", "inet", "fw"]).status().unwrap().success()
    );
    nothing_left(&e);
    e.finish();
}

#[test]
fn datagrams_and_sctp() {
    let e = Engine::new();
    let outside = outside(&e);
    e.ok(["network", "create", "--ipv6", "--subnet", "fd00:61::/64", "six"]);
    let ports = ["-p", "8080:81/udp", "-p", "9000-9002:9000-9002/sctp"];
    let mut args = vec!["run", "-d", "--name", "web", "--network", "six"];
    args.extend(ports);
    args.extend(["bb", "sleep", "1000"]);
    e.ok(args);
    let server = Datagrams::new(&e, "web", 81);
    for address in [format!("{HOST}:8080"), "[2001:db8::1]:8080".into()] {
        assert_eq!(says(&outside, &address).unwrap(), "got you", "{address}");
        assert_eq!(says(&e.host, &address).unwrap(), "got you", "{address} from the host");
    }
    assert_eq!(says(&e.host, "127.0.0.1:8080").unwrap(), "got you");
    // Not every kernel has sockets of SCTP; the rules lead it all the same.
    assert_eq!(e.ok(["port", "web", "9001/sctp"]), "0.0.0.0:9001\n[::]:9001");
    let rules = e.host.command("nft").args(["-n", "list", "ruleset"]).output().unwrap();
    let rules = text(&rules.stdout);
    for port in 9000..9003 {
        assert_eq!(rules.matches(&format!("132 . {port} ")).count(), 2, "{port}: {rules}");
    }
    drop(server);
    e.ok(["rm", "-f", "web"]);
    assert!(says(&outside, &format!("{HOST}:8080")).is_err());
    e.ok(["network", "rm", "six"]);
    nothing_left(&e);
    e.finish();
}

#[test]
fn a_thousand_published_ports() {
    let e = Engine::new();
    let outside = outside(&e);
    // Rules are what a packet passes one by one; what is published must not add any.
    let rules = || {
        let listed = e.host.command("nft").args(["-a", "list", "ruleset"]).output().unwrap();
        let listed = text(&listed.stdout);
        let of_sets = |line: &&str| line.contains("# handle") && !line.contains(" {");
        listed.lines().filter(of_sets).count()
    };
    serve(&e, "one", "one", 80, &["-p", "7000:80"]);
    let before = rules();
    assert!(before > 20, "{before}");
    serve(&e, "many", "many", 80, &["-p", "8000-8999:8000-8999", "-p", "9000:80"]);
    assert_eq!(rules(), before);
    assert_eq!(e.ok(["port", "many"]).lines().count(), 1001);
    answers(&outside, &format!("{HOST}:9000"), "many");
    answers(&e.host, "127.0.0.1:7000", "one");
    let refused = e.fails(125, ["run", "--rm", "-p", "8500:80", "bb", "true"]);
    assert!(refused.contains("port is already allocated"), "{refused}");
    e.ok(["rm", "-f", "one", "many"]);
    nothing_left(&e);
    e.finish();
}

#[test]
fn large_packets_from_end_to_end() {
    let e = Engine::new();
    let outside = outside(&e);
    for namespace in [e.host.fd(), outside.fd()] {
        let links = Links::open_in(namespace).unwrap();
        let mut batch = Batch::new();
        batch.mtu(links.index("up0").unwrap(), 9000);
        links.commit(&mut batch).unwrap();
    }
    e.ok(["network", "create", "-o", "com.docker.network.driver.mtu=9000", "jumbo"]);
    e.ok(["run", "-d", "--name", "left", "--network", "jumbo", "bb", "sleep", "1000"]);
    e.ok([
        "run",
        "-d",
        "--name",
        "right",
        "--network",
        "jumbo",
        "-p",
        "8080:81/udp",
        "bb",
        "sleep",
        "99",
    ]);
    // 8972 bytes and their headers are 9000; a piece more is refused, not cut.
    let pings = |size: &str, to: &str| {
        let args = ["exec", "left", "ping", "-c1", "-W2", "-s", size, to];
        e.run(args).status.success()
    };
    assert!(pings("8972", "right") && pings("8972", OUTSIDE));
    let server = Datagrams::new(&e, "right", 81);
    let socket = within(outside.fd(), || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO).unwrap();
    socket.connect((HOST, 8080)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 9000];
    socket.send(&[7; 8972]).unwrap();
    assert!(socket.recv(&mut buffer).is_ok());
    assert_eq!(socket.send(&[7; 8973]).unwrap_err().raw_os_error(), Some(90));
    drop(server);
    e.finish();
}

#[test]
fn names_in_turn_and_addresses_of_both_families() {
    let e = Engine::new();
    e.ok(["network", "create", "--ipv6", "--subnet", "fd00:62::/64", "six"]);
    for name in ["one", "two", "three"] {
        let alias = ["--network", "six", "--network-alias", "all"];
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(alias);
        args.extend(["bb", "sleep", "1000"]);
        e.ok(args);
    }
    // Most programs take the first address of an answer: everybody's turn comes.
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let found = e.run(["exec", "one", "nslookup", "-type=a", "all"]);
        let found = text(&found.stdout);
        let addresses: Vec<_> = found
            .lines()
            .filter(|line| line.starts_with("Address") && !line.contains("127.0.0.11"))
            .collect();
        assert_eq!(addresses.len(), 3, "{found}");
        first.insert(addresses[0].to_owned());
    }
    assert_eq!(first.len(), 3, "{first:?}");
    let format = "{{(index .NetworkSettings.Networks \"six\").GlobalIPv6Address}}";
    let v6 = e.inspect(format, "two");
    let found = text(&e.run(["exec", "one", "nslookup", &v6]).stdout);
    assert!(found.contains("name = two.six"), "{found}");
    let found = text(&e.run(["exec", "one", "nslookup", "-type=aaaa", "two"]).stdout);
    assert!(found.contains(&v6), "{found}");
    e.finish();
}

/// Every process of the engine in turn, and all together.
#[test]
fn whoever_is_killed_networks_agree_with_what_runs() {
    let e = Engine::new();
    let outside = outside(&e);
    e.ok(["network", "create", "net"]);
    serve(&e, "web", "hello", 80, &["--network", "net", "-p", "8080:80"]);
    serve(&e, "plain", "plain", 80, &["-p", "8081:80"]);
    e.ok(["run", "-d", "--name", "user", "--network", "net", "bb", "sleep", "1000"]);
    let all: Vec<String> = {
        until("all are there", || e.keepers().len() >= 3);
        e.keepers().into_iter().map(|(_, name)| name).collect()
    };
    assert!(all.iter().any(|name| name == "wherry-names"), "{all:?}");
    let kill = |names: &[&str]| {
        for (pid, name) in e.keepers() {
            if names.contains(&name.as_str()) {
                let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
    };
    let own = address(&e, "web", "net");
    let mut groups: Vec<Vec<&str>> = all.iter().map(|name| vec![name.as_str()]).collect();
    groups.push(all.iter().map(String::as_str).collect());
    for group in groups {
        kill(&group);
        let at = std::time::Instant::now();
        answers(&outside, &format!("{HOST}:8080"), "hello");
        answers(&outside, &format!("{HOST}:8081"), "plain");
        let found = || text(&e.run(["exec", "user", "nslookup", "web"]).stdout).contains(&own);
        until("names are found", found);
        // (A machine that does much else may be slow; the server's own part is milliseconds.)
        assert!(at.elapsed() < Duration::from_secs(3), "{group:?}: {:?}", at.elapsed());
        assert_eq!(e.ok(["network", "repair"]), "nothing to mend", "{group:?}");
        assert_eq!(e.ok(["ps", "-q"]).lines().count(), 3, "{group:?}");
    }
    // Containers that die while nobody is there to see it give everything back.
    let pids = ["web", "plain", "user"].map(|name| e.inspect("{{.State.Pid}}", name));
    kill(&all.iter().map(String::as_str).collect::<Vec<_>>());
    for pid in pids {
        let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
    }
    until("their ends are taken in", || e.ok(["ps", "-q"]).is_empty());
    until("the pairs are gone", || e.interfaces().is_empty());
    e.ok(["network", "repair"]);
    assert_eq!(e.ok(["network", "repair"]), "nothing to mend");
    serve(&e, "other", "other", 80, &["--network", "net", "-p", "8080-8081:80-81"]);
    answers(&outside, &format!("{HOST}:8080"), "other");
    e.ok(["rm", "-f", "web", "plain", "user", "other"]);
    e.ok(["network", "rm", "net"]);
    nothing_left(&e);
    e.finish();
}
