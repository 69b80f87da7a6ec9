//! `storage migrate`: the form in which layers are kept.

use store::FormChoice;

use crate::engine::{Engine, Progress};
use crate::error::{Error, Result};
use crate::images::Bridge;

/// What a migration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageMigration {
    /// Layers that were looked at.
    pub layers: usize,
    /// Directories or indexes that were made.
    pub made: usize,
    /// Layers whose other form is used by running containers still.
    pub in_use: usize,
    /// Bytes given back.
    pub freed: u64,
}

impl Engine {
    /// Brings all layers into the form called `to`, `erofs` or `directories`, and keeps to it.
    /// Containers may run meanwhile; what stopped half-way goes on when this is called again.
    pub fn migrate_storage(
        &self,
        to: &str,
        progress: &mut dyn Progress,
    ) -> Result<StorageMigration> {
        let form = match to {
            "erofs" => FormChoice::Erofs,
            "directories" => FormChoice::Directories,
            _ => {
                return Err(Error::invalid(format!(
                    "{to:?} is no form of layers: use erofs or directories"
                )));
            }
        };
        // What is said to run must run: its files are not touched.
        self.reconcile()?;
        let report = self.store().migrate(form, &mut Bridge(progress))?;
        Ok(StorageMigration {
            layers: report.layers,
            made: report.made,
            in_use: report.in_use.len(),
            freed: report.freed,
        })
    }
}
