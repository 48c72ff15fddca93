//! Route syntax of other frameworks. Most of it is valid text in a path, so that the route would match nothing but that
//! text.

/// Syntax of another framework in a pattern, and how it is written here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ForeignSyntax {
    pub(super) written: String,
    /// Equivalent; `None` if there is nothing to write.
    pub(super) ours: Option<String>,
    /// Spelling that matches the written text itself, where RFC 3986 allows it in a path.
    pub(super) text: Option<String>,
}

impl ForeignSyntax {
    /// Finds the first foreign syntax in a pattern.
    pub(super) fn find(pattern: &str) -> Option<Self> {
        pattern.split('/').find_map(|segment| {
            in_braces(segment)
                .or_else(|| in_angle_brackets(segment))
                .or_else(|| in_square_brackets(segment))
                .or_else(|| after_a_colon(segment))
                .or_else(|| after_a_dollar(segment))
                .or_else(|| regular_expression(segment))
                .or_else(|| asterisk(segment))
        })
    }

    fn parameter(written: &str, name: &str, is_rest: bool) -> Self {
        let star = if is_rest { "*" } else { "" };
        Self {
            written: written.to_owned(),
            ours: Some(format!("{{{star}{name}}}")),
            text: None,
        }
    }

    /// Adds the spelling of the written text, with its special character percent-encoded.
    fn or_text(self, special: char, encoded: &str) -> Self {
        let text = self.written.replace(special, encoded);
        Self {
            text: Some(text),
            ..self
        }
    }
}

/// `{id:int}` (Starlette), `{id:[0-9]+}` (Gorilla), `{id?}` (Laravel), `{rest...}` and `{$}` (Go), `{proxy+}` (AWS),
/// `{**rest}` (ASP.NET), `{name=shelves/*}` (gRPC transcoding), `{{id}}` (templates).
fn in_braces(segment: &str) -> Option<ForeignSyntax> {
    let (start, end) = (segment.find('{')?, segment.rfind('}')?);
    let written = segment.get(start..=end)?;
    let inner = written.trim_start_matches('{').trim_end_matches('}');
    if inner == "$" {
        return Some(ForeignSyntax {
            written: written.to_owned(),
            ours: None,
            text: None,
        });
    }
    let is_doubled = written.starts_with("{{");
    let bare = inner.strip_prefix('*').unwrap_or(inner);
    // Braces inside are two parameters, which the pattern reports.
    if bare.contains(['{', '}']) || (!is_doubled && bare.chars().all(is_name_character)) {
        return None;
    }
    let name = name(bare.trim_start_matches(['*', '+', ' ']))?;
    let is_rest = inner.starts_with('*')
        || inner.starts_with('+')
        || inner.ends_with(['+', '*'])
        || inner.ends_with("...")
        || [".*", ".+", "**", ":path"]
            .iter()
            .any(|it| inner.contains(it));
    // `{id:[0-9]+}` ends with `+` for another reason.
    let is_rest = is_rest && !inner.contains('[');
    Some(ForeignSyntax::parameter(written, name, is_rest))
}

/// `<id>`, `<int:id>` and `<path:rest>` (Flask, Django), `<rest..>` (Rocket).
fn in_angle_brackets(segment: &str) -> Option<ForeignSyntax> {
    let (start, end) = (segment.find('<')?, segment.rfind('>')?);
    let written = segment.get(start..=end)?;
    let inner = written.trim_matches(['<', '>']);
    let (converter, name_at) = inner.rsplit_once(':').unwrap_or(("", inner));
    let is_rest = converter == "path" || inner.ends_with("..");
    Some(ForeignSyntax::parameter(written, name(name_at)?, is_rest))
}

/// `[id]`, `[...rest]` and `[[...rest]]` (Next.js, Nuxt).
fn in_square_brackets(segment: &str) -> Option<ForeignSyntax> {
    if !segment.starts_with('[') {
        return None;
    }
    let inner = segment.trim_matches(['[', ']']);
    let name = name(inner.trim_start_matches('.'))?;
    Some(ForeignSyntax::parameter(
        segment,
        name,
        inner.starts_with("..."),
    ))
}

