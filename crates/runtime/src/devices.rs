//! Rules of device access: lists on version 1, a compiled program on version 2.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

fn access(rule: &LinuxDeviceCgroup) -> u32 {
    let text = rule.access().as_deref().unwrap_or("");
    let bits = text.chars().fold(0, |bits, letter| {
        bits | match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => 0,
        }
    });
    // Without letters all are meant.
    if bits == 0 { MKNOD | READ | WRITE } else { bits }
}

/// The number a rule names; `None` is any.
fn number(value: Option<i64>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

/// Whether a rule is about all devices and all access.
fn total(rule: &LinuxDeviceCgroup) -> bool {
    matches!(rule.typ(), None | Some(LinuxDeviceType::A))
        && number(rule.major()).is_none()
        && number(rule.minor()).is_none()
        && access(rule) == MKNOD | READ | WRITE
}

/// The rules with those added that every container has: any node may be made, and the default
/// devices and terminals used.
pub fn with_defaults(rules: &[LinuxDeviceCgroup]) -> Vec<LinuxDeviceCgroup> {
    let mut result = rules.to_vec();
    let mut allow =
        |kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str| {
            let mut rule = LinuxDeviceCgroup::default();
            rule.set_allow(true)
                .set_typ(Some(kind))
                .set_major(major)
                .set_minor(minor)
                .set_access(Some(access.to_owned()));
            result.push(rule);
        };
    allow(LinuxDeviceType::C, None, None, "m");
    allow(LinuxDeviceType::B, None, None, "m");
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        allow(LinuxDeviceType::C, Some(major), Some(minor), "rwm");
    }
    allow(LinuxDeviceType::C, Some(136), None, "rwm");
    result
}

/// Writes the rules to `devices.allow` and `devices.deny`.
pub(crate) fn apply_v1(
    rules: &[LinuxDeviceCgroup],
    write: impl Fn(&str, &str) -> Result<()>,
) -> Result<()> {
    // What comes before the last rule about everything has no effect.
    let start = rules.iter().rposition(total).unwrap_or(0);
    for rule in rules.get(start..).unwrap_or_default() {
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        if total(rule) {
            write(file, "a")?;
            continue;
        }
        let text = |value: Option<i64>| {
            number(value).map_or_else(|| "*".to_owned(), |value| value.to_string())
        };
        let mut letters = String::new();
        for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')] {
            if access(rule) & bit != 0 {
                letters.push(letter);
            }
        }
        let kinds: &[char] = match rule.typ() {
            Some(LinuxDeviceType::B) => &['b'],
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => &['c'],
            Some(LinuxDeviceType::P) => {
                return Err(Error::spec("linux.resources.devices", "a FIFO needs no rule"));
            }
            _ => &['b', 'c'],
        };
        for kind in kinds {
            let value = format!("{kind} {}:{} {letters}", text(rule.major()), text(rule.minor()));
            write(file, &value)?;
        }
    }
    Ok(())
}

/// Parts of an eBPF instruction.
mod bpf {
    pub(super) const LOAD_WORD: u8 = 0x61;
    pub(super) const AND_IMM: u8 = 0x57;
    pub(super) const RSH_IMM: u8 = 0x77;
    pub(super) const MOV_REG: u8 = 0xbf;
    pub(super) const MOV_IMM: u8 = 0xb7;
    pub(super) const JNE_IMM: u8 = 0x55;
    pub(super) const JNE_REG: u8 = 0x5d;
    pub(super) const EXIT: u8 = 0x95;

    pub(super) fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
        let bytes = [code, (src << 4) | dst];
        u64::from(u16::from_le_bytes(bytes))
            | (u64::from(off as u16) << 16)
            | (u64::from(imm as u32) << 32)
    }
}

