//! The labels of a series as remote write wants them: sorted, with the receiver's own among them.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::super::wire::{Field, Message};
use crate::series::{Series, Value};

/// Of a series: its labels in 1.0, their numbers in 2.0.
pub(super) const LABELS: Field = Field(1);
const SYMBOLS: Field = Field(4);

/// The texts of a request of 2.0, each once.
pub(super) struct Symbols {
    numbers: HashMap<Box<str>, u32, RandomState>,
    message: Message,
}

impl Default for Symbols {
    fn default() -> Symbols {
        let mut symbols = Symbols {
            numbers: HashMap::default(),
            message: Message::default(),
        };
        // The first one is empty.
        symbols.number("");
        symbols
    }
}

impl Symbols {
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(text.into(), number);
        self.message.text(SYMBOLS, text);
        number
    }

    pub(super) fn into_message(self) -> Message {
        self.message
    }
}

/// The labels of a series, sorted by name with the receiver's eyes. Between them stand the name of
/// the sample, and a label of the sample's own.
#[derive(Default)]
pub(super) struct Labels {
    /// How the labels of the last series were put in order: most have the same names as it.
    plan: Plan,
    /// Encoded labels of 1.0.
    bytes: Message,
    /// Numbers of names and values of 2.0.
    numbers: Vec<u32>,
    /// In either: where the name stands, and where `le` or `quantile` does.
    name_at: usize,
    own_at: usize,
}

/// Where the labels of a series come, by their names.
#[derive(Default)]
struct Plan {
    /// The names that it is for, as the series has them, where none of its values is empty; else
    /// it is for that series alone.
    names: Option<Vec<String>>,
    /// In the receiver's order.
    slots: Vec<PlannedLabel>,
    /// Whether samples have the label `quantile` of their own, and not `le`.
    is_summary: bool,
    /// How many of them stand before the name, and before a label of the sample's own.
    before_name: usize,
    before_own: usize,
}

/// A label in a plan.
struct PlannedLabel {
    /// Which of the series' labels it is; `None` for one that all series have.
    own: Option<usize>,
    /// Of 1.0: the encoded name; of a label that all series have the value too.
    encoded: Message,
    /// Of 2.0: the numbers of the name, and of the last value.
    name: u32,
    value: (String, u32),
}

const NAME: &str = "__name__";
const LABEL_NAME: Field = Field(1);
const LABEL_VALUE: Field = Field(2);

impl Labels {
    pub(super) fn begin(
        &mut self,
        series: &Series,
        of_all: &[(String, String)],
        mut symbols: Option<&mut Symbols>,
    ) {
        if !self.plan.fits(series) {
            self.plan = Plan::of(series, of_all, symbols.as_deref_mut());
        }
        self.bytes.clear();
        self.numbers.clear();
        let Labels {
            plan,
            bytes,
            numbers,
            name_at,
            own_at,
        } = self;
        for (at, slot) in plan.slots.iter_mut().enumerate() {
            let here = bytes.len() + numbers.len();
            if at == plan.before_name {
                *name_at = here;
            }
            if at == plan.before_own {
                *own_at = here;
            }
            let value = slot.own.map(|own| series.labels[own].1.as_str());
            match (&mut symbols, value) {
                (None, None) => bytes.bytes(LABELS, slot.encoded.as_bytes()),
                (None, Some(value)) => {
                    bytes.two(LABELS, slot.encoded.as_bytes(), LABEL_VALUE, value);
                }
                (Some(_), None) => numbers.extend([slot.name, slot.value.1]),
                (Some(symbols), Some(value)) => {
                    if slot.value.0 != value {
                        slot.value.1 = symbols.number(value);
                        slot.value.0.clear();
                        slot.value.0.push_str(value);
                    }
                    numbers.extend([slot.name, slot.value.1]);
                }
            }
        }
        let end = bytes.len() + numbers.len();
        if plan.before_name == plan.slots.len() {
            *name_at = end;
        }
        if plan.before_own == plan.slots.len() {
            *own_at = end;
        }
    }

