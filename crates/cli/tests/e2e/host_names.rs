//! `dns enable`: the host asks for names of containers. The host is a network namespace and a mount
//! namespace with an `/etc` of its own; the machine's is never touched.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use net::namespace::within;

use crate::harness::{Engine, text, until};

const BEFORE: &str = "# of the host\nsearch lan\nnameserver 127.0.0.2\noptions timeout:1";

/// A host with files of its own.
struct Host {
    e: Engine,
    holder: Child,
}

impl Host {
    /// `extra`: what else its shell does to its mounts.
    fn new(extra: &str) -> Self {
        let e = Engine::new();
        for dir in ["upper", "work"] {
            fs::create_dir_all(e.path(dir)).unwrap();
        }
        let script = format!(
            "set -e; mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w; \
             mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc; \
             rm -f /etc/resolv.conf; printf '{}' > /etc/resolv.conf; \
             echo 'hosts: files dns' > /etc/nsswitch.conf; {extra}; echo ready; exec sleep 1000",
            BEFORE.replace('\n', "\\n"),
        );
        let mut holder = e
            .host
            .command("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
        Self { e, holder }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.e.command_as("nsenter");
        command.args(["-m", "-t", &self.holder.id().to_string(), "--", program]);
        command
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.command(env!("CARGO_BIN_EXE_wherry")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What the C library finds.
    fn finds(&self, name: &str) -> String {
        let output = self.command("getent").args(["ahosts", name]).output().unwrap();
        text(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned()
    }

    fn resolv_conf(&self) -> String {
        let output = self.command("cat").arg("/etc/resolv.conf").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.holder.id()).into()
    }

    fn finish(self) {
        for name in text(&self.e.run(["ps", "-aq"]).stdout).lines() {
            self.e.ok(["rm", "-f", name]);
        }
        until("all helpers have left", || self.e.keepers().is_empty());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A server of the host's that knows every name but those that begin with `no`: 192.0.2.77.
fn upstream(e: &Engine) {
    let socket = within(e.host.fd(), || UdpSocket::bind("127.0.0.2:53")).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, to)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            let known = &buffer[13..15] != b"no";
            let a = buffer[length.saturating_sub(4)..length].starts_with(&[0, 1]);
            answer[2] |= 0x80;
            answer[3] = if known { 0x80 } else { 0x83 };
            answer[10..12].fill(0);
            if known && a {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 77]);
            }
            let _ = socket.send_to(&answer, to);
        }
    });
}

#[test]
fn the_host_finds_containers() {
    let host = Host::new("true");
    upstream(&host.e);
    assert_eq!(host.ok(&["dns", "status"]), "disabled");
    assert_eq!(host.ok(&["dns", "disable"]), "was not enabled");
    assert_eq!(host.resolv_conf(), BEFORE, "nobody asked for it");
    let said = host.ok(&["dns", "enable", "--domain", "boxes.internal"]);
    assert!(said.contains("enabled: containers are in boxes.internal"), "{said}");
    assert!(said.contains("resolver: /etc/resolv.conf asks 127.0.0.11"), "{said}");
    assert!(said.contains("server: not there"), "{said}");
    // While nothing runs the host's own server is asked.
    assert_eq!(host.finds("www.example.org"), "192.0.2.77");
    let once = host.resolv_conf();
    host.ok(&["dns", "enable"]);
    assert_eq!(host.resolv_conf(), once);
    // On the default network, and on one that a person made.
    host.ok(&["network", "create", "shop"]);
    host.ok(&["run", "-d", "--name", "plain", "bb", "sleep", "1000"]);
    let address = |name: &str, network: &str| {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        host.ok(&["inspect", "-f", &format, name])
    };
    // Nobody waited for the server, and until it is there the host's own answers.
    let plain = address("plain", "bridge");
    until("the default network's containers are found", || host.finds("plain") == plain);
    host.ok(&["run", "-d", "--name", "no1", "--network", "shop", "bb", "sleep", "1000"]);
    let own = address("no1", "shop");
    for name in ["no1", "no1.shop", "no1.boxes.internal", "no1.shop.boxes.internal"] {
        assert_eq!(host.finds(name), own, "{name}");
    }
    let reverse = host.command("getent").args(["hosts", &own]).output().unwrap();
    assert!(
        text(&reverse.stdout).ends_with("no1.shop.boxes.internal"),
        "{}",
        text(&reverse.stdout)
    );
    assert_eq!(host.finds("nobody.boxes.internal"), "");
    assert_eq!(host.finds("www.example.org"), "192.0.2.77", "others by the host's server");
    assert!(host.ok(&["dns", "status"]).contains("server: answers"));
    // Containers are not told of it, and their questions don't turn in a circle.
    let inside = host.ok(&["exec", "plain", "cat", "/etc/resolv.conf"]);
    assert!(!inside.contains("127.0.0.11") && !inside.contains("boxes"), "{inside}");
    let forwarded = host.ok(&["exec", "no1", "nslookup", "www.example.org"]);
    assert!(forwarded.contains("192.0.2.77"), "{forwarded}");
    // Somebody writes the file anew, as a DHCP client does; somebody kills the server.
    fs::write(host.root().join("etc/resolv.conf"), "nameserver 127.0.0.2\n").unwrap();
    until("the file is mended", || host.finds("no1") == own);
    let server = host.e.keeper("wherry-names").to_string();
    Command::new("kill").args(["-9", &server]).status().unwrap();
    until("the server is back", || host.finds("no1") == own);
    // One that has ended has no name any more; with the last the server leaves.
    host.ok(&["rm", "-f", "no1"]);
    assert_eq!(host.finds("no1.boxes.internal"), "");
    assert_eq!(host.finds("plain"), address("plain", "bridge"));
    host.ok(&["rm", "-f", "plain"]);
    until("the server has left", || {
        host.e.keepers().iter().all(|(_, name)| name != "wherry-names")
    });
    assert_eq!(host.finds("www.example.org"), "192.0.2.77");
    assert_eq!(host.ok(&["dns", "disable"]), "disabled");
    assert_eq!(host.resolv_conf(), "nameserver 127.0.0.2\n");
    assert!(!host.e.data_root().join("dns.json").exists());
    host.finish();
}

