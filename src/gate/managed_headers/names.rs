//! Names that proxies and frameworks trust, in lower case and without separators.
//!
//! A list is sorted, so that a lookup is a binary search. A family is the start of names, and no family is the start of
//! another one.

use std::sync::LazyLock;

/// First letters of all names and families, sorted. Most other names differ in them.
static STARTS: LazyLock<Vec<[u8; 4]>> = LazyLock::new(|| {
    let lists = [&FORWARDING, &USER].into_iter();
    let names = lists.flat_map(|list| list.names.iter().chain(list.families));
    let mut starts: Vec<[u8; 4]> = names.filter_map(|name| start(name.as_bytes())).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
});

/// Names and families of names with one meaning.
pub(super) struct TrustedNames {
    names: &'static [&'static str],
    families: &'static [&'static str],
}

/// Client address, original target, scheme and client certificate, as a proxy reports them.
pub(super) const FORWARDING: TrustedNames = TrustedNames {
    names: &[
        "cfconnectingip",   // Cloudflare
        "cfconnectingipv6", // Cloudflare
        "cfpseudoipv4",     // Cloudflare
        "cfvisitor",        // Cloudflare: scheme
        "clientip",         // Rails' `remote_ip` (ActionDispatch::RemoteIp)
        "cloudfrontforwardedproto",
        "cloudfrontvieweraddress",
        "doconnectingip", // DigitalOcean
        "fastlyclientip",
        "fastlyssl",
        "flyclientip",
        "forwarded", // RFC 7239
        "forwardedfor",
        "forwardedforip",
        "frontendhttps", // Microsoft IIS and Exchange
        "incapclientip", // Imperva
        "pathinfo",      // gunicorn's `forwarder_headers`
        "proxyclientip", // WebLogic
        "remoteaddr",    // CGI (RFC 3875)
        "remotehost",    // CGI
        "remoteip",
        "remoteport",   // CGI
        "scriptname",   // gunicorn's `forwarder_headers`: moves the start of the path
        "trueclientip", // Akamai, Cloudflare
        "xappengineremoteaddr",
        "xappengineuserip",
        "xarrclientcert", // Azure App Service
        "xarrssl",        // Azure App Service
        "xazureclientip",
        "xazuresocketip",
        "xclientaddr",
        "xclientip", // Apache mod_remoteip, Azure
        "xclusterclientip",
        "xhost",
        "xhttphostoverride",
        "xnfclientconnectionip", // Netlify
        "xoriginatingip",
        "xproxyuserip",
        "xrealip", // nginx
        "xscheme", // ingress-nginx
        "xscriptname",
        "xsucuriclientip",
        "xtrueclientip",
        "xtrueip",
        "xurischeme",
        "xurlscheme",
    ],
    families: &[
        "clientcert", // RFC 9440
        "flyforwarded",
        "sslclient", // ingress-nginx
        "wlproxy",   // WebLogic
        "xamznmtls", // AWS ALB
        "xclientcert",
        "xenvoy",
        "xforwarded",
        "xoriginal",
        "xrewrite",
        "xssl",
        "xtlsclient",
        "xvercelforwarded",
    ],
};

/// User, groups and claims, as an authenticating proxy reports them.
pub(super) const USER: TrustedNames = TrustedNames {
    names: &[
        "ivcreds", // IBM WebSEAL
        "ivgroups",
        "ivremoteaddress",
        "ivuser",
        "oamremoteuser", // Oracle Access Manager
        "remoteemail",   // Authelia
        "remotegroup",
        "remotegroups",  // Authelia
        "remotename",    // Authelia
        "remoteuser",    // CGI, Authelia
        "smuniversalid", // SiteMinder
        "smuser",
        "smuserdn",
        "xanonymousconsumer",     // Kong, APISIX
        "xapigatewayapiuserinfo", // Google API Gateway
        "xauthemail",             // Keycloak Gatekeeper
        "xauthgroups",
        "xauthroles",
        "xauthsubject",
        "xauthuser",
        "xauthuserid",
        "xauthusername",
        "xclientid",
        "xendpointapiuserinfo", // Google Cloud Endpoints
        "xjwtassertion",        // WSO2
        "xjwtpayload",          // Istio
        "xtokensubject",
        "xuser",
        "xuseremail",
        "xusergroup",
        "xusergroups",
        "xuserid",
        "xuserinfo", // Kong, APISIX
        "xusername",
        "xuserrole",
        "xuserroles",
    ],
    families: &[
        "cfaccess",       // Cloudflare Access
        "oidc",           // Apache mod_auth_openidc
        "shib",           // Shibboleth
        "tailscale",      // Tailscale Serve
        "xamznoidc",      // AWS ALB
        "xauthenticated", // Kong
        "xauthentik",
        "xauthrequest",           // oauth2-proxy
        "xconsumer",              // Kong, APISIX
        "xcredential",            // Kong
        "xgoogauthenticateduser", // Google IAP
        "xgoogiap",               // Google IAP
        "xjwtclaim",              // Envoy, Istio
        "xmsclientprincipal",     // Azure App Service
        "xmstoken",               // Azure App Service
        "xpomerium",
        "xremote",  // Kubernetes' authenticating proxy, Apache
        "xvouch",   // Vouch
        "xwebauth", // Grafana
    ],
};

