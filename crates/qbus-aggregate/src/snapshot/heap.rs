//! The room of a snapshot file: who gets it, and how the file grows.
//!
//! Totals come before histories: a block is given room as long as there is any, a history only from
//! what its budget and the reserve for blocks leave over. The file grows in a thread of its own,
//! ahead of need: a file system may take its time, and records are not to wait for it.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{CreateError, Grower, Grown, MappedFile, Words, testpoint};

use super::gaps::Gaps;
use super::layout::{AT_ALLOCATED, AT_DEFINED, AT_HISTORIES, BLOCK_WORDS, Shape};
use super::ring::Points;

/// The file grows by so much, ...
const CHUNK_BYTES: u64 = 2 << 20;
/// ... as soon as less than this is free.
const AHEAD_WORDS: usize = (3 << 20) / 2 / 8;
/// Histories leave so much of it to blocks.
const RESERVE_WORDS: usize = (1 << 20) / 8;
/// A block waits for a file that grows for so long, once between two rounds.
const PATIENCE: Duration = Duration::from_millis(1);
/// After a failure the file is asked to grow again in so long.
const RETRY: Duration = Duration::from_secs(1);
/// How much a series' block and definitions in the heap are thought to need at most, when addresses
/// are set aside.
const SERIES_WORDS: usize = 4096;

/// The words that a snapshot's file has to give away.
#[derive(Debug)]
pub(super) struct Heap {
    file: MappedFile,
    growth: Growth,
    /// Bytes that the file may grow to.
    longest: u64,
    shape: Shape,
    /// Next free word of the heap, and of the definitions; the end of the file in words.
    allocated: usize,
    defined: usize,
    end: usize,
    /// What was given back of the heap, and of the definitions.
    gaps: Gaps,
    definition_gaps: Gaps,
    /// Words that histories took, and those that they may take.
    histories: usize,
    budget: usize,
    /// A block waited in vain since the last round.
    is_out_of_patience: bool,
    /// Since when somebody got no room, until the file system is asked again.
    wanting: Option<Instant>,
    failure: Option<CreateError>,
}

impl Heap {
    /// The heap of a checked file. A history has at most so many points.
    pub(super) fn new(mut file: MappedFile, shape: Shape, history: usize, recent: usize) -> Heap {
        let each = Points::History.ring_words(history) * 2 + SERIES_WORDS;
        let longest = (file.words().len() + shape.series.saturating_mul(each)) as u64 * 8;
        // And for a growth in large steps, of which the recent records may need one more.
        let recent = Points::Recent.ring_words(recent) as u64 * 8;
        let longest = longest
            .saturating_add(recent)
            .saturating_add(2 * CHUNK_BYTES);
        // A process that may not map so much goes on without growing, and says so when it has to.
        let growth = Growth::new(file.growing(longest).ok());
        let (words, end) = (file.words(), file.words().len());
        let within = |at, from: usize, to| (words.load(at) as usize).clamp(from, to);
        let mut heap = Heap {
            allocated: within(AT_ALLOCATED, shape.heap(), end),
            defined: within(AT_DEFINED, shape.definitions(), shape.heap()),
            histories: within(AT_HISTORIES, 0, end),
            end,
            gaps: Gaps::default(),
            definition_gaps: Gaps::default(),
            growth,
            longest,
            shape,
            budget: 0,
            is_out_of_patience: false,
            wanting: None,
            failure: None,
            file,
        };
        // Readers refuse a file that is shorter than it says.
        heap.words().store(AT_ALLOCATED, heap.allocated as u64);
        heap.set_budget(heap.file.available_bytes());
        heap
    }

    pub(super) fn words(&self) -> Words<'_> {
        self.file.words()
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file another name, in the place of what has it.
    pub(super) fn rename(&mut self, to: &Path) -> io::Result<()> {
        self.file.rename(to)?;
        // What makes the file grow knows it by its name.
        if let Ok(grower) = self.file.growing(self.longest) {
            self.growth = Growth::new(Some(grower));
        }
        Ok(())
    }

    pub(super) fn take_failure(&mut self) -> Option<CreateError> {
        self.failure.take()
    }

