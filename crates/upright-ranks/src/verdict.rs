//! A rank's result as bytes: its payload, or its error.

use upright_base::{Error, ErrorKind, Result};

/// First byte of a result that is a payload.
const DONE: u8 = 0;

/// First bytes of the kinds of errors.
const KINDS: [(u8, ErrorKind); 3] = [
    (1, ErrorKind::Input),
    (2, ErrorKind::Failure),
    (3, ErrorKind::Interrupted),
];

/// Appends a result: the payload, or the kind, the length of the message, the message and the hint.
pub(crate) fn encode(result: &Result<Vec<u8>>, bytes: &mut Vec<u8>) {
    match result {
        Ok(payload) => {
            bytes.push(DONE);
            bytes.extend_from_slice(payload);
        }
        Err(error) => {
            for (byte, kind) in KINDS {
                if kind == error.kind {
                    bytes.push(byte);
                }
            }
            bytes.extend_from_slice(&(error.message.len() as u64).to_le_bytes());
            bytes.extend_from_slice(error.message.as_bytes());
            bytes.extend_from_slice(error.hint.as_bytes());
        }
    }
}

/// Reads what [`encode`] wrote. `None`: it is something else.
pub(crate) fn decode(bytes: &[u8]) -> Option<Result<Vec<u8>>> {
    let (first, rest) = bytes.split_first()?;
    if *first == DONE {
        return Some(Ok(rest.to_vec()));
    }
    let (_, kind) = KINDS.into_iter().find(|(byte, _)| byte == first)?;
    let (length, text) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (message, hint) = text.split_at_checked(length)?;
    Some(Err(Error {
        kind,
        message: String::from_utf8_lossy(message).into_owned(),
        hint: String::from_utf8_lossy(hint).into_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(result: &Result<Vec<u8>>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode(result, &mut bytes);
        decode(&bytes).unwrap()
    }

    #[test]
    fn results_survive() {
        assert_eq!(there_and_back(&Ok(vec![])).unwrap(), b"");
        assert_eq!(there_and_back(&Ok(vec![1, 0])).unwrap(), [1, 0]);
        for error in [
            Error::input("a"),
            Error::failure("b: ü").hint("do this"),
            Error::interrupted("at step 3").hint("--resume"),
        ] {
            let back = there_and_back(&Err(error.clone())).unwrap_err();
            assert_eq!(
                (back.kind, &back.message, &back.hint),
                (error.kind, &error.message, &error.hint)
            );
        }
    }

    #[test]
    fn other_bytes_are_no_result() {
        for bytes in [&b""[..], &[4], &[1, 2], &[2, 9, 0, 0, 0, 0, 0, 0, 0, b'a']] {
            assert!(decode(bytes).is_none(), "{bytes:?}");
        }
    }
}
