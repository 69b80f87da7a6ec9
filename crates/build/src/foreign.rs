//! Commands of images for another processor: they run where the kernel knows an interpreter for them (`binfmt_misc`).
//!
//! Whether one runs is the kernel's to say, when it starts; here is why it said no.

use oci::manifest::Platform;

/// Where the kernel lists its interpreters.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";

/// Why a command of an image for this architecture (GOARCH) could not be executed, if that is the reason.
pub(crate) fn reason(architecture: &str) -> Option<String> {
    let host = Platform::host().architecture;
    let own = architecture.is_empty()
        || architecture == host
        || matches!((host.as_str(), architecture), ("amd64", "386") | ("arm64", "arm"));
    if own {
        return None;
    }
    let mut registered = std::fs::read_dir(REGISTERED).into_iter().flatten().flatten();
    let found = registered.find_map(|entry| {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        Interpreter::parse(&text).filter(|one| one.takes(architecture))
    });
    Some(match found {
        None => format!(
            "the image is for {architecture}, this machine is {host}, and its kernel knows no interpreter for {architecture}: \
             install one that registers itself (qemu-user-static, qemu-user-binfmt), or build where the processor is {architecture}"
        ),
        Some(Interpreter { fixed: false, path, .. }) => format!(
            "the image is for {architecture}, and the interpreter {path} is looked for in the image: register it with the flag F, \
             as qemu-user-static does"
        ),
        Some(Interpreter { path, .. }) => {
            format!("the image is for {architecture}, and the interpreter for it is {path}")
        }
    })
}

/// One that is registered.
#[derive(Debug, PartialEq, Eq)]
struct Interpreter {
    path: String,
    /// It was opened when it was registered, so that no image must have it.
    fixed: bool,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Interpreter {
    /// Reads what the kernel says of one; None if it is off, or goes by names.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some("enabled") {
            return None;
        }
        let mut one =
            Self { path: String::new(), fixed: false, magic: Vec::new(), mask: Vec::new() };
        for line in lines {
            match line.split_once(' ') {
                Some(("interpreter", path)) => one.path = path.to_owned(),
                Some(("flags:", flags)) => one.fixed = flags.contains('F'),
                Some(("offset", offset)) if offset != "0" => return None,
                Some(("magic", digits)) => one.magic = hex(digits)?,
                Some(("mask", digits)) => one.mask = hex(digits)?,
                _ => {}
            }
        }
        Some(one).filter(|one| !one.magic.is_empty())
    }

    /// Whether it is for programs of this architecture.
    fn takes(&self, architecture: &str) -> bool {
        // Programs are of type 2, or of 3 where they can be anywhere.
        [2, 3].into_iter().filter_map(|kind| header(architecture, kind)).any(|header| {
            self.magic.iter().enumerate().all(|(at, want)| {
                let mask = self.mask.get(at).copied().unwrap_or(0xff);
                header.get(at).is_some_and(|byte| byte & mask == want & mask)
            })
        })
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.trim().as_bytes();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The first bytes of a program: its ELF header up to `e_machine`.
fn header(architecture: &str, kind: u16) -> Option<[u8; 20]> {
    let (class, big, machine): (u8, bool, u16) = match architecture {
        "386" => (1, false, 3),
        "amd64" => (2, false, 62),
        "arm" => (1, false, 40),
        "arm64" => (2, false, 183),
        "loong64" => (2, false, 258),
        "mips" => (1, true, 8),
        "mipsle" => (1, false, 8),
        "mips64" => (2, true, 8),
        "mips64le" => (2, false, 8),
        "ppc64" => (2, true, 21),
        "ppc64le" => (2, false, 21),
        "riscv64" => (2, false, 243),
        "s390x" => (2, true, 22),
        _ => return None,
    };
    let [k0, k1] = if big { kind.to_be_bytes() } else { kind.to_le_bytes() };
    let [m0, m1] = if big { machine.to_be_bytes() } else { machine.to_le_bytes() };
    let order = if big { 2 } else { 1 };
    Some([0x7f, b'E', b'L', b'F', class, order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, k0, k1, m0, m1])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn interpreters_are_known_by_what_they_take() {
        let one = Interpreter::parse(ARM).unwrap();
        assert!(one.fixed && one.path.ends_with("qemu-aarch64-static"));
        assert!(one.takes("arm64"));
        for other in ["arm", "amd64", "riscv64", "s390x", "what"] {
            assert!(!one.takes(other), "{other}");
        }
        let bare = ARM.replace("OCF", "OC");
        assert!(!Interpreter::parse(&bare).unwrap().fixed);
        for text in ["", "disabled\n", "enabled\ninterpreter /x\nextension .py\n"] {
            assert_eq!(Interpreter::parse(text), None, "{text}");
        }
        assert_eq!(Interpreter::parse(&ARM.replace("enabled", "disabled")), None);
    }

    #[test]
    fn programs_of_this_machine_have_no_reason() {
        assert_eq!(reason(&Platform::host().architecture), None);
        assert_eq!(reason(""), None);
        // No kernel has one for it.
        assert!(reason("pdp11").unwrap().contains("no interpreter for pdp11"));
    }
}
