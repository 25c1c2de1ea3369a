//! Certificates for tests, made anew each time, in files that go when the test ends.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tiebeam_node::TlsConfig;

/// An authority and what it signed.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("tiebeam_tls_{}_{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = format!("authority {number}");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    /// Settings that trust this authority, without a certificate.
    pub(crate) fn trust(&self) -> TlsConfig {
        TlsConfig::new(self.folder.join("ca.pem"))
    }

    /// Settings that trust this authority, with a certificate of it for these hosts.
    pub(crate) fn member(&self, hosts: &[&str]) -> TlsConfig {
        self.certify(self.trust(), hosts, 4000)
    }

    /// Adds a certificate of this authority for these hosts, which expires in the year given.
    pub(crate) fn certify(&self, config: TlsConfig, hosts: &[&str], expires: i32) -> TlsConfig {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.not_after = date_time_ymd(expires, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind| self.folder.join(format!("{number}.{kind}"));
        fs::write(file("pem"), certificate.pem()).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        config.identity(file("pem"), file("key"))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // Left behind in the folder for such things at worst.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
