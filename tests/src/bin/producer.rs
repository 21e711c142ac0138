//! Emits a load: `test-producer BUS TYPE THREADS RECORDS LANE WORKER`.
//!
//! It says `ready` when it is attached, begins at the first line of its input, reports a line a
//! thread, and stays attached until its input is closed.

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use qbus::Bus;
use qbus_tests::{Load, Report};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (bus, load) = args.split_first().ok_or("expected BUS and a load")?;
    let load = Load::from_args(load).ok_or("no such load")?;
    let bus = Bus::open(&bus.parse()?)?;
    let threads = load.threads as usize;
    let (attached, begun, ended) = (
        Barrier::new(threads + 1),
        Barrier::new(threads + 1),
        Barrier::new(threads + 1),
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let emit = |thread: u64| {
            let (bus, load, stop) = (&bus, &load, &stop);
            let (attached, begun, ended) = (&attached, &begun, &ended);
            move || {
                let emitter = load.emitter(bus, thread);
                attached.wait();
                begun.wait();
                let mut report = Report::default();
                for n in 0..if load.records == 0 {
                    u64::MAX
                } else {
                    load.records
                } {
                    if load.records == 0 && stop.load(Ordering::Relaxed) {
                        break;
                    }
                    report.count(load.value(n), emitter(n));
                }
                // The lanes stay leased until all have reported.
                ended.wait();
                report
            }
        };
        let threads: Vec<_> = (0..load.threads)
            .map(|thread| scope.spawn(emit(thread)))
            .collect();
        attached.wait();
        writeln!(io::stdout(), "ready")?;
        let mut input = io::stdin().lock();
        input.read_line(&mut String::new())?;
        begun.wait();
        if load.records == 0 {
            input.read_to_end(&mut Vec::new())?;
            stop.store(true, Ordering::Relaxed);
        }
        ended.wait();
        for thread in threads {
            let report = thread.join().map_err(|_| "a thread panicked")?;
            writeln!(io::stdout(), "{report}")?;
        }
        input.read_to_end(&mut Vec::new())?;
        Ok(())
    })
}
