//! What is served, scraped by what people scrape with: the packaged Prometheus and VictoriaMetrics.

mod grafana;
#[allow(dead_code, reason = "what is sent on needs more of it")]
mod monitor;
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use monitor::{Monitor, encoded, is_installed};
use qbus_tests::{TestBus, command, run, until};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use world::{Serving, TRACE, Workers};

/// The command under test.
const QBUS: &str = env!("CARGO_BIN_EXE_qbus");

/// The jobs of a Prometheus, each with its target and further lines.
fn config(rules: &[PathBuf], jobs: &[(&str, String, &str)]) -> String {
    // VictoriaMetrics takes no interval for rules.
    let mut text = match rules {
        [] => "global: {scrape_interval: 1s}\n".to_owned(),
        rules => format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: {rules:?}\n"
        ),
    };
    text += "scrape_configs:\n";
    for (name, target, more) in jobs {
        text +=
            &format!("- job_name: {name}\n  static_configs: [{{targets: ['{target}']}}]\n{more}");
    }
    text
}

/// A server with a certificate and a password; the lines with which a job reaches it.
fn guarded(bus: &TestBus, folder: &Path) -> (Serving, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("room");
    write("tls.crt", &certificate);
    write("tls.key", &key.serialize_pem());
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let web = format!(
        "tls_server_config: {{cert_file: tls.crt, key_file: tls.key}}\n\
         basic_auth_users: {{alice: {hash}}}\n"
    );
    write("web.yml", &web);
    let web = folder.join("web.yml").display().to_string();
    // What Prometheus' own tool says of the file is what counts.
    let checked = run(
        &mut command(&format!("promtool check web-config {web}")),
        "",
    );
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let server = Serving::start(
        bus,
        folder,
        "tls",
        &format!("serve --web.config.file {web}"),
    );
    let job = format!(
        "  scheme: https\n  basic_auth: {{username: alice, password: secret}}\n  \
         tls_config: {{ca_file: {}}}\n",
        folder.join("tls.crt").display()
    );
    (server, job)
}

#[test]
fn prometheus_and_victoria_metrics_take_all_of_it() {
    if !is_installed("prometheus") || !is_installed("victoria-metrics") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (test, bus) = world::bus();
    let workers = Workers::start(&bus);
    let nvml = grafana::fake_gpu(folder);
    let agg = format!("agg --no-create --interval 500ms --nvml {nvml}");
    let mut agg = Serving::start(&test, folder, "agg", &agg);
    let mut serve = Serving::start(&test, folder, "serve", "serve");
    let (tls, guard) = guarded(&test, folder);

    let jobs = [
        ("qbus", agg.target(), ""),
        ("serve", serve.target(), ""),
        ("tls", tls.target(), guard.as_str()),
    ];
    let rules = grafana::rules();
    let plain = config(&[rules], &jobs);
    let plain = Monitor::prometheus(folder, "plain", &plain, "exemplar-storage");
    let native = config(&[], &jobs[1..2]);
    let native = Monitor::prometheus(
        folder,
        "native",
        &native,
        "native-histograms,exemplar-storage",
    );
    let victoria = Monitor::victoria(folder, &config(&[], &jobs[1..2]));

    for (name, ..) in &jobs {
        has_its_rates(&plain, name);
    }
    // By all three ways.
    for metric in ["jobs_total", "job_seconds_bucket"] {
        await_exemplars(&plain, metric, jobs.len());
    }
    has_its_metadata(&plain);
    has_native_histograms(&native);
    victoria.await_value("rate(jobs_total[5s])", |rate| rate > 1.0);
    grafana::every_expression_has_values(&plain);
    grafana::every_metric_of_the_rules_is_there(&plain);
    what_is_forgotten_is_stale_at_the_next_scrape(&test, &plain, jobs.len());

    // Whoever is killed and comes again, nothing looks reset.
    agg.kill();
    serve.kill();
    plain.await_value("up{job='qbus'}", |up| up == 0.0);
    plain.await_value("up{job='serve'}", |up| up == 0.0);
    // What is not scraped any more is gone at once, not in five minutes.
    assert_eq!(plain.query("jobs_total{job=~'qbus|serve'}").len(), 0);
    assert_eq!(
        plain.value("up{job='tls'}"),
        Some(1.0),
        "an old snapshot is served"
    );
    agg.again();
    serve.again();

    let jobs_done = workers.end() as f64;
    for (name, ..) in &jobs {
        let last = format!("jobs_total{{job='{name}'}}");
        plain.await_value(&last, |jobs| jobs == jobs_done);
        assert_eq!(plain.value(&format!("up{{job='{name}'}}")), Some(1.0));
        for metric in ["jobs_total", "job_seconds_count", "qbus_bus_records_total"] {
            let resets = format!("resets({metric}{{job='{name}'}}[5m])");
            assert_eq!(plain.value(&resets), Some(0.0), "{resets}");
        }
    }
    native.await_value("histogram_count(first_token_seconds)", |count| {
        count == jobs_done / 2.0
    });
    victoria.await_value("jobs_total", |jobs| jobs == jobs_done);
    let median = "histogram_quantile(0.5, sum(job_seconds_bucket) by (le))";
    victoria.await_value(median, |median| (0.025..0.05).contains(&median));

    for monitor in [plain, native, victoria] {
        let complaints = monitor.complaints();
        // Of the targets that were killed, and of its own end.
        let expected = [
            "connection refused",
            "closed connection before returning",
            "connection reset",
            "Received SIGTERM",
        ];
        let is_other = |line: &&String| !expected.iter().any(|known| line.contains(known));
        assert_eq!(
            complaints.iter().filter(is_other).count(),
            0,
            "{complaints:#?}"
        );
    }
}

