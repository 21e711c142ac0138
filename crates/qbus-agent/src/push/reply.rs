//! What a receiver's answer means.

use std::time::Duration;

use super::batch::Encoding;
use super::retry::retry_after;

/// What has to be done with a request, by its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was taken, but for so many points; a word of the receiver's, if it has one.
    Taken { rejected: u64, word: String },
    /// It will never be taken, but for so many points that were.
    Refused { written: u64, why: String },
    /// It may be taken later.
    Later {
        after: Option<Duration>,
        why: String,
    },
    /// The receiver does not know this encoding.
    OtherEncoding(String),
}

/// The parts of an answer that matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) content_type: String,
    /// How many samples and histograms it says it has written, as 2.0 demands.
    pub(super) written: Option<u64>,
    /// The beginning of its body.
    pub(super) body: Vec<u8>,
}

/// So much of a receiver's words is shown.
const WORDS_MAX: usize = 200;

impl Reply {
    /// What it means for a request of so many samples.
    pub(super) fn verdict(&self, encoding: Encoding, samples: u64, now_unix: Duration) -> Verdict {
        match self.status {
            200..=299 => self.taken(encoding, samples),
            415 if encoding == Encoding::RemoteWriteTwo => Verdict::OtherEncoding(self.said()),
            status if is_temporary(status, encoding) => Verdict::Later {
                after: self
                    .retry_after
                    .as_deref()
                    .and_then(|text| retry_after(text, now_unix)),
                why: self.said(),
            },
            _ => Verdict::Refused {
                written: self.written.unwrap_or(0).min(samples),
                why: self.said(),
            },
        }
    }

    fn taken(&self, encoding: Encoding, samples: u64) -> Verdict {
        match (encoding, self.written) {
            // A receiver of 1.0 says that all is well, and has stored nothing.
            (Encoding::RemoteWriteTwo, None) => Verdict::OtherEncoding(format!(
                "{}, without saying what it has written",
                self.status
            )),
            (Encoding::RemoteWriteTwo, Some(written)) if written < samples => Verdict::Taken {
                rejected: samples - written,
                word: format!("it says that it has written {written} of {samples}"),
            },
            (Encoding::Otlp | Encoding::OtlpGzip, _) if self.content_type.contains("protobuf") => {
                let (rejected, word) = partial_success(&self.body).unwrap_or_default();
                Verdict::Taken { rejected, word }
            }
            _ => Verdict::Taken {
                rejected: 0,
                word: String::new(),
            },
        }
    }

    /// The answer in a line.
    fn said(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = body.trim().chars().map(plain).take(WORDS_MAX).collect();
        match (self.status, line.as_str()) {
            (300..=399, _) => format!(
                "{}: it lies elsewhere; give the URL that it leads to",
                self.status
            ),
            (status, "") => status.to_string(),
            (status, line) => format!("{status}: {line}"),
        }
    }
}

/// Whether the protocol says to try again.
fn is_temporary(status: u16, encoding: Encoding) -> bool {
    match encoding {
        Encoding::RemoteWriteOne | Encoding::RemoteWriteTwo => status == 429 || status / 100 == 5,
        Encoding::Otlp | Encoding::OtlpGzip => [429, 502, 503, 504].contains(&status),
    }
}

/// How many points an `ExportMetricsServiceResponse` says were rejected, and why; `None` where it
/// is garbage, or says nothing of the kind.
fn partial_success(body: &[u8]) -> Option<(u64, String)> {
    let mut found = None;
    each_field(body, &mut |field, _, inner| {
        if field == 1 {
            found = Some(inner.to_vec());
        }
    })?;
    let (mut rejected, mut word) = (0, String::new());
    each_field(&found?, &mut |field, number, inner| match field {
        1 => rejected = number,
        2 => {
            word = String::from_utf8_lossy(inner)
                .chars()
                .take(WORDS_MAX)
                .collect()
        }
        _ => {}
    })?;
    // Negative numbers count as absent.
    Some((u64::try_from(rejected as i64).unwrap_or(0), word))
}

