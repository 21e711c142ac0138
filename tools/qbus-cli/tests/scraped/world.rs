//! A bus as it is in production: workers that emit, an aggregator that serves, servers beside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qbus::{Bus, BusOptions};
use qbus_tests::{Place, Process, TestBus, command, until};

/// The traces of this test's exemplars begin with this.
pub(crate) const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_0000_0000_0000;

/// A `qbus` that serves on a port, which it keeps over restarts.
pub(crate) struct Serving {
    line: String,
    log: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Serving {
    /// Starts `qbus` as it is typed, with a port of its own.
    pub(crate) fn start(bus: &TestBus, folder: &Path, name: &str, line: &str) -> Serving {
        let mut serving = Serving {
            line: format!("{} {line} -b {}", crate::QBUS, bus.address()),
            log: folder.join(format!("{name}.log")),
            port: 0,
            process: None,
        };
        serving.again();
        serving
    }

    /// Starts it, where it was before.
    pub(crate) fn again(&mut self) {
        let (line, port) = (&self.line, self.port);
        let mut command = command(&format!("{line} --listen 127.0.0.1:{port}"));
        command.stderr(File::create(&self.log).expect("room"));
        self.process = Some(Process::spawn(command));
        until("a server to say where it is", || {
            let said = fs::read_to_string(&self.log).expect("a log");
            let port = said
                .split_once("://127.0.0.1:")
                .and_then(|(_, rest)| rest.split_once('/'))
                .and_then(|(port, _)| port.parse().ok());
            self.port = port.unwrap_or(self.port);
            port.is_some()
        });
    }

    /// Where it listens.
    pub(crate) fn target(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }
}

/// Workers that emit until they are told to stop.
pub(crate) struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Workers {
    pub(crate) fn start(bus: &Bus) -> Workers {
        let stop = Arc::<AtomicBool>::default();
        let work = |worker: u64| {
            let (bus, stop) = (bus.clone(), stop.clone());
            thread::spawn(move || work(&bus, worker, &stop))
        };
        Workers {
            threads: (0..2).map(work).collect(),
            stop,
        }
    }

    /// Has them end; how many jobs they counted.
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        threads.map(|thread| thread.join().expect("no panic")).sum()
    }
}

/// How many jobs it counted.
fn work(bus: &Bus, worker: u64, stop: &AtomicBool) -> u64 {
    let done = bus.counter("jobs_total").help("Jobs done.").register();
    let done = done.expect("room");
    let took = bus
        .histogram("job_seconds")
        .help("Time of a job.")
        .unit("seconds");
    let took = took.register().expect("room");
    let first = bus
        .summary("first_token_seconds")
        .unit("seconds")
        .register();
    let first = first.expect("room");
    // Coarse for those who take no native ones.
    let step = bus.histogram("step_seconds").buckets([0.001, 1.0]).native();
    let step = step.register().expect("room");
    let size = bus
        .gauge("batch_size")
        .label("worker", &worker.to_string())
        .register();
    let size = size.expect("room");
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let trace = TRACE + u128::from(worker << 32 | n);
        done.inc();
        done.add_traced(1.0, trace);
        // 20 to 40 ms, evenly: the median is 30.
        let seconds = 0.02 + (n % 21) as f64 / 1000.0;
        took.observe_traced(seconds, trace);
        first.observe_traced(seconds, trace);
        step.observe(seconds);
        size.set((n % 8) as f64);
        thread::sleep(Duration::from_millis(5));
    }
    2 * n
}

/// A bus of the default size, which the test owns.
pub(crate) fn bus() -> (TestBus, Bus) {
    let test = TestBus::reserve(Place::Named);
    let bus = Bus::create(test.address(), &BusOptions::default()).expect("a new bus");
    (test, bus)
}
