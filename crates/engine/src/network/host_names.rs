//! Names of containers for the host itself: `dns enable`, `dns disable`, and what the name server
//! does about them.
//!
//! Nothing of the host's is touched unless somebody asks for it. What was asked for is in `dns.json`
//! of the data root, written before the host's files are; what those should say follows from it. So
//! whoever is killed on the way, the next to look brings the files in line ([`Engine::tend_resolver`]):
//! the name server when it begins and whenever somebody else has written them, and the command when
//! it is given again.
//!
//! The host's programs ask for names below one domain. It is also searched, so that a bare name will
//! do. Without a container there is no name server, and the host's resolver goes on to its next one.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use keeper::protocol::Request;
use net::dns::Found;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use store::network;

use super::names::{Book, PORT};
use super::resolver::{self, Block, Resolver};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{self, Record};
use crate::types::{HostNames, HostNamesRequest, NetworkRepair};

/// Addresses that are tried when none is named: the first as in containers.
const ADDRESSES: std::ops::RangeInclusive<u8> = 11..=29;
/// Private names of a host; no public name will ever end in it.
const DOMAIN: &str = "internal";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wish {
    /// False while it is being taken back.
    pub(super) enabled: bool,
    pub(super) address: Ipv4Addr,
    pub(super) domain: String,
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::system(format!("names for the host: {what}"), e)
}

fn check_address(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) if v4.is_loopback() && !matches!(v4.octets(), [127, 0, 0, 53 | 54]) => {
            Ok(v4)
        }
        _ => Err(Error::invalid(format!(
            "{address} is no address for the host's name server: give one of 127.0.0.0/8, but not \
             127.0.0.53 or .54, which are systemd-resolved's"
        ))),
    }
}

fn check_domain(domain: &str) -> Result<String> {
    let lower = domain.trim_end_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if lower.len() > 200 || !lower.split('.').all(label) {
        return Err(Error::invalid(format!(
            "{domain:?} is no domain: give letters, digits and hyphens, with dots between, as \
             wherry.internal"
        )));
    }
    Ok(lower)
}

/// Sockets for the host's questions.
pub(super) fn listen(address: Ipv4Addr) -> std::io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind((address, PORT))?, TcpListener::bind((address, PORT))?))
}

impl Book<'_> {
    /// The host's question: names below the domain are ours alone.
    pub(super) fn look_for_host(&self, wish: &Wish, name: &str) -> Result<Found> {
        let below = name.strip_suffix(wish.domain.as_str()).map(|rest| rest.strip_suffix('.'));
        let Some(bare) = below else { return Ok(Found::Elsewhere) };
        let Some(bare) = bare else {
            // The domain itself is there, without addresses; or it is only the end of another's name.
            let own = name == wish.domain;
            return Ok(if own { Found::Addresses(Vec::new()) } else { Found::Elsewhere });
        };
        let mut found = Vec::new();
        for place in network::all(self.db())?.into_iter().filter(|n| n.bridge.is_some()) {
            let mut holders = self.holders(&place.id, bare)?;
            let lower = place.name.to_ascii_lowercase();
            if let Some(bare) = bare.strip_suffix(&lower).and_then(|rest| rest.strip_suffix('.')) {
                holders.extend(self.holders(&place.id, bare)?);
            }
            for holder in holders {
                if !self.runs(&holder)? {
                    continue;
                }
                for address in self.addresses_of(&place.id, &holder)? {
                    if !found.contains(&address) {
                        found.push(address);
                    }
                }
            }
        }
        Ok(if found.is_empty() { Found::NoSuchName } else { Found::Addresses(found) })
    }

    pub(super) fn reverse_for_host(&self, wish: &Wish, address: IpAddr) -> Result<Vec<String>> {
        for place in network::all(self.db())?.into_iter().filter(|n| n.bridge.is_some()) {
            if let Some(holder) = network::holder_of(self.db(), &place.id, address)?
                && let Some(record) = record::by_id(self.db(), &holder)?
                && self.runs(&holder)?
            {
                return Ok(vec![format!("{}.{}.{}", record.name, place.name, wish.domain)]);
            }
        }
        Ok(Vec::new())
    }

    fn runs(&self, container: &str) -> Result<bool> {
        let record = record::by_id(self.db(), container)?;
        Ok(record.is_some_and(|r| r.state.is_live() && r.identity().alive()))
    }
}

