//! The policies and the schema that come with the host, as text: what an operator sees is what is compiled.

/// The Cedar schema.
pub const SCHEMA: &str = include_str!("../cedar/schema.cedarschema");
/// The guards. No configuration removes them.
pub const GUARDS: &str = include_str!("../cedar/guards.cedar");
/// What every component may link.
pub const BASELINE: &str = include_str!("../cedar/baseline.cedar");

/// Who controls a host without an entry.
pub const CONTROL: &str = include_str!("../cedar/control.cedar");

/// Ids of guards begin so; no other policy's may.
pub const GUARD_PREFIX: &str = "guard.";
/// The id of the baseline.
pub const BASELINE_ID: &str = "baseline";

/// Name of the guards as a source.
pub(crate) const GUARDS_SOURCE: &str = "shipped/guards.cedar";
/// Name of the policies about control as a source.
pub(crate) const CONTROL_SOURCE: &str = "shipped/control.cedar";
/// Name of the baseline as a source.
pub(crate) const BASELINE_SOURCE: &str = "shipped/baseline.cedar";
