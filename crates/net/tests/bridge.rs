//! Containers on bridges, seen from everywhere.
#![allow(clippy::unwrap_used)]

mod common;

use common::{HOST, OUTSIDE, World, port};

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let world = World::new();
    let net = world.network("a", &["10.1.0.1/24"], |_| ());
    let other = world.network("b", &["10.2.0.1/24"], |_| ());
    let (server, endpoint) =
        world.container(&net, &["10.1.0.2/24"], &[port("0.0.0.0:8080", "10.1.0.2:80")]);
    let (neighbour, _) = world.container(&net, &["10.1.0.3/24"], &[]);
    let (stranger, _) = world.container(&other, &["10.2.0.2/24"], &[]);
    let published = format!("{HOST}:8080");

    // Nobody listens yet: refused at once, by whoever is asked.
    for (who, address) in [
        (&world.outside, published.as_str()),
        (&world.host, published.as_str()),
        (&world.host, "127.0.0.1:8080"),
        (&neighbour, published.as_str()),
        (&server, published.as_str()),
        (&stranger, published.as_str()),
    ] {
        let error = who.ask(address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
    }

    server.serve("0.0.0.0:80", "hello");
    let seen = |who: &common::Namespace, address: &str| {
        let (word, peer) = who.ask(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        assert_eq!(word, "hello");
        peer.to_string()
    };
    // The sender's own address is kept.
    assert_eq!(seen(&world.outside, &published), OUTSIDE);
    assert_eq!(seen(&world.host, &published), HOST);
    assert_eq!(seen(&world.host, "127.0.0.1:8080"), "10.1.0.1");
    assert_eq!(seen(&world.host, "127.0.0.9:8080"), "10.1.0.1");
    assert_eq!(seen(&world.host, "10.1.0.2:80"), "10.1.0.1");
    assert_eq!(seen(&neighbour, &published), "10.1.0.1");
    assert_eq!(seen(&neighbour, "10.1.0.2:80"), "10.1.0.3");
    assert_eq!(seen(&server, &published), "10.1.0.1");
    assert_eq!(seen(&server, "10.1.0.1:8080"), "10.1.0.1");
    seen(&stranger, &published);

    // Undone, nothing is left.
    world.engine.unplug(&net.id, &endpoint.container, &endpoint.ports).unwrap();
    world.engine.unplug(&net.id, &endpoint.container, &endpoint.ports).unwrap();
    assert!(world.outside.ask(&published).is_err());
    let inventory = world.engine.inventory().unwrap();
    assert!(inventory.filter.ports.is_empty());
    assert!(inventory.interfaces.iter().all(|(_, container, _)| *container != endpoint.container));
    assert_eq!(server.run(net::link::Links::open).unwrap().get("eth0").unwrap(), None);
}

/// Both ways in which bridged packets may be treated: past the filter, or through it.
fn with_and_without_bridge_filter(test: impl Fn(&World, bool)) {
    for filtered in [false, true] {
        let world = World::new();
        let sysctl = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        let set = world.host.run(|| std::fs::write(sysctl, if filtered { "1" } else { "0" }));
        if set.is_ok() || !filtered {
            test(&world, filtered);
        }
    }
}

#[test]
fn networks_are_apart() {
    with_and_without_bridge_filter(|world, filtered| {
        let a = world.network("a", &["10.1.0.1/24"], |_| ());
        let b = world.network("b", &["10.2.0.1/24"], |_| ());
        let quiet = world.network("q", &["10.3.0.1/24"], |n| n.icc = false);
        let inner = world.network("i", &["10.4.0.1/24"], |n| n.internal = true);
        let published = [port("0.0.0.0:90", "10.3.0.2:80")];
        let (a1, _) = world.container(&a, &["10.1.0.2/24"], &[]);
        let (b1, _) = world.container(&b, &["10.2.0.2/24"], &[]);
        let (q1, _) = world.container(&quiet, &["10.3.0.2/24"], &published);
        let (q2, _) = world.container(&quiet, &["10.3.0.3/24"], &[]);
        let (i1, _) = world.container(&inner, &["10.4.0.2/24"], &[]);
        let (i2, _) = world.container(&inner, &["10.4.0.3/24"], &[]);
        for (server, word) in
            [(&a1, "a1"), (&b1, "b1"), (&q1, "q1"), (&i1, "i1"), (&world.outside, "outside")]
        {
            server.serve("0.0.0.0:80", word);
        }
        let reached =
            |who: &common::Namespace, address: &str| who.ask(address).map(|(word, _)| word).ok();
        let outside = format!("{OUTSIDE}:80");

        // Out, under the host's address.
        assert_eq!(a1.ask(&outside).unwrap(), ("outside".into(), HOST.parse().unwrap()));
        assert_eq!(reached(&q2, &outside).as_deref(), Some("outside"));
        // Published all the same.
        assert_eq!(reached(&a1, &format!("{HOST}:90")).as_deref(), Some("q1"));
        // A neighbour that is kept apart reaches it too, unless the kernel translates within the bridge.
        assert_eq!(reached(&q2, &format!("{HOST}:90")).is_some(), !filtered);
        // Within the internal network.
        assert_eq!(reached(&i2, "10.4.0.2:80").as_deref(), Some("i1"));

        // All that must not be, at once: each waits for its time-out.
        // Somebody next to the host who knows the way.
        let links = net::link::Links::open_in(std::os::fd::AsFd::as_fd(&world.outside.0)).unwrap();
        let mut batch = net::netlink::Batch::new();
        let index = links.index("up0").unwrap();
        batch.route("10.0.0.0/8".parse().unwrap(), Some(HOST.parse().unwrap()), index, false);
        links.commit(&mut batch).unwrap();
        // The container on the internal network knows one too.
        let links = i1.run(net::link::Links::open).unwrap();
        let mut batch = net::netlink::Batch::new();
        let index = links.index("eth0").unwrap();
        batch.route("0.0.0.0/0".parse().unwrap(), Some("10.4.0.1".parse().unwrap()), index, false);
        links.commit(&mut batch).unwrap();
        std::thread::scope(|scope| {
            for (who, address, what) in [
                (&a1, "10.2.0.2:80", "another bridge"),
                (&b1, "10.1.0.2:80", "another bridge, back"),
                (&q2, "10.3.0.2:80", "a neighbour that is kept apart"),
                (&i1, outside.as_str(), "out of an internal network"),
                (&i1, "10.1.0.2:80", "from an internal network to another"),
                (&a1, "10.4.0.2:80", "into an internal network"),
                (&world.outside, "10.1.0.2:80", "an unpublished port, by a route"),
            ] {
                scope.spawn(move || assert_eq!(reached(who, address), None, "{what}"));
            }
        });
    });
}

#[test]
fn loopback_of_the_host_is_only_for_the_host() {
    let world = World::new();
    let net = world.network("a", &["10.1.0.1/24"], |_| ());
    let mut datagrams = port("127.0.0.1:8081", "10.1.0.2:81");
    datagrams.protocol = net::filter::Protocol::Udp;
    let ports = [port("127.0.0.1:8080", "10.1.0.2:80"), datagrams];
    let (server, _) = world.container(&net, &["10.1.0.2/24"], &ports);
    server.serve("0.0.0.0:80", "hello");
    assert_eq!(world.host.ask("127.0.0.1:8080").unwrap().0, "hello");
    assert!(world.host.ask(&format!("{HOST}:8080")).is_err());

    // Hosts and containers that send packets for 127.0.0.0/8 to the host.
    for (namespace, device, gateway) in
        [(&world.outside, "up0", HOST), (&server, "eth0", "10.1.0.1")]
    {
        namespace.run(|| {
            net::namespace::set_sysctl(&format!("ipv4/conf/{device}/route_localnet"), "1").unwrap();
            net::namespace::set_sysctl("ipv4/conf/all/route_localnet", "1").unwrap();
            let links = net::link::Links::open().unwrap();
            let index = links.index(device).unwrap();
            let mut batch = net::netlink::Batch::new();
            batch.route(
                "127.0.0.1/32".parse().unwrap(),
                Some(gateway.parse().unwrap()),
                index,
                false,
            );
            links.commit(&mut batch).unwrap();
            // Otherwise the local table answers first.
            let gone = std::process::Command::new("ip")
                .args(["route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local"])
                .status();
            assert!(gone.is_ok_and(|s| s.success()));
            let gone = std::process::Command::new("ip")
                .args(["route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local"])
                .status();
            assert!(gone.is_ok_and(|s| s.success()));
        });
    }
    let published = server.udp("10.1.0.2:81");
    let mut buffer = [0; 1];
    let (outside, inside) = (world.outside.udp("192.0.2.9:0"), world.host.udp("0.0.0.0:0"));
    outside.send_to(b"o", "127.0.0.1:8081").unwrap();
    // Answered by the host only once what was sent before has arrived.
    assert!(world.outside.ask(&format!("{HOST}:8080")).is_err());
    inside.send_to(b"i", "127.0.0.1:8081").unwrap();
    published.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer, *b"i");
    // The kernel would drop the answer to a connection; a datagram needs none.
    let secret = world.host.udp("127.0.0.1:99");
    let open = world.host.udp("10.1.0.1:98");
    let sender = server.udp("10.1.0.2:0");
    sender.send_to(b"x", "127.0.0.1:99").unwrap();
    sender.send_to(b"x", "10.1.0.1:98").unwrap();
    open.recv_from(&mut buffer).unwrap();
    secret.set_nonblocking(true).unwrap();
    assert_eq!(secret.recv_from(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn ipv6() {
    let world = World::new();
    let net = world.network("a", &["10.1.0.1/24", "fd00:1::1/64"], |_| ());
    let (server, _) = world.container(
        &net,
        &["10.1.0.2/24", "fd00:1::2/64"],
        &[port("[::]:8080", "[fd00:1::2]:80"), port("[2001:db8::1]:8081", "[fd00:1::2]:80")],
    );
    let (neighbour, _) = world.container(&net, &["10.1.0.3/24", "fd00:1::3/64"], &[]);
    server.serve("[::]:80", "six");
    world.outside.serve("[::]:80", "outside");
    let seen = |who: &common::Namespace, address: &str| {
        who.ask(address).unwrap_or_else(|e| panic!("{address}: {e}")).1.to_string()
    };
    for port in [8080, 8081] {
        let published = format!("[2001:db8::1]:{port}");
        assert_eq!(seen(&world.outside, &published), "2001:db8::9");
        assert_eq!(seen(&world.host, &published), "2001:db8::1");
        assert_eq!(seen(&neighbour, &published), "fd00:1::1");
        assert_eq!(seen(&server, &published), "fd00:1::1");
    }
    assert_eq!(seen(&neighbour, "[fd00:1::2]:80"), "fd00:1::3");
    assert_eq!(seen(&neighbour, "[2001:db8::9]:80"), "2001:db8::1");
    // No address is ever tentative.
    let shown = server.run(net::link::Links::open).unwrap().addresses().unwrap();
    assert!(shown.iter().any(|(_, p)| p.to_string() == "fd00:1::2/64"));
}

#[test]
fn large_packets() {
    let world = World::with_mtu(9000);
    let net = world.network("a", &["10.1.0.1/24"], |n| n.mtu = 9000);
    let (a, _) = world.container(&net, &["10.1.0.2/24"], &[port("0.0.0.0:53", "10.1.0.2:53")]);
    let (b, _) = world.container(&net, &["10.1.0.3/24"], &[]);
    let server = a.udp("0.0.0.0:5300");
    // Not in pieces: the kernel refuses what is larger than the way.
    for who in [&b, &world.host] {
        let client = who.udp("0.0.0.0:0");
        rustix::net::sockopt::set_ip_mtu_discover(
            &client,
            rustix::net::sockopt::Ipv4PathMtuDiscovery::DO,
        )
        .unwrap();
        client.send_to(&[7; 8972], "10.1.0.2:5300").unwrap();
        let mut buffer = [0; 9000];
        assert_eq!(server.recv_from(&mut buffer).unwrap().0, 8972);
        assert_eq!(
            client.send_to(&[7; 8973], "10.1.0.2:5300").unwrap_err().raw_os_error(),
            Some(90)
        );
    }
}

#[test]
fn networks_side_by_side() {
    // As those of the default pools are: each begins where the one before ends.
    let world = World::new();
    world.outside.serve("0.0.0.0:80", "outside");
    let gateways = ["172.17.0.1/16", "172.18.0.1/16", "172.19.0.1/16"];
    let names = ["a", "b", "c"];
    let outside = format!("{OUTSIDE}:80");
    let leaves = |network: &net::endpoint::Network, address: &str| {
        let (container, endpoint) = world.container(network, &[address], &[]);
        let seen = container.ask(&outside).unwrap().1.to_string();
        // The kernel would take its time.
        world.engine.unplug(&network.id, &endpoint.container, &[]).unwrap();
        seen
    };
    let make = |n: usize| world.network(names[n], &[gateways[n]], |_| ());
    let networks: Vec<_> = [1, 0, 2].map(make).into();
    world.engine.unmake(&networks[0]).unwrap();
    assert_eq!(leaves(&networks[1], "172.17.0.2/16"), HOST);
    assert_eq!(leaves(&networks[2], "172.19.0.2/16"), HOST);
    let again = make(1);
    assert_eq!(leaves(&again, "172.18.0.2/16"), HOST);
    world.engine.unmake(&networks[1]).unwrap();
    world.engine.unmake(&networks[2]).unwrap();
    assert_eq!(leaves(&again, "172.18.255.254/16"), HOST);
    world.engine.unmake(&again).unwrap();
    assert_eq!(world.engine.inventory().unwrap(), Default::default());
}
