//! What is wrong with a trust policy: every problem of every part, found when it is loaded and not when it is needed.

use super::document::TrustDocument;
use super::identity::is_trust_domain;
use super::origin::OriginEvidence;
use super::signer::SignerEntry;
use crate::component_name::is_label;
use crate::fields::Problems;
use crate::keyless::PinnedRoot;
use crate::limits::{DELEGATION_DEPTH, ROLES, ROTATIONS, SPIFFE_BUNDLES, TEXT_BYTES, TRUSTED_ROOTS};
use crate::svid::SvidAuthorities;
use crate::wascap;

const LABEL: &str = "must be lower-case letters, digits and single dashes";

pub(super) fn signer(at: &str, entry: &SignerEntry, problems: &mut Problems) {
    if !is_label(&entry.name) {
        problems.add(format!("{at}.name"), LABEL);
    }
    if entry.group.as_deref().is_some_and(|group| !is_label(group)) {
        problems.add(format!("{at}.group"), LABEL);
    }
    if entry.roles.len() > ROLES || entry.roles.iter().any(|role| !is_label(role)) {
        problems.add(format!("{at}.roles"), format!("must be at most {ROLES} labels: {LABEL}"));
    }
    entry.identity.check(at, problems);
    let delegation = &entry.delegation;
    for (key, empty) in [
        ("names", delegation.names.is_empty()),
        ("identityPaths", delegation.identity_paths.is_empty()),
        ("audiences", delegation.audiences.is_empty()),
    ] {
        if empty {
            problems.add(format!("{at}.delegation.{key}"), "is empty, so the signer may sign nothing");
        }
    }
    if let Some(onward) = &delegation.onward {
        if !(1..DELEGATION_DEPTH).contains(&onward.depth) {
            let what = format!("must be 1 to {}; absent: nothing may be handed on", DELEGATION_DEPTH - 1);
            problems.add(format!("{at}.delegation.onward.depth"), what);
        }
        if onward.kinds.is_empty() || onward.kinds.len() > ROLES {
            problems.add(format!("{at}.delegation.onward.kinds"), "must name kinds of signers");
        }
    }
}

/// Every chain of delegations ends at the roots, is short, and narrows at each link.
pub(super) fn chains(document: &TrustDocument, problems: &mut Problems) {
    for (index, entry) in document.signers().iter().enumerate() {
        let Some(name) = &entry.parent else { continue };
        let at = format!("signers[{index}].parent");
        let Some(parent) = document.signers().iter().find(|other| other.name == *name) else {
            problems.add(at, format!("there is no signer `{}`", crate::Excerpt(name)));
            continue;
        };
        // INVARIANT: a cycle never ends, so it is longer than any chain that is allowed.
        let mut length = 1;
        let mut above = Some(entry);
        while let Some(parent) = above.and_then(|entry| entry.parent.as_ref()) {
            length += 1;
            if length > DELEGATION_DEPTH {
                break;
            }
            above = document.signers().iter().find(|other| other.name == *parent);
        }
        if length > DELEGATION_DEPTH {
            let what = format!("the chain of delegations is longer than {DELEGATION_DEPTH} signers, or a cycle");
            problems.add(at, what);
            continue;
        }
        if let Some(onward) = &parent.delegation.onward
            && !onward.kinds.contains(&entry.identity.kind())
        {
            problems
                .add(at.clone(), format!("`{name}` may not delegate to signers of the kind {}", entry.identity.kind()));
        }
        for beyond in entry.delegation.beyond(&parent.delegation) {
            problems.add(format!("signers[{index}].delegation"), format!("is wider than that of `{name}`: {beyond}"));
        }
        for role in entry.roles.iter().filter(|role| !parent.roles.contains(role)) {
            problems.add(format!("signers[{index}].roles"), format!("`{name}` has no role `{}`", crate::Excerpt(role)));
        }
    }
}

