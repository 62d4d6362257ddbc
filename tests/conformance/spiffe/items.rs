//! The checklist: what the standard demands of an issuer, a validator and a server, in its order.

use crate::checks::{api, bundle, endpoint, id, jwt, x509};
use crate::item::{Item, Level, Side};

use Level::{Must, Practice, Should};
use Side::{Issuer, Server, Validator};

macro_rules! items {
    ($($id:ident $level:ident $side:ident $clause:literal $what:literal $check:path;)*) => {
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
    wi_05 Must Issuer "WIT-SVID 5" "kid is unique in the bundle" bundle::wi_05;
    tb_01 Must Issuer "Trust Domain and Bundle 4.1" "a JWK Set with keys" bundle::tb_01;
    tb_02 Should Issuer "Trust Domain and Bundle 4.1.1" "spiffe_sequence, an integer" bundle::tb_02;
    tb_03 Should Issuer "Trust Domain and Bundle 4.1.2" "spiffe_refresh_hint, seconds" bundle::tb_03;
    tb_04 Must Issuer "Trust Domain and Bundle 4.2" "each key has kty and a known use" bundle::tb_04;
    tb_05 Should Issuer "Trust Domain and Bundle 4.2" "no undefined parameters" bundle::tb_05;
    we_01 Should Server "Workload Endpoint 4" "a Unix socket" endpoint::we_01;
    we_02 Must Server "Workload Endpoint 6" "no answer without the security header: InvalidArgument" endpoint::we_02;
    we_02_once Practice Server "Workload Endpoint 6" "nor with two of them" endpoint::we_02_once;
    we_03 Must Server "Workload Endpoint 5" "no certificate or token is asked of a caller" endpoint::we_03;
    we_06_extension Must Server "Workload Endpoint 3" "no methods beyond the standard's" endpoint::we_06_extension;
    we_06_reflection Should Server "Workload Endpoint 3" "gRPC reflection" endpoint::we_06_reflection;
    wa_01 Must Server "Workload API 4" "X.509 and JWT profiles; WIT whole or Unimplemented" api::wa_01;
    wa_02 Must Server "Workload API 3" "the full state at once, then silence until something changes" api::wa_02;
    wa_03 Should Server "Workload API 3" "a mandatory field without a value: InvalidArgument" api::wa_03;
    wa_04 Must Server "Workload API 5.2" "whole SVIDs, the key as PKCS#8 DER fits the certificate" api::wa_04;
    wa_05 Must Server "Workload API 5.2" "hints are unique and at most 1,024 bytes" api::wa_05;
    wa_07 Must Server "Workload API 5.2, 6.2" "bundles are keyed by trust domain, the own one among them" api::wa_07;
    wa_08 Must Server "Workload API 6.2" "JWT bundles are JWK Sets of JWT-SVID keys" api::wa_08;
    wa_09 Must Server "Workload API 6.2" "aud as asked for; nobody else's SVID" jwt::wa_09;
    wa_10 Must Server "Workload API 6.2" "validation of a JWT-SVID for one audience" jwt::wa_10;
    wa_11 Must Server "Workload API 7" "WIT-SVIDs with private JWKs, bundles with kids" api::wa_11;
    wa_12 Must Server "Workload API 5.2" "revocation lists, if any, are DER" api::wa_12;
    wa_size Practice Server "gRPC" "messages of less than 4 MiB" api::wa_size;
}
