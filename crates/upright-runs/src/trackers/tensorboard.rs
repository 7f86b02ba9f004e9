//! TensorBoard event files, with every number of a run's records.
//!
//! A file is a list of records: the length, its checksum, the message, its checksum. A message is
//! TensorFlow's `Event` in the wire format of protocol buffers. Only five of its fields are needed,
//! so it is written by hand.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use upright_base::{Error, Result};

use super::{Tracker, TrackerSpec};
use crate::{
    records::{EvalRecord, StepRecord},
    run_dir::read_lines,
};

/// The tracker of TensorBoard.
pub(crate) static TENSORBOARD: TrackerSpec = TrackerSpec {
    name: "tensorboard",
    about: "event files in tensorboard/ of the run folder",
    open: |run| Box::new(TensorBoard::new(run)),
};

/// Folder of the event files in a run folder.
const FOLDER: &str = "tensorboard";

/// Writes the numbers of every line to an event file under `tensorboard/` in the run folder. A
/// resumed run starts a new file, which has all records from the start and tells TensorBoard to
/// discard the older ones.
struct TensorBoard {
    run: PathBuf,
    /// `None` until the first line.
    file: Option<File>,
}

impl TensorBoard {
    /// Writes events of the run in a folder, which need not exist yet.
    fn new(run: &Path) -> Self {
        Self {
            run: run.to_owned(),
            file: None,
        }
    }

    fn write(&mut self, line: &Map<String, Value>) -> Result<()> {
        self.try_write(line)
            .map_err(|error| Error::io(self.run.join(FOLDER), "write", error))
    }

    fn try_write(&mut self, line: &Map<String, Value>) -> std::io::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut bytes = Vec::new();
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                std::fs::create_dir_all(self.run.join(FOLDER))?;
                let name = format!(
                    "events.out.tfevents.{}.{}.upright",
                    now.as_secs(),
                    now.subsec_nanos()
                );
                bytes.extend(record(&event(now, 0, &text(FILE_VERSION, "brain.Event:2"))));
                bytes.extend(record(&event(
                    now,
                    0,
                    &message(SESSION_LOG, &varint(1, SESSION_START)),
                )));
                for name in ["steps.jsonl", "evals.jsonl"] {
                    let lines = read_lines(&self.run.join(name)).unwrap_or_default();
                    bytes.extend(
                        lines
                            .iter()
                            .filter(|known| *known != line)
                            .flat_map(|known| numbers(now, known)),
                    );
                }
                let path = self.run.join(FOLDER).join(name);
                self.file
                    .insert(File::options().write(true).create_new(true).open(path)?)
            }
        };
        bytes.extend(numbers(now, line));
        file.write_all(&bytes)
    }
}

/// The record for a line.
fn numbers(now: Duration, line: &Map<String, Value>) -> Vec<u8> {
    let step = line.get("step").and_then(Value::as_u64).unwrap_or(0);
    let mut values = Vec::new();
    line.iter()
        .filter(|(name, _)| *name != "step")
        .for_each(|(name, value)| scalars(name, value, &mut values));
    record(&event(now, step, &message(SUMMARY, &values)))
}

impl Tracker for TensorBoard {
    fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.write(&record.line())
    }

    fn evaluation(&mut self, record: &EvalRecord) -> Result<()> {
        self.write(&record.line())
    }
}

// Field numbers, from tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const SESSION_LOG: u64 = 7;
const SUMMARY_VALUE: u64 = 1;
const TAG: u64 = 1;
const SIMPLE_VALUE: u64 = 2;
/// `SessionLog.SessionStatus.START`.
const SESSION_START: u64 = 1;

/// Every number below a key as a value of a summary: `weights/0` for the first of a list.
fn scalars(tag: &str, value: &Value, values: &mut Vec<u8>) {
    match value {
        Value::Number(number) => {
            let mut scalar = text(TAG, tag);
            scalar.extend(key(SIMPLE_VALUE, 5));
            scalar.extend((number.as_f64().unwrap_or(f64::NAN) as f32).to_le_bytes());
            values.extend(message(SUMMARY_VALUE, &scalar));
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| scalars(&format!("{tag}/{index}"), value, values));
        }
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(name, value)| scalars(&format!("{tag}/{name}"), value, values));
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn event(now: Duration, step: u64, what: &[u8]) -> Vec<u8> {
    let mut event = key(WALL_TIME, 1);
    event.extend(now.as_secs_f64().to_le_bytes());
    event.extend(varint(STEP, step));
    event.extend(what);
    event
}

