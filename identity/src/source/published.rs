//! What a source makes known to all who follow it.

use std::sync::Arc;

use crate::bundle_set::BundleSet;

/// What whoever follows a source needs to know.
#[derive(Debug, Clone, Default)]
pub struct SourcePublished {
    /// The bundle of our own trust domain and the foreign ones that the source gives; `None` until it was heard. The sequence of
    /// our own document grows with each change.
    pub bundles: Option<Arc<BundleSet>>,
    /// Grows when held X.509-SVIDs must not be used any more.
    pub svid_epoch: u64,
}
