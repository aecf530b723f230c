//! [`Page`]: what a browser shows when the person comes back from the authorization server.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::Full;
use sha2::{Digest, Sha256};

/// The texts of a page. They are text, not HTML.
pub(super) struct Page {
    title: String,
    text: String,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#f2f4f7;--card:#fff;--ink:#1b2330;--soft:#566072;--good:#1a7f4b;--bad:#b3362b}\
@media(prefers-color-scheme:dark){:root{--back:#11151b;--card:#1b212b;--ink:#eef1f5;--soft:#a5afbf;--good:#4ecb8b;--bad:#ff8c7f}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--back);color:var(--ink);\
font:1.0625rem/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
main{width:100%;max-width:30rem;padding:2.375rem 2rem 2.125rem;border-radius:.75rem;\
background:linear-gradient(var(--sign) .3125rem,var(--card) 0);box-shadow:0 .0625rem .1875rem rgb(0 0 0/.14)}\
.good{--sign:var(--good)}.bad{--sign:var(--bad)}\
h1{margin:0 0 .5rem;font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere;text-wrap:balance}\
p{margin:0;color:var(--soft);white-space:pre-line;overflow-wrap:anywhere;text-wrap:pretty}\
.sign{display:block;width:2.75rem;height:2.75rem;margin:0 0 1.25rem;fill:none;stroke:var(--sign);stroke-width:2;\
stroke-linecap:round;stroke-linejoin:round}";

const TICK: &str = "M7 12.5l3.4 3.4L17 9";
const CROSS: &str = "M8.5 8.5l7 7M15.5 8.5l-7 7";

impl Page {
    pub(super) fn new(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            text: text.into(),
        }
    }

    /// The page after a login that has succeeded.
    pub(super) fn success(&self) -> Response<Full<Bytes>> {
        page(StatusCode::OK, self.html("good", TICK))
    }

    /// The page after one that has failed, and for a request that answers no login.
    pub(super) fn failure(&self) -> Response<Full<Bytes>> {
        page(StatusCode::BAD_REQUEST, self.html("bad", CROSS))
    }

    fn html(&self, class: &str, sign: &str) -> String {
        let (title, text) = (escaped(&self.title), escaped(&self.text));
        format!(
            "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n<main class=\"{class}\">\n\
             <svg class=\"sign\" viewBox=\"1 1 22 22\" aria-hidden=\"true\"><circle cx=\"12\" cy=\"12\" r=\"10\"/>\
             <path d=\"{sign}\"/></svg>\n<h1>{title}</h1>\n<p>{text}</p>\n</main>\n"
        )
    }
}

/// The answer to a request for something that is not there, or that may not be asked for.
pub(super) fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = respond(status, Bytes::new());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let get = HeaderValue::from_static("GET");
        response.headers_mut().insert(ALLOW, get);
    }
    response
}

fn page(status: StatusCode, html: String) -> Response<Full<Bytes>> {
    let mut response = respond(status, html.into());
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, html);
    response
}

/// A response that the browser neither keeps nor sniffs, and whose page can load, run and send nothing. Its URL has the code,
/// so no other site is told of it.
fn respond(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 3] = [
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let style = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_page_are_not_html() {
        let page = Page::new("<b>\"A\" & 'B'</b>", "<script>");
        let html = page.html("good", TICK);
        assert!(html.contains("<h1>&lt;b&gt;&quot;A&quot; &amp; &#39;B&#39;&lt;/b&gt;</h1>"));
        assert!(html.contains("<p>&lt;script&gt;</p>") && !html.contains("<script"));
    }
}
