//! Certificates: whose are trusted, and what is said about those that are not.

use std::fs;
use std::process::Output;

use crate::server::{Registry, Setup, http_proxy};
use crate::world::{World, tar_of, text};

/// A registry that is reached by a name that is not this machine's, as loopback is trusted whatever it shows.
struct Far {
    w: World,
    r: Registry,
    proxy: String,
}

const NAME: &str = "reg.example/app:1";

impl Far {
    fn new(names: &'static str, client_certificates: bool) -> Self {
        Self::with(Setup { names, client_certificates, ..Setup::default() })
    }

    fn with(setup: Setup) -> Self {
        let w = World::new();
        let setup = Setup { tls: true, ..setup };
        let r = Registry::start(&w.dir, &setup);
        let (proxy, _) = http_proxy(r.port);
        w.image("app", &[tar_of(&[("x", b"y")])]);
        w.ok(&["tag", "app", NAME]);
        Self { w, r, proxy: format!("http://127.0.0.1:{proxy}") }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.w.command(args);
        command.env("https_proxy", &self.proxy).env("http_proxy", &self.proxy).output().unwrap()
    }

    /// Both directions and `login` are refused with these words.
    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        for args in
            [&["push", NAME][..], &["pull", NAME], &["login", "-u", "a", "-p", "b", "reg.example"]]
        {
            let out = self.run(args);
            let error = text(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{args:?}: {error}");
            for word in words {
                assert!(error.contains(word), "{args:?} lacks {word:?}: {error}");
            }
        }
        self.w.nothing_but("app");
    }

    #[track_caller]
    fn accepts(&self) {
        for args in [["push", NAME], ["pull", NAME]] {
            let out = self.run(&args);
            assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        }
    }
}

#[test]
fn an_unknown_authority_is_refused() {
    let far = Far::new("DNS:reg.example", false);
    let place = far.w.path("certs.d").join("reg.example/ca.crt");
    far.refuses(&["signed by an unknown authority", place.to_str().unwrap()]);
    far.r.trust_as("reg.example", &far.w.path("certs.d"), false);
    far.accepts();
    // Another authority than that which signed it.
    let other = far.w.path("other");
    fs::create_dir(&other).unwrap();
    crate::server::certificates(&other, "DNS:reg.example");
    fs::copy(other.join("ca.crt"), &place).unwrap();
    far.refuses(&["signed by an unknown authority"]);
    // No certificate at all.
    fs::write(&place, "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n").unwrap();
    far.refuses(&[place.to_str().unwrap(), "not a file of PEM certificates"]);
    fs::remove_file(&place).unwrap();
    // Who asks for it gets it.
    far.w.configure("[[registry]]\nprefix = \"reg.example\"\ninsecure = true\n");
    far.accepts();
}

/// The way of those who run a registry for themselves.
#[test]
fn a_certificate_that_is_its_own_authority_is_trusted_where_it_is_given() {
    let own = |names| Far::with(Setup { names, own_certificate: true, ..Setup::default() });
    let far = own("DNS:reg.example");
    far.refuses(&["signed by an unknown authority"]);
    far.r.trust_as("reg.example", &far.w.path("certs.d"), false);
    far.accepts();
    // One made in the same way, but another.
    let other = own("DNS:reg.example");
    other.r.trust_as("reg.example", &far.w.path("certs.d"), false);
    far.refuses(&["reg.example"]);
    let elsewhere = own("DNS:other.example");
    elsewhere.r.trust_as("reg.example", &elsewhere.w.path("certs.d"), false);
    elsewhere.refuses(&["use a name that is in its certificate"]);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let far = Far::new("DNS:other.example,DNS:*.reg.example", false);
    far.r.trust_as("reg.example", &far.w.path("certs.d"), false);
    far.refuses(&["reg.example", "other.example", "use a name that is in its certificate"]);
}

#[test]
fn a_certificate_of_ours_can_be_wanted() {
    let far = Far::new("DNS:reg.example", true);
    let certs = far.w.path("certs.d");
    far.r.trust_as("reg.example", &certs, false);
    let place = certs.join("reg.example/client.cert");
    far.refuses(&["wants a certificate of ours", place.to_str().unwrap()]);
    far.r.trust_as("reg.example", &certs, true);
    far.accepts();
    // One that it does not know.
    let other = far.w.path("other");
    fs::create_dir(&other).unwrap();
    crate::server::certificates(&other, "DNS:reg.example");
    fs::copy(other.join("client.cert"), &place).unwrap();
    fs::copy(other.join("client.key"), place.with_extension("key")).unwrap();
    far.refuses(&["wants a certificate of ours that it knows"]);
}

#[test]
fn this_machine_is_trusted_and_may_want_a_certificate() {
    let w = World::new();
    let setup = Setup { tls: true, client_certificates: true, ..Setup::default() };
    let r = Registry::start(&w.dir, &setup);
    w.image("app", &[tar_of(&[("x", b"y")])]);
    let name = r.name("app:1");
    w.ok(&["tag", "app", &name]);
    // Loopback is trusted as in Docker, but this one wants to know who we are.
    let error = w.fails(&["push", &name]);
    let place = w.path("certs.d").join(r.host()).join("client.cert");
    assert!(error.contains("wants a certificate of ours"), "{error}");
    assert!(error.contains(place.to_str().unwrap()), "{error}");
    r.trust(&w.path("certs.d"), true);
    w.ok(&["push", &name]);
    w.ok_in("two", &["pull", &name]);
    // A key that is missing is named.
    fs::remove_file(w.path("certs.d").join(r.host()).join("client.key")).unwrap();
    assert!(w.fails(&["pull", &name]).contains("missing key client.key"));
}
