//! The Dockerfile language: from text to typed instructions. Nothing here opens a file.
//!
//! In the order a text goes through: [`lines`] joins physical lines into logical ones and takes
//! here-documents along; [`statement`] splits a logical line into keyword, flags and arguments;
//! [`instruction`] gives them types; [`file`] groups them into stages. [`expand`] replaces
//! variables, which happens later, when a stage is evaluated and their values are known. [`check`] finds what is allowed but probably not meant.

pub mod check;
pub mod dockerignore;
pub mod expand;
pub mod file;
pub mod flags;
pub mod glob;
pub mod instruction;
pub mod lines;
pub mod problem;
pub mod statement;
pub mod words;