/// The key of a field: its number and its wire type.
fn key(field: u64, kind: u64) -> Vec<u8> {
    number(field << 3 | kind)
}

fn varint(field: u64, value: u64) -> Vec<u8> {
    [key(field, 0), number(value)].concat()
}

fn message(field: u64, bytes: &[u8]) -> Vec<u8> {
    [&key(field, 2)[..], &number(bytes.len() as u64), bytes].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

/// Seven bits per byte, the lowest first.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let checks = [masked(&length).to_le_bytes(), masked(message).to_le_bytes()];
    [&length[..], &checks[0], message, &checks[1]].concat()
}

/// TensorFlow's checksum: CRC-32C, rotated and offset so that the checksum of a checksum is not
/// zero.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: records are short.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(number(300), [0xac, 0x02]);
    }

    /// The records of a file, with verified checksums.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let check =
                |of: &[u8], at: usize| assert_eq!(masked(of).to_le_bytes(), bytes[at..at + 4]);
            check(&bytes[..8], 8);
            check(&bytes[12..12 + length], 12 + length);
            found.push(bytes[12..12 + length].to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    #[test]
    fn every_number_of_a_line_is_written() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(
            run.path().join("steps.jsonl"),
            "{\"step\": 6, \"loss/sft\": 3.0}\n",
        )
        .unwrap();
        let mut board = TensorBoard::new(run.path());
        let step = json!({"step": 7, "weights": [0.25, 0.75], "loss/sft": 1.5, "none": null});
        board.step(&serde_json::from_value(step).unwrap()).unwrap();
        let evaluation = json!({"step": 8, "eval/loss/sft": 2.0});
        let evaluation = serde_json::from_value(evaluation).unwrap();
        board.evaluation(&evaluation).unwrap();
        let files: Vec<_> = std::fs::read_dir(run.path().join("tensorboard"))
            .unwrap()
            .collect();
        let [Ok(file)] = &files[..] else {
            panic!("{files:?}")
        };
        assert!(file.file_name().to_string_lossy().contains("tfevents"));
        let records = records(&std::fs::read(file.path()).unwrap());
        // After the time (9 bytes): the step, then the event.
        assert_eq!(
            records[0][9..],
            [&[0x10, 0][..], &[0x1a, 13], b"brain.Event:2"].concat()
        );
        assert_eq!(
            records[1][9..],
            [0x10, 0, 0x3a, 2, 0x08, 1],
            "a session starts"
        );
        let scalar = |tag: &str, value: f32| {
            let tag = [&[0x0a, tag.len() as u8], tag.as_bytes()].concat();
            let scalar = [&tag[..], &[0x15], &value.to_le_bytes()].concat();
            [&[0x0a, scalar.len() as u8], &scalar[..]].concat()
        };
        let values = scalar("loss/sft", 3.0);
        assert_eq!(
            records[2][9..],
            [&[0x10, 6, 0x2a, values.len() as u8][..], &values].concat(),
            "the earlier lines"
        );
        let values = [
            scalar("weights/0", 0.25),
            scalar("weights/1", 0.75),
            scalar("loss/sft", 1.5),
        ]
        .concat();
        assert_eq!(
            records[3][9..],
            [&[0x10, 7, 0x2a, values.len() as u8][..], &values].concat()
        );
        let values = scalar("eval/loss/sft", 2.0);
        assert_eq!(
            records[4][9..],
            [&[0x10, 8, 0x2a, values.len() as u8][..], &values].concat()
        );
        assert_eq!(records.len(), 5);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("tensorboard"), "a file").unwrap();
        let mut board = TensorBoard::new(run.path());
        let error = board.step(&StepRecord::default()).unwrap_err();
        assert!(
            error.message.contains("tensorboard: cannot write"),
            "{error}"
        );
    }
}
