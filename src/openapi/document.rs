//! OpenAPI documents of the versions 2.0 (Swagger) and 3.

use std::collections::BTreeMap;

use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::excerpt::excerpt;

use super::operation::{Operation, Purpose, Security};
use super::template::Template;
use super::yaml;

/// Maximum size of a document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// Operations of a document. References can repeat a path item any number of times.
const MAX_OPERATIONS: usize = 10_000;

/// Length of a path with the path of its server, in bytes.
const MAX_PATH_BYTES: usize = 1024;

/// References that follow each other.
const MAX_REFERENCES: usize = 16;

/// Fixed fields of a path item with an operation (OpenAPI 3.2 section 4.9.1).
const METHODS: [&str; 9] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace", "query",
];

/// Fault of a document: a clause about it, with the fix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DocumentError {
    #[error("it is larger than {} MiB", MAX_DOCUMENT_BYTES / 1024 / 1024)]
    TooLarge,
    #[error("it is not valid JSON: {0}")]
    Json(String),
    #[error("line {line} is not valid YAML: {fault}")]
    Yaml { line: usize, fault: String },
    #[error("it is not an OpenAPI document: it has neither `openapi` nor `swagger`")]
    NotOpenApi,
    #[error("its version is {0}; write it in OpenAPI 3.0, 3.1 or 3.2, or Swagger 2.0")]
    Version(String),
    #[error("`{place}` must be {expected}")]
    Type {
        place: String,
        expected: &'static str,
    },
    #[error("the path `{0}` must start with `/`")]
    Path(String),
    #[error("the path `{0}` is longer than {MAX_PATH_BYTES} bytes")]
    LongPath(String),
    #[error("it has more than {MAX_OPERATIONS} operations")]
    Operations,
    #[error(
        "`{place}` refers to `{target}`, which is not in the document; bundle the document into one file"
    )]
    Reference { place: String, target: String },
    #[error("the references of `{0}` have no end")]
    Cycle(String),
    #[error("the server variable `{0}` has no default")]
    ServerVariable(String),
    #[error("it has no operation: `paths` is empty")]
    Empty,
}

/// Parsed document.
#[derive(Debug)]
pub struct Document {
    root: Map<String, Value>,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Swagger2,
    OpenApi3,
}

impl Document {
    /// Parses JSON or YAML.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLarge);
        }
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let root = if text.starts_with('{') {
            serde_json::from_str(text).map_err(|error| DocumentError::Json(error.to_string()))?
        } else {
            yaml::parse(text).map_err(|yaml::YamlError { line, fault }| DocumentError::Yaml {
                line,
                fault: excerpt(&fault),
            })?
        };
        let Value::Object(root) = root else {
            return Err(DocumentError::NotOpenApi);
        };
        let version = Version::of(&root)?;
        Ok(Self { root, version })
    }

    /// Operations in the order of their paths.
    pub fn operations(&self) -> Result<Vec<Operation>, DocumentError> {
        let paths = match self.root.get("paths") {
            None => return Err(DocumentError::Empty),
            Some(paths) => object(paths, "paths")?,
        };
        let mut operations = Vec::new();
        let sorted: BTreeMap<&String, &Value> = paths.iter().collect();
        for (path, item) in sorted {
            if path.starts_with("x-") {
                continue;
            }
            if !path.starts_with('/') {
                return Err(DocumentError::Path(excerpt(path)));
            }
            let items = self.path_items(path, item)?;
            for (method, operation) in methods(&items) {
                operations.push(self.operation(path, &items, method, operation)?);
                if operations.len() > MAX_OPERATIONS {
                    return Err(DocumentError::Operations);
                }
            }
        }
        if operations.is_empty() {
            return Err(DocumentError::Empty);
        }
        Ok(operations)
    }

    fn operation(
        &self,
        path: &str,
        items: &[&Map<String, Value>],
        method: Method,
        operation: &Value,
    ) -> Result<Operation, DocumentError> {
        let place = format!("paths.{}.{method}", excerpt(path));
        let operation = object(operation, &place)?;
        let prefix = self.prefix(operation, items)?;
        // A query is no part of a path, though some documents distinguish operations by it.
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let whole = format!("{prefix}{path}");
        if whole.len() > MAX_PATH_BYTES {
            return Err(DocumentError::LongPath(excerpt(&whole)));
        }
        let security = match operation.get("security") {
            Some(security) => Security::of(security),
            None => match self.root.get("security").map(Security::of) {
                // An operation without its own word is public only by its own word.
                Some(Security::Public) | None => Security::Unstated,
                Some(security) => security,
            },
        };
        Ok(Operation {
            method,
            template: Template::parse(&whole),
            purpose: Purpose::of(path, &prefix),
            security,
        })
    }

    /// Start of all paths: the path of the first server that is named closest to the operation.
    fn prefix(
        &self,
        operation: &Map<String, Value>,
        items: &[&Map<String, Value>],
    ) -> Result<String, DocumentError> {
        let prefix = if self.version == Version::Swagger2 {
            let base = self.root.get("basePath").and_then(Value::as_str);
            base.unwrap_or_default().to_owned()
        } else {
            let around = [operation].into_iter().chain(items.iter().copied());
            let levels = around.chain([&self.root]);
            let mut servers = levels.filter_map(|level| level.get("servers"));
            let server = servers.find_map(|servers| servers.as_array()?.first());
            server.map_or_else(|| Ok(String::new()), server_path)?
        };
        let prefix = prefix.trim_end_matches('/');
        Ok(match prefix.strip_prefix('/') {
            Some(_) => prefix.to_owned(),
            None if prefix.is_empty() => String::new(),
            None => format!("/{prefix}"),
        })
    }

    /// Path item, and those that it refers to. The fields of an earlier one take precedence.
    fn path_items<'a>(
        &'a self,
        path: &str,
        item: &'a Value,
    ) -> Result<Vec<&'a Map<String, Value>>, DocumentError> {
        let place = format!("paths.{}", excerpt(path));
        let mut items = Vec::new();
        let mut item = item;
        while items.len() < MAX_REFERENCES {
            let fields = object(item, &place)?;
            items.push(fields);
            let Some(target) = fields.get("$ref") else {
                return Ok(items);
            };
            let found = target.as_str().and_then(|target| self.find(target));
            item = found.ok_or_else(|| DocumentError::Reference {
                place: place.clone(),
                target: excerpt(target.as_str().unwrap_or_default()),
            })?;
        }
        Err(DocumentError::Cycle(place))
    }

    /// Value of a reference into this document: a JSON Pointer in a fragment (RFC 6901 section 6).
    fn find(&self, reference: &str) -> Option<&Value> {
        let pointer = reference.strip_prefix("#/")?;
        let pointer = percent_decode_str(pointer).decode_utf8().ok()?;
        let (first, rest) = match pointer.split_once('/') {
            Some((first, rest)) => (first, format!("/{rest}")),
            None => (&*pointer, String::new()),
        };
        self.root.get(first)?.pointer(&rest)
    }
}

