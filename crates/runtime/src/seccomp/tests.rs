//! The compiler against the meaning of profiles: an interpreter of classic BPF runs the program.

use proptest::prelude::*;

use super::profile::{ArchMap, Conditions, Rule};
use super::*;

/// The kernel's `seccomp_data`.
#[derive(Clone, Copy, Debug)]
struct Data {
    number: u32,
    audit: u32,
    args: [u64; 6],
}

fn run(program: &[Instruction], data: Data) -> u32 {
    let mut bytes = Vec::new();
    bytes.extend(data.number.to_le_bytes());
    bytes.extend(data.audit.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    for arg in data.args {
        bytes.extend(arg.to_le_bytes());
    }
    let (mut at, mut a) = (0, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let mut jump = |condition: bool| at += usize::from(if condition { i.jt } else { i.jf });
        match i.code {
            0x20 => {
                let k = i.k as usize;
                assert_eq!(k % 4, 0);
                a = u32::from_le_bytes(bytes[k..k + 4].try_into().unwrap());
            }
            0x54 => a &= i.k,
            0x15 => jump(a == i.k),
            0x25 => jump(a > i.k),
            0x35 => jump(a >= i.k),
            0x05 => at += i.k as usize,
            0x06 => return i.k,
            other => panic!("unexpected instruction {other:x}"),
        }
    }
}

/// What a profile means, said without compiling.
fn meaning(profile: &Profile, caps: Set, abis: &[Abi], data: Data) -> u32 {
    let abi = match data.audit {
        AUDIT_X86_64 if data.number >= compile::X32_BIT => Abi::X32,
        AUDIT_X86_64 => Abi::X86_64,
        AUDIT_I386 => Abi::I386,
        _ => return compile::KILL,
    };
    if !abis.contains(&abi) {
        return compile::KILL;
    }
    let default = action(&profile.default_action, profile.default_errno_ret, "").unwrap();
    let rules: Vec<&Rule> = profile
        .syscalls
        .iter()
        .filter(|rule| applies(rule, caps, Arch::X86_64, (6, 18)).unwrap())
        .collect();
    let numbers = |rule: &Rule| -> Vec<u32> {
        rule.names.iter().filter_map(|name| abi.number(name)).collect()
    };
    let highest = rules.iter().flat_map(|rule| numbers(rule)).max();
    if compile::hides_new_calls(default) && highest.is_some_and(|highest| data.number > highest) {
        return compile::ENOSYS;
    }
    let holds = |arg: &Argument| {
        let value = data.args[arg.index as usize];
        match arg.op {
            Operator::Ne => value != arg.value,
            Operator::Lt => value < arg.value,
            Operator::Le => value <= arg.value,
            Operator::Eq => value == arg.value,
            Operator::Ge => value >= arg.value,
            Operator::Gt => value > arg.value,
            Operator::MaskedEq => value & arg.value == arg.value_two,
        }
    };
    let of_call = || rules.iter().filter(|rule| numbers(rule).contains(&data.number));
    for rule in of_call() {
        let Some(args) = rule.args.as_ref().filter(|args| !args.is_empty()) else { continue };
        let mut indices: Vec<u32> = args.iter().map(|arg| arg.index).collect();
        indices.sort_unstable();
        indices.dedup();
        let fits = if indices.len() < args.len() {
            args.iter().any(holds)
        } else {
            args.iter().all(holds)
        };
        if fits {
            return action(&rule.action, rule.errno_ret, "").unwrap();
        }
    }
    for rule in of_call() {
        if rule.args.as_ref().is_none_or(Vec::is_empty) {
            return action(&rule.action, rule.errno_ret, "").unwrap();
        }
    }
    default
}

const ABIS: [Abi; 3] = [Abi::X86_64, Abi::I386, Abi::X32];

fn check(profile: &Profile, caps: Set, abis: &[Abi], data: Data) {
    let filter = compile_for(profile, caps, Arch::X86_64, (6, 18)).unwrap();
    assert_eq!(run(&filter.program, data), meaning(profile, caps, abis, data), "{data:x?}");
}

fn actions() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRAP",
    ])
    .prop_map(str::to_owned)
}

/// Few values, so that comparisons meet.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4u64,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        Just((1 << 32) + 1),
        Just(u64::MAX),
        any::<u64>()
    ]
}

