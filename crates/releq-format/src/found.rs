//! Where the weights of a network were found in a file.

use std::fmt;

use crate::error::shortened;

/// Where the weights of a network are in a file, and what of the file they are not made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The key that they are under, a dotted path; empty if they are at the top of the file.
    pub key: String,
    /// Parameters that were computed from tensors of other names, and how: `fc.weight = weight_orig * weight_mask`.
    pub computed: Vec<String>,
    /// Tensors of the file that were not used. Counters of batch norm are not listed.
    pub ignored: Vec<String>,
}

impl Found {
    /// Whether a tensor of this layer, wherever it is in the file, is among what was not used.
    #[must_use]
    pub fn has_ignored(&self, layer: &str) -> bool {
        let (inside, start) = (format!(".{layer}."), format!("{layer}."));
        self.ignored.iter().any(|name| name.starts_with(&start) || name.contains(&inside))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => f.write_str("weights at the top of the file")?,
            key => write!(f, "weights under the key `{key}`")?,
        }
        if !self.computed.is_empty() {
            write!(f, "; computed: {}", shortened(&self.computed))?;
        }
        match self.ignored.len() {
            0 => Ok(()),
            1 => write!(f, "; 1 tensor ignored: {}", self.ignored[0]),
            count => write!(f, "; {count} tensors ignored: {}", shortened(&self.ignored)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_found_under_its_whole_name() {
        let ignored = vec!["fc3.weight".to_owned(), "ema.bn1.bias".to_owned()];
        let found = Found { ignored, ..Found::default() };
        assert!(found.has_ignored("fc3") && found.has_ignored("bn1"));
        assert!(
            !found.has_ignored("fc") && !found.has_ignored("c3") && !found.has_ignored("ema.bn")
        );
    }

    #[test]
    fn it_says_the_key_and_the_first_of_what_is_ignored() {
        let names = |count: usize| (0..count).map(|index| format!("{index}.total_ops")).collect();
        let check = |key: &str, ignored: usize, expected: &str| {
            let found = Found { key: key.into(), ignored: names(ignored), ..Found::default() };
            assert_eq!(found.to_string(), expected);
        };
        check("", 0, "weights at the top of the file");
        check("ema", 1, "weights under the key `ema`; 1 tensor ignored: 0.total_ops");
        check(
            "ema",
            8,
            "weights under the key `ema`; 8 tensors ignored: 0.total_ops, 1.total_ops, 2.total_ops, \
             3.total_ops, 4.total_ops, 5.total_ops and 2 more",
        );
        let computed = vec!["fc.weight = weight_orig * weight_mask".to_owned()];
        let found = Found { computed, ..Found::default() };
        let expected =
            "weights at the top of the file; computed: fc.weight = weight_orig * weight_mask";
        assert_eq!(found.to_string(), expected);
    }
}
