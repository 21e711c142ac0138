//! Texts on a terminal: nothing that a label says moves the cursor, and all of it has a width.

use std::borrow::Cow;

use ratatui::style::{Color, Modifier, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Colours; what they mean is written in words or signs as well.
    pub(crate) color: bool,
    /// Nothing but ASCII.
    pub(crate) ascii: bool,
}

impl Look {
    fn colored(self, color: Color, plain: Style) -> Style {
        if self.color { plain.fg(color) } else { plain }
    }

    /// Titles of columns.
    pub(crate) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of Okabe and Ito's colours, the one for lines: bluish green of 256.
    pub(crate) fn line(self) -> Style {
        self.colored(Color::Indexed(36), Style::new())
    }

    /// Orange.
    pub(crate) fn warning(self) -> Style {
        self.colored(
            Color::Indexed(172),
            Style::new().add_modifier(Modifier::BOLD),
        )
    }

    /// Vermilion.
    pub(crate) fn bad(self) -> Style {
        self.colored(
            Color::Indexed(166),
            Style::new().add_modifier(Modifier::BOLD),
        )
    }

    /// A text for this terminal.
    pub(crate) fn text(self, text: &str) -> Cow<'_, str> {
        clean(text, self.ascii)
    }

    /// One of two signs.
    pub(crate) fn sign(self, sign: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { sign }
    }

    fn levels(self) -> [char; 8] {
        match self.ascii {
            false => ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
            true => ['_', '.', ':', '-', '=', '+', '*', '#'],
        }
    }

    /// A line of bars, from 0 to the largest; a gap where nothing is known.
    pub(crate) fn bars(self, values: &[f32]) -> String {
        let (low, high) = range(values);
        let levels = self.levels();
        let bar = |value: &f32| {
            if value.is_nan() {
                return ' ';
            }
            let part = (value - low) / (high - low);
            // What is not nothing is seen to be something.
            let least = f32::from(u8::from(*value > low));
            levels[((part * 7.0).round().max(least) as usize).min(7)]
        };
        values.iter().map(bar).collect()
    }

    /// A line of a chart that is `height` lines high; line 0 is at the top.
    pub(crate) fn chart(self, values: &[f32], height: usize, line: usize) -> String {
        let (low, high) = range(values);
        let levels = self.levels();
        let floor = (height - 1 - line) as f32;
        let bar = |value: &f32| {
            if value.is_nan() {
                return ' ';
            }
            let part = ((value - low) / (high - low)).clamp(0.0, 1.0) * height as f32;
            let eighths = ((part - floor) * 8.0).round();
            match eighths {
                _ if eighths >= 8.0 => levels[7],
                // The ground, so that a zero differs from a gap.
                _ if eighths < 1.0 && floor == 0.0 => levels[0],
                _ if eighths < 1.0 => ' ',
                _ => levels[eighths as usize - 1],
            }
        };
        values.iter().map(bar).collect()
    }

    /// How much of the most: a cell of a heat map.
    pub(crate) fn heat(self, part: f64) -> char {
        let levels = match self.ascii {
            false => [' ', '░', '▒', '▓', '█'],
            true => [' ', '.', ':', '+', '#'],
        };
        match part {
            _ if part <= 0.0 || part.is_nan() => levels[0],
            _ => levels[((part * 4.0).ceil() as usize).clamp(1, 4)],
        }
    }
}

/// From 0, or from what is less, to the largest.
pub(crate) fn range(values: &[f32]) -> (f32, f32) {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let low = finite().fold(0.0, f32::min);
    let high = finite().fold(low, f32::max);
    (low, if high > low { high } else { low + 1.0 })
}

/// Whether a character would move the cursor, hide itself, or turn what follows around.
fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{2028}' | '\u{2029}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text with a sign in place of each character that a terminal would obey, or not show.
pub(crate) fn clean(text: &str, ascii: bool) -> Cow<'_, str> {
    let is_fit = |character: char| !is_unfit(character) && (!ascii || character.is_ascii());
    if text.chars().all(is_fit) {
        return Cow::Borrowed(text);
    }
    let shown = |character: char| match character {
        _ if is_fit(character) => character,
        '·' | '–' | '−' if ascii => '-',
        'µ' if ascii => 'u',
        '°' if ascii => ' ',
        _ if ascii => '?',
        _ => '\u{fffd}',
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// As much of a text as fits the width; its last place says that there was more.
pub(crate) fn cut(text: &str, width: usize, look: Look) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let more = look.sign("…", "~");
    let mut left = width.saturating_sub(1);
    let fits = |character: &char| {
        let size = character.width().unwrap_or(0);
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    };
    let kept: String = text.chars().take_while(fits).collect();
    Cow::Owned(if width == 0 {
        String::new()
    } else {
        kept + more
    })
}

/// As [`cut`], but without the beginning: names of one kind begin alike.
pub(crate) fn cut_start(text: &str, width: usize, look: Look) -> Cow<'_, str> {
    if text.width() <= width || width == 0 || !text.is_ascii() {
        return cut(text, width, look);
    }
    let more = look.sign("…", "~");
    Cow::Owned(format!("{more}{}", &text[text.len() + 1 - width..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RICH: Look = Look {
        color: true,
        ascii: false,
    };
    const PLAIN: Look = Look {
        color: false,
        ascii: true,
    };

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let text = "a\u{1b}[2J\u{9b}1m\r\n\u{202e}z\u{200b}é";
        assert_eq!(clean(text, false), "a�[2J�1m���z�é");
        assert_eq!(clean(text, true), "a?[2J?1m???z??");
        assert!(matches!(clean("plain", true), Cow::Borrowed("plain")));
    }

    #[test]
    fn what_does_not_fit_says_so() {
        assert_eq!(cut("tokens_total", 12, RICH), "tokens_total");
        assert_eq!(cut("tokens_total", 7, RICH), "tokens…");
        assert_eq!(cut("tokens_total", 7, PLAIN), "tokens~");
        // Two places each: the third does not fit beside the sign.
        assert_eq!(cut("漢字漢字", 6, RICH), "漢字…");
        assert_eq!(cut("abc", 0, RICH), "");
        let name = "qbus_host_memory_available_bytes";
        assert_eq!(cut_start(name, 23, PLAIN), "~memory_available_bytes");
        assert_eq!(cut_start(name, 1, RICH), "…");
        assert_eq!(cut_start(name, 0, RICH), "");
        assert_eq!(cut_start(name, 40, RICH), name);
    }

    #[test]
    fn bars_begin_at_nothing_and_show_gaps() {
        let values = [0.0, 1.0, f32::NAN, 50.0, 100.0];
        assert_eq!(RICH.bars(&values), "▁▂ ▅█");
        assert_eq!(PLAIN.bars(&values), "_. =#");
        assert_eq!(RICH.bars(&[0.0, 0.0]), "▁▁");
        assert_eq!(RICH.bars(&[f32::INFINITY, f32::NAN, -1.0]), "█ ▁");
        assert_eq!(RICH.chart(&[0.0, 50.0, 100.0, f32::NAN], 2, 0), "  █ ");
        assert_eq!(RICH.chart(&[0.0, 50.0, 100.0, f32::NAN], 2, 1), "▁██ ");
        assert_eq!(
            (RICH.heat(0.0), RICH.heat(0.01), RICH.heat(1.0)),
            (' ', '░', '█')
        );
    }
}
