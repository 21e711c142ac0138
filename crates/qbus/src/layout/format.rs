//! Draws the tables of `docs/format.md` that tell of the bus region.

#[path = "../../../../docs/drawn.rs"]
mod drawn;

use std::mem::{offset_of, size_of};

use drawn::{check, table, words};

use super::{
    Cell, CellHead, Geometry, Header, LaneHead, LaneTail, MAGIC, OwnerEntry, Sections, Slot,
    VERSION,
};
use crate::lane::cell::{CellKey, CellKind};
use crate::lane::{Lease, Sequence, SlotPhase};
use crate::liveness::{AGGREGATOR_BYTE, CREATE_BYTE, owner_byte};
use crate::owner::{OwnerId, OwnerPhase, State};
use crate::record::{Kind, MetricType, Record, SeriesId};
use crate::registry::{FamilyDefinition, FamilyId, SeriesDefinition};

/// Offset, length in bytes and name of each field, with what is said of it. A field that is left
/// out does not compile.
macro_rules! fields {
    ($type:ident { $($field:ident: $text:literal,)* } unused $($pad:ident)*) => {{
        fn complete(it: &$type) {
            let $type { $($field: _,)* $($pad: _,)* } = it;
        }
        let _ = complete;
        [$((
            offset_of!($type, $field),
            bytes(|it: &$type| &it.$field),
            stringify!($field),
            $text,
        ),)*]
    }};
}

/// The size of a field.
fn bytes<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

fn draw(name: &str, each: usize, fields: &[(usize, usize, &str, &str)]) {
    let row = |&(offset, bytes, field, text): &(usize, usize, &str, &str)| {
        vec![
            offset.to_string(),
            bytes.to_string(),
            field.to_owned(),
            text.to_owned(),
        ]
    };
    let rows: Vec<_> = fields.iter().map(row).collect();
    let drawn = table(&["offset", "bytes", "field", "what"], &rows);
    check(
        name,
        &format!("{drawn}\n{each} bytes in all; what no row names is unused, and 0.\n"),
    );
}

#[test]
fn header() {
    let fields = fields!(Header {
        magic: "`qbusbus1`; stored last, with release",
        version: "layout version",
        instance: "two random words: tell a bus from another of the same name",
        size: "bytes of the whole region",
        geometry: "lanes, shared lanes, slots, owners, families, series, arena words, cells",
        created_ns: "when it was created",
        removed: "1 once the name was taken away",
        aggregator_pid: "pid of the last aggregator, in its own pid namespace; 0 = never one",
        aggregator_started_ns: "when it started",
        doorbell: "1 while the aggregator sleeps (a futex in the lower half)",
        dropped_unowned: "records of processes that found no place in the owner table",
        refused_series: "registrations that found the registry full",
        violations: "words that made no sense, and were refused",
        joined: "processes that joined",
        reaped: "owners that were found dead",
        cut_values: "label values that were too long, and cut",
        family_count: "registered families",
        series_count: "registered series",
        arena_next: "next free word of the arena",
        series_changes: "how often a series was forgotten, or registered again",
        series_freed: "series that were freed",
        free_blocks: "by size class: the block that was freed last; changes, from bit 32 on",
        family_limit: "series that a family may have that does not say so itself; 0 = any number",
    } unused _pad0 _pad1 _pad2 _pad3 _pad4);
    draw("header", 4096, &fields);
    let numbers = format!("Magic `{MAGIC:016x}`, layout version {VERSION}.\n");
    check("magic", &numbers);
}