impl Engine {
    fn wish_file(&self) -> PathBuf {
        self.settings().data_root.join("dns.json")
    }

    /// Whether the host resolves names of containers, and how; `None`: nobody asked for it.
    pub(super) fn wish(&self) -> Option<Wish> {
        let text = std::fs::read(self.wish_file()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn put_wish(&self, wish: &Wish) -> Result<()> {
        let path = self.wish_file();
        let new = path.with_extension("json.new");
        let text = serde_json::to_vec(wish).map_err(|e| Error::system("dns.json", e))?;
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(failed(&format!("cannot write {}", path.display())))
    }

    /// One at a time writes the host's files.
    fn lock_resolver(&self) -> Result<File> {
        let path = self.run_root().join("dns.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(failed(&format!("cannot open {}", path.display())))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| failed("cannot lock")(e.into()))?;
        Ok(lock)
    }

    fn block<'a>(wish: &'a Wish, tag: &'a str) -> Block<'a> {
        Block { tag, address: wish.address, domain: &wish.domain }
    }

    /// Brings the host's files in line with what was asked for; whether that changed anything.
    pub(super) fn tend_resolver(&self) -> Result<bool> {
        let _lock = self.lock_resolver()?;
        let tag = self.settings().network_tag();
        match self.wish() {
            Some(wish) if wish.enabled => {
                resolver::set(resolver::detect(), &Self::block(&wish, &tag))
            }
            _ => {
                let changed = resolver::unset(&tag)?;
                match std::fs::remove_file(self.wish_file()) {
                    Ok(()) => Ok(true),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(changed),
                    Err(e) => Err(failed("cannot remove dns.json")(e)),
                }
            }
        }
    }

    /// An address for the server where nobody listens.
    fn free_address(&self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        let candidates: Vec<Ipv4Addr> = match wanted {
            Some(address) => vec![address],
            None => ADDRESSES.map(|last| Ipv4Addr::new(127, 0, 0, last)).collect(),
        };
        let mut failure = None;
        for address in candidates {
            match listen(address) {
                Ok(_) => return Ok(address),
                Err(e) => failure = failure.or(Some((address, e))),
            }
        }
        match failure {
            Some((address, e)) if wanted.is_some() => Err(failed(&format!(
                "cannot listen at {address} port {PORT}; give another --address"
            ))(e)),
            _ => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "names for the host: port {PORT} is taken at all of 127.0.0.11 to 127.0.0.29, \
                     perhaps by a server that listens at all addresses; have it listen at its own"
                ),
            )),
        }
    }

