//! Authorities, certificates and lists of revoked ones, made while a test runs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use b2binpay_broker::clock::{Clock as _, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

/// In seconds.
pub const HOUR: i64 = 60 * 60;

/// The time this many seconds from now. The type is a crate's that rcgen doesn't give us the name of.
macro_rules! at {
    ($seconds:expr) => {{
        let now = SystemClock.now().wall.as_second();
        let since = u64::try_from(now + $seconds).expect("no certificate is that old");
        date_time_ymd(1970, 1, 1) + Duration::from_secs(since)
    }};
}

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert: String,
    pub key: String,
    pub serial: Vec<u8>,
}

/// What a certificate says.
pub struct Says {
    pub uris: Vec<&'static str>,
    pub dns_names: Vec<&'static str>,
    /// From when, in seconds from now.
    pub from: i64,
    /// Until when, in seconds from now.
    pub until: i64,
}

impl Says {
    /// A caller's name, for long enough.
    pub fn uri(uri: &'static str) -> Self {
        Self { uris: vec![uri], ..Self::default() }
    }

    /// A host's name, for long enough.
    pub fn dns(name: &'static str) -> Self {
        Self { dns_names: vec![name], ..Self::default() }
    }
}

impl Default for Says {
    fn default() -> Self {
        Self { uris: Vec::new(), dns_names: Vec::new(), from: -HOUR, until: 24 * HOUR }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = at!(-2 * HOUR);
        params.not_after = at!(300 * 24 * HOUR);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for clients and servers alike.
    pub fn issue(&self, says: &Says) -> Identity {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "nobody looks here");
        for uri in &says.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        for name in &says.dns_names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().unwrap()));
        }
        params.not_before = at!(says.from);
        params.not_after = at!(says.until);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let serial: Vec<u8> = std::iter::once(1).chain((0..15).map(|_| fastrand::u8(..))).collect();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem(), serial }
    }

    /// A list that revokes these.
    pub fn revoke(&self, revoked: &[&Identity]) -> String {
        let params = CertificateRevocationListParams {
            this_update: at!(-HOUR),
            next_update: at!(7 * 24 * HOUR),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|one| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(&one.serial),
                    revocation_time: at!(-60),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

/// Puts a file in the place of another as one should: at once.
pub fn replace(path: &Path, content: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, content).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&aside, path).unwrap();
}

/// For how long files that changed may go unnoticed, with room for a busy machine.
pub const NOTICED: Duration = Duration::from_secs(30);
