//! JSON Schema of the configuration, generated from the structs that read it.
//!
//! The program contains the generated file; only the tests generate it again and compare.

/// The schema, as `claimgate schema` prints it.
pub const CONFIG_SCHEMA: &str = include_str!("../../config.schema.json");

#[cfg(test)]
pub(super) use generate::{Duration, Size, SocketAddress};

#[cfg(test)]
mod generate {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use crate::config::{
        Access, Address, BetterAuth, Cors, Network, OneOrMany, RateLimit, RateLimits, RouteCors,
        Scalar, Sessions, SessionsSwitch,
    };

    /// Declares the schema of a type whose form serde does not describe.
    macro_rules! schema {
        ($type:ty, $name:literal, $generator:ident => $schema:expr) => {
            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    $name.into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                    $schema
                }
            }
        };
    }

    /// Duration as text.
    #[derive(Debug)]
    pub(in crate::config) struct Duration;

    /// Size as text, or as a number of bytes.
    #[derive(Debug)]
    pub(in crate::config) struct Size;

    /// IP address and port.
    #[derive(Debug)]
    pub(in crate::config) struct SocketAddress;

    schema!(Duration, "Duration", _generator => json_schema!({
        "type": "string",
        "pattern": r"^(0|\s*([0-9]+(\.[0-9]+)?\s*[A-Za-zµ]+\s*)+)$",
        "examples": ["30s", "5m", "7d"],
    }));
    schema!(Size, "Size", _generator => json_schema!({
        "anyOf": [
            { "type": "string", "pattern": r"^([0-9]+\.?[0-9]*|\.[0-9]+)\s*[KMGTkmgt]?[Ii]?[Bb]?$" },
            { "type": "integer", "minimum": 0 },
        ],
        "examples": ["32KiB", "10MiB"],
    }));
    schema!(SocketAddress, "SocketAddress", _generator => json_schema!({
        "type": "string",
        "pattern": r"^(\[[0-9A-Fa-f:.]+(%[0-9]+)?\]|[0-9.]+):[0-9]{1,5}$",
        "examples": ["127.0.0.1:9901"],
    }));
    schema!(Address, "Address", _generator => json_schema!({
        "type": "string",
        "pattern": r"^((\[[0-9A-Fa-f:.]+(%[0-9]+)?\]|[0-9.]+):[0-9]{1,5}|unix:/.*|systemd:[0-9]+)$",
        "examples": ["0.0.0.0:8080", "unix:/run/claimgate/gate.sock", "systemd:0"],
    }));
    schema!(Network, "Network", _generator => json_schema!({
        "type": "string",
        "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
        "examples": ["10.0.0.0/8", "10.1.2.3"],
    }));
    schema!(OneOrMany, "OneOrMany", generator => json_schema!({
        "anyOf": [generator.subschema_for::<String>(), generator.subschema_for::<Vec<String>>()],
    }));
    schema!(Scalar, "Scalar", _generator => json_schema!({
        "type": ["string", "number", "boolean"],
    }));
    schema!(Access, "Access", _generator => json_schema!({
        "anyOf": [
            { "enum": ["public", "authenticated"] },
            {
                "type": "object",
                "properties": {
                    "owner": {
                        "type": "string",
                        "description": "Path parameter that must be the subject of the token.",
                    },
                },
                "required": ["owner"],
                "additionalProperties": false,
            },
        ],
    }));
    schema!(BetterAuth, "BetterAuth", generator => json_schema!({
        "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "url": { "type": "string", "description": "URL of the server, as the gate reaches it." },
                    "public": {
                        "type": "string",
                        "description": "URL of the server as browsers reach it, if it differs: its origin is `iss` and `aud` of the tokens.",
                    },
                    "host": {
                        "type": "string",
                        "description": "`Host` header of the requests to the server, if it differs from the URL: a server with `allowedHosts` rejects other names.",
                    },
                    "ca_file": {
                        "type": "string",
                        "description": "PEM file of CA certificates for the server, instead of the system's.",
                    },
                    "allow_http": {
                        "type": "boolean",
                        "default": false,
                        "description": "Allows plaintext HTTP to another machine.",
                    },
                    "sessions": generator.subschema_for::<SessionsSwitch>(),
                },
                "required": ["url"],
                "additionalProperties": false,
            },
        ],
    }));
    schema!(SessionsSwitch, "SessionsSwitch", generator => json_schema!({
        "description": "Accepts session cookies and session tokens, which the gate exchanges at the server.",
        "anyOf": [{ "type": "boolean" }, generator.subschema_for::<Sessions>()],
    }));
    schema!(RateLimits, "RateLimits", generator => json_schema!({
        "anyOf": [generator.subschema_for::<RateLimit>(), generator.subschema_for::<Vec<RateLimit>>()],
    }));
    schema!(RouteCors, "RouteCors", generator => json_schema!({
        "anyOf": [{ "const": false }, generator.subschema_for::<Cors>()],
    }));
}

#[cfg(test)]
mod tests;
