//! The client: how registries are reached, and as whom.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use oci::Reference;
use ureq::Agent;

use crate::challenge::{Challenge, parse_challenges};
use crate::config::{Config, Endpoint};
use crate::http::{self, Answer, Ask, Payload};
use crate::repository::{Access, Repository};
use crate::token::{self, Token};
use crate::{Credential, Credentials, Error, Fixed, Proxies, Result, Roots};

/// Longest time a registry can make us wait with `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Everything the client is told.
#[derive(Debug)]
pub struct Options {
    /// Mirrors, rewrites, limits.
    pub config: Config,
    /// Who asks.
    pub credentials: Box<dyn Credentials>,
    /// Proxies.
    pub proxies: Proxies,
    /// Whom to trust.
    pub roots: Roots,
    /// Name and version of the program.
    pub user_agent: String,
    /// Every registry may be reached insecurely.
    pub insecure: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            config: Config::default(),
            credentials: Box::new(Fixed(None)),
            proxies: Proxies::default(),
            roots: Roots::default(),
            user_agent: "wherry".to_owned(),
            insecure: false,
        }
    }
}

/// How a login went.
#[derive(Debug)]
pub struct Login {
    /// What to keep: an identity token where the registry gives one, else the password.
    pub keep: Credential,
}

/// What is known of a file that [`Client::download`] has fetched.
#[derive(Debug, Clone, Copy)]
pub struct Download {
    /// When it was changed last, seconds since 1970, if the server says so.
    pub modified: Option<i64>,
}

/// What a registry answered to the first question.
#[derive(Clone)]
struct Greeting {
    base: String,
    challenges: Vec<Challenge>,
}

/// Talks to registries. Shared between threads.
pub struct Client {
    options: Options,
    agents: Mutex<HashMap<(String, bool, bool), Agent>>,
    greetings: Mutex<HashMap<String, Greeting>>,
    tokens: Mutex<HashMap<String, Token>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

impl Client {
    /// A client. Nothing is read or sent yet.
    pub fn new(options: Options) -> Client {
        Client {
            options,
            agents: Mutex::default(),
            greetings: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// What it was told.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A repository, to read from or to write to.
    ///
    /// # Errors
    /// [`Error::Blocked`].
    pub fn repository(&self, reference: &Reference, access: Access) -> Result<Repository<'_>> {
        let mut endpoints = self.options.config.endpoints(reference)?;
        if access == Access::Push {
            // Mirrors are read only.
            endpoints = endpoints.pop().into_iter().collect();
        }
        for endpoint in &mut endpoints {
            endpoint.insecure |= self.options.insecure;
        }
        Ok(Repository::new(self, reference.clone(), endpoints, access))
    }

    /// Fetches any address: redirects are followed, nobody logs in. What comes is written as it comes.
    ///
    /// # Errors
    /// Those of the connection; [`Error::NotFound`] and its like; [`Error::Io`] for `out`'s.
    pub fn download(&self, url: &str, out: &mut dyn std::io::Write) -> Result<Download> {
        let ask = Ask { method: "GET", url, headers: &[], insecure: self.options.insecure };
        let mut answer = self.exchange(ask, None, &mut Payload::None)?;
        if answer.status != 200 {
            return Err(answer.fail(url));
        }
        let time = answer.header("last-modified").and_then(|text| {
            Some(jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp().as_second())
        });
        let copied = std::io::copy(&mut answer.body.as_reader(), out);
        copied.map_err(|source| Error::io(url, source))?;
        Ok(Download { modified: time })
    }

    fn agent(&self, host: &str, https: bool, insecure: bool) -> Result<Agent> {
        let key = (host.to_owned(), https, insecure);
        if let Some(agent) = lock(&self.agents).get(&key) {
            return Ok(agent.clone());
        }
        let Options { config, roots, proxies, user_agent, .. } = &self.options;
        let agent = http::agent(config, roots, proxies, user_agent, host, https, insecure)?;
        Ok(lock(&self.agents).entry(key).or_insert(agent).clone())
    }

    /// One request, redirects followed, without a retry.
    pub(crate) fn exchange(
        &self,
        ask: Ask<'_>,
        authorization: Option<&str>,
        payload: &mut Payload<'_>,
    ) -> Result<Answer> {
        let agent_of = |host: &str, https| self.agent(host, https, ask.insecure);
        http::follow(&agent_of, ask, authorization, payload).map_err(|e| self.advise(e))
    }

    /// Says what to do about a certificate, where that is known.
    fn advise(&self, error: Error) -> Error {
        match error {
            Error::Connection { method, url, reason, transient } => {
                let directory = self.options.config.certificates.first();
                let host = url.split('/').nth(2).unwrap_or_default();
                let advice = reason.strip_prefix(http::TLS).and_then(|tls| {
                    crate::tls::advice(tls, &directory?.join(host).display().to_string())
                });
                let reason = match advice {
                    Some(advice) => format!("{reason}: {advice}"),
                    None => reason,
                };
                Error::Connection { method, url, reason, transient }
            }
            other => other,
        }
    }

    /// Waits before another try; false if there have been enough.
    pub(crate) fn wait_before_retry(&self, tries: u32, error: &Error) -> bool {
        if !error.is_transient() || tries >= self.options.config.retries {
            return false;
        }
        let delay = self.options.config.retry_delay.saturating_mul(1 << tries.min(8));
        let asked = match error {
            Error::Status { retry_after: Some(seconds), .. } => Duration::from_secs(*seconds),
            _ => Duration::ZERO,
        };
        std::thread::sleep(delay.max(asked).min(LONGEST_WAIT));
        true
    }

    /// Tries again what failed for a reason that may pass.
    pub(crate) fn retrying<T>(&self, mut f: impl FnMut() -> Result<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            match f() {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if !self.wait_before_retry(tries, &error) {
                        return Err(error);
                    }
                    tries += 1;
                }
            }
        }
    }

