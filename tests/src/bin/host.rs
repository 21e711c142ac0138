//! A program that has metrics among other things: `test-host BUS`.
//!
//! It does what it is told, a line of its input at a time, and answers with a line: what came of
//! it, or `refused: WHY`. Whatever becomes of its metrics, it goes on, and ends well.
//!
//! * `create [LANES SLOTS]`, `open`, `remove`, `force`: the bus;
//! * `emit N`: through one counter, registered now if it was not; `threads N`: a record each, at
//!   once;
//! * `bind LABEL`: a gauge with that label, which leaves the page with the process;
//! * `fork N`: children that emit one record each, all attached at the same time;
//! * `aggregate`: becomes the aggregator; `finish`: has everything committed, and reads it back;
//!   `rest`: is the aggregator no more; `read`: what the snapshot counts;
//! * `starve`: takes all file descriptors; `feed`: gives them back; `fill`: takes all room of the
//!   file system that the bus lies in; `cd FOLDER`.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::FromRawFd;
use std::sync::Barrier;
use std::thread;

use qbus::{Address, Bus, BusOptions, Counter, Geometry, Removal};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Reader, Value};
use qbus_tests::{TestBus, await_child, exit_at_once, fork};

struct Host {
    address: Address,
    bus: Option<Bus>,
    counter: Option<Counter>,
    aggregator: Option<Aggregator>,
    descriptors: Vec<File>,
}

type Answer = Result<String, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus] = args.as_slice() else {
        return Err("expected BUS".into());
    };
    let mut host = Host {
        address: bus.parse()?,
        bus: None,
        counter: None,
        aggregator: None,
        descriptors: Vec::new(),
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = host.obey(&words);
        let answer = answer.unwrap_or_else(|error| format!("refused: {error}"));
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

impl Host {
    fn obey(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["create"] => self.create(TestBus::small_geometry()),
            ["create", lanes, slots] => self.create(Geometry {
                lanes: lanes.parse()?,
                slots: slots.parse()?,
                owners: 2048,
                ..TestBus::small_geometry()
            }),
            ["open"] => {
                self.bus = Some(Bus::open(&self.address)?);
                Ok("open".to_owned())
            }
            ["remove"] => self.remove(Removal::Unused),
            ["force"] => self.remove(Removal::Forced),
            ["emit", records] => self.emit(records.parse()?),
            ["threads", count] => self.emit_from_threads(count.parse()?),
            ["fork", count] => self.fork(count.parse()?),
            ["bind", label] => {
                let gauge = self.bus()?.gauge("test_bound").label("worker", label);
                gauge.bound().register()?.set(1.0);
                Ok("set".to_owned())
            }
            ["aggregate"] => {
                let aggregator = Aggregator::open(self.bus()?, &AggregatorOptions::default())?;
                self.aggregator = Some(aggregator);
                Ok("aggregating".to_owned())
            }
            ["finish"] => {
                let aggregator = self.aggregator.as_mut().ok_or("no aggregator")?;
                aggregator.finish();
                self.read()
            }
            ["rest"] => {
                self.aggregator = None;
                Ok("resting".to_owned())
            }
            ["read"] => self.read(),
            ["starve"] => {
                while let Ok(file) = File::open("/dev/null") {
                    self.descriptors.push(file);
                }
                Ok("starving".to_owned())
            }
            ["feed"] => {
                self.descriptors.clear();
                Ok("fed".to_owned())
            }
            ["fill"] => {
                let mut file = File::create(self.address.file().with_file_name("full"))?;
                while file.write_all(&[1; 4096]).is_ok() {}
                Ok("full".to_owned())
            }
            ["cd", folder] => {
                std::env::set_current_dir(folder)?;
                Ok("there".to_owned())
            }
            _ => Err(format!("no such command: {words:?}").into()),
        }
    }

    fn bus(&self) -> Result<&Bus, &'static str> {
        self.bus.as_ref().ok_or("no bus")
    }

    fn create(&mut self, geometry: Geometry) -> Answer {
        let mode = std::env::var("TEST_MODE").unwrap_or_else(|_| "600".to_owned());
        let options = BusOptions {
            geometry,
            mode: u32::from_str_radix(&mode, 8)?,
            ..BusOptions::default()
        };
        self.bus = Some(Bus::open_or_create(&self.address, &options)?);
        Ok("open".to_owned())
    }

    fn remove(&mut self, removal: Removal) -> Answer {
        (self.bus, self.counter) = (None, None);
        Bus::remove(&self.address, removal)?;
        Ok("removed".to_owned())
    }

    fn counter(&mut self) -> Result<&Counter, Box<dyn Error>> {
        if self.counter.is_none() {
            self.counter = Some(self.bus()?.counter("test_host").register()?);
        }
        Ok(self.counter.as_ref().ok_or("no counter")?)
    }

    fn emit(&mut self, records: u64) -> Answer {
        let counter = self.counter()?;
        let results = (0..records).map(|_| counter.try_add(1.0));
        let (mut accepted, mut refusal) = (0, None);
        for result in results {
            match result {
                Ok(()) => accepted += 1,
                Err(error) => refusal = Some(error),
            }
        }
        let refusal = refusal.map_or(String::new(), |error| format!(": {error}"));
        Ok(format!("accepted {accepted} of {records}{refusal}"))
    }

    /// Every thread holds its lane, or its share of one, until all have emitted.
    fn emit_from_threads(&mut self, count: usize) -> Answer {
        let (counter, all) = (self.counter()?, Barrier::new(count));
        let emit = || {
            let accepted = counter.try_add(1.0).is_ok();
            all.wait();
            u64::from(accepted)
        };
        let accepted: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(emit)).collect();
            let ended = threads
                .into_iter()
                .map(|thread| thread.join().expect("it ends well"));
            ended.sum()
        });
        Ok(format!("accepted {accepted} of {count}"))
    }

    fn fork(&mut self, count: usize) -> Answer {
        let counter = self.counter()?.clone();
        let (said, says) = pipe()?;
        let (held, holds) = pipe()?;
        let mut children = Vec::new();
        for _ in 0..count {
            // As many as there may be.
            let Ok(pid) = fork() else {
                break;
            };
            if pid == 0 {
                drop((holds, said));
                let accepted = counter.try_add(1.0).is_ok();
                let told = (&says).write_all(&[u8::from(accepted)]);
                // Attached until the parent closes its end.
                let _ = (&held).read(&mut [0]);
                exit_at_once(i32::from(told.is_err()));
            }
            children.push(pid);
        }
        drop(says);
        let mut answers = vec![0; children.len()];
        (&said).read_exact(&mut answers)?;
        drop(holds);
        for &pid in &children {
            let status = await_child(pid);
            if status != 0 {
                return Err(format!("child {pid} ended with wait status {status}").into());
            }
        }
        let accepted: usize = answers.into_iter().map(usize::from).sum();
        Ok(format!("accepted {accepted} of {}", children.len()))
    }

    fn read(&self) -> Answer {
        let mut reader = Reader::open(&self.address.snapshot())?;
        let snapshot = reader.read(&ReadOptions::default())?;
        let value = |value: &Value| match value {
            Value::Counter(sum) => sum.value(),
            _ => 0.0,
        };
        let values = snapshot.series.iter().map(|series| value(&series.value));
        let sum = values.fold(0.0, |sum, value| sum + value);
        Ok(format!("counted {sum}"))
    }
}

fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written to an array of two.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now, and nobody else has it.
    let read = unsafe { File::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let write = unsafe { File::from_raw_fd(ends[1]) };
    Ok((read, write))
}
