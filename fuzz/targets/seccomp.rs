//! Seccomp profiles in Docker's form: the compiled program must be one that the kernel can load.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::capabilities::Set;
use runtime::seccomp::{Arch, Filter, Profile, compile_for};

fuzz_target!(|raw: &[u8]| {
    if let Some(filter) = Filter::from_bytes(raw) {
        assert_eq!(filter.to_bytes(), raw);
    }
    let Ok(profile) = Profile::from_json(raw) else { return };
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for caps in [Set(0), Set(u64::MAX)] {
            if let Ok(filter) = compile_for(&profile, caps, arch, (6, 1)) {
                check(&filter);
            }
        }
    }
});

/// The kernel's rules: at most 4096 instructions, no jump out of the program, a return at its end.
fn check(filter: &Filter) {
    const CLASS: u16 = 0x07;
    const JUMP: u16 = 0x05;
    const ALWAYS: u16 = 0x05;
    const RETURN: u16 = 0x06;
    let program = filter.instructions();
    assert!(program.len() <= 4096, "{} instructions", program.len());
    assert!(program.last().is_some_and(|last| last.code & CLASS == RETURN));
    for (at, item) in program.iter().enumerate() {
        if item.code & CLASS != JUMP {
            continue;
        }
        let targets = if item.code == ALWAYS {
            [item.k as usize; 2]
        } else {
            [usize::from(item.jt), usize::from(item.jf)]
        };
        assert!(targets.iter().all(|skip| at + 1 + skip < program.len()), "jump at {at}");
    }
    let stored = String::from(filter.clone());
    assert_eq!(Filter::try_from(stored).as_ref(), Ok(filter));
}
