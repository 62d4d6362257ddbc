//! Reads what a cluster exchanges: manifests in both forms, revocation lists, sets of policies, heartbeats, events, marks, and the
//! keys and subjects that they lie under. What is read must be written and read again the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_cluster::{
    Bucket, CloudEvent, ClusterName, Heartbeat, Manifest, ManifestFile, Place, PolicyDocument, RevocationList, Seen, place,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert_eq!(Manifest::parse(&manifest.to_json()).as_ref(), Ok(&manifest));
        let gone = manifest.undeployed(manifest.version().saturating_add(1));
        assert_eq!(Manifest::parse(&gone.to_json()).as_ref(), Ok(&gone));
    }
    let _ = ManifestFile::parse(bytes);
    if let Ok(list) = RevocationList::parse(bytes) {
        assert_eq!(RevocationList::parse(&list.to_json()).as_ref(), Ok(&list));
    }
    if let Ok(set) = PolicyDocument::parse(bytes) {
        assert_eq!(PolicyDocument::parse(&set.to_json()).as_ref(), Ok(&set));
    }
    let _ = Heartbeat::parse(bytes);
    if let Ok(event) = CloudEvent::parse(bytes) {
        assert!(CloudEvent::parse(&event.to_json()).is_ok());
    }
    let Ok(cluster) = "prod".parse::<ClusterName>() else { return };
    let _ = Seen::parse(bytes, &cluster);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for bucket in Bucket::ALL {
        if let Some(found) = Place::parse(bucket, text) {
            assert_eq!(found.key(), text);
            assert_eq!(Place::of_subject(&cluster, &found.subject(&cluster)), Some(found));
        }
    }
    let _ = Place::of_subject(&cluster, text);
    if let Some(host) = place::heartbeat_host(&cluster, text) {
        assert_eq!(place::heartbeat(&cluster, &host), text);
    }
});