/// `:id`, `:id?`, `:id(\d+)` and `:rest*` (Express, Rails, Gin and others).
fn after_a_colon(segment: &str) -> Option<ForeignSyntax> {
    let rest = segment.strip_prefix(':')?;
    let name = name(rest)?;
    let after = rest.strip_prefix(name).unwrap_or_default();
    let is_rest = after.starts_with(['*', '+']) || after.contains(".*");
    let syntax = ForeignSyntax::parameter(segment, name, is_rest);
    Some(syntax.or_text(':', "%3A"))
}

/// `$id` and `$` (Remix), `${id}` (templates).
fn after_a_dollar(segment: &str) -> Option<ForeignSyntax> {
    let rest = segment.strip_prefix('$')?;
    let name = name(rest.trim_start_matches('{'));
    let syntax = ForeignSyntax::parameter(segment, name.unwrap_or("rest"), rest.is_empty());
    Some(syntax.or_text('$', "%24"))
}

/// `(.*)`, `(\d+)`, `(?P<id>\d+)`, `.+`, and an anchor at the end.
fn regular_expression(segment: &str) -> Option<ForeignSyntax> {
    let groups = ["(.", "(?", "(\\", "([", "(^", "(:"];
    if groups.iter().any(|group| segment.contains(group)) || segment == ".*" || segment == ".+" {
        let is_rest = segment.contains(".*") || segment.contains(".+");
        return Some(ForeignSyntax::parameter(
            segment,
            if is_rest { "rest" } else { "name" },
            is_rest,
        ));
    }
    let text = segment.strip_suffix('$').filter(|text| !text.is_empty())?;
    let syntax = ForeignSyntax {
        written: segment.to_owned(),
        ours: Some(text.to_owned()),
        text: None,
    };
    Some(syntax.or_text('$', "%24"))
}

/// `*`, `**`, `*rest` (nginx, Spring, Gin and others), and `*.png`.
fn asterisk(segment: &str) -> Option<ForeignSyntax> {
    // The asterisk of `{*rest}` is in braces.
    let outside = segment.split('{').next()?;
    if !outside.contains('*') {
        return None;
    }
    let bare = segment.trim_start_matches('*');
    let name = name(bare);
    let syntax = match name {
        None if bare.is_empty() => ForeignSyntax::parameter(segment, "rest", true),
        Some(name) if name == bare && segment.starts_with('*') => {
            ForeignSyntax::parameter(segment, name, true)
        }
        _ => ForeignSyntax {
            written: segment.to_owned(),
            ours: Some(segment.replacen('*', "{name}", 1)),
            text: None,
        },
    };
    Some(syntax.or_text('*', "%2A"))
}

/// Name at the start of a text.
fn name(text: &str) -> Option<&str> {
    let end = text.find(|character| !is_name_character(character));
    let name = text.get(..end.unwrap_or(text.len()))?;
    (!name.is_empty()).then_some(name)
}

fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translates_the_syntax_of_other_frameworks() {
        for (pattern, written, ours) in [
            // https://www.starlette.io/routing/
            ("/files/{rest:path}", "{rest:path}", "{*rest}"),
            ("/users/{id:int}/x", "{id:int}", "{id}"),
            // https://expressjs.com/en/guide/routing.html
            ("/users/:id", ":id", "{id}"),
            ("/users/:id/tasks", ":id", "{id}"),
            ("/users/:id?", ":id?", "{id}"),
            ("/users/:id(\\d+)", ":id(\\d+)", "{id}"),
            ("/files/:rest*", ":rest*", "{*rest}"),
            ("/files/*splat", "*splat", "{*splat}"),
            ("/files/(.*)", "(.*)", "{*rest}"),
            // https://flask.palletsprojects.com/en/stable/quickstart/#variable-rules
            ("/users/<id>", "<id>", "{id}"),
            ("/users/<int:id>", "<int:id>", "{id}"),
            ("/files/<path:rest>", "<path:rest>", "{*rest}"),
            // https://nextjs.org/docs/app/api-reference/file-conventions/dynamic-routes
            ("/users/[id]", "[id]", "{id}"),
            ("/files/[...rest]", "[...rest]", "{*rest}"),
            ("/files/[[...rest]]", "[[...rest]]", "{*rest}"),
            // https://remix.run/docs/en/main/file-conventions/routes
            ("/users/$id", "$id", "{id}"),
            ("/files/$", "$", "{*rest}"),
            // https://pkg.go.dev/net/http#hdr-Patterns-ServeMux
            ("/files/{rest...}", "{rest...}", "{*rest}"),
            // https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
            ("/{proxy+}", "{proxy+}", "{*proxy}"),
            // https://laravel.com/docs/routing
            ("/users/{id?}", "{id?}", "{id}"),
            // https://learn.microsoft.com/aspnet/core/fundamentals/routing
            ("/files/{**rest}", "{**rest}", "{*rest}"),
            ("/users/{id:int}", "{id:int}", "{id}"),
            // https://docs.spring.io/spring-framework/reference/web/webmvc/mvc-controller/ann-requestmapping.html
            ("/files/**", "**", "{*rest}"),
            ("/files/*", "*", "{*rest}"),
            ("/files/*.png", "*.png", "{name}.png"),
            ("/users/{id:[0-9]+}", "{id:[0-9]+}", "{id}"),
            // RFC 6570
            ("/files/{+rest}", "{+rest}", "{*rest}"),
            // Regular expressions and templates
            ("/users/(\\d+)", "(\\d+)", "{name}"),
            ("/users/(?P<id>\\d+)", "<id>", "{id}"),
            ("/users/{{id}}", "{{id}}", "{id}"),
            ("/users/${id}", "${id}", "{id}"),
            ("/users$", "users$", "users"),
            ("/files/.*", ".*", "{*rest}"),
        ] {
            let Some(found) = ForeignSyntax::find(pattern) else {
                panic!("{pattern}");
            };
            assert_eq!(found.written, written, "{pattern}");
            assert_eq!(found.ours.as_deref(), Some(ours), "{pattern}");
        }
        let end = ForeignSyntax::find("/files/{$}").unwrap();
        assert_eq!((end.written.as_str(), end.ours), ("{$}", None));
    }

    #[test]
    fn gives_the_spelling_of_the_text_itself() {
        for (pattern, text) in [
            ("/a/:id", "%3Aid"),
            ("/a/*", "%2A"),
            ("/odata/$metadata", "%24metadata"),
            ("/a$", "a%24"),
        ] {
            let found = ForeignSyntax::find(pattern).unwrap();
            assert_eq!(found.text.as_deref(), Some(text), "{pattern}");
            let same = pattern.replace(&found.written, text);
            assert_eq!(ForeignSyntax::find(&same), None, "{same}");
        }
    }

    #[test]
    fn accepts_our_own_syntax_and_plain_text() {
        for pattern in [
            "/",
            "/api/{user_id}/tasks/{*rest}",
            "/v{version}/img-{x}.png",
            "/v1/tasks:purge",
            "/users/@me",
            "/Products(1)",
            "/Users('x')/$count(a)",
            "/a;b=c/x+y/a,b/!$&'()",
            "/.well-known/x",
            "/%7Bx%7D/%3Aid",
            "/{a}{b}",
            "/{}",
            "/{*}",
            "/{x",
        ] {
            // `$count` starts a segment, so OData paths need `%24`.
            let pattern = pattern.replace("/$count", "/%24count");
            assert_eq!(ForeignSyntax::find(&pattern), None, "{pattern}");
        }
    }
}
