//! `pkcs11:` URIs (RFC 7512): which token, which key, which module, where the PIN is.
//!
//! Known attributes only; a PIN in the URI itself is refused, because command lines are seen by others. Nothing is guessed: token and
//! key must be named.

use std::path::PathBuf;

/// A parsed URI.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uri {
    /// The label of the token.
    pub token: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// The label of the key.
    pub object: Option<String>,
    /// The id of the key.
    pub id: Option<Vec<u8>>,
    /// The module to load.
    pub module: Option<PathBuf>,
    /// The file with the PIN.
    pub pin_file: Option<PathBuf>,
}

/// Why a text is not a URI that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Not of the form of RFC 7512.
    #[error("the pkcs11: URI is malformed near `{0}`")]
    Form(String),
    /// An attribute that is not known.
    #[error("the pkcs11: URI has the attribute `{0}`, which is not supported")]
    Attribute(String),
    /// An attribute twice.
    #[error("the pkcs11: URI has the attribute `{0}` twice")]
    Twice(String),
    /// A PIN where others see it.
    #[error("the pkcs11: URI holds the PIN itself")]
    Pin,
    /// Something that is needed.
    #[error("the pkcs11: URI names no {0}")]
    Missing(&'static str),
}

impl UriError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            UriError::Pin => {
                "it is in the shell's history and in the list of processes now: change it, and name a file with pin-source=file:PATH"
            }
            _ => {
                "for instance 'pkcs11:token=ci;object=signer?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/secrets/pin'"
            }
        }
    }
}

impl Uri {
    /// Parses what follows `pkcs11:`.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let mut uri = Self::default();
        for attribute in path.split(';').chain(query.split('&')).filter(|attribute| !attribute.is_empty()) {
            let form =
                || UriError::Form(portcullis_signing::Excerpt(attribute.split('=').next().unwrap_or("")).to_string());
            let (name, value) = attribute.split_once('=').ok_or_else(form)?;
            if name == "pin-value" {
                return Err(UriError::Pin);
            }
            let bytes = decoded(value).ok_or_else(form)?;
            let text = || String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty()).ok_or_else(form);
            let twice = match name {
                "token" => uri.token.replace(text()?).is_some(),
                "serial" => uri.serial.replace(text()?).is_some(),
                "object" => uri.object.replace(text()?).is_some(),
                "id" => uri.id.replace(bytes.clone()).is_some(),
                "module-path" => uri.module.replace(PathBuf::from(text()?)).is_some(),
                "pin-source" => {
                    let source = text()?;
                    let file = source.strip_prefix("file:").unwrap_or(&source);
                    let file = file.strip_prefix("//").unwrap_or(file);
                    uri.pin_file.replace(PathBuf::from(file)).is_some()
                }
                // The only type that signs; said by tools that print URIs.
                "type" if bytes == b"private" => false,
                other => return Err(UriError::Attribute(portcullis_signing::Excerpt(other).to_string())),
            };
            if twice {
                return Err(UriError::Twice(name.to_owned()));
            }
        }
        for (missing, what) in [
            (uri.token.is_none() && uri.serial.is_none(), "token (token= or serial=)"),
            (uri.object.is_none() && uri.id.is_none(), "key (object= or id=)"),
            (uri.module.is_none(), "module (module-path=)"),
            (uri.pin_file.is_none(), "PIN file (pin-source=file:PATH)"),
        ] {
            if missing {
                return Err(UriError::Missing(what));
            }
        }
        Ok(uri)
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => (digit(bytes.next()?)? << 4) | digit(bytes.next()?)?,
            _ if byte.is_ascii_graphic() => byte,
            _ => return None,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "token=My%20token;object=ci?module-path=/usr/lib/m.so&pin-source=file:/run/pin";

    #[test]
    fn a_uri_names_token_key_module_and_the_file_with_the_pin() {
        let uri = Uri::parse(GOOD).unwrap();
        assert_eq!((uri.token.as_deref(), uri.object.as_deref()), (Some("My token"), Some("ci")));
        assert_eq!(uri.pin_file, Some(PathBuf::from("/run/pin")));
        let by_id = Uri::parse("serial=01;id=%01%ff;type=private?module-path=m&pin-source=/p").unwrap();
        assert_eq!((by_id.id, by_id.pin_file), (Some(vec![1, 255]), Some(PathBuf::from("/p"))));
    }

    #[test]
    fn whatever_is_missing_unknown_or_twice_is_refused() {
        for (text, error) in [
            ("object=a?module-path=m&pin-source=p", UriError::Missing("token (token= or serial=)")),
            ("token=a?module-path=m&pin-source=p", UriError::Missing("key (object= or id=)")),
            ("token=a;object=b?pin-source=p", UriError::Missing("module (module-path=)")),
            ("token=a;object=b?module-path=m", UriError::Missing("PIN file (pin-source=file:PATH)")),
            ("token=a;token=b;object=c", UriError::Twice("token".to_owned())),
            ("token=a;slot-id=1", UriError::Attribute("slot-id".to_owned())),
            ("token=a;type=public", UriError::Attribute("type".to_owned())),
            ("token=%4", UriError::Form("token".to_owned())),
            ("token=%ff", UriError::Form("token".to_owned())),
            ("token", UriError::Form("token".to_owned())),
        ] {
            assert_eq!(Uri::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_pin_in_the_uri_is_refused_and_not_repeated() {
        let error = Uri::parse(&format!("{GOOD}&pin-value=1234567")).unwrap_err();
        assert_eq!(error, UriError::Pin);
        assert!(!format!("{error} {}", error.hint()).contains("1234567"));
    }
}
