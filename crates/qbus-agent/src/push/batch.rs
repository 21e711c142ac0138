//! From series to requests as they go over the wire.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use qbus_aggregate::Series;
use qbus_aggregate::export::{
    OtlpOptions, RemoteWriteOptions, RemoteWriteVersion, Request, otlp, remote_write,
};

use super::destination::{Destination, Protocol};

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    RemoteWriteOne = 1,
    RemoteWriteTwo = 2,
    Otlp = 3,
    OtlpGzip = 4,
}

impl Encoding {
    pub(super) fn from_raw(raw: u64) -> Option<Encoding> {
        let all = [
            Encoding::RemoteWriteOne,
            Encoding::RemoteWriteTwo,
            Encoding::Otlp,
            Encoding::OtlpGzip,
        ];
        all.into_iter().find(|encoding| *encoding as u64 == raw)
    }

    /// The headers that say so.
    pub(super) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Encoding::RemoteWriteOne => &[
                ("Content-Type", "application/x-protobuf"),
                ("Content-Encoding", "snappy"),
                ("X-Prometheus-Remote-Write-Version", "0.1.0"),
            ],
            Encoding::RemoteWriteTwo => &[
                (
                    "Content-Type",
                    "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                ),
                ("Content-Encoding", "snappy"),
                ("X-Prometheus-Remote-Write-Version", "2.0.0"),
            ],
            Encoding::Otlp => &[("Content-Type", "application/x-protobuf")],
            Encoding::OtlpGzip => &[
                ("Content-Type", "application/x-protobuf"),
                ("Content-Encoding", "gzip"),
            ],
        }
    }
}

/// A packed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) encoding: Encoding,
    pub(super) bytes: Vec<u8>,
}

/// One request: samples of one time, in each encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// When its samples were taken, in milliseconds since the Unix epoch.
    pub(super) time_ms: u64,
    pub(super) samples: u64,
    /// The same in each encoding that the receiver may want, the first one first.
    pub(super) bodies: Vec<Body>,
}

impl Batch {
    pub(super) fn bytes(&self) -> u64 {
        self.bodies.iter().map(|body| body.bytes.len() as u64).sum()
    }
}

/// What is to be said of series at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saying {
    pub(super) time_ns: u64,
    pub(super) exemplars_since_ns: u64,
    pub(super) metadata: bool,
    /// That they have ended.
    pub(super) is_end: bool,
}

/// Makes the requests of a destination.
#[derive(Debug)]
pub(super) struct Batches {
    protocol: Protocol,
    version: RemoteWriteVersion,
    native: bool,
    gzip: bool,
    labels: Vec<(String, String)>,
}

impl Batches {
    pub(super) fn new(destination: &Destination, labels: &[(String, String)]) -> Batches {
        let labels = match destination.protocol {
            Protocol::RemoteWrite => labels.to_vec(),
            Protocol::Otlp => {
                let own = &destination.resource;
                let mut all = own.clone();
                let is_new =
                    |(name, _): &(String, String)| own.iter().all(|(known, _)| known != name);
                all.extend(labels.iter().map(attribute).filter(is_new));
                all
            }
        };
        Batches {
            protocol: destination.protocol,
            version: destination.version,
            native: destination.native,
            gzip: destination.gzip,
            labels,
        }
    }

    /// Encodes series; `proven` says that the receiver takes the first encoding.
    pub(super) fn encode(&self, series: &[Series], saying: &Saying, proven: bool) -> Vec<Batch> {
        let bodies = match (self.protocol, self.version) {
            (Protocol::Otlp, _) => vec![self.otlp(series, saying)],
            (_, RemoteWriteVersion::One) => {
                vec![self.write(series, saying, RemoteWriteVersion::One)]
            }
            (_, RemoteWriteVersion::Two) if proven => {
                vec![self.write(series, saying, RemoteWriteVersion::Two)]
            }
            // Both, so that nothing is lost on a receiver that only takes the older one. Both are
            // cut at the same samples.
            (_, RemoteWriteVersion::Two) => vec![
                self.write(series, saying, RemoteWriteVersion::Two),
                self.write(series, saying, RemoteWriteVersion::One),
            ],
        };
        let mut encodings = bodies.into_iter();
        let first = encodings.next().unwrap_or_default();
        let batch = |(samples, body)| Batch {
            time_ms: saying.time_ns / 1_000_000,
            samples,
            bodies: vec![body],
        };
        let mut batches: Vec<Batch> = first.into_iter().map(batch).collect();
        for other in encodings {
            for (batch, (_, body)) in batches.iter_mut().zip(other) {
                batch.bodies.push(body);
            }
        }
        batches
    }

    fn write(
        &self,
        series: &[Series],
        saying: &Saying,
        version: RemoteWriteVersion,
    ) -> Vec<(u64, Body)> {
        let options = RemoteWriteOptions {
            version,
            time_ms: saying.time_ns / 1_000_000,
            labels: &self.labels,
            native: self.native,
            metadata: saying.metadata,
            exemplars_since_ns: saying.exemplars_since_ns,
            is_end: saying.is_end,
        };
        let encoding = match version {
            RemoteWriteVersion::One => Encoding::RemoteWriteOne,
            RemoteWriteVersion::Two => Encoding::RemoteWriteTwo,
        };
        let mut requests = Vec::new();
        remote_write(series, &options, &mut |request: Request| {
            // It refuses only what is longer than four gibibytes.
            if let Ok(bytes) = snap::raw::Encoder::new().compress_vec(&request.message) {
                requests.push((request.samples, Body { encoding, bytes }));
            }
        });
        requests
    }

    fn otlp(&self, series: &[Series], saying: &Saying) -> Vec<(u64, Body)> {
        let options = OtlpOptions {
            time_ns: saying.time_ns,
            resource: &self.labels,
            exemplars_since_ns: saying.exemplars_since_ns,
            is_end: saying.is_end,
        };
        let mut requests = Vec::new();
        otlp(series, &options, &mut |request: Request| {
            let body = if self.gzip {
                gzip(&request.message)
            } else {
                None
            };
            let body = body.unwrap_or(Body {
                encoding: Encoding::Otlp,
                bytes: request.message,
            });
            requests.push((request.samples, body));
        });
        requests
    }
}

fn gzip(message: &[u8]) -> Option<Body> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(message).ok()?;
    Some(Body {
        encoding: Encoding::OtlpGzip,
        bytes: encoder.finish().ok()?,
    })
}

/// What OpenTelemetry calls the labels that Prometheus gives to a target.
fn attribute((name, value): &(String, String)) -> (String, String) {
    let name = match name.as_str() {
        "job" => "service.name",
        "instance" => "service.instance.id",
        other => other,
    };
    (name.to_owned(), value.clone())
}
