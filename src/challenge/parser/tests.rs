use proptest::prelude::*;

use super::*;

/// The challenges of a line in a plain notation: `scheme | name=value`, with `!` where it can't be parsed.
fn read(line: &[u8]) -> String {
    let mut words = Vec::new();
    for part in challenges(line) {
        words.push(match part {
            Ok(Part::Scheme(scheme)) => String::from_utf8_lossy(scheme).into_owned(),
            Ok(Part::Param(name, value)) => {
                let value: Vec<u8> = value.bytes().collect();
                let (name, value) = (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(&value),
                );
                format!("{name}={value}")
            }
            Err(Malformed) => "!".into(),
        });
    }
    words.join(" | ")
}

#[test]
fn valid_and_common_invalid_challenges_are_parsed() {
    for (line, expected) in [
        ("", ""),
        (" , ,\t,", ""),
        ("Bearer", "Bearer"),
        ("Bearer ", "Bearer"),
        (r#"Bearer realm="a b""#, "Bearer | realm=a b"),
        (r"bearer REALM=a", "bearer | REALM=a"),
        // The example of RFC 9110 §11.6.1.
        (
            r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#,
            r#"Basic | realm=simple | Newauth | realm=apps | type=1 | title=Login to "apps""#,
        ),
        // Schemes without parameters.
        ("Negotiate, Bearer", "Negotiate | Bearer"),
        ("NTLM,Bearer error=x", "NTLM | Bearer | error=x"),
        // token68, with and without padding, and parameters that look like one.
        ("Negotiate abc==", "Negotiate"),
        (
            "Negotiate abc== , Bearer error=x",
            "Negotiate | Bearer | error=x",
        ),
        ("Negotiate a/b+c, Bearer", "Negotiate | Bearer"),
        ("Negotiate YII=, Bearer", "Negotiate | Bearer"),
        ("Bearer error=abc", "Bearer | error=abc"),
        ("Bearer error = \"abc\"", "Bearer | error=abc"),
        // Empty elements, anywhere.
        (", Bearer ,, error=x ,", "Bearer | error=x"),
        // Commas, quotes and schemes inside quotes.
        (
            r#"Bearer realm="x, Basic y=\"z\", \\", error="e""#,
            r#"Bearer | realm=x, Basic y="z", \ | error=e"#,
        ),
        // Unusual spaces.
        ("Bearer  \t error=x", "Bearer | error=x"),
        ("Bearer\terror=x", "Bearer | error=x"),
        // A missing comma, and a URL without quotes.
        (
            r#"Bearer realm="x" error="y""#,
            "Bearer | realm=x | error=y",
        ),
        (
            "Bearer authorization_uri=https://login.example/?a=b, error=x",
            "Bearer | authorization_uri=https://login.example/?a=b | error=x",
        ),
        // Beyond ASCII, in quotes.
        (
            "Bearer realm=\"café\", error=x",
            "Bearer | realm=café | error=x",
        ),
        ("Bearer scope=, error=x", "Bearer | error=x"),
        (
            "Bearer a=b, scope=, error=x",
            "Bearer | a=b | scope= | error=x",
        ),
        // What is before the error counts.
        (
            r#"Bearer error=x, realm="unterminated"#,
            "Bearer | error=x | !",
        ),
        (r#"Bearer realm="ends in \"#, "Bearer | !"),
        ("Bearer: error=x", "!"),
        ("<html>", "!"),
        ("=x", "!"),
        ("\"quoted\"", "!"),
        ("é", "!"),
        ("Basic realm=a, {}, Bearer", "Basic | realm=a | !"),
    ] {
        assert_eq!(read(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn values_are_compared_without_case_and_quoting() {
    assert!(Value::Plain(b"Invalid_Token").is("invalid_token"));
    assert!(Value::Quoted(br"in\valid\_token").is("invalid_token"));
    assert!(!Value::Plain(br"in\valid_token").is("invalid_token"));
    assert!(!Value::Plain(b"invalid_token2").is("invalid_token"));
    assert!(!Value::Plain(b"invalid").is("invalid_token"));
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}"
}

/// A challenge as it may be written, and what `read` makes of it.
fn challenge() -> impl Strategy<Value = (String, String)> {
    let quoted = "[ -~]{0,10}".prop_map(|text| {
        let written: String = text
            .chars()
            .flat_map(|c| {
                matches!(c, '"' | '\\')
                    .then_some('\\')
                    .into_iter()
                    .chain([c])
            })
            .collect();
        (format!("\"{written}\""), text)
    });
    let value = prop_oneof![token().prop_map(|text| (text.clone(), text)), quoted];
    let param = (token(), "[ \t]{0,2}", "[ \t]{0,2}", value).prop_map(|(name, a, b, value)| {
        (
            format!("{name}{a}={b}{}", value.0),
            format!("{name}={}", value.1),
        )
    });
    let params =
        (prop::collection::vec(param, 1..4), "[ \t]{0,2},[ ,]{0,2}").prop_map(|(params, comma)| {
            let (written, parsed): (Vec<_>, Vec<_>) = params.into_iter().unzip();
            (
                format!(" {}", written.join(&comma)),
                format!(" | {}", parsed.join(" | ")),
            )
        });
    let rest = prop_oneof![
        Just((String::new(), String::new())),
        "[a-zA-Z0-9._~+/-]{1,8}={0,2}".prop_map(|token68| (format!(" {token68}"), String::new())),
        params,
    ];
    (token(), rest).prop_map(|(scheme, (written, parsed))| {
        (format!("{scheme}{written}"), format!("{scheme}{parsed}"))
    })
}

proptest! {
    #[test]
    fn any_valid_list_of_challenges_is_parsed(
        list in prop::collection::vec(challenge(), 0..5),
        comma in "[ \t]{0,2},[ \t,]{0,3}",
    ) {
        let (written, parsed): (Vec<_>, Vec<_>) = list.into_iter().unzip();
        prop_assert_eq!(read(written.join(&comma).as_bytes()), parsed.join(" | "));
    }

    #[test]
    fn arbitrary_bytes_cause_no_panic_and_no_endless_loop(line in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(challenges(&line).count() <= line.len());
    }

    #[test]
    fn almost_valid_headers_cause_no_panic_and_no_endless_loop(line in r#"[a=", \\]{0,24}"#) {
        prop_assert!(challenges(line.as_bytes()).count() <= line.len());
    }
}
