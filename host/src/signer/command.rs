//! `exec:COMMAND`: a command that gets the bytes to sign on standard input and writes the signature to standard output.
//!
//! Works for key services, Vault, an agent: whatever a line of shell can ask. No shell of ours: the words are split and run as they
//! are. It has a deadline, its answer a largest size; what it says on standard error goes to the user's.
//!
//! The answer may be the signature itself, base64 of it, or Vault's `vault:v1:` and base64; ECDSA as DER or as its two numbers.
//! Whichever of these verifies is taken, so guessing wrong cannot make a bad signature pass.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_signing::{Excerpt, SignerKey};

use super::ecdsa;
use crate::limits::SIGNER_ANSWER;

/// A command, split into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    words: Vec<String>,
}

/// Why a command gave no signature.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be split into words.
    #[error("the command after exec: cannot be read: {0}")]
    Words(&'static str),
    /// It does not start.
    #[error("the signing command `{name}` cannot be started: {error}")]
    Start {
        /// Which.
        name: String,
        /// Why.
        error: std::io::Error,
    },
    /// It failed.
    #[error("the signing command `{name}` ended with {ended}")]
    Failed {
        /// Which.
        name: String,
        /// How.
        ended: String,
    },
    /// It takes too long.
    #[error("the signing command `{name}` gave no signature within {} seconds", deadline.as_secs())]
    Slow {
        /// Which.
        name: String,
        /// The time that it had.
        deadline: Duration,
    },
    /// It says too much.
    #[error("the signing command `{0}` wrote more than {SIGNER_ANSWER} bytes")]
    TooMuch(String),
    /// It says nothing.
    #[error("the signing command `{0}` wrote no signature")]
    Nothing(String),
    /// It says something else.
    #[error("what the signing command `{name}` wrote is not a signature of the key {key} over what it was given")]
    NotASignature {
        /// Which.
        name: String,
        /// Which key it should be.
        key: SignerKey,
    },
}

impl CommandError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            CommandError::Words(_) => "close every quote; for pipes and variables run a shell: exec:sh -c '...'",
            CommandError::Start { .. } => "check its name and that it is in PATH",
            CommandError::Failed { .. } => {
                "what it wrote above says why; try it alone with some bytes on standard input"
            }
            CommandError::Slow { .. } => "does it wait for somebody, or for the network?",
            CommandError::TooMuch(_) | CommandError::Nothing(_) => {
                "it must write the signature alone to standard output: the bytes, or their base64"
            }
            CommandError::NotASignature { .. } => {
                "is it another key than --public-key says, or another algorithm? Ed25519 signs the bytes themselves, P-256 their SHA-256"
            }
        }
    }
}

impl Command {
    /// Splits a command into words, as a shell would, and nothing else that a shell would do.
    pub fn parse(text: &str) -> Result<Self, CommandError> {
        let words = shell_words::split(text).map_err(|_| CommandError::Words("a quote is not closed"))?;
        if words.first().is_none_or(String::is_empty) {
            return Err(CommandError::Words("it is empty"));
        }
        Ok(Self { words })
    }

    /// Has `message` signed with `key`, within `deadline`.
    pub fn sign(&self, key: &SignerKey, message: &[u8], deadline: Duration) -> Result<Vec<u8>, CommandError> {
        let answer = self.run(message, deadline)?;
        if answer.trim_ascii().is_empty() {
            return Err(CommandError::Nothing(self.name()));
        }
        let good = readings(&answer).into_iter().find(|reading| key.verify(message, reading));
        good.ok_or_else(|| CommandError::NotASignature { name: self.name(), key: *key })
    }

