//! Calls that run Python code: that of a program's own values, rules and warnings.
//!
//! [`crate::ending`] waits for those at the end, but not for ever: a value's `__str__` may sleep.
//! When the interpreter is gone such a thread is ended by `pthread_exit` (3.13 and before), which
//! unwinds its stack, and no Rust frame may be unwound so. Hence Python code runs under [`guarded`]
//! alone: what unwinds meets a destructor first that puts the thread to sleep, as pyo3 has it where
//! the interpreter is taken.

use std::ffi::{CStr, c_char, c_int};
use std::{hint, mem, ptr};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

use crate::ending;

/// A function of Python's API as one through which a stack may be unwound: `pyo3::ffi` declares
/// that this never happens, and what the compiler concludes from that has to be kept from here.
macro_rules! unwinding {
    ($function:ident($($argument:ty),*) -> $given:ty) => {{
        type Declared = unsafe extern "C" fn($($argument),*) -> $given;
        type Unwinding = unsafe extern "C-unwind" fn($($argument),*) -> $given;
        let function = hint::black_box(ffi::$function as Declared);
        // SAFETY: how it is called is the same.
        unsafe { mem::transmute::<Declared, Unwinding>(function) }
    }};
}

/// Any object, as Python's API has it.
type Object = *mut ffi::PyObject;

/// Is dropped by what unwinds the stack of a thread that Python ends.
struct Asleep;

impl Drop for Asleep {
    fn drop(&mut self) {
        ending::sleep_for_ever();
    }
}

/// Runs one function of Python's API, and nothing else: between Python and this frame there is no
/// other one of Rust.
#[inline]
fn guarded<R>(py: Python<'_>, call: impl FnOnce() -> R) -> R {
    ending::python(py, || {
        let asleep = Asleep;
        let given = call();
        mem::forget(asleep);
        given
    })
}

/// What a function gave: a new reference, or null with an exception.
fn owned(py: Python<'_>, given: *mut ffi::PyObject) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: all functions that are asked here give a new reference, or null with an exception.
    unsafe { Bound::from_owned_ptr_or_err(py, given) }
}

/// What a function gave that answers with 0 or 1, or -1 with an exception.
fn truth(py: Python<'_>, given: i32) -> PyResult<bool> {
    if given < 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(given > 0)
}

/// What becomes the tuple that something is called with.
pub(crate) trait Arguments<'py>:
    IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>
{
}

impl<'py, T> Arguments<'py> for T where
    T: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>
{
}

/// Calls something.
pub(crate) fn call<'py>(
    called: &Bound<'py, PyAny>,
    arguments: impl Arguments<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = called.py();
    let arguments = arguments.into_pyobject(py).map_err(Into::into)?;
    let (of, with) = (called.as_ptr(), arguments.as_ptr());
    let call = unwinding!(PyObject_Call(Object, Object, Object) -> Object);
    // SAFETY: both are alive, the second is a tuple, and no arguments by name are null.
    let given = guarded(py, || unsafe { call(of, with, ptr::null_mut()) });
    owned(py, given)
}

/// Calls something that takes no arguments, for which no tuple is made.
pub(crate) fn call_without<'py>(called: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let (py, of) = (called.py(), called.as_ptr());
    let call = unwinding!(PyObject_CallNoArgs(Object) -> Object);
    // SAFETY: it is alive.
    let given = guarded(py, || unsafe { call(of) });
    owned(py, given)
}

/// What `str()` makes of it.
pub(crate) fn str<'py>(found: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let (py, of) = (found.py(), found.as_ptr());
    let str = unwinding!(PyObject_Str(Object) -> Object);
    // SAFETY: it is alive.
    let given = guarded(py, || unsafe { str(of) });
    Ok(owned(py, given)?.cast_into()?)
}

/// What `repr()` makes of it.
pub(crate) fn repr<'py>(found: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let (py, of) = (found.py(), found.as_ptr());
    let repr = unwinding!(PyObject_Repr(Object) -> Object);
    // SAFETY: it is alive.
    let given = guarded(py, || unsafe { repr(of) });
    Ok(owned(py, given)?.cast_into()?)
}

/// Its number, by `__float__` or `__index__`.
pub(crate) fn float(found: &Bound<'_, PyAny>) -> PyResult<f64> {
    let (py, of) = (found.py(), found.as_ptr());
    let float = unwinding!(PyFloat_AsDouble(Object) -> f64);
    // SAFETY: it is alive.
    let given = guarded(py, || unsafe { float(of) });
    // A number of its own, or an exception.
    match (given == -1.0).then(|| PyErr::take(py)).flatten() {
        Some(error) => Err(error),
        None => Ok(given),
    }
}

/// An attribute of it.
pub(crate) fn attribute<'py>(
    found: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let (of, called) = (found.as_ptr(), name.as_ptr());
    let get = unwinding!(PyObject_GetAttr(Object, Object) -> Object);
    // SAFETY: both are alive.
    let given = guarded(found.py(), || unsafe { get(of, called) });
    owned(found.py(), given)
}

/// Whether it is one of a class, or of a tuple of classes.
pub(crate) fn is_instance(found: &Bound<'_, PyAny>, class: &Bound<'_, PyAny>) -> PyResult<bool> {
    let (of, one) = (found.as_ptr(), class.as_ptr());
    let is_instance = unwinding!(PyObject_IsInstance(Object, Object) -> c_int);
    // SAFETY: both are alive.
    let given = guarded(found.py(), || unsafe { is_instance(of, one) });
    truth(found.py(), given)
}

/// Whether it counts as true.
pub(crate) fn is_true(found: &Bound<'_, PyAny>) -> PyResult<bool> {
    let of = found.as_ptr();
    let is_true = unwinding!(PyObject_IsTrue(Object) -> c_int);
    // SAFETY: it is alive.
    let given = guarded(found.py(), || unsafe { is_true(of) });
    truth(found.py(), given)
}

/// Warns, as of the function at that level: 1 is the one that called.
pub(crate) fn warn(class: &Bound<'_, PyType>, message: &CStr, level: isize) -> PyResult<()> {
    let (of, text) = (class.as_ptr(), message.as_ptr());
    let warn = unwinding!(PyErr_WarnEx(Object, *const c_char, ffi::Py_ssize_t) -> c_int);
    // SAFETY: it is a class that is alive, and the text ends with a zero.
    let given = guarded(class.py(), || unsafe { warn(of, text, level) });
    truth(class.py(), given).map(drop)
}
