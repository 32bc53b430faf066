#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    releq_fuzz::readers::class_numbers(bytes);
});