#[test]
fn owner() {
    let fields = fields!(OwnerEntry {
        state: "generation << 8, and phase",
        pid: "pid, in the process's own pid namespace",
        pid_start_ticks: "field 22 of /proc/PID/stat",
        pid_namespace: "inode of /proc/self/ns/pid",
        joined_ns: "when it joined",
        dropped_full_base: "`dropped_full` when it joined",
        rejected_base: "`rejected` when it joined",
        shared_calls_base: "`shared_calls` when it joined",
        role: "text: length in bytes, then up to 8 words",
        command: "text: length in bytes, then up to 14 words",
        dropped_full: "records that met a full lane, over all occupants",
        rejected: "records whose value their series cannot take, over all occupants",
        shared_calls: "calls that wrote to cells of a shared lane",
        coalesced: "records that met a full lane and were kept as state",
        dropped_by_type: "`dropped_full` of counters, gauges, histograms, summaries",
        dropped_by_type_base: "the same when it joined",
        coalesced_base: "`coalesced` when it joined",
    } unused _pad1);
    draw("owner", size_of::<OwnerEntry>(), &fields);
    let phases = [
        OwnerPhase::Free,
        OwnerPhase::Joining,
        OwnerPhase::Active,
        OwnerPhase::Left,
    ];
    let row = |phase: OwnerPhase| {
        let state = State {
            generation: 0x123,
            phase,
        };
        vec![format!("{phase:?}"), format!("{:016x}", state.to_raw())]
    };
    let rows = phases.map(row);
    check(
        "owner phases",
        &table(&["phase", "state, generation 0x123"], &rows),
    );
}

#[test]
fn lanes() {
    let tail = fields!(LaneTail {
        tail: "position after the last record; in a shared lane a hint that may lag",
        lease: "who leases an exclusive lane; 0 = nobody",
    } unused _pad);
    draw("tail", size_of::<LaneTail>(), &tail);
    let head = fields!(LaneHead {
        head: "position of the next record to drain",
        seen_pulses: "of each group of cells the pulse that is committed",
        waiting_pulses: "the same of what was read, where some of it waits for room",
    } unused _pad);
    draw("head", size_of::<LaneHead>(), &head);
    let slot = fields!(Slot {
        sequence: "lap, owner and phase",
        payload: "the record",
    } unused);
    draw("slot", size_of::<Slot>(), &slot);

    let cells = fields!(CellHead {
        pulses: "of each group: calls that wrote to it, modulo 2^48",
        used: "cells below this were used",
        writer: "lease of the last writer of an exclusive lane",
        handovers: "how often the cells passed to another owner",
        handover: "a ring of the last ones: lease, and the sum of all pulses then",
    } unused _pad);
    draw("cell head", size_of::<CellHead>(), &cells);
    let cell = fields!(Cell {
        key: "series, kind and bucket; 0 = none",
        value: "cumulative, or a state",
    } unused);
    draw("cell", size_of::<Cell>(), &cell);
    let kinds = [
        (CellKind::Count, "a counter's whole increments"),
        (
            CellKind::Sum,
            "double: its other ones, or a histogram's observations",
        ),
        (CellKind::Residue, "double: what `Sum` lacks by rounding"),
        (CellKind::Min, "double, inverted: smallest observation"),
        (CellKind::Max, "double, inverted: largest observation"),
        (CellKind::Last, "double, inverted: last observation"),
        (CellKind::Bucket(3), "observations in a histogram's bucket"),
        (CellKind::Level, "double, inverted: a gauge's value"),
        (
            CellKind::Stamp,
            "the time of `Level`; bit 63: a writer of a shared lane is changing it",
        ),
        (CellKind::Sparse(3), "observations in a summary's bucket"),
    ];
    let row = |(kind, text): (CellKind, &str)| {
        let key = CellKey::new(SeriesId(0x22), kind, 5).0;
        vec![format!("{kind:?}"), format!("{key:016x}"), text.to_owned()]
    };
    let head = ["kind", "key, series 0x22, length 5", "value"];
    check("cell kinds", &table(&head, &kinds.map(row)));

    let owner = OwnerId {
        index: 0x045,
        generation: 0x123,
    };
    let phases = [
        SlotPhase::Empty,
        SlotPhase::Ready,
        SlotPhase::Claimed,
        SlotPhase::Retired,
        SlotPhase::Skipped,
        SlotPhase::Torn,
        SlotPhase::Revoked,
    ];
    let row = |phase| {
        let word = Sequence::new(7, owner, phase).0;
        vec![format!("{phase:?}"), format!("{word:016x}")]
    };
    let head = ["phase", "sequence, lap 7, owner 0x45, generation 0x123"];
    check("sequence", &table(&head, &phases.map(row)));
    check("lease", &words(&[Lease::of(owner).0]));
}