/// Numbers and bytes of a message's fields.
fn each_field(mut message: &[u8], take: &mut dyn FnMut(u64, u64, &[u8])) -> Option<()> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => take(tag >> 3, varint(&mut message)?, &[]),
            1 => message = message.get(8..)?,
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                take(tag >> 3, 0, message.get(..len)?);
                message = &message[len..];
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, encoding: Encoding) -> Verdict {
        let reply = Reply {
            status,
            body: b"no\nroom".to_vec(),
            ..Reply::default()
        };
        reply.verdict(encoding, 10, Duration::ZERO)
    }

    #[test]
    fn exactly_the_codes_of_each_protocol_are_tried_again() {
        let later = |encoding| {
            let is_later =
                |status: &u16| matches!(verdict(*status, encoding), Verdict::Later { .. });
            (300..=599).filter(is_later).collect::<Vec<u16>>()
        };
        assert_eq!(later(Encoding::OtlpGzip), [429, 502, 503, 504]);
        let expected: Vec<u16> = [429].into_iter().chain(500..=599).collect();
        assert_eq!(later(Encoding::RemoteWriteOne), expected);
        assert_eq!(later(Encoding::RemoteWriteTwo), expected);
        assert_eq!(
            verdict(400, Encoding::Otlp),
            Verdict::Refused {
                written: 0,
                why: "400: no room".to_owned()
            }
        );
        let redirected = verdict(307, Encoding::Otlp);
        let is_elsewhere = |why: &str| why.contains("elsewhere");
        assert!(matches!(redirected, Verdict::Refused { why, .. } if is_elsewhere(&why)));
    }

    #[test]
    fn a_receiver_of_one_that_swallows_two_is_found_out() {
        let swallowed = verdict(204, Encoding::RemoteWriteTwo);
        assert!(
            matches!(swallowed, Verdict::OtherEncoding(_)),
            "{swallowed:?}"
        );
        assert!(matches!(
            verdict(415, Encoding::RemoteWriteTwo),
            Verdict::OtherEncoding(_)
        ));
        assert!(matches!(
            verdict(415, Encoding::RemoteWriteOne),
            Verdict::Refused { .. }
        ));
        let told = |status, written| {
            let reply = Reply {
                status,
                written: Some(written),
                ..Reply::default()
            };
            reply.verdict(Encoding::RemoteWriteTwo, 10, Duration::ZERO)
        };
        assert!(matches!(told(204, 10), Verdict::Taken { rejected: 0, .. }));
        // Each sample is accounted for, whichever way a receiver has it.
        assert!(
            matches!(told(204, 7), Verdict::Taken { rejected: 3, word } if word.contains("7 of 10"))
        );
        assert!(matches!(told(400, 7), Verdict::Refused { written: 7, .. }));
        assert!(matches!(
            told(400, 70),
            Verdict::Refused { written: 10, .. }
        ));
    }

    #[test]
    fn a_partial_success_is_read_and_garbage_is_none() {
        let body = b"\x0a\x08\x08\x07\x12\x04oops".to_vec();
        let reply = Reply {
            status: 200,
            content_type: "application/x-protobuf".to_owned(),
            body,
            ..Reply::default()
        };
        let expected = Verdict::Taken {
            rejected: 7,
            word: "oops".to_owned(),
        };
        assert_eq!(reply.verdict(Encoding::Otlp, 10, Duration::ZERO), expected);
        for body in [
            &b""[..],
            b"\x0a",
            b"\x0a\xff\xff\xff\xff\x0f",
            b"<html>",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            let reply = Reply {
                body: body.to_vec(),
                ..reply.clone()
            };
            let found = reply.verdict(Encoding::Otlp, 10, Duration::ZERO);
            assert!(
                matches!(found, Verdict::Taken { rejected: 0, .. }),
                "{body:?}: {found:?}"
            );
        }
    }
}
