//! Why an operator does not reach NATS, in an operator's words: the keys that are named are those of the operator file, and nothing is
//! said of a host's processes.

use crate::cli::error::{CliError, exit};
use crate::nats::{Cause, NatsError};

/// As an error of the command.
pub fn unreached(code: &str, error: &NatsError) -> CliError {
    CliError::new(exit::TRANSPORT, code, message(error)).with_hint(hint(error))
}

/// What happened.
pub fn message(error: &NatsError) -> String {
    match error {
        NatsError::Down(cause) => format!("no connection to NATS: {}", cause.said_of("this operator")),
        NatsError::Setup(_)
        | NatsError::Denied(_)
        | NatsError::NoResponders(_)
        | NatsError::TimedOut
        | NatsError::Failed(_) => error.to_string(),
    }
}

/// What to do about it.
pub fn hint(error: &NatsError) -> &'static str {
    match error {
        NatsError::Setup(_) => "see [nats] of the operator file",
        NatsError::Denied(_) => {
            "allow it to this operator at the server: `portcullis cluster init --print --cluster NAME --login WHO` prints all that one needs"
        }
        NatsError::Failed(_) => "ask again; the server's log may say more",
        NatsError::Down(cause) => of_cause(cause),
        NatsError::NoResponders(_) | NatsError::TimedOut => error.hint(),
    }
}

fn of_cause(cause: &Cause) -> &'static str {
    match cause {
        Cause::Unresolved => "see nats.servers of the operator file and the resolver of this machine",
        Cause::Unreachable(_) => {
            "see that the server is up, and that nats.servers of the operator file and the network are right"
        }
        Cause::TlsFirst => "the server has handshake_first: set tls.first = true under [nats] of the operator file",
        Cause::WrongAuthority => {
            "see nats.tls.ca of the operator file: it must hold the authority that issued the server's certificate"
        }
        Cause::WrongServer(_) => {
            "see nats.tls.server_id of the operator file: if it is right, somebody else answers at this address"
        }
        Cause::CertificateRefused(_) => {
            "see the server's log: its ca_file must hold the authority of the certificate that nats.auth of the operator file names, which must be alive"
        }
        Cause::Closed => "ask again",
        Cause::Lost => "see the server's log, and ask again",
        Cause::Expired(_) => "renew what nats.auth of the operator file names, and ask again",
        Cause::Credential(_) => "see nats.auth of the operator file and the files that it names",
        Cause::MayNotAsk => {
            "allow publishing to $SYS.REQ.USER.INFO and subscribing to this operator's inbox: `portcullis cluster init --print --cluster NAME --login WHO` prints both"
        }
        Cause::WrongUser { .. } => {
            "see how the server maps certificates and tokens to users; or nats.user of the operator file"
        }
        Cause::WrongAccount { .. } if cause.hint().contains("operator mode") => {
            "the server is in operator mode: there nats.account of the operator file is the account's public key (A...), not its name"
        }
        Cause::WrongAccount { .. } => {
            "see in which account the server has this user; or nats.account of the operator file"
        }
        Cause::Connecting
        | Cause::NoTls
        | Cause::WrongName(_)
        | Cause::ServerExpired
        | Cause::Tls(_)
        | Cause::Refused
        | Cause::Undecided
        | Cause::Unverified
        | Cause::TooLong
        | Cause::Full(_)
        | Cause::Other(_) => cause.hint(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_nothing_of_a_host() {
        let text = || "x".to_owned();
        let causes = [
            Cause::Connecting,
            Cause::Closed,
            Cause::Unresolved,
            Cause::Unreachable(text()),
            Cause::Lost,
            Cause::NoTls,
            Cause::TlsFirst,
            Cause::WrongAuthority,
            Cause::WrongName(text()),
            Cause::ServerExpired,
            Cause::WrongServer(text()),
            Cause::CertificateRefused(text()),
            Cause::Tls(text()),
            Cause::Credential(text()),
            Cause::Refused,
            Cause::Undecided,
            Cause::Expired(text()),
            Cause::Unverified,
            Cause::MayNotAsk,
            Cause::WrongUser { expected: text(), found: text() },
            Cause::WrongAccount { expected: text(), found: text() },
            Cause::TooLong,
            Cause::Full(text()),
            Cause::Other(text()),
        ];
        let down = causes.into_iter().map(NatsError::Down);
        let others =
            [NatsError::Setup(text()), NatsError::Denied(text()), NatsError::TimedOut, NatsError::Failed(text())];
        for error in down.chain(others) {
            let told = unreached("nats.unreachable", &error);
            let all = format!("{} {}", told.message(), told.hint().unwrap_or_default());
            for word in ["this host", "the host", "identity process", "in the configuration", "--host", "see the log"] {
                assert!(!all.contains(word), "{word}: {all}");
            }
        }
        let refused = unreached("x", &NatsError::Down(Cause::Refused));
        assert!(refused.message().contains("does not let this operator in"), "{refused}");
        assert!(Cause::Refused.to_string().contains("does not let this host in"), "a host is told of itself");
    }
}
