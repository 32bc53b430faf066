//! Where in a file the parameters of a network are.
//!
//! Training scripts save weights under any key, in any wrapper, and anything beside them. A place is what comes
//! before the parameters' own names; the place where all of them are, in their shapes, is the one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Found, Mismatch, NameMap,
    extra::{is_extra, is_optimizer},
    recipe::{Part, Recipe},
    stored::{Stored, View},
};

/// Parts of names that wrappers of models and layers add: `DataParallel`, `torch.compile`, FSDP, activation
/// checkpointing, Opacus, AIMET, NNCF, Distiller, DeepSpeed.
const WRAPPERS: [&str; 10] = [
    "module",
    "_module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_module_to_wrap",
    "nncf_module",
    "wrapped_module",
    "_forward_module",
];

/// Counters of batch norm that a forward pass does not need.
const COUNTER: &str = "num_batches_tracked";

/// Parts that a parameter's name has at most beside its own, where it is stored as several tensors.
const PARTS: usize = 3;

/// Most keys that an error lists.
const KEYS: usize = 32;

type Tensors = BTreeMap<String, Stored>;
type Shapes = BTreeMap<String, Vec<usize>>;

/// A place that has all parameters of a network.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) key: String,
    /// How each parameter follows from tensors.
    pub(crate) recipes: BTreeMap<String, Recipe<'a>>,
    /// Tensors that are used, and others that are the same parts of the same parameters.
    pub(crate) twins: Vec<(&'a str, &'a str)>,
}

/// Why there is no such place.
#[derive(Debug)]
pub(crate) enum Nowhere {
    /// Nothing is under the key that was given.
    Key { key: String, keys: Vec<String> },
    /// What is different at the closest place.
    Mismatch(Mismatch),
}

impl Place<'_> {
    /// What a user should know of it.
    pub(crate) fn found(&self, tensors: &Tensors) -> Found {
        let used: BTreeSet<&str> = self.recipes.values().flat_map(Recipe::tensors).collect();
        // A tensor that is used has other names, too, where a dictionary is under two keys.
        let identity = |name: &str| match &tensors[name] {
            Stored::Plain(view) => Some(Arc::as_ptr(view)),
            Stored::Special(_) => None,
        };
        let same: BTreeSet<*const View> = used.iter().filter_map(|name| identity(name)).collect();
        let is_ignored = |name: &&String| {
            let is_same = || identity(name).is_some_and(|view| same.contains(&view));
            !used.contains(name.as_str()) && !is_same() && !is_counter(name)
        };
        let equations =
            self.recipes.iter().filter_map(|(name, recipe)| match &tensors[recipe.main()] {
                Stored::Plain(view) if view.quantization.is_some() => {
                    Some(format!("{name} = scale * ({} - zero_point)", view.dtype.name()))
                }
                _ => recipe.equation(name),
            });
        Found {
            key: self.key.clone(),
            computed: equations.collect(),
            ignored: tensors.keys().filter(is_ignored).cloned().collect(),
        }
    }
}

