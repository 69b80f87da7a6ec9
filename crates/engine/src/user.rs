//! Users and groups by name, from the container's own `/etc/passwd` and `/etc/group`.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

/// More of these files than this is not read.
const LIMIT: u64 = 16 << 20;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Reads a file below `root`; what is missing or no file is empty.
pub(crate) fn read_in_root(root: BorrowedFd<'_>, path: &str) -> Vec<u8> {
    let opened = rustix::fs::openat2(
        root,
        path.trim_start_matches('/'),
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let mut bytes = Vec::new();
    if let Ok(file) = opened
        && rustix::fs::fstat(file.as_fd()).is_ok_and(|s| {
            rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::RegularFile
        })
    {
        let _ = std::fs::File::from(file).take(LIMIT).read_to_end(&mut bytes);
    }
    bytes
}

struct Databases {
    passwd: String,
    group: String,
}

impl Databases {
    fn users(&self) -> impl Iterator<Item = (&str, u32, u32, &str)> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some((name, uid, gid, fields.nth(1).unwrap_or("")))
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }

    fn gid(&self, group: &str) -> Option<u32> {
        let by_name = self.groups().find(|(name, _, _)| *name == group).map(|(_, gid, _)| gid);
        by_name.or_else(|| group.parse().ok().filter(|gid| i32::try_from(*gid).is_ok()))
    }
}

/// Finds out who `user` is (`name|uid[:group|gid]`, empty is root), with the groups of
/// `--group-add`. A number without an entry is taken as it is.
pub(crate) fn identify(root: BorrowedFd<'_>, user: &str, group_add: &[String]) -> Result<Identity> {
    let read = |path| String::from_utf8_lossy(&read_in_root(root, path)).into_owned();
    let db = Databases { passwd: read("etc/passwd"), group: read("etc/group") };
    identify_in(&db, user, group_add)
}

fn identify_in(db: &Databases, user: &str, group_add: &[String]) -> Result<Identity> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<u32> = name.parse().ok();
    if number.is_some_and(|n| i32::try_from(n).is_err()) {
        return Err(Error::invalid(
            "unable to find user: uids and gids must be in range 0-2147483647",
        ));
    }
    let entry = db
        .users()
        .find(|(n, _, _, _)| *n == name)
        .or_else(|| db.users().find(|(_, uid, _, _)| Some(*uid) == number));
    let (login, uid, gid, home) = match (entry, number) {
        (Some((login, uid, gid, home)), _) => (Some(login), uid, gid, home),
        (None, Some(uid)) => (None, uid, 0, ""),
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    };
    let no_group = |group: &str| {
        Error::invalid(format!("Unable to find group {group}: no matching entries in group file"))
    };
    let (gid, mut groups) = match group {
        // With a group of one's own choice, those of the entry do not count.
        Some(group) => (db.gid(group).ok_or_else(|| no_group(group))?, Vec::new()),
        None => {
            let member = |members: &str| {
                login.is_some_and(|login| members.split(',').any(|m| m.trim() == login))
            };
            let groups = db.groups().filter(|(_, _, m)| member(m)).map(|(_, gid, _)| gid).collect();
            (gid, groups)
        }
    };
    for group in group_add {
        groups.push(db.gid(group).ok_or_else(|| no_group(group))?);
    }
    // Without it here, a program could give the primary group up and pass what it is denied by.
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|group| *group != gid);
    groups.insert(0, gid);
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn db() -> Databases {
        Databases {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\n\nbroken\nann:x:1000:100:Ann:/home/ann:/bin/sh\n"
                    .into(),
            group: "root:x:0:\nusers:x:100:\nwheel:x:10:bob,ann\n".into(),
        }
    }

    fn who(user: &str, add: &[&str]) -> Result<Identity> {
        identify_in(&db(), user, &add.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let ann = Identity { uid: 1000, gid: 100, groups: vec![100, 10], home: "/home/ann".into() };
        assert_eq!(who("ann", &[]).unwrap(), ann);
        assert_eq!(who("1000", &[]).unwrap(), ann);
        assert_eq!(who("", &[]).unwrap().home, "/root");
        let nobody = who("4242", &["users", "77"]).unwrap();
        assert_eq!((nobody.uid, nobody.gid, nobody.groups), (4242, 0, vec![0, 77, 100]));
        assert_eq!(who("ann:users", &[]).unwrap().groups, [100]);
        assert!(who("zoe", &[]).unwrap_err().message.contains("unable to find user zoe"));
        assert!(who("ann:nope", &[]).is_err() && who("4294967295", &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_files_make_it_panic(passwd in ".{0,200}", group in ".{0,200}", user in ".{0,20}") {
            let _ = identify_in(&Databases { passwd, group }, &user, &[]);
        }
    }
}