/// Compiles the rules to a program for cgroup version 2: the last rule that fits decides; when none
/// fits, access is denied.
///
/// The kernel gives `access_type` (low half: 1 block, 2 character; high half: access bits), major
/// and minor; the program answers 1 to allow.
pub fn compile_v2(rules: &[LinuxDeviceCgroup]) -> Vec<u64> {
    use bpf::{AND_IMM, EXIT, JNE_IMM, JNE_REG, LOAD_WORD, MOV_IMM, MOV_REG, RSH_IMM, op};
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0), // r2 = access_type
        op(MOV_REG, 3, 2, 0, 0),   // r3 = access bits
        op(RSH_IMM, 3, 0, 0, 16),
        op(AND_IMM, 2, 0, 0, 0xffff), // r2 = kind
        op(LOAD_WORD, 4, 1, 4, 0),    // r4 = major
        op(LOAD_WORD, 5, 1, 8, 0),    // r5 = minor
    ];
    for rule in rules.iter().rev() {
        let kind = match rule.typ() {
            Some(LinuxDeviceType::B) => Some(1),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(2),
            Some(LinuxDeviceType::P) => continue,
            _ => None,
        };
        // Each test jumps over the rest of this rule; the distance is known once it is built.
        let mut tests: Vec<(u8, u8, u8, i32)> = Vec::new();
        if let Some(kind) = kind {
            tests.push((JNE_IMM, 2, 0, kind));
        }
        let bits = access(rule);
        let some = bits != MKNOD | READ | WRITE;
        if let Some(major) = number(rule.major()) {
            tests.push((JNE_IMM, 4, 0, major as i32));
        }
        if let Some(minor) = number(rule.minor()) {
            tests.push((JNE_IMM, 5, 0, minor as i32));
        }
        let answer = i32::from(rule.allow());
        let length = tests.len() + if some { 3 } else { 0 } + 2;
        let mut left = length;
        let mut body = Vec::with_capacity(length);
        for (code, dst, src, imm) in tests {
            left -= 1;
            body.push(op(code, dst, src, left as i16, imm));
        }
        if some {
            // An allowing rule must cover all that is asked; a denying one applies when it covers
            // any of it.
            body.push(op(MOV_REG, 1, 3, 0, 0));
            body.push(op(AND_IMM, 1, 0, 0, bits as i32));
            left -= 3;
            if rule.allow() {
                body.push(op(JNE_REG, 1, 3, left as i16, 0));
            } else {
                const JEQ_IMM: u8 = 0x15;
                body.push(op(JEQ_IMM, 1, 0, left as i16, 0));
            }
        }
        body.push(op(MOV_IMM, 0, 0, 0, answer));
        body.push(op(EXIT, 0, 0, 0, 0));
        program.extend(body);
        if total(rule) {
            // Nothing behind can be reached, and the kernel refuses dead code.
            return program;
        }
    }
    program.push(op(MOV_IMM, 0, 0, 0, 0));
    program.push(op(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a compiled program on (kind, access, major, minor).
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut r = [0u64; 11];
        let mut at = 0usize;
        loop {
            let i = program[at];
            at += 1;
            let (code, regs) = ((i & 0xff) as u8, (i >> 8) as u8);
            let (dst, src) = ((regs & 15) as usize, (regs >> 4) as usize);
            let (off, imm) = ((i >> 16) as u16 as i16, (i >> 32) as u32 as i32 as i64 as u64);
            let mut jump = |condition: bool| {
                if condition {
                    at += off as usize;
                }
            };
            match code {
                0x61 => r[dst] = u64::from(context[off as usize / 4]),
                0x57 => r[dst] &= imm,
                0x77 => r[dst] >>= imm,
                0xbf => r[dst] = r[src],
                0xb7 => r[dst] = imm,
                0x55 => jump(r[dst] != imm),
                0x5d => jump(r[dst] != r[src]),
                0x15 => jump(r[dst] == imm),
                0x95 => return r[0] == 1,
                other => panic!("unexpected instruction {other:x}"),
            }
        }
    }

    fn rules() -> impl Strategy<Value = LinuxDeviceCgroup> {
        let kind = prop::option::of(prop::sample::select(vec![
            LinuxDeviceType::A,
            LinuxDeviceType::B,
            LinuxDeviceType::C,
        ]));
        let number = || prop::option::of(-1..3i64);
        let access = prop::option::of(prop::sample::select(vec!["r", "w", "m", "rw", "rwm"]));
        (any::<bool>(), kind, number(), number(), access).prop_map(
            |(allow, kind, major, minor, access)| {
                let mut rule = LinuxDeviceCgroup::default();
                rule.set_allow(allow)
                    .set_typ(kind)
                    .set_major(major)
                    .set_minor(minor)
                    .set_access(access.map(str::to_owned));
                rule
            },
        )
    }

    proptest! {
        #[test]
        fn programs_mean_what_rules_say(rules in prop::collection::vec(rules(), 0..8)) {
            let program = compile_v2(&rules);
            for kind in [1, 2] {
                for asked in 1..8 {
                    for (major, minor) in [(0, 0), (1, 2), (2, 1), (7, 7)] {
                        let fits = |rule: &&LinuxDeviceCgroup| {
                            let right_kind = match rule.typ() {
                                Some(LinuxDeviceType::B) => kind == 1,
                                Some(LinuxDeviceType::C) => kind == 2,
                                _ => true,
                            };
                            let right = |wanted: Option<i64>, is: u32| {
                                wanted.is_none_or(|wanted| wanted < 0 || wanted == i64::from(is))
                            };
                            let bits = access(rule);
                            right_kind
                                && right(rule.major(), major)
                                && right(rule.minor(), minor)
                                && if rule.allow() { bits & asked == asked } else { bits & asked != 0 }
                        };
                        let expected = rules.iter().rev().find(fits).is_some_and(|rule| rule.allow());
                        prop_assert_eq!(run(&program, kind, asked, major, minor), expected);
                    }
                }
            }
        }
    }

    /// The kernel's verifier accepts the program, where the test may load one.
    #[test]
    fn the_kernel_accepts_it() {
        let deny: LinuxDeviceCgroup =
            serde_json::from_str(r#"{"allow": false, "access": "rwm"}"#).unwrap();
        let program = compile_v2(&with_defaults(&[deny]));
        match sys::bpf::load_device_program(&program) {
            Ok(_) | Err(sys::Errno::PERM | sys::Errno::NOSYS) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}
