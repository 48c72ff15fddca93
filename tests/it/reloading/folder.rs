//! Directory with a configuration that a gate watches.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::harness::issuer::SECRET;
use crate::harness::{Sidecar, Upstream, eventually, get};

/// Start of every configuration in these tests.
const BEGINNING: &str = r#"
[admin]
address = "127.0.0.1:0"

[upstreams.tasks]
url = "{upstream}"
"#;

const LISTEN: &str = "[listen]\naddress = \"127.0.0.1:0\"\nworkers = 1\n";

const ISSUER: &str = "[issuers.test]\nkeys = { secret_file = \"{secret}\" }\n";

/// Temporary directory with a secret and a configuration.
pub(super) struct Folder {
    directory: TempDir,
    upstream: String,
}

impl Folder {
    /// Writes the secret and a configuration, with `{secret}` and `{upstream}` replaced.
    pub(super) fn with(config: &str, upstream: &Upstream) -> Self {
        let folder = Self {
            directory: TempDir::new().unwrap(),
            upstream: upstream.url(),
        };
        folder.write("secret", SECRET);
        folder.write("config.toml", &folder.text(config));
        folder
    }

    pub(super) fn start(&self) -> Sidecar {
        Sidecar::watching(&self.path("config.toml"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Complete configuration, with defaults for missing sections.
    pub(super) fn text(&self, config: &str) -> String {
        let mut text = BEGINNING.to_owned();
        for (section, lines) in [("[listen]", LISTEN), ("[issuers.", ISSUER)] {
            if !config.contains(section) {
                text.push_str(lines);
            }
        }
        let text = format!("{text}\n{config}");
        let text = text.replace("{upstream}", &self.upstream);
        text.replace("{secret}", self.path("secret").to_str().unwrap())
    }

    /// Writes a configuration and waits until it is active.
    pub(super) fn change(&self, sidecar: &Sidecar, config: &str) {
        self.put(sidecar, "config.toml", &self.text(config));
    }

    /// Writes a file and waits until the reload is complete.
    pub(super) fn put(&self, sidecar: &Sidecar, name: &str, text: &str) {
        let before = generation(sidecar);
        self.write(name, text);
        sidecar.running().reload();
        eventually("reloaded", || generation(sidecar) == before + 1);
    }

    /// Writes a configuration like Kubernetes: all files are links through `..data`, which is swapped.
    pub(super) fn publish(&self, number: usize, config: &str) {
        let version = self.path(&format!("..{number}"));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("config.toml"), self.text(config)).unwrap();
        symlink(&version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }
}

/// Generation of the current configuration.
pub(super) fn generation(sidecar: &Sidecar) -> u64 {
    sidecar.running().metrics().config.generation()
}

/// Number of reloads with this outcome.
pub(super) fn reloads(sidecar: &Sidecar, outcome: &str) -> f64 {
    let series = format!("claimgate_config_reloads_total{{outcome=\"{outcome}\"}}");
    sidecar.metric(&series).unwrap()
}

/// True if the path has a route.
pub(super) fn has(sidecar: &Sidecar, path: &str) -> bool {
    sidecar.call(&get(path)).status == 200
}

/// Public route.
pub(super) fn open(path: &str) -> String {
    format!("[[routes]]\npath = \"{path}\"\naccess = \"public\"\n")
}
