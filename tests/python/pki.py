"""Authorities and certificates, made by the `cryptography` package: another implementation of X.509 than the broker's."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = datetime.timedelta(hours=1)


def _now():
    return datetime.datetime.now(datetime.timezone.utc)


def _named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Identity:
    """A certificate and its key, in PEM."""

    def __init__(self, certificate, key):
        self.serial = certificate.serial_number
        self.cert = certificate.public_bytes(serialization.Encoding.PEM)
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Authority:
    def __init__(self, name):
        self.name, self.key = _named(name), ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            self._builder(self.name, self.key, -HOUR, 24 * HOUR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject, key, begins, ends):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() + begins)
            .not_valid_after(_now() + ends)
        )

    def issue(self, *, uris=(), hosts=(), addresses=(), begins=-HOUR, ends=HOUR):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        certificate = (
            self._builder(_named("nobody looks here"), key, begins, ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(usages, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Identity(certificate, key)

    def revoke(self, *identities):
        """A list of revoked certificates, in PEM."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(_now() - HOUR).next_update(_now() + HOUR)
        for identity in identities:
            revoked = x509.RevokedCertificateBuilder().serial_number(identity.serial).revocation_date(_now() - HOUR)
            builder = builder.add_revoked_certificate(revoked.build())
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
