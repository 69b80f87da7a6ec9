use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("wherry-settings-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.0.join("config.toml");
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn load(dir: &Dir, text: &str) -> Result<Settings> {
    let flags = Flags { config: Some(dir.file(text)), ..Flags::default() };
    Settings::load(&BTreeMap::new(), &flags)
}

#[test]
fn later_layers_win_and_say_so() {
    let dir = Dir::new("layers");
    let config =
        dir.file("# ours\ndata-root = \"/srv/a\"\nrun-root = \"/run/a\"\nlog-driver = \"local\"\n");
    let environment = BTreeMap::from([("WHERRY_DATA_ROOT".to_owned(), OsString::from("/srv/b"))]);
    let flags =
        Flags { config: Some(config.clone()), run_root: Some("/run/c".into()), ..Flags::default() };
    let settings = Settings::load(&environment, &flags).unwrap();
    assert_eq!(settings.data_root, Path::new("/srv/b"));
    assert_eq!(settings.origin("data-root"), &Origin::Environment("WHERRY_DATA_ROOT".into()));
    assert_eq!(settings.run_root, Path::new("/run/c"));
    assert_eq!(settings.origin("run-root"), &Origin::Flag("--run-root"));
    assert_eq!(settings.origin("log-driver"), &Origin::File { path: config, line: 4 });
    assert_eq!(settings.origin("shm-size"), &Origin::Default);
    assert_eq!(settings.show().len(), KEYS.len());
}

#[test]
fn every_key_is_read() {
    let dir = Dir::new("every");
    let settings = load(
        &dir,
        r#"
address-pools = "10.0.0.0/8:24"
bridge = "br0"
bridge-address = "10.1.0.1/24"
bridge-mtu = 9000
publish-address = "127.0.0.1"
publish-respects-input = true
cgroup-parent = "/boats"
data-root = "/srv/w"
debug = true
default-runtime = "crun"
detach-keys = "ctrl-a"
init-path = "/usr/bin/tini"
log-driver = "json-file"
log-level = "warn"
registries = "/etc/r.toml"
run-root = "/run/w"
shm-size = "128m"
storage = "directories"

[log-opts]
max-size = "1m"
max-file = 3

[runtimes]
crun = "/usr/bin/crun"
other = { path = "/opt/other", args = ["--debug"] }

[default-ulimits]
nofile = "1024:4096"
core = 0
"#,
    )
    .unwrap();
    assert_eq!(settings.shm_size, 128 << 20);
    assert_eq!(settings.storage, StorageForm::Directories);
    assert_eq!(settings.log_opts.get("max-file").map(String::as_str), Some("3"));
    assert_eq!(settings.runtimes.get("other").map(|r| r.args.len()), Some(1));
    assert_eq!(settings.default_ulimits.len(), 2);
    assert!(settings.show().iter().all(|s| s.origin != Origin::Default));
    // What is shown can be read again.
    let text: String =
        settings.show().iter().map(|s| format!("{} = {}\n", s.name, s.value)).collect();
    let again = load(&dir, &text).unwrap();
    assert_eq!(
        again.show().iter().map(|s| s.value.clone()).collect::<Vec<_>>(),
        settings.show().iter().map(|s| s.value.clone()).collect::<Vec<_>>()
    );
}

#[test]
fn mistakes_name_their_line() {
    let dir = Dir::new("mistakes");
    for (text, line, what) in [
        ("debug = true\ndata_root = \"/a\"\n", 2, "did you mean \"data-root\"?"),
        ("\n\nnonsense = 1\n", 3, "unknown key \"nonsense\""),
        ("debug = maybe\n", 1, ""),
        ("log-driver = \"syslog\"\n", 1, "\"syslog\" is none of"),
        ("shm-size = \"x\"\n", 1, "is no size"),
        ("[runtimes]\nx = 3\n", 1, "runtime \"x\""),
        ("storage = 3\n", 1, "must be a text"),
        ("debug = 3\n", 1, "true or false"),
    ] {
        let message = load(&dir, text).unwrap_err().message;
        assert!(message.contains(&format!("config.toml:{line}: ")), "{message}");
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn a_file_that_is_named_must_exist() {
    let flags = Flags { config: Some("/nonexistent/config.toml".into()), ..Flags::default() };
    let error = Settings::load(&BTreeMap::new(), &flags).unwrap_err();
    assert!(error.message.contains("/nonexistent/config.toml"), "{}", error.message);
}

#[test]
fn engines_are_kept_apart() {
    let dir = Dir::new("apart");
    let one = load(&dir, "data-root = \"/srv/one\"\n").unwrap();
    let two = load(&dir, "data-root = \"/srv/two\"\n").unwrap();
    assert_ne!(one.run_root, two.run_root);
    assert_eq!(one.origin("run-root"), &Origin::Derived("data-root"));
    let plain = load(&dir, "data-root = \"/var/lib/./x/../wherry/\"\n").unwrap();
    assert_eq!(plain.run_root, Path::new(DEFAULT_RUN_ROOT));
    assert_eq!(plain.data_root, Path::new(DEFAULT_DATA_ROOT));
    assert!(load(&dir, "data-root = \"/x\"\nrun-root = \"/x\"\n").is_err());
    assert!(load(&dir, "data-root = \"\"\n").is_err());
}

#[test]
fn sizes() {
    assert_eq!(value::size("64k"), Ok(65536));
    assert_eq!(value::size("1GiB"), Ok(1 << 30));
    assert!(value::size("9999999999t").is_err());
    assert!(value::size("-1").is_err());
    assert!(value::size("").is_err());
}
