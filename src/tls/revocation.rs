//! Certificates that their authority has taken back: revocation lists (CRL, RFC 5280 section 5).

use std::path::Path;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::crl::{CertificateList, TbsCertList};
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5280::ID_CE_ISSUING_DISTRIBUTION_POINT;
use x509_cert::time::Time;

use crate::clock::UnixTime;

use super::{TlsError, pem};

/// What a list must be like for the library: RFC 5280 section 5.2 asks the same of who makes them.
const FORM: &str = "it must be of version 2, with extensions (OpenSSL: `crl_extensions`)";

/// The lists in a file, at most one for each issuer.
#[derive(Debug)]
pub(super) struct RevocationLists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them ends.
    pub(super) expiry: Option<UnixTime>,
}

impl RevocationLists {
    /// Reads a file; at least one list must be in it, because none at all would be asked about nobody.
    pub(super) fn read(file: &Path) -> Result<Self, TlsError> {
        let unusable = |message: String| TlsError::RevocationLists {
            file: file.display().to_string(),
            message,
        };
        let found = CertificateRevocationListDer::pem_file_iter(file).and_then(Iterator::collect);
        let found: Vec<_> = found.map_err(|error| unusable(pem::why(&error)))?;
        let mut read = Vec::new();
        for list in found {
            let parsed = CertificateList::from_der(&list);
            let parsed = parsed.map_err(|error| unusable(format!("{error}; {FORM}")))?;
            if parsed.tbs_cert_list.crl_extensions.is_none() {
                return Err(unusable(format!("a list has no number; {FORM}")));
            }
            if parsed.tbs_cert_list.next_update.is_none() {
                return Err(unusable("a list does not say when it ends".to_owned()));
            }
            read.push((parsed.tbs_cert_list, list));
        }
        if read.is_empty() {
            return Err(unusable("there is none in it".to_owned()));
        }
        // Of two lists that speak of one certificate, the library asks the first alone: that must be the newest.
        read.sort_by_key(|(list, _)| std::cmp::Reverse(seconds(list.this_update)));
        let mut scopes = Vec::new();
        read.retain(|(list, _)| {
            let scope = (list.issuer.clone(), part(list));
            let is_newest = !scopes.contains(&scope);
            scopes.push(scope);
            is_newest
        });
        // A certificate that does not say which part is about it would be looked for in the first of them alone.
        let is_cut = |(at, (list, _)): (usize, &(TbsCertList, _))| {
            let mut others = read.iter().skip(at + 1);
            others.any(|(other, _)| other.issuer == list.issuer)
        };
        if read.iter().enumerate().any(is_cut) {
            return Err(unusable(
                "an issuer has a list for each of several parts; it needs one that is about all of its certificates"
                    .to_owned(),
            ));
        }
        let ends = read.iter().filter_map(|(list, _)| list.next_update);
        let expiry = ends.map(seconds).min();
        Ok(Self {
            expiry: expiry.and_then(|end| i64::try_from(end).ok()).map(UnixTime),
            lists: read.into_iter().map(|(_, list)| list).collect(),
        })
    }
}

/// Which certificates of its issuer a list is about, as it says; nothing if it is about all.
fn part(list: &TbsCertList) -> Option<Vec<u8>> {
    let mut extensions = list.crl_extensions.iter().flatten();
    // The type of this extension in x509-cert names another.
    let part = extensions.find(|one| one.extn_id == ID_CE_ISSUING_DISTRIBUTION_POINT)?;
    Some(part.extn_value.as_bytes().to_vec())
}

fn seconds(time: Time) -> u64 {
    time.to_unix_duration().as_secs()
}
