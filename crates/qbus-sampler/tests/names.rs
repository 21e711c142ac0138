//! Whole pages under each set of names, as Prometheus' own linter sees them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qbus_sampler::{Attached, Names, Sampler, SamplerOptions, Source, Trend, metrics};

/// A page of everything this machine has, rendered.
fn render(names: Names) -> String {
    let mut sampler = Sampler::new(SamplerOptions {
        sources: Source::ALL.to_vec(),
        names,
        per_cpu: true,
        patience: Duration::from_secs(20),
        ..SamplerOptions::default()
    });
    let now = Instant::now();
    let attached: Arc<[Attached]> = Arc::new([]);
    let mut page = BTreeMap::new();
    for second in 0..2 {
        page.clear();
        sampler.sample(
            now + Duration::from_secs(second),
            &attached,
            &mut |sample| {
                let labels: Vec<_> = sample
                    .labels
                    .iter()
                    .map(|(name, value)| format!("{name}={value:?}"))
                    .collect();
                let (head, lines): &mut (String, Vec<String>) =
                    page.entry(sample.metric.name.clone()).or_default();
                let kind = if sample.metric.trend == Trend::Counter {
                    "counter"
                } else {
                    "gauge"
                };
                *head = format!(
                    "# HELP {0} {1}\n# TYPE {0} {kind}\n",
                    sample.metric.name, sample.metric.help
                );
                lines.push(format!(
                    "{}{{{}}} {}",
                    sample.metric.name,
                    labels.join(","),
                    sample.value
                ));
            },
        );
    }
    let mut text = String::new();
    for (head, lines) in page.values() {
        writeln!(text, "{head}{}", lines.join("\n")).unwrap();
    }
    text
}

/// What `promtool check metrics` says of a page, if there is such a program: its exit status is 3
/// for bad style and 1 for a page that can't be parsed.
fn lint(page: &str) -> Option<(Option<i32>, String)> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code(), String::from_utf8(said).unwrap()))
}

#[test]
fn the_page_passes_the_linter() {
    let page = render(Names::Qbus);
    if let Some(said) = lint(&page) {
        assert_eq!(said, (Some(0), String::new()), "{page}");
    }
}

#[test]
fn pages_of_other_names_can_be_parsed() {
    for names in [Names::Node, Names::Seed] {
        let page = render(names);
        // Some of those names are not in the style that the linter wants.
        if let Some((code, said)) = lint(&page) {
            assert!(matches!(code, Some(0 | 3)), "{code:?} {said}");
        }
    }
}

/// Of families that this machine shows nothing of, too.
#[test]
fn every_family_passes_the_linter() {
    let mut page = String::new();
    for family in metrics(Names::Qbus) {
        let kind = if family.trend == Trend::Counter {
            "counter"
        } else {
            "gauge"
        };
        let (name, help) = (&family.name, &family.help);
        write!(
            page,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} 1\n"
        )
        .unwrap();
    }
    if let Some(said) = lint(&page) {
        assert_eq!(said, (Some(0), String::new()));
    }
}
