//! The part of TensorBoard's messages that scalars need.
//!
//! # Source
//! `tensorboard/compat/proto/event.proto` and `summary.proto`; fields that are left out have their defaults.

/// One moment of a run.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    /// Step that the values belong to.
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    /// The version of the format, in the first event alone.
    #[prost(string, optional, tag = "3")]
    pub(super) file_version: Option<String>,
    /// Values.
    #[prost(message, optional, tag = "5")]
    pub(super) summary: Option<Summary>,
}

/// Values of one moment.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<Value>,
}

/// A value with its name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    /// Name of the series; slashes make groups.
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    /// The number.
    #[prost(float, optional, tag = "2")]
    pub(super) simple_value: Option<f32>,
}
