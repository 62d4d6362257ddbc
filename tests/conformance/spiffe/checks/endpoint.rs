//! SPIFFE Workload Endpoint: the socket and the security header.

use tonic::Code;

use crate::evidence::Evidence;
use crate::item::Outcome;

pub fn we_01(evidence: &Evidence) -> Outcome {
    Outcome::when(evidence.is_unix_socket, "not a Unix socket")
}

pub fn we_02(evidence: &Evidence) -> Outcome {
    let wrong = evidence.headers.iter().filter(|(name, code)| {
        // More than one value is practice: the standard asks for the header, not for its number.
        !name.ends_with("Twice") && *code != Code::InvalidArgument
    });
    Outcome::unless(wrong.map(|(name, code)| format!("{name}: {code:?}")).collect())
}

pub fn we_02_once(evidence: &Evidence) -> Outcome {
    let wrong =
        evidence.headers.iter().filter(|(name, code)| name.ends_with("Twice") && *code != Code::InvalidArgument);
    Outcome::unless(wrong.map(|(name, code)| format!("{name}: {code:?}")).collect())
}

/// No certificate, no token: the suite showed none, and got its answer.
pub fn we_03(evidence: &Evidence) -> Outcome {
    Outcome::when(evidence.x509.is_ok(), format!("{:?}", evidence.x509.as_ref().err()))
}

pub fn we_06_reflection(evidence: &Evidence) -> Outcome {
    match &evidence.services {
        None => Outcome::Fail("no gRPC reflection".to_owned()),
        Some(services) => {
            Outcome::when(services.iter().any(|name| name == "SpiffeWorkloadAPI"), format!("services {services:?}"))
        }
    }
}

pub fn we_06_extension(evidence: &Evidence) -> Outcome {
    Outcome::when(
        evidence.unknown_method == Code::Unimplemented,
        format!("an unknown method answers {:?}", evidence.unknown_method),
    )
}
