//! engine
pub mod engine;
pub mod error;
pub mod settings;
pub mod types;
