//! Files that a configuration refers to.

use std::path::Path;

use super::{
    Config, Introspection, Keys, Listen, Listener, Redis, Tls, Tracing, Upstream, UpstreamTls,
};

impl Config {
    /// Files with contents that belong to the policy. A change to one of them reloads the configuration.
    pub fn files(&self) -> Vec<&Path> {
        let mut files = Vec::new();
        for issuer in self.issuers.values() {
            if let Some(server) = &issuer.better_auth {
                files.push(&server.ca_file);
            }
            if let Some(introspection) = &issuer.introspection {
                let Introspection {
                    url: _,
                    client_id: _,
                    client_secret_file,
                    client_secret_env: _,
                    max_age: _,
                    host: _,
                    ca_file,
                    allow_http: _,
                } = introspection;
                files.extend([client_secret_file, ca_file]);
            }
            let Some(keys) = &issuer.keys else { continue };
            let Keys {
                secret_env: _,
                secret_file,
                encoding: _,
                pem_file,
                jwks_file,
                jwks_url: _,
                discovery: _,
                discovery_issuer: _,
                ca_file,
                token_file: _,
                refresh: _,
                max_stale: _,
                host: _,
                allow_http: _,
            } = keys;
            files.extend([secret_file, pem_file, jwks_file, ca_file]);
        }
        for Upstream { tls, .. } in self.upstreams.values() {
            let Some(tls) = tls else { continue };
            let UpstreamTls {
                ca_file,
                certificate,
                key,
                server_name: _,
            } = tls;
            files.extend([ca_file, certificate, key]);
        }
        if let Some(redis) = &self.redis {
            let Redis {
                url: _,
                username: _,
                password_env: _,
                password_file,
                ca_file,
                prefix: _,
                timeout: _,
                when_unavailable: _,
            } = redis;
            files.extend([password_file, ca_file]);
        }
        if let Some(tracing) = &self.tracing {
            let Tracing {
                url: _,
                allow_http: _,
                ca_file,
                service_name: _,
                sample: _,
                restart: _,
            } = tracing;
            files.push(ca_file);
        }
        files.into_iter().flatten().map(AsRef::as_ref).collect()
    }

    /// Files that are reloaded independently of the policy: certificates of listeners and bearer tokens for issuers.
    pub fn independent_files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = Vec::new();
        let Listen { tls: first, .. } = &self.listen;
        let others = self.listeners.iter().map(|Listener { tls, .. }| tls);
        for tls in std::iter::once(first).chain(others).flatten() {
            let Tls {
                certificate,
                key,
                more,
                min_version: _,
                client_ca,
                client_crl,
                client_certificate: _,
                hsts: _,
            } = tls;
            files.extend([certificate.as_path(), key]);
            files.extend(
                more.iter()
                    .flat_map(|pair| [pair.certificate.as_path(), &pair.key]),
            );
            files.extend(client_ca.as_deref());
            files.extend(client_crl.as_deref());
        }
        let keys = self
            .issuers
            .values()
            .filter_map(|issuer| issuer.keys.as_ref());
        files.extend(keys.filter_map(|keys| keys.token_file.as_deref()));
        files
    }
}
