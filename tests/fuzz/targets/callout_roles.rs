//! Roles of NATS clients: no panic; whatever is taken gives subjects of the shape that was written, for every SPIFFE ID.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_policies::callout::{
    Accounts, ConnectFacts, ConnectionKind, ConnectionType, CredentialKind, Roles,
};
use portcullis_policies::{Source, SourceKind};

fuzz_target!(|input: (&str, &str)| {
    let (text, id) = input;
    let source = Source { name: "roles.toml".to_owned(), text: text.to_owned(), kind: SourceKind::Grants };
    let (Ok(app), Ok(system)) = ("APP".parse(), "SYS".parse()) else { return };
    let Ok(roles) = Roles::compile(&[source], &[], Accounts::new([app], system, false), 1) else { return };
    let Ok(workload) = id.parse() else { return };
    let facts = ConnectFacts {
        workload,
        kind: ConnectionKind::Client,
        connection: ConnectionType::Nats,
        ip: [127, 0, 0, 1].into(),
        credentials: [CredentialKind::X509].into(),
        nkey: None,
        nkey_is_bound: false,
    };
    match roles.decide(&facts) {
        Err(denial) => assert!(denial.to_string().len() <= 2048),
        Ok(placed) => {
            assert_eq!(placed.account().as_str(), "APP");
            assert!((30..=86_400).contains(&placed.lifetime()));
            let role = roles.roles().find(|role| role.id() == placed.role()).expect("the role is there");
            let written = role.publish().iter().map(|subject| subject.as_str().matches(['.', '*', '>']).count());
            let filled = placed.publish().iter().map(|subject| subject.as_str().matches(['.', '*', '>']).count());
            assert!(written.eq(filled), "a part of a SPIFFE ID changed the shape of a subject");
        }
    }
});
