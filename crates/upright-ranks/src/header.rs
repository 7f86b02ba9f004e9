//! What stands before the bytes of a rank in every gather: the call it makes, and how many it made
//! before.

/// Length of a header in bytes: the kind of call, its number, and its count of values.
pub(crate) const LENGTH: usize = 1 + 8 + 8;

/// A call of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// The names of the hosts, when a world is opened.
    Hosts,
    Gather,
    Broadcast,
    /// A sum of this many values.
    Sum(u64),
    Agree,
    Same,
    /// The world is dropped.
    End,
}

/// The calls and their bytes.
const NAMES: [(u8, &str); 7] = [
    (0, "opens a world"),
    (1, "gathers bytes"),
    (2, "broadcasts bytes"),
    (3, "sums values"),
    (4, "says whether it succeeded"),
    (5, "compares bytes"),
    (6, "has ended"),
];

/// The header of a call: `number` counts calls from 0.
pub(crate) fn encode(call: Call, number: u64) -> Vec<u8> {
    let (kind, count) = match call {
        Call::Hosts => (0, 0),
        Call::Gather => (1, 0),
        Call::Broadcast => (2, 0),
        Call::Sum(count) => (3, count),
        Call::Agree => (4, 0),
        Call::Same => (5, 0),
        Call::End => (6, 0),
    };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes
}

/// The header of the bytes of a rank. `None`: they are too short to have one.
pub(crate) fn of(bytes: &[u8]) -> Option<&[u8; LENGTH]> {
    bytes.first_chunk()
}

/// Whether a rank says whether it succeeded.
pub(crate) fn is_agree(bytes: &[u8]) -> bool {
    let kind = encode(Call::Agree, 0)[0];
    of(bytes).is_some_and(|header| header[0] == kind)
}

/// Whether a rank has ended.
pub(crate) fn is_end(bytes: &[u8]) -> bool {
    let kind = encode(Call::End, 0)[0];
    of(bytes).is_some_and(|header| header[0] == kind)
}

/// What a rank does, after its name: "sums 12 values in call 7".
pub(crate) fn describe(bytes: &[u8]) -> String {
    let Some([kind, numbers @ ..]) = of(bytes) else {
        return "sends something else".to_owned();
    };
    let (number, count) = numbers.split_at(8);
    let [number, count] = [number, count].map(|bytes| {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        u64::from_le_bytes(eight)
    });
    let name = NAMES.iter().find(|(byte, _)| byte == kind);
    match name {
        Some((6, name)) => (*name).to_owned(),
        Some((3, _)) => format!("sums {count} values in call {number}"),
        Some((_, name)) => format!("{name} in call {number}"),
        None => format!("makes an unknown call {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_is_called() {
        for (call, text) in [
            (Call::Gather, "gathers bytes in call 7"),
            (Call::Sum(12), "sums 12 values in call 7"),
            (Call::End, "has ended"),
        ] {
            let bytes = encode(call, 7);
            assert_eq!(bytes.len(), LENGTH);
            assert_eq!(describe(&bytes), text);
        }
        assert_eq!(describe(b"?"), "sends something else");
        assert_eq!(
            describe(&[9; LENGTH]),
            format!("makes an unknown call {}", u64::MAX / 255 * 9)
        );
    }
}