    /// Takes over what the file has grown by. Whether there may be room for what there was none
    /// for. To be called between rounds.
    pub(super) fn take_room(&mut self) -> bool {
        self.is_out_of_patience = false;
        let done = self.growth.poll(Duration::ZERO);
        let has_grown = done.is_some_and(|done| self.take(done));
        let is_overdue = self.wanting.is_some_and(|since| since.elapsed() >= RETRY);
        if is_overdue {
            // Somebody else may have given room back.
            self.set_budget(self.file.available_bytes());
        }
        if has_grown || is_overdue {
            self.wanting = None;
        }
        self.grow_ahead();
        has_grown || is_overdue
    }

    /// Begins with what is in use: runs of the heap and of the definitions, and how many words of
    /// them are histories'.
    pub(super) fn reclaim(&mut self, used: &[(usize, usize)], histories: usize) {
        let gaps = |from, to| Gaps::between(from, to, used.to_vec());
        self.gaps = gaps(self.shape.heap(), self.allocated);
        self.definition_gaps = gaps(self.shape.definitions(), self.defined);
        self.count_histories(histories);
    }

    /// Gives words of a block or a definition back. What led to them leads there no more.
    pub(super) fn give_back(&mut self, start: usize, len: usize) {
        if start >= self.shape.heap() {
            self.gaps.put(start, len);
            // There may be room for what there was none for.
            self.wanting.get_or_insert_with(Instant::now);
        } else {
            self.definition_gaps.put(start, len);
        }
    }

    /// Gives words of a history back.
    pub(super) fn give_history_back(&mut self, start: usize, len: usize) {
        self.count_histories(self.histories.saturating_sub(len));
        self.give_back(start, len);
    }

    /// Takes words that were given back.
    fn take_back(&mut self, len: usize) -> Option<usize> {
        let start = self.gaps.take(len)?;
        // Release: who finds here what is written from now on finds that what led here before leads
        // elsewhere.
        self.words().release();
        Some(start)
    }

    /// Takes words for a definition: of those that are reserved for them, or of the heap.
    pub(super) fn define(&mut self, len: usize) -> Option<usize> {
        if let Some(start) = self.definition_gaps.take(len) {
            self.words().release();
            return Some(start);
        }
        let start = self.defined;
        if start + len > self.shape.heap() {
            // Only what died between taking words and using them can have taken those of others.
            return self.allocate(len);
        }
        self.defined = start + len;
        // Before anything refers to them: a successor must not give them away again.
        self.words().store(AT_DEFINED, self.defined as u64);
        testpoint!("allocated");
        Some(start)
    }

    /// Takes words for a block. Where there are none it waits a millisecond for the file to grow.
    pub(super) fn allocate(&mut self, len: usize) -> Option<usize> {
        if let Some(start) = self.take_back(len) {
            return Some(start);
        }
        if len > self.end - self.allocated && !self.is_out_of_patience {
            self.is_out_of_patience = true;
            self.growth.ask(CHUNK_BYTES.max(len as u64 * 8));
            if let Some(done) = self.growth.poll(PATIENCE) {
                self.take(done);
            }
        }
        self.cut(len)
    }

    /// Takes words for a history, if its budget and the reserve for blocks leave so many.
    pub(super) fn allocate_history(&mut self, len: usize) -> Option<usize> {
        let histories = self.histories + len;
        if histories <= self.budget
            && let Some(start) = self.take_back(len)
        {
            self.count_histories(histories);
            return Some(start);
        }
        let is_left = len.saturating_add(RESERVE_WORDS) <= self.end - self.allocated;
        if histories > self.budget || !is_left {
            self.wanting.get_or_insert_with(Instant::now);
            self.grow_ahead();
            if histories <= self.budget {
                // A long one needs more than what the file is ahead by.
                let missing = len + RESERVE_WORDS - (self.end - self.allocated);
                self.growth.ask(CHUNK_BYTES.max(missing as u64 * 8));
            }
            return None;
        }
        self.count_histories(histories);
        self.cut(len)
    }

    fn count_histories(&mut self, histories: usize) {
        self.histories = histories;
        self.words().store(AT_HISTORIES, histories as u64);
    }

    /// Takes words, and has the file grow by what is missing, however long that takes.
    pub(super) fn allocate_now(&mut self, len: usize) -> Result<usize, CreateError> {
        let free = self.end - self.allocated;
        if len > free {
            let bytes = (len - free) as u64 * 8 + CHUNK_BYTES;
            let grown = self.growth.now(bytes);
            self.take_grown(&grown.map_err(|error| {
                error.unwrap_or_else(|| CreateError::NoSpace {
                    path: self.path().to_owned(),
                    needed_bytes: bytes,
                    available_bytes: 0,
                })
            })?);
        }
        Ok(self
            .cut(len)
            .expect("the file has grown by what was missing"))
    }

