//! What registries and people say about registries: challenges, the configuration file, lists of exceptions
//! to proxies, names of servers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::Reference;
use registry::{Config, Proxies, parse_challenges, server_key};

fuzz_target!(|raw: &[u8]| {
    let Ok(text) = std::str::from_utf8(raw) else { return };
    challenges(text);
    if let Ok(config) = Config::parse(text) {
        for name in ["debian", "a.example:5000/team/app:1", "localhost/x", "[::1]:5000/x"] {
            let reference = Reference::parse(name).unwrap();
            let Ok(endpoints) = config.endpoints(&reference) else { continue };
            // The place itself is always the last one, and what is asked for is a name again.
            assert!(endpoints.last().is_some_and(|own| !own.mirror));
            for endpoint in &endpoints {
                assert!(!endpoint.host.contains('/'), "{endpoint:?}");
            }
        }
    }
    let proxies = Proxies {
        https: Some("http://proxy:1".to_owned()),
        http: None,
        no_proxy: text.to_owned(),
    };
    assert!(proxies.of("https", "localhost", 443).is_none());
    let _ = (proxies.of("https", "a.b.example", 443), proxies.of("https", "fd00::1", 5000));
    let key = server_key(text);
    assert_eq!(server_key(&key), key, "a key is its own key");
});

/// What was read is written and read again.
fn challenges(text: &str) {
    let parsed = parse_challenges(text);
    let written: Vec<String> = parsed
        .iter()
        .map(|challenge| {
            let parameters: Vec<String> = challenge
                .parameters
                .iter()
                .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            format!("{} {}", challenge.scheme, parameters.join(", "))
        })
        .collect();
    let written = written.join(", ");
    // One that grew beyond the limit by its escapes is refused.
    if written.len() <= 16 << 10 {
        assert_eq!(parse_challenges(&written), parsed, "{written}");
    }
}
