//! Forward proxies of the environment. The gate ignores them: a fetch error names the variable.

use http::Uri;

/// Variables with a proxy for `https` URLs, as curl reads them.
const HTTPS: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// Variables with a proxy for `http` URLs.
const HTTP: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

/// Finds the variable with a proxy for this URL.
pub(super) fn variable(
    url: &Uri,
    environment: impl Fn(&str) -> Option<String>,
) -> Option<&'static str> {
    let is_secure = url.scheme_str() == Some("https");
    let names = if is_secure { HTTPS } else { HTTP };
    let is_set = |name: &str| environment(name).is_some_and(|value| !value.is_empty());
    let name = names.into_iter().find(|name| is_set(name))?;
    let exceptions = environment("no_proxy").or_else(|| environment("NO_PROXY"));
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_exempt = exceptions.is_some_and(|hosts| is_listed(&hosts, host));
    (!is_exempt).then_some(name)
}

/// Reports whether a list of hosts and domains contains a host.
fn is_listed(list: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split([',', ' ']).any(|entry| {
        let entry = entry.trim().trim_start_matches('.').to_ascii_lowercase();
        let in_domain = |domain: &str| {
            host.strip_suffix(domain)
                .is_some_and(|start| start.is_empty() || start.ends_with('.'))
        };
        entry == "*" || (!entry.is_empty() && in_domain(&entry))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_proxy_of_a_url() {
        let proxy = "http://proxy.example:3128";
        for (variables, url, expected) in [
            (&[][..], "https://a.example/", None),
            (
                &[("HTTPS_PROXY", proxy)],
                "https://a.example/",
                Some("HTTPS_PROXY"),
            ),
            (&[("HTTPS_PROXY", "")], "https://a.example/", None),
            (&[("HTTPS_PROXY", proxy)], "http://a.example/", None),
            (
                &[("http_proxy", proxy)],
                "http://a.example/",
                Some("http_proxy"),
            ),
            (
                &[("ALL_PROXY", proxy)],
                "https://a.example/",
                Some("ALL_PROXY"),
            ),
            (
                &[("HTTPS_PROXY", proxy), ("NO_PROXY", "*")],
                "https://a.example/",
                None,
            ),
            (
                &[("HTTPS_PROXY", proxy), ("no_proxy", "b.example, .EXAMPLE")],
                "https://a.example/",
                None,
            ),
            (
                &[("HTTPS_PROXY", proxy), ("NO_PROXY", "a.example")],
                "https://a.example:8443/",
                None,
            ),
            (
                &[("HTTPS_PROXY", proxy), ("NO_PROXY", "a.example")],
                "https://aa.example/",
                Some("HTTPS_PROXY"),
            ),
        ] {
            let environment = |name: &str| {
                let mut found = variables.iter().filter(|(known, _)| *known == name);
                found.next().map(|(_, value)| (*value).to_owned())
            };
            let url: Uri = url.parse().unwrap();
            assert_eq!(variable(&url, environment), expected, "{variables:?} {url}");
        }
    }
}
