//! The second floor: runs become arms, and arms are compared. An arm is plain data; the other files
//! are functions over the arms of a report.

pub(crate) mod arm;
mod budget;
pub(crate) mod comparisons;
pub(crate) mod fronts;
mod gather;
pub(crate) mod grid;
pub(crate) mod ideal;
pub(crate) mod labels;
pub(crate) mod level;
pub(crate) mod matching;
pub(crate) mod paths;
mod report;
mod scored_models;
pub(crate) mod scores;
pub(crate) mod small;
pub(crate) mod verdict;

pub use arm::{Arm, Role};
pub use fronts::{Best, Front};
pub use ideal::{Comparable, Optimum, Source};
pub use level::Level;
pub use report::Report;
pub use scores::{ArmScore, ModelScore, ReferenceScore, Scores};
pub use small::Small;
pub use verdict::{Claim, NoError, Verdict};
