//! The peers, each as its users use it: a handle that is made once, with a label where it takes
//! one.

use std::hint::black_box;
use std::os::unix::net::UnixDatagram;
use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cadence::prelude::*;
use cadence::{BufferedUnixMetricSink, MetricSink, StatsdClient, UnixMetricSink};
use crossbeam_queue::ArrayQueue;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use tempfile::TempDir;

use crate::emit::{COUNTER, COUNTER_ADD, GAUGE, HISTOGRAM, OWN_LANE, RUN, SUMMARY};
use crate::rounds::{Case, Drain};

/// What the in-process queues and iceoryx2 carry: as much as a record of ours.
pub type Payload = [u64; 8];

pub const RTRB: &str = "rtrb push, 64 bytes (limit)";
pub const ICEORYX2: &str = "iceoryx2 publish, 64 bytes";
pub const PROMETHEUS_CLIENT: &str = "prometheus-client Counter::inc";
pub const PROMETHEUS_CLIENT_ADD: &str = "prometheus-client Counter::inc_by(0.25)";
pub const PROMETHEUS_CLIENT_OBSERVE: &str = "prometheus-client Histogram::observe";

/// The label that each metric of a peer has.
const LABEL: (&str, &str) = ("endpoint", "/predict");

/// All of them.
pub fn cases() -> Vec<Case<'static>> {
    let mut cases = vec![rtrb(), array_queue(), iceoryx2()];
    cases.extend(prometheus_client());
    cases.extend(prometheus());
    cases.extend(metrics());
    cases.extend(opentelemetry());
    cases.extend(cadence());
    cases
}

fn payload(n: u32) -> Payload {
    [u64::from(n); 8]
}

fn value(n: u32) -> f64 {
    f64::from(n) / 1000.0
}

/// One producer, one consumer, one process: the least that a queue costs.
pub fn rtrb() -> Case<'static> {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Payload>::new(4096);
    let drain = Drain::start(move || {
        move || {
            while let Ok(payload) = consumer.pop() {
                black_box(payload);
            }
        }
    });
    let push = move |n| {
        let _ = producer.push(payload(n));
    };
    Case::new(RTRB, RUN, push)
        .beside(OWN_LANE)
        .settled_by(move || drain.now())
}

/// Many producers, many consumers, one process.
fn array_queue() -> Case<'static> {
    let queue = Arc::new(ArrayQueue::<Payload>::new(4096));
    let drained = queue.clone();
    let drain = Drain::start(move || {
        move || {
            while let Some(payload) = drained.pop() {
                black_box(payload);
            }
        }
    });
    let push = move |n| {
        let _ = queue.push(payload(n));
    };
    Case::new("ArrayQueue push, 64 bytes (limit)", RUN, push)
        .beside(OWN_LANE)
        .settled_by(move || drain.now())
}

/// A publisher of that service.
pub fn publisher(service: &str) -> Publisher<ipc::Service, Payload, ()> {
    let service = iceoryx2_service(service);
    service.publisher_builder().create().expect("a publisher")
}

/// A subscriber of that service, with as much room as a lane.
pub fn subscriber(service: &str) -> Subscriber<ipc::Service, Payload, ()> {
    let service = iceoryx2_service(service);
    service.subscriber_builder().create().expect("a subscriber")
}

type Factory =
    iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, Payload, ()>;

fn iceoryx2_service(name: &str) -> Factory {
    set_log_level(LogLevel::Error);
    let node = NodeBuilder::new().create::<ipc::Service>().expect("a node");
    let name = format!("qbus-peers-{}-{name}", std::process::id());
    node.service_builder(&name.as_str().try_into().expect("a name"))
        .publish_subscribe::<Payload>()
        .subscriber_max_buffer_size(4096)
        .open_or_create()
        .expect("a service")
}

/// Publishes a payload.
pub fn publish(publisher: &Publisher<ipc::Service, Payload, ()>, payload: Payload) {
    let sample = publisher.loan_uninit().expect("a free sample");
    let _ = sample.write_payload(payload).send();
}

