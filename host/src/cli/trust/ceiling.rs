//! What a signer may say at most, as `trust add` and `trust delegate` take it.

use portcullis_signing::{Audience, Delegation, IdentityPattern, ImportPattern, Lifetime, NamePattern};

/// The ceiling of a delegation.
#[derive(Debug, clap::Args)]
pub struct CeilingArgs {
    /// Component names that it may sign: namespace:name or namespace:*.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "PATTERN")]
    names: Vec<NamePattern>,
    /// Paths of SPIFFE IDs that it may give: ns/demo/sa/greeter or ns/demo/sa/*.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "PATTERN")]
    identity_paths: Vec<IdentityPattern>,
    /// Clusters that it may sign for.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "CLUSTER")]
    audiences: Vec<Audience>,
    /// What its components may import at most: wasi:*, wasi:http/*, wasi:http/types; by default nothing.
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "PATTERN")]
    imports: Vec<ImportPattern>,
    /// How long its claims may hold at most.
    #[arg(long, default_value = "30d", value_name = "TIME")]
    max_lifetime: Lifetime,
}

impl CeilingArgs {
    /// A delegation of this, without an end and not to be handed on.
    pub(super) fn delegation(self) -> Delegation {
        let Self { names, identity_paths, audiences, imports, max_lifetime } = self;
        Delegation { names, identity_paths, audiences, imports, max_lifetime, not_after: None, onward: None }
    }
}
