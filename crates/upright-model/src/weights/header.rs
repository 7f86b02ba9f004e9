//! Headers of safetensors files, for writing. The safetensors crate writes metadata in the random
//! order of a hash map and needs all tensors in memory. Here equal tensors must give equal bytes,
//! and tensors are written one by one.

use serde_json::{Map, Value, json};

/// One tensor of a file. Entries are in the order of their bytes.
pub(crate) struct Entry<'a> {
    /// Name of the tensor.
    pub(crate) name: &'a str,
    /// Name of its type in the format, such as `BF16`.
    pub(crate) dtype: &'a str,
    /// Sizes, outermost first.
    pub(crate) shape: &'a [usize],
    /// Bytes of its values.
    pub(crate) bytes: usize,
}

/// All bytes before the tensors' bytes.
pub(crate) fn header<'a>(
    metadata: &[(&str, &str)],
    tensors: impl IntoIterator<Item = Entry<'a>>,
) -> Vec<u8> {
    let mut header = Map::new();
    let metadata: Map<String, Value> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    header.insert("__metadata__".into(), Value::Object(metadata));
    let mut offset = 0;
    for Entry {
        name,
        dtype,
        shape,
        bytes,
    } in tensors
    {
        let end = offset + bytes;
        header.insert(
            name.to_owned(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    // The format aligns its tensors to 8 bytes.
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}
