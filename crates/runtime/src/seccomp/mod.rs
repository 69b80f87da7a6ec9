//! System call filters: profiles compiled to BPF.

use serde::{Deserialize, Serialize};
use sys::seccomp::Instruction;

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
        filter.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Filter, String> {
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err("odd length".to_owned());
        };
        let bytes: Option<Vec<u8>> = pairs
            .iter()
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        bytes.and_then(|bytes| Filter::from_bytes(&bytes)).ok_or_else(|| "not a filter".to_owned())
    }
}

/// Compiles the `linux.seccomp` of a specification.
pub fn compile_oci(_: &oci_spec::runtime::LinuxSeccomp) -> Result<Option<Filter>> {
    Err(Error::spec("linux.seccomp", "not compiled yet by this build"))
}
