//! Files that change while the gate runs: what stands for their content, and whether it is another now.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// What stands for the content of files.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of these files, in this order. One that cannot be read is a content of its own.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut context = Context::new(&SHA256);
        for file in files {
            // To read from a pipe would wait for whoever writes to it, and take that from others.
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
    /// It could be compared with that of a secret which somebody guesses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

/// What was in files at one moment.
#[derive(Debug, Clone, Default)]
pub struct Contents(BTreeMap<PathBuf, Content>);

#[derive(Debug, Clone)]
struct Content {
    stamp: Option<Stamp>,
    fingerprint: Fingerprint,
}

/// What the system says of a file without reading it. Through links: it is about what they lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata: Metadata = std::fs::metadata(file).ok()?;
        Some(Self {
            place: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Content {
    fn of(file: &Path) -> Self {
        // First the stamp: what is written while the file is read gives it another.
        let stamp = Stamp::of(file);
        Self {
            stamp,
            fingerprint: Fingerprint::of([file]),
        }
    }
}

impl Contents {
    /// Reads files.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let files = files.into_iter();
        Self(
            files
                .map(|file| (file.to_owned(), Content::of(file)))
                .collect(),
        )
    }

    /// Looks at the same files again, and reads those that the system says were written, or all.
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

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// These and others; where both have a file, what the others say.
    #[must_use]
    pub fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The files whose content is another there, or that are only in one of both.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Path> {
        let print = |contents: &Self, file: &Path| {
            let content = contents.0.get(file);
            content.map(|content| content.fingerprint.clone())
        };
        let added = other.files().filter(|file| !self.0.contains_key(*file));
        let all = self.files().chain(added);
        all.filter(move |file| print(self, file) != print(other, file))
    }

    /// Whether all files have the same content there.
    pub fn is_like(&self, other: &Self) -> bool {
        self.differences(other).next().is_none()
    }

    /// A file that can be read only once, if there is one.
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
    fn every_way_in_which_a_file_changes_is_found() {
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
        let said = |what: &str, names: &str| (what.to_owned(), names.to_owned());
        assert_eq!(changed("nothing"), said("nothing", ""));
        fs::write(path("a"), "two!").unwrap();
        assert_eq!(changed("written"), said("written", "a"));
        fs::write(path("new"), "six!").unwrap();
        fs::rename(path("new"), path("a")).unwrap();
        assert_eq!(changed("renamed"), said("renamed", "a"));
        fs::write(path("..2"), "two").unwrap();
        symlink(path("..2"), path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert_eq!(changed("linked"), said("linked", "b"));
        fs::write(path("c"), "").unwrap();
        assert_eq!(changed("made"), said("made", "c"));
        fs::remove_file(path("c")).unwrap();
        assert_eq!(changed("removed"), said("removed", "c"));
        fs::write(path("a"), "six!").unwrap();
        assert_eq!(changed("the same again"), said("the same again", ""));
    }

    #[test]
    fn what_the_system_does_not_tell_is_found_when_all_is_read() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("a");
        fs::write(&file, "one").unwrap();
        let mut before = Contents::of([file.as_path()]);
        fs::write(&file, "two").unwrap();
        // As on a system whose clock is too coarse for two changes.
        before.0.get_mut(&file).unwrap().stamp = Stamp::of(&file);
        assert!(before.is_like(&before.again(false)));
        assert!(!before.is_like(&before.again(true)));
    }
}
