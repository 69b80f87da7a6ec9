//! Logins: basic and by token, kept in Docker's file or with a helper.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::screen::Screen;
use crate::server::{Asked, Registry, Setup, token_server};
use crate::world::{World, tar_of, text};

fn login(w: &World, host: &str, user: &str, password: &str) -> (bool, String, String) {
    let mut child = w
        .command(&["login", "-u", user, "--password-stdin", host])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    (out.status.success(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn basic_over_tls() {
    let w = World::new();
    let setup = Setup { tls: true, htpasswd: Some(("ann", "secret")), ..Setup::default() };
    let r = Registry::start(&w.dir, &setup);
    r.trust(&w.path("certs.d"), false);
    w.image("app", &[tar_of(&[("x", b"y")])]);
    let name = r.name("app:1");
    w.ok(&["tag", "app", &name]);
    let error = w.fails(&["push", &name]);
    assert!(
        error.contains("no basic auth credentials") || error.contains("authentication required"),
        "{error}"
    );
    let (ok, _, error) = login(&w, &r.host(), "ann", "wrong");
    assert!(!ok && error.contains("unauthorized"), "{error}");
    assert!(!w.path(".docker/config.json").exists(), "wrong credentials are not kept");
    let (ok, out, error) = login(&w, &r.host(), "ann", "secret");
    assert!(ok, "{error}");
    assert_eq!(out, "Login Succeeded");
    assert!(error.contains("stored unencrypted in"), "{error}");
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(w.path(".docker/config.json")).unwrap()).unwrap();
    assert_eq!(kept["auths"][r.host()]["auth"], "YW5uOnNlY3JldA==");
    w.ok(&["push", &name]);
    w.ok_in("two", &["pull", &name]);
    assert!(w.ok(&["login", &r.host()]).contains("Authenticating with existing credentials"));
    assert_eq!(
        w.ok(&["logout", &r.host()]),
        format!("Removing login credentials for {}", r.host())
    );
    assert!(w.fails(&["push", &name]).contains("log in"));
    let error = w.fails(&["pull", &name]);
    assert!(error.contains("pull access denied for"), "{error}");
    assert!(w.fails(&["login", "--password-stdin", &r.host()]).contains("Must provide --username"));
    assert!(w.fails(&["login", &r.host()]).contains("non TTY device"));
}

#[test]
fn tokens_and_identity_tokens() {
    let w = World::new();
    let asked = Asked::default();
    let port = token_server(w.path("registry"), asked.clone());
    let realm = format!("http://127.0.0.1:{port}/token");
    let setup = Setup { token_realm: Some(realm), ..Setup::default() };
    let r = Registry::start(&w.dir, &setup);
    w.image("app", &[tar_of(&[("x", b"y")]), tar_of(&[("z", b"z")])]);
    let (public, private) = (r.name("public/app:1"), r.name("private/app:1"));
    w.ok(&["tag", "app", &public]);
    w.ok(&["tag", "app", &private]);
    let error = w.fails(&["push", &public]);
    assert!(error.contains("log in to"), "nobody may push: {error}");
    let (ok, _, error) = login(&w, &r.host(), "ann", "wrong");
    assert!(!ok && error.contains("incorrect username or password"), "{error}");
    let (ok, _, error) = login(&w, &r.host(), "ann", "secret");
    assert!(ok, "{error}");
    let kept = fs::read_to_string(w.path(".docker/config.json")).unwrap();
    assert!(kept.contains("refresh-me") && !kept.contains("c2VjcmV0"), "no password: {kept}");
    w.ok(&["push", &public]);
    // The mount is asked for with a token that may read the other repository.
    let out = w.ok(&["push", &private]);
    assert!(out.contains("Mounted from public/app"), "{out}");
    assert!(
        asked
            .lock()
            .unwrap()
            .iter()
            .any(|a| a.starts_with("POST") && a.contains("refresh_token=refresh-me"))
    );
    w.ok_in("two", &["pull", &private]);
    w.ok(&["logout", &r.host()]);
    w.ok_in("three", &["pull", &public]);
    let error = w.fails(&["pull", &private]);
    assert!(error.contains("pull access denied for"), "{error}");
}

#[test]
fn a_terminal_is_asked() {
    let w = World::new();
    let setup = Setup { htpasswd: Some(("ann", "secret word")), ..Setup::default() };
    let r = Registry::start(&w.dir, &setup);
    let host = r.host();
    let config = w.path(".docker/config.json");
    let asked = |args: &[&str], name: Option<&str>, password: &str| {
        let mut screen = Screen::new(&mut w.command(args));
        if let Some(name) = name {
            screen.until("Username: ");
            assert!(screen.echoes());
            screen.types(&format!("{name}\n"));
        }
        screen.until("Password: ");
        assert!(!screen.echoes(), "a password is not shown");
        screen.types(&format!("{password}\n"));
        let code = screen.end();
        assert!(screen.echoes(), "as it was before");
        assert!(password.is_empty() || !screen.seen.contains(password), "{}", screen.seen);
        (code, screen.seen)
    };
    let (code, seen) = asked(&["login", &host], Some("ann"), "wrong");
    assert_eq!(code, 1);
    assert!(seen.contains("unauthorized"), "{seen}");
    assert!(!config.exists());
    let (code, seen) = asked(&["login", &host], Some("ann"), "");
    assert!(code == 1 && seen.contains("password is required"), "{seen}");
    let (code, seen) = asked(&["login", &host], Some("ann"), "secret word");
    assert!(code == 0 && seen.contains("Login Succeeded"), "{seen}");
    let kept = fs::read_to_string(&config).unwrap();
    assert!(kept.contains(&host), "{kept}");
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    // With the name given only the password is asked for.
    w.ok(&["logout", &host]);
    assert!(!fs::read_to_string(&config).unwrap().contains(&host));
    let (code, _) = asked(&["login", "-u", "ann", &host], None, "secret word");
    assert_eq!(code, 0);
    // What is known is tried; only when it does not do somebody is asked.
    let mut screen = Screen::new(&mut w.command(&["login", &host]));
    assert_eq!(screen.end(), 0);
    assert!(!screen.seen.contains("Password"), "{}", screen.seen);
    // Interrupted while it waits for the password: the terminal is as before.
    w.ok(&["logout", &host]);
    let mut screen = Screen::new(&mut w.command(&["login", "-u", "ann", &host]));
    screen.until("Password: ");
    screen.kill(rustix::process::Signal::INT);
    assert_ne!(screen.end(), 0);
    assert!(screen.echoes());
}

#[test]
fn a_helper_keeps_secrets() {
    let w = World::new();
    let setup = Setup { htpasswd: Some(("ann", "secret")), ..Setup::default() };
    let r = Registry::start(&w.dir, &setup);
    w.image("app", &[tar_of(&[("x", b"y")])]);
    let name = r.name("app:1");
    w.ok(&["tag", "app", &name]);
    // It keeps one secret in a file, in the JSON it gets and gives.
    let helper = w.path("docker-credential-box");
    let script = format!(
        "#!/bin/sh\nbox={}\ncase $1 in\nstore) cat >\"$box\" ;;\nget) if [ -f \"$box\" ]; then cat \"$box\"; else echo 'credentials not found in native keychain'; exit 1; fi ;;\nerase) cat >\"$box.erased\"; rm -f \"$box\" ;;\nesac\n",
        w.path("box").display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(w.path(".docker")).unwrap();
    let file = w.path(".docker/config.json");
    let config = format!(r#"{{"credHelpers": {{"{}": "box"}}, "detachKeys": "ctrl-a"}}"#, r.host());
    fs::write(&file, config).unwrap();
    let (ok, _, error) = login(&w, &r.host(), "ann", "secret");
    assert!(ok && !error.contains("unencrypted"), "{error}");
    assert!(fs::read_to_string(w.path("box")).unwrap().contains("secret"));
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.contains("detachKeys") && !kept.contains("YW5u"), "{kept}");
    w.ok(&["push", &name]);
    w.ok(&["logout", &r.host()]);
    assert!(!w.path("box").exists());
    assert_eq!(fs::read_to_string(w.path("box.erased")).unwrap(), r.host());
    // The same from a terminal, by the helper for all registries.
    fs::write(&file, r#"{"credsStore": "box"}"#).unwrap();
    let mut screen = Screen::new(&mut w.command(&["login", "-u", "ann", &r.host()]));
    screen.until("Password: ");
    screen.types("secret\n");
    assert_eq!(screen.end(), 0);
    assert!(fs::read_to_string(w.path("box")).unwrap().contains("secret"));
    assert!(!fs::read_to_string(&file).unwrap().contains("YW5u"));
    w.ok(&["push", &name]);
    fs::remove_file(w.path("box.erased")).unwrap();
    w.ok(&["logout", &r.host()]);
    assert_eq!(fs::read_to_string(w.path("box.erased")).unwrap(), r.host());
    assert!(!w.path("box").exists());
    fs::remove_file(&helper).unwrap();
    assert!(w.fails(&["push", &name]).contains("docker-credential-box: not found in PATH"));
}
