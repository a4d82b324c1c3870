//! Why a report could not be made.

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The page's template failed.
    #[error("cannot render the report")]
    Template(#[from] minijinja::Error),
    /// The summary could not be written as JSON.
    #[error("cannot write the summary as JSON")]
    Json(#[from] serde_json::Error),
}
