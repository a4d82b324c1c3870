//! TensorBoard event files: TFRecord frames around `Event` messages.
//!
//! Only what a training curve needs: scalars and pictures. The messages are the fields of
//! `tensorflow/core/util/event.proto` and `framework/summary.proto` that are written; their numbers are part of
//! the format. Wall times come from the caller, who alone reads clocks.

use std::io::{self, Write};

use prost::Message;

use super::crc32c::masked_crc32c;

/// One record of an event file.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    /// First record of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Figure", tags = "2, 4")]
    figure: Option<Figure>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Figure {
    #[prost(float, tag = "2")]
    SimpleValue(f32),
    #[prost(message, tag = "4")]
    Image(SummaryImage),
}

#[derive(Clone, PartialEq, Message)]
struct SummaryImage {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// 3 is RGB.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    /// A whole PNG file.
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}

/// Name of an event file, as TensorBoard looks for it: it must hold `tfevents`, and files of one folder are read
/// in the order of their names. `serial` tells files of the same second apart, such as after a resume.
pub fn event_file_name(wall_seconds: u64, serial: u32) -> String {
    format!("events.out.tfevents.{wall_seconds:010}.{serial}.simsiam-pipe")
}

/// Writes an event file. Each record is whole as soon as its call returns, as far as the sink is.
#[derive(Debug)]
pub struct EventWriter<W: Write> {
    sink: W,
}

impl<W: Write> EventWriter<W> {
    /// Begins a file; a resumed training begins another one in the same folder. `wall_time` is in seconds since
    /// 1970, here and below.
    ///
    /// # Errors
    /// Where the sink fails.
    pub fn new(sink: W, wall_time: f64) -> io::Result<Self> {
        let mut writer = Self { sink };
        writer.event(wall_time, 0, What::FileVersion("brain.Event:2".to_owned()))?;
        Ok(writer)
    }

    /// A figure at a step, such as `train/loss`.
    ///
    /// # Errors
    /// Where the sink fails.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64, wall_time: f64) -> io::Result<()> {
        self.scalars(&[(tag, value)], step, wall_time)
    }

    /// Several figures at one step in one record.
    ///
    /// # Errors
    /// Where the sink fails.
    pub fn scalars(&mut self, figures: &[(&str, f64)], step: u64, wall_time: f64) -> io::Result<()> {
        let value = figures
            .iter()
            .map(|(tag, value)| SummaryValue {
                tag: (*tag).to_owned(),
                figure: Some(Figure::SimpleValue(*value as f32)),
            })
            .collect();
        self.event(wall_time, step, What::Summary(Summary { value }))
    }

    /// A picture at a step: a whole PNG file of this width and height in pixels.
    ///
    /// # Errors
    /// Where the sink fails.
    pub fn image_png(
        &mut self,
        tag: &str,
        step: u64,
        [width, height]: [u32; 2],
        png: &[u8],
        wall_time: f64,
    ) -> io::Result<()> {
        let image = SummaryImage {
            height: i32::try_from(height).unwrap_or(i32::MAX),
            width: i32::try_from(width).unwrap_or(i32::MAX),
            colorspace: 3,
            encoded_image_string: png.to_vec(),
        };
        let value = vec![SummaryValue { tag: tag.to_owned(), figure: Some(Figure::Image(image)) }];
        self.event(wall_time, step, What::Summary(Summary { value }))
    }

    /// Passes everything on to where the sink writes.
    ///
    /// # Errors
    /// Where the sink fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// The sink, flushed.
    ///
    /// # Errors
    /// Where the sink fails.
    pub fn into_inner(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn event(&mut self, wall_time: f64, step: u64, what: What) -> io::Result<()> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let message = Event { wall_time, step, what: Some(what) }.encode_to_vec();
        self.sink.write_all(&frame(&message))
    }
}

/// A TFRecord frame: length, its CRC, the data, its CRC; all little-endian.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut frame = Vec::with_capacity(data.len() + 16);
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    frame.extend_from_slice(data);
    frame.extend_from_slice(&masked_crc32c(data).to_le_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    fn write_example<W: Write>(sink: W) -> W {
        let mut writer = EventWriter::new(sink, 1.5).unwrap();
        writer.scalar("train/loss", 7, -0.75, 2.5).unwrap();
        writer.scalars(&[("train/loss", -0.875), ("knn/top1", 0.5)], 14, 3.5).unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn records_are_the_ones_that_tensorboard_writes() {
        let golden = include_str!("../../tests/golden/report/tensorboard_events.hex");
        assert_eq!(hex(&write_example(vec![])), golden.trim());
    }

    #[test]
    fn a_picture_carries_its_size() {
        let mut writer = EventWriter::new(vec![], 0.0).unwrap();
        let before = writer.sink.len();
        writer.image_png("views", 0, [9, 5], b"png", 0.0).unwrap();
        let record = &writer.sink[before + 12..writer.sink.len() - 4];
        let event = Event::decode(record).unwrap();
        let Some(What::Summary(summary)) = event.what else { panic!("no summary") };
        let Some(Figure::Image(image)) = &summary.value[0].figure else { panic!("no image") };
        assert_eq!((image.width, image.height, image.encoded_image_string.as_slice()), (9, 5, b"png".as_slice()));
    }

    #[test]
    fn names_sort_in_the_order_of_writing() {
        assert!(event_file_name(9, 1) < event_file_name(10, 0));
        assert!(event_file_name(10, 0).contains("tfevents"));
    }

    /// Writes an event file to `TENSORBOARD_FIXTURE_DIR`, where that is set, to be read by TensorBoard itself.
    #[test]
    fn fixture_events_are_written() {
        let Some(dir) = std::env::var_os("TENSORBOARD_FIXTURE_DIR").map(std::path::PathBuf::from) else { return };
        std::fs::create_dir_all(&dir).unwrap();
        let file = std::fs::File::create(dir.join(event_file_name(1, 0))).unwrap();
        let mut writer = EventWriter::new(file, 1.5).unwrap();
        writer.scalar("train/loss", 7, -0.75, 2.5).unwrap();
        writer.scalars(&[("train/loss", -0.875), ("knn/top1", 0.5)], 14, 3.5).unwrap();
        let mut png = std::io::Cursor::new(vec![]);
        image::RgbImage::from_pixel(3, 2, image::Rgb([10, 20, 30]))
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        writer.image_png("views", 0, [3, 2], &png.into_inner(), 4.5).unwrap();
        writer.flush().unwrap();
    }
}