fn arguments() -> impl Strategy<Value = Argument> {
    let op = prop::sample::select(vec![
        Operator::Ne,
        Operator::Lt,
        Operator::Le,
        Operator::Eq,
        Operator::Ge,
        Operator::Gt,
        Operator::MaskedEq,
    ]);
    (0..6u32, values(), values(), op).prop_map(|(index, value, value_two, op)| Argument {
        index,
        value,
        value_two,
        op,
    })
}

const NAMES: [&str; 9] =
    ["read", "write", "open", "mmap2", "clone", "socket", "mseal", "execveat", "no_such_call"];

fn rules() -> impl Strategy<Value = Rule> {
    let names = prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..4);
    let args = prop::option::of(prop::collection::vec(arguments(), 0..4));
    (names, actions(), prop::option::of(1..100u32), args).prop_map(
        |(names, action, errno_ret, args)| Rule {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            errno_ret,
            args,
            ..Rule::default()
        },
    )
}

fn data() -> impl Strategy<Value = Data> {
    let number = prop_oneof![
        (prop::sample::select(NAMES.to_vec()), 0..3usize, -1..=1i64).prop_map(
            |(name, abi, off)| {
                let number = ABIS[abi].number(name).unwrap_or(7);
                u32::try_from(i64::from(number) + off).unwrap_or(0)
            }
        ),
        any::<u32>(),
        0..600u32
    ];
    let audit = prop::sample::select(vec![AUDIT_X86_64, AUDIT_X86_64, AUDIT_I386, AUDIT_ARM]);
    (number, audit, prop::array::uniform6(values())).prop_map(|(number, audit, args)| Data {
        number,
        audit,
        args,
    })
}

fn map(sub: &[&str]) -> Vec<ArchMap> {
    vec![ArchMap {
        architecture: "SCMP_ARCH_X86_64".to_owned(),
        sub_architectures: sub.iter().map(|name| (*name).to_owned()).collect(),
    }]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn programs_mean_what_profiles_say(
        rules in prop::collection::vec(rules(), 0..8),
        default_action in actions(),
        alone in any::<bool>(),
        calls in prop::collection::vec(data(), 20),
    ) {
        let sub: &[&str] = if alone { &[] } else { &["SCMP_ARCH_X86", "SCMP_ARCH_X32"] };
        let profile = Profile {
            default_action, arch_map: map(sub), syscalls: rules, ..Profile::default()
        };
        let abis = if alone { &ABIS[..1] } else { &ABIS[..] };
        for data in calls {
            check(&profile, Set::default(), abis, data);
        }
    }

    #[test]
    fn any_text_is_a_profile_or_an_error(text in ".{0,200}") {
        let _ = Profile::from_json(text.as_bytes());
    }
}

/// Every call of every table, with and without capabilities, by the program and by the rules.
#[test]
fn default_profile_in_full() {
    for caps in [Set::default(), Set(u64::MAX), ["SYS_ADMIN"].into_iter().collect()] {
        let mut profile = default_profile();
        let filter = compile_for(&profile, caps, Arch::X86_64, (6, 18)).unwrap();
        // Decided once, for speed.
        profile.syscalls.retain(|rule| applies(rule, caps, Arch::X86_64, (6, 18)).unwrap());
        for abi in ABIS {
            let audit = if abi == Abi::I386 { AUDIT_I386 } else { AUDIT_X86_64 };
            let base = if abi == Abi::X32 { compile::X32_BIT } else { 0 };
            let special = ["socket", "personality", "clone"].map(|name| abi.number(name));
            for number in 0..560 {
                let all = [0, 1, 38, 39, 40, 8, 0x2_0000, 0xffff_ffff, 0x1000_0000, 1 << 32];
                let plain = !special.contains(&Some(base + number));
                for first in all.into_iter().take(if plain { 1 } else { 10 }) {
                    let args = [first, 0, 0, 0, 0, 0];
                    let data = Data { number: base + number, audit, args };
                    assert_eq!(
                        run(&filter.program, data),
                        meaning(&profile, caps, &ABIS, data),
                        "{data:x?}"
                    );
                }
            }
        }
    }
}

