//! Spellings of paths: paths that RFC 3986 keeps apart, but that some APIs treat as one.
//!
//! Express ignores case and a trailing `/`; servlet containers ignore path parameters (`;x`); integer parameters of
//! Flask, Starlette and Django ignore leading zeros. A path is folded to the form that all of its spellings share. Where
//! that form leads to a route with other access than the path itself, the path is rejected: two spellings of one path
//! never get different decisions (docs/decisions/0031).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use http::Method;
use matchit::{InsertError, Router};

use crate::gate::path::{CanonicalPath, PathFault, PathFaultKind};

use super::methods::METHODS;
use super::pattern::{PathPattern, Segment, push_escaped};

/// Class of routes with the same access: the same callers, limits and CORS policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AccessClass(pub(super) usize);

/// Routes by the folded form of their paths. Empty if all routes have the same access.
#[derive(Debug, Default)]
pub(super) struct SpellingTable {
    /// One table for each of [`METHODS`]. A method without a route at a path does not hide other routes.
    by_method: Vec<Router<FoldedRoute>>,
    literals: Literals,
}

/// Route of a folded path.
#[derive(Debug, Clone)]
pub(super) struct FoldedRoute {
    pub(super) class: AccessClass,
    /// Configured path.
    pub(super) pattern: Arc<str>,
}

/// Literal segments of all routes: only a segment that folds to one of them can lead to another route.
#[derive(Debug, Default)]
struct Literals {
    /// Folded literals in ASCII, sorted.
    folded: Vec<Literal>,
    /// Bit n is set if a folded literal has n bytes; the last bit stands for all longer ones.
    lengths: u64,
    /// True if each literal is its own folded form.
    are_folded: bool,
    /// True if a literal is a number.
    has_number: bool,
    /// True if a segment has text beside a parameter.
    has_affix: bool,
    /// Bit n is set if a pattern of n segments ends with `/`; the last bit stands for all longer ones.
    ending_with_slash: u64,
}

#[derive(Debug)]
struct Literal {
    folded: String,
    /// The one spelling in the table; `None` if there are several.
    only: Option<String>,
}

/// Collects the routes of a [`SpellingTable`].
#[derive(Debug, Default)]
pub(super) struct SpellingTableBuilder {
    by_method: Vec<(Router<FoldedRoute>, BTreeMap<String, FoldedRoute>)>,
    literals: BTreeMap<String, Option<String>>,
    has_affix: bool,
    ending_with_slash: u64,
    classes: Vec<AccessClass>,
}

impl SpellingTable {
    /// Checks that the path leads to a route of this class in every spelling.
    pub(super) fn check(
        &self,
        method: &Method,
        path: CanonicalPath<'_>,
        class: AccessClass,
    ) -> Result<(), PathFault> {
        let index = METHODS.iter().position(|known| known == method);
        let Some(routes) = index.and_then(|index| self.by_method.get(index)) else {
            return Ok(());
        };
        if !self.literals.may_differ(path) {
            return Ok(());
        }
        let folded = fold(path);
        let other = match routes.at(&folded) {
            Ok(found) if found.value.class == class => return Ok(()),
            Ok(found) => Arc::clone(&found.value.pattern),
            Err(_) => Arc::default(),
        };
        let same = path.as_str().bytes().zip(folded.bytes());
        let same = same.take_while(|(received, folded)| received == folded);
        Err(PathFaultKind::Spelling(other).at(same.count().min(path.as_str().len() - 1)))
    }
}

impl SpellingTableBuilder {
    /// Adds a route. Returns the pattern of a route with other access, if its paths are spellings of the same paths.
    pub(super) fn add(
        &mut self,
        pattern: &PathPattern,
        methods: &[Method],
        route: &FoldedRoute,
    ) -> Result<(), Arc<str>> {
        if !self.classes.contains(&route.class) {
            self.classes.push(route.class);
        }
        self.add_literals(pattern);
        let form = folded_form(pattern);
        self.by_method.resize_with(METHODS.len(), Default::default);
        let tables = METHODS.iter().zip(&mut self.by_method);
        for (_, (routes, by_form)) in tables.filter(|(method, _)| methods.contains(method)) {
            match by_form.get(&form) {
                Some(other) if other.class == route.class => continue,
                Some(other) => return Err(Arc::clone(&other.pattern)),
                None => {}
            }
            match routes.insert(form.as_str(), route.clone()) {
                Ok(()) => {
                    by_form.insert(form.clone(), route.clone());
                }
                Err(error) => match conflicting(&error).and_then(|with| by_form.get(with)) {
                    Some(other) if other.class == route.class => {}
                    Some(other) => return Err(Arc::clone(&other.pattern)),
                    None => return Err(Arc::default()),
                },
            }
        }
        Ok(())
    }

