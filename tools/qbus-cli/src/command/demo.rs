//! `qbus demo`

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, BusOptions};
#[cfg(feature = "http")]
use qbus_agent::serve::{ServeOptions, Server};
use qbus_aggregate::export::{Format, Options, export, export_to_file};
use qbus_aggregate::{Ledger, ReadOptions, Reader, Snapshot, Value};
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Demo;
use crate::command::{end_with_parent, open, sleep, until_signal};
use crate::error::{Doing, Error};
use crate::progress::Progress;
use crate::stage::{Player, Stage};

/// Lines of each format that are shown.
const SHOWN: usize = 14;

pub(crate) fn run(address: &Address, demo: &Demo, out: &mut dyn Write) -> Result<(), Error> {
    match demo.worker {
        Some(worker) => work(address, worker, demo.seconds),
        None => run_show(demo, out),
    }
}

/// The demo's processes on its bus; all of them go with it, also on an error.
struct Show {
    /// The aggregator, and the workers.
    players: Vec<Player>,
    /// Goes after those that use it.
    stage: Stage,
}

impl Show {
    fn start(&mut self, typed: &str) -> Result<(), Error> {
        let prepare = |command: &mut Command| {
            // What the processes have to say would come between the lines shown here.
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // ^C is for this process alone, which ends the others in their order.
                .process_group(0);
        };
        let player = Player::start(typed, self.stage.bus().address(), prepare)?;
        self.players.push(player);
        Ok(())
    }

    /// Tells the aggregator to end, and waits until it has.
    fn end_aggregator(&mut self) -> Result<(), Error> {
        let aggregator = self.players[0].process();
        if let Some(pid) = Pid::from_raw(aggregator.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let status = aggregator.wait().doing("wait for the aggregator")?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Failed(format!("the aggregator failed: {status}")))
        }
    }
}

fn run_show(demo: &Demo, out: &mut dyn Write) -> Result<(), Error> {
    let stop = until_signal()?;
    if demo.output.is_some() {
        // Now, and not after all of it, if it cannot be made.
        folder(demo)?;
    }
    let address: Address = format!("demo-{}", std::process::id())
        .parse()
        .map_err(Error::failed)?;
    let mut show = Show {
        players: Vec::new(),
        stage: Stage::create(&address, &BusOptions::default()).map_err(Error::failed)?,
    };
    show.start("agg --no-create --interval 500ms")?;
    // A year is for ever.
    let time = demo.seconds.as_secs_f64();
    let seconds = if demo.stay { 3e7 } else { time };
    for worker in 0..demo.workers {
        show.start(&format!("demo --worker {worker} --seconds {seconds}"))?;
    }
    writeln!(
        out,
        "The bus {address}: {} workers emit for {time:.0} s, an aggregator folds and samples the \
         host.",
        demo.workers
    )?;
    #[cfg(feature = "http")]
    let server = serve(&address, demo)?;
    #[cfg(feature = "http")]
    writeln!(out, "The dashboard, and /metrics: {}", server.urls()[0])?;
    out.flush()?;
    watch(&mut show, demo.seconds, demo.stay, &stop)?;
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Failed(
            "interrupted; the demo's processes and bus are gone".to_owned(),
        ));
    }
    if !demo.stay {
        show.end_aggregator()?;
    }
    report(&show, demo, out)?;
    if demo.stay {
        writeln!(out, "All of it goes on until ^C.")?;
        out.flush()?;
        while sleep(Duration::from_secs(1), &stop) {}
    }
    Ok(())
}

/// Serves the dashboard, on another port where the one that was asked for is taken.
#[cfg(feature = "http")]
fn serve(address: &Address, demo: &Demo) -> Result<Server, Error> {
    let start = |listen| {
        let options = ServeOptions {
            listen: vec![listen],
            bus: Some(address.clone()),
            ..ServeOptions::new(address.snapshot())
        };
        Server::start(options, crate::log::warn)
    };
    let any = "127.0.0.1:0".parse().map_err(Error::failed)?;
    start(demo.listen.clone())
        .or_else(|_| start(any))
        .map_err(Error::failed)
}

/// The three formats, and what became of all records.
fn report(show: &Show, demo: &Demo, out: &mut dyn Write) -> Result<(), Error> {
    let address = show.stage.bus().address();
    // Where it is aggregated still, what was emitted until now.
    let _ = show.stage.bus().flush(Duration::from_secs(1));
    let mut reader =
        Reader::open(&address.snapshot()).map_err(|error| Error::reading(address, &error))?;
    let options = ReadOptions {
        history: true,
        ..ReadOptions::default()
    };
    let snapshot = reader
        .read(&options)
        .map_err(|error| Error::reading(address, &error))?;
    let folder = folder(demo)?;
    for (format, name) in [
        (Format::Prometheus, "metrics.prom"),
        (Format::Json, "metrics.json"),
        (Format::Csv, "metrics.csv"),
    ] {
        let options = Options {
            timestamps: false,
            history: format != Format::Prometheus,
        };
        let path = folder.join(name);
        export_to_file(&snapshot, format, &options, &path)
            .doing(format!("write {}", path.display()))?;
        brief(&snapshot, format, &path, out)?;
    }
    let ledger = Ledger::read(show.stage.bus(), Some(&reader)).doing("look at the owners")?;
    writeln!(
        out,
        "\nLedger: {} records delivered, {} dropped, {} torn, {} revoked.\nAll three dumps whole: \
        {}",
        ledger.total.delivered,
        ledger.dropped(),
        ledger.total.torn,
        ledger.total.revoked,
        folder.display()
    )?;
    Ok(())
}