/// Another process could subscribe as this thread does.
fn iceoryx2() -> Case<'static> {
    let publisher = publisher("emit");
    let drain = Drain::start(|| {
        let subscriber = subscriber("emit");
        move || {
            while let Ok(Some(sample)) = subscriber.receive() {
                black_box(*sample);
            }
        }
    });
    Case::new(ICEORYX2, RUN, move |n| publish(&publisher, payload(n)))
        .beside(COUNTER)
        .settled_by(move || drain.now())
}

/// As the label sets of its own examples.
#[derive(Clone, Debug, Hash, PartialEq, Eq, prometheus_client::encoding::EncodeLabelSet)]
pub struct Labels {
    pub endpoint: String,
}

/// The counter that our handle is measured against.
pub fn prometheus_client_counter() -> impl Fn(u32) {
    use prometheus_client::metrics::{counter::Counter, family::Family};
    let family = Family::<Labels, Counter>::default();
    let counter = family.get_or_create_owned(&Labels {
        endpoint: LABEL.1.to_owned(),
    });
    move |_| {
        counter.inc();
    }
}

fn prometheus_client() -> [Case<'static>; 4] {
    use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
    let counter = Counter::<f64, AtomicU64>::default();
    let gauge = Gauge::<f64, AtomicU64>::default();
    let histogram = Histogram::new(qbus::DEFAULT_BUCKETS);
    [
        Case::new(PROMETHEUS_CLIENT, RUN, prometheus_client_counter()).beside(COUNTER),
        Case::new(PROMETHEUS_CLIENT_ADD, RUN, move |_| {
            counter.inc_by(0.25);
        })
        .beside(COUNTER_ADD),
        Case::new("prometheus-client Gauge::set", RUN, move |n| {
            gauge.set(value(n));
        })
        .beside(GAUGE),
        Case::new(PROMETHEUS_CLIENT_OBSERVE, RUN, move |n| {
            histogram.observe(value(n));
        })
        .beside(HISTOGRAM),
    ]
}

fn prometheus() -> [Case<'static>; 3] {
    use prometheus::{CounterVec, Gauge, Histogram, HistogramOpts, Opts};
    let failed = "a legal metric";
    let counters = CounterVec::new(Opts::new("bench_total", "help"), &[LABEL.0]).expect(failed);
    let counter = counters.with_label_values(&[LABEL.1]);
    let gauge = Gauge::new("bench_level", "help").expect(failed);
    let options = HistogramOpts::new("bench_seconds", "help");
    let histogram = Histogram::with_opts(options).expect(failed);
    [
        Case::new("prometheus Counter::inc", RUN, move |_| counter.inc()).beside(COUNTER),
        Case::new("prometheus Gauge::set", RUN, move |n| gauge.set(value(n))).beside(GAUGE),
        Case::new("prometheus Histogram::observe", RUN, move |n| {
            histogram.observe(value(n));
        })
        .beside(HISTOGRAM),
    ]
}

fn metrics() -> [Case<'static>; 3] {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metadata = Metadata::new(module_path!(), Level::INFO, None);
    let key = |name| Key::from_parts(name, vec![Label::new(LABEL.0, LABEL.1)]);
    let counter = recorder.register_counter(&key("bench_total"), &metadata);
    let gauge = recorder.register_gauge(&key("bench_level"), &metadata);
    let summary = recorder.register_histogram(&key("bench_seconds"), &metadata);
    let handle = recorder.handle();
    [
        Case::new("metrics Counter::increment", RUN, move |_| {
            counter.increment(1)
        })
        .beside(COUNTER),
        Case::new("metrics Gauge::set", RUN, move |n| gauge.set(value(n))).beside(GAUGE),
        Case::new("metrics Histogram::record (summary)", RUN, move |n| {
            summary.record(value(n));
        })
        .beside(SUMMARY)
        // Observations gather until then.
        .settled_by(move || handle.run_upkeep()),
    ]
}

