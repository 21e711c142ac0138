//! A part of the screen, filled line by line.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use crate::top::text::{Look, cut};

/// Lines that are not filled yet. What does not fit is left out.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    pub(super) look: Look,
}

/// How a column is filled.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Right,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(buffer: &'a mut Buffer, area: Rect, look: Look) -> Canvas<'a> {
        let area = area.intersection(buffer.area);
        Canvas { buffer, area, look }
    }

    pub(super) fn height(&self) -> usize {
        usize::from(self.area.height)
    }

    pub(super) fn width(&self) -> usize {
        usize::from(self.area.width)
    }

    fn part(&mut self, area: Rect) -> Canvas<'_> {
        Canvas {
            buffer: self.buffer,
            area,
            look: self.look,
        }
    }

    /// The next line; one without a place when there is none.
    pub(super) fn line(&mut self) -> Canvas<'_> {
        self.take_top(1)
    }

    /// The next lines, as many as there are.
    pub(super) fn take_top(&mut self, height: usize) -> Canvas<'_> {
        let height = self
            .area
            .height
            .min(u16::try_from(height).unwrap_or(u16::MAX));
        let area = Rect {
            height,
            ..self.area
        };
        self.area.y += height;
        self.area.height -= height;
        self.part(area)
    }

    /// Sets the last lines apart, to be drawn [`within`](Self::within) later.
    pub(super) fn keep_bottom(&mut self, height: usize) -> Rect {
        let height = self
            .area
            .height
            .min(u16::try_from(height).unwrap_or(u16::MAX));
        self.area.height -= height;
        let y = self.area.y + self.area.height;
        Rect {
            y,
            height,
            ..self.area
        }
    }

    /// A part that was set apart.
    pub(super) fn within(&mut self, area: Rect) -> Canvas<'_> {
        self.part(area)
    }

    /// Writes to the end of the line before the next, over what is there.
    pub(super) fn corner(&mut self, text: &str) {
        let y = self.area.y.saturating_sub(1);
        let style = self.look.title();
        self.part(Rect {
            y,
            height: 1,
            ..self.area
        })
        .put_right(text, style);
    }

    pub(super) fn rule(&mut self) {
        let style = self.look.dim();
        let width = self.width();
        let sign = self.look.sign("─", "-");
        self.line().put(0, &sign.repeat(width), style);
    }

    /// Writes into the first line, from a column on.
    pub(super) fn put(&mut self, column: usize, text: &str, style: Style) {
        self.put_all(column, text, style);
    }

    /// As [`put`](Self::put); the column behind it.
    pub(super) fn put_all(&mut self, column: usize, text: &str, style: Style) -> usize {
        let width = self.width().saturating_sub(column);
        self.write(column, width, Side::Left, text, style)
    }

    /// Writes to the end of the first line, over what is there.
    pub(super) fn put_right(&mut self, text: &str, style: Style) {
        let size = self.look.text(text).width().min(self.width());
        let column = self.width() - size;
        self.write(column, size, Side::Left, text, style);
    }

    /// Writes into a column of a width; the column behind it.
    pub(super) fn write(
        &mut self,
        column: usize,
        width: usize,
        side: Side,
        text: &str,
        style: Style,
    ) -> usize {
        let width = width.min(self.width().saturating_sub(column));
        if width == 0 || self.area.height == 0 {
            return column;
        }
        let look = self.look;
        let text = look.text(text);
        let text = cut(&text, width, look);
        let size = text.width();
        let start = match side {
            Side::Left => column,
            Side::Right => column + (width - size),
        };
        // Within the area, and that within the screen.
        let x = self.area.x + u16::try_from(start).unwrap_or(0);
        self.buffer.set_stringn(x, self.area.y, &text, width, style);
        column + size
    }

    /// Gives the whole first line a style.
    pub(super) fn mark(&mut self, style: Style) {
        let area = Rect {
            height: self.area.height.min(1),
            ..self.area
        };
        self.buffer.set_style(area, style);
    }
}
