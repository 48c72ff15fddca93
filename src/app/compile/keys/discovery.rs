//! Issuers that the URL of a discovery document belongs to.

/// Paths of provider metadata (OpenID Connect Discovery 1.0 section 4, RFC 8414 section 3).
const WELL_KNOWN: [&str; 2] = [
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
];

/// Issuers with their metadata at this URL, if it is a well-known one.
///
/// A `/` at the end of an issuer is removed before the well-known path is appended (OpenID Connect Discovery 1.0 section
/// 4.1) or inserted before its own path (RFC 8414 section 3.1), so two issuers share one URL.
pub(super) fn issuers(url: &str) -> Option<[String; 2]> {
    // Some providers take the tenant or the application as a query.
    let (url, _) = url.split_once(['?', '#']).unwrap_or((url, ""));
    let issuer = WELL_KNOWN.iter().find_map(|path| {
        let appended = url.strip_suffix(path).map(str::to_owned);
        appended.or_else(|| without_inserted(url, path))
    })?;
    let issuer = issuer.trim_end_matches('/');
    Some([issuer.to_owned(), format!("{issuer}/")])
}

/// Removes a well-known path between the host and the path of the issuer.
fn without_inserted(url: &str, path: &str) -> Option<String> {
    let (origin, rest) = url.split_once(path)?;
    let (_, host) = origin.split_once("://")?;
    let is_path = rest.starts_with('/') && rest.len() > 1;
    (is_path && !host.contains('/')).then(|| format!("{origin}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_issuers_of_a_metadata_url() {
        for (url, issuer) in [
            // OpenID Connect Discovery 1.0 sections 4 and 4.1.
            (
                "https://a.example/.well-known/openid-configuration",
                "https://a.example",
            ),
            (
                "https://a.example/issuer1/.well-known/openid-configuration",
                "https://a.example/issuer1",
            ),
            (
                "https://a.example//.well-known/openid-configuration",
                "https://a.example",
            ),
            // RFC 8414 section 3.1.
            (
                "https://a.example/.well-known/oauth-authorization-server",
                "https://a.example",
            ),
            (
                "https://a.example/.well-known/oauth-authorization-server/issuer1",
                "https://a.example/issuer1",
            ),
            (
                "https://a.example/.well-known/openid-configuration/issuer1",
                "https://a.example/issuer1",
            ),
            // Better Auth serves this form too.
            (
                "https://a.example/api/auth/.well-known/oauth-authorization-server",
                "https://a.example/api/auth",
            ),
            (
                "https://[::1]:8443/.well-known/oauth-authorization-server/t/",
                "https://[::1]:8443/t",
            ),
            // Entra ID and Azure AD B2C.
            (
                "https://a.example/tenant/.well-known/openid-configuration?appid=1",
                "https://a.example/tenant",
            ),
        ] {
            let expected = [issuer.to_owned(), format!("{issuer}/")];
            assert_eq!(issuers(url), Some(expected), "{url}");
        }
        for url in [
            "https://a.example/.well-known/openid-configuration/",
            "https://a.example/openid-configuration",
            "https://a.example/x?y=/.well-known/openid-configuration",
            "https://a.example/x/.well-known/openid-configuration/y",
            "https://a.example/.well-known/openid-configurations",
        ] {
            assert_eq!(issuers(url), None, "{url}");
        }
    }
}
