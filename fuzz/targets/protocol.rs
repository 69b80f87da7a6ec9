//! The keeper's socket: frames in whatever pieces they arrive, and the messages in them.
#![no_main]

use keeper::protocol::{Envelope, HEAD, Kind, Message, encode, head, take_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    // As a stream of frames: all at once and by pieces must give the same.
    let whole = frames(raw, raw.len().max(1));
    assert_eq!(frames(raw, 5), whole);
    for (kind, body) in &whole {
        if *kind == Kind::Message {
            message(body);
        }
    }
    // And as the body of one frame.
    let framed = [head(Kind::Message, raw.len()).as_slice(), raw].concat();
    assert_eq!(frames(&framed, framed.len()), [(Kind::Message, raw.to_vec())]);
    message(raw);
});

fn frames(raw: &[u8], piece: usize) -> Vec<(Kind, Vec<u8>)> {
    let mut buffer = Vec::new();
    let mut out = Vec::new();
    for piece in raw.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match take_frame(&mut buffer) {
                Ok(Some(frame)) => out.push(frame),
                Ok(None) => break,
                Err(_) => return out,
            }
        }
    }
    out
}

fn message(body: &[u8]) {
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(body) {
        let frame = encode(&envelope);
        assert!(serde_json::from_slice::<Envelope>(&frame[HEAD..]).is_ok());
    }
    if let Ok(message) = serde_json::from_slice::<Message>(body) {
        let frame = encode(&message);
        assert_eq!(serde_json::from_slice::<Message>(&frame[HEAD..]).ok(), Some(message));
    }
}
