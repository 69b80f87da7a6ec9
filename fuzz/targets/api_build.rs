//! Requests of the HTTP API: builds, with their logins and contexts.
#![no_main]

mod door;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    // What would start a container waits for a process that never comes.
    let text = raw.to_ascii_lowercase();
    if ["run", "service"]
        .iter()
        .any(|word| text.windows(word.len()).any(|part| part == word.as_bytes()))
    {
        return;
    }
    door::ask_with(&["/build"], "X-Registry-Config", "application/x-tar", raw, context);
});

/// The archive itself, or a Dockerfile and a file in one.
fn context(body: &[u8]) -> Vec<u8> {
    if body.get(257..262) == Some(b"ustar") {
        return body.to_vec();
    }
    let mut archive = Vec::new();
    for (name, content) in [("Dockerfile", body), ("f", b"content")] {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
