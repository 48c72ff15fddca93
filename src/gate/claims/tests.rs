use super::*;

fn policy() -> ClaimPolicy {
    ClaimPolicy {
        audience: None,
        authorized_party: None,
        allow_bound: false,
        subject: vec!["sub".parse().unwrap(), "user_id".parse().unwrap()],
        namespace: Namespace::default(),
        leeway: 30,
        max_lifetime: None,
    }
}

fn check(json: &str, policy: &ClaimPolicy, now: i64) -> Result<String, Refusal> {
    let claims = Claims::parse(json.as_bytes());
    let claims = claims.unwrap_or_else(|fault| panic!("{json}: {fault}"));
    let checked = claims.check(policy, UnixTime(now))?;
    Ok(checked.subject.as_str().to_owned())
}

#[test]
fn accepts_a_token_until_exp_plus_leeway() {
    let json = r#"{"sub":"a","exp":100}"#;
    assert_eq!(check(json, &policy(), 129), Ok("a".into()));
    assert_eq!(check(json, &policy(), 130), Err(Refusal::TokenExpired));
}

#[test]
fn rejects_a_time_of_another_type() {
    for (time, fault) in [
        ("\"100\"", TimeFault::Text),
        ("null", TimeFault::NotNumber),
        ("true", TimeFault::NotNumber),
        ("[100]", TimeFault::NotNumber),
        ("{}", TimeFault::NotNumber),
        ("-1", TimeFault::OutOfRange),
        ("1e300", TimeFault::OutOfRange),
        ("18446744073709551616", TimeFault::OutOfRange),
        // JavaScript's `Date.now()`.
        ("1700000000000", TimeFault::Milliseconds),
        ("1700000000000.5", TimeFault::Milliseconds),
        ("253402300800", TimeFault::Milliseconds),
        // Microseconds.
        ("1700000000000000", TimeFault::OutOfRange),
    ] {
        for (json, claim) in [
            (format!(r#"{{"sub":"a","exp":{time}}}"#), "exp"),
            (format!(r#"{{"sub":"a","exp":100,"nbf":{time}}}"#), "nbf"),
            (format!(r#"{{"sub":"a","exp":100,"iat":{time}}}"#), "iat"),
        ] {
            let fault = TokenFault::Time(claim, fault);
            let refused = Err(Refusal::TokenMalformed(fault));
            assert_eq!(check(&json, &policy(), 50), refused, "{json}");
        }
    }
    assert_eq!(
        check(r#"{"sub":"a"}"#, &policy(), 50),
        Err(Refusal::TokenMalformed(TokenFault::NoExpiry))
    );
    let last = r#"{"sub":"a","exp":253402300799}"#;
    assert_eq!(check(last, &policy(), 50), Ok("a".into()));
    assert_eq!(
        check(r#"{"sub":"a","exp":100.5}"#, &policy(), 129),
        Ok("a".into())
    );
}

#[test]
fn rejects_a_token_before_nbf_or_iat() {
    for claim in ["nbf", "iat"] {
        let json = format!(r#"{{"sub":"a","exp":1000,"{claim}":131}}"#);
        assert_eq!(
            check(&json, &policy(), 100),
            Err(Refusal::TokenNotYetValid),
            "{claim}"
        );
        assert_eq!(check(&json, &policy(), 101), Ok("a".into()), "{claim}");

        // RFC 7519 section 4.1.5: not before that time, and 131.5 is later than 131.
        let json = format!(r#"{{"sub":"a","exp":1000,"{claim}":131.5}}"#);
        let early = check(&json, &policy(), 101);
        assert_eq!(early, Err(Refusal::TokenNotYetValid), "{claim}");
        assert_eq!(check(&json, &policy(), 102), Ok("a".into()), "{claim}");
    }
}

#[test]
fn measures_the_lifetime_from_iat() {
    let policy = ClaimPolicy {
        max_lifetime: Some(10),
        ..policy()
    };
    assert_eq!(
        check(r#"{"sub":"a","iat":90,"exp":100}"#, &policy, 95),
        Ok("a".into())
    );
    for json in [
        r#"{"sub":"a","iat":89,"exp":100}"#,
        r#"{"sub":"a","exp":100}"#,
    ] {
        assert_eq!(
            check(json, &policy, 95),
            Err(Refusal::TokenLifetime),
            "{json}"
        );
    }
}

#[test]
fn accepts_an_audience_as_a_string_or_a_list_of_strings() {
    let policy = ClaimPolicy {
        audience: Some(vec!["api".into()]),
        ..policy()
    };
    for (aud, is_accepted) in [
        (r#""api""#, true),
        (r#"["web","api"]"#, true),
        (r#"["api"]"#, true),
        (r#""apis""#, false),
        (r#""API""#, false),
        (r#"["web"]"#, false),
        (r#"["api",1]"#, false),
        (r#"[["api"]]"#, false),
        (r#"{"api":true}"#, false),
        ("null", false),
    ] {
        let json = format!(r#"{{"sub":"a","exp":100,"aud":{aud}}}"#);
        let expected = if is_accepted {
            Ok("a".into())
        } else {
            Err(Refusal::TokenAudience)
        };
        assert_eq!(check(&json, &policy, 50), expected, "{aud}");
    }
    assert_eq!(
        check(r#"{"sub":"a","exp":100}"#, &policy, 50),
        Err(Refusal::TokenAudience)
    );
}

#[test]
fn requires_the_authorized_party_as_one_string() {
    let policy = ClaimPolicy {
        authorized_party: Some(vec!["web".into(), "app".into()]),
        ..policy()
    };
    for (azp, expected) in [
        (r#","azp":"web""#, Ok("a".into())),
        (r#","azp":"app""#, Ok("a".into())),
        ("", Err(Refusal::TokenAudience)),
        (r#","azp":"WEB""#, Err(Refusal::TokenAudience)),
        (r#","azp":"web app""#, Err(Refusal::TokenAudience)),
        (r#","azp":["web"]"#, Err(Refusal::TokenAudience)),
        (r#","azp":null"#, Err(Refusal::TokenAudience)),
        (r#","client_id":"web""#, Err(Refusal::TokenAudience)),
    ] {
        let json = format!(r#"{{"sub":"a","exp":100{azp}}}"#);
        assert_eq!(check(&json, &policy, 50), expected, "{json}");
    }
}

#[test]
fn rejects_a_bound_token_unless_the_policy_allows_it() {
    let lenient = ClaimPolicy {
        allow_bound: true,
        ..policy()
    };
    for cnf in [r#"{"jkt":"x"}"#, r#"{"x5t#S256":"x"}"#, "{}", "null", "7"] {
        let json = format!(r#"{{"sub":"a","exp":100,"cnf":{cnf}}}"#);
        let refused = check(&json, &policy(), 50);
        assert_eq!(refused, Err(Refusal::TokenConfirmation), "{json}");
        assert_eq!(check(&json, &lenient, 50), Ok("a".into()), "{json}");
    }
}

#[test]
fn takes_the_subject_from_the_first_claim_present() {
    for (json, expected) in [
        (r#"{"exp":100,"sub":"a","user_id":"b"}"#, Ok("a".into())),
        (r#"{"exp":100,"user_id":"b"}"#, Ok("b".into())),
        (
            r#"{"exp":100,"sub":"","user_id":"b"}"#,
            Err(Refusal::TokenSubject),
        ),
        (
            r#"{"exp":100,"sub":null,"user_id":"b"}"#,
            Err(Refusal::TokenSubject),
        ),
        (r#"{"exp":100,"sub":7}"#, Err(Refusal::TokenSubject)),
        (
            r#"{"exp":100,"email":"a@b.c","userId":"b"}"#,
            Err(Refusal::TokenSubject),
        ),
    ] {
        assert_eq!(check(json, &policy(), 50), expected, "{json}");
    }
}

#[test]
fn counts_the_memory_of_nested_claims() {
    let bytes = |json: &str| Claims::parse(json.as_bytes()).unwrap().bytes();
    assert_eq!(bytes("{}"), 0);
    let text = "x".repeat(1000);
    assert!(bytes(&format!(r#"{{"a":"{text}"}}"#)) > 1000);
    assert!(bytes(&format!(r#"{{"a":[[{{"b":["{text}"]}}]]}}"#)) > 1000);
    assert!(bytes(&format!(r#"{{"{text}":1}}"#)) > 1000);
    // The most memory per byte of a token: a tree node for each `{"":0}`.
    let objects = vec![r#"{"":0}"#; 1000].join(",");
    assert!(bytes(&format!(r#"{{"a":[{objects}]}}"#)) > 500_000);
}

#[test]
fn keeps_only_the_named_claims() {
    let mut claims = Claims::parse(br#"{"sub":"a","email":"b","role":"c"}"#).unwrap();
    claims.keep_only(&BTreeSet::from(["role".to_owned(), "scope".to_owned()]));
    assert_eq!(claims.text("role"), Some("c"));
    assert_eq!((claims.get("sub"), claims.get("email")), (None, None));
}

/// Better Auth puts the user of a cached session inside `user`, and the user of an e-mail link at the top level.
#[test]
fn takes_a_subject_from_inside_another_claim() {
    let policy = ClaimPolicy {
        subject: vec!["/user/id".parse().unwrap()],
        ..policy()
    };
    let session = r#"{"session":{"userId":"u1"},"user":{"id":"u1"},"exp":100}"#;
    assert_eq!(check(session, &policy, 50), Ok("u1".into()));
    for other in [
        r#"{"email":"a@b.c","userId":"u1","exp":100}"#,
        r#"{"sub":"u1","exp":100}"#,
        r#"{"user":{"id":7},"exp":100}"#,
        r#"{"user":"u1","exp":100}"#,
    ] {
        assert_eq!(
            check(other, &policy, 50),
            Err(Refusal::TokenSubject),
            "{other}"
        );
    }
}

#[test]
fn rejects_duplicate_names_at_any_depth() {
    for json in [
        r#"{"sub":"a","sub":"b"}"#,
        r#"{"a":{"b":1,"b":2}}"#,
        r#"{"a":[{"b":1,"b":2}]}"#,
        r#" {"a":1,"\u0061":1}"#,
    ] {
        let parsed = Claims::parse(json.as_bytes());
        assert_eq!(parsed, Err(PartFault::DuplicateName), "{json}");
    }
}

#[test]
fn names_the_fault_of_a_text_that_is_not_an_object() {
    let deep = format!(r#"{{"a":{}"#, "[".repeat(1000));
    for (json, fault) in [
        (&b"[]"[..], PartFault::NotObject),
        (b"1", PartFault::NotObject),
        (b"\"{\"", PartFault::NotObject),
        (b"", PartFault::NotJson),
        (b"{", PartFault::NotJson),
        (b"{'a':1}", PartFault::NotJson),
        (b"{\"a\":1}x", PartFault::NotJson),
        (b"\xef\xbb\xbf{}", PartFault::NotJson),
        (deep.as_bytes(), PartFault::NotJson),
        (b"{\"a\":\"\xff\"}", PartFault::NotUtf8),
        (b"{\"a\":1e400}", PartFault::NumberTooLarge),
    ] {
        assert_eq!(Claims::parse(json), Err(fault), "{json:?}");
    }
}

#[test]
fn prefixes_the_subject_with_that_of_the_issuer() {
    let policy = ClaimPolicy {
        namespace: Namespace::new("okta:", ["", "okta:eu:"]),
        ..policy()
    };
    for (sub, expected) in [
        ("alice", Ok("okta:alice".to_owned())),
        ("eu:alice", Err(Refusal::TokenSubject)),
    ] {
        let json = format!(r#"{{"sub":"{sub}","exp":100}}"#);
        assert_eq!(check(&json, &policy, 50), expected);
    }
}
