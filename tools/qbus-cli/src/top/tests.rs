//! Screens of a machine that is always the same, as whole texts; keys; and what must never be seen.

mod page;

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use qbus::MetricType;
use qbus_aggregate::{Point, Snapshot};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw;
use super::screen::{After, Life, Reading, Screen, View};
use super::terminal::text;
use super::text::Look;
use page::{SECOND, START, counter, family, reading, report, series, snapshot};

const PLAIN: Look = Look {
    color: false,
    ascii: false,
};

fn screen(look: Look) -> Screen {
    let mut screen = Screen::new(look, "a7".to_owned(), Duration::from_secs(1));
    for seconds in 0..70 {
        screen.take(reading(seconds));
    }
    screen.pass(START + 69 * SECOND + SECOND * 2 / 5);
    screen
}

/// What a terminal of that size shows.
fn shown(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let drawn = terminal.draw(|frame| {
        let area = frame.area();
        draw::draw(screen, area, frame.buffer_mut());
    });
    text(drawn.unwrap().buffer)
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '⇟' => KeyCode::PageDown,
            '⇲' => KeyCode::End,
            key => KeyCode::Char(key),
        };
        assert_eq!(
            screen.key(KeyEvent::new(code, KeyModifiers::NONE)),
            After::Draw,
            "{key:?}"
        );
    }
}

/// Compares with the text in `golden`; `QBUS_GOLDEN=write` writes it anew.
fn is_golden(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/top/golden/{name}.txt"));
    if env::var_os("QBUS_GOLDEN").is_some() {
        fs::write(&path, shown).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == shown,
        "{}: expected\n{golden}\nfound\n{shown}",
        path.display()
    );
}

#[test]
fn screens_are_as_they_were() {
    let mut screen = screen(PLAIN);
    for (keys, name) in [
        ("", "metrics"),
        ("2", "workers"),
        ("3", "machine"),
        ("4", "bus"),
        ("1?", "keys"),
    ] {
        press(&mut screen, keys);
        is_golden(&format!("{name}-80x24"), &shown(&mut screen, 80, 24));
        is_golden(&format!("{name}-140x40"), &shown(&mut screen, 140, 40));
    }
    // Of the histogram, whichever line it is on, its series and the first of them.
    press(&mut screen, "\u{1b}/request_s\n\n");
    is_golden("family-80x24", &shown(&mut screen, 80, 24));
    press(&mut screen, "\n");
    is_golden("series-80x24", &shown(&mut screen, 80, 24));
    is_golden("series-140x40", &shown(&mut screen, 140, 40));
}

#[test]
fn the_documentation_shows_screens_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/top.md")).unwrap();
    let shown = page.split("```\n").skip(1).step_by(2);
    let golden = fs::read_dir(root.join("src/top/golden")).unwrap();
    let golden: Vec<String> = golden
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(shown.clone().count(), 7);
    for screen in shown {
        assert!(
            golden.iter().any(|golden| golden == screen),
            "no longer so: {screen}"
        );
    }
}

#[test]
fn what_is_lost_or_over_is_said_first() {
    let mut screen = screen(PLAIN);
    let mut lossy = reading(70);
    lossy.report.records.lost[0].records = 1_234;
    lossy.report.records.refused_series = 7;
    if let Some(owners) = &mut lossy.report.owners {
        owners[2].dropped = 1_234;
    }
    screen.take(lossy);
    is_golden("losing-80x24", &shown(&mut screen, 80, 24));
    let mut over = reading(70);
    over.report.aggregator.alive = Some(false);
    over.report.age_seconds = 200.0;
    over.now_ns += 200 * SECOND;
    screen.take(over);
    assert_eq!(screen.life(), Life::Over);
    is_golden("over-80x24", &shown(&mut screen, 80, 24));
    // A copy: neither the bus nor who is who is known.
    let mut copy = reading(70);
    copy.report.aggregator.alive = None;
    copy.report.age_seconds = 5_000.0;
    copy.report.owners = None;
    copy.report.lanes = None;
    copy.now_ns += 5_000 * SECOND;
    screen.take(copy);
    is_golden("copy-80x24", &shown(&mut screen, 80, 24));
    screen.lose("there is no snapshot to show".to_owned());
    assert!(shown(&mut screen, 80, 24).contains("GONE: there is no snapshot to show"));
}

#[test]
fn ascii_is_ascii_and_every_size_is_drawn() {
    let mut screen = screen(Look {
        color: false,
        ascii: true,
    });
    for view in [
        "1",
        "2",
        "3",
        "4",
        "?",
        "\u{1b}1\n",
        "\n",
        "\u{1b}\u{1b}\t\n",
    ] {
        press(&mut screen, view);
        let text = shown(&mut screen, 80, 24);
        assert!(text.is_ascii(), "{text}");
        for (width, height) in [(1, 1), (3, 2), (20, 5), (79, 10), (200, 60)] {
            shown(&mut screen, width, height);
        }
    }
}

