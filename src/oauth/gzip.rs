//! Undoes gzip (RFC 1952), which some gateways apply although the request did not ask for it.

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{
        DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    },
};
use secrecy::zeroize::Zeroizing;

/// The first two bytes. No JSON and no form begins with them.
const MAGIC: &[u8] = b"\x1f\x8b";
const DEFLATE: u8 = 8;
/// Method, flags, time, and two bytes more.
const FIXED_HEADER: usize = 10;

const FLAG_CHECKSUM: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

pub(super) enum Gunzipped {
    /// All of the text, or the beginning of it if the input is cut short.
    Text(Zeroizing<Vec<u8>>),
    OverLimit,
    Invalid,
}

pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Decodes at most `limit` bytes.
///
/// The checksum is not compared: if the input is cut short it is missing, and the text may be complete all the same.
pub(super) fn gunzip(input: &[u8], limit: usize) -> Gunzipped {
    let Some(deflated) = after_header(input) else {
        return Gunzipped::Invalid;
    };
    let mut size = input.len().saturating_mul(4).min(limit);
    loop {
        // Into one buffer that is wiped. A buffer that is too small is replaced, and the work is done again.
        let mut text = Zeroizing::new(vec![0; size]);
        let (status, _, written) = decompress(
            &mut Box::<DecompressorOxide>::default(),
            deflated,
            &mut text,
            0,
            TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        );
        match status {
            TINFLStatus::Done
            | TINFLStatus::FailedCannotMakeProgress
            | TINFLStatus::NeedsMoreInput => {
                text.truncate(written);
                return Gunzipped::Text(text);
            }
            TINFLStatus::HasMoreOutput if size < limit => {
                size = size.saturating_mul(4).min(limit);
            }
            TINFLStatus::HasMoreOutput => return Gunzipped::OverLimit,
            _ => return Gunzipped::Invalid,
        }
    }
}

/// What follows the header (RFC 1952 §2.3).
fn after_header(input: &[u8]) -> Option<&[u8]> {
    let (fixed, mut rest) = input.split_at_checked(FIXED_HEADER)?;
    if !is_gzip(fixed) || fixed[2] != DEFLATE {
        return None;
    }
    let flags = fixed[3];
    if flags & FLAG_EXTRA != 0 {
        let (length, extra) = rest.split_first_chunk()?;
        rest = extra.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|b| *b == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & FLAG_CHECKSUM != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}
