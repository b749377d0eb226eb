//! Authorities, certificates and lists of revoked ones, made while a test runs.

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

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

/// An authority, at the root or below another.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The certificates that those below it send along, in PEM.
    chain: String,
    serial: Vec<u8>,
}

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
    pub addresses: Vec<IpAddr>,
    /// What it is for. Empty: it doesn't say.
    pub purposes: Vec<ExtendedKeyUsagePurpose>,
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
        Self {
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            purposes: vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth],
            from: -HOUR,
            until: 24 * HOUR,
        }
    }
}

/// What a list of revoked certificates says besides.
#[derive(Clone, Copy)]
pub struct Issued {
    /// When, in seconds from now.
    pub at: i64,
    /// When the next one is due, in seconds from now.
    pub next: i64,
    pub number: u64,
}

impl Default for Issued {
    fn default() -> Self {
        Self { at: -HOUR, next: 7 * 24 * HOUR, number: 1 }
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let (params, serial) = Self::params(name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, chain: String::new(), serial }
    }

    /// One that this one vouches for.
    pub fn intermediate(&self, name: &str) -> Self {
        let (params, serial) = Self::params(name);
        let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.issuer).unwrap();
        let chain = format!("{}{}", issuer.pem(), self.chain);
        Self { issuer, chain, serial }
    }

    fn params(name: &str) -> (CertificateParams, Vec<u8>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.not_before = at!(-2 * HOUR);
        params.not_after = at!(300 * 24 * HOUR);
        let serial = serial();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        (params, serial)
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its number in the list of the one above it.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// A certificate, for clients and servers alike unless it says otherwise.
    pub fn issue(&self, says: &Says) -> Identity {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "nobody looks here");
        for uri in &says.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        for name in &says.dns_names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().unwrap()));
        }
        params.subject_alt_names.extend(says.addresses.iter().copied().map(SanType::IpAddress));
        params.not_before = at!(says.from);
        params.not_after = at!(says.until);
        params.extended_key_usages.clone_from(&says.purposes);
        let serial = serial();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity { cert: format!("{}{}", cert.pem(), self.chain), key: key.serialize_pem(), serial }
    }

    /// A list that revokes these.
    pub fn revoke(&self, revoked: &[&Identity]) -> String {
        let serials: Vec<_> = revoked.iter().map(|one| one.serial.as_slice()).collect();
        self.revoke_by(Issued::default(), &serials)
    }

    /// A list that revokes those of these numbers.
    pub fn revoke_by(&self, issued: Issued, serials: &[&[u8]]) -> String {
        self.list(issued, serials, KeyIdMethod::Sha256)
    }

    /// A list that says it was signed with the key of `other`, and was not.
    pub fn forge(&self, other: &Self, issued: Issued, serials: &[&[u8]]) -> String {
        let key = CertificateParams::new([]).unwrap().key_identifier(other.issuer.key());
        self.list(issued, serials, KeyIdMethod::PreSpecified(key))
    }

    fn list(&self, issued: Issued, serials: &[&[u8]], key_identifier_method: KeyIdMethod) -> String {
        let params = CertificateRevocationListParams {
            this_update: at!(issued.at),
            next_update: at!(issued.next),
            crl_number: SerialNumber::from(issued.number),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from_slice(serial),
                    revocation_time: at!(-60),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn serial() -> Vec<u8> {
    std::iter::once(1).chain((0..15).map(|_| fastrand::u8(..))).collect()
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
