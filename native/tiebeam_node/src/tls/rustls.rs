//! TLS by rustls, with the provider ring.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
pub(crate) use tokio_rustls::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage,
    RootCertStore, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{TlsConfig, TlsError, TlsFailure};

/// Both roles of a node, ready for connections.
pub(crate) struct Tls {
    connector: TlsConnector,
    acceptor: Option<TlsAcceptor>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        // No process-wide default: a program may use rustls with another provider beside this one.
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(authorities(&config.ca)?);
        let authority = |reason: &dyn fmt::Display| TlsError::Authority {
            path: config.ca.clone(),
            reason: reason.to_string(),
        };
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| authority(&error))?;
        let verifier = Arc::new(PeerVerifier {
            webpki,
            host: config.verify_host,
        });
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| authority(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (mut client, acceptor) = match &config.identity {
            None => (client.with_no_client_auth(), None),
            Some((certificate, key)) => {
                let unusable = |error: rustls::Error| TlsError::Identity {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    reason: error.to_string(),
                };
                let chain = certificates(certificate)?;
                let secret = secret(key)?;
                let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                    .with_safe_default_protocol_versions()
                    .map_err(unusable)?;
                let server = match config.require_client_certificate {
                    false => server.with_no_client_auth(),
                    true => server.with_client_cert_verifier(
                        WebPkiClientVerifier::builder_with_provider(roots, provider)
                            .build()
                            .map_err(|error| authority(&error))?,
                    ),
                };
                let mut server = server
                    .with_single_cert(chain.clone(), secret.clone_key())
                    .map_err(unusable)?;
                server.session_storage = Arc::new(NoServerSessionStorage {});
                server.send_tls13_tickets = 0;
                let client = client
                    .with_client_auth_cert(chain, secret)
                    .map_err(unusable)?;
                (client, Some(TlsAcceptor::from(Arc::new(server))))
            }
        };
        // Connections last for days: to resume one would save nothing, and would skip the verification.
        client.resumption = Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor,
        })
    }

    /// Whether peers can dial this node.
    pub(crate) fn accepts(&self) -> bool {
        self.acceptor.is_some()
    }

    /// The handshake as client, with the peer of a node on `host`.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, io::Error> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|InvalidDnsNameError| TlsFailure::Host(host.to_owned()))?;
        let secured = self.connector.connect(name, stream).await;
        Ok(secured.map_err(ended)?.into())
    }

    /// The handshake as server.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> Result<TlsStream<S>, io::Error> {
        match &self.acceptor {
            Some(acceptor) => Ok(acceptor.accept(stream).await.map_err(ended)?.into()),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

/// Tells the end of a stream from other errors of it.
fn ended(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => TlsFailure::Closed.into(),
        _ => error,
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authority {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, "certificate", error));
    match found {
        Ok(found) if found.is_empty() => {
            Err(unreadable(path, "certificate", PemError::NoItemsFound))
        }
        found => found,
    }
}

fn secret(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, "private key", error))
}

fn unreadable(path: &Path, wanted: &'static str, error: PemError) -> TlsError {
    let path = path.to_owned();
    match error {
        PemError::NoItemsFound => TlsError::Empty { path, wanted },
        PemError::Io(error) => TlsError::Read {
            path,
            reason: error.to_string(),
        },
        error => TlsError::Read {
            path,
            reason: error.to_string(),
        },
    }
}

/// Verifies a peer that is dialled: its chain always, its host if told so.
#[derive(Debug)]
struct PeerVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    host: bool,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is the last thing that is looked at: all else is in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.host => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

impl Tls {
    /// What rustls has to say in an error of a stream.
    pub(super) fn failure(error: &io::Error) -> Option<TlsFailure> {
        Some(match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(error) => {
                TlsFailure::Certificate(certificate_fault(error))
            }
            rustls::Error::NoCertificatesPresented => {
                TlsFailure::Certificate("it shows none, and this node requires one".to_owned())
            }
            rustls::Error::AlertReceived(alert) => TlsFailure::Alert(alert_meaning(*alert)),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => TlsFailure::NotTls,
            error => TlsFailure::Protocol(error.to_string()),
        })
    }
}

fn certificate_fault(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "it is signed by no authority that this node knows: all nodes of a cluster need certificates of authorities \
             that the others trust"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "it is not made out for the host in the peer's name ({error}): give it a subject alternative name, or \
                 do not verify the host"
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("it has expired ({error})")
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its key or signature is of an unknown kind: use Ed25519, ECDSA of P-256 or P-384, or RSA of 2048 bits or \
             more, with SHA-256 or better"
                .to_owned()
        }
        error => error.to_string(),
    }
}

fn alert_meaning(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it does not know the authority of this node's certificate",
        AlertDescription::CertificateRequired => {
            "it requires a certificate, and this node has none"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateExpired => "it does not take this node's certificate",
        AlertDescription::HandshakeFailure => {
            "it requires a certificate, does not take this node's or finds the host's name not in it, or has no cipher in \
             common with this node"
        }
        AlertDescription::ProtocolVersion => "it speaks neither TLS 1.2 nor TLS 1.3",
        _ => return format!("{alert:?}"),
    };
    format!("{alert:?}: {meaning}")
}
