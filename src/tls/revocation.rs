//! Certificate revocation lists (CRL, RFC 5280 section 5).

use std::path::Path;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::crl::{CertificateList, TbsCertList};
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5280::ID_CE_ISSUING_DISTRIBUTION_POINT;
use x509_cert::time::Time;

use crate::clock::UnixTime;

use super::{TlsError, pem};

/// Required form of a CRL: rustls accepts no other, and RFC 5280 section 5.2 requires it of issuers.
const FORM: &str = "a CRL must be version 2 with extensions (OpenSSL: `crl_extensions`)";

/// CRLs of a file, at most one for each issuer.
#[derive(Debug)]
pub(super) struct RevocationLists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// Earliest `nextUpdate`.
    pub(super) expiry: Option<UnixTime>,
}

impl RevocationLists {
    /// Reads a file with at least one CRL: an empty file would disable revocation checking.
    pub(super) fn read(file: &Path) -> Result<Self, TlsError> {
        let invalid = |message: String| TlsError::RevocationLists {
            file: file.display().to_string(),
            message,
        };
        let found = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
        let found: Vec<_> = found.map_err(|error| invalid(pem::cause(&error)))?;
        let mut read = Vec::new();
        for list in found {
            let parsed = CertificateList::from_der(&list);
            let parsed = parsed.map_err(|error| invalid(format!("{error}; {FORM}")))?;
            if parsed.tbs_cert_list.crl_extensions.is_none() {
                return Err(invalid(format!("a CRL has no extensions; {FORM}")));
            }
            if parsed.tbs_cert_list.next_update.is_none() {
                return Err(invalid("a CRL has no `nextUpdate`".to_owned()));
            }
            read.push((parsed.tbs_cert_list, list));
        }
        if read.is_empty() {
            return Err(invalid("no PEM CRL found".to_owned()));
        }
        // rustls consults only the first CRL that covers a certificate: the newest must come first.
        read.sort_by_key(|(list, _)| std::cmp::Reverse(seconds(list.this_update)));
        let mut scopes = Vec::new();
        read.retain(|(list, _)| {
            let scope = (list.issuer.clone(), partition(list));
            let is_newest = !scopes.contains(&scope);
            scopes.push(scope);
            is_newest
        });
        // A certificate without a distribution point would be looked up only in the first partition.
        let is_partitioned = |(at, (list, _)): (usize, &(TbsCertList, _))| {
            let mut others = read.iter().skip(at + 1);
            others.any(|(other, _)| other.issuer == list.issuer)
        };
        if read.iter().enumerate().any(is_partitioned) {
            return Err(invalid(
                "an issuer has several partitioned CRLs; one CRL must cover all of its certificates"
                    .to_owned(),
            ));
        }
        let next_updates = read.iter().filter_map(|(list, _)| list.next_update);
        let expiry = next_updates.map(seconds).min();
        Ok(Self {
            expiry: expiry.and_then(|end| i64::try_from(end).ok()).map(UnixTime),
            lists: read.into_iter().map(|(_, list)| list).collect(),
        })
    }
}

/// Partition of its issuer's certificates that a CRL covers (RFC 5280 section 5.2.5); none if it covers all.
fn partition(list: &TbsCertList) -> Option<Vec<u8>> {
    let mut extensions = list.crl_extensions.iter().flatten();
    // The x509-cert type of this extension has the OID of another.
    let extension = extensions.find(|one| one.extn_id == ID_CE_ISSUING_DISTRIBUTION_POINT)?;
    Some(extension.extn_value.as_bytes().to_vec())
}

fn seconds(time: Time) -> u64 {
    time.to_unix_duration().as_secs()
}