    /// Lets the routes with a rest match the path before the rest, unless other routes do.
    pub(super) fn build(mut self) -> SpellingTable {
        if self.classes.len() < 2 {
            return SpellingTable::default();
        }
        for (routes, by_form) in &mut self.by_method {
            for (form, route) in by_form {
                if let Some((bare, _)) = form.rsplit_once("/{*") {
                    let bare = if bare.is_empty() { "/" } else { bare };
                    let _other_route = routes.insert(bare, route.clone());
                }
            }
        }
        let literals = Literals {
            has_affix: self.has_affix,
            ending_with_slash: self.ending_with_slash,
            ..Literals::of(self.literals)
        };
        let by_method = self.by_method.into_iter().map(|(routes, _)| routes);
        SpellingTable {
            by_method: by_method.collect(),
            literals,
        }
    }

    fn add_literals(&mut self, pattern: &PathPattern) {
        let segments = pattern.segments();
        if matches!(segments, [_, .., Segment::Literal(last)] if last.is_empty()) {
            self.ending_with_slash |= bit(segments.len() - 1);
        }
        for segment in segments {
            match segment {
                Segment::Literal(text) => {
                    let only = self.literals.entry(fold_segment(text).into_owned());
                    let only = only.or_insert_with(|| Some(text.clone()));
                    if only.as_ref() != Some(text) {
                        *only = None;
                    }
                }
                Segment::Parameter { prefix, suffix, .. } => {
                    self.has_affix |= !(prefix.is_empty() && suffix.is_empty());
                }
                Segment::Rest(_) => {}
            }
        }
    }
}

impl Literals {
    fn of(literals: BTreeMap<String, Option<String>>) -> Self {
        let literals = literals.into_iter();
        let folded: Vec<Literal> = literals
            .map(|(folded, only)| Literal { folded, only })
            .collect();
        let lengths = folded.iter().map(|literal| bit(literal.folded.len()));
        let is_folded = |literal: &Literal| literal.only.as_ref() == Some(&literal.folded);
        Self {
            lengths: lengths.fold(0, |all, bit| all | bit),
            are_folded: folded.iter().all(is_folded),
            has_number: folded.iter().any(|literal| is_number(&literal.folded)),
            folded,
            ..Self::default()
        }
    }

    /// Returns false if the path is its only spelling. Allocates nothing: most paths end here.
    fn may_differ(&self, path: CanonicalPath<'_>) -> bool {
        let text = path.as_str();
        if text.len() > 1 && text.ends_with('/') {
            return true;
        }
        if self.ending_with_slash != 0 && self.ending_with_slash & bit(path.segments().count()) != 0
        {
            return true;
        }
        let mut segments = path.segments();
        segments.any(|(_, segment)| self.may_be_literal(segment))
    }

    fn may_be_literal(&self, segment: &str) -> bool {
        let (mut is_plain, mut has_upper) = (true, false);
        for byte in segment.bytes() {
            is_plain &= byte != b'%' && byte != b';';
            has_upper |= byte.is_ascii_uppercase();
        }
        if !is_plain || (self.has_affix && has_upper) {
            return true;
        }
        if self.has_number && segment.starts_with(|first: char| first.is_ascii_digit()) {
            return true;
        }
        if (self.are_folded && !has_upper) || self.lengths & bit(segment.len()) == 0 {
            return false;
        }
        let same = |literal: &Literal| compare_folded(&literal.folded, segment);
        match self.folded.binary_search_by(same) {
            Ok(index) => {
                let literal = self.folded.get(index);
                literal.is_none_or(|literal| literal.only.as_deref() != Some(segment))
            }
            Err(_) => false,
        }
    }
}

/// Compares a folded literal with a segment in ASCII, as if the segment were folded.
fn compare_folded(literal: &str, segment: &str) -> Ordering {
    let folded = segment.bytes().map(|byte| byte.to_ascii_lowercase());
    literal.bytes().cmp(folded)
}

fn bit(number: usize) -> u64 {
    1 << number.min(63)
}

