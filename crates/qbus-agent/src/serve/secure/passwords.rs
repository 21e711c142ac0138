//! Names and passwords (HTTP basic authentication).

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Mutex;

use crate::serve::routes::blocking;

/// What an unknown user's password is compared with, so that it takes as long as a known one's.
const NOBODY: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
/// Verdicts that are kept: scrapers are few.
const KEPT_MAX: usize = 100;

/// Who may ask: names and bcrypt hashes.
#[derive(Default)]
pub(super) struct Passwords(HashMap<String, String>);

impl Passwords {
    pub(super) fn new(users: Vec<(String, String)>) -> Passwords {
        Passwords(users.into_iter().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was found out about passwords.
///
/// A hash is meant to be slow: some 70 ms. So one is computed at a time, whoever asks, and never
/// twice for the same question: a scraper asks it every few seconds.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<HashMap<[String; 3], bool>>);

impl Verdicts {
    pub(super) async fn is_right(
        &self,
        passwords: Arc<Passwords>,
        user: String,
        password: String,
    ) -> bool {
        let known_hash = passwords.0.get(&user).cloned();
        let is_known = known_hash.is_some();
        let hash = known_hash.unwrap_or_else(|| NOBODY.to_owned());
        let question = [user, hash, password];
        let mut kept = self.0.lock().await;
        if let Some(&verdict) = kept.get(&question) {
            return verdict && is_known;
        }
        let [_, hash, password] = question.clone();
        let verdict = blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(question, verdict);
        verdict && is_known
    }
}

/// User and password of an `Authorization` header.
pub(super) fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_decoded_or_refused() {
        let alice = credentials("Basic YWxpY2U6YTpi");
        assert_eq!(alice, Some(("alice".to_owned(), "a:b".to_owned())));
        for header in [
            "",
            "Basic",
            "Basic !!!",
            "Basic YWxpY2U=",
            "Bearer YWxpY2U6YTpi",
            "Basic /w==",
        ] {
            assert_eq!(credentials(header), None, "{header}");
        }
    }

    #[test]
    fn verdicts_are_right_also_the_second_time() {
        let hash = bcrypt::hash("secret", 4).expect("a hash");
        let passwords = Arc::new(Passwords::new(vec![("alice".to_owned(), hash)]));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let verdicts = Verdicts::default();
        for _ in 0..2 {
            for (user, password, expected) in [
                ("alice", "secret", true),
                ("alice", "wrong", false),
                ("bob", "secret", false),
                // Everybody knows the password of the dummy, and no user has it.
                ("bob", "fakepassword", false),
            ] {
                let verdict =
                    verdicts.is_right(passwords.clone(), user.to_owned(), password.to_owned());
                assert_eq!(runtime.block_on(verdict), expected, "{user} {password}");
            }
        }
    }
}
