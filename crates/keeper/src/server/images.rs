//! Mounts of images: one for all running containers of an image, so that they share what of its
//! files is in memory. Gone with the last of them.

use super::*;

/// A mount that containers run on.
#[derive(Debug)]
pub(super) struct ImageMount {
    pub(super) mount: OwnedFd,
    /// Number of containers.
    users: usize,
}

/// The name of a mount at the standby. Containers' names begin with their IDs.
fn key(chain: &str) -> String {
    format!("image/{chain}")
}

impl Keeper {
    /// Answers whether a mount is there, with it.
    pub(super) fn give_image(&mut self, token: u64, chain: &str) {
        let mount = self.images.get(chain).and_then(|image| image.mount.try_clone().ok());
        match mount {
            Some(mount) => self.send_with(token, &Message::Image { held: true }, mount.as_fd()),
            None => self.send(token, &Message::Image { held: false }),
        }
    }

    /// A container runs on a mount, which its start brought along unless it is there.
    pub(super) fn use_image(&mut self, chain: &str, mount: Option<OwnedFd>) {
        if let Some(image) = self.images.get_mut(chain) {
            image.users = image.users.saturating_add(1);
            return;
        }
        let Some(mount) = mount else { return };
        self.standby.hold(&[&key(chain)], &[mount.as_fd()]);
        self.images.insert(chain.to_owned(), ImageMount { mount, users: 1 });
    }

    /// A container that ran on a mount has ended.
    pub(super) fn leave_image(&mut self, chain: &str) {
        let Some(image) = self.images.get_mut(chain) else { return };
        image.users = image.users.saturating_sub(1);
        if image.users == 0 {
            self.images.remove(chain);
            self.standby.drop_prefix(&key(chain));
        }
    }

    /// Takes over what a predecessor held, once it is known who runs.
    pub(super) fn adopt_images(&mut self, table: &mut Table) {
        let chains: Vec<String> =
            self.containers.values().filter_map(|c| c.record.image.clone()).collect();
        for chain in chains {
            let mount = table.remove(&key(&chain));
            self.use_image(&chain, mount);
        }
        // Held for containers that ended while nobody was there.
        table.retain(|name, _| {
            let image = name.starts_with("image/");
            if image {
                self.standby.drop_prefix(name);
            }
            !image
        });
    }

    /// Names and descriptors for a new standby.
    pub(super) fn images_to_hold(&self) -> Vec<(String, BorrowedFd<'_>)> {
        self.images.iter().map(|(chain, image)| (key(chain), image.mount.as_fd())).collect()
    }
}