#[test]
fn the_file_is_as_it_was() {
    // The file is a mount of its own, which can't be replaced.
    let host = Host::new("mount --bind /etc/resolv.conf /etc/resolv.conf");
    let container = ["run", "-d", "--name", "one", "bb", "sleep", "1000"];
    host.ok(&container);
    host.ok(&["dns", "enable", "--address", "127.0.0.99"]);
    assert!(host.ok(&["dns", "status"]).contains("server: answers"));
    assert!(!host.finds("one").is_empty());
    // Somebody wrote the file; who asks for it has it mended at once, unless the server has seen it before.
    fs::write(host.root().join("etc/resolv.conf"), BEFORE).unwrap();
    let said = host.ok(&["network", "repair"]);
    assert!(["brought the host's resolver in line", "nothing to mend"].contains(&&*said), "{said}");
    assert!(host.resolv_conf().contains("nameserver 127.0.0.99"));
    assert_eq!(host.ok(&["network", "repair"]), "nothing to mend");
    // A disable that was killed half-way is finished by whoever looks next.
    let wish = host.e.data_root().join("dns.json");
    let text = fs::read_to_string(&wish).unwrap().replace("true", "false");
    fs::write(&wish, text).unwrap();
    assert_eq!(host.ok(&["dns", "status"]), "disabled");
    host.ok(&["dns", "disable"]);
    assert_eq!(host.resolv_conf(), BEFORE);
    assert_eq!(host.finds("one"), "");
    for (args, message) in [
        (&["dns", "enable", "--address", "10.0.0.1"][..], "no address for the host's name server"),
        (&["dns", "enable", "--domain", "a b"], "is no domain"),
    ] {
        let output = host.command(env!("CARGO_BIN_EXE_wherry")).args(args).output().unwrap();
        assert!(self::text(&output.stderr).contains(message), "{}", self::text(&output.stderr));
    }
    // Somebody else has the port.
    let taken = within(host.e.host.fd(), || UdpSocket::bind("127.0.0.11:53")).unwrap().unwrap();
    assert!(host.ok(&["dns", "enable"]).contains("127.0.0.12"));
    drop(taken);
    host.ok(&["dns", "disable"]);
    assert_eq!(host.resolv_conf(), BEFORE);
    host.finish();
}

#[test]
fn systemd_resolved_has_a_file_of_its_own() {
    // Its files; who restarts it is not here, and the command says so.
    let host = Host::new(
        "mkdir -p /run/systemd; mount -t tmpfs none /run/systemd; mkdir /run/systemd/resolve; \
         echo nameserver 192.0.2.1 > /run/systemd/resolve/resolv.conf; \
         echo nameserver 127.0.0.53 > /run/systemd/resolve/stub-resolv.conf; \
         ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
    );
    let binary = env!("CARGO_BIN_EXE_wherry");
    let output = host.command(binary).args(["dns", "enable"]).output().unwrap();
    let said = text(&output.stderr);
    assert!(said.is_empty() || said.contains("systemctl restart systemd-resolved"), "{said}");
    let status = host.ok(&["dns", "status"]);
    assert!(status.contains("resolver: systemd-resolved asks 127.0.0.11"), "{status}");
    let folder = host.root().join("etc/systemd/resolved.conf.d");
    let files: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|f| f.path()).collect();
    assert_eq!(files.len(), 1);
    let written = fs::read_to_string(&files[0]).unwrap();
    assert!(written.contains("[Resolve]\nDNS=127.0.0.11\nDomains=wherry"), "{written}");
    assert_eq!(host.resolv_conf(), "nameserver 127.0.0.53\n", "the stub is resolved's");
    let _ = host.command(binary).args(["dns", "disable"]).output().unwrap();
    assert!(!files[0].exists());
    assert_eq!(host.ok(&["dns", "disable"]), "disabled", "finished when it is given again");
    assert_eq!(host.ok(&["dns", "status"]), "disabled");
    host.finish();
}
