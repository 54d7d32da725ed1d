//! The messages of an event file: those fields of TensorFlow's `event.proto`, `summary.proto` and `histogram.proto` that
//! are written here, by their names and numbers there.

/// One record of an event file.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    /// Seconds since 1970-01-01 UTC.
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(oneof = "event::What", tags = "3, 5")]
    pub(super) what: Option<event::What>,
}

pub(super) mod event {
    //! What an [`Event`](super::Event) is about.

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(in super::super) enum What {
        #[prost(string, tag = "3")]
        FileVersion(String),
        #[prost(message, tag = "5")]
        Summary(super::Summary),
    }
}

/// Values of one step.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<Value>,
}

/// `Summary.Value`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(oneof = "value::Content", tags = "2, 4, 5")]
    pub(super) content: Option<value::Content>,
}

pub(super) mod value {
    //! What a [`Value`](super::Value) holds.

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(in super::super) enum Content {
        /// `simple_value`.
        #[prost(float, tag = "2")]
        Scalar(f32),
        #[prost(message, tag = "4")]
        Image(super::Image),
        /// `histo`.
        #[prost(message, tag = "5")]
        Histogram(super::Histogram),
    }
}

/// [`Image::colorspace`] of red, green, blue.
pub(super) const RGB: i32 = 3;

/// `Summary.Image`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    /// In pixels.
    #[prost(int32, tag = "1")]
    pub(super) height: i32,
    /// In pixels.
    #[prost(int32, tag = "2")]
    pub(super) width: i32,
    #[prost(int32, tag = "3")]
    pub(super) colorspace: i32,
    /// A PNG file.
    #[prost(bytes = "vec", tag = "4")]
    pub(super) encoded_image_string: Vec<u8>,
}

/// `HistogramProto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Histogram {
    #[prost(double, tag = "1")]
    pub(super) min: f64,
    #[prost(double, tag = "2")]
    pub(super) max: f64,
    /// How many values there are.
    #[prost(double, tag = "3")]
    pub(super) num: f64,
    #[prost(double, tag = "4")]
    pub(super) sum: f64,
    #[prost(double, tag = "5")]
    pub(super) sum_squares: f64,
    /// The right edge of each bucket, ascending.
    #[prost(double, repeated, tag = "6")]
    pub(super) bucket_limit: Vec<f64>,
    /// How many values are in each bucket.
    #[prost(double, repeated, tag = "7")]
    pub(super) bucket: Vec<f64>,
}
