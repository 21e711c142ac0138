//! What a producer emits: one record, 64 bytes, one cache line.
//!
//! | word | bits  | field        | meaning                                                     |
//! |------|-------|--------------|-------------------------------------------------------------|
//! |    0 |    64 | sequence     | lap, owner and phase of the slot ([`crate::lane`])           |
//! |    1 |    64 | timestamp    | nanoseconds since the Unix epoch, CLOCK_REALTIME            |
//! |    2 |  0–31 | series       | id from the registry                                        |
//! |    2 | 32–47 | kind         | what `value` does to the series                             |
//! |    2 | 48–63 | flags        | 1 = brief: the count is 1 and there is no trace             |
//! |    3 |    64 | value        | f64                                                         |
//! |    4 |    64 | count        | how many equal observations; 1 as a rule                    |
//! |  5–6 |   128 | trace id     | exemplar; 0 = none                                          |
//! |    7 |    64 | reserved     | 0                                                           |
//!
//! Words 4 to 7 of a brief record hold what an earlier one left there: they are neither written nor
//! read. A store to a line that another core has read costs the same again for each half of it.

use std::fmt;
use std::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

/// Words of a record beside the slot's sequence.
pub(crate) const PAYLOAD_WORDS: usize = 7;
/// Those of them that a brief record has.
pub(crate) const BRIEF_WORDS: usize = 3;
/// The flag of a brief record.
const BRIEF: u16 = 1;

/// Whether a payload ends after [`BRIEF_WORDS`].
#[inline]
pub(crate) fn is_brief(payload: &[u64]) -> bool {
    payload[1] >> 48 & u64::from(BRIEF) != 0
}

/// The type of a metric family, fixed at its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricType {
    /// A sum that only grows; records are increments.
    Counter,
    /// A value that goes up and down; the last one counts.
    Gauge,
    /// Observations counted in buckets that are configured at registration.
    Histogram,
    /// Observations whose quantiles are kept within 1.1 %.
    Summary,
    /// A value whose behaviour is unknown, such as one taken from another program's page. It is
    /// kept as a gauge is, and exported without a type.
    Untyped,
}

impl MetricType {
    /// The word that the export formats use: `counter`, `gauge`, `histogram`, `summary` or
    /// `untyped`.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::Summary => "summary",
            MetricType::Untyped => "untyped",
        }
    }

    /// The type of that name, as [`as_str`](Self::as_str) gives it.
    pub fn from_name(name: &str) -> Option<MetricType> {
        Self::ALL
            .into_iter()
            .find(|metric_type| metric_type.as_str() == name)
    }

    /// All types.
    pub const ALL: [MetricType; 5] = [
        MetricType::Counter,
        MetricType::Gauge,
        MetricType::Histogram,
        MetricType::Summary,
        MetricType::Untyped,
    ];

    /// Its number in shared memory and in a snapshot.
    pub fn to_raw(self) -> u64 {
        match self {
            MetricType::Counter => 1,
            MetricType::Gauge => 2,
            MetricType::Histogram => 3,
            MetricType::Summary => 4,
            MetricType::Untyped => 5,
        }
    }

    /// Decodes a type read from shared memory, where another process wrote it.
    pub fn from_raw(raw: u64) -> Option<MetricType> {
        Self::ALL
            .into_iter()
            .find(|metric_type| metric_type.to_raw() == raw)
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a series of one bus; handed out by the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u32);

/// What a record's value does to its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counter: add `value × count`; finite and not negative.
    Increment,
    /// Counter: the sum is `value` now. For a source that itself keeps the total (a kernel counter,
    /// say) and is the only one to emit to the series; a smaller value than before is a restart of
    /// it.
    Total,
    /// Gauge: the value is `value` now, unless a later one is known already.
    Set,
    /// Gauge: add `value`, which may be negative.
    Adjust,
    /// Histogram or summary: `count` observations of `value`.
    Observe,
}

impl Kind {
    /// Its number in shared memory and in a snapshot.
    pub fn to_raw(self) -> u16 {
        match self {
            Kind::Increment => 1,
            Kind::Total => 2,
            Kind::Set => 3,
            Kind::Adjust => 4,
            Kind::Observe => 5,
        }
    }

    /// Decodes a kind read from shared memory, where another process wrote it.
    #[inline]
    pub fn from_raw(raw: u16) -> Option<Kind> {
        match raw {
            1 => Some(Kind::Increment),
            2 => Some(Kind::Total),
            3 => Some(Kind::Set),
            4 => Some(Kind::Adjust),
            5 => Some(Kind::Observe),
            _ => None,
        }
    }

