//! From plain summaries to one page of HTML.
