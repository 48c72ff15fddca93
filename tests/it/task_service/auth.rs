//! Sign-up, sign-in and tokens.

use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::service::Service;
use super::{SECRET, assert_moment};

pub(super) fn signs_a_user_up_in_and_out(service: &Service) {
    let bob = json!({ "email": " Bob@Example.com ", "password": "correct horse", "name": " Bob " });
    let up = service
        .call("POST", "/api/auth/signup")
        .json(&bob)
        .returned(201);
    let user = &up["user"];
    assert_eq!(
        (&user["email"], &user["name"]),
        (&json!("bob@example.com"), &json!("Bob"))
    );
    assert_eq!(user["id"].as_str().unwrap().len(), 32);
    assert_moment(user["created_at"].as_str().unwrap());
    let fields: Vec<_> = user.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["created_at", "email", "id", "name"],
        "never the hash"
    );

    let known = json!({ "email": "BOB@example.com", "password": "correct horse" });
    let back = service
        .call("POST", "/api/auth/signin")
        .json(&known)
        .returned(200);
    assert_eq!(&back["user"], user);

    for token in [&up["token"], &back["token"]] {
        let token = token.as_str().unwrap();
        let verified = service
            .call("GET", "/api/auth/verify")
            .bearer(token)
            .returned(200);
        assert_eq!(&verified, user);
    }
    service.call("POST", "/api/auth/signout").returned(200);

    let nameless = json!({ "email": "nameless@example.com", "password": "correct horse" });
    let up = service
        .call("POST", "/api/auth/signup")
        .json(&nameless)
        .returned(201);
    assert_eq!(up["user"]["name"], Value::Null);
}

pub(super) fn rejects_an_invalid_sign_up(service: &Service) {
    let valid = "correct horse";
    let invalid = [
        json!({}),
        json!([]),
        json!({ "email": "x@example.com" }),
        json!({ "password": valid }),
        json!({ "email": "", "password": valid }),
        json!({ "email": "example.com", "password": valid }),
        json!({ "email": "@example.com", "password": valid }),
        json!({ "email": "x@", "password": valid }),
        json!({ "email": "x\0@example.com", "password": valid }),
        json!({ "email": format!("{}@b", "x".repeat(253)), "password": valid }),
        json!({ "email": "x@example.com", "password": "1234567" }),
        json!({ "email": "x@example.com", "password": "1234567\08" }),
        json!({ "email": "x@example.com", "password": "a".repeat(73) }),
        json!({ "email": "x@example.com", "password": "ä".repeat(37) }),
        json!({ "email": "x@example.com", "password": 12_345_678 }),
        json!({ "email": "x@example.com", "password": valid, "name": " " }),
        json!({ "email": "x@example.com", "password": valid, "name": "\0" }),
        json!({ "email": "x@example.com", "password": valid, "name": "x".repeat(201) }),
    ];
    for body in &invalid {
        service
            .call("POST", "/api/auth/signup")
            .json(body)
            .rejected(400);
    }
    service
        .call("POST", "/api/auth/signup")
        .body("{")
        .rejected(400);
    service
        .call("POST", "/api/auth/signin")
        .body("{")
        .rejected(400);
    service
        .call("POST", "/api/auth/signin")
        .json(&json!({ "email": "x" }))
        .rejected(400);

    let too_long = json!({ "email": "x@example.com", "password": "a".repeat(73) });
    let detail = service
        .call("POST", "/api/auth/signup")
        .json(&too_long)
        .rejected(400);
    assert_eq!(detail, "the password must have at most 72 bytes");

    let longest = json!({ "email": "x@example.com", "password": "a".repeat(72) });
    service
        .call("POST", "/api/auth/signup")
        .json(&longest)
        .returned(201);
    service
        .call("POST", "/api/auth/signin")
        .json(&longest)
        .returned(200);
    // bcrypt alone ignores bytes after the 72nd and accepts this password.
    service
        .call("POST", "/api/auth/signin")
        .json(&too_long)
        .rejected(401);
}

pub(super) fn accepts_an_email_once_regardless_of_case(service: &Service) {
    let carol = |email: &str| json!({ "email": email, "password": "correct horse" });
    service
        .call("POST", "/api/auth/signup")
        .json(&carol("carol@example.com"))
        .returned(201);
    for email in [
        "carol@example.com",
        "CAROL@EXAMPLE.COM",
        " Carol@example.com\t",
    ] {
        service
            .call("POST", "/api/auth/signup")
            .json(&carol(email))
            .rejected(409);
    }
}

pub(super) fn exactly_one_of_many_concurrent_sign_ups_succeeds(service: &Service) {
    let statuses = thread::scope(|scope| {
        let racers: Vec<_> = (0..12)
            .map(|racer| {
                scope.spawn(move || {
                    let email = if racer % 2 == 0 {
                        "race@example.com"
                    } else {
                        "RACE@example.com"
                    };
                    let body = json!({ "email": email, "password": format!("password {racer}") });
                    service
                        .call("POST", "/api/auth/signup")
                        .json(&body)
                        .send()
                        .status
                })
            })
            .collect();
        let mut statuses: Vec<_> = racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .collect();
        statuses.sort_unstable();
        statuses
    });
    let mut expected = vec![409; 12];
    expected[0] = 201;
    assert_eq!(statuses, expected);
}

