//! The Dockerfile instructions of `--change`, one a line, applied one after the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::config::ContainerConfig;
use oci::instruction;

fuzz_target!(|text: &str| {
    let mut config = ContainerConfig::default();
    for line in text.lines() {
        let _ = instruction::apply(&mut config, line);
        if let Ok(nanoseconds) = instruction::duration(line) {
            assert!(nanoseconds >= 0, "{line:?}");
        }
    }
    assert!(config.working_dir.is_empty() || config.working_dir.starts_with('/'));
    assert!(!config.working_dir.split('/').any(|part| part == ".."));
});
