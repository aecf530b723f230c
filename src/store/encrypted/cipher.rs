//! [`Cipher`]: a key that encrypts and decrypts sessions.

use std::fmt::Write;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use secrecy::zeroize::Zeroizing;

use crate::store::format::Encoded;

/// The length of a key, in bytes.
pub(super) const KEY_LEN: usize = 32;

const TAG_LEN: usize = 16;

/// Tells this use of a key, and this layout of the data, apart from all others.
const LABEL: &[u8] = b"tower-bearer session, format 4";

/// AES-256-GCM (RFC 5116 §5.2). What is encrypted is the nonce, the ciphertext and the tag, in base64.
///
/// # The nonce
///
/// Two messages with one nonce under one key would break GCM (RFC 5116 §5.1.1). The nonce is derived from all that is
/// encrypted and authenticated, by a pseudorandom function with a key of its own, as in SIV mode (RFC 5297). So two
/// messages have the same nonce only if they are the same, or if 96 bits collide. That is as likely as with random nonces,
/// and has the same limit: 2^32 saves with one key keep it below 2^-32 (NIST SP 800-38D §8 and §8.3).
///
/// It is not random because a save must be repeatable: a store accepts the same session once more if it is the same text.
/// A nonce that is remembered for this would not survive the lease or the process. All that it gives away is whether two
/// texts are the same version of the same session. And no random number generator can repeat itself, as after a snapshot
/// of a virtual machine.
pub(super) struct Cipher {
    id: Box<str>,
    encryption: LessSafeKey,
    nonces: hmac::Key,
}

impl Cipher {
    /// `None` if the library has no memory for it.
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Option<Self> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL).extract(key);
        // Keys of their own, so that none of the uses says anything about another one.
        let derive = |purpose: &str| {
            let mut derived = Zeroizing::new([0; KEY_LEN]);
            prk.expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut *derived))
                .ok()?;
            Some(derived)
        };
        let encryption = UnboundKey::new(&AES_256_GCM, &*derive("encryption")?).ok()?;
        Some(Self {
            id: hex(&derive("id")?[..4]),
            encryption: LessSafeKey::new(encryption),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, &*derive("nonce")?),
        })
    }

    /// Identifies the key: 32 bits that are derived from it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts `plain`, so that it can be decrypted as what it is: this version of the session `name`.
    pub(super) fn seal(&self, name: &str, version: u64, plain: &Encoded) -> Option<Box<str>> {
        let context = context(name, version);
        let mut mac = hmac::Context::with_key(&self.nonces);
        mac.update(&context);
        mac.update(plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&mac.sign().as_ref()[..NONCE_LEN]);

        // Its full capacity at once, and wiped: it has the plain text until that is encrypted.
        let mut data = Zeroizing::new(Vec::with_capacity(NONCE_LEN + plain.len() + TAG_LEN));
        data.extend_from_slice(&nonce);
        data.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.encryption.seal_in_place_separate_tag(
            nonce,
            Aad::from(&context),
            &mut data[NONCE_LEN..],
        );
        data.extend_from_slice(tag.ok()?.as_ref());
        Some(BASE64_STANDARD_NO_PAD.encode(&*data).into())
    }

    /// Decrypts what [`seal`](Self::seal) has returned for the same name and version. `None` if it is anything else.
    pub(super) fn open(&self, name: &str, version: u64, data: &str) -> Option<Encoded> {
        let mut data = Zeroizing::new(BASE64_STANDARD_NO_PAD.decode(data).ok()?);
        let nonce = Nonce::try_assume_unique_for_key(data.get(..NONCE_LEN)?).ok()?;
        data.drain(..NONCE_LEN);
        let context = Aad::from(context(name, version));
        let plain = self.encryption.open_in_place(nonce, context, &mut data);
        let length = plain.ok()?.len();
        data.truncate(length);
        Some(data)
    }
}

/// What is authenticated besides the session itself. The length makes sure that no two of them are the same bytes, also if
/// a session follows.
fn context(name: &str, version: u64) -> Vec<u8> {
    let mut context = LABEL.to_vec();
    context.extend(version.to_be_bytes());
    context.extend((name.len() as u64).to_be_bytes());
    context.extend(name.as_bytes());
    context
}

fn hex(bytes: &[u8]) -> Box<str> {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(byte: u8) -> Cipher {
        Cipher::new(&[byte; KEY_LEN]).unwrap()
    }

    fn plain(text: &str) -> Encoded {
        Encoded::new(text.into())
    }

    /// Computed with the `cryptography` package of Python: another implementation of all of it. Later versions of the crate
    /// must decrypt what this one has encrypted.
    #[test]
    fn another_implementation_encrypts_to_the_same_text() {
        let sealed = cipher(7).seal("vendor", 3, &plain("{}")).unwrap();
        assert_eq!(&*sealed, "wH1tdhLMGXLRbNqbC9Wgfacqi4ydugQx5JQX5/YH");
        assert_eq!(cipher(7).id(), "f11816ac");
    }

    #[test]
    fn what_is_encrypted_is_decrypted_again() {
        for text in ["", "x", &"hunter2 ".repeat(10_000)] {
            let sealed = cipher(1).seal("vendor", 3, &plain(text)).unwrap();
            assert!(!sealed.contains("hunter2"));
            let opened = cipher(1).open("vendor", 3, &sealed).unwrap();
            assert_eq!(*opened, text.as_bytes());
        }
    }

    #[test]
    fn whatever_differs_makes_another_nonce() {
        let seal = |key, name, version, text| {
            let sealed = cipher(key).seal(name, version, &plain(text)).unwrap();
            sealed[..16].to_owned()
        };
        let one = seal(1, "vendor", 3, "text");
        assert_eq!(one, seal(1, "vendor", 3, "text"));
        for other in [
            seal(2, "vendor", 3, "text"),
            seal(1, "seller", 3, "text"),
            seal(1, "vendor", 4, "text"),
            seal(1, "vendor", 3, "texts"),
            seal(1, "vendort", 3, "ext"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn nothing_but_the_same_key_name_version_and_data_is_decrypted() {
        let sealed = cipher(1).seal("vendor", 3, &plain("text")).unwrap();
        assert!(cipher(1).open("vendor", 3, &sealed).is_some());
        assert!(cipher(2).open("vendor", 3, &sealed).is_none());
        for name in ["", "vendo", "vendors", "seller"] {
            assert!(cipher(1).open(name, 3, &sealed).is_none(), "{name}");
        }
        assert!(cipher(1).open("vendor", 2, &sealed).is_none());
        let data = BASE64_STANDARD_NO_PAD.decode(sealed.as_bytes()).unwrap();
        for byte in 0..data.len() {
            for bit in 0..8 {
                let mut changed = data.clone();
                changed[byte] ^= 1 << bit;
                let changed = BASE64_STANDARD_NO_PAD.encode(changed);
                assert!(cipher(1).open("vendor", 3, &changed).is_none(), "{byte}");
            }
        }
        for length in 0..data.len() {
            let cut = BASE64_STANDARD_NO_PAD.encode(&data[..length]);
            assert!(cipher(1).open("vendor", 3, &cut).is_none(), "{length}");
        }
        // Text that is not base64, and other spellings of the same data.
        for end in 0..sealed.len() {
            assert!(cipher(1).open("vendor", 3, &sealed[..end]).is_none());
        }
        for text in [format!("{sealed}="), format!("{sealed}\n"), "ü".into()] {
            assert!(cipher(1).open("vendor", 3, &text).is_none(), "{text}");
        }
    }
}
