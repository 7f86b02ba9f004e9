//! The first part of a gather: equally many bytes of each rank, with the length of its bytes and,
//! if they are few, the bytes.

/// Bytes that travel with their length.
pub(crate) const SHORT: usize = 248;

/// Length of a block in bytes.
const LENGTH: usize = 8 + SHORT;

/// The block of a rank.
pub(crate) fn encode(mine: &[u8]) -> Vec<u8> {
    let mut block = (mine.len() as u64).to_le_bytes().to_vec();
    block.extend_from_slice(&mine[..mine.len().min(SHORT)]);
    block.resize(LENGTH, 0);
    block
}

/// Reads the blocks of all ranks: how many bytes each rank has, and the first of them.
pub(crate) fn decode(blocks: &[u8]) -> (Vec<usize>, Vec<Vec<u8>>) {
    let (mut lengths, mut firsts) = (Vec::new(), Vec::new());
    let (blocks, _) = blocks.as_chunks::<LENGTH>();
    for block in blocks {
        let (length, bytes) = block.split_at(8);
        let length = length_of(length);
        lengths.push(length);
        firsts.push(bytes[..length.min(SHORT)].to_vec());
    }
    (lengths, firsts)
}

/// Reads a length of eight bytes.
pub(crate) fn length_of(bytes: &[u8]) -> usize {
    let mut eight = [0; 8];
    eight.copy_from_slice(bytes);
    usize::try_from(u64::from_le_bytes(eight)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_lengths_and_first_bytes() {
        let parts = [vec![], vec![1, 2], vec![7; SHORT], vec![8; SHORT + 1]];
        let mut blocks = Vec::new();
        for part in &parts {
            blocks.extend(encode(part));
        }
        let (lengths, firsts) = decode(&blocks);
        for (rank, part) in parts.iter().enumerate() {
            assert_eq!(lengths[rank], part.len());
            assert_eq!(firsts[rank], part[..part.len().min(SHORT)]);
        }
    }
}
