//! Tokens: what a registry's challenge sends us to fetch.
//!
//! Distribution's "Token Authentication Specification" (GET) and "OAuth2 Token Authentication" (POST,
//! for identity tokens).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::http::{Answer, Ask, Payload};
use crate::{Challenge, Client, Credential, Error, Result};

/// Largest answer of a token server, in bytes.
const MOST: u64 = 1 << 20;
/// How long a token without a lifetime lives.
const DEFAULT_LIFE: u64 = 60;
/// By what name token servers know us.
const CLIENT_ID: &str = "docker";

/// A token and how long it may be used.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) until: Instant,
    /// An identity token, if one was asked for and given.
    pub(crate) refresh: Option<String>,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// Percent-encoding of a value in a query or a form.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// The header for a name and a password.
pub(crate) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// Fetches a token. `offline` asks for an identity token, too.
pub(crate) fn fetch(
    client: &Client,
    challenge: &Challenge,
    scopes: &[String],
    credential: Option<&Credential>,
    registry: &str,
    insecure: bool,
    offline: bool,
) -> Result<Token> {
    let realm = challenge
        .parameter("realm")
        .filter(|realm| realm.starts_with("https://") || realm.starts_with("http://"))
        .ok_or_else(|| Error::protocol(registry, "its challenge names no token server"))?;
    // A registry that is reached safely must not make us send secrets in the clear.
    if credential.is_some()
        && realm.starts_with("http://")
        && registry.starts_with("https://")
        && !insecure
    {
        return Err(Error::protocol(
            registry,
            format!("its token server {realm} is not encrypted; credentials are not sent there"),
        ));
    }
    let service = challenge.parameter("service").unwrap_or_default();
    let scope = scopes.join(" ");
    let answer = match credential {
        Some(Credential::Identity(token)) => {
            let body = form(&[
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", CLIENT_ID),
                ("scope", &scope),
                ("refresh_token", token),
            ]);
            let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
            let ask = Ask { method: "POST", url: realm, headers: &headers, insecure };
            client.exchange(ask, None, &mut Payload::Bytes(body.as_bytes()))?
        }
        other => {
            let mut pairs: Vec<(&str, &str)> = Vec::new();
            if let Some(Credential::Password { username, .. }) = other {
                pairs.push(("account", username));
            }
            if offline {
                pairs.push(("client_id", CLIENT_ID));
                pairs.push(("offline_token", "true"));
            }
            if !service.is_empty() {
                pairs.push(("service", service));
            }
            pairs.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            let joint = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{joint}{}", form(&pairs));
            let authorization = match other {
                Some(Credential::Password { username, password }) => {
                    Some(basic(username, password))
                }
                _ => None,
            };
            let ask = Ask { method: "GET", url: &url, headers: &[], insecure };
            client.exchange(ask, authorization.as_deref(), &mut Payload::None)?
        }
    };
    read(answer)
}

fn read(answer: Answer) -> Result<Token> {
    if answer.status != 200 {
        return Err(answer.fail("the token"));
    }
    let url = answer.url.split('?').next().unwrap_or_default().to_owned();
    let raw = answer.bytes(MOST)?;
    let given: Given = serde_json::from_slice(&raw)
        .map_err(|e| Error::protocol(&*url, format!("no token: {e}")))?;
    let text = given.token.filter(|t| !t.is_empty()).or(given.access_token);
    let text = text.filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()));
    let Some(text) = text else { return Err(Error::protocol(url, "it holds no token")) };
    let life = given.expires_in.unwrap_or(DEFAULT_LIFE).clamp(DEFAULT_LIFE, 86_400);
    // Not used up to the last second: clocks and requests take their time.
    let until = Instant::now() + Duration::from_secs(life - life / 10);
    Ok(Token { text, until, refresh: given.refresh_token })
}
