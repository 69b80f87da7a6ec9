//! Talking to registries: the distribution API ("v2"), its authentication, and the files in which
//! people keep credentials, certificates and mirrors.
//!
//! Start at [`Client`], which knows everything about how to reach registries ([`Options`]), and
//! [`Repository`], one repository in one registry with its mirrors. [`Config`] is the file with
//! mirrors and rewrites, [`DockerConfig`] the file with credentials.
//!
//! The client is a blocking one and is shared between threads: layers move in parallel on a few
//! threads, and a short command does not pay for an async runtime. This crate knows no store and no
//! terminal, and reads no environment variables: proxies and paths are given by the caller. It
//! does read certificates and execute credential helpers.
//!
//! What comes from a registry is bounded and checked: documents against
//! [`oci::limits::MAX_JSON`] and their digests, blobs against their announced size. Whoever reads a
//! blob checks its digest.

mod blob;
mod challenge;
mod client;
mod config;
mod credentials;
mod error;
mod handshake;
mod helper;
mod http;
mod proxy;
mod repository;
mod search;
mod tls;
mod token;
mod upload;

pub use blob::BlobReader;
pub use challenge::{Challenge, parse_challenges};
pub use client::{Client, Download, Login, Options};
pub use config::{Config, Endpoint};
pub use credentials::{Credential, Credentials, DOCKER_HUB_KEY, DockerConfig, Fixed, server_key};
pub use error::{Error, Result};
pub use proxy::Proxies;
pub use repository::{Access, Document, Repository};
pub use search::{SearchFilter, SearchResult};
pub use tls::Roots;
pub use upload::{Source, Uploaded};