impl TrustedNames {
    /// Returns whether a folded name is in the list or the families.
    pub(super) fn contain(&self, folded: &[u8]) -> bool {
        let is_name = self
            .names
            .binary_search_by(|name| name.as_bytes().cmp(folded));
        is_name.is_ok() || {
            // The start of a name sorts before the name, and after every other family that sorts before it.
            let after = self
                .families
                .partition_point(|family| family.as_bytes() <= folded);
            let nearest = after.checked_sub(1).and_then(|at| self.families.get(at));
            nearest.is_some_and(|family| folded.starts_with(family.as_bytes()))
        }
    }
}

/// Returns whether a folded name starts like one in a list.
pub(super) fn starts_like_listed(folded: &[u8]) -> bool {
    start(folded).is_some_and(|start| STARTS.binary_search(&start).is_ok())
}

fn start(folded: &[u8]) -> Option<[u8; 4]> {
    folded.first_chunk().copied()
}

/// Returns whether a name with these first two letters may be in a list: those of most headers of most requests are in
/// none.
pub(super) fn may_be_listed(first: u8, second: u8) -> bool {
    match first {
        b'x' | b'f' => true,
        b'c' => matches!(second, b'f' | b'l'),
        b'd' => second == b'o',
        b'i' => matches!(second, b'n' | b'v'),
        b'o' => matches!(second, b'a' | b'i'),
        b'p' => matches!(second, b'a' | b'r'),
        b'r' => second == b'e',
        b's' => matches!(second, b'c' | b'h' | b'm' | b's'),
        b't' => matches!(second, b'a' | b'r'),
        b'w' => second == b'l',
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names and families in the tables of the reference, folded.
    fn documented() -> (BTreeSet<String>, BTreeSet<String>) {
        let page = include_str!("../../../docs/reference/identity-and-headers.md");
        let (_, section) = page.split_once("\n### Forwarding headers\n").unwrap();
        let rows = section
            .lines()
            .filter(|line| line.starts_with("| "))
            .skip(2);
        let rows = rows.take_while(|line| !line.starts_with("| header"));
        let cells = rows.filter_map(|row| row.split(" | ").nth(1));
        let written = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let fold = |name: &str| {
            let letters = name.chars().filter(char::is_ascii_alphanumeric);
            letters.collect::<String>().to_ascii_lowercase()
        };
        let (families, names): (Vec<_>, Vec<_>) = written.partition(|name| name.ends_with('*'));
        let folded = |names: Vec<&str>| names.into_iter().map(fold).collect();
        (folded(names), folded(families))
    }

    #[test]
    fn the_reference_lists_exactly_these_names() {
        let (names, families) = documented();
        let all = |of: fn(&TrustedNames) -> &'static [&'static str]| {
            let both = [FORWARDING, USER];
            let names = both.iter().flat_map(of).map(|name| (*name).to_owned());
            names.collect::<BTreeSet<String>>()
        };
        assert_eq!(names, all(|list| list.names));
        assert_eq!(families, all(|list| list.families));
    }

    #[test]
    fn the_lists_are_sorted_folded_and_reachable() {
        for list in [FORWARDING, USER] {
            for all in [list.names, list.families] {
                assert!(all.is_sorted(), "{all:?}");
                for name in all {
                    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                    assert!(name.bytes().all(plain) && name.len() < 48, "{name}");
                    let bytes = name.as_bytes();
                    assert!(may_be_listed(bytes[0], bytes[1]), "{name}");
                    assert!(starts_like_listed(bytes), "{name}");
                    assert!(list.contain(bytes), "{name}");
                }
            }
            for family in list.families {
                let starts = list
                    .families
                    .iter()
                    .filter(|other| family.starts_with(**other));
                assert_eq!(starts.count(), 1, "{family}");
                let inside = list.names.iter().find(|name| name.starts_with(family));
                assert_eq!(inside, None, "{family}");
                assert!(list.contain(format!("{family}zzz").as_bytes()), "{family}");
            }
        }
    }
}