    /// Finds out, once, by which scheme a registry is reached and what it wants to be asked with.
    fn greet(&self, endpoint: &Endpoint) -> Result<Greeting> {
        let key = format!("{:?} {} {}", endpoint.https, endpoint.insecure, endpoint.host);
        if let Some(greeting) = lock(&self.greetings).get(&key) {
            return Ok(greeting.clone());
        }
        let schemes: &[&str] = match endpoint.https {
            Some(true) => &["https"],
            Some(false) => &["http"],
            None if endpoint.insecure => &["https", "http"],
            None => &["https"],
        };
        let mut failed = None;
        for scheme in schemes {
            let base = format!("{scheme}://{}", endpoint.host);
            let url = format!("{base}/v2/");
            let last = schemes.last() == Some(scheme);
            let ask = Ask { method: "GET", url: &url, headers: &[], insecure: endpoint.insecure };
            let once = || {
                let answer = self.exchange(ask, None, &mut Payload::None)?;
                match answer.status {
                    408 | 425 | 429 | 500 | 502..=504 => Err(answer.fail("the registry")),
                    _ => Ok(answer),
                }
            };
            // Where plain HTTP is still to be tried, TLS gets one try.
            match if last { self.retrying(once) } else { once() } {
                Ok(answer) => {
                    // A server that speaks no TLS may answer something all the same; one that
                    // speaks TLS may say 400 to plain HTTP.
                    let challenges =
                        if answer.status == 401 { challenges(&answer) } else { vec![] };
                    let greeting = Greeting { base, challenges };
                    lock(&self.greetings).insert(key, greeting.clone());
                    return Ok(greeting);
                }
                // It speaks TLS and has refused ours.
                Err(Error::Connection { reason, method, url, transient })
                    if reason.contains(crate::tls::ALERT) =>
                {
                    return Err(Error::Connection { reason, method, url, transient });
                }
                Err(error @ Error::Connection { .. }) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::protocol(&*endpoint.host, "it has no scheme")))
    }

    /// The header that answers a challenge; None if there is nothing to answer with.
    fn authorization(
        &self,
        endpoint: &Endpoint,
        greeting: &Greeting,
        challenges: &[Challenge],
        scopes: &[String],
        again: bool,
    ) -> Result<Option<String>> {
        let find = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        if let Some(challenge) = find("bearer") {
            let key = format!(
                "{}|{:?}|{:?}|{}",
                greeting.base,
                challenge.parameter("realm"),
                challenge.parameter("service"),
                scopes.join(" ")
            );
            if !again
                && let Some(token) = lock(&self.tokens).get(&key)
                && token.until > Instant::now()
            {
                return Ok(Some(format!("Bearer {}", token.text)));
            }
            let credential = self.options.credentials.get(&endpoint.key)?;
            let fetched = self.retrying(|| {
                token::fetch(
                    self,
                    challenge,
                    scopes,
                    credential.as_ref(),
                    &greeting.base,
                    endpoint.insecure,
                    false,
                )
            })?;
            let header = format!("Bearer {}", fetched.text);
            lock(&self.tokens).insert(key, fetched);
            return Ok(Some(header));
        }
        if find("basic").is_some() {
            return match self.options.credentials.get(&endpoint.key)? {
                Some(Credential::Password { username, password }) => {
                    Ok(Some(token::basic(&username, &password)))
                }
                _ => Err(Error::Unauthorized {
                    method: "GET",
                    url: format!("{}/v2/", greeting.base),
                    message: "no basic auth credentials".to_owned(),
                }),
            };
        }
        Ok(None)
    }

