//! Building images: from a Dockerfile to an image in the store.

pub mod language;