/// The places that have all parameters, at least one; those that are as good as each other.
pub(crate) fn find<'a>(
    tensors: &'a Tensors,
    expected: &Shapes,
    names: &NameMap,
) -> Result<Vec<Place<'a>>, Nowhere> {
    let search = Search::new(tensors, expected, names);
    let candidates = search.candidates();
    let tried: Vec<Tried<'a>> =
        candidates.iter().map(|candidate| search.tried(candidate)).collect();
    let mut fitting: Vec<&Tried<'a>> =
        tried.iter().filter(|tried| tried.mismatch == Mismatch::default()).collect();
    let prefer = |fitting: &mut Vec<&Tried<'a>>, better: &dyn Fn(&Tried<'a>) -> bool| {
        if fitting.iter().any(|tried| better(tried)) {
            fitting.retain(|tried| better(tried));
        }
    };
    if let Some(key) = names.given_key() {
        prefer(&mut fitting, &|tried| tried.key == key);
        let key = search.without_wrappers(key);
        prefer(&mut fitting, &|tried| search.without_wrappers(&tried.key) == key);
    }
    // The integers of a quantized copy have its shapes, too.
    prefer(&mut fitting, &|tried| {
        tried.recipes.values().all(|recipe| search.is_weight(recipe.main()))
    });
    // What optimizers keep for each parameter has its name and shape, too.
    prefer(&mut fitting, &|tried| !tried.key.split('.').any(is_optimizer));
    if !fitting.is_empty() {
        let place = |tried: &Tried<'a>| Place {
            key: tried.key.clone(),
            recipes: tried.recipes.clone(),
            twins: search.twins(tried),
        };
        return Ok(fitting.into_iter().map(place).collect());
    }
    // The closest; of several, the first.
    let closest = tried.into_iter().rev().max_by_key(|tried| (tried.fitting, tried.recipes.len()));
    match closest {
        Some(closest) => Err(Nowhere::Mismatch(search.mismatch(closest))),
        None => Err(search.nothing()),
    }
}

fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some(COUNTER)
}

/// The tensors of each parameter, by what they are to it.
type Parameters<'a> = BTreeMap<String, BTreeMap<Part, &'a str>>;

/// A place with at least one parameter.
struct Candidate<'a> {
    key: String,
    /// Names at this place begin like this once wrappers are dropped.
    prefix: String,
    parameters: Parameters<'a>,
}

/// A candidate, compared with the network.
struct Tried<'a> {
    key: String,
    prefix: String,
    recipes: BTreeMap<String, Recipe<'a>>,
    fitting: usize,
    mismatch: Mismatch,
}

struct Search<'a, 'b> {
    tensors: &'a Tensors,
    expected: &'b Shapes,
    names: &'b NameMap,
    /// Wrappers whose names are no parts of the network's.
    wrappers: Vec<&'static str>,
    /// Most parts of the name of a tensor without its place.
    longest: usize,
    /// Names of the tensors without wrappers, in order, and as they are in the file.
    sorted: Vec<(String, &'a str)>,
}

impl<'a, 'b> Search<'a, 'b> {
    fn new(tensors: &'a Tensors, expected: &'b Shapes, names: &'b NameMap) -> Self {
        let parts: BTreeSet<&str> = expected.keys().flat_map(|name| name.split('.')).collect();
        let wrappers = WRAPPERS.into_iter().filter(|wrapper| !parts.contains(wrapper)).collect();
        let longest = expected.keys().map(|name| name.split('.').count()).max().unwrap_or_default();
        let longest = longest.max(names.longest()) + PARTS;
        let sorted = Vec::new();
        let mut search = Self { tensors, expected, names, wrappers, longest, sorted };
        let both = |name: &'a String| (search.without_wrappers(name), name.as_str());
        let mut sorted: Vec<(String, &str)> = tensors.keys().map(both).collect();
        sorted.sort_unstable();
        search.sorted = sorted;
        search
    }

    /// The tensors at a place: what follows the place in their names without wrappers, and their names.
    fn at(&self, prefix: &str) -> impl Iterator<Item = (&str, &'a str)> {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        let start = self.sorted.partition_point(|(name, _)| *name < prefix);
        self.sorted[start..]
            .iter()
            .map_while(move |(without, name)| Some((without.strip_prefix(&*prefix)?, *name)))
    }

    fn is_weight(&self, name: &str) -> bool {
        matches!(&self.tensors[name], Stored::Plain(view) if view.dtype.is_weight())
    }

    fn is_wrapper(&self, part: &str) -> bool {
        self.wrappers.contains(&part)
    }

    fn without_wrappers(&self, name: &str) -> String {
        let parts: Vec<&str> = name.split('.').filter(|part| !self.is_wrapper(part)).collect();
        parts.join(".")
    }