fn has_its_rates(plain: &Monitor, job: &str) {
    plain.await_value(&format!("up{{job='{job}'}}"), |up| up == 1.0);
    plain.await_value(&format!("rate(jobs_total{{job='{job}'}}[5s])"), |rate| {
        rate > 1.0
    });
    let median = format!(
        "histogram_quantile(0.5, sum by (le) (rate(job_seconds_bucket{{job='{job}'}}[10s])))"
    );
    plain.await_value(&median, |median| (0.025..=0.05).contains(&median));
    let coarse = format!("step_seconds_bucket{{job='{job}', le='1.0'}}");
    plain.await_value(&coarse, |count| count > 0.0);
    let summary = format!("first_token_seconds{{job='{job}', quantile='0.5'}}");
    plain.await_value(&summary, |median| (0.029..0.031).contains(&median));
    // Nothing of the page was dropped on the way in.
    let lost = format!(
        "scrape_samples_scraped{{job='{job}'}} - \
         scrape_samples_post_metric_relabeling{{job='{job}'}}"
    );
    assert_eq!(plain.value(&lost), Some(0.0));
}

fn what_is_forgotten_is_stale_at_the_next_scrape(bus: &TestBus, plain: &Monitor, jobs: usize) {
    let here = || plain.query("experiment_loss").len();
    let opened = bus.open();
    let loss = opened.gauge("experiment_loss").register().expect("room");
    loss.set(0.5);
    until("a series on all pages", || here() == jobs);
    let forget = format!("{QBUS} forget 'experiment_*' -b {}", bus.address());
    assert_eq!(run(&mut command(&forget), "").code, Some(0));
    // Without a marker it would be there for five minutes.
    until("a series that is gone", || here() == 0);
    loss.set(0.25);
    until("a series that is there again", || here() == jobs);
}

/// Waits until so many series of a metric have exemplars, each of which must be one of the
/// workers'.
fn await_exemplars(monitor: &Monitor, metric: &str, jobs: usize) {
    let now = qbus::Clock::Precise.now_ns() / 1_000_000_000;
    let path = format!(
        "/api/v1/query_exemplars?start={}&end={}&query={}",
        now - 60,
        now + 60,
        encoded(metric)
    );
    let found = || monitor.api(&path).as_array().expect("a list").clone();
    let jobs_of = |found: &[Value]| -> BTreeSet<String> {
        found
            .iter()
            .map(|one| one["seriesLabels"]["job"].to_string())
            .collect()
    };
    until(&format!("exemplars of {metric}"), || {
        jobs_of(&found()).len() == jobs
    });
    for series in found() {
        let upper = series["seriesLabels"]["le"].as_str();
        let upper = upper.map_or(f64::INFINITY, |le| le.parse().expect("a bound"));
        for exemplar in series["exemplars"].as_array().expect("a list") {
            let trace = exemplar["labels"]["trace_id"].as_str().expect("a trace");
            let trace = u128::from_str_radix(trace, 16).expect("hexadecimal");
            assert_eq!(trace >> 48, TRACE >> 48, "{exemplar}");
            let value = exemplar["value"].as_str().expect("text");
            assert!(value.parse::<f64>().expect("a number") <= upper, "{series}");
        }
    }
}

fn has_its_metadata(plain: &Monitor) {
    for (metric, kind, help) in [
        ("jobs", "counter", "Jobs done."),
        ("job_seconds", "histogram", "Time of a job."),
        ("first_token_seconds", "summary", ""),
        ("batch_size", "gauge", ""),
    ] {
        let all = plain.api(&format!("/api/v1/metadata?metric={metric}"));
        let known = &all[metric][0];
        assert_eq!(known["type"], kind, "{all}");
        assert_eq!(known["help"], help, "{all}");
    }
}

fn has_native_histograms(native: &Monitor) {
    native.await_value("up", |up| up == 1.0);
    for metric in ["first_token_seconds", "step_seconds"] {
        // The exact one is 0.030, and a bucket is 2.2 % wide.
        let median = format!("histogram_quantile(0.5, {metric})");
        native.await_value(&median, |median| (0.029..0.031).contains(&median));
    }
    native.await_value("histogram_count(rate(first_token_seconds[5s]))", |rate| {
        rate > 1.0
    });
    // A histogram with bounds of its own stays what it is.
    native.await_value("job_seconds_bucket{le='0.05'}", |count| count > 0.0);
    for metric in ["first_token_seconds", "job_seconds_bucket", "jobs_total"] {
        await_exemplars(native, metric, 1);
    }
}
