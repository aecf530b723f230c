//! Reads the body of a token response, up to limits, into memory that is wiped.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use secrecy::zeroize::Zeroizing;
use tower::BoxError;

use super::gzip::{Gunzipped, gunzip, is_gzip};
use crate::zeroize::{extend, zeroized};

/// How many empty or trailer frames are read. A body of nothing else would keep the refresh busy without end.
const MAX_FRAMES_WITHOUT_DATA: usize = 1_000;

/// The body of a token response, as far as it has been read.
pub(super) struct ResponseBody {
    bytes: Zeroizing<Vec<u8>>,
    /// How many decoded bytes are read.
    limit: usize,
    is_cut: bool,
}

/// Why the end of a body did not arrive.
pub(super) enum ReadError {
    Transport(BoxError),
    TooManyFrames,
}

impl ResponseBody {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bytes: Zeroizing::default(),
            limit,
            is_cut: false,
        }
    }

    /// Reads to the end, or to the limit. If this fails or is dropped, what has arrived is kept.
    pub(super) async fn read(
        &mut self,
        mut body: UnsyncBoxBody<Bytes, BoxError>,
    ) -> Result<(), ReadError> {
        // Data that does not compress gets a little longer.
        let encoded_limit = self.limit.saturating_add(self.limit / 32 + 1024);
        let mut without_data = 0;
        while let Some(frame) = body.frame().await {
            let data = frame
                .map_err(ReadError::Transport)?
                .into_data()
                .unwrap_or_default();
            if data.is_empty() {
                without_data += 1;
                if without_data > MAX_FRAMES_WITHOUT_DATA {
                    return Err(ReadError::TooManyFrames);
                }
                continue;
            }
            let room = encoded_limit - self.bytes.len();
            extend(&mut self.bytes, &data[..data.len().min(room)]);
            if data.len() > room || (self.bytes.len() > self.limit && !is_gzip(&self.bytes)) {
                self.bytes.truncate(self.limit);
                self.is_cut = true;
                break;
            }
        }
        Ok(())
    }

    /// The decoded bytes, and the limit if there are more of them. The header of an encoding that was undone is removed.
    pub(super) fn decode(mut self, headers: &mut HeaderMap) -> (Bytes, Option<usize>) {
        if !self.is_cut && is_gzip(&self.bytes) {
            match gunzip(&self.bytes, self.limit) {
                Gunzipped::Text(text) => {
                    headers.remove(CONTENT_ENCODING);
                    self.bytes = text;
                }
                Gunzipped::OverLimit => self.is_cut = true,
                Gunzipped::Invalid => {}
            }
        }
        let cut_at = self.is_cut.then_some(self.limit);
        (zeroized(self.bytes), cut_at)
    }
}
