//! Which format a scraper gets, by what it says that it takes.

use qbus_aggregate::export::{CONTENT_TYPE, Format, PROTOBUF_CONTENT_TYPE};

/// What is sent, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) format: Format,
    pub(super) content_type: String,
}

/// Chooses a format for an `Accept` header: the one of the greatest weight, the first of equals.
///
/// Nobody is refused: what cannot be had, or a header that makes no sense, gets the text format
/// 0.0.4, as from every other exporter. Protobuf is for those alone who name it: others would fail
/// on it.
pub(super) fn format(accept: &str) -> Offer {
    let mut best: Option<(f64, Offer)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(&str, &str)> = parts.filter_map(parameter).collect();
        let parameter = |name: &str| {
            let named = parameters
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            named.map(|(_, value)| *value)
        };
        let weight = parameter("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
        let is_better = best.as_ref().is_none_or(|(found, _)| weight > *found);
        if weight > 0.0
            && is_better
            && let Some(offer) = offer(&media_type, &parameter)
        {
            best = Some((weight, offer));
        }
    }
    best.map_or_else(plain, |(_, offer)| offer)
}

fn parameter(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim(), value.trim().trim_matches('"')))
}

fn plain() -> Offer {
    Offer {
        format: Format::Prometheus,
        content_type: CONTENT_TYPE.to_owned(),
    }
}

/// What there is for a media type.
fn offer<'a>(media_type: &str, parameter: &dyn Fn(&str) -> Option<&'a str>) -> Option<Offer> {
    let version = parameter("version");
    match media_type {
        "*/*" | "text/*" => Some(plain()),
        "text/plain" => match version {
            None | Some("0.0.4") => Some(plain()),
            Some("1.0.0") => Some(Offer {
                format: Format::Prometheus,
                content_type: escaped("text/plain; version=1.0.0; charset=utf-8", parameter),
            }),
            Some(_) => None,
        },
        "application/openmetrics-text" => {
            let content_type = match version {
                None | Some("0.0.1") => {
                    "application/openmetrics-text; version=0.0.1; charset=utf-8".to_owned()
                }
                Some("1.0.0") => escaped(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    parameter,
                ),
                Some(_) => return None,
            };
            Some(Offer {
                format: Format::OpenMetrics,
                content_type,
            })
        }
        "application/vnd.google.protobuf" => {
            let is_ours = parameter("proto") == Some("io.prometheus.client.MetricFamily")
                && parameter("encoding") == Some("delimited");
            is_ours.then(|| Offer {
                format: Format::Protobuf,
                content_type: escaped(PROTOBUF_CONTENT_TYPE, parameter),
            })
        }
        _ => None,
    }
}

/// Repeats how names are escaped, for those who ask. None ever needs it: names of a bus are legal
/// everywhere.
fn escaped<'a>(content_type: &str, parameter: &dyn Fn(&str) -> Option<&'a str>) -> String {
    match parameter("escaping") {
        Some(scheme @ ("allow-utf-8" | "underscores" | "dots" | "values")) => {
            format!("{content_type}; escaping={scheme}")
        }
        _ => content_type.to_owned(),
    }
}

/// Whether an `Accept-Encoding` header takes gzip.
pub(super) fn takes_gzip(accept_encoding: &str) -> bool {
    let weight_of = |wanted: &str| {
        accept_encoding.split(',').find_map(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let is_it = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case(wanted));
            let q = parts.filter_map(parameter).find(|(name, _)| *name == "q");
            is_it.then(|| q.map_or(1.0, |(_, q)| q.parse().unwrap_or(0.0)))
        })
    };
    weight_of("gzip")
        .or_else(|| weight_of("*"))
        .is_some_and(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content_type(accept: &str) -> String {
        let offer = format(accept);
        let of_format = match offer.format {
            Format::Prometheus => "text/plain",
            Format::OpenMetrics => "application/openmetrics-text",
            Format::Protobuf => "application/vnd.google.protobuf",
            other => panic!("{other} for {accept:?}"),
        };
        assert!(offer.content_type.starts_with(of_format));
        offer.content_type
    }

    const PROTOBUF: &str = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn prometheus_gets_what_it_prefers() {
        // 2.42, with native histograms and without; 3.14, likewise.
        let of_2 = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(
            content_type(of_2),
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        assert_eq!(
            content_type(&format!("{PROTOBUF},{of_2}")),
            PROTOBUF_CONTENT_TYPE
        );
        let of_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(
            content_type(of_3),
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
        );
        assert_eq!(
            content_type(&format!("{PROTOBUF};escaping=allow-utf-8;q=0.7,{of_3}")),
            format!("{PROTOBUF_CONTENT_TYPE}; escaping=allow-utf-8")
        );
    }

    #[test]
    fn whoever_says_nothing_of_use_gets_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/json",
            "text/plain",
            "text/plain;version=0.0.4",
            "text/plain;version=9",
            "application/openmetrics-text;version=2.0.0",
            "application/vnd.google.protobuf",
            "application/openmetrics-text;q=0",
            ";;;,,,q=",
            "application/openmetrics-text;q=x",
        ] {
            assert_eq!(content_type(accept), CONTENT_TYPE, "{accept}");
        }
    }

    #[test]
    fn versions_and_weights_are_minded() {
        let om_1 = "application/openmetrics-text; version=0.0.1; charset=utf-8";
        assert_eq!(content_type("application/openmetrics-text"), om_1);
        assert_eq!(
            content_type("text/plain;q=0.4, Application/OpenMetrics-Text; Q=0.5"),
            om_1
        );
        assert_eq!(
            content_type("text/plain;q=0.5,application/openmetrics-text;q=0.4"),
            CONTENT_TYPE
        );
        // Neither an old version nor a strange scheme is echoed.
        assert_eq!(
            content_type("text/plain;version=0.0.4;escaping=dots"),
            CONTENT_TYPE
        );
        assert_eq!(
            content_type("text/plain;version=\"1.0.0\";escaping=\r\nevil"),
            "text/plain; version=1.0.0; charset=utf-8"
        );
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for (header, takes) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("", false),
            ("br, zstd", false),
        ] {
            assert_eq!(takes_gzip(header), takes, "{header}");
        }
    }
}
