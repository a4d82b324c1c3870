//! From plain summaries to one page of HTML.
//!
//! [`ReportInputs`] (what the adapter read) → [`Summary`] (view model, `summary.json`) → `report.html` and
//! `summary.md`. Everything here is pure: no files, no clock, no environment.

pub mod advice;
pub mod bar_chart;
pub mod build;
pub mod cells;
pub mod choice;
pub mod embedding_map;
pub mod html;
pub mod label_chart;
pub mod label_efficiency;
pub mod line_chart;
pub mod map_chart;
pub mod map_summary;
pub mod markdown;
pub mod parallel_chart;
pub mod pca;
pub mod pictures;
pub mod predictions;
pub mod report_error;
pub mod run_page;
pub mod summary;
pub mod svg;
pub mod text;
pub mod tsne;
pub mod verdict;

pub use build::{ReportInputs, build_summary};
pub use html::render_html;
pub use markdown::render_markdown;
pub use report_error::ReportError;
pub use summary::Summary;
