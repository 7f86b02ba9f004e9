//! The only rank of a world of one.

use upright_base::Result;

use crate::Ranks;

/// One process and no transport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn library(&self) -> String {
        "one process".to_owned()
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![mine.to_vec()])
    }

    fn broadcast(&self, _bytes: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    fn sum(&self, _values: &mut [i64]) -> Result<()> {
        Ok(())
    }

    fn abort(&self) {}
}
