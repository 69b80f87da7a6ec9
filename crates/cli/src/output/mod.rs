//! What a person reads: tables, templates, sizes, times, clean names.

pub(crate) mod clean;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod listing;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod transfer;
