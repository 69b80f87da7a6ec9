//! Credentials that a client sends with a request, and the registry client made of them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use oci::Reference;
use registry::{Credential, Credentials, DOCKER_HUB_KEY};
use serde::Deserialize;

use crate::answer::Failure;

/// What `X-Registry-Auth` and the body of `/auth` hold.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) auth: String,
    pub(crate) serveraddress: String,
    pub(crate) identitytoken: String,
}

fn engine(alphabet: &alphabet::Alphabet) -> GeneralPurpose {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    // Clients disagree on the alphabet and on padding.
    engine(&alphabet::URL_SAFE)
        .decode(text)
        .or_else(|_| engine(&alphabet::STANDARD).decode(text))
        .ok()
}

impl AuthConfig {
    /// Reads the header `X-Registry-Auth`.
    pub(crate) fn from_header(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let invalid =
            || Failure::invalid("invalid X-Registry-Auth header: it is no base64 of JSON");
        let bytes = decode(text).ok_or_else(invalid)?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        Ok(serde_json::from_slice::<Option<Self>>(&bytes)
            .map_err(|_| invalid())?
            .unwrap_or_default())
    }

    /// What the registry gets to see, if anything.
    pub(crate) fn credential(&self) -> Option<Credential> {
        if !self.identitytoken.is_empty() {
            return Some(Credential::Identity(self.identitytoken.clone()));
        }
        let (mut username, mut password) = (self.username.clone(), self.password.clone());
        if username.is_empty()
            && let Some(pair) = decode(&self.auth).and_then(|bytes| String::from_utf8(bytes).ok())
            && let Some((user, secret)) = pair.split_once(':')
        {
            (username, password) = (user.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
        (!username.is_empty()).then_some(Credential::Password { username, password })
    }
}

/// What a client sent, for the one registry that it meant it for.
#[derive(Debug)]
pub(crate) struct Sent {
    key: String,
    credential: Credential,
}

impl Sent {
    /// For the registry of `reference`; `None` where nothing was sent.
    pub(crate) fn to(reference: &Reference, auth: &AuthConfig) -> Option<Box<dyn Credentials>> {
        let key = match reference.domain() {
            "docker.io" => DOCKER_HUB_KEY.to_owned(),
            other => other.to_owned(),
        };
        Some(Box::new(Sent { key, credential: auth.credential()? }))
    }
}

/// What a client sent for any number of registries.
#[derive(Debug)]
pub(crate) struct SentAll(BTreeMap<String, Credential>);

impl SentAll {
    /// Reads the header `X-Registry-Config`: credentials by the registry's address.
    pub(crate) fn from_header(text: Option<&str>) -> Result<Option<Box<dyn Credentials>>, Failure> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
        let invalid =
            || Failure::invalid("invalid X-Registry-Config header: it is no base64 of JSON");
        let bytes = decode(text).ok_or_else(invalid)?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let sent: Option<BTreeMap<String, AuthConfig>> =
            serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        let known = sent
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(server, auth)| Some((registry::server_key(&server), auth.credential()?)));
        Ok(Some(Box::new(Self(known.collect()))))
    }
}

impl Credentials for SentAll {
    fn get(&self, key: &str) -> registry::Result<Option<Credential>> {
        Ok(self.0.get(key).cloned())
    }
}

impl Credentials for Sent {
    fn get(&self, key: &str) -> registry::Result<Option<Credential>> {
        Ok((key == self.key).then(|| self.credential.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_all_clients() {
        let json = r#"{"username":"u","password":"p"}"#;
        let expected = Some(Credential::Password { username: "u".into(), password: "p".into() });
        for text in [
            "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==",
            "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ",
        ] {
            let auth = AuthConfig::from_header(Some(text)).unwrap();
            assert_eq!(auth.credential(), expected, "{json}");
        }
        assert!(AuthConfig::from_header(None).unwrap().credential().is_none());
        assert!(AuthConfig::from_header(Some("e30=")).unwrap().credential().is_none());
        assert!(AuthConfig::from_header(Some("bnVsbA==")).unwrap().credential().is_none());
        assert!(AuthConfig::from_header(Some("!")).is_err());
        assert!(SentAll::from_header(Some("!")).is_err());
        assert!(SentAll::from_header(None).unwrap().is_none());
        // {"https://h:5000/v2/":{"username":"u","password":"p"}}
        let all = "eyJodHRwczovL2g6NTAwMC92Mi8iOnsidXNlcm5hbWUiOiJ1IiwicGFzc3dvcmQiOiJwIn19";
        let all = SentAll::from_header(Some(all)).unwrap().unwrap();
        assert_eq!(all.get("h:5000").unwrap(), expected);
        assert_eq!(all.get("other").unwrap(), None);
        let auth = AuthConfig { auth: "dTpwOnE=".into(), ..AuthConfig::default() };
        let pair = Credential::Password { username: "u".into(), password: "p:q".into() };
        assert_eq!(auth.credential(), Some(pair));
    }
}
