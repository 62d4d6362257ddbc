//! The users that a site in operator mode has from the start: the callout's two logins, and the one that everybody is until the
//! callout has decided. What they may do stands here alone, for `callout init`, which makes them, and for `callout renew`, which
//! makes the same again with a later end.

use std::time::Duration;

use portcullis_identity::nats_jwt::{
    AccountSigner, NatsJwtError, Permissions, Queue, Responses, Rights, Subject, Subscription, UserName, UserToken,
};
use portcullis_nkey::PublicKey;
use time::OffsetDateTime;

use super::connection::INBOX;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteUser {
    /// The callout, in its own account.
    Callout,
    /// The callout, in the system account.
    Revoker,
    /// Whoever shows no JWT, in the callout account. May do nothing at all.
    Sentinel,
}

impl SiteUser {
    /// Its name in its token.
    pub fn name(self) -> &'static str {
        match self {
            Self::Callout => "callout",
            Self::Revoker => "revoker",
            Self::Sentinel => "sentinel",
        }
    }

    /// Its token, for the holder of this key: the same for each call but for its end.
    pub fn token(
        self,
        user: PublicKey,
        signer: &AccountSigner,
        until: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<String, NatsJwtError> {
        let name: UserName = self.name().parse()?;
        let token = UserToken::new(user, name, Rights::Explicit(self.rights()?), until)?;
        let token = if self == Self::Sentinel { token.danger_bearer() } else { token };
        token.sign(signer, now)
    }

    fn rights(self) -> Result<Permissions, NatsJwtError> {
        let inbox = Subscription { subject: subject(&format!("{INBOX}.>"))?, queue: None };
        let (publish, subscribe, answers): (&[&str], _, _) = match self {
            Self::Callout => {
                let queue: Queue = "callout".parse().map_err(|_| DEFECT)?;
                let requests = Subscription { subject: subject("$SYS.REQ.USER.AUTH")?, queue: Some(queue) };
                let answers = Responses::new(1, Duration::from_secs(3));
                (&["$SYS.REQ.USER.INFO"], vec![requests, inbox], Some(answers))
            }
            Self::Revoker => (&REVOKER_SUBJECTS, vec![inbox], None),
            Self::Sentinel => return Ok(Permissions::none()),
        };
        let publish = publish.iter().map(|text| subject(text)).collect::<Result<_, _>>()?;
        Permissions::new(publish, subscribe, answers).map_err(|_| DEFECT)
    }
}

fn subject(text: &str) -> Result<Subject, NatsJwtError> {
    text.parse().map_err(|_| DEFECT)
}

const DEFECT: NatsJwtError = NatsJwtError::Defect("the rights of a site's user");
const REVOKER_SUBJECTS: [&str; 5] = [
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.SERVER.*.CONNZ",
    "$SYS.REQ.SERVER.*.KICK",
];
