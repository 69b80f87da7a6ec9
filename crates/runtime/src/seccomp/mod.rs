//! System call filters: profiles compiled to BPF.
//!
//! Two forms come in, Docker's profile ([`profile`]) and the specification's `linux.seccomp`; both
//! become rules per architecture, and those a program (`compile`). Compiling takes well under a
//! millisecond, and [`compile_cached`] spares even that.

mod compile;
mod default;
mod numbers;
pub mod profile;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompOperator};
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::Digest;
use sys::seccomp::Instruction;

pub use default::default_profile;
pub use profile::{Argument, Operator, Profile};

use crate::capabilities::Set;
use compile::{Call, Calls, Section};

use crate::error::{Doing, Error, Result};

/// A compiled filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Filter {
    flags: u32,
    program: Vec<Instruction>,
}

impl Filter {
    /// The program.
    pub fn instructions(&self) -> &[Instruction] {
        &self.program
    }

    /// A form to store: flags and instructions, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.program.len() * 8);
        bytes.extend(self.flags.to_le_bytes());
        for item in &self.program {
            bytes.extend(item.code.to_le_bytes());
            bytes.extend([item.jt, item.jf]);
            bytes.extend(item.k.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Filter::to_bytes`] wrote; `None` when it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Filter> {
        let (flags, rest) = bytes.split_first_chunk::<4>()?;
        let (items, []) = rest.as_chunks::<8>() else { return None };
        if items.is_empty() || items.len() > 4096 {
            return None;
        }
        let program = items
            .iter()
            .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes([k0, k1, k2, k3]),
            })
            .collect();
        Some(Filter { flags: u32::from_le_bytes(*flags), program })
    }

    /// Puts the filter in force for this process.
    pub(crate) fn install(&self) -> Result<()> {
        sys::seccomp::install(&self.program, self.flags)
            .doing(|| "install the system call filter".to_owned())
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> String {
        BASE64.encode(filter.to_bytes())
    }
}

impl TryFrom<String> for Filter {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Filter, &'static str> {
        let bytes = BASE64.decode(text).map_err(|_| "not base64")?;
        Filter::from_bytes(&bytes).ok_or("not a filter")
    }
}

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARM: u32 = 0x4000_0028;

/// A machine's architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit Intel and AMD.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// The one this program was built for.
    pub const NATIVE: Arch =
        if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };

    fn go_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
        }
    }

    fn own(self) -> Abi {
        match self {
            Arch::X86_64 => Abi::X86_64,
            Arch::Aarch64 => Abi::Aarch64,
        }
    }
}

/// A way to call the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Abi {
    X86_64,
    I386,
    X32,
    Aarch64,
    Arm,
}

impl Abi {
    /// `None` for those this machine's kernel cannot serve.
    fn parse(name: &str, arch: Arch) -> Option<Abi> {
        match (name, arch) {
            ("SCMP_ARCH_NATIVE", arch) => Some(arch.own()),
            ("SCMP_ARCH_X86_64", Arch::X86_64) => Some(Abi::X86_64),
            ("SCMP_ARCH_X86", Arch::X86_64) => Some(Abi::I386),
            ("SCMP_ARCH_X32", Arch::X86_64) => Some(Abi::X32),
            ("SCMP_ARCH_AARCH64", Arch::Aarch64) => Some(Abi::Aarch64),
            ("SCMP_ARCH_ARM", Arch::Aarch64) => Some(Abi::Arm),
            _ => None,
        }
    }

    fn number(self, name: &str) -> Option<u32> {
        let at = numbers::NUMBERS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        let (_, columns) = numbers::NUMBERS.get(at)?;
        let number = u32::try_from(*columns.get(self as usize)?).ok()?;
        Some(if self == Abi::X32 { number | compile::X32_BIT } else { number })
    }
}

/// Whether any architecture this build knows has a call of this name.
pub fn known_call(name: &str) -> bool {
    numbers::NUMBERS.binary_search_by(|(known, _)| (*known).cmp(name)).is_ok()
}

/// Compiles a profile for a container with these capabilities, on the running kernel.
pub fn compile(profile: &Profile, caps: Set, arch: Arch) -> Result<Filter> {
    compile_for(profile, caps, arch, running_kernel())
}

/// As [`compile`], for a kernel of the given version. The same input gives the same program.
pub fn compile_for(profile: &Profile, caps: Set, arch: Arch, kernel: (u32, u32)) -> Result<Filter> {
    let default = action(&profile.default_action, profile.default_errno_ret, "defaultAction")?;
    let mut abis = vec![arch.own()];
    if !profile.arch_map.is_empty() && !profile.architectures.is_empty() {
        return Err(Error::spec(
            "seccomp profile",
            "architectures and archMap exclude each other; use archMap",
        ));
    }
    for map in &profile.arch_map {
        if Abi::parse(&map.architecture, arch) == Some(arch.own()) {
            abis.extend(map.sub_architectures.iter().filter_map(|name| Abi::parse(name, arch)));
        }
    }
    abis.extend(profile.architectures.iter().filter_map(|name| Abi::parse(name, arch)));
    abis.sort_unstable();
    abis.dedup();
    let mut rules = Vec::new();
    for rule in &profile.syscalls {
        if !applies(rule, caps, arch, kernel)? {
            continue;
        }
        let what = rule.names.first().or(rule.name.as_ref()).map_or("", String::as_str);
        let answer = action(&rule.action, rule.errno_ret, what)?;
        let args = rule.args.as_deref().unwrap_or_default();
        let names = rule.names.iter().chain(&rule.name).map(String::as_str);
        rules.push((names.collect(), args.to_vec(), answer));
    }
    build(&rules, &abis, default, flags(profile.flags.as_deref())?)
}

/// The profile as the `linux.seccomp` of a specification, for another runtime: conditions are
/// decided here, for these capabilities, this architecture and the running kernel.
pub fn to_oci(profile: &Profile, caps: Set, arch: Arch) -> Result<serde_json::Value> {
    let kernel = running_kernel();
    let mut architectures = profile.architectures.clone();
    for map in &profile.arch_map {
        if Abi::parse(&map.architecture, arch) == Some(arch.own()) {
            architectures.push(map.architecture.clone());
            architectures.extend(map.sub_architectures.iter().cloned());
        }
    }
    let mut syscalls = Vec::new();
    for rule in &profile.syscalls {
        if applies(rule, caps, arch, kernel)? {
            let names: Vec<&String> = rule.names.iter().chain(&rule.name).collect();
            let mut flat = serde_json::json!({"names": names, "action": rule.action});
            if let Some(number) = rule.errno_ret {
                flat["errnoRet"] = number.into();
            }
            if let Some(args) = rule.args.as_ref().filter(|args| !args.is_empty()) {
                flat["args"] = serde_json::json!(args);
            }
            syscalls.push(flat);
        }
    }
    let mut oci = serde_json::json!({
        "defaultAction": profile.default_action,
        "architectures": architectures,
        "syscalls": syscalls,
    });
    if let Some(number) = profile.default_errno_ret {
        oci["defaultErrnoRet"] = number.into();
    }
    if let Some(flags) = profile.flags.as_ref().filter(|flags| !flags.is_empty()) {
        oci["flags"] = serde_json::json!(flags);
    }
    Ok(oci)
}

type FlatRule<'a> = (Vec<&'a str>, Vec<Argument>, u32);

fn build(rules: &[FlatRule<'_>], abis: &[Abi], default: u32, flags: u32) -> Result<Filter> {
    let mut sections = Vec::new();
    let mut x32 = None;
    for abi in abis {
        let mut calls = Calls::new();
        for (names, args, answer) in rules {
            for number in names.iter().filter_map(|name| abi.number(name)) {
                add(calls.entry(number).or_default(), args, *answer)?;
            }
        }
        let audit = match abi {
            Abi::X32 => {
                x32 = Some(calls);
                continue;
            }
            Abi::X86_64 => AUDIT_X86_64,
            Abi::I386 => AUDIT_I386,
            Abi::Aarch64 => AUDIT_AARCH64,
            Abi::Arm => AUDIT_ARM,
        };
        sections.push(Section { audit, calls });
    }
    let program = compile::program(&sections, x32.as_ref(), default)?;
    Ok(Filter { flags, program })
}

fn add(call: &mut Call, args: &[Argument], answer: u32) -> Result<()> {
    if args.is_empty() {
        call.plain.get_or_insert(answer);
        return Ok(());
    }
    if args.len() > 6 * 4 || args.iter().any(|arg| arg.index > 5) {
        return Err(Error::spec("seccomp profile", "an argument's index must be 0 to 5"));
    }
    let mut seen = [false; 6];
    let alternatives = args.iter().any(|arg| {
        seen.get_mut(arg.index as usize).is_some_and(|seen| std::mem::replace(seen, true))
    });
    if alternatives {
        call.conditional.extend(args.iter().map(|arg| (vec![*arg], answer)));
    } else {
        call.conditional.push((args.to_vec(), answer));
    }
    Ok(())
}

fn applies(rule: &profile::Rule, caps: Set, arch: Arch, kernel: (u32, u32)) -> Result<bool> {
    let go = arch.go_name();
    let (includes, excludes) = (&rule.includes, &rule.excludes);
    if excludes.arches.iter().any(|name| name == go)
        || excludes.caps.iter().any(|name| caps.has(name))
    {
        return Ok(false);
    }
    if let Some(version) = &excludes.min_kernel
        && kernel >= parse_kernel(version)?
    {
        return Ok(false);
    }
    if let Some(version) = &includes.min_kernel
        && kernel < parse_kernel(version)?
    {
        return Ok(false);
    }
    Ok((includes.arches.is_empty() || includes.arches.iter().any(|name| name == go))
        && includes.caps.iter().all(|name| caps.has(name)))
}

fn parse_kernel(text: &str) -> Result<(u32, u32)> {
    let mut parts = text.split('.');
    let (major, minor) = (parts.next(), parts.next());
    match (major.map(str::parse), minor.map(str::parse)) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::spec(
            "seccomp profile",
            format!("minKernel \"{text}\" is not of the form 4.8"),
        )),
    }
}

/// The running kernel's version.
pub fn running_kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn action(name: &str, value: Option<u32>, what: &str) -> Result<u32> {
    let problem = |text: String| Err(Error::spec(format!("seccomp profile ({what})"), text));
    let data = value.unwrap_or(1);
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" if data <= 4095 => 0x0005_0000 | data,
        "SCMP_ACT_ERRNO" => return problem(format!("{data} is not an error number")),
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | (data & 0xffff),
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_NOTIFY" => {
            return problem("SCMP_ACT_NOTIFY is not supported by this runtime".to_owned());
        }
        other => return problem(format!("\"{other}\" is not an action")),
    })
}

fn flags(names: Option<&[String]>) -> Result<u32> {
    // Without a word the mitigation of speculative store bypass, which costs every program of the
    // container dearly, stays as the kernel has it for other programs.
    let Some(names) = names else { return Ok(sys::seccomp::SPEC_ALLOW) };
    let mut flags = 0;
    for name in names {
        flags |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => sys::seccomp::TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => sys::seccomp::LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => sys::seccomp::SPEC_ALLOW,
            // Has a meaning only with a listener.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
            other => {
                return Err(Error::spec(
                    "seccomp profile",
                    format!("the flag \"{other}\" is not known"),
                ));
            }
        };
    }
    Ok(flags)
}

/// Compiles the `linux.seccomp` of a specification; `None` when it restricts nothing.
pub fn compile_oci(seccomp: &LinuxSeccomp) -> Result<Option<Filter>> {
    let arch = Arch::NATIVE;
    let default = action(
        &seccomp.default_action().to_string(),
        seccomp.default_errno_ret(),
        "defaultAction",
    )?;
    let mut abis = vec![arch.own()];
    for item in seccomp.architectures().iter().flatten() {
        abis.extend(Abi::parse(&item.to_string(), arch));
    }
    abis.sort_unstable();
    abis.dedup();
    let mut rules = Vec::new();
    for rule in seccomp.syscalls().iter().flatten() {
        let answer = action(
            &rule.action().to_string(),
            rule.errno_ret(),
            rule.names().first().map_or("", String::as_str),
        )?;
        let mut args = Vec::new();
        for arg in rule.args().iter().flatten() {
            args.push(Argument {
                index: u32::try_from(arg.index()).unwrap_or(u32::MAX),
                value: arg.value(),
                value_two: arg.value_two().unwrap_or(0),
                op: match arg.op() {
                    LinuxSeccompOperator::ScmpCmpNe => Operator::Ne,
                    LinuxSeccompOperator::ScmpCmpLt => Operator::Lt,
                    LinuxSeccompOperator::ScmpCmpLe => Operator::Le,
                    LinuxSeccompOperator::ScmpCmpEq => Operator::Eq,
                    LinuxSeccompOperator::ScmpCmpGe => Operator::Ge,
                    LinuxSeccompOperator::ScmpCmpGt => Operator::Gt,
                    LinuxSeccompOperator::ScmpCmpMaskedEq => Operator::MaskedEq,
                },
            });
        }
        rules.push((rule.names().iter().map(String::as_str).collect(), args, answer));
    }
    if rules.is_empty() && default == 0x7fff_0000 {
        return Ok(None);
    }
    let names = seccomp
        .flags()
        .as_ref()
        .map(|flags| flags.iter().map(ToString::to_string).collect::<Vec<_>>());
    build(&rules, &abis, default, flags(names.as_deref())?).map(Some)
}

/// As [`compile`] of a profile's JSON text, keeping results in `directory` under a hash of all that
/// they depend on. A cache that cannot be read or written only costs time.
pub fn compile_cached(directory: &Path, json: &[u8], caps: Set, arch: Arch) -> Result<Filter> {
    let kernel = running_kernel();
    let mut hash = sha2::Sha256::new();
    hash.update(concat!("wherry seccomp 1 ", env!("CARGO_PKG_VERSION"), "\n"));
    hash.update(format!("{:x} {} {kernel:?}\n", caps.0, arch.go_name()));
    hash.update(json);
    let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join(format!("{name}.bpf"));
    if let Ok(bytes) = std::fs::read(&path)
        && let Some(filter) = Filter::from_bytes(&bytes)
    {
        return Ok(filter);
    }
    let filter = compile_for(&Profile::from_json(json)?, caps, arch, kernel)?;
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let written =
        rustix::fs::openat(CWD, &temporary, flags, Mode::from_raw_mode(0o600)).and_then(|fd| {
            let bytes = filter.to_bytes();
            match rustix::io::write(&fd, &bytes)? {
                count if count == bytes.len() => rustix::fs::rename(&temporary, &path),
                _ => Err(sys::Errno::IO),
            }
        });
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests;