/// The published profile is data for tests; without it there is nothing to compare.
#[test]
fn default_profile_is_dockers() {
    let Some(path) = std::env::var_os("WHERRY_DOCKER_SECCOMP") else { return };
    let theirs = Profile::from_json(&std::fs::read(path).unwrap()).unwrap();
    for caps in [Set::default(), Set(u64::MAX), ["SYS_ADMIN", "BPF"].into_iter().collect()] {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let ours = compile_for(&default_profile(), caps, arch, (6, 18)).unwrap();
            let theirs = compile_for(&theirs, caps, arch, (6, 18)).unwrap();
            assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn some_outcomes_by_hand() {
    let filter = compile_for(&default_profile(), Set::default(), Arch::X86_64, (6, 18)).unwrap();
    let ask = |audit, number, first| {
        run(&filter.program, Data { number, audit, args: [first, 0, 0, 0, 0, 0] })
    };
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    assert_eq!(ask(AUDIT_X86_64, 0, 0), ALLOW, "read");
    assert_eq!(ask(AUDIT_X86_64, 165, 0), EPERM, "mount");
    assert_eq!(ask(AUDIT_X86_64, 56, 17), ALLOW, "clone as fork does");
    assert_eq!(ask(AUDIT_X86_64, 56, 0x1000_0000), EPERM, "clone with a user namespace");
    assert_eq!(ask(AUDIT_X86_64, 435, 0), compile::ENOSYS, "clone3");
    assert_eq!(ask(AUDIT_X86_64, 41, 40), EPERM, "socket(AF_VSOCK)");
    assert_eq!(ask(AUDIT_X86_64, 9999, 0), compile::ENOSYS, "not invented yet");
    assert_eq!(ask(AUDIT_I386, 21, 0), EPERM, "mount, 32 bits");
    assert_eq!(ask(AUDIT_I386, 3, 0), ALLOW, "read, 32 bits");
    assert_eq!(ask(AUDIT_X86_64, compile::X32_BIT, 0), ALLOW, "read, x32");
    assert_eq!(ask(AUDIT_AARCH64, 63, 0), compile::KILL, "another machine");
    assert!(filter.program.len() < 1000, "{}", filter.program.len());
}

#[test]
fn stored_and_read_again() {
    let filter = compile_for(&default_profile(), Set(3), Arch::X86_64, (6, 18)).unwrap();
    assert_eq!(Filter::from_bytes(&filter.to_bytes()), Some(filter.clone()));
    let json = serde_json::to_string(&filter).unwrap();
    assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter);
    assert_eq!(Filter::from_bytes(&filter.to_bytes()[..9]), None);
    assert_eq!(compile_for(&default_profile(), Set(3), Arch::X86_64, (6, 18)).unwrap(), filter);
}

#[test]
fn cache_is_used_and_survives_damage() {
    let name = format!("wherry-test-seccomp-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).unwrap();
    let json = serde_json::to_vec(&default_profile()).unwrap();
    let first = compile_cached(&directory, &json, Set(1), Arch::NATIVE).unwrap();
    let files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let other = compile_for(&default_profile(), Set(u64::MAX), Arch::NATIVE, (6, 18)).unwrap();
    std::fs::write(&files[0], other.to_bytes()).unwrap();
    assert_eq!(compile_cached(&directory, &json, Set(1), Arch::NATIVE).unwrap(), other);
    std::fs::write(&files[0], b"xx").unwrap();
    assert_eq!(compile_cached(&directory, &json, Set(1), Arch::NATIVE).unwrap(), first);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn nonsense_is_refused() {
    let bad = |profile: Profile| compile_for(&profile, Set(0), Arch::X86_64, (6, 18)).unwrap_err();
    bad(Profile { default_action: "ALLOW".to_owned(), ..Profile::default() });
    let rule = Rule {
        names: vec!["read".to_owned()],
        action: "SCMP_ACT_ALLOW".to_owned(),
        args: Some(vec![Argument { index: 6, value: 0, value_two: 0, op: Operator::Eq }]),
        ..Rule::default()
    };
    let allow = "SCMP_ACT_ALLOW".to_owned();
    bad(Profile { default_action: allow.clone(), syscalls: vec![rule], ..Profile::default() });
    let rule = Rule {
        names: vec!["read".to_owned()],
        action: allow.clone(),
        includes: Conditions { min_kernel: Some("x".to_owned()), ..Conditions::default() },
        ..Rule::default()
    };
    bad(Profile { default_action: allow, syscalls: vec![rule], ..Profile::default() });
}