    fn run(&self, input: &[u8], deadline: Duration) -> Result<Vec<u8>, CommandError> {
        let (program, arguments) = self.words.split_first().ok_or(CommandError::Words("it is empty"))?;
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // A group of its own, so that what it starts ends with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| CommandError::Start { name: self.name(), error })?;
        let (input, stdin, stdout) = (input.to_vec(), child.stdin.take(), child.stdout.take());
        // One that does not read must not hold up the deadline, nor one that does not write.
        std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        let (done, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.map(|stdout| stdout.take(SIGNER_ANSWER + 1).read_to_end(&mut answer));
            let _ = done.send(read.map(|read| read.map(|_| answer)));
        });
        let until = Instant::now() + deadline;
        let answer = heard.recv_timeout(deadline);
        let Ok(answer) = answer else {
            end(&mut child);
            return Err(CommandError::Slow { name: self.name(), deadline });
        };
        let answer = answer.and_then(Result::ok).unwrap_or_default();
        if answer.len() as u64 > SIGNER_ANSWER {
            end(&mut child);
            return Err(CommandError::TooMuch(self.name()));
        }
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(answer),
                Ok(Some(status)) => return Err(CommandError::Failed { name: self.name(), ended: status.to_string() }),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => {
                    end(&mut child);
                    return Err(CommandError::Slow { name: self.name(), deadline });
                }
                Err(error) => return Err(CommandError::Start { name: self.name(), error }),
            }
        }
    }

    fn name(&self) -> String {
        self.words.first().map(|name| Excerpt(name).to_string()).unwrap_or_default()
    }
}

fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What an answer may mean.
fn readings(answer: &[u8]) -> Vec<Vec<u8>> {
    let mut readings = vec![answer.to_vec()];
    if let Ok(text) = std::str::from_utf8(answer) {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let text = match text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':')) {
            Some((version, rest)) if version.bytes().all(|b| b.is_ascii_digit()) => rest,
            _ => &text,
        };
        readings.extend(STANDARD.decode(text).ok());
    }
    let pairs: Vec<Vec<u8>> = readings.iter().filter_map(|reading| ecdsa::der(reading)).collect();
    readings.extend(pairs);
    readings
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_signing::{KeyKind, SecretKey};

    #[test]
    fn a_command_is_words_and_no_shell() {
        let words = |text: &str| Command::parse(text).unwrap().words;
        assert_eq!(words("sign --key 'a b' $HOME"), ["sign", "--key", "a b", "$HOME"]);
        for bad in ["", "  ", "'open", "''"] {
            assert!(Command::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_is_read_in_every_form_that_tools_write() {
        let key = SecretKey::generate(KeyKind::Signer).unwrap();
        let signature = key.sign(b"m").to_vec();
        let text = STANDARD.encode(&signature);
        let (one, two) = text.split_at(64);
        let wrapped = format!("{one}\n{two}\n");
        for answer in
            [signature.clone(), text.clone().into_bytes(), wrapped.into_bytes(), format!("vault:v12:{text}\n").into()]
        {
            assert!(readings(&answer).contains(&signature), "{answer:?}");
        }
        assert!(!readings(format!("vault:vx:{text}").as_bytes()).contains(&signature));
    }

    #[test]
    fn a_command_that_fails_says_nothing_or_lies_gives_an_error() {
        let key = SignerKey::from(SecretKey::generate(KeyKind::Signer).unwrap().public());
        let deadline = Duration::from_secs(20);
        let sign = |text: &str| Command::parse(text).unwrap().sign(&key, b"message", deadline).unwrap_err();
        assert!(matches!(sign("/nonexistent/command"), CommandError::Start { .. }));
        assert!(matches!(sign("false"), CommandError::Failed { .. }));
        assert!(matches!(sign("true"), CommandError::Nothing(_)));
        assert!(matches!(sign("cat"), CommandError::NotASignature { .. }));
        assert!(matches!(sign("head -c 100000 /dev/zero"), CommandError::TooMuch(_)));
    }

    #[test]
    fn a_command_that_waits_is_ended_with_all_that_it_started() {
        let temp = tempfile::tempdir().unwrap();
        let pid = temp.path().join("pid");
        let key = SignerKey::from(SecretKey::generate(KeyKind::Signer).unwrap().public());
        // One that keeps its output open, and one that closes it and stays.
        for script in ["sleep 300 & echo $! >{}; wait", "echo x; exec >&-; sleep 300 & echo $! >{}; wait"] {
            let script = script.replace("{}", &pid.display().to_string());
            let command = Command { words: vec!["sh".to_owned(), "-c".to_owned(), script] };
            let began = Instant::now();
            let error = command.sign(&key, b"message", Duration::from_millis(300)).unwrap_err();
            assert!(matches!(error, CommandError::Slow { .. }), "{error}");
            assert!(began.elapsed() < Duration::from_secs(10));
            let stat = format!("/proc/{}/stat", std::fs::read_to_string(&pid).unwrap().trim());
            let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
            let until = Instant::now() + Duration::from_secs(5);
            while !gone() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(gone(), "what the command started goes on");
        }
    }
}
