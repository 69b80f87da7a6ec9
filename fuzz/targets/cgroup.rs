//! Cgroups: the host's mountinfo, lists of processors, and `linux.cgroupsPath`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::cgroup::{CgroupRoot, parse_cpu_list, path_from_spec};

fuzz_target!(|text: &str| {
    let root = CgroupRoot::parse(text);
    let _ = (root.mode(), root.hierarchy("memory"), root.mount_points().count());
    for line in text.lines() {
        if let Some(list) = parse_cpu_list(line) {
            assert!(list.len() <= 65_537, "{} processors", list.len());
        }
        for systemd in [false, true] {
            let path = path_from_spec(Some(line), systemd, "/default");
            assert!(!path.starts_with('/'), "{path:?}");
            assert!(!path.split('/').any(|part| part == ".." || part == "."), "{path:?}");
        }
    }
});
