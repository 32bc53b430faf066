#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    releq_fuzz::readers::image_list(bytes);
});