impl Version {
    fn of(root: &Map<String, Value>) -> Result<Self, DocumentError> {
        let Some(version) = root.get("openapi").or_else(|| root.get("swagger")) else {
            return Err(DocumentError::NotOpenApi);
        };
        // In YAML, `2.0` is a number.
        let text = match version {
            Value::String(text) => text.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => version.to_string(),
        };
        match text.as_str() {
            "2.0" if root.contains_key("swagger") => Ok(Self::Swagger2),
            text if text.starts_with("3.") => Ok(Self::OpenApi3),
            text => Err(DocumentError::Version(excerpt(text))),
        }
    }
}

/// Methods of path items, with their operations.
fn methods<'a>(
    items: &'a [&'a Map<String, Value>],
) -> impl Iterator<Item = (Method, &'a Value)> + 'a {
    let field = |name: &str| items.iter().find_map(|item| item.get(name));
    let fixed = METHODS
        .iter()
        .filter_map(move |name| Some((*name, field(name)?)));
    let more = field("additionalOperations").and_then(Value::as_object);
    let more = more.into_iter().flatten();
    let all = fixed.chain(more.map(|(name, operation)| (name.as_str(), operation)));
    all.filter_map(|(name, operation)| {
        let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes());
        Some((method.ok()?, operation))
    })
}

/// Path of a server's URL, with the defaults of its variables. A relative URL is a path.
fn server_path(server: &Value) -> Result<String, DocumentError> {
    let mut url = server
        .get("url")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut replaced = String::new();
    while let Some((before, rest)) = url.split_once('{') {
        let (name, after) = rest.split_once('}').unwrap_or((rest, ""));
        let variable = server.get("variables").and_then(|all| all.get(name));
        let default = variable.and_then(|variable| variable.get("default"));
        let default = default
            .and_then(Value::as_str)
            .ok_or_else(|| DocumentError::ServerVariable(excerpt(name)))?;
        replaced.push_str(before);
        replaced.push_str(default);
        url = after;
    }
    replaced.push_str(url);
    let path = match replaced.split_once("//") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => &replaced,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Ok(path.trim_start_matches(['.', '/']).to_owned())
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, DocumentError> {
    value.as_object().ok_or_else(|| DocumentError::Type {
        place: place.to_owned(),
        expected: "an object",
    })
}
