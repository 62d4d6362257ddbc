//! The checklist: what the standard demands of an issuer, a validator and a server, in its order.

use crate::checks::{api, bundle, endpoint, id, jwt, x509};
use crate::item::{Item, Level, Outcome, Side};

use Level::{Must, Practice, Should};
use Side::{Issuer, Server, Validator};

macro_rules! items {
    ($($id:ident $level:ident $side:ident $clause:literal $what:literal $check:expr;)*) => {
        /// Every item.
        pub const ITEMS: &[Item] = &[$(Item {
            id: stringify!($id), level: $level, side: $side, clause: $clause, what: $what, check: $check,
        }),*];

        /// One test for each item, for one subject.
        macro_rules! tests_of {
            ($subject:path) => {
                $(#[test] fn $id() { crate::judge($subject(), stringify!($id)); })*
            };
        }
        pub(crate) use tests_of;
    };
}

macro_rules! shown {
    ($test:literal) => {
        |evidence| Outcome::shown(evidence, $test)
    };
}

items! {
    id_01 Must Issuer "SPIFFE-ID 2" "scheme spiffe, a trust domain, no query, no fragment" id::id_01;
    id_02 Must Issuer "SPIFFE-ID 2.1" "trust domain of lower-case letters, digits, `.`, `-`, `_`; no port, no user" id::id_02;
    id_03 Must Validator "SPIFFE-ID 2.1" "names that look like addresses or DNS names are not special" id::id_03;
    id_04 Must Issuer "SPIFFE-ID 2.2" "path of plain segments, none empty or of dots, no trailing slash" id::id_04;
    id_05 Must Validator "SPIFFE-ID 2.3" "IDs of up to 2,048 bytes are taken, longer ones not made" id::id_05;
    id_06 Must Validator "SPIFFE-ID 2" "scheme and trust domain without regard to case, path with" id::id_06;
    id_07 Must Issuer "SPIFFE-ID 3" "the signing authority carries the ID of its trust domain" id::id_07;
    id_08 Must Issuer "SPIFFE-ID 3" "ID and key are in the signed part" x509::id_08;
    x5_01 Must Issuer "X509-SVID 2" "exactly one URI SAN, the ID that the message names" x509::x5_01;
    x5_02 Must Issuer "X509-SVID 5.2" "a leaf's ID has a path" x509::x5_02;
    x5_03 Must Issuer "X509-SVID 2" "SAN critical where the subject is empty" x509::x5_03;
    x5_04 Must Issuer "X509-SVID 4.1" "cA FALSE on leaves, TRUE on authorities" x509::x5_04;
    x5_05 Must Issuer "X509-SVID 4.3" "critical key usage: digitalSignature on leaves, keyCertSign on authorities only" x509::x5_05;
    x5_06 Must Issuer "X509-SVID 4.4" "extended key usage with serverAuth and clientAuth" x509::x5_06;
    x5_07 Must Issuer "X509-SVID 3" "an authority's ID has no path and is of the same trust domain" x509::x5_07;
    x5_08 Should Issuer "X509-SVID 4.2" "no name constraints, which many validators refuse" x509::x5_08;
    x5_09 Must Issuer "X509-SVID 5.1" "RFC 5280 path validation (by openssl) with the trust domain's bundle alone" x509::x5_09;
    x5_10 Must Issuer "X509-SVID 6.2" "bundle entries: x509-svid, one x5c, no kid" bundle::x5_10;
    x5_09_refused Must Validator "X509-SVID 5.1" "leaves with no or two URI SANs, CA leaves and wrong key usages are refused" shown!("identity/tests/mtls/leaves.rs::two_uri_names_are_refused");
    x5_09_domain Must Validator "X509-SVID 5.1" "a chain of one trust domain does not vouch for an ID of another" shown!("identity/tests/mtls/domains.rs::a_client_of_a_foreign_domain_passes_only_with_its_bundle_and_never_under_our_name");
    x5_11 Must Validator "X509-SVID 6.2" "entries without x5c are ignored, the first value counts" shown!("identity/src/bundle_document.rs::x5_11_an_entry_without_x5c_is_ignored_and_only_the_first_value_counts");
    x5_basic Practice Issuer "clients" "a leaf has basic constraints" x509::x5_basic;
    x5_serial Practice Issuer "RFC 5280 4.1.2.2" "serials are positive, of 8 to 20 bytes" x509::x5_serial;
    jw_01 Must Issuer "JWT-SVID 2" "header of alg, kid, typ only; compact serialization" jwt::jw_01;
    jw_02 Must Validator "JWT-SVID 2.1" "RS, ES and PS algorithms; none, HMAC and EdDSA are refused" jwt::jw_02;
    jw_03 Must Issuer "JWT-SVID 2.3" "typ JWT or JOSE, if any" jwt::jw_03;
    jw_04 Practice Issuer "JWT-SVID 2.2" "kid is there" jwt::jw_04;
    jw_05 Must Validator "JWT-SVID 3" "sub, aud and exp are there, and tokens without them, for others or expired are refused" jwt::jw_05;
    jw_06 Should Issuer "JWT-SVID 3.3" "a life of at most an hour" jwt::jw_06;
    jw_08 Must Validator "JWT-SVID 6" "the key is in the bundle of the trust domain of sub, and taken from there only" jwt::jw_08;
    jw_forms Must Validator "JWT-SVID 2, 7.1" "JSON serialization, other forms and broken signatures are refused" jwt::jw_forms;
    jw_subject Must Validator "JWT-SVID 3.1" "a sub that is no workload's SPIFFE ID of the domain is refused" jwt::jw_subject;
    jw_keys Must Validator "JWT-SVID 5" "unknown keys and future nbf are refused" jwt::jw_keys;
    jw_root Practice Validator "JWT-SVID 3.1" "so is a sub without a path" jwt::jw_root;
    jw_irregular Practice Validator "JWT-SVID 2" "further header parameters, other types and a missing kid are refused" jwt::jw_irregular;
    wi_01_02 Must Issuer "WIT-SVID 2, 3" "typ wit+jwt, kid, sub, exp, cnf with a public key, no aud" api::wi_01_02;
    wi_04 Must Validator "WIT-SVID 4" "expired, early, unbound and broken WIT-SVIDs are refused" shown!("identity/src/wit_svid.rs::wi_04_expired_early_unbound_and_broken_tokens_are_refused");
    wi_05 Must Issuer "WIT-SVID 5" "kid is unique in the bundle" bundle::wi_05;
    tb_01 Must Issuer "Trust Domain and Bundle 4.1" "a JWK Set with keys" bundle::tb_01;
    tb_02 Should Issuer "Trust Domain and Bundle 4.1.1" "spiffe_sequence, an integer" bundle::tb_02;
    tb_03 Should Issuer "Trust Domain and Bundle 4.1.2" "spiffe_refresh_hint, seconds" bundle::tb_03;
    tb_04 Must Issuer "Trust Domain and Bundle 4.2" "each key has kty and a known use" bundle::tb_04;
    tb_05 Should Issuer "Trust Domain and Bundle 4.2" "no undefined parameters" bundle::tb_05;
    tb_06 Must Validator "Trust Domain and Bundle 3" "bundles stay with their trust domains: none stands in for another" shown!("identity/src/bundle_set.rs::a_foreign_bundle_for_our_own_domain_is_refused");
    bm_01 Must Issuer "Trust Domain and Bundle 5" "a bundle map has each domain once and no refresh hints" shown!("identity/src/bundle_set.rs::bm_01_the_bundle_map_has_each_domain_once_and_no_refresh_hints");
    fe_01 Must Server "Federation 5" "https_web and https_spiffe, as server and client" shown!("tests/conformance/federation.rs::two_hosts_federate_by_both_profiles");
    fe_02 Must Server "Federation 5.1" "URLs are https without user information; GET returns the newest bundle" shown!("tests/conformance/federation.rs::curl_gets_the_same_document_from_the_web_endpoint");
    fe_04 Must Validator "Federation 5.2.2" "https_spiffe: the configured endpoint ID, with the bundle that is held" shown!("identity/tests/federation.rs::fe_04_the_endpoint_is_verified_with_the_bundle_that_is_held_of_its_domain");
    fe_05 Must Validator "Federation 5.1.3" "redirects lead to valid bundle URLs only" shown!("identity/tests/federation.rs::fe_05_a_redirect_leads_to_named_hosts_only_and_the_server_there_must_prove_itself_too");
    fe_07 Should Validator "Federation 6.1" "polled at the hint, told apart by sequence, the last one kept" shown!("tests/conformance/federation.rs::what_was_fetched_survives_a_restart_without_the_peer");
    fe_08 Must Validator "Federation 4" "trust domain, URL and profile are configured, never inferred" shown!("identity/tests/federation.rs::fe_08_the_profiles_do_not_stand_in_for_each_other");
    fe_peer Practice Server "SPIRE" "SPIRE and a host federate with each other" shown!("tests/conformance/federation.rs::spire_and_a_host_federate_with_each_other");
    we_01 Should Server "Workload Endpoint 4" "a Unix socket" endpoint::we_01;
    we_02 Must Server "Workload Endpoint 6" "no answer without the security header: InvalidArgument" endpoint::we_02;
    we_02_once Practice Server "Workload Endpoint 6" "nor with two of them" endpoint::we_02_once;
    we_03 Must Server "Workload Endpoint 5" "no certificate or token is asked of a caller" endpoint::we_03;
    we_05 Must Server "Workload Endpoint 7" "PermissionDenied for a caller without an identity" shown!("tests/attacks/workload_api.rs::a_process_that_fits_no_entry_gets_an_answer_and_no_identity");
    we_06_extension Must Server "Workload Endpoint 3" "no methods beyond the standard's" endpoint::we_06_extension;
    we_06_reflection Should Server "Workload Endpoint 3" "gRPC reflection" endpoint::we_06_reflection;
    wa_01 Must Server "Workload API 4" "X.509 and JWT profiles; WIT whole or Unimplemented" api::wa_01;
    wa_02 Must Server "Workload API 3" "the full state at once, then silence until something changes" api::wa_02;
    wa_03 Should Server "Workload API 3" "a mandatory field without a value: InvalidArgument" api::wa_03;
    wa_04 Must Server "Workload API 5.2" "whole SVIDs, the key as PKCS#8 DER fits the certificate" api::wa_04;
    wa_05 Must Server "Workload API 5.2" "hints are unique and at most 1,024 bytes" api::wa_05;
    wa_06 Should Server "Workload API 3" "PermissionDenied in mid-stream when nothing is entitled any more" shown!("tests/attacks/workload_api.rs::a_revoked_identity_ends_its_streams_at_once_and_stays_revoked_over_a_restart");
    wa_07 Must Server "Workload API 5.2, 6.2" "bundles are keyed by trust domain, the own one among them" api::wa_07;
    wa_08 Must Server "Workload API 6.2" "JWT bundles are JWK Sets of JWT-SVID keys" api::wa_08;
    wa_09 Must Server "Workload API 6.2" "aud as asked for; nobody else's SVID" jwt::wa_09;
    wa_10 Must Server "Workload API 6.2" "validation of a JWT-SVID for one audience" jwt::wa_10;
    wa_11 Must Server "Workload API 7" "WIT-SVIDs with private JWKs, bundles with kids" api::wa_11;
    wa_12 Must Server "Workload API 5.2" "revocation lists, if any, are DER" api::wa_12;
    wa_size Practice Server "gRPC" "messages of less than 4 MiB" api::wa_size;
    be_01 Must Server "Broker Endpoint 4" "no answer without the security header" shown!("tests/conformance/broker.rs::be_01_calls_without_exactly_one_security_header_are_refused");
    be_02 Must Server "Broker Endpoint 5" "mutual TLS with SVIDs and an allow-list" shown!("tests/conformance/broker.rs::be_02_only_listed_brokers_with_an_svid_are_served");
    br_01 Must Server "Broker API 4" "X.509 and JWT profiles for a workload reference" shown!("tests/conformance/broker.rs::br_01_a_listed_broker_gets_svids_and_bundles");
    br_02 Should Server "Broker API 4" "no further methods; reflection" shown!("tests/conformance/broker.rs::br_02_reflection_tells_of_the_service");
    br_03 Must Server "Broker API 5" "references are resolved by the server; unknown types are refused" shown!("tests/conformance/broker.rs::br_03_references_are_resolved_by_the_host_alone");
    br_04 Must Server "Broker API 6" "statuses with their reasons" shown!("tests/conformance/broker.rs::br_04_what_was_not_granted_is_not_given");
    br_05 Must Server "Broker API 6" "streams end when the workload ends" shown!("tests/conformance/broker.rs::br_05_streams_end_when_the_workload_ends");
}