    /// Whether a family of that type takes records of this kind.
    #[inline]
    pub fn fits(self, metric_type: MetricType) -> bool {
        match self {
            Kind::Increment | Kind::Total => metric_type == MetricType::Counter,
            Kind::Set | Kind::Adjust => {
                matches!(metric_type, MetricType::Gauge | MetricType::Untyped)
            }
            Kind::Observe => matches!(metric_type, MetricType::Histogram | MetricType::Summary),
        }
    }

    /// Whether a record of this kind may carry `value`. A gauge may be anything, and infinities can
    /// be observed: they fall into the first or the last bucket, and make the sum infinite, as
    /// Prometheus has it. An observation that is NaN would make a sum NaN for ever, and is refused.
    #[inline(always)]
    pub fn takes(self, value: f64) -> bool {
        match self {
            Kind::Increment | Kind::Total => (0.0..=f64::MAX).contains(&value),
            Kind::Set | Kind::Adjust => true,
            Kind::Observe => !value.is_nan(),
        }
    }
}

/// One record, as a producer gives it and a consumer gets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// When it happened, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Which series it belongs to.
    pub series: SeriesId,
    /// What `value` does to the series.
    pub kind: Kind,
    /// The increment, value or observation, in the family's unit.
    pub value: f64,
    /// How many equal observations or increments this record stands for; 1 as a rule.
    pub count: u64,
    /// The trace that it came from (exemplar); 0 = none.
    pub trace_id: u128,
}

impl Record {
    /// A record for one observation, without a trace.
    #[inline(always)]
    pub fn new(timestamp_ns: u64, series: SeriesId, kind: Kind, value: f64) -> Record {
        Record {
            timestamp_ns,
            series,
            kind,
            value,
            count: 1,
            trace_id: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn to_words(self) -> [u64; PAYLOAD_WORDS] {
        let is_brief = self.count == 1 && self.trace_id == 0;
        bytemuck::must_cast(Payload {
            timestamp_ns: self.timestamp_ns,
            series: self.series.0,
            kind: self.kind.to_raw(),
            flags: if is_brief { BRIEF } else { 0 },
            value: self.value,
            count: self.count,
            trace_id_low: self.trace_id as u64,
            trace_id_high: (self.trace_id >> 64) as u64,
            reserved: 0,
        })
    }

    /// Decodes a private copy of a slot; `None` when the kind is unknown.
    #[inline]
    pub(crate) fn from_words(words: [u64; PAYLOAD_WORDS]) -> Option<Record> {
        let is_brief = is_brief(&words);
        let payload: Payload = bytemuck::must_cast(words);
        let trace_id = u128::from(payload.trace_id_high) << 64 | u128::from(payload.trace_id_low);
        Some(Record {
            timestamp_ns: payload.timestamp_ns,
            series: SeriesId(payload.series),
            kind: Kind::from_raw(payload.kind)?,
            value: payload.value,
            count: if is_brief { 1 } else { payload.count },
            trace_id: if is_brief { 0 } else { trace_id },
        })
    }
}

/// The drawing above, for the compiler.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Payload {
    timestamp_ns: u64,
    series: u32,
    kind: u16,
    flags: u16,
    value: f64,
    count: u64,
    trace_id_low: u64,
    trace_id_high: u64,
    reserved: u64,
}

const _: () = assert!(size_of::<Payload>() == PAYLOAD_WORDS * 8);
const _: () = assert!(offset_of!(Payload, series) == 8);
const _: () = assert!(offset_of!(Payload, value) == 16);
const _: () = assert!(offset_of!(Payload, count) == 24);
const _: () = assert!(offset_of!(Payload, trace_id_low) == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_words() {
        let record = Record {
            timestamp_ns: 1_696_161_600_000_000_000,
            series: SeriesId(7),
            kind: Kind::Observe,
            value: 0.125,
            count: 3,
            trace_id: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        };
        assert_eq!(Record::from_words(record.to_words()), Some(record));
    }

    #[test]
    fn a_brief_record_ignores_what_lies_behind_it() {
        let record = Record::new(1, SeriesId(7), Kind::Increment, 17.0);
        let mut words = record.to_words();
        assert!(is_brief(&words));
        words[BRIEF_WORDS..].fill(u64::MAX);
        assert_eq!(Record::from_words(words), Some(record));
        let twice = Record { count: 2, ..record };
        let traced = Record {
            trace_id: 1 << 64,
            ..record
        };
        for record in [twice, traced] {
            assert!(!is_brief(&record.to_words()));
            assert_eq!(Record::from_words(record.to_words()), Some(record));
        }
    }

    #[test]
    fn an_unknown_kind_is_data() {
        assert_eq!(Record::from_words([u64::MAX; PAYLOAD_WORDS]), None);
        assert_eq!(Record::from_words([0; PAYLOAD_WORDS]), None);
    }
}