    /// Whether `name` is below the key that was given.
    fn is_below_key(&self, name: &str) -> bool {
        match self.names.given_key() {
            None | Some("") => true,
            Some(key) => name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')),
        }
    }

    /// The parameter that the last parts of a name are, and what the tensor is to it.
    fn parameter(&self, parts: &[&str]) -> Option<(String, Part)> {
        let name = self.names.renamed(parts.join("."));
        if self.expected.contains_key(&name) {
            return Some((name, Part::Whole));
        }
        let (parts, part) = Part::of(parts)?;
        let name = self.names.renamed(parts.join("."));
        self.expected.contains_key(&name).then_some((name, part))
    }

    /// All places below the given key where there is some parameter.
    fn candidates(&self) -> Vec<Candidate<'a>> {
        // By what comes before the parameter's name, first without wrappers, then with them.
        let mut found: BTreeMap<String, BTreeMap<String, Parameters<'a>>> = BTreeMap::new();
        let key_parts = match self.names.given_key() {
            None | Some("") => 0,
            Some(key) => key.split('.').count(),
        };
        for name in self.tensors.keys().filter(|name| self.is_below_key(name)) {
            let all: Vec<&str> = name.split('.').collect();
            let kept: Vec<usize> =
                (0..all.len()).filter(|&place| !self.is_wrapper(all[place])).collect();
            let parts: Vec<&str> = kept.iter().map(|&place| all[place]).collect();
            for start in parts.len().saturating_sub(self.longest)..parts.len() {
                if kept[start] < key_parts {
                    continue;
                }
                if let Some((parameter, part)) = self.parameter(&parts[start..]) {
                    let places = found.entry(parts[..start].join(".")).or_default();
                    let parameters = places.entry(all[..kept[start]].join(".")).or_default();
                    parameters.entry(parameter).or_default().entry(part).or_insert(name.as_str());
                }
            }
        }
        found.into_iter().flat_map(|(prefix, places)| merged(prefix, places)).collect()
    }

