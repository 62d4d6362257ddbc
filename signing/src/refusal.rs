//! Why a component is not admitted: a value with a stable code, not a text.
//!
//! Codes and exit codes are an interface: once released they do not change.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::digest::Digest;
use crate::record::Report;

macro_rules! refusal_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $id:literal $name:literal $exit:literal,)+) => {
        /// The reason of a refusal. Listed in the order of the checks: a later one got further.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RefusalCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl RefusalCode {
            /// All codes, in the order of the checks.
            pub const ALL: &'static [RefusalCode] = &[$(RefusalCode::$variant),+];

            /// The stable name, such as `signature.bad`.
            pub fn as_str(self) -> &'static str {
                match self { $(RefusalCode::$variant => $name,)+ }
            }

            /// The stable number, such as `S1101`.
            pub fn id(self) -> &'static str {
                match self { $(RefusalCode::$variant => $id,)+ }
            }

            /// The exit code of a command that ends with it.
            pub fn exit_code(self) -> u8 {
                match self { $(RefusalCode::$variant => $exit,)+ }
            }
        }
    };
}

refusal_codes! {
    /// There is no trust policy or no root key to check it with.
    TrustMissing = "S1701" "trust.missing" 17,
    /// The trust policy is malformed or contradicts itself.
    TrustInvalid = "S1702" "trust.invalid" 17,
    /// Fewer root keys than demanded have signed the trust policy.
    TrustUnsigned = "S1703" "trust.unsigned" 17,
    /// The trust policy is over or not yet valid.
    TrustStale = "S1704" "trust.stale" 17,
    /// The trust policy is older than one that was seen before.
    TrustRolledBack = "S1705" "trust.rolled-back" 17,
    /// The trust policy demands a deny list, and there is none.
    DenyListMissing = "S1706" "deny-list.missing" 17,
    /// The deny list is malformed.
    DenyListInvalid = "S1707" "deny-list.invalid" 17,
    /// Fewer keys than demanded have signed the deny list.
    DenyListUnsigned = "S1708" "deny-list.unsigned" 17,
    /// The deny list is too old.
    DenyListStale = "S1709" "deny-list.stale" 17,
    /// The deny list is older than one that was seen before.
    DenyListRolledBack = "S1710" "deny-list.rolled-back" 17,
    /// The component is larger than the trust policy allows.
    ComponentTooLarge = "S1301" "component.too-large" 13,
    /// There is no evidence.
    EvidenceNone = "S1001" "evidence.none" 10,
    /// There is more evidence than is looked at.
    EvidenceTooMany = "S1002" "evidence.too-many" 10,
    /// The evidence cannot be parsed.
    EvidenceMalformed = "S1003" "evidence.malformed" 10,
    /// The evidence is of a media type that is not accepted.
    EvidenceMediaType = "S1004" "evidence.media-type" 10,
    /// The evidence is of a kind that is not supported.
    EvidenceUnsupported = "S1005" "evidence.unsupported" 10,
    /// An envelope has other than one signature.
    EvidenceSignatures = "S1011" "evidence.signatures" 10,
    /// What verifies the evidence failed.
    EvidenceFailed = "S1006" "evidence.verifier-failed" 10,
    /// The file has more than one embedded token.
    TokenSeveral = "S1007" "token.several" 10,
    /// The embedded token is not the last section of the file.
    TokenNotLast = "S1008" "token.not-last" 10,
    /// The section of the embedded token is not written in the shortest form.
    TokenEncoding = "S1009" "token.encoding" 10,
    /// The embedded token cannot be read.
    TokenMalformed = "S1010" "token.malformed" 10,
    /// A delegation beside the evidence was not signed by a signer that is known.
    DelegationUnsigned = "S1208" "delegation.unsigned" 12,
    /// The trust policy does not know the key.
    SignerUnknown = "S1201" "signer.unknown" 12,
    /// A delegation beside the evidence is malformed.
    DelegationInvalid = "S1209" "delegation.invalid" 12,
    /// A chain of delegations is too long.
    DelegationDepth = "S1210" "delegation.too-deep" 12,
    /// A delegation may not be to this kind of signer.
    SignerKind = "S1211" "signer.kind" 12,
    /// A delegation is wider than that of its maker.
    DelegationWidens = "S1212" "delegation.widens" 12,
    /// The signature is not the signer's over this payload.
    SignatureBad = "S1101" "signature.bad" 11,
    /// The signer's certificate is not one of the pinned authorities'.
    SignatureCertificate = "S1102" "signature.certificate" 11,
    /// The evidence of the transparency log does not hold.
    SignatureLog = "S1103" "signature.log" 11,
    /// The time of the signature is not proven.
    SignatureTime = "S1104" "signature.time" 11,
    /// What was signed is not a statement of component claims.
    ClaimsType = "S1302" "claims.type" 13,
    /// The signed statement has other than one subject.
    ClaimsSubjects = "S1312" "claims.subjects" 13,
    /// The claims were made for other bytes.
    ClaimsDigest = "S1303" "claims.digest" 13,
    /// The embedded token was made for other bytes.
    TokenHash = "S1308" "token.hash" 13,
    /// What was signed with cosign is not the manifest of one component.
    CosignManifest = "S1309" "cosign.manifest" 13,
    /// The trust policy supplies no claims for evidence that proves an origin only.
    OriginUnknown = "S1213" "origin.unknown" 12,
    /// The provenance is not what the trust policy demands.
    OriginProvenance = "S1310" "origin.provenance" 13,
    /// The signed claims are malformed.
    ClaimsMalformed = "S1304" "claims.malformed" 13,
    /// The claims do not hold yet.
    TimeNotYet = "S1402" "time.not-yet" 14,
    /// The claims are over.
    TimeExpired = "S1401" "time.expired" 14,
    /// The claims are for other clusters.
    ClaimsAudience = "S1305" "claims.audience" 13,
    /// The signer's delegation is over.
    SignerExpired = "S1202" "signer.expired" 12,
    /// The signer may not speak for this name.
    SignerName = "S1203" "signer.name" 12,
    /// The signer may not give this identity.
    SignerIdentity = "S1204" "signer.identity" 12,
    /// The signer may not speak for this cluster.
    SignerAudience = "S1205" "signer.audience" 12,
    /// The signer may not let a component ask for these imports.
    SignerImports = "S1206" "signer.imports" 12,
    /// The signer may not make claims that hold so long.
    SignerLifetime = "S1207" "signer.lifetime" 12,
    /// Fewer signers than demanded have signed the same claims.
    SignerThreshold = "S1214" "signer.threshold" 12,
    /// Evidence that the trust policy demands is not named in the claims, or not there.
    ClaimsEvidence = "S1311" "claims.evidence" 13,
    /// The revision is below the floor of the trust policy.
    RevisionFloor = "S1501" "revision.below-floor" 15,
    /// The revision is below one that was seen before.
    RevisionRolledBack = "S1502" "revision.rolled-back" 15,
    /// The highest revision that was seen cannot be read.
    RevisionUnknown = "S1503" "revision.unknown" 15,
    /// The trust policy denies it.
    Revoked = "S1601" "revoked" 16,
    /// The file is not a component.
    ClaimsNotComponent = "S1306" "claims.not-component" 13,
    /// The component imports what its claims do not name.
    ClaimsImports = "S1307" "claims.imports" 13,
}

