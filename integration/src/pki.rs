//! Keys and certificates of one run: owns the authority and what it signs, as PEM files. Nothing outside the run trusts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use crate::run::RunDir;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Proves who a client is.
    Client,
    /// Proves who a server is.
    Server,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key (PKCS #8).
    pub key: PathBuf,
}

/// A certificate authority of one run.
pub struct Pki {
    run: Arc<RunDir>,
    issuer: CertifiedIssuer<'static, KeyPair>,
    authority: PathBuf,
}

impl Pki {
    /// A new authority; its files are in the run's folder `pki`.
    pub fn new(run: &Arc<RunDir>) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("warm-images-test", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("making the authority")?;
        let authority = run.write("pki/ca.crt", issuer.pem())?;
        Ok(Self { run: Arc::clone(run), issuer, authority })
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The authority's certificate as PEM text: a webhook's `caBundle`.
    pub fn authority_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `common_name`, member of `organization` (Kubernetes reads them as user and group), valid for the
    /// DNS names and addresses in `hosts`. The files are named after `file`.
    pub fn issue(
        &self,
        file: &str,
        common_name: &str,
        organization: Option<&str>,
        hosts: &[&str],
        usage: Usage,
    ) -> Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).with_context(|| format!("names of {common_name}"))?;
        params.distinguished_name = name(common_name, organization);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("signing for {common_name}"))?;
        Ok(Identity {
            certificate: self.run.write(&format!("pki/{file}.crt"), certificate.pem())?,
            key: self.run.write(&format!("pki/{file}.key"), key.serialize_pem())?,
        })
    }

    /// A bare key pair (service-account tokens are signed with one): the private key and the public key.
    pub fn key_pair(&self, file: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        Ok((
            self.run.write(&format!("pki/{file}.key"), key.serialize_pem())?,
            self.run.write(&format!("pki/{file}.pub"), key.public_key_pem())?,
        ))
    }
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}
