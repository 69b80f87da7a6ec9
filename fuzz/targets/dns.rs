//! The name server's messages: questions of anybody, answers of upstream servers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use net::dns::message::{
    Code, Query, Record, read_addresses, read_answer, read_names, reverse_address, reverse_name,
    truncate,
};

fuzz_target!(|raw: &[u8]| {
    _ = read_addresses(raw);
    _ = read_names(raw);
    assert!(truncate(raw).len() <= raw.len().max(12));
    let Ok(query) = Query::read(raw) else { return };
    if let Some(address) = reverse_address(&query.name) {
        assert_eq!(reverse_address(&reverse_name(address)), Some(address));
    }
    // What was read is written and means the same.
    let written = query.write().expect("a name that was read can be written");
    let again = Query::read(&written).expect("what was written can be read");
    assert_eq!(
        (&again.name, again.id, again.kind, again.class, again.opcode, again.recursion),
        (&query.name, query.id, query.kind, query.class, query.opcode, query.recursion)
    );
    assert_eq!(again.udp_size, query.udp_size);
    // An answer to it is one, and never larger than it may be.
    let records: Vec<_> = (0..40u8)
        .map(|n| Record::Address(std::net::Ipv4Addr::new(10, 0, 0, n).into()))
        .chain([Record::Name(query.name.clone())])
        .collect();
    let limit = query.udp_limit();
    let answer = query.answer(raw, Code::Ok, &records, 5, limit);
    assert!(answer.len() <= limit);
    let head = read_answer(&answer, query.id, &query).expect("our answer answers the question");
    assert!(head.truncated || read_addresses(&answer).is_some_and(|all| all.len() == 40));
    // Somebody else's answer is not ours.
    assert!(read_answer(raw, query.id, &query).is_none());
});
