//! Capabilities: names, numbers and sets.

use oci_spec::runtime::{Capabilities, LinuxCapabilities};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Result};

/// Names in the order of their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of a capability; the name in any case, with or without `CAP_`.
pub fn number(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).and_then(|index| u32::try_from(index).ok())
}

/// All names with `CAP_`, by number.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

/// A set of capabilities: bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Set(pub u64);

impl Set {
    /// Whether the set has this capability (by name).
    pub fn has(self, name: &str) -> bool {
        number(name).is_some_and(|bit| self.0 & (1 << bit) != 0)
    }

    fn from_spec(list: &Option<Capabilities>) -> Set {
        let mut set = 0;
        for capability in list.iter().flatten() {
            if let Some(bit) = number(&capability.to_string()) {
                set |= 1 << bit;
            }
        }
        Set(set)
    }
}

impl<'a> FromIterator<&'a str> for Set {
    /// Unknown names are left out.
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Set {
        Set(names.into_iter().filter_map(number).fold(0, |set, bit| set | (1 << bit)))
    }
}

/// The five sets of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sets {
    /// The most any program can gain.
    pub bounding: Set,
    /// In force.
    pub effective: Set,
    /// Kept across execve where the file agrees.
    pub inheritable: Set,
    /// May be made effective.
    pub permitted: Set,
    /// Kept across execve without the file's help.
    pub ambient: Set,
}

impl Sets {
    /// Converts the specification's sets.
    pub fn from_spec(spec: &LinuxCapabilities) -> Sets {
        Sets {
            bounding: Set::from_spec(spec.bounding()),
            effective: Set::from_spec(spec.effective()),
            inheritable: Set::from_spec(spec.inheritable()),
            permitted: Set::from_spec(spec.permitted()),
            ambient: Set::from_spec(spec.ambient()),
        }
    }
}

/// Drops from the bounding set what is not in `keep`. Must come before the user changes.
pub(crate) fn limit_bounding(keep: Set) -> Result<()> {
    for capability in 0..64 {
        if keep.0 & (1 << capability) == 0 {
            match sys::privilege::drop_bounding(capability) {
                // The kernel's last capability is behind us.
                Err(sys::Errno::INVAL) => break,
                result => result.doing(|| format!("drop capability {capability}"))?,
            }
        }
    }
    Ok(())
}

/// Puts the other sets in force; what the caller does not have or the kernel does not know is
/// left out, as other runtimes do (they warn).
pub(crate) fn apply(sets: &Sets) -> Result<()> {
    let have = sys::privilege::capget().doing(|| "read the capabilities".to_owned())?;
    let permitted = sets.permitted.0 & have.permitted;
    let effective = sets.effective.0 & permitted;
    let inheritable = sets.inheritable.0 & (have.permitted | have.inheritable);
    sys::privilege::capset(sys::privilege::Sets { effective, permitted, inheritable })
        .doing(|| "set the capabilities".to_owned())?;
    if sets.ambient.0 != 0 {
        for capability in 0..64 {
            // The kernel allows only what is permitted and inheritable.
            if sets.ambient.0 & permitted & inheritable & (1 << capability) != 0 {
                sys::privilege::raise_ambient(capability)
                    .doing(|| format!("raise ambient capability {capability}"))?;
            }
        }
    }
    Ok(())
}