    /// Forgets what a request has that is over: its symbols have other numbers in the next one.
    pub(super) fn end_request(&mut self) {
        self.plan = Plan::default();
    }

    pub(super) fn encode(&self, message: &mut Message, name: &str, own: Option<(&str, &str)>) {
        let bytes = self.bytes.as_bytes();
        message.encoded(&bytes[..self.name_at]);
        label(message, NAME, name);
        message.encoded(&bytes[self.name_at..self.own_at]);
        if let Some((name, value)) = own {
            label(message, name, value);
        }
        message.encoded(&bytes[self.own_at..]);
    }

    pub(super) fn encode_numbers(
        &self,
        message: &mut Message,
        symbols: &mut Symbols,
        name: &str,
        own: Option<(&str, &str)>,
    ) {
        let name = [symbols.number(NAME), symbols.number(name)];
        let own = own.map(|(name, value)| [symbols.number(name), symbols.number(value)]);
        message.message(LABELS, |row| {
            let all = [
                &self.numbers[..self.name_at],
                &name,
                &self.numbers[self.name_at..self.own_at],
                own.as_ref().map_or(&[], |own| own.as_slice()),
                &self.numbers[self.own_at..],
            ];
            for number in all.into_iter().flatten() {
                row.packed_unsigned(u64::from(*number));
            }
        });
    }
}

impl Plan {
    /// Whether it is for the labels of this series as well.
    fn fits(&self, series: &Series) -> bool {
        let Some(names) = &self.names else {
            return false;
        };
        let mut pairs = names.iter().zip(&series.labels);
        names.len() == series.labels.len()
            && pairs.all(|(name, label)| *name == label.0 && !label.1.is_empty())
            && self.is_summary == matches!(series.value, Value::Summary(_))
    }

    fn of(series: &Series, of_all: &[(String, String)], symbols: Option<&mut Symbols>) -> Plan {
        let mut symbols = symbols;
        let mut number = |text: &str| symbols.as_mut().map_or(0, |symbols| symbols.number(text));
        let mut sorted: Vec<(Cow<'_, str>, Option<usize>, &str)> = of_all
            .iter()
            .map(|(name, value)| (name.into(), None, value.as_str()))
            .collect();
        for (at, (name, value)) in series.labels.iter().enumerate() {
            // To a receiver an empty value is no label.
            if !value.is_empty() {
                sorted.push((own_name(name, of_all), Some(at), ""));
            }
        }
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let is_summary = matches!(series.value, Value::Summary(_));
        let own = if is_summary { "quantile" } else { "le" };
        let before = |name: &str| sorted.iter().filter(|label| *label.0 < *name).count();
        let (before_name, before_own) = (before(NAME), before(own));
        let of_series = series.labels.iter();
        let names = of_series.map(|(name, value)| (!value.is_empty()).then(|| name.clone()));
        let slots = sorted.iter().map(|(name, own, value)| {
            let mut encoded = Message::default();
            encoded.text(LABEL_NAME, name);
            if own.is_none() {
                encoded.text(LABEL_VALUE, value);
            }
            PlannedLabel {
                own: *own,
                encoded,
                name: number(name),
                value: ((*value).to_owned(), number(value)),
            }
        });
        Plan {
            slots: slots.collect(),
            names: names.collect(),
            is_summary,
            before_name,
            before_own,
        }
    }
}

/// What a series' own label is called beside those of all series.
fn own_name<'a>(name: &'a str, of_all: &[(String, String)]) -> Cow<'a, str> {
    let mut name = Cow::Borrowed(name);
    while of_all.iter().any(|(taken, _)| *taken == name) {
        name = format!("exported_{name}").into();
    }
    name
}

pub(super) fn label(message: &mut Message, name: &str, value: &str) {
    message.message(LABELS, |label| {
        label.text(LABEL_NAME, name);
        label.text(LABEL_VALUE, value);
    });
}