#[test]
fn record() {
    let record = Record {
        timestamp_ns: 0x1111,
        series: SeriesId(0x22),
        kind: Kind::Observe,
        value: 0.125,
        count: 3,
        trace_id: 0x4444_0000_0000_0000_5555,
    };
    check("record", &words(&record.to_words()));
    let brief = Record::new(0x1111, SeriesId(0x22), Kind::Set, 0.125);
    check(
        "brief record",
        &words(&brief.to_words()[..crate::record::BRIEF_WORDS]),
    );
    let kinds = [
        Kind::Increment,
        Kind::Total,
        Kind::Set,
        Kind::Adjust,
        Kind::Observe,
    ];
    let rows = kinds.map(|kind| vec![kind.to_raw().to_string(), format!("{kind:?}")]);
    check("kinds", &table(&["kind", "name"], &rows));
    let row =
        |metric_type: MetricType| vec![metric_type.to_raw().to_string(), metric_type.to_string()];
    check(
        "types",
        &table(&["type", "name"], &MetricType::ALL.map(row)),
    );
}

#[test]
fn definitions() {
    let family = FamilyDefinition {
        name: "request_seconds".to_owned(),
        metric_type: MetricType::Histogram,
        help: "Time to answer.".to_owned(),
        unit: "seconds".to_owned(),
        buckets: vec![0.1, 1.0],
        native: false,
        merge: crate::registry::Merge::Last,
        window: crate::registry::Window::default(),
    };
    check("family", &words(&family.encode()));
    let series = SeriesDefinition {
        family: FamilyId(5),
        labels: vec![("model".to_owned(), "qwen3-vl".to_owned())],
    };
    check("series", &words(&series.encode()));
}

#[test]
fn sections() {
    let geometry = Geometry::default();
    let Sections {
        owners,
        tails,
        heads,
        slots,
        cell_heads,
        cells,
        seen,
        families,
        series,
        arena,
        size,
    } = Sections::of(&geometry);
    let index = |entries| Geometry::index_words(entries).to_string();
    let section = |name: &str, offset: usize, each: usize, number: String, text: &str| {
        let cells = [name, &offset.to_string(), &each.to_string(), &number, text];
        cells.map(str::to_owned).to_vec()
    };
    let lanes = geometry.lanes.to_string();
    let all_cells = (geometry.lanes * geometry.cells).to_string();
    let rows = [
        section("header", 0, 4096, "1".to_owned(), "1"),
        section("owners", owners, 512, geometry.owners.to_string(), "owners"),
        section("tails", tails, 128, lanes.clone(), "lanes"),
        section("heads", heads, 128, lanes.clone(), "lanes"),
        section(
            "slots",
            slots,
            64,
            (geometry.lanes * geometry.slots).to_string(),
            "lanes × slots, lane after lane",
        ),
        section("cell heads", cell_heads, 256, lanes, "lanes"),
        section(
            "cells",
            cells,
            16,
            all_cells.clone(),
            "lanes × cells, lane after lane",
        ),
        section("seen", seen, 8, all_cells, "lanes × cells, lane after lane"),
        section(
            "families",
            families,
            8,
            index(geometry.families),
            "2 × families, to a power of two",
        ),
        section(
            "series",
            series,
            8,
            index(geometry.series),
            "2 × series, to a power of two",
        ),
        section(
            "arena",
            arena,
            8,
            geometry.arena_words.to_string(),
            "arena words",
        ),
        section("(end)", size, 0, "0".to_owned(), ""),
    ];
    check(
        "sections",
        &table(
            &["section", "offset", "bytes each", "number", "which is"],
            &rows,
        ),
    );
}

#[test]
fn locks() {
    let byte = |byte: u64, holder: &str| vec![byte.to_string(), holder.to_owned()];
    let rows = [
        byte(
            CREATE_BYTE,
            "whoever makes the bus or takes its name away, while doing so",
        ),
        byte(AGGREGATOR_BYTE, "the aggregator"),
        byte(
            owner_byte(0),
            "the process in entry 0 of the owner table; entry 1 the next byte, and so on",
        ),
    ];
    check("locks", &table(&["byte", "held by"], &rows));
}
