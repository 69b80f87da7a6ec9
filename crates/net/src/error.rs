//! The errors of this crate.

use rustix::io::Errno;

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused something about one object.
    #[error("cannot {action}: {}{}", describe(*.errno), hint(.remedy))]
    Kernel {
        /// What was to be done with which object: `create bridge wherry0`.
        action: String,
        /// The kernel's answer.
        errno: Errno,
        /// What helps, if known.
        remedy: &'static str,
    },
    /// A port of the host is published already.
    #[error(
        "Bind for {0} failed: port is already allocated; publish another one, or remove the container that has it"
    )]
    PortTaken(String),
    /// The table has the rules of another version.
    #[error(
        "the nftables table {0} was made by another version of this engine; rebuild it (network repair)"
    )]
    OtherRules(String),
    /// The kernel's answer was not one.
    #[error(
        "the kernel's answer about {0} makes no sense; please report this with the kernel's version"
    )]
    Answer(String),
    /// A name that no interface can have.
    #[error(
        "{0:?} is no name for an interface: 1 to 15 bytes, without `/`, `:`, blanks and control characters, not `.` or `..`"
    )]
    Name(String),
    /// Something given makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// No address is left.
    #[error(
        "no available IPv{family} addresses on this network's address pools: {pool}; give the network a larger --subnet or --ip-range"
    )]
    NoAddress {
        /// 4 or 6.
        family: u8,
        /// The range that is used up.
        pool: String,
    },
    /// The address asked for is not to be had.
    #[error("address {0} is not available: {1}")]
    AddressUnavailable(std::net::IpAddr, &'static str),
    /// All subnets of the pools are in use.
    #[error(
        "all predefined address pools have been fully subnetted; remove unused networks, give --subnet, or configure more pools"
    )]
    NoSubnet,
    /// A name server's message could not be read.
    #[error("malformed message of the name service: {0}")]
    Dns(&'static str),
    /// Several things failed in a tear-down that went on.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

impl Error {
    /// The kernel's number, if the kernel said one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    pub(crate) fn kernel(action: impl Into<String>, errno: Errno) -> Self {
        let remedy = match errno {
            Errno::PERM | Errno::ACCESS => "this needs CAP_NET_ADMIN; run as root",
            Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => {
                "the kernel lacks this, or the module is not loaded"
            }
            _ => "",
        };
        Self::Kernel { action: action.into(), errno, remedy }
    }
}

fn describe(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

fn hint(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!("; {remedy}") }
}

/// Nothing, the one error, or the list.
pub(crate) fn all(mut errors: Vec<Error>) -> Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => errors.pop().map_or(Ok(()), Err),
        _ => Err(Error::Several(errors)),
    }
}