/// Folded form of a pattern, for matchit. Parameters are named by their index, so that equal forms are equal texts.
fn folded_form(pattern: &PathPattern) -> String {
    let mut form = String::new();
    let segments = pattern.segments();
    let segments = match segments.split_last() {
        Some((Segment::Literal(last), before)) if last.is_empty() && !before.is_empty() => before,
        _ => segments,
    };
    for (index, segment) in segments.iter().enumerate() {
        form.push('/');
        match segment {
            Segment::Literal(text) => push_escaped(&mut form, &fold_segment(text)),
            Segment::Parameter { prefix, suffix, .. } => {
                push_escaped(&mut form, &fold_case(prefix));
                let _infallible = write!(form, "{{{index}}}");
                push_escaped(&mut form, &fold_case(suffix));
            }
            Segment::Rest(_) => form.push_str("{*rest}"),
        }
    }
    form
}

/// Folded form of a path.
fn fold(path: CanonicalPath<'_>) -> String {
    let decoded = path.decoded();
    let text = decoded.strip_suffix('/').unwrap_or(&decoded);
    let mut folded = String::with_capacity(text.len() + 1);
    for segment in text.split('/').skip(1) {
        folded.push('/');
        folded.push_str(&fold_segment(segment));
    }
    if folded.is_empty() {
        folded.push('/');
    }
    folded
}

/// Folds a decoded segment: without path parameters, in lower case, a number without leading zeros.
fn fold_segment(segment: &str) -> Cow<'_, str> {
    let name = segment.split(';').next().unwrap_or_default();
    let name = ascii_digits(name);
    if is_number(&name) {
        return Cow::Owned(fold_number(&name));
    }
    match name {
        Cow::Borrowed(name) => fold_case(name),
        Cow::Owned(name) => Cow::Owned(fold_case(&name).into_owned()),
    }
}

/// Upper and then lower case, because some letters (`ſ`, `K`) become ASCII only in one of them.
fn fold_case(text: &str) -> Cow<'_, str> {
    let is_folded = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    if text.bytes().all(is_folded) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.to_uppercase().to_lowercase())
}

/// Digits, and possibly more digits after a `.`.
fn is_number(text: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
        None => is_digits(text),
    }
}

fn fold_number(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// Replaces the decimal digits of other scripts: Python's `\d`, which Flask's integer parameters use, matches them, and
/// `int()` reads them.
fn ascii_digits(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let replaced = text.chars().map(|character| {
        let value = ZEROS.iter().find_map(|zero| {
            let value = u32::from(character).checked_sub(u32::from(*zero))?;
            char::from_digit(value, 10)
        });
        value.unwrap_or(character)
    });
    Cow::Owned(replaced.collect())
}

/// Zeros of the decimal digits (general category Nd) outside ASCII. Nine digits follow each.
const ZEROS: [char; 65] = [
    '\u{660}',
    '\u{6f0}',
    '\u{7c0}',
    '\u{966}',
    '\u{9e6}',
    '\u{a66}',
    '\u{ae6}',
    '\u{b66}',
    '\u{be6}',
    '\u{c66}',
    '\u{ce6}',
    '\u{d66}',
    '\u{de6}',
    '\u{e50}',
    '\u{ed0}',
    '\u{f20}',
    '\u{1040}',
    '\u{1090}',
    '\u{17e0}',
    '\u{1810}',
    '\u{1946}',
    '\u{19d0}',
    '\u{1a80}',
    '\u{1a90}',
    '\u{1b50}',
    '\u{1bb0}',
    '\u{1c40}',
    '\u{1c50}',
    '\u{a620}',
    '\u{a8d0}',
    '\u{a900}',
    '\u{a9d0}',
    '\u{a9f0}',
    '\u{aa50}',
    '\u{abf0}',
    '\u{ff10}',
    '\u{104a0}',
    '\u{10d30}',
    '\u{11066}',
    '\u{110f0}',
    '\u{11136}',
    '\u{111d0}',
    '\u{112f0}',
    '\u{11450}',
    '\u{114d0}',
    '\u{11650}',
    '\u{116c0}',
    '\u{11730}',
    '\u{118e0}',
    '\u{11950}',
    '\u{11c50}',
    '\u{11d50}',
    '\u{11da0}',
    '\u{16a60}',
    '\u{16ac0}',
    '\u{16b50}',
    '\u{1d7ce}',
    '\u{1d7d8}',
    '\u{1d7e2}',
    '\u{1d7ec}',
    '\u{1d7f6}',
    '\u{1e140}',
    '\u{1e2f0}',
    '\u{1e950}',
    '\u{1fbf0}',
];

/// Form of the other route in a conflict.
pub(super) fn conflicting(error: &InsertError) -> Option<&str> {
    if let InsertError::Conflict { with } = error {
        return Some(with);
    }
    None
}