/// Shows progress on a terminal until the workers have ended, or, where they stay, the time is
/// over.
fn watch(show: &mut Show, time: Duration, stay: bool, stop: &AtomicBool) -> Result<(), Error> {
    let progress = Progress::new();
    let start = Instant::now();
    let mut reader = None;
    while !stop.load(Ordering::Relaxed) {
        if !sleep(Duration::from_millis(100), stop) {
            // What ends now ends for the same reason.
            break;
        }
        let mut running = 0;
        for worker in &mut show.players[1..] {
            match worker.process().try_wait().doing("wait for a worker")? {
                None => running += 1,
                Some(status) if status.success() => {}
                Some(status) => return Err(Error::Failed(format!("a worker failed: {status}"))),
            }
        }
        if let Some(status) = show.players[0]
            .process()
            .try_wait()
            .doing("wait for the aggregator")?
        {
            return Err(Error::Failed(format!(
                "the aggregator ended early: {status}"
            )));
        }
        if running == 0 || (stay && start.elapsed() >= time) {
            break;
        }
        if start.elapsed() > time + Duration::from_secs(30) {
            return Err(Error::Failed("the workers do not end".to_owned()));
        }
        if progress.is_shown() {
            reader = reader.or_else(|| Reader::open(&show.stage.bus().address().snapshot()).ok());
            let requests = reader.as_mut().map_or(0.0, requests);
            let done = (start.elapsed().as_secs_f64() / time.as_secs_f64()).min(1.0);
            progress.show(done, &format!("{requests:.0} requests"));
        }
    }
    Ok(())
}

fn requests(reader: &mut Reader) -> f64 {
    let matches = |name: &str| name == "demo_requests_total";
    let snapshot = reader.read(&ReadOptions {
        history: false,
        matches: Some(&matches),
    });
    let sum = |snapshot: Snapshot| {
        snapshot
            .series
            .iter()
            .map(|series| {
                if let Value::Counter(sum) = series.value {
                    sum.value()
                } else {
                    0.0
                }
            })
            .sum()
    };
    snapshot.map_or(0.0, sum)
}

fn folder(demo: &Demo) -> Result<PathBuf, Error> {
    let folder = match &demo.output {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("qbus-demo-{}", std::process::id())),
    };
    fs::create_dir_all(&folder).doing(format!("make {}", folder.display()))?;
    Ok(folder)
}

/// The first lines of a format that tell of the workers.
fn brief(
    snapshot: &Snapshot,
    format: Format,
    path: &Path,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let of_workers = |name: &str| name.starts_with("demo_");
    let series = snapshot
        .series
        .iter()
        .filter(|series| of_workers(&series.family.name))
        .cloned();
    let shown = Snapshot {
        series: series
            .map(|series| qbus_aggregate::Series {
                history: Vec::new(),
                ..series
            })
            .collect(),
        ..*snapshot
    };
    let mut page = Vec::new();
    export(&shown, format, &Options::default(), &mut page)?;
    // The JSON page is one line; a metric each is easier on the eye.
    let page = String::from_utf8_lossy(&page).replace("{\"name\":", "\n  {\"name\":");
    writeln!(out, "\n--- {format}: {} ---", path.display())?;
    for line in page.lines().take(SHOWN) {
        // A terminal's line each, so that the page stays a page.
        let cut: String = line.chars().take(78).collect();
        let more = if cut.len() < line.len() { "…" } else { "" };
        writeln!(out, "{cut}{more}")?;
    }
    writeln!(out, "… {} lines in all", page.lines().count())?;
    Ok(())
}

/// A worker that behaves as an inference server: requests in batches, some of them slow.
fn work(address: &Address, worker: u32, time: Duration) -> Result<(), Error> {
    end_with_parent();
    let bus = open(address)?;
    bus.set_role("inference");
    let (model, name) = ("qwen3-vl", worker.to_string());
    let labels = [("model", model), ("worker", &name)];
    let failed = Error::failed;
    let requests = bus
        .counter("demo_requests_total")
        .help("Requests answered.")
        .labels(labels)
        .register()
        .map_err(failed)?;
    let tokens = bus
        .counter("demo_tokens_total")
        .help("Tokens generated.")
        .labels(labels)
        .register()
        .map_err(failed)?;
    let batch_size = bus
        .gauge("demo_batch_size")
        .help("Requests in the present batch.")
        .labels(labels)
        .register()
        .map_err(failed)?;
    let latency = bus
        .histogram("demo_request_seconds")
        .help("Time from request to answer.")
        .unit("seconds")
        .label("model", model)
        .buckets([0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
        .register()
        .map_err(failed)?;
    let first_token = bus
        .summary("demo_first_token_seconds")
        .help("Time from request to the first token.")
        .unit("seconds")
        .label("model", model)
        .register()
        .map_err(failed)?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(worker + 1));
    let end = Instant::now() + time;
    while Instant::now() < end {
        let batch = 1 + random.below(8);
        batch_size.set(batch as f64);
        let start = Instant::now();
        // Mostly a few milliseconds, seldom ten times that.
        let slow = if random.below(50) == 0 { 10 } else { 1 };
        thread::sleep(Duration::from_micros(1000 * slow + random.below(4000)));
        let seconds = start.elapsed().as_secs_f64();
        for _ in 0..batch {
            // As where one request in some is traced, and every slow one.
            if slow > 1 || random.below(50) == 0 {
                let trace_id = u128::from(random.word()) << 64 | u128::from(random.word());
                latency.observe_traced(seconds, trace_id);
            } else {
                latency.observe(seconds);
            }
            first_token.observe(seconds * (0.2 + random.below(100) as f64 / 500.0));
            requests.inc();
            tokens.add((16 + random.below(240)) as f64);
        }
    }
    Ok(())
}

/// Xorshift (Marsaglia 2003): the demo needs variety, not quality.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
