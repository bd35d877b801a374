//! Panics as errors.

use crate::error::Error;

/// A panic as an error: of a hook of the node, or a fault of our own.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::bug(format!("a panic: {}", text.unwrap_or("without words")))
}