/// Pinned roots and bundles can be used, and each that a signer needs is there.
pub(super) fn pins(document: &TrustDocument, problems: &mut Problems) {
    if document.sigstore_roots().len() > TRUSTED_ROOTS {
        problems.add("sigstoreRoots", format!("has more than {TRUSTED_ROOTS} entries"));
        return;
    }
    for (name, root) in document.sigstore_roots() {
        if !is_label(name) {
            problems.add("sigstoreRoots", LABEL);
        } else if let Err(error) = PinnedRoot::new(&root.to_string()) {
            problems.add(format!("sigstoreRoots.{name}"), error);
        }
    }
    if document.spiffe_bundles().len() > SPIFFE_BUNDLES {
        problems.add("spiffeBundles", format!("has more than {SPIFFE_BUNDLES} entries"));
        return;
    }
    for (domain, bundle) in document.spiffe_bundles() {
        if !is_trust_domain(domain) {
            problems.add("spiffeBundles", "must be named by trust domains");
        } else if let Err(error) = SvidAuthorities::new(bundle) {
            problems.add(format!("spiffeBundles.{domain}"), error.to_string());
        }
    }
    for (index, entry) in document.signers().iter().enumerate() {
        let (root, bundle) = entry.identity.needs();
        if let Some(root) = root.filter(|root| !document.sigstore_roots().contains_key(*root)) {
            problems.add(format!("signers[{index}]"), format!("needs sigstoreRoots.{}", crate::Excerpt(root)));
        }
        if let Some(domain) = bundle.filter(|domain| !document.spiffe_bundles().contains_key(*domain)) {
            problems.add(format!("signers[{index}]"), format!("needs spiffeBundles.{}", crate::Excerpt(domain)));
        }
    }
    if document.rotations().len() > ROTATIONS {
        problems.add("rotations", format!("has more than {ROTATIONS} entries"));
    }
}

pub(super) fn requirements(document: &TrustDocument, problems: &mut Problems) {
    for (index, requirement) in document.requirements().iter().enumerate() {
        let at = format!("requirements[{index}]");
        if requirement.names.is_empty() {
            problems.add(format!("{at}.names"), "is empty, so it is about nothing");
        }
        if requirement.all.is_empty() && requirement.evidence.is_empty() {
            problems.add(at.clone(), "requires nothing");
        }
        if requirement.all.len() > ROLES || requirement.evidence.len() > ROLES {
            problems.add(at.clone(), format!("has more than {ROLES} parts"));
        }
        for part in &requirement.all {
            let having = document.signers().iter().filter(|entry| entry.roles.contains(&part.role)).count();
            if part.k == 0 || part.k > having {
                let role = crate::Excerpt(&part.role);
                problems.add(
                    format!("{at}.all"),
                    format!("wants {} of the role `{role}`, {having} signers have it", part.k),
                );
            }
        }
        if requirement.evidence.iter().any(|text| !(1..=TEXT_BYTES).contains(&text.len())) {
            problems.add(format!("{at}.evidence"), "must be predicate types");
        }
    }
}

pub(super) fn origins(document: &TrustDocument, problems: &mut Problems) {
    for (index, origin) in document.origins().iter().enumerate() {
        let at = format!("origins[{index}]");
        let Some(entry) = document.signers().iter().find(|entry| entry.name == origin.signer) else {
            problems.add(format!("{at}.signer"), format!("there is no signer `{}`", crate::Excerpt(&origin.signer)));
            continue;
        };
        let from = document.issued_at();
        if let Err(error) = origin.claims(from, from, origin.expires_at) {
            for problem in error.problems() {
                problems.add(at.clone(), problem.to_string());
            }
        }
        let key = entry.identity.key();
        match &origin.evidence {
            OriginEvidence::Provenance(_) | OriginEvidence::Signature {} => {}
            OriginEvidence::Cosign {} if key.is_some() => {}
            OriginEvidence::Wascap { subject } if matches!(key, Some(crate::SignerKey::Ed25519(_))) => {
                if subject.as_deref().is_some_and(|subject| !wascap::is_subject(subject)) {
                    problems.add(format!("{at}.evidence.wascap.subject"), "must be a module key, M...");
                }
            }
            other => {
                let what = format!("`{}` cannot be signed by `{}`: it needs a key", other.name(), entry.name);
                problems.add(format!("{at}.evidence"), what);
            }
        }
    }
}

pub(super) fn deny_list(document: &TrustDocument, problems: &mut Problems) {
    if let Some(rule) = document.deny_list()
        && let Err(error) = rule.signers().checked()
    {
        problems.add("denyList", error.to_string());
    }
}
