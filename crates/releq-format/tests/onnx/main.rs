//! ONNX models that are written here, field by field: those that are networks, and those that are refused.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod files;
mod patterns;
mod refused;
mod written;