/// Why a component is not admitted, for whom, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    code: RefusalCode,
    message: String,
    hint: String,
    details: BTreeMap<&'static str, Vec<String>>,
    digest: Option<Digest>,
    policy_version: Option<u64>,
    others: usize,
    report: Option<Box<Report>>,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            hint: hint.into(),
            details: BTreeMap::new(),
            digest: None,
            policy_version: None,
            others: 0,
            report: None,
        }))
    }

    pub(crate) fn detail(mut self, key: &'static str, values: impl IntoIterator<Item = impl ToString>) -> Self {
        self.0.details.entry(key).or_default().extend(values.into_iter().map(|value| value.to_string()));
        self
    }

    pub(crate) fn about(mut self, digest: &Digest, policy_version: u64, others: usize) -> Self {
        self.0.digest = Some(*digest);
        self.0.policy_version = Some(policy_version);
        self.0.others = others;
        self
    }

    /// Says whose claims these were, once a signature over them is known to be good.
    pub(crate) fn reporting(mut self, report: Report) -> Self {
        self.0.report.get_or_insert_with(|| Box::new(report));
        self
    }

    /// Whose claims were refused; absent: no good signature was found.
    pub(crate) fn report(&self) -> Option<&Report> {
        self.0.report.as_deref()
    }

    /// No trust policy, or no root keys: nothing can be trusted, and nothing is trusted on first use.
    pub fn no_trust() -> Self {
        Self::new(
            RefusalCode::TrustMissing,
            "there is no root key to check the trust policy with",
            "name the root key that you trust: --root O..., or `roots` under [trust] in portcullis.toml",
        )
    }

    /// The reason.
    pub fn code(&self) -> RefusalCode {
        self.0.code
    }

    /// What happened. Text from outside in it is escaped and cut.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The next step.
    pub fn hint(&self) -> &str {
        &self.0.hint
    }

    /// What it is about, such as `imports` with every hidden one, `signer`, `component`.
    pub fn details(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.0.details
    }

    /// The digest of the component.
    pub fn digest(&self) -> Option<&Digest> {
        self.0.digest.as_ref()
    }

    /// The version of the trust policy that was in force.
    pub fn policy_version(&self) -> Option<u64> {
        self.0.policy_version
    }

    /// How many further pieces of evidence were refused as well.
    pub fn others(&self) -> usize {
        self.0.others
    }
}

