//! The kernel's answers: cut into messages and attributes, read as interfaces, addresses, routes,
//! elements of nftables' sets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::link::{read_address, read_link, read_route};
use net::netlink::{HEADER, attributes, replies};

fuzz_target!(|raw: &[u8]| {
    let mut total = 0;
    for reply in replies(raw) {
        total += HEADER + reply.body.len();
        body(reply.body);
    }
    // No byte is read twice.
    assert!(total <= raw.len());
    body(raw);
});

fn body(body: &[u8]) {
    let read: usize = attributes(body).map(|(_, value)| value.len() + 4).sum();
    assert!(read <= body.len());
    if let Some(link) = read_link(body) {
        assert!(!link.name.is_empty());
    }
    if let Some((_, prefix)) = read_address(body) {
        assert!(prefix.contains(prefix.address) && prefix.contains(prefix.last()));
    }
    if let Some(prefix) = read_route(body) {
        assert_eq!(prefix, prefix.network());
    }
    _ = net::filter::count_elements(body);
    if let Ok(text) = std::str::from_utf8(body) {
        _ = net::name::read_alias(text);
        if let Ok(prefix) = text.parse::<net::link::Prefix>() {
            assert_eq!(prefix.to_string().parse::<net::link::Prefix>().ok(), Some(prefix));
        }
    }
}