pub(super) fn rejects_every_invalid_sign_in_with_the_same_text(service: &Service) {
    let wrong = [
        ("bob@example.com", "wrong horse"),
        ("nobody@example.com", "correct horse"),
        ("no email", "correct horse"),
        ("", ""),
        ("bob@example.com", ""),
        ("bob@example.com", "correct horse\0correct horse"),
    ];
    for (email, password) in wrong {
        let body = json!({ "email": email, "password": password });
        let detail = service
            .call("POST", "/api/auth/signin")
            .json(&body)
            .rejected(401);
        assert_eq!(detail, "the email or the password is wrong", "{body}");
    }
}

/// Decodes the token without a JWT library: a library that signs and verifies cannot detect its own errors.
pub(super) fn issues_a_token_with_the_documented_claims(service: &Service) {
    let body = json!({ "email": "bob@example.com", "password": "correct horse" });
    let back = service
        .call("POST", "/api/auth/signin")
        .json(&body)
        .returned(200);
    let parts: Vec<_> = back["token"].as_str().unwrap().split('.').collect();
    assert_eq!(parts.len(), 3);
    let read = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(read(parts[0]), json!({ "typ": "JWT", "alg": "HS256" }));
    assert_eq!(URL_SAFE_NO_PAD.decode(parts[2]).unwrap().len(), 32);

    let claims = read(parts[1]);
    let iat = claims["iat"].as_i64().unwrap();
    let expected = json!({
        "sub": back["user"]["id"], "user_id": back["user"]["id"], "email": "bob@example.com",
        "iat": iat, "exp": iat + 7 * 24 * 60 * 60,
    });
    assert_eq!(claims, expected);
}

pub(super) fn rejects_an_invalid_token(service: &Service) {
    let body = json!({ "email": "bob@example.com", "password": "correct horse" });
    let back = service
        .call("POST", "/api/auth/signin")
        .json(&body)
        .returned(200);
    let valid = back["token"].as_str().unwrap();
    let parts: Vec<_> = valid.split('.').collect();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let now = claims["iat"].as_i64().unwrap();
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let sign = |algorithm: Algorithm, claims: &Value, secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    };
    let verify = |token: &str| service.call("GET", "/api/auth/verify").bearer(token);

    // Each token below is rejected for its only difference from this one.
    verify(&sign(Algorithm::HS256, &claims, SECRET)).returned(200);

    let mut without_exp = claims.clone();
    without_exp.as_object_mut().unwrap().remove("exp");
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let invalid = [
        String::new(),
        "x".to_owned(),
        "a.b.c".to_owned(),
        sign(Algorithm::HS256, &with("exp", json!(now - 1)), SECRET),
        sign(Algorithm::HS256, &with("exp", json!(now - 30)), SECRET),
        sign(Algorithm::HS256, &without_exp, SECRET),
        sign(Algorithm::HS256, &with("nbf", json!(now + 3600)), SECRET),
        sign(Algorithm::HS256, &with("sub", json!("nobody")), SECRET),
        sign(Algorithm::HS256, &with("sub", json!("no\0body")), SECRET),
        sign(Algorithm::HS256, &with("sub", json!(1)), SECRET),
        sign(
            Algorithm::HS256,
            &claims,
            "another secret that is as long as 32 bytes",
        ),
        sign(Algorithm::HS384, &claims, SECRET),
        sign(Algorithm::HS512, &claims, SECRET),
        format!("{unsigned}.{}.", parts[1]),
        format!("{unsigned}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{valid}x"),
        format!("{valid}.x"),
    ];
    for token in &invalid {
        verify(token).rejected(401);
    }
    service.call("GET", "/api/auth/verify").rejected(401);
    service
        .call("GET", "/api/auth/verify")
        .bearer(valid)
        .bearer(valid)
        .rejected(401);
    service
        .call("GET", "/api/auth/verify")
        .user("bob")
        .rejected(401);
    let basic = format!("Basic {valid}");
    service
        .call("GET", "/api/auth/verify")
        .header("Authorization", basic.as_bytes())
        .rejected(401);
    let lower = format!("bearer {valid}");
    service
        .call("GET", "/api/auth/verify")
        .header("Authorization", lower.as_bytes())
        .returned(200);
}

#[test]
fn a_sign_in_takes_equally_long_with_and_without_a_user() {
    // A cost at which hashing dominates the time.
    let service = Service::start(&[("DATABASE_URL", "sqlite::memory:"), ("BCRYPT_COST", "10")]);
    let known = json!({ "email": "bob@example.com", "password": "correct horse" });
    service
        .call("POST", "/api/auth/signup")
        .json(&known)
        .returned(201);
    let time = |email: &str| {
        let body = json!({ "email": email, "password": "wrong horse" });
        let start = Instant::now();
        service
            .call("POST", "/api/auth/signin")
            .json(&body)
            .rejected(401);
        start.elapsed()
    };
    // Alternating, with the minimum of many: other load on the machine slows single requests, and more turns show a
    // systematic difference.
    let (mut with_user, mut without) = (Duration::MAX, Duration::MAX);
    for turn in 1..=40 {
        with_user = with_user.min(time("bob@example.com"));
        without = without.min(time("nobody@example.com"));
        let are_alike = without * 3 > with_user && with_user * 3 > without;
        if turn >= 8 && are_alike {
            return;
        }
    }
    panic!("{without:?} without a user, {with_user:?} with one");
}