    fn tried(&self, candidate: &Candidate<'a>) -> Tried<'a> {
        let (mut recipes, mut fitting) = (BTreeMap::new(), 0);
        let mut mismatch = Mismatch::default();
        for (name, shape) in self.expected {
            let parts = candidate.parameters.get(name);
            let all = parts.map(Recipe::all).unwrap_or_default();
            let misfit = |recipe: &Recipe<'a>| recipe.misfit(shape, self.tensors);
            let fits = all.iter().find(|recipe| misfit(recipe).is_none());
            match fits.or(all.first()) {
                None => mismatch.missing.push(name.clone()),
                Some(recipe) => {
                    if let Some(other) = misfit(recipe) {
                        let found = self.tensors[other].shape().to_vec();
                        mismatch.shapes.push((name.clone(), shape.clone(), found));
                    }
                    fitting += usize::from(fits.is_some());
                    recipes.insert(name.clone(), recipe.clone());
                }
            }
        }
        if mismatch == Mismatch::default() {
            let used: BTreeSet<&str> = recipes.values().flat_map(Recipe::tensors).collect();
            let extra = self
                .at(&candidate.prefix)
                .filter(|(rest, name)| !used.contains(name) && self.is_extra(name, rest));
            mismatch.unexpected = extra.map(|(_, name)| name.to_owned()).collect();
        }
        let (key, prefix) = (candidate.key.clone(), candidate.prefix.clone());
        Tried { key, prefix, recipes, fitting, mismatch }
    }

    /// What is different at the closest place, with everything that is not used there.
    fn mismatch(&self, closest: Tried<'_>) -> Mismatch {
        let mut mismatch = Mismatch { key: closest.key, ..closest.mismatch };
        if mismatch.unexpected.is_empty() {
            let used: BTreeSet<&str> = closest.recipes.values().flat_map(Recipe::tensors).collect();
            let beside = self.at(&closest.prefix).map(|(_, name)| name);
            let beside = beside.filter(|name| !used.contains(name) && !is_counter(name));
            mismatch.unexpected = beside.map(str::to_owned).collect();
        }
        mismatch
    }

    /// Whether a tensor changes what a network with it computes. The file is of a deeper network then, or of one with
    /// other shortcuts, biases or adapters, and its other weights make no sense without.
    fn is_extra(&self, name: &str, rest: &str) -> bool {
        let rest = self.names.renamed(rest.to_owned());
        !self.names.is_ignored(&rest) && is_extra(&rest, &self.tensors[name], self.expected)
    }

    /// Tensors of a place that are one part of one parameter, spelled with and without wrappers or in the file's and in
    /// the network's names: the one that is used, and another.
    fn twins(&self, tried: &Tried<'a>) -> Vec<(&'a str, &'a str)> {
        let used: BTreeSet<&str> = tried.recipes.values().flat_map(Recipe::tensors).collect();
        let is_given = self.names.given_key() == Some(&tried.key);
        let (mut firsts, mut others) = (BTreeMap::new(), Vec::new());
        for (rest, name) in self.at(&tried.prefix) {
            let parts: Vec<&str> = rest.split('.').collect();
            match self.parameter(&parts) {
                Some(parameter) if used.contains(name) => drop(firsts.insert(parameter, name)),
                // A key that is given says which of several places is meant.
                Some(parameter) if !is_given || self.place(name, &tried.prefix) == tried.key => {
                    others.push((parameter, name));
                }
                _ => {}
            }
        }
        let pair = |(parameter, other)| Some((*firsts.get(&parameter)?, other));
        others.into_iter().filter_map(pair).collect()
    }

    /// What comes before the parameter in the name of a tensor that begins with `prefix` but for wrappers.
    fn place(&self, name: &str, prefix: &str) -> String {
        let before = if prefix.is_empty() { 0 } else { prefix.split('.').count() };
        let parts: Vec<&str> = name.split('.').collect();
        let mut own = (0..parts.len()).filter(|&place| !self.is_wrapper(parts[place]));
        parts[..own.nth(before).unwrap_or(0)].join(".")
    }

    /// No tensor has the name of a parameter.
    fn nothing(&self) -> Nowhere {
        let below: Vec<&String> =
            self.tensors.keys().filter(|name| self.is_below_key(name)).collect();
        if let (true, Some(key)) = (below.is_empty(), self.names.given_key()) {
            let first = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
            let keys: BTreeSet<String> = self.tensors.keys().map(first).take(KEYS).collect();
            return Nowhere::Key { key: key.to_owned(), keys: keys.into_iter().collect() };
        }
        Nowhere::Mismatch(Mismatch {
            key: self.names.given_key().unwrap_or_default().to_owned(),
            missing: self.expected.keys().cloned().collect(),
            unexpected: below.into_iter().filter(|name| !is_counter(name)).cloned().collect(),
            shapes: Vec::new(),
        })
    }
}

/// Parameters with and without wrappers are one place, unless one is there in both ways.
fn merged<'a>(prefix: String, places: BTreeMap<String, Parameters<'a>>) -> Vec<Candidate<'a>> {
    let mut seen = BTreeSet::new();
    let mut parts = places.values().flatten().flat_map(|(name, parts)| {
        let parts = parts.keys();
        parts.map(move |part| (name, part))
    });
    if places.len() > 1 && parts.all(|part| seen.insert(part)) {
        let mut parameters = Parameters::new();
        for (name, parts) in places.into_values().flatten() {
            parameters.entry(name).or_default().extend(parts);
        }
        return vec![Candidate { key: prefix.clone(), prefix, parameters }];
    }
    let candidate = |(key, parameters)| Candidate { key, prefix: prefix.clone(), parameters };
    places.into_iter().map(candidate).collect()
}
