//! What the identity process counts, and the page of metrics that it gives. The expiries are those of the state of now.

use portcullis_identity::AuthorityState;

use super::keeper::{Keeper, Stop};
use super::rate::Use;
use crate::identity_report::Shown;
use crate::metrics::{Counter, Histogram, Kind, Label, Page};

/// Counters and histograms.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) x509: Counter,
    pub(super) jwt: Counter,
    pub(super) wit: Counter,
    pub(super) exported: Counter,
    pub(super) handshakes: Counter,
    pub(super) signatures: Counter,
    pub(super) tokens_valid: Counter,
    pub(super) tokens_refused: Counter,
    pub(super) denied: Counter,
    pub(super) rotations: Counter,
    pub(super) rotation_failures: Counter,
    mints_limited: Counter,
    signatures_limited: Counter,
    checks_limited: Counter,
    pub(super) x509_time: Histogram,
    pub(super) jwt_time: Histogram,
    pub(super) sign_time: Histogram,
    pub(super) check_time: Histogram,
}

impl Counts {
    /// Refusals over the limit of a use.
    pub(super) fn limited(&self, what: Use) -> &Counter {
        match what {
            Use::Mint => &self.mints_limited,
            Use::Sign => &self.signatures_limited,
            Use::Check => &self.checks_limited,
        }
    }
}

impl Keeper {
    /// The page of metrics.
    pub(super) fn metrics(&self) -> Result<String, Stop> {
        let shown = self.show()?;
        let mut page = Page::default();
        self.counters(&mut page);
        state(&mut page, &shown);
        Ok(page.into_text())
    }

    fn counters(&self, page: &mut Page) {
        let counts = &self.counts;
        let family = |page: &mut Page, name: &str, help: &str, label: &str, rows: &[(&str, &Counter)]| {
            let labels: Vec<[Label<'_>; 1]> = rows.iter().map(|(text, _)| [(label, *text)]).collect();
            let samples = labels.iter().zip(rows).map(|(labels, (_, counter))| (labels.as_slice(), counter.get()));
            page.family(name, Kind::Counter, help, samples);
        };
        family(
            page,
            "portcullis_identity_svids_minted_total",
            "SVIDs minted and recorded.",
            "kind",
            &[("x509", &counts.x509), ("jwt", &counts.jwt), ("wit", &counts.wit)],
        );
        page.number(
            "portcullis_identity_keys_exported_total",
            Kind::Counter,
            "X.509-SVIDs handed out with their private key.",
            counts.exported.get(),
        );
        family(
            page,
            "portcullis_identity_signatures_total",
            "Signatures with keys of X.509-SVIDs.",
            "kind",
            &[("handshake", &counts.handshakes), ("data", &counts.signatures)],
        );
        family(
            page,
            "portcullis_identity_tokens_checked_total",
            "JWT-SVIDs checked for instances.",
            "result",
            &[("valid", &counts.tokens_valid), ("refused", &counts.tokens_refused)],
        );
        page.number("portcullis_identity_denied_total", Kind::Counter, "Denials by policy.", counts.denied.get());
        family(
            page,
            "portcullis_identity_rate_limited_total",
            "Requests over a rate limit.",
            "what",
            &[
                ("mint", &counts.mints_limited),
                ("signature", &counts.signatures_limited),
                ("check", &counts.checks_limited),
            ],
        );
        page.number(
            "portcullis_identity_authority_changes_total",
            Kind::Counter,
            "Authorities prepared, activated, retired, tainted or pruned.",
            counts.rotations.get(),
        );
        page.number(
            "portcullis_identity_rotation_failures_total",
            Kind::Counter,
            "Steps of a rotation that failed and are tried again.",
            counts.rotation_failures.get(),
        );
        page.histograms(
            "portcullis_identity_request_seconds",
            "Time to the answer, the audit record included.",
            [
                (&[("call", "x509")][..], &counts.x509_time),
                (&[("call", "jwt")][..], &counts.jwt_time),
                (&[("call", "sign")][..], &counts.sign_time),
                (&[("call", "check")][..], &counts.check_time),
            ],
        );
    }
}

/// What is so now.
fn state(page: &mut Page, shown: &Shown) {
    let gauge = |page: &mut Page, name: &str, help: &str, value: u64| page.number(name, Kind::Gauge, help, value);
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let revoked = shown.identities.iter().filter(|identity| identity.revoked).count();
    gauge(
        page,
        "portcullis_identity_instances",
        "Instances with an identity.",
        count(shown.identities.len() - revoked),
    );
    gauge(page, "portcullis_identity_instances_revoked", "Instances whose identity is revoked.", count(revoked));
    gauge(page, "portcullis_identity_bundle_sequence", "Sequence of the trust bundle.", shown.bundle_sequence);
    gauge(page, "portcullis_identity_svid_epoch", "Epoch of SVIDs: grows when all are replaced.", shown.svid_epoch);
    let active = shown.authorities.iter().filter(|authority| authority.state == AuthorityState::Active.name());
    let rows: Vec<_> = active.map(|one| ([("kind", one.kind.as_str())], seconds(one.not_after))).collect();
    page.family(
        "portcullis_identity_authority_expiry_timestamp_seconds",
        Kind::Gauge,
        "When the active authority of a kind ends.",
        rows.iter().map(|(labels, value)| (labels.as_slice(), *value)),
    );
    let rows: Vec<_> = shown
        .next
        .iter()
        .map(|next| ([("kind", next.kind.as_str()), ("action", next.action.as_str())], seconds(next.at)))
        .collect();
    page.family(
        "portcullis_identity_next_rotation_timestamp_seconds",
        Kind::Gauge,
        "When the next step of a rotation is due.",
        rows.iter().map(|(labels, value)| (labels.as_slice(), *value)),
    );
    let live = shown.identities.iter().filter(|identity| !identity.revoked);
    if let Some(first) = live.filter_map(|identity| identity.x509_not_after).min() {
        gauge(
            page,
            "portcullis_identity_x509_svid_expiry_timestamp_seconds",
            "When the first of the newest X.509-SVIDs of all instances ends.",
            seconds(first),
        );
    }
    peers(page, shown);
}

/// What others that this host depends on are like.
fn peers(page: &mut Page, shown: &Shown) {
    let labels: Vec<[Label<'_>; 1]> =
        shown.peers.iter().map(|peer| [("trust_domain", peer.trust_domain.as_str())]).collect();
    let rows = || labels.iter().map(<[Label<'_>; 1]>::as_slice).zip(&shown.peers);
    page.family(
        "portcullis_identity_federation_up",
        Kind::Gauge,
        "Whether the last fetch of a federated bundle succeeded.",
        rows().map(|(labels, peer)| (labels, u64::from(peer.problem.is_none() && peer.fetched_at.is_some()))),
    );
    page.family(
        "portcullis_identity_federation_sequence",
        Kind::Gauge,
        "Sequence of a federated bundle that is held.",
        rows().filter_map(|(labels, peer)| Some((labels, peer.sequence?))),
    );
    page.family(
        "portcullis_identity_federation_fetched_timestamp_seconds",
        Kind::Gauge,
        "When a federated bundle was last fetched.",
        rows().filter_map(|(labels, peer)| Some((labels, seconds(peer.fetched_at?)))),
    );
    if let Some(source) = &shown.source {
        page.family(
            "portcullis_identity_source_up",
            Kind::Gauge,
            "Whether the source of identities answers.",
            [(&[("kind", source.kind.as_str())][..], u64::from(source.up))],
        );
    }
}

fn seconds(at: i64) -> u64 {
    u64::try_from(at).unwrap_or_default()
}
