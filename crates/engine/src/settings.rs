//! Settings of the engine and where each came from.

/// Settings of the engine.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Log driver of containers that name none; empty is `json-file`.
    pub log_driver: String,
    /// Log options of containers that name none.
    pub log_opts: std::collections::BTreeMap<String, String>,
}
