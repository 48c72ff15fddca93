//! Compiles `methods` of a route and of `[cors]`.

use http::Method;

use crate::config::{ConfigDocument, KeyPath, suggest};
use crate::gate::routes::METHODS;

pub(super) fn methods(
    document: &mut ConfigDocument,
    path: &KeyPath,
    names: Option<&[String]>,
) -> Vec<Method> {
    let Some(names) = names else {
        return METHODS.to_vec();
    };
    let path = path.key("methods");
    if names.is_empty() {
        document.report(
            path.clone(),
            "must list at least one method; omit the key to allow all methods",
        );
    }
    let mut methods = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let known = METHODS.iter().find(|method| method.as_str() == name);
        match known {
            // RFC 9110 section 9.1: servers support GET and HEAD.
            Some(method) if *method == Method::GET => methods.extend([Method::GET, Method::HEAD]),
            Some(method) => methods.push(method.clone()),
            None => {
                document.report(path.index(index), unknown_method(name));
            }
        }
    }
    methods.sort_by_key(|method| METHODS.iter().position(|known| known == method));
    methods.dedup();
    methods
}

fn unknown_method(name: &str) -> String {
    let known = METHODS.each_ref().map(Method::as_str);
    let list = known.join("`, `");
    let hint = match name.to_ascii_uppercase().as_str() {
        "*" | "ANY" | "ALL" => "; omit `methods` to allow all of them".to_owned(),
        "CONNECT" | "TRACE" => format!("; `{name}` is never served"),
        _ => suggest(name, &known)
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?")),
    };
    format!("must be one of `{list}`, got `{name}`{hint}")
}
