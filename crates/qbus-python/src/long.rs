//! Long texts and bytes for Python, which are copied without the interpreter.
//!
//! Python's own constructors allocate and copy in one step, with the interpreter held: for a
//! megabyte that is a quarter of a millisecond, most of it for the first touch of new pages. Here
//! the object is allocated alone, and filled while other threads have the interpreter: nobody
//! else knows it yet.

use std::hint::black_box;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::ending;

/// What is shorter Python copies itself, within a microsecond.
const SHORT: usize = 4096;
/// As many characters that are not ASCII are written in a row.
const SLICE: usize = 1024;

/// A text on its way to Python: to be made without the interpreter.
pub(crate) struct Text {
    text: String,
    /// How many characters it has.
    len: usize,
    /// The one with the highest number: Python's strings are as wide as it needs.
    widest: char,
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        tidy(text.len());
        let (len, widest) = if text.is_ascii() {
            (text.len(), 'a')
        } else {
            let wider = |(len, widest): (usize, char), c: char| (len + 1, widest.max(c));
            text.chars().fold((0, 'a'), wider)
        };
        Text { text, len, widest }
    }
}

impl Text {
    /// The text as a `str`.
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyString>> {
        if self.text.len() <= SHORT {
            return Ok(PyString::new(py, &self.text));
        }
        let string = blank(py, self.len, self.widest)?;
        if !self.widest.is_ascii() {
            write(&string, &self.text)?;
            ending::detach(py, || drop(self));
            return Ok(string);
        }
        let Some(start) = characters(&string)? else {
            return Ok(PyString::new(py, &self.text));
        };
        fill(py, start, vec![self.text]);
        Ok(string)
    }
}

/// Has the allocator put together now what was freed in small pieces, as all the series of a page
/// are: it does so whenever it is asked for as much as this, and would next with the interpreter
/// held, for some twenty microseconds of two thousand series.
fn tidy(len: usize) {
    drop(black_box(Vec::<u8>::with_capacity(len)));
}

/// Several parts as `bytes`.
pub(crate) fn bytes<T>(py: Python<'_>, parts: Vec<T>) -> PyResult<Bound<'_, PyBytes>>
where
    T: AsRef<[u8]> + Send,
{
    let len: usize = parts.iter().map(|part| part.as_ref().len()).sum();
    if len <= SHORT {
        let parts: Vec<&[u8]> = parts.iter().map(AsRef::as_ref).collect();
        return Ok(PyBytes::new(py, &parts.concat()));
    }
    ending::detach(py, || tidy(len));
    let len = len as ffi::Py_ssize_t;
    // SAFETY: without data it allocates, and initialises nothing; texts of that length are there.
    let made = unsafe { ffi::PyBytes_FromStringAndSize(ptr::null(), len) };
    // SAFETY: it is a new reference, or null with an exception.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
    // SAFETY: it is a `bytes`, which as long as nobody else has it may be written to.
    let start = unsafe { ffi::PyBytes_AsString(made.as_ptr()) };
    fill(py, Start(start.cast()), parts);
    Ok(made.cast_into()?)
}

/// A new string of that many characters, whatever they are, that has room for the widest.
fn blank(py: Python<'_>, len: usize, widest: char) -> PyResult<Bound<'_, PyString>> {
    // Two of them: of one there may be one object for all.
    let seed = PyString::new(py, &String::from_iter([widest, widest]));
    let mut grown = seed.into_ptr();
    // SAFETY: `grown` is the only reference to a string; it is exchanged for that of the longer
    // one.
    let result = unsafe { ffi::PyUnicode_Resize(&mut grown, len as ffi::Py_ssize_t) };
    // SAFETY: it is owned, whether it grew or not.
    let string = unsafe { Bound::from_owned_ptr(py, grown) };
    if result != 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(string.cast_into()?)
}

/// Where the characters of a string of ASCII lie: in the object itself, as all versions of CPython
/// have it. What lies elsewhere is a copy of them.
fn characters(string: &Bound<'_, PyString>) -> PyResult<Option<Start>> {
    /// More than the head of any string takes.
    const HEAD: usize = 256;
    let text = string.as_ptr();
    // SAFETY: it is a string, and nobody asks for the length.
    let start = unsafe { ffi::PyUnicode_AsUTF8AndSize(text, ptr::null_mut()) };
    if start.is_null() {
        return Err(PyErr::fetch(string.py()));
    }
    let lies_within = start.addr().wrapping_sub(text.addr()) < HEAD;
    Ok(lies_within.then_some(Start(start.cast_mut().cast())))
}

/// Writes a text character by character into a new string of its length, of which other threads
/// have the interpreter between slices.
fn write(string: &Bound<'_, PyString>, text: &str) -> PyResult<()> {
    let py = string.py();
    for (at, c) in text.chars().enumerate() {
        let index = at as ffi::Py_ssize_t;
        // SAFETY: it is a string, of which this is the only reference; it checks the index.
        let result = unsafe { ffi::PyUnicode_WriteChar(string.as_ptr(), index, c.into()) };
        if result != 0 {
            return Err(PyErr::fetch(py));
        }
        if at % SLICE == SLICE - 1 {
            ending::pause(py)?;
        }
    }
    Ok(())
}

/// Where a new object keeps its bytes.
struct Start(*mut u8);

// SAFETY: the object stays where it is, and nobody else knows it.
unsafe impl Send for Start {}

/// Copies to a new object that has room for all parts, and frees them, without the interpreter.
fn fill<T: AsRef<[u8]> + Send>(py: Python<'_>, start: Start, parts: Vec<T>) {
    ending::detach(py, move || {
        let Start(mut start) = { start };
        for part in &parts {
            let part = part.as_ref();
            // SAFETY: the caller made an object of as many bytes as all parts have, which nobody
            // else knows.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), start, part.len()) };
            start = start.wrapping_add(part.len());
        }
        drop(parts);
    });
}
