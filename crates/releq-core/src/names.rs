//! Text forms: names of things, and what to say about a name that nobody knows.

/// A name that is none of the known ones.
///
/// ```
/// use releq_core::UnknownName;
///
/// let error = UnknownName::new("agent", "random-serch", ["ppo", "random-search"]);
/// assert_eq!(
///     error.to_string(),
///     "unknown agent `random-serch`: did you mean `random-search`? expected one of ppo, random-search"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{got}`: {}expected one of {}", self.hint(), self.known.join(", "))]
pub struct UnknownName {
    what: &'static str,
    got: String,
    nearest: Option<String>,
    known: Vec<String>,
}

/// Jaro similarity above which a name counts as a misspelling of another, as in clap.
const MISSPELLING: f64 = 0.7;

impl UnknownName {
    /// `got` was to name a `what`, such as `cost model`, and is none of `known`.
    pub fn new<N: Into<String>>(
        what: &'static str,
        got: impl Into<String>,
        known: impl IntoIterator<Item = N>,
    ) -> Self {
        let (got, known) = (got.into(), known.into_iter().map(Into::into).collect::<Vec<String>>());
        let typed = got.to_lowercase();
        let nearest = known
            .iter()
            .map(|name| (strsim::jaro(&typed, name), name))
            .filter(|(similarity, _)| *similarity > MISSPELLING)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, name)| name.clone());
        Self { what, got, nearest, known }
    }

    /// The known name that resembles the unknown one most, if one does.
    #[must_use]
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }

    fn hint(&self) -> String {
        self.nearest.as_ref().map_or_else(String::new, |name| format!("did you mean `{name}`? "))
    }
}

/// Gives an enum without data its text forms: `ALL`, `name`, `Display`, `FromStr` with [`UnknownName`] as its
/// error, and the two conversions that `#[serde(try_from = "String", into = "String")]` asks for.
///
/// ```
/// use releq_core::text_enum;
///
/// #[derive(Clone, Copy, Debug, PartialEq)]
/// enum Side {
///     Left,
///     Right,
/// }
/// text_enum!(Side, "side", Left => "left", Right => "right");
///
/// assert_eq!("right".parse(), Ok(Side::Right));
/// assert!("rihgt".parse::<Side>().unwrap_err().to_string().contains("did you mean `right`?"));
/// ```
#[macro_export]
macro_rules! text_enum {
    ($type:ty, $what:literal, $($variant:ident => $name:literal),+ $(,)?) => {
        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in configurations, in reports and on command lines.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $crate::UnknownName;
            fn from_str(text: &str) -> ::std::result::Result<Self, $crate::UnknownName> {
                match text.trim() {
                    $($name => Ok(Self::$variant),)+
                    other => Err($crate::UnknownName::new($what, other, [$($name),+])),
                }
            }
        }

        impl ::std::convert::TryFrom<String> for $type {
            type Error = $crate::UnknownName;
            fn try_from(text: String) -> ::std::result::Result<Self, $crate::UnknownName> {
                text.parse()
            }
        }

        impl ::std::convert::From<$type> for String {
            fn from(value: $type) -> Self {
                value.name().to_owned()
            }
        }
    };
}
