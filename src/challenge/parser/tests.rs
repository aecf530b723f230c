use proptest::prelude::*;

use super::*;

/// The challenges of a line in a plain notation: `scheme name=value`, with `!` where it can't be understood.
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
fn challenges_are_read_as_they_are_meant() {
    for (line, meant) in [
        ("", ""),
        (" , ,\t,", ""),
        ("Bearer", "Bearer"),
        ("Bearer ", "Bearer"),
        (r#"Bearer realm="a b""#, "Bearer | realm=a b"),
        (r"bearer REALM=a", "bearer | REALM=a"),
        // RFC 9110 §11.6.1's own example.
        (
            r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#,
            r#"Basic | realm=simple | Newauth | realm=apps | type=1 | title=Login to "apps""#,
        ),
        // Schemes without parameters.
        ("Negotiate, Bearer", "Negotiate | Bearer"),
        ("NTLM,Bearer error=x", "NTLM | Bearer | error=x"),
        // token68, with and without padding; what looks like it is a parameter.
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
        // Commas, quotes and schemes inside of quotes.
        (
            r#"Bearer realm="x, Basic y=\"z\", \\", error="e""#,
            r#"Bearer | realm=x, Basic y="z", \ | error=e"#,
        ),
        // Odd spaces.
        ("Bearer  \t error=x", "Bearer | error=x"),
        ("Bearer\terror=x", "Bearer | error=x"),
        // A comma forgotten, and a URL that isn't quoted.
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
        // What is before the fault counts.
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
        assert_eq!(read(line.as_bytes()), meant, "{line}");
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

/// A challenge as it may be written, and how `read` tells it.
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
            let (written, meant): (Vec<_>, Vec<_>) = params.into_iter().unzip();
            (
                format!(" {}", written.join(&comma)),
                format!(" | {}", meant.join(" | ")),
            )
        });
    let rest = prop_oneof![
        Just((String::new(), String::new())),
        "[a-zA-Z0-9._~+/-]{1,8}={0,2}".prop_map(|token68| (format!(" {token68}"), String::new())),
        params,
    ];
    (token(), rest).prop_map(|(scheme, (written, meant))| {
        (format!("{scheme}{written}"), format!("{scheme}{meant}"))
    })
}

proptest! {
    #[test]
    fn any_list_of_challenges_is_read_as_it_was_written(
        list in prop::collection::vec(challenge(), 0..5),
        comma in "[ \t]{0,2},[ \t,]{0,3}",
    ) {
        let (written, meant): (Vec<_>, Vec<_>) = list.into_iter().unzip();
        prop_assert_eq!(read(written.join(&comma).as_bytes()), meant.join(" | "));
    }

    #[test]
    fn no_bytes_can_make_it_panic_or_go_on_for_ever(line in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(challenges(&line).count() <= line.len());
    }

    #[test]
    fn nor_can_almost_valid_ones(line in r#"[a=", \\]{0,24}"#) {
        prop_assert!(challenges(line.as_bytes()).count() <= line.len());
    }
}
