//! Kind of a caller: a user, or a machine that calls with a token of its own.

use std::fmt;

use super::claims::Claims;

pub use crate::config::CallerKind;

/// Cause for the operator when a machine calls the path of an owner.
pub const OWNS_NO_PATH: &str = "a machine owns no path, whatever its subject";

/// Mark of a machine token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineMark {
    /// `sub` equals this claim with the client ID (RFC 9068 section 2.2).
    Subject(&'static str),
    /// `sub` is the client ID in this claim with `@clients` after it (Auth0).
    ClientsSuffix(&'static str),
    /// `gty` is `client-credentials` (Auth0).
    GrantType,
    /// `idtyp` is `app` (Entra ID).
    IdentityType,
}

impl CallerKind {
    /// Kind of the caller with these claims.
    pub(super) fn of(claims: &Claims) -> Self {
        match MachineMark::find(claims) {
            Some(_) => Self::Machine,
            None => Self::User,
        }
    }
}

impl MachineMark {
    /// Mark in the claims of a token; `None` if the token is for a user.
    pub fn find(claims: &Claims) -> Option<Self> {
        if let (Some(subject), Some((claim, client))) = (claims.text("sub"), client(claims))
            && let Some(rest) = subject.strip_prefix(client)
        {
            match rest {
                "" => return Some(Self::Subject(claim)),
                "@clients" => return Some(Self::ClientsSuffix(claim)),
                _ => {}
            }
        }
        if claims.text("gty") == Some("client-credentials") {
            return Some(Self::GrantType);
        }
        (claims.text("idtyp") == Some("app")).then_some(Self::IdentityType)
    }
}

/// Client that the token was issued to.
pub(super) fn client_id(claims: &Claims) -> Option<&str> {
    client(claims).map(|(_, id)| id)
}

/// Claim with the client ID, and its value: `client_id` (RFC 9068 section 2.2), else `azp` (`OpenID` Connect Core section
/// 2). An empty text identifies no client.
fn client(claims: &Claims) -> Option<(&'static str, &str)> {
    let named = |claim| Some((claim, claims.text(claim).filter(|id| !id.is_empty())?));
    named("client_id").or_else(|| named("azp"))
}

impl fmt::Display for MachineMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(claim) => write!(f, "`sub` equals `{claim}`"),
            Self::ClientsSuffix(claim) => write!(f, "`sub` is `{claim}` with `@clients`"),
            Self::GrantType => f.write_str("`gty` is `client-credentials`"),
            Self::IdentityType => f.write_str("`idtyp` is `app`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_machine_tokens_by_their_claims() {
        for (json, expected) in [
            (r#"{"sub":"alice"}"#, None),
            (r#"{"sub":"alice","client_id":"web","azp":"web"}"#, None),
            (
                r#"{"sub":"web","client_id":"web"}"#,
                Some("`sub` equals `client_id`"),
            ),
            (r#"{"sub":"web","azp":"web"}"#, Some("`sub` equals `azp`")),
            // `client_id` decides, if the token has one.
            (r#"{"sub":"web","client_id":"other","azp":"web"}"#, None),
            (
                r#"{"sub":"web","client_id":7,"azp":"web"}"#,
                Some("`sub` equals `azp`"),
            ),
            (r#"{"sub":"web","client_id":"Web"}"#, None),
            (r#"{"sub":"web2","client_id":"web"}"#, None),
            (r#"{"sub":"","client_id":""}"#, None),
            (r#"{"sub":"@clients","client_id":""}"#, None),
            (r#"{"sub":7,"client_id":7}"#, None),
            (r#"{"client_id":"web"}"#, None),
            (
                r#"{"sub":"web@clients","azp":"web"}"#,
                Some("`sub` is `azp` with `@clients`"),
            ),
            (
                r#"{"sub":"web@clients","client_id":"web"}"#,
                Some("`sub` is `client_id` with `@clients`"),
            ),
            (r#"{"sub":"web@clients"}"#, None),
            (r#"{"sub":"web@clients.example","azp":"web"}"#, None),
            (
                r#"{"sub":"x","gty":"client-credentials"}"#,
                Some("`gty` is `client-credentials`"),
            ),
            (r#"{"sub":"x","gty":"password"}"#, None),
            (r#"{"sub":"x","gty":["client-credentials"]}"#, None),
            (
                r#"{"sub":"oid","azp":"app","idtyp":"app"}"#,
                Some("`idtyp` is `app`"),
            ),
            (r#"{"sub":"oid","azp":"app","idtyp":"user"}"#, None),
            // A service account of Kubernetes.
            (
                r#"{"sub":"system:serviceaccount:portal:report","kubernetes.io":{"namespace":"portal"}}"#,
                None,
            ),
        ] {
            let claims = Claims::parse(json.as_bytes()).unwrap();
            let mark = MachineMark::find(&claims).map(|mark| mark.to_string());
            assert_eq!(mark.as_deref(), expected, "{json}");
            let kind = CallerKind::of(&claims);
            assert_eq!(kind == CallerKind::Machine, expected.is_some(), "{json}");
        }
    }

    #[test]
    fn reads_the_client_from_client_id_or_azp() {
        for (json, expected) in [
            (r#"{"client_id":"web","azp":"other"}"#, Some("web")),
            (r#"{"azp":"other"}"#, Some("other")),
            (r#"{"client_id":["web"],"azp":"other"}"#, Some("other")),
            (r#"{"client_id":"","azp":"other"}"#, Some("other")),
            (r#"{"azp":["other"]}"#, None),
            ("{}", None),
        ] {
            let claims = Claims::parse(json.as_bytes()).unwrap();
            assert_eq!(client_id(&claims), expected, "{json}");
        }
    }
}
