use super::*;

const DOCUMENT: &str = r#"{
    "issuer": "https://login.example.com", "token_endpoint": "https://login.example.com/token?tenant=7",
    "revocation_endpoint": "https://login.example.com/revoke", "jwks_uri": null, "x": [{}],
    "mtls_endpoint_aliases": {"token_endpoint": "https://mtls.example.com/token", "introspection_endpoint": "-"}
}"#;

fn metadata(document: &str) -> Metadata {
    let issuer = Issuer::parse("https://login.example.com").unwrap();
    Metadata::parse(document.as_bytes(), &issuer).unwrap()
}

#[test]
fn a_client_with_a_certificate_uses_the_aliases_where_there_are_any() {
    let metadata = metadata(DOCUMENT);
    let url = |url: &EndpointUrl| url.uri().to_string();
    let expected = [
        "https://login.example.com/token?tenant=7",
        "https://mtls.example.com/token",
    ];
    assert_eq!(
        [false, true].map(|mtls| url(metadata.token_endpoint(mtls))),
        expected
    );
    for mtls in [false, true] {
        let revocation = metadata.revocation_endpoint(mtls).map(url);
        assert_eq!(revocation.unwrap(), "https://login.example.com/revoke");
    }
}

#[test]
fn methods_are_named_only_if_the_document_names_others_than_ours() {
    let none = metadata(DOCUMENT);
    assert_eq!(none.other_methods_than("none"), None);
    let some = DOCUMENT.replace(
        "\"jwks_uri\": null",
        "\"token_endpoint_auth_methods_supported\": [\"private_key_jwt\", \"x\"]",
    );
    let some = metadata(&some);
    assert_eq!(some.other_methods_than("private_key_jwt"), None);
    assert_eq!(some.other_methods_than("basic_user_only"), None);
    assert_eq!(some.other_methods_than("none").unwrap(), "private_key_jwt");
}
