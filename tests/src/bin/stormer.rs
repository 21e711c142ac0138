//! Does at random what producers do: `test-stormer BUS FOLDER NAME SEED`.
//!
//! It joins, emits through lanes of each sort, forks, emits from threads, leaves and joins again, and
//! sometimes kills itself, for a second at most, and while there is a file `go` in the folder. Every
//! thread that emits holds one of the journals in the folder, and emits to the series of its number.

use std::error::Error;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Clock, Kind, Record};
use qbus_tests::{Journal, Life, Random};
use rustix::process::{Signal, getpid, kill_process};

/// Children of children of a worker, at most.
const DEPTH_MAX: u32 = 2;
/// How long a process lives, at most, in microseconds.
const LIFE_MAX_US: u64 = 1_000_000;
/// More than there are threads that emit at once; each is a series.
const JOURNALS: u64 = 1500;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus, folder, name, seed] = args.as_slice() else {
        return Err("expected BUS FOLDER NAME SEED".into());
    };
    let bus = Bus::open(&bus.parse()?)?;
    live(bus, Path::new(folder), name, Random::new(seed.parse()?), 0)
}

fn live(
    mut bus: Bus,
    folder: &Path,
    name: &str,
    mut random: Random,
    depth: u32,
) -> Result<(), Box<dyn Error>> {
    let sign = Life::begin(&folder.join("lives"), name);
    // Bounded, so that there are never many more of them than a machine has to run.
    let (life, start) = (
        Duration::from_micros(random.below(LIFE_MAX_US)),
        Instant::now(),
    );
    if random.below(3) == 0 {
        let sign = sign.clone();
        // At any instruction of the threads that emit.
        thread::spawn(move || {
            thread::sleep(life);
            sign.end();
            kill_process(getpid(), Signal::KILL)
        });
    }
    let mut children = 0;
    while folder.join("go").exists() && start.elapsed() < life {
        match random.below(16) {
            0 if depth < DEPTH_MAX && children < 2 => {
                children += 1;
                let (name, seed) = (format!("{name}.f{children}"), random.word());
                // SAFETY: the child goes on in this one thread, with what a forked child may use: the
                // libraries under test promise no less, and glibc's allocator is usable after a fork.
                if unsafe { libc::fork() } == 0 {
                    return live(bus, folder, &name, Random::new(seed), depth + 1);
                }
            }
            1 => thread::scope(|scope| {
                for _ in 0..2 {
                    let (bus, seed) = (&bus, random.word());
                    scope.spawn(move || burst(bus, folder, &mut Random::new(seed)));
                }
            }),
            2 => {
                let address = bus.address().clone();
                drop(bus);
                bus = Bus::open(&address)?;
            }
            _ => burst(&bus, folder, &mut random),
        }
        thread::sleep(Duration::from_micros(random.below(2000)));
    }
    sign.end();
    Ok(())
}

/// Emits some records through a lane of one sort or another.
fn burst(bus: &Bus, folder: &Path, random: &mut Random) {
    let (journal, number) = Journal::claim(&folder.join("journals"), JOURNALS, random);
    let counter = bus
        .counter("test_storm")
        .label("journal", &number.to_string());
    let counter = counter.register().expect("room for a series");
    let producer = match random.below(3) {
        0 => None,
        1 => Some(bus.producer().expect("a lane")),
        _ => Some(bus.shared_producer().expect("a shared lane")),
    };
    for _ in 0..random.below(300) {
        let accepted = journal.emit(|| match &producer {
            None => counter.try_add(1.0),
            Some(producer) => {
                let now_ns = Clock::Coarse.now_ns();
                producer.emit(Record::new(now_ns, counter.series(), Kind::Increment, 1.0))
            }
        });
        if !accepted {
            thread::sleep(Duration::from_micros(100));
        }
    }
}