/// Exports nothing: what is measured is the recording.
struct Nowhere;

impl PushMetricExporter for Nowhere {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn opentelemetry() -> [Case<'static>; 3] {
    let reader = PeriodicReader::builder(Nowhere).with_interval(Duration::from_secs(3600));
    let provider = SdkMeterProvider::builder()
        .with_reader(reader.build())
        .build();
    let meter = provider.meter("bench");
    let counter = meter.u64_counter("bench_total").build();
    let gauge = meter.f64_gauge("bench_level").build();
    let histogram = meter.f64_histogram("bench_seconds").build();
    let attributes = || [KeyValue::new(LABEL.0, LABEL.1)];
    let [first, second, third] = [attributes(), attributes(), attributes()];
    [
        Case::new("opentelemetry_sdk Counter::add", RUN, move |_| {
            // Its reader works for as long as the provider lives.
            let _ = &provider;
            counter.add(1, &first);
        })
        .beside(COUNTER),
        Case::new("opentelemetry_sdk Gauge::record", RUN, move |n| {
            gauge.record(value(n), &second);
        })
        .beside(GAUGE),
        Case::new("opentelemetry_sdk Histogram::record", RUN, move |n| {
            histogram.record(value(n), &third);
        })
        .beside(HISTOGRAM),
    ]
}

/// Between two looks of a subscriber that does not spin: as long as the aggregator's first nap.
const NAP: Duration = Duration::from_micros(50);

/// A subscriber on a thread of its own, which ends with it.
pub struct Receiving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiving {
    /// Waits until the subscriber is there.
    pub fn start(
        service: &'static str,
        spin: bool,
        mut take: impl FnMut(Payload) + Send + 'static,
    ) -> Receiving {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (tell, ready) = std::sync::mpsc::channel();
        let receive = move || {
            let subscriber = subscriber(service);
            let _ = tell.send(());
            while !stopped.load(Ordering::Relaxed) {
                match subscriber.receive() {
                    Ok(Some(sample)) => take(*sample),
                    _ if spin => std::hint::spin_loop(),
                    _ => thread::sleep(NAP),
                }
            }
        };
        let thread = Some(thread::spawn(receive));
        let _ = ready.recv();
        Receiving { stop, thread }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A statsd client that sends each metric to a socket, and the server at its other end.
pub struct Statsd {
    client: StatsdClient,
    /// The socket lies in it.
    folder: TempDir,
}

impl Statsd {
    /// The server hands on each packet.
    pub fn start(mut take: impl FnMut(&[u8]) + Send + 'static) -> Statsd {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("statsd");
        let server = UnixDatagram::bind(&path).expect("a socket");
        thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok(length) = server.recv(&mut packet) {
                take(&packet[..length]);
            }
        });
        let socket = UnixDatagram::unbound().expect("a socket");
        Statsd {
            client: client(UnixMetricSink::from(path, socket)),
            folder,
        }
    }

    /// Sends an increment.
    pub fn count(&self, increment: u64) {
        let _ = self.client.count("total", increment);
    }
}

fn client(sink: impl MetricSink + Sync + Send + RefUnwindSafe + 'static) -> StatsdClient {
    StatsdClient::builder("bench", sink)
        .with_tag(LABEL.0, LABEL.1)
        .build()
}

fn cadence() -> [Case<'static>; 2] {
    let plain = Statsd::start(|packet| {
        black_box(packet);
    });
    let socket = UnixDatagram::unbound().expect("a socket");
    let path = plain.folder.path().join("statsd");
    let buffered = client(BufferedUnixMetricSink::from(path, socket));
    [
        Case::new("cadence count, Unix socket", RUN / 16, move |_| {
            plain.count(1)
        })
        .beside(COUNTER),
        Case::new("cadence count, Unix socket, buffered", RUN, move |_| {
            let _ = buffered.count("total", 1);
        })
        .beside(COUNTER),
    ]
}