#[test]
fn the_first_line_says_what_it_has_room_for() {
    let mut screen = screen(PLAIN);
    let firsts = [
        (80, "605 k records/s   0 lost   28 series"),
        (60, "605 k records/s   0 lost"),
        (44, "0 lost"),
        (30, "0.4 s old"),
    ];
    for (width, end) in firsts {
        let text = shown(&mut screen, width, 24);
        let first = text.lines().next().expect("a line").trim_end();
        let is_whole = first.starts_with("qbus default · a7 · 0.4 s old");
        assert!(is_whole && first.ends_with(end), "{width}: {first}");
    }
}

#[test]
fn no_color_is_no_color() {
    let count = |look: Look| {
        let mut screen = screen(look);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let drawn = terminal.draw(|frame| {
            let area = frame.area();
            draw::draw(&mut screen, area, frame.buffer_mut());
        });
        let cells = drawn.unwrap().buffer.content.iter();
        cells
            .filter(|cell| {
                cell.fg != ratatui::style::Color::Reset || cell.bg != ratatui::style::Color::Reset
            })
            .count()
    };
    assert_eq!(count(PLAIN), 0);
    assert!(
        count(Look {
            color: true,
            ascii: false
        }) > 0
    );
}

#[test]
fn what_a_label_says_reaches_no_terminal() {
    let mut screen = Screen::new(PLAIN, "a7\u{1b}]0;".to_owned(), Duration::from_secs(1));
    for seconds in 0..3 {
        let mut reading = reading(seconds);
        let evil = family("evil_total", MetricType::Counter);
        let labels = [
            ("path", "\u{1b}[2J\u{9b}31m\r\n\u{7}\u{202e}x漢"),
            ("b", ""),
        ];
        reading.snapshot.series.insert(
            1,
            series(&evil, &labels, counter(1e9 * seconds as f64), START),
        );
        if let Some(owners) = &mut reading.report.owners {
            owners[1].command = "\u{1b}c\u{1b}[31m evil".to_owned();
        }
        screen.take(reading);
    }
    for keys in ["", " ", "\n", "\n", "\u{1b}\u{1b}2", "\n"] {
        press(&mut screen, keys);
        let text = shown(&mut screen, 140, 40);
        assert!(
            !text
                .chars()
                .any(|character| character.is_control() && character != '\n'),
            "{text:?}"
        );
        assert!(!text.contains('\u{202e}'), "{text}");
    }
}

#[test]
fn keys_do_what_they_say() {
    let mut screen = screen(PLAIN);
    let line = |screen: &mut Screen| {
        let text = shown(screen, 80, 24);
        text.lines()
            .find(|line| line.starts_with('▸'))
            .unwrap_or("")
            .to_owned()
    };
    assert!(line(&mut screen).contains("tokens_total"));
    press(&mut screen, "↓");
    assert!(line(&mut screen).contains("request_seconds"));
    // What is chosen stays so when the order changes.
    press(&mut screen, "sss");
    assert!(line(&mut screen).contains("request_seconds"));
    assert_eq!(screen.list().at, 2);
    press(&mut screen, "r");
    assert_eq!(screen.list().at, 1);
    press(&mut screen, "rs");
    // Its series, and back.
    press(&mut screen, "g ↓");
    assert!(
        line(&mut screen).contains("kind=\"output\""),
        "{}",
        line(&mut screen)
    );
    press(&mut screen, " ");
    assert!(line(&mut screen).contains("tokens_total"));
    assert_eq!(screen.rows.len(), 4);
    // A filter counts while it is typed, and is dropped by esc.
    press(&mut screen, "/kind=prom");
    assert_eq!(screen.rows.len(), 1);
    press(&mut screen, "\n\n");
    let family = shown(&mut screen, 80, 24);
    assert!(
        family.contains("kind=\"prompt\"") && !family.contains("kind=\"output\""),
        "{family}"
    );
    press(&mut screen, "\u{1b}\u{1b}");
    assert_eq!((screen.rows.len(), screen.pages.len()), (4, 0));
    press(&mut screen, "/zz\u{1b}t\t");
    assert!(screen.totals && screen.on_workers && screen.filter.is_empty());
    assert!(line(&mut screen).contains("4190 decode"));
    press(&mut screen, "s↓\n");
    assert!(shown(&mut screen, 80, 24).contains("attached since"));
    press(&mut screen, "p");
    assert!(shown(&mut screen, 80, 24).contains("PAUSED"));
    let control = |code| KeyEvent::new(KeyCode::Char(code), KeyModifiers::CONTROL);
    assert_eq!(screen.key(control('z')), After::Suspend);
    assert_eq!(screen.key(control('c')), After::Quit);
    assert_eq!(
        screen.key(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)),
        After::Quit
    );
}

