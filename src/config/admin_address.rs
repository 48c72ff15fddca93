//! Address of the admin listener in a file that may be invalid otherwise.
//!
//! A running gate keeps its policy when a reload fails, so a command that only talks to it must not need a valid file.

use std::net::SocketAddr;
use std::path::Path;

use super::listen::Admin;
use super::tree;

/// Reads `admin.address` alone. Returns the default address if the file does not set it, with a warning if the file cannot
/// be read or the value is invalid.
pub fn admin_address(file: &Path) -> (SocketAddr, Option<String>) {
    let default = Admin::default().address;
    let name = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let warning = format!(
                "{name}: cannot be read: {error}; using the default admin address {default}, which `--admin` overrides"
            );
            return (default, Some(warning));
        }
    };
    let Some(address) = tree::find_text(&text, "admin", "address") else {
        return (default, None);
    };
    match address.parse() {
        Ok(address) => (address, None),
        Err(_) => {
            let warning = format!(
                "{name}: admin.address: `{address}` is not a valid address; using the default {default}, which `--admin` \
                 overrides"
            );
            (default, Some(warning))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let (address, warning) = admin_address(file.path());
        (address.to_string(), warning.is_some())
    }

    #[test]
    fn finds_the_address_in_an_invalid_file() {
        let valid = "[admin]\naddress = \"127.0.0.1:9000\"\n";
        for broken in [
            "",
            "[listen]\naddress = 5\n",
            "[nonsense]\nkey = \"value\"\n",
            "[[routes]]\npath = \"/a\n",
            "[routes\n",
            "key = 99999999999999999999999\n",
            "<<<<<<< HEAD\n",
        ] {
            let expected = ("127.0.0.1:9000".to_owned(), false);
            assert_eq!(read(&format!("{valid}{broken}")), expected, "{broken}");
        }
    }

    #[test]
    fn uses_the_default_address_if_there_is_no_usable_one() {
        let default = || "127.0.0.1:9901".to_owned();
        for text in ["", "[admin]\n", "admin = 5\n", "\u{feff}", "{\"admin\": 1}"] {
            assert_eq!(read(text), (default(), false), "{text}");
        }
        assert_eq!(
            read("[admin]\naddress = \"localhost\"\n"),
            (default(), true)
        );
        let (address, warning) = admin_address(Path::new("/nowhere/config.toml"));
        assert_eq!(address.to_string(), default());
        let warning = warning.unwrap();
        assert!(
            warning.starts_with("/nowhere/config.toml: cannot be read: "),
            "{warning}"
        );
        assert!(warning.contains("--admin"), "{warning}");
    }
}
