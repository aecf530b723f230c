use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;

use super::*;
use crate::{Token, TokenCache, TokenContext, source_fn};

/// A cache whose source numbers its tokens, and the header of the first one.
async fn numbered() -> (TokenCache, HeaderValue) {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let cache = TokenCache::new(source_fn(move |_: TokenContext| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        async move { Token::new(format!("token-{number}")) }
    }));
    let first = cache.token().await.unwrap().header().clone();
    (cache, first)
}

/// Makes a call with the token `sent`. The response has this content type, a message, and `status` in its trailers.
async fn call(
    cache: &TokenCache,
    sent: Option<&HeaderValue>,
    content_type: &'static str,
    status: &'static str,
) {
    let service = service_fn(move |_: Request<()>| async move {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static(status),
        )]);
        let body = Full::new(Bytes::from("a message")).with_trailers(async { Some(Ok(trailers)) });
        Response::builder()
            .header("content-type", content_type)
            .body(body)
    });
    let mut request = Request::new(());
    if let Some(sent) = sent {
        request.headers_mut().insert(AUTHORIZATION, sent.clone());
    }
    let layer = RejectOnTrailersLayer::new(cache.clone());
    let response = layer.layer(service).oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], status);
    assert_eq!(body.to_bytes(), "a message");
}

#[tokio::test(start_paused = true)]
async fn after_a_rejection_in_the_trailers_the_next_call_has_a_new_token() {
    let (cache, first) = numbered().await;
    call(&cache, Some(&first), "application/grpc+proto", "16").await;
    assert_eq!(cache.status().rejected, 1);
    assert_eq!(cache.token().await.unwrap().header(), "Bearer token-2");
}

#[tokio::test(start_paused = true)]
async fn a_late_rejection_of_an_old_token_does_not_affect_the_new_one() {
    let (cache, first) = numbered().await;
    cache.refresh().await.unwrap();
    for _ in 0..3 {
        call(&cache, Some(&first), "application/grpc", "16").await;
    }
    assert_eq!(cache.status().rejected, 0);
    assert_eq!(cache.token().await.unwrap().header(), "Bearer token-2");
    assert_eq!(cache.status().issued, 2);
}

#[tokio::test(start_paused = true)]
async fn only_status_16_of_grpc_with_the_current_token_rejects_it() {
    let (cache, first) = numbered().await;
    let foreign = HeaderValue::from_static("Bearer another");
    for (sent, content_type, status) in [
        (Some(&first), "application/grpc", "0"),
        (Some(&first), "application/grpc", "7"),
        (Some(&first), "application/grpc", "160"),
        (Some(&first), "application/json", "16"),
        (Some(&foreign), "application/grpc", "16"),
        (None, "application/grpc", "16"),
    ] {
        call(&cache, sent, content_type, status).await;
        assert_eq!(cache.status().rejected, 0, "{content_type} {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_after_messages_is_that_of_an_accepted_token() {
    let (cache, mut sent) = numbered().await;
    for number in 2..12 {
        call(&cache, Some(&sent), "application/grpc", "16").await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        sent = cache.token().await.unwrap().header().clone();
        assert_eq!(sent, format!("Bearer token-{number}"));
    }
    // After ten of them in a row, the budget is used up.
    for _ in 0..1_800 {
        call(&cache, Some(&sent), "application/grpc", "16").await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        sent = cache.token().await.unwrap().header().clone();
    }
    let issued = cache.status().issued;
    assert!(issued <= 11 + 13, "{issued}");
}

#[tokio::test(start_paused = true)]
async fn the_body_tells_its_length_and_its_end_as_before() {
    let (cache, _) = numbered().await;
    for text in ["", "a message"] {
        let service = service_fn(move |_: Request<()>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text))))
        });
        let layer = RejectOnTrailersLayer::new(cache.clone());
        let response = layer
            .layer(service)
            .oneshot(Request::new(()))
            .await
            .unwrap();
        let body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        assert_eq!(body.is_end_stream(), text.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_when_the_inner_service_is() {
    let (cache, _) = numbered().await;
    let (inner, mut handle) = tower_test::mock::pair::<Request<()>, Response<Full<Bytes>>>();
    let mut service = RejectOnTrailersLayer::new(cache).layer(inner);
    handle.allow(0);
    let mut ready = tokio_test::task::spawn(service.ready());
    assert!(ready.poll().is_pending());
    handle.allow(1);
    assert!(ready.poll().is_ready());
}
