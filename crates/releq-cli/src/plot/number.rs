//! Numbers as people read them.

/// `0.9912` as `99.12 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Whole numbers with commas: `1,072,600`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with a prefix where it is large, three digits that count: `1.07 M`, `433 k`, `0.0125`.
pub(crate) fn short(number: f64) -> String {
    let size = number.abs();
    for (prefix, factor) in [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)] {
        if size >= factor * 0.9995 {
            return format!("{} {prefix}", three_digits(number / factor));
        }
    }
    three_digits(number)
}

/// An amount of a unit: `60.9 kB`, `1.37 M cycles`.
pub(crate) fn amount(number: f64, unit: &str) -> String {
    let short = short(number);
    match unit {
        "bytes" if short.ends_with(|c: char| c.is_ascii_alphabetic()) => format!("{short}B"),
        "" | "1" => short,
        _ => format!("{short} {unit}"),
    }
}

/// How many times: `3.42x`, with two digits after the point unless they would be almost none of it.
pub(crate) fn times(ratio: f64) -> String {
    if !ratio.is_finite() {
        return "free".to_owned();
    }
    if ratio.abs() < 0.1 {
        return format!("{}x", three_digits(ratio));
    }
    format!("{ratio:.2}x")
}

/// Seconds for a person: `3.4 s`, `12 min`, `5 h 03 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round();
    if seconds < 99.5 {
        format!("{seconds:.1} s")
    } else if minutes < 120.0 {
        format!("{minutes:.0} min")
    } else {
        format!("{:.0} h {:02.0} min", (minutes / 60.0).floor(), minutes % 60.0)
    }
}

/// Three digits that count, without zeros at the end of a fraction.
fn three_digits(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 || !number.is_finite() {
        return if number == 0.0 { "0".to_owned() } else { number.to_string() };
    }
    if size < 1e-4 {
        return format!("{number:.1e}");
    }
    let magnitude = size.log10().floor();
    let decimals = (2.0 - magnitude).clamp(0.0, 6.0) as usize;
    trimmed(format!("{number:.decimals$}"))
}

/// Without zeros at the end of a fraction.
pub(crate) fn trimmed(text: String) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// "1 layer", "2 layers".
pub(crate) fn count(number: usize, one: &str) -> String {
    let number = number as u64;
    if number == 1 { format!("1 {one}") } else { format!("{} {one}s", thousands(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let check = |got: String, expected: &str| assert_eq!(got, expected);
        check(thousands(0), "0");
        check(thousands(999), "999");
        check(thousands(1_072_600), "1,072,600");
        check(short(433_000.0), "433 k");
        check(short(999_999.0), "1 M");
        check(short(0.0125), "0.0125");
        check(short(-2.5e9), "-2.5 G");
        check(short(0.0), "0");
        check(short(3e-9), "3.0e-9");
        check(amount(60_930.0, "bytes"), "60.9 kB");
        check(amount(12.0, "bytes"), "12 bytes");
        check(amount(1.372e6, "cycles"), "1.37 M cycles");
        check(amount(2.25, "bits"), "2.25 bits");
        check(times(1.0 / 0.0), "free");
        check(times(3.417), "3.42x");
        check(times(1.0), "1.00x");
        check(times(2.6), "2.60x");
        check(times(0.251_02), "0.25x");
        check(times(0.001_234), "0.00123x");
        check(times(0.0), "0x");
        check(duration(3.44), "3.4 s");
        check(duration(718.0), "12 min");
        check(duration(18_190.0), "5 h 03 min");
        check(count(1, "layer"), "1 layer");
        check(count(2401, "episode"), "2,401 episodes");
    }
}
