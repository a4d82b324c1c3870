//! For tests: the files under `schemas/` are what the types say.

use std::path::Path;

use serde_json::Value;

/// Compares `schemas/<name>` with the schema of a type, or rewrites it if `UPDATE_SCHEMAS` is set. Returns it.
///
/// # Panics
/// When they differ.
pub fn check(name: &str, schema: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    let text = format!("{schema:#}\n");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "`schemas/{name}` is not what the types say: run the tests with UPDATE_SCHEMAS=1");
    schema.clone()
}
