#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "C passes pointers, and calls by name")]

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int},
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
};

use releq_core::with_causes;
use releq_runtime::{Model, Options};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Calls what may fail. Panics end here, and become errors as well: they must not unwind into C.
fn guarded<T>(failed: T, call: impl FnOnce() -> Result<T, String>) -> T {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err("a panic, which is an error in releq; please report it".to_owned())
    });
    let (value, error) = match result {
        Ok(value) => (value, String::new()),
        Err(error) => (failed, error),
    };
    // A message has no zero byte but for names of files.
    let error = CString::new(error.replace('\0', "\u{fffd}")).unwrap_or_default();
    // While the thread ends, there is nobody left who could ask.
    let _ = LAST_ERROR.try_with(|last| last.replace(error));
    value
}

/// `releq_load` of `releq.h`: a network that is ready to run, or null.
///
/// # Safety
/// `path` is null, or points to a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn releq_load(path: *const c_char, threads: usize) -> *mut Model {
    guarded(ptr::null_mut(), || {
        if path.is_null() {
            return Err("the path is NULL".to_owned());
        }
        // SAFETY: it is not null, and the caller promises a string.
        let path = unsafe { CStr::from_ptr(path) };
        let path = path.to_str().map_err(|error| format!("the path is no UTF-8: {error}"))?;
        let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
        let options = Options { threads, ..Options::default() };
        let model = Model::load(path, &options).map_err(|error| with_causes(&error))?;
        Ok(Box::into_raw(Box::new(model)))
    })
}

/// `releq_run` of `releq.h`: 0 on success, -1 for an error.
///
/// # Safety
/// `model` is null or from [`releq_load`], not freed, and used by no other thread. `image` and `outputs` are null, or point to as many
/// numbers as `image_len` and `outputs_len` say, which do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn releq_run(
    model: *mut Model,
    image: *const f32,
    image_len: usize,
    outputs: *mut f32,
    outputs_len: usize,
) -> c_int {
    guarded(-1, || {
        for (name, pointer) in [("image", image), ("outputs", outputs.cast_const())] {
            if pointer.is_null() || !pointer.is_aligned() {
                return Err(format!("{name}: the pointer is NULL, or not that of a float"));
            }
        }
        if image_len.max(outputs_len) > isize::MAX as usize / size_of::<f32>() {
            return Err("there cannot be as many values as that".to_owned());
        }
        // SAFETY: the caller promises that it is null or a model that nobody else uses.
        let model = unsafe { model.as_mut() }.ok_or_else(|| "the model is NULL".to_owned())?;
        // SAFETY: the pointers are aligned and not null, and the caller promises the numbers behind them.
        let (image, outputs) = unsafe {
            (
                slice::from_raw_parts(image, image_len),
                slice::from_raw_parts_mut(outputs, outputs_len),
            )
        };
        model.run(image, outputs).map_err(|error| with_causes(&error))?;
        Ok(0)
    })
}

/// `releq_free` of `releq.h`.
///
/// # Safety
/// `model` is null or from [`releq_load`], and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn releq_free(model: *mut Model) {
    guarded((), || {
        if !model.is_null() {
            // SAFETY: the caller promises that it is from `releq_load`, which made a box of it, and not freed yet.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// `releq_last_error` of `releq.h`: what failed last in this thread.
#[unsafe(no_mangle)]
pub extern "C" fn releq_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_error() -> String {
        // SAFETY: it is a string that is valid until the next call.
        unsafe { CStr::from_ptr(releq_last_error()) }.to_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn mistakes_are_errors_and_the_next_success_forgets_them() {
        // SAFETY: null and valid strings are allowed.
        unsafe {
            assert!(releq_load(ptr::null(), 1).is_null());
            assert_eq!(last_error(), "the path is NULL");
            assert!(releq_load(c"no such file".as_ptr(), 0).is_null());
            assert!(last_error().contains("no such file"), "{}", last_error());
            assert!(releq_load(c"\xff".as_ptr(), 0).is_null());
            assert!(last_error().contains("UTF-8"), "{}", last_error());
            let (image, mut outputs) = ([0.0], [0.0]);
            let run = |image: *const f32, outputs, len| {
                releq_run(ptr::null_mut(), image, len, outputs, 1)
            };
            assert_eq!(run(image.as_ptr(), outputs.as_mut_ptr(), 1), -1);
            assert_eq!(last_error(), "the model is NULL");
            assert_eq!(run(ptr::null(), outputs.as_mut_ptr(), 1), -1);
            assert!(last_error().starts_with("image: the pointer is NULL"));
            assert_eq!(run(image.as_ptr(), ptr::null_mut(), 1), -1);
            assert!(last_error().starts_with("outputs: the pointer is NULL"));
            let odd = image.as_ptr().cast::<u8>().wrapping_add(1).cast();
            assert_eq!(run(odd, outputs.as_mut_ptr(), 1), -1);
            assert_eq!(run(image.as_ptr(), outputs.as_mut_ptr(), usize::MAX), -1);
            assert!(last_error().contains("as many values"));
            releq_free(ptr::null_mut());
            assert_eq!(last_error(), "");
        }
    }

    #[test]
    fn panics_do_not_leave() {
        assert_eq!(guarded(-1, || panic!("this is part of the test")), -1);
        assert!(last_error().starts_with("a panic"), "{}", last_error());
    }
}