    /// Has the host resolve names of containers. Again is no error; what is not named stays as it was.
    pub fn enable_host_names(&self, request: &HostNamesRequest) -> Result<HostNames> {
        let before = self.wish().filter(|wish| wish.enabled);
        let address = request.address.map(check_address).transpose()?;
        let domain = match (&request.domain, &before) {
            (Some(domain), _) => check_domain(domain)?,
            (None, Some(before)) => before.domain.clone(),
            (None, None) => format!("{}.{DOMAIN}", self.settings().dns_label()),
        };
        let kept = before.as_ref().map(|wish| wish.address);
        let address = match (address, kept) {
            (None, Some(kept)) => kept,
            (Some(wanted), Some(kept)) if wanted == kept => kept,
            (wanted, _) => self.free_address(wanted)?,
        };
        if !std::path::Path::new(resolver::FILE).exists() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "there is no {}: this host asks no name server; make it first",
                    resolver::FILE
                ),
            ));
        }
        std::fs::create_dir_all(self.run_root()).map_err(failed("cannot make the run root"))?;
        {
            let _lock = self.lock_resolver()?;
            self.put_wish(&Wish { enabled: true, address, domain })?;
        }
        self.tend_resolver()?;
        self.wake_names()?;
        self.host_names()
    }

    /// Has the host forget names of containers; whether it knew them.
    pub fn disable_host_names(&self) -> Result<bool> {
        std::fs::create_dir_all(self.run_root()).map_err(failed("cannot make the run root"))?;
        if let Some(wish) = self.wish() {
            let _lock = self.lock_resolver()?;
            self.put_wish(&Wish { enabled: false, ..wish })?;
        }
        let changed = self.tend_resolver()?;
        if changed {
            // It stops listening; if it has gone there is nothing to stop.
            let _ = self.tell_names_of_host();
        }
        Ok(changed)
    }

    /// Whether the host resolves names of containers, and how.
    pub fn host_names(&self) -> Result<HostNames> {
        let Some(wish) = self.wish().filter(|wish| wish.enabled) else {
            return Ok(HostNames::default());
        };
        let tag = self.settings().network_tag();
        let resolver = resolver::detect();
        Ok(HostNames {
            enabled: true,
            address: Some(wish.address.into()),
            domain: wish.domain.clone(),
            by: match resolver {
                Resolver::File => resolver::FILE.into(),
                Resolver::Resolved => "systemd-resolved".into(),
            },
            in_place: resolver::is_set(resolver, &Self::block(&wish, &tag)),
            answers: self.server_is_there(SocketAddr::new(wish.address.into(), PORT)),
        })
    }

    fn server_is_there(&self, address: SocketAddr) -> bool {
        let wait = std::time::Duration::from_millis(500);
        std::net::TcpStream::connect_timeout(&address, wait).is_ok()
    }

    /// A container runs that the host might ask for.
    pub(super) fn host_needs_names(&self) -> Result<bool> {
        if self.wish().is_none_or(|wish| !wish.enabled) {
            return Ok(false);
        }
        let has_endpoint = |record: &Record| -> Result<bool> {
            let rows = network::endpoints_of(self.db(), &record.id)?;
            Ok(rows.iter().any(|row| !row.interface.is_empty()) && record.identity().alive())
        };
        for record in record::live_records(self.db())? {
            if has_endpoint(&record)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The name server runs, if the host needs it, and knows what the host wants.
    pub(crate) fn wake_names(&self) -> Result<()> {
        if self.wish().is_none() || self.tell_names_of_host().is_ok() || !self.host_needs_names()? {
            return Ok(());
        }
        self.await_name_server()
    }

    /// The host's files say what was asked for, and the server knows it.
    pub(super) fn repair_host_names(&self, report: &mut NetworkRepair) {
        if self.wish().is_none() {
            return;
        }
        match self.tend_resolver() {
            Ok(true) => report.done.push("brought the host's resolver in line".into()),
            Ok(false) => {}
            Err(e) => report.failed.push(e.message),
        }
        if let Err(e) = self.wake_names() {
            report.failed.push(e.message);
        }
    }

    /// As [`Engine::wake_names`], for a start: nobody waits for it.
    pub(crate) fn wake_names_later(&self) {
        if self.wish().is_some()
            && let Err(e) = self.keeper().connect().and_then(|mut k| k.ask(Request::Names, vec![]))
        {
            self.debug(&e.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (address, good) in
            [("127.0.0.11", true), ("127.0.0.53", false), ("10.0.0.1", false), ("::1", false)]
        {
            assert_eq!(check_address(address.parse().unwrap()).is_ok(), good, "{address}");
        }
        assert_eq!(check_domain("My.Home.").unwrap(), "my.home");
        for domain in ["", ".", "a..b", "-a", "a b", "ä", &"x".repeat(64)] {
            assert!(check_domain(domain).is_err(), "{domain}");
        }
    }
}
