//! OpenAPI documents: the routes of an API, and the operations that a route table leaves open.
//!
//! A text becomes a [`Document`], which has [`Operation`]s. [`Table`] has the routes for them; [`Audit`] has the operations
//! that the routes of a gate do not serve as the document says. Nothing here reads a file or a socket.

mod audit;
mod document;
mod operation;
mod table;
mod template;
mod yaml;

pub use audit::{Audit, Finding, FindingKind};
pub use document::{Document, DocumentError, MAX_DOCUMENT_BYTES};
pub use operation::Operation;
pub use table::{Table, TableRoute};

#[cfg(test)]
mod tests;
