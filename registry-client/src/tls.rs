//! TLS for ureq, with the trust decided per host. Our own connector instead of ureq's, because one
//! connection pool serves all hosts, each with its own certificates, and because certificate
//! authorities are read only when a certificate is there to be judged: a registry on
//! loopback that speaks plain http costs no bundle of 140 roots.

use crate::TlsFiles;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use rustls_pki_types::pem::PemObject;
use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Where Linux distributions keep their certificate authorities; the first that exists is used.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The largest certificate or key file read, in bytes (Debian's bundle has 220 kB).
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The most files read from one directory.
const MAX_FILES: usize = 1000;

/// Why a TLS connection did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The other side speaks something else, presumably http.
    #[error("the server does not speak TLS")]
    NotTls,
    /// The other side hung up during the handshake.
    #[error("the connection was closed during the TLS handshake")]
    Closed,
    /// Alerts and certificates.
    #[error("{0}")]
    Rustls(rustls::Error),
    /// Certificates of ours.
    #[error("{0}")]
    Files(String),
}

impl From<TlsError> for ureq::Error {
    fn from(error: TlsError) -> ureq::Error {
        ureq::Error::Other(Box::new(error))
    }
}

/// What is trusted, per host; made of files that are read at need.
pub(crate) struct Trust {
    files: TlsFiles,
    tls_verify: bool,
    insecure: Vec<String>,
    provider: Arc<CryptoProvider>,
    hosts: Mutex<HashMap<String, Arc<ClientConfig>>>,
    /// The system's authorities, shared by all hosts without some of their own.
    system: OnceLock<Result<RootCertStore, String>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("tls_verify", &self.tls_verify).finish_non_exhaustive()
    }
}

impl Trust {
    pub(crate) fn new(files: TlsFiles, tls_verify: bool, insecure: Vec<String>) -> Arc<Trust> {
        Arc::new(Trust {
            files,
            tls_verify,
            insecure,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            hosts: Mutex::default(),
            system: OnceLock::new(),
        })
    }

    /// Whether this host (`host` or `host:port`) may have any certificate, or none at all.
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let matches = |entry: &String| match entry.strip_prefix('*') {
            Some(domain) => crate::url::host_of(authority).ends_with(domain),
            None => entry == authority,
        };
        !self.tls_verify || self.insecure.iter().any(matches)
    }

    /// Whether plain http may be spoken with this host.
    pub(crate) fn allows_http(&self, authority: &str) -> bool {
        self.is_insecure(authority) || is_loopback(authority)
    }

    fn client_config(self: &Arc<Self>, authority: &str) -> Result<Arc<ClientConfig>, TlsError> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = hosts.get(authority) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.make_config(authority)?);
        hosts.insert(authority.to_owned(), config.clone());
        Ok(config)
    }

    fn make_config(self: &Arc<Self>, authority: &str) -> Result<ClientConfig, TlsError> {
        let own = HostFiles::find(&self.files.certs_d, authority).map_err(TlsError::Files)?;
        let verifier = Verifier {
            trust: self.clone(),
            insecure: self.is_insecure(authority),
            authorities: own.authorities,
            inner: OnceLock::new(),
        };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Rustls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match own.client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::Rustls),
            None => Ok(builder.with_no_client_auth()),
        }
    }

    fn system_roots(&self) -> Result<&RootCertStore, rustls::Error> {
        self.system
            .get_or_init(|| load_system(&self.files))
            .as_ref()
            .map_err(|error| rustls::Error::General(error.clone()))
    }
}

/// `localhost`, 127.0.0.0/8 and ::1, with or without a port.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = crate::url::host_of(authority);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What `certs.d` holds for one host.
#[derive(Default)]
struct HostFiles {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl HostFiles {
    fn find(certs_d: &[PathBuf], authority: &str) -> Result<HostFiles, String> {
        let mut found = HostFiles::default();
        for file in certs_d.iter().flat_map(|dir| list(&dir.join(authority))) {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.authorities.extend(read_certificates(&file)?),
                Some("cert") if found.client.is_none() => {
                    let key_file = file.with_extension("key");
                    let key = PrivateKeyDer::from_pem_slice(&read(&key_file)?)
                        .map_err(|e| format!("{}: no private key in PEM format: {e}", key_file.display()))?;
                    found.client = Some((read_certificates(&file)?, key));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The files of a directory in a stable order; a directory that is not there has none.
fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).take(MAX_FILES).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let error = |e: std::io::Error| format!("read {}: {e}", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(error)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{}: no certificates in PEM format: {e}", path.display()))
}

fn load_system(files: &TlsFiles) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let bundle = match &files.cert_file {
        Some(file) => Some(file.clone()),
        None => SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()),
    };
    if let Some(bundle) = bundle {
        store.add_parsable_certificates(read_certificates(&bundle)?);
    }
    for file in files.cert_dirs.iter().flat_map(|dir| list(dir)) {
        // Such directories hold all sorts of files; what is no certificate is passed over.
        store.add_parsable_certificates(read_certificates(&file).unwrap_or_default());
    }
    Ok(store)
}

/// Judges certificates with webpki once there is one to judge, or accepts any.
struct Verifier {
    trust: Arc<Trust>,
    insecure: bool,
    authorities: Vec<CertificateDer<'static>>,
    inner: OnceLock<Result<Arc<WebPkiServerVerifier>, rustls::Error>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("insecure", &self.insecure).finish_non_exhaustive()
    }
}

impl Verifier {
    fn webpki(&self) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let make = || {
            let mut roots = self.trust.system_roots()?.clone();
            roots.add_parsable_certificates(self.authorities.iter().cloned());
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.trust.provider.clone())
                .build()
                .map_err(|e| rustls::Error::General(format!("no certificate authorities are installed ({e})")))
        };
        self.inner.get_or_init(make).clone()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        self.webpki()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The last link of ureq's connector chain: wraps what the links before it opened in TLS if the URL says https.
#[derive(Debug)]
pub(crate) struct TlsConnector(pub(crate) Arc<Trust>);

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let authority = details.uri.authority().map_or("", |a| a.as_str());
        let name = ServerName::try_from(crate::url::host_of(authority).to_owned())
            .map_err(|_| TlsError::Files(format!("{authority:?} is no host name")))?;
        let config = self.0.client_config(authority)?;
        let mut session = ClientConnection::new(config, name).map_err(TlsError::Rustls)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        session.complete_io(&mut socket).map_err(handshake_error)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned::new(session, socket) })))
    }
}

fn handshake_error(error: std::io::Error) -> ureq::Error {
    use rustls::{Error as Rustls, InvalidMessage};
    match error.get_ref().and_then(|e| e.downcast_ref::<Rustls>()) {
        Some(Rustls::InvalidMessage(InvalidMessage::InvalidContentType)) => TlsError::NotTls.into(),
        Some(other) => TlsError::Rustls(other.clone()).into(),
        None => match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => TlsError::Closed.into(),
            _ => error.into(),
        },
    }
}

/// An established TLS connection, as ureq wants to see it.
pub(crate) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