#[test]
fn rates_follow_from_the_readings_and_gaps_are_gaps() {
    let mut screen = Screen::new(PLAIN, "a7".to_owned(), Duration::from_secs(1));
    let now = |screen: &Screen| screen.store.find("tokens_total").unwrap().now;
    screen.take(reading(0));
    assert!(now(&screen).is_nan());
    screen.take(reading(1));
    // The wave begins at 10.
    assert_eq!(now(&screen), 48_000.0 + 200.0 * 180.0);
    assert_eq!(screen.rate, 605_000.0);
    // The aggregator lives, and has nothing new: nothing was emitted.
    let mut idle = reading(1);
    idle.now_ns += SECOND;
    screen.take(idle);
    assert_eq!((now(&screen), screen.rate), (0.0, 0.0));
    // A minute without a reading is a gap, and no rate.
    screen.take(reading(100));
    assert!(now(&screen).is_nan());
    let view = screen.store.find("batch_size").unwrap();
    let ring = view.series[0]
        .ring
        .as_ref()
        .unwrap()
        .last(screen.store.tick, 100, 100);
    assert_eq!(ring.iter().filter(|value| !value.is_nan()).count(), 3);
    // A reading that came a little late is none.
    screen.take(reading(102));
    let view = screen.store.find("batch_size").unwrap();
    assert!(
        view.ring
            .last(screen.store.tick, 3, 3)
            .iter()
            .all(|value| !value.is_nan())
    );
    // What left the page leaves the screen.
    let mut less = reading(103);
    less.snapshot
        .series
        .retain(|one| one.family.name != "tokens_total");
    screen.take(less);
    assert!(screen.store.find("tokens_total").is_none());
}

#[test]
fn the_past_is_filled_from_the_history() {
    let mut screen = Screen::new(PLAIN, "a7".to_owned(), Duration::from_secs(1));
    screen.take(reading(100));
    let names = screen.unfilled(1_000);
    assert!(names.contains(&"tokens_total".to_owned()));
    let mut history = snapshot(100);
    for one in &mut history.series {
        let point = |second: u64| Point {
            timestamp_ns: START + second * SECOND,
            value: 500.0 * second as f64,
        };
        one.history = (90..=100).map(point).collect();
    }
    let gone = family("gone_total", MetricType::Counter);
    history.series.push(series(&gone, &[], counter(1.0), START));
    screen.fill(&names, history);
    let view = screen.store.find("tokens_total").unwrap();
    assert_eq!((view.now, view.series[1].now), (1_500.0, 500.0));
    let known = view.ring.last(screen.store.tick, 60, 60);
    assert_eq!(known.iter().filter(|value| !value.is_nan()).count(), 10);
    assert!(screen.unfilled(1_000).is_empty());
}

#[test]
fn ten_thousand_series_scroll() {
    let mut screen = Screen::new(PLAIN, "a7".to_owned(), Duration::from_secs(1));
    let family = family("users_total", MetricType::Counter);
    for seconds in 0..3 {
        let one = |user: u64| {
            let label = format!("user-{user:05}");
            series(
                &family,
                &[("user", &label)],
                counter((user * seconds) as f64),
                START,
            )
        };
        let snapshot = Snapshot {
            epoch: 1 + seconds,
            unix_ns: START + seconds * SECOND,
            consistent: true,
            series: (0..10_000).map(one).collect(),
        };
        screen.take(Reading {
            snapshot,
            report: report(seconds),
            now_ns: START + seconds * SECOND,
        });
    }
    // Too many for their histories to be read.
    assert!(screen.unfilled(1_000).is_empty());
    press(&mut screen, " ");
    assert_eq!(screen.rows.len(), 10_001);
    // How much a page is, the screen knows.
    shown(&mut screen, 80, 24);
    press(&mut screen, &"⇟".repeat(50));
    let at = screen.list().at;
    assert!((300..2_000).contains(&at), "{at}");
    press(&mut screen, "⇲");
    let text = shown(&mut screen, 80, 24);
    assert!(text.contains("user-00000"), "{text}");
    press(&mut screen, "/user-07777\n");
    assert_eq!(screen.rows.len(), 2);
    // The history of the one that is looked at.
    assert_eq!(screen.unfilled_series(), None);
    press(&mut screen, "g\n\n");
    let Some((name, labels)) = screen.unfilled_series() else {
        panic!("{}", shown(&mut screen, 80, 24));
    };
    assert_eq!((name, labels[0].1.as_str()), ("users_total", "user-07777"));
    let mut one = series(&family, &[("user", "user-07777")], counter(1.0), START);
    one.history = (0..20)
        .map(|ago| Point {
            timestamp_ns: START - (20 - ago) * SECOND,
            value: 0.5 * ago as f64,
        })
        .collect();
    screen.store.fill_series(&one);
    assert_eq!(screen.unfilled_series(), None);
    assert!(shown(&mut screen, 80, 24).contains("0.500 /s"));
}

#[test]
fn only_what_a_view_has_is_printed_once() {
    let mut screen = screen(PLAIN);
    screen.once = true;
    for view in View::ALL.map(|(view, _)| view) {
        screen.open(view);
        let height = u16::try_from(draw::lines(&screen)).unwrap();
        let text = shown(&mut screen, 100, height);
        assert!(!text.contains("q quit") && !text.contains('▸'), "{text}");
        // No line is missing, none is empty.
        assert_eq!(
            text.lines().count(),
            usize::from(height),
            "{view:?}: {text}"
        );
        assert!(
            text.lines().all(|line| !line.is_empty()),
            "{view:?}: {text}"
        );
    }
}
