//! What the OCI image and distribution specifications talk about, as types.
//!
//! Start at [`reference`] (names of images), [`digest`] (what content is called), [`config`] and
//! [`manifest`] (the JSON documents), [`tar`] (the format of a layer) and [`archive`] (the two forms
//! in which images travel as files: `docker save`'s archive and the OCI image layout).
//!
//! This crate opens no files and knows no on-disk store: it reads from [`std::io::Read`] and writes
//! to [`std::io::Write`]. Everything it parses comes from outside and is bounded by [`limits`].

pub mod archive;
pub mod compression;
pub mod config;
pub mod convert;
pub mod digest;
mod error;
pub mod instruction;
pub mod limits;
pub mod manifest;
pub mod reference;
pub mod tar;

pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use error::{Error, Result};
pub use reference::Reference;
