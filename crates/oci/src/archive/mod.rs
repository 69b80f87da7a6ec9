//! Image archives.
