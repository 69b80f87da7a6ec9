//! The real registry, and a token server for it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::world::until;

/// A running `docker-registry`. Dropping it ends it.
pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: PathBuf,
}

/// What a registry is to have.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) tls: bool,
    pub(crate) client_certificates: bool,
    /// Names in the server's certificate, as OpenSSL wants them; this machine's if empty.
    pub(crate) names: &'static str,
    /// With `tls`: the server's certificate is its own authority.
    pub(crate) own_certificate: bool,
    pub(crate) htpasswd: Option<(&'static str, &'static str)>,
    pub(crate) token_realm: Option<String>,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn openssl(dir: &Path, args: &[&str]) {
    let out = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An authority (`ca.crt`), a server's certificate for `names` (`server.crt`, `server.key`), and a
/// client's (`client.cert`, `client.key`).
pub(crate) fn certificates(dir: &Path, names: &str) {
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let mut authority = vec!["req", "-x509", "-days", "2", "-subj", "/CN=Wherry test authority"];
    authority.extend(new);
    authority.extend(["-keyout", "ca.key", "-out", "ca.crt"]);
    openssl(dir, &authority);
    let names = if names.is_empty() { "DNS:localhost,IP:127.0.0.1" } else { names };
    fs::write(dir.join("server.ext"), format!("subjectAltName={names}\n")).unwrap();
    fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for (name, extension) in [("server", "crt"), ("client", "cert")] {
        let (key, csr) = (format!("{name}.key"), format!("{name}.csr"));
        let (out, ext) = (format!("{name}.{extension}"), format!("{name}.ext"));
        let subject = format!("/CN={name}");
        let mut request = vec!["req", "-subj", &subject];
        request.extend(new);
        request.extend(["-keyout", &key, "-out", &csr]);
        openssl(dir, &request);
        openssl(
            dir,
            &[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                &csr,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                &ext,
                "-out",
                &out,
            ],
        );
    }
}

/// A certificate that is its own authority, as people make it by one command: `ca.crt` is `server.crt`.
fn own_certificate(dir: &Path, names: &str) {
    let mut request = vec!["req", "-x509", "-days", "2", "-subj", "/CN=own"];
    request.extend(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    let names = format!("subjectAltName={names}");
    request.extend(["-addext", &names, "-keyout", "server.key", "-out", "server.crt"]);
    openssl(dir, &request);
    fs::copy(dir.join("server.crt"), dir.join("ca.crt")).unwrap();
}

impl Registry {
    /// One without anything.
    pub(crate) fn plain(dir: &Path) -> Self {
        Self::start(dir, &Setup::default())
    }

    pub(crate) fn start(dir: &Path, setup: &Setup) -> Self {
        let dir = dir.join("registry");
        fs::create_dir_all(&dir).unwrap();
        if setup.tls || setup.token_realm.is_some() {
            certificates(&dir, setup.names);
        }
        if setup.own_certificate {
            own_certificate(&dir, setup.names);
        }
        // Somebody else may take the port in between; then another one is tried.
        for _ in 0..5 {
            let port = free_port();
            let mut config = format!(
                "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {0:?}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                dir.join("storage")
            );
            if setup.tls {
                config += &format!(
                    "  tls:\n    certificate: {:?}\n    key: {:?}\n",
                    dir.join("server.crt"),
                    dir.join("server.key")
                );
                if setup.client_certificates {
                    config += &format!("    clientcas: [{:?}]\n", dir.join("ca.crt"));
                }
            }
            if let Some((name, password)) = setup.htpasswd {
                let out = Command::new("htpasswd").args(["-Bbn", name, password]).output().unwrap();
                fs::write(dir.join("htpasswd"), out.stdout).unwrap();
                config += &format!(
                    "auth:\n  htpasswd: {{realm: test, path: {:?}}}\n",
                    dir.join("htpasswd")
                );
            }
            if let Some(realm) = &setup.token_realm {
                config += &format!(
                    "auth:\n  token:\n    realm: {realm}\n    service: test-registry\n    issuer: test-issuer\n    rootcertbundle: {:?}\n",
                    dir.join("ca.crt")
                );
            }
            fs::write(dir.join("config.yml"), config).unwrap();
            let log = fs::File::create(dir.join("log")).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(dir.join("config.yml"))
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .stdin(Stdio::null())
                .spawn()
                .expect("install docker-registry: these tests need it");
            let mut ended = false;
            until("the registry", || {
                ended = child.try_wait().unwrap().is_some();
                ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            if !ended {
                return Self { child, port, dir };
            }
        }
        panic!("{}", fs::read_to_string(dir.join("log")).unwrap_or_default());
    }

    /// `localhost:PORT/name`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.port)
    }

    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Puts the authority, and perhaps the client's certificate, where the engine looks for them.
    pub(crate) fn trust(&self, certs: &Path, client: bool) {
        self.trust_as(&self.host(), certs, client);
    }

    /// The same for a name that leads here.
    pub(crate) fn trust_as(&self, host: &str, certs: &Path, client: bool) {
        let to = certs.join(host);
        fs::create_dir_all(&to).unwrap();
        fs::copy(self.dir.join("ca.crt"), to.join("ca.crt")).unwrap();
        if client {
            fs::copy(self.dir.join("client.cert"), to.join("client.cert")).unwrap();
            fs::copy(self.dir.join("client.key"), to.join("client.key")).unwrap();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a token server was asked, a line each: method, address, body.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// A server on a thread that ends with the test's process.
pub(crate) fn serve(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                while let Some(request) = Request::read(&mut reader) {
                    let bytes = answer(&request);
                    let more = bytes.starts_with(b"HTTP/1.1") && !request.closes;
                    if stream.write_all(&bytes).is_err() || !more {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// One request.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) closes: bool,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let length = find("content-length").and_then(|l| l.parse::<u64>().ok()).unwrap_or(0);
        let closes = find("connection") == Some("close");
        // One that was cut off has a shorter body.
        let mut body = Vec::new();
        let _ = reader.take(length).read_to_end(&mut body);
        let closes = closes || (body.len() as u64) < length;
        Some(Self { method, path, headers, body, closes })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// An answer with a length.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        out += &format!("{name}: {value}\r\n");
    }
    let mut out = (out + "\r\n").into_bytes();
    out.extend_from_slice(body);
    out
}

/// Gives tokens to `ann` with the password `secret`, to anybody for pulling from `public/…`, and to the bearer
/// of the identity token `refresh-me`. The keys are those of the registry in `dir`.
pub(crate) fn token_server(dir: PathBuf, asked: Asked) -> u16 {
    serve(move |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        asked.lock().unwrap().push(format!("{} {} {body}", request.method, request.path));
        let ann = format!("Basic {}", STANDARD.encode("ann:secret"));
        let known = request.header("authorization") == Some(&ann)
            || body.contains("refresh_token=refresh-me");
        if request.header("authorization").is_some() && !known {
            return answer(
                "401 Unauthorized",
                &[],
                br#"{"details":"incorrect username or password"}"#,
            );
        }
        let query = format!("{}&{body}", request.path.split_once('?').map_or("", |(_, q)| q));
        let mut access = Vec::new();
        for scope in query.split('&').filter_map(|p| p.strip_prefix("scope=")) {
            for scope in
                scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").split("%20")
            {
                let parts: Vec<&str> = scope.split(':').collect();
                let [kind, name, actions] = parts.as_slice() else { continue };
                let actions: Vec<&str> = actions
                    .split(',')
                    .filter(|a| known || *a == "pull" && name.starts_with("public/"))
                    .collect();
                access.push(serde_json::json!({"type": kind, "name": name, "actions": actions}));
            }
        }
        let token = sign(&dir, &serde_json::json!(access));
        let mut given =
            serde_json::json!({"token": token, "access_token": token, "expires_in": 300});
        if request.path.contains("offline_token=true") {
            given["refresh_token"] = "refresh-me".into();
        }
        answer("200 OK", &[("Content-Type", "application/json")], given.to_string().as_bytes())
    })
}

fn pem(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap();
    let lines: String = text.lines().filter(|l| !l.starts_with("-----")).collect();
    STANDARD.decode(lines).unwrap()
}

/// A token the registry accepts: signed with the server's key, whose certificate the authority signed.
fn sign(dir: &Path, access: &serde_json::Value) -> String {
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let random = ring::rand::SystemRandom::new();
    let key = pem(&dir.join("server.key"));
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random).unwrap();
    let chain = [STANDARD.encode(pem(&dir.join("server.crt")))];
    let header = serde_json::json!({"typ": "JWT", "alg": "ES256", "x5c": chain});
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = serde_json::json!({
        "iss": "test-issuer", "sub": "ann", "aud": "test-registry",
        "exp": now + 300, "nbf": now - 10, "iat": now, "jti": format!("{now}"), "access": access,
    });
    let part = |v: &serde_json::Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = pair.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Passes connections on to a port, and cuts as many of them as `cuts` says once so many bytes went up; its
/// port, and how many bytes went up in all.
pub(crate) fn cutting_proxy(to: u16, after: usize, cuts: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let left = Arc::new(Mutex::new(cuts));
    let total = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&total);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (left, count) = (Arc::clone(&left), Arc::clone(&count));
            std::thread::spawn(move || {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let (mut up, mut down) = (server.try_clone().unwrap(), server);
                let (mut from, mut back) = (client.try_clone().unwrap(), client);
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut down, &mut back);
                    let _ = back.shutdown(std::net::Shutdown::Both);
                });
                let mut buffer = vec![0; 16 << 10];
                let mut sent = 0;
                while let Ok(n) = from.read(&mut buffer) {
                    if n == 0 || up.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                    sent += n;
                    count.fetch_add(n, Ordering::Relaxed);
                    if sent > after {
                        let mut left = left.lock().unwrap();
                        if *left > 0 {
                            *left -= 1;
                            break;
                        }
                    }
                }
                let _ = up.shutdown(std::net::Shutdown::Both);
                let _ = from.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (port, total)
}

/// An HTTP proxy that leads every connection to one port; its port, and what it was asked for.
pub(crate) fn http_proxy(to: u16) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut from = client.try_clone().unwrap();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    if !matches!(from.read(&mut byte), Ok(1)) {
                        return;
                    }
                    head.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&head).into_owned();
                seen.lock().unwrap().push(text.lines().next().unwrap_or_default().to_owned());
                let mut server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let mut back = client;
                if text.starts_with("CONNECT ") {
                    back.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                } else {
                    server.write_all(&head).unwrap();
                }
                let mut up = server.try_clone().unwrap();
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut server, &mut back);
                    let _ = back.shutdown(std::net::Shutdown::Both);
                });
                let _ = std::io::copy(&mut from, &mut up);
                let _ = up.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (port, asked)
}