impl Serialize for RefusalCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.id(), self.0.message)?;
        match self.0.others {
            0 => Ok(()),
            others => write!(f, " (and {others} more piece{} of evidence refused)", if others == 1 { "" } else { "s" }),
        }
    }
}

impl std::error::Error for Refusal {}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::record::DecisionRecord::refused(self).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_numbers_are_unique_and_the_number_holds_the_exit_code() {
        let all = RefusalCode::ALL;
        assert_eq!(all.iter().map(|code| code.as_str()).collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all.iter().map(|code| code.id()).collect::<BTreeSet<_>>().len(), all.len());
        for code in all {
            assert_eq!(code.id().get(1..3).unwrap(), code.exit_code().to_string(), "{code}");
            assert!((10..=18).contains(&code.exit_code()));
        }
    }

    #[test]
    fn the_interface_of_codes_is_pinned() {
        let pinned =
            |name: &str| RefusalCode::ALL.iter().find(|code| code.as_str() == name).map(|code| code.exit_code());
        for (name, exit) in [
            ("evidence.none", 10),
            ("signature.bad", 11),
            ("signer.unknown", 12),
            ("claims.digest", 13),
            ("claims.imports", 13),
            ("claims.not-component", 13),
            ("time.expired", 14),
            ("time.not-yet", 14),
            ("revision.rolled-back", 15),
            ("revoked", 16),
            ("trust.invalid", 17),
        ] {
            assert_eq!(pinned(name), Some(exit), "{name}");
        }
    }

    #[test]
    fn a_refusal_reads_as_number_and_message() {
        let refusal = Refusal::new(RefusalCode::SignatureBad, "the signature is not ci's", "sign again");
        assert_eq!(refusal.to_string(), "S1101: the signature is not ci's");
        let refusal = refusal.about(&Digest::of(b""), 3, 2);
        assert_eq!(refusal.to_string(), "S1101: the signature is not ci's (and 2 more pieces of evidence refused)");
    }
}
