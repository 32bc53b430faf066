//! Which server, and who asks.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use async_nats::ConnectOptions;

use crate::RemoteError;

/// The address of a server and the files that say who asks. Secrets come from files alone: command lines are seen by
/// everybody on a machine.
#[derive(Clone, Debug)]
pub struct Access {
    url: String,
    credentials: Option<Credentials>,
    roots: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

impl Access {
    /// Without credentials, and with the system's root certificates.
    ///
    /// # Errors
    /// [`RemoteError::Address`] unless `url` is `nats://HOST[:PORT]` or `tls://HOST[:PORT]`, or several of them with commas
    /// between, without a user or a password.
    pub fn new(url: &str) -> Result<Self, RemoteError> {
        for server in url.split(',') {
            // What stands before an @ may be a secret, so it is not repeated.
            let shown = || match server.rsplit_once('@') {
                Some((_, host)) => format!("...@{host}"),
                None => server.to_owned(),
            };
            let refuse = |reason| Err(RemoteError::Address { url: shown(), reason });
            let Some(host) = ["nats://", "tls://"].iter().find_map(|s| server.strip_prefix(s))
            else {
                return refuse("expected nats://HOST:PORT or tls://HOST:PORT");
            };
            if host.contains('@') {
                return refuse(
                    "a user or a password in it would be seen by everybody on this machine; put `user:password` into a file and \
                     name that as the credentials",
                );
            }
            if host.is_empty() || host.contains(char::is_whitespace) {
                return refuse("expected nats://HOST:PORT or tls://HOST:PORT");
            }
        }
        Ok(Self { url: url.to_owned(), credentials: None, roots: None, certificate: None })
    }

    /// With credentials.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Trusts the certificates in this PEM file in place of the system's, and talks to no server without TLS.
    #[must_use]
    pub fn root_certificates(mut self, file: PathBuf) -> Self {
        self.roots = Some(file);
        self
    }

    /// Shows this certificate, with this key, both PEM files.
    #[must_use]
    pub fn client_certificate(mut self, certificate: PathBuf, key: PathBuf) -> Self {
        self.certificate = Some((certificate, key));
        self
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn servers(&self) -> Vec<String> {
        self.url.split(',').map(str::to_owned).collect()
    }

    pub(crate) fn options(&self) -> Result<ConnectOptions, RemoteError> {
        let mut options = match &self.credentials {
            Some(credentials) => credentials.options()?,
            None => ConnectOptions::new(),
        };
        // The client reads these files only when it connects, and does not name them then.
        let readable = |path: &Path| match fs::File::open(path) {
            Ok(_) => Ok(()),
            Err(source) => Err(RemoteError::File { what: "read", path: path.to_owned(), source }),
        };
        if let Some(roots) = &self.roots {
            readable(roots)?;
            options = options.add_root_certificates(roots.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &self.certificate {
            readable(certificate)?;
            readable(key)?;
            options =
                options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        Ok(options)
    }
}

/// Who asks.
#[derive(Clone)]
pub struct Credentials {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// A file of NATS with a token and the seed that signs for it.
    Token(String),
    /// The seed of an nkey.
    Seed(String),
    Password(String, String),
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads a file: credentials of NATS (`.creds`), the seed of an nkey (`SU...`), or `user:password` in one line.
    ///
    /// # Errors
    /// [`RemoteError::File`] if it cannot be read, [`RemoteError::Credentials`] if it is none of these.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RemoteError> {
        let path = path.as_ref().to_owned();
        let text = fs::read_to_string(&path).map_err(|source| RemoteError::File {
            what: "read",
            path: path.clone(),
            source,
        })?;
        let line = text.trim();
        let kind = if line.contains("-----BEGIN NATS USER JWT-----") {
            Kind::Token(text)
        } else if line.contains('\n') {
            return Err(RemoteError::Credentials { path });
        } else if line.starts_with("SU") && line.len() == 58 {
            Kind::Seed(line.to_owned())
        } else if let Some((user, password)) = line.split_once(':')
            && !user.is_empty()
        {
            Kind::Password(user.to_owned(), password.to_owned())
        } else {
            return Err(RemoteError::Credentials { path });
        };
        Ok(Self { path, kind })
    }

    fn options(&self) -> Result<ConnectOptions, RemoteError> {
        Ok(match &self.kind {
            Kind::Token(text) => ConnectOptions::with_credentials(text)
                .map_err(|_| RemoteError::Credentials { path: self.path.clone() })?,
            Kind::Seed(seed) => ConnectOptions::with_nkey(seed.clone()),
            Kind::Password(user, password) => {
                ConnectOptions::with_user_and_password(user.clone(), password.clone())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_and_no_secret() {
        for good in ["nats://localhost", "tls://a:4222,nats://10.0.0.1:1"] {
            assert_eq!(Access::new(good).unwrap().url(), good);
        }
        for (bad, expected) in [
            ("localhost:4222", "nats://HOST:PORT"),
            ("nats://", "nats://HOST:PORT"),
            ("nats://a,", "nats://HOST:PORT"),
            ("nats://ann:geheim@host:4222", "credentials"),
        ] {
            let message = Access::new(bad).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains("geheim"), "{message}");
        }
    }

    #[test]
    fn credentials_are_told_apart_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("who");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Credentials::read(&path)
        };
        let seed = format!("SU{}", "A".repeat(56));
        assert!(matches!(read(&seed).unwrap().kind, Kind::Seed(_)));
        let password = read("ann:ge:heim\n").unwrap();
        assert!(
            matches!(&password.kind, Kind::Password(user, word) if user == "ann" && word == "ge:heim")
        );
        assert!(!format!("{password:?}").contains("heim"));
        for bad in ["", "ann", ":x", "a:b\nc:d"] {
            assert!(matches!(read(bad), Err(RemoteError::Credentials { .. })), "{bad}");
        }
        let missing = Credentials::read(folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"));
    }
}