    fn cut(&mut self, len: usize) -> Option<usize> {
        let start = self.allocated;
        if len > self.end - start {
            self.wanting.get_or_insert_with(Instant::now);
            return None;
        }
        self.allocated = start + len;
        // Before anything refers to them: a successor must not give them away again, and a reader
        // that follows a reference finds that the file is as long.
        self.words().store(AT_ALLOCATED, self.allocated as u64);
        testpoint!("allocated");
        Some(start)
    }

    fn grow_ahead(&mut self) {
        let is_used_up = self.histories >= self.budget;
        let wanted = if is_used_up {
            RESERVE_WORDS
        } else {
            AHEAD_WORDS
        };
        if self.end - self.allocated < wanted {
            self.growth.ask(CHUNK_BYTES);
        }
    }

    /// Takes over an answer of the thread; whether the file has grown.
    fn take(&mut self, done: Result<Grown, CreateError>) -> bool {
        match done {
            Ok(grown) => self.take_grown(&grown),
            Err(error) => {
                self.failure = Some(error);
                return false;
            }
        }
        true
    }

    fn take_grown(&mut self, grown: &Grown) {
        self.file.extend(grown);
        testpoint!("file-grown");
        self.end = self.words().len();
        self.set_budget(grown.available_bytes);
    }

    /// Histories may take half of the file's largest size, without what is reserved.
    fn set_budget(&mut self, available_bytes: u64) {
        let available = usize::try_from(available_bytes / 8).unwrap_or(usize::MAX);
        let heap = self.end - self.shape.heap();
        self.budget = heap.saturating_add(available) / 2;
    }
}

/// The thread that makes a file grow. It runs from the first time that it is needed.
#[derive(Debug)]
enum Growth {
    /// The file cannot grow any more.
    Never,
    Idle(Grower),
    Running {
        wanted: Sender<u64>,
        done: Receiver<Result<Grown, CreateError>>,
        is_asked: bool,
        /// When it failed last.
        failed: Option<Instant>,
    },
}

impl Growth {
    fn new(grower: Option<Grower>) -> Growth {
        grower.map_or(Growth::Never, Growth::Idle)
    }

    /// Asks for more, unless that is under way, or failed a moment ago.
    fn ask(&mut self, bytes: u64) {
        if let Growth::Idle(_) = self {
            self.start();
        }
        if let Growth::Running {
            wanted,
            is_asked,
            failed,
            ..
        } = self
            && !*is_asked
            && failed.is_none_or(|at| at.elapsed() >= RETRY)
        {
            *is_asked = wanted.send(bytes).is_ok();
        }
    }

    /// The answer, if it comes in that time.
    fn poll(&mut self, patience: Duration) -> Option<Result<Grown, CreateError>> {
        let Growth::Running {
            done,
            is_asked,
            failed,
            ..
        } = self
        else {
            return None;
        };
        if !*is_asked {
            return None;
        }
        match done.recv_timeout(patience) {
            Ok(answer) => {
                *is_asked = false;
                *failed = answer.is_err().then(Instant::now);
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                *self = Growth::Never;
                None
            }
        }
    }

    /// Grows in this thread, before there is another. No error when it cannot be.
    fn now(&mut self, bytes: u64) -> Result<Grown, Option<CreateError>> {
        match self {
            Growth::Idle(grower) => grower.grow(bytes).map_err(Some),
            _ => Err(None),
        }
    }

    fn start(&mut self) {
        let Growth::Idle(mut grower) = std::mem::replace(self, Growth::Never) else {
            return;
        };
        let (wanted, wishes) = mpsc::channel();
        let (answer, done) = mpsc::channel();
        // It ends when the heap is gone, whoever it works for. Without it the file does not grow.
        let started = thread::Builder::new()
            .name("qbus-snapshot".to_owned())
            .spawn(move || {
                for bytes in wishes {
                    testpoint!("file-grows");
                    if answer.send(grower.grow(bytes)).is_err() {
                        break;
                    }
                }
            });
        if started.is_ok() {
            *self = Growth::Running {
                wanted,
                done,
                is_asked: false,
                failed: None,
            };
        }
    }
}

const _: () = assert!(BLOCK_WORDS < RESERVE_WORDS);
