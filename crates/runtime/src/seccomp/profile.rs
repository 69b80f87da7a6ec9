//! Profiles in Docker's JSON format.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// A profile. Lists that Docker writes as `null` are empty here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// For calls that no rule names.
    pub default_action: String,
    /// The error number of a default action `SCMP_ACT_ERRNO`; EPERM when absent.
    pub default_errno_ret: Option<u32>,
    /// Architectures, in the form without a map.
    #[serde(deserialize_with = "nullable")]
    pub architectures: Vec<String>,
    /// Architectures and those whose programs they also run.
    #[serde(deserialize_with = "nullable")]
    pub arch_map: Vec<ArchMap>,
    /// `SECCOMP_FILTER_FLAG_*`; absent means the runtime's choice.
    pub flags: Option<Vec<String>>,
    /// The rules.
    #[serde(deserialize_with = "nullable")]
    pub syscalls: Vec<Rule>,
}

/// An architecture and those whose programs it also runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArchMap {
    /// `SCMP_ARCH_X86_64` and so on.
    pub architecture: String,
    /// Those it also runs.
    #[serde(deserialize_with = "nullable")]
    pub sub_architectures: Vec<String>,
}

/// What to do about some calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// The calls; names an architecture does not know are left out there.
    #[serde(deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// One call, in an older form.
    pub name: Option<String>,
    /// `SCMP_ACT_ALLOW` and so on.
    pub action: String,
    /// The error number of `SCMP_ACT_ERRNO`, the message of `SCMP_ACT_TRACE`.
    pub errno_ret: Option<u32>,
    /// All must hold; several about the same argument are alternatives.
    pub args: Option<Vec<Argument>>,
    /// For people.
    pub comment: Option<String>,
    /// The rule counts only where these hold.
    #[serde(deserialize_with = "nullable")]
    pub includes: Conditions,
    /// The rule does not count where any of these holds.
    #[serde(deserialize_with = "nullable")]
    pub excludes: Conditions,
}

/// Conditions on the container and the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conditions {
    /// Capabilities.
    #[serde(deserialize_with = "nullable")]
    pub caps: Vec<String>,
    /// Architectures, in Go's names.
    #[serde(deserialize_with = "nullable")]
    pub arches: Vec<String>,
    /// Kernel version, as `4.8`.
    pub min_kernel: Option<String>,
}

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// 0 to 5.
    pub index: u32,
    /// What to compare with; the mask of [`Operator::MaskedEq`].
    pub value: u64,
    /// What [`Operator::MaskedEq`] compares with.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// How an argument is compared, as unsigned 64-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Not equal.
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    /// Less.
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    /// Less or equal.
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    /// Equal.
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    /// Greater or equal.
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    /// Greater.
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    /// Equal after a bitwise and with `value`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Profile {
    /// Reads a profile.
    pub fn from_json(text: &[u8]) -> Result<Profile> {
        serde_json::from_slice(text)
            .map_err(|error| Error::spec("seccomp profile", format!("not a profile: {error}")))
    }
}
