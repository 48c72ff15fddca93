//! Detection of changed files: content fingerprints and snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// SHA-256 fingerprint of the content of files.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Fingerprint of these files, in this order. An unreadable file has a distinct fingerprint.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut context = Context::new(&SHA256);
        for file in files {
            // Reading a pipe blocks until a process writes to it, and consumes the content.
            let is_file = std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file());
            let read = is_file.then(|| std::fs::read(file).map(Zeroizing::new).ok());
            let bytes = read.flatten();
            let length = bytes.as_ref().map(|bytes| bytes.len());
            context.update(format!("{length:?}").as_bytes());
            context.update(bytes.as_deref().map_or(&[], Vec::as_slice));
        }
        let mut fingerprint = [0; 32];
        for (to, from) in fingerprint.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self(fingerprint)
    }
}

impl fmt::Debug for Fingerprint {
    /// Hides the value: it would confirm a guessed secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

/// Snapshot of the content of files.
#[derive(Debug, Clone, Default)]
pub struct Contents(BTreeMap<PathBuf, Content>);

#[derive(Debug, Clone)]
struct Content {
    stamp: Option<Stamp>,
    fingerprint: Fingerprint,
}

/// Metadata of a file, without its content. Follows symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata: Metadata = std::fs::metadata(file).ok()?;
        Some(Self {
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Content {
    fn of(file: &Path) -> Self {
        // The stamp first: a write during the read then changes the stamp.
        let stamp = Stamp::of(file);
        Self {
            stamp,
            fingerprint: Fingerprint::of([file]),
        }
    }
}

impl Contents {
    /// Reads these files.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let files = files.into_iter();
        Self(
            files
                .map(|file| (file.to_owned(), Content::of(file)))
                .collect(),
        )
    }

    /// Takes a new snapshot of the same files: reads those with changed metadata, or all of them.
    #[must_use]
    pub fn again(&self, all: bool) -> Self {
        let look = |(file, before): (&PathBuf, &Content)| {
            let now = if all || Stamp::of(file) != before.stamp {
                Content::of(file)
            } else {
                before.clone()
            };
            (file.clone(), now)
        };
        Self(self.0.iter().map(look).collect())
    }

    /// Paths of the files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Merges two snapshots; `others` takes precedence for a file in both.
    #[must_use]
    pub fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Files with different content, and files in only one of the snapshots.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Path> {
        let print = |contents: &Self, file: &Path| {
            let content = contents.0.get(file);
            content.map(|content| content.fingerprint.clone())
        };
        let added = other.files().filter(|file| !self.0.contains_key(*file));
        let all = self.files().chain(added);
        all.filter(move |file| print(self, file) != print(other, file))
    }

    /// Returns whether both snapshots have the same files with the same content.
    pub fn is_like(&self, other: &Self) -> bool {
        self.differences(other).next().is_none()
    }

    /// First file that is a pipe, which can be read only once.
    pub fn pipe(&self) -> Option<&Path> {
        let is_pipe = |file: &&Path| {
            let metadata = std::fs::metadata(file);
            metadata.is_ok_and(|metadata| metadata.file_type().is_fifo())
        };
        self.files().find(is_pipe)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn detects_every_kind_of_change_to_a_file() {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "one").unwrap();
        fs::write(path("..1"), "one").unwrap();
        symlink(path("..1"), path("..data")).unwrap();
        symlink("..data", path("b")).unwrap();
        let files = [path("a"), path("b"), path("c")];
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let mut before = Contents::of(files.iter().copied());
        let mut changed = |what: &str| {
            let now = before.again(false);
            let found: Vec<_> = before.differences(&now).map(Path::to_owned).collect();
            let names = found.iter().map(|file| file.file_name().unwrap());
            let names: Vec<_> = names.map(|name| name.to_str().unwrap()).collect();
            assert_eq!(before.is_like(&now), names.is_empty());
            before = now;
            (what.to_owned(), names.join(" "))
        };
        let expected = |what: &str, names: &str| (what.to_owned(), names.to_owned());
        assert_eq!(changed("nothing"), expected("nothing", ""));
        fs::write(path("a"), "two!").unwrap();
        assert_eq!(changed("written"), expected("written", "a"));
        fs::write(path("new"), "six!").unwrap();
        fs::rename(path("new"), path("a")).unwrap();
        assert_eq!(changed("renamed"), expected("renamed", "a"));
        fs::write(path("..2"), "two").unwrap();
        symlink(path("..2"), path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert_eq!(changed("linked"), expected("linked", "b"));
        fs::write(path("c"), "").unwrap();
        assert_eq!(changed("made"), expected("made", "c"));
        fs::remove_file(path("c")).unwrap();
        assert_eq!(changed("removed"), expected("removed", "c"));
        fs::write(path("a"), "six!").unwrap();
        assert_eq!(changed("the same again"), expected("the same again", ""));
    }

    #[test]
    fn detects_a_change_without_new_metadata_when_reading_all_files() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("a");
        fs::write(&file, "one").unwrap();
        let mut before = Contents::of([file.as_path()]);
        fs::write(&file, "two").unwrap();
        // As on a system with a clock too coarse to separate two changes.
        before.0.get_mut(&file).unwrap().stamp = Stamp::of(&file);
        assert!(before.is_like(&before.again(false)));
        assert!(!before.is_like(&before.again(true)));
    }
}
