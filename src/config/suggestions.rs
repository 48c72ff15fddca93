//! Suggestions for misspelled words, and for the words of other products.

/// Suggestion for a word that is not in a closed list.
pub(crate) fn suggest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    misspelled(word, known)
        .or_else(|| alias(word, known))
        .or_else(|| nearest(word, known))
}

/// Known word closest to `word`, if it is close enough for a suggestion. Case and separators do not count.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = closest(word, known)?;
    (distance <= 1.max(name.len() / 3)).then_some(name)
}

/// Known word that differs from `word` by case, by separators or by one letter.
pub(super) fn misspelled<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, name) = closest(word, known)?;
    (distance <= 1).then_some(name)
}

/// Known word for a word of another product.
pub(super) fn alias<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    aliases(word).find_map(|ours| known.iter().find(|name| **name == ours).copied())
}

/// Words of this configuration for a word of another product, the likeliest first.
pub(super) fn aliases(word: &str) -> impl Iterator<Item = &'static str> {
    let word = folded(word);
    let found = ALIASES.iter().filter(move |(other, _)| *other == word);
    found.flat_map(|(_, ours)| ours.iter().copied())
}

fn closest<'a>(word: &str, known: &[&'a str]) -> Option<(usize, &'a str)> {
    let word = folded(word);
    let scored = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&word, &folded(name)), *name));
    scored.min()
}

/// Word without case and separators: `maxBodyBytes` and `max-body-bytes` are `max_body_bytes`.
fn folded(word: &str) -> String {
    let letters = word.chars().filter(|c| !matches!(c, '-' | '_' | '.' | ' '));
    letters.flat_map(char::to_lowercase).collect()
}