    /// A request to a registry, with its authorization. `path` is below `/v2/`, or a whole address that the
    /// registry gave. Statuses are left to the caller.
    pub(crate) fn call(
        &self,
        endpoint: &Endpoint,
        method: &'static str,
        path: &str,
        headers: &[(&str, String)],
        payload: &mut Payload<'_>,
        scopes: &[String],
    ) -> Result<Answer> {
        let greeting = self.greet(endpoint)?;
        let url = if path.starts_with("http://") || path.starts_with("https://") {
            path.to_owned()
        } else {
            format!("{}/v2/{path}", greeting.base)
        };
        // Upload addresses may lead elsewhere, where our credentials are nobody's business.
        let ours =
            http::origin(&url).is_some() && http::origin(&url) == http::origin(&greeting.base);
        let ask = Ask { method, url: &url, headers, insecure: endpoint.insecure };
        let mut challenges = greeting.challenges.clone();
        let mut scopes = scopes.to_vec();
        let mut again = false;
        loop {
            let authorization = if ours {
                self.authorization(endpoint, &greeting, &challenges, &scopes, again)?
            } else {
                None
            };
            let answer = self.exchange(ask, authorization.as_deref(), payload)?;
            let streams = matches!(payload, Payload::Stream(..));
            if answer.status != 401 || again || !ours || streams {
                return Ok(answer);
            }
            // The token was revoked, or this request wants more than the first one.
            let wanted = crate::client::challenges(&answer);
            if wanted.is_empty() {
                return Ok(answer);
            }
            for scope in wanted.iter().filter_map(|c| c.parameter("scope")) {
                for scope in scope.split(' ').filter(|s| !s.is_empty()) {
                    if !scopes.iter().any(|s| covers(s, scope)) {
                        scopes.push(scope.to_owned());
                    }
                }
            }
            challenges = wanted;
            again = true;
        }
    }

    /// [`Client::call`] with retries, for what can be sent again.
    pub(crate) fn call_again(
        &self,
        endpoint: &Endpoint,
        method: &'static str,
        path: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
        scopes: &[String],
    ) -> Result<Answer> {
        self.retrying(|| {
            let mut payload = body.map_or(Payload::None, Payload::Bytes);
            let answer = self.call(endpoint, method, path, headers, &mut payload, scopes)?;
            match answer.status {
                408 | 425 | 429 | 500 | 502..=504 => Err(answer.fail(path)),
                _ => Ok(answer),
            }
        })
    }

    /// Checks credentials against a registry, given by host and port or as people write it.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] and whatever keeps the registry from being asked.
    pub fn login(&self, server: &str, credential: &Credential) -> Result<Login> {
        let key = crate::server_key(server);
        let domain = if key == crate::DOCKER_HUB_KEY { "docker.io" } else { &key };
        let reference = Reference::parse(&format!("{domain}/x"))?;
        let Some(mut endpoint) = self.options.config.endpoints(&reference)?.pop() else {
            return Err(Error::Blocked(server.to_owned()));
        };
        endpoint.insecure |= self.options.insecure;
        if let Some((scheme @ ("http" | "https"), _)) = server.split_once("://")
            && endpoint.https.is_none()
            && endpoint.insecure
        {
            endpoint.https = Some(scheme == "https");
        }
        let greeting = self.greet(&endpoint)?;
        let find = |scheme: &str| greeting.challenges.iter().find(|c| c.scheme == scheme);
        let mut keep = credential.clone();
        let authorization = if let Some(challenge) = find("bearer") {
            let fetched = self.retrying(|| {
                let (base, insecure) = (&greeting.base, endpoint.insecure);
                token::fetch(self, challenge, &[], Some(credential), base, insecure, true)
            })?;
            if let Some(refresh) = fetched.refresh.filter(|token| !token.is_empty()) {
                keep = Credential::Identity(refresh);
            }
            format!("Bearer {}", fetched.text)
        } else if let Credential::Password { username, password } = credential {
            token::basic(username, password)
        } else {
            return Ok(Login { keep });
        };
        let url = format!("{}/v2/", greeting.base);
        let ask = Ask { method: "GET", url: &url, headers: &[], insecure: endpoint.insecure };
        let answer =
            self.retrying(|| self.exchange(ask, Some(&authorization), &mut Payload::None))?;
        match answer.status {
            200..=299 | 404 => Ok(Login { keep }),
            _ => Err(answer.fail("the registry")),
        }
    }
}

/// The challenges of an answer.
fn challenges(answer: &Answer) -> Vec<Challenge> {
    answer
        .headers
        .get_all("www-authenticate")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse_challenges)
        .collect()
}

/// Whether a token for `have` does for `want`: `repository:a:pull,push` covers `repository:a:pull`.
fn covers(have: &str, want: &str) -> bool {
    let split = |scope: &str| {
        let (name, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        (name.to_owned(), actions.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let ((have_name, have_actions), (want_name, want_actions)) = (split(have), split(want));
    have_name == want_name && want_actions.iter().all(|action| have_actions.contains(action))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn scopes() {
        assert!(covers("repository:a/b:pull,push", "repository:a/b:pull"));
        assert!(!covers("repository:a/b:pull", "repository:a/b:pull,push"));
        assert!(!covers("repository:a:pull", "repository:b:pull"));
    }
}