/// Words of other proxies, JWT libraries and RFCs, without case and separators, with the words of this configuration.
const ALIASES: &[(&str, &[&str])] = &[
    // Sections.
    ("server", &["listen", "url"]),
    ("http", &["listen"]),
    ("entrypoints", &["listeners"]),
    ("servers", &["listeners", "url"]),
    ("backend", &["upstreams", "upstream"]),
    ("backends", &["upstreams"]),
    ("service", &["upstreams", "upstream", "service_name"]),
    ("services", &["upstreams"]),
    ("cluster", &["upstreams", "upstream"]),
    ("clusters", &["upstreams"]),
    ("target", &["upstream", "upstreams", "url"]),
    ("targets", &["upstreams", "url"]),
    ("auth", &["access", "issuers"]),
    ("authentication", &["access", "issuers"]),
    ("jwt", &["issuers"]),
    ("oidc", &["issuers"]),
    ("provider", &["issuers"]),
    ("providers", &["issuers"]),
    ("idp", &["issuers"]),
    ("location", &["routes", "path"]),
    ("locations", &["routes"]),
    ("rules", &["routes", "require"]),
    ("logging", &["log"]),
    ("logger", &["log"]),
    ("telemetry", &["tracing"]),
    ("otel", &["tracing"]),
    ("opentelemetry", &["tracing"]),
    ("otlp", &["tracing"]),
    ("metrics", &["admin"]),
    ("health", &["admin", "health_check"]),
    ("shutdown", &["drain"]),
    // Listeners.
    ("bind", &["address"]),
    ("listen", &["address"]),
    ("listenaddress", &["address"]),
    ("host", &["address", "url"]),
    ("port", &["address", "url"]),
    ("addr", &["address", "url"]),
    ("threads", &["workers"]),
    ("bodylimit", &["max_body_bytes"]),
    ("maxbodysize", &["max_body_bytes"]),
    ("clientmaxbodysize", &["max_body_bytes"]),
    ("maxrequestsize", &["max_body_bytes"]),
    ("maxheadersize", &["max_header_bytes"]),
    ("clientheadertimeout", &["header_timeout"]),
    ("readheadertimeout", &["header_timeout"]),
    ("clientbodytimeout", &["body_timeout"]),
    ("keepalivetimeout", &["idle_timeout", "keep_alive"]),
    ("trustproxy", &["trusted_proxies"]),
    ("realip", &["trusted_proxies"]),
    ("setrealipfrom", &["trusted_proxies"]),
    ("cert", &["certificate"]),
    ("certfile", &["certificate"]),
    ("certificatefile", &["certificate"]),
    ("sslcertificate", &["certificate"]),
    ("keyfile", &["key"]),
    ("privatekey", &["key"]),
    ("sslcertificatekey", &["key"]),
    ("ca", &["client_ca", "ca_file"]),
    ("cacert", &["client_ca", "ca_file"]),
    ("cafile", &["client_ca", "ca_file"]),
    ("crl", &["client_crl"]),
    ("clientauth", &["client_certificate"]),
    ("verifyclient", &["client_certificate"]),
    ("mtls", &["client_certificate"]),
    ("sni", &["server_name"]),
    ("graceperiod", &["grace"]),
    ("shutdowntimeout", &["grace"]),
    ("terminationgraceperiodseconds", &["grace"]),
    ("loglevel", &["level"]),
    ("verbosity", &["level"]),
    ("sampling", &["sample"]),
    ("samplerate", &["sample"]),
    ("endpoint", &["url"]),
    ("endpoints", &["url"]),
    // Upstreams.
    ("uri", &["url", "path"]),
    ("urls", &["url"]),
    ("hosts", &["url"]),
    ("lb", &["balance"]),
    ("lbpolicy", &["balance"]),
    ("loadbalancing", &["balance"]),
    ("strategy", &["balance"]),
    ("timeout", &["response_timeout", "grace"]),
    ("readtimeout", &["response_timeout", "header_timeout"]),
    ("proxyreadtimeout", &["response_timeout"]),
    ("proxyconnecttimeout", &["connect_timeout"]),
    ("maxconns", &["max_connections"]),
    ("retry", &["retries"]),
    ("outlierdetection", &["ejection"]),
    ("circuitbreaker", &["ejection"]),
    ("healthcheck", &["health_check"]),
    ("insecure", &["allow_remote", "allow_http"]),
    ("allowplaintext", &["allow_remote", "allow_http"]),
    // Issuers.
    ("jwksuri", &["jwks_url"]),
    ("jwkuri", &["jwks_url"]),
    ("jwkseturi", &["jwks_url"]),
    ("jwks", &["jwks_url", "issuers"]),
    ("jwksendpoint", &["jwks_url"]),
    ("keysurl", &["jwks_url"]),
    ("secret", &["secret_env"]),
    ("secretkey", &["secret_env"]),
    ("sharedsecret", &["secret_env"]),
    ("jwtsecret", &["secret_env"]),
    ("hmacsecret", &["secret_env"]),
    ("signingkey", &["secret_env"]),
    ("betterauthsecret", &["secret_env"]),
    ("password", &["password_env", "secret_env"]),
    ("publickey", &["pem_file"]),
    ("publickeyfile", &["pem_file"]),
    ("publickeypath", &["pem_file"]),
    ("pem", &["pem_file"]),
    ("iss", &["issuer"]),
    ("issuerurl", &["issuer"]),
    ("issueruri", &["issuer"]),
    ("wellknown", &["discovery"]),
    ("wellknownurl", &["discovery"]),
    ("discoveryurl", &["discovery"]),
    ("oidcdiscoveryurl", &["discovery"]),
    ("metadataurl", &["discovery"]),
    ("openidconfiguration", &["discovery"]),
    ("aud", &["audience"]),
    ("audiences", &["audience"]),
    ("allowedaudiences", &["audience"]),
    ("alg", &["algorithms"]),
    ("algs", &["algorithms"]),
    ("signingalgorithms", &["algorithms"]),
    ("clockskew", &["leeway"]),
    ("clockskewseconds", &["leeway"]),
    ("clocktolerance", &["leeway"]),
    ("skew", &["leeway"]),
    ("sub", &["subject"]),
    ("subjectclaim", &["subject"]),
    ("useridclaim", &["subject"]),
    ("userclaim", &["subject"]),
    ("usernameclaim", &["subject"]),
    ("principal", &["subject"]),
    ("typ", &["types"]),
    ("azp", &["authorized_party"]),
    ("clientid", &["authorized_party", "audience"]),
    ("maxage", &["max_lifetime", "max_age"]),
    ("betterauthurl", &["better_auth"]),
    ("baseurl", &["better_auth", "url"]),
    ("cacheduration", &["refresh"]),
    ("refreshinterval", &["refresh"]),
    ("allowinsecure", &["allow_http", "allow_remote"]),
    // Routes.
    ("route", &["path", "routes"]),
    ("pattern", &["path"]),
    ("match", &["path"]),
    ("prefix", &["path"]),
    ("verb", &["methods"]),
    ("verbs", &["methods"]),
    ("authrequired", &["access"]),
    ("policy", &["access"]),
    ("security", &["access"]),
    ("owner", &["access"]),
    ("public", &["access"]),
    ("authenticated", &["access"]),
    ("proxypass", &["upstream"]),
    ("ratelimiting", &["rate_limit"]),
    ("scope", &["require"]),
    ("scopes", &["require"]),
    ("role", &["require"]),
    ("roles", &["require"]),
    ("claims", &["require"]),
    ("requiredclaims", &["require"]),
    ("stripprefix", &["replace_prefix"]),
    ("rewrite", &["replace_prefix"]),
    ("pathrewrite", &["replace_prefix"]),
    ("headers", &["request_headers"]),
    ("addheaders", &["request_headers"]),
    ("setheaders", &["request_headers"]),
    ("add", &["set"]),
    ("delete", &["remove"]),
    ("value", &["equals"]),
    ("is", &["equals"]),
    ("contains", &["has"]),
    ("in", &["any"]),
    ("oneof", &["any"]),
    ("name", &["claim"]),
    ("limit", &["requests"]),
    ("period", &["per"]),
    ("interval", &["per", "refresh"]),
    ("window", &["per"]),
    ("key", &["by"]),
    // CORS.
    ("alloworigin", &["origins"]),
    ("alloworigins", &["origins"]),
    ("allowedorigins", &["origins"]),
    ("allowmethods", &["methods"]),
    ("allowedmethods", &["methods"]),
    ("allowheaders", &["headers"]),
    ("allowedheaders", &["headers"]),
    ("exposeheaders", &["expose"]),
    ("exposedheaders", &["expose"]),
    ("allowcredentials", &["credentials"]),
    // Words of closed lists.
    ("warning", &["warn"]),
    ("trace", &["debug", "tracing"]),
    ("verbose", &["debug"]),
    ("fatal", &["error"]),
    ("critical", &["error"]),
    ("notice", &["info"]),
    ("information", &["info"]),
    ("pretty", &["text"]),
    ("console", &["text"]),
    ("logfmt", &["text"]),
    ("human", &["text"]),
    ("plain", &["text", "utf8"]),
    ("text", &["utf8"]),
    ("raw", &["utf8"]),
    ("ascii", &["utf8"]),
    ("ip", &["client-address"]),
    ("address", &["client-address", "url"]),
    ("client", &["client-address"]),
    ("clientip", &["client-address"]),
    ("remoteaddr", &["client-address"]),
    ("user", &["subject", "authenticated", "username", "owner"]),
    ("userid", &["subject", "owner"]),
    ("subject", &["owner"]),
    ("leastconn", &["least-pending"]),
    ("leastconnections", &["least-pending"]),
    ("leastrequest", &["least-pending"]),
    ("leastrequests", &["least-pending"]),
    ("rr", &["round-robin"]),
    ("keep", &["forward"]),
    ("pass", &["forward"]),
    ("preserve", &["forward"]),
    ("drop", &["strip", "close"]),
    ("terminate", &["close"]),
    ("deny", &["refuse"]),
    ("reject", &["refuse"]),
    ("failclosed", &["refuse"]),
    ("failopen", &["allow"]),
    ("fingerprint", &["thumbprint"]),
    ("commonname", &["subject"]),
    ("cn", &["subject"]),
    ("san", &["dns"]),
    ("tls12", &["1.2"]),
    ("tlsv12", &["1.2"]),
    ("tls13", &["1.3"]),
    ("tlsv13", &["1.3"]),
    ("require", &["required"]),
    ("mandatory", &["required"]),
    ("private", &["authenticated"]),
    ("protected", &["authenticated"]),
    ("required", &["authenticated"]),
    ("anonymous", &["public"]),
    ("sha256", &["HS256"]),
    ("hmacsha256", &["HS256"]),
    ("hmac256", &["HS256"]),
    ("rsasha256", &["RS256"]),
    ("ecdsa256", &["ES256"]),
    ("ed25519", &["EdDSA"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_case_and_separators() {
        let algorithms = ["HS256", "RS256", "ES256", "EdDSA"];
        for (word, expected) in [
            ("hs256", Some("HS256")),
            ("HS-256", Some("HS256")),
            ("RSA256", Some("RS256")),
            ("EdDsa", Some("EdDSA")),
            ("eddsa", Some("EdDSA")),
            ("HS265", Some("HS256")),
            ("none", None),
        ] {
            assert_eq!(nearest(word, &algorithms), expected, "{word}");
        }
        for word in ["maxBodyBytes", "max-body-bytes", "MAX_BODY_BYTES"] {
            let found = misspelled(word, &["max_header_bytes", "max_body_bytes"]);
            assert_eq!(found, Some("max_body_bytes"), "{word}");
        }
    }

    #[test]
    fn suggests_only_similar_words() {
        assert_eq!(nearest("adress", &["address", "workers"]), Some("address"));
        assert_eq!(nearest("token", &["address", "workers"]), None);
        assert_eq!(nearest("LIST", &["GET", "POST"]), None);
    }

    #[test]
    fn knows_the_words_of_other_products() {
        assert_eq!(
            alias("jwks_uri", &["secret_env", "jwks_url"]),
            Some("jwks_url")
        );
        assert_eq!(alias("clockTolerance", &["leeway"]), Some("leeway"));
        assert_eq!(alias("warning", &["warn", "info"]), Some("warn"));
        assert_eq!(alias("warning", &["subject"]), None);
    }

    #[test]
    fn aliases_are_folded_and_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for (word, ours) in ALIASES {
            assert_eq!(*word, folded(word), "`{word}` never matches");
            assert!(seen.insert(word), "`{word}` is listed twice");
            assert!(!ours.is_empty(), "`{word}`");
        }
    }
}
