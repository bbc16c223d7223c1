//! Names for containers nobody named.

use crate::Result;

const ADJECTIVES: [&str; 64] = [
    "able", "airy", "ample", "apt", "azure", "bold", "brave", "breezy", "brisk", "calm", "candid", "cheery", "civil",
    "clear", "copper", "cosy", "crisp", "daring", "deft", "eager", "early", "earnest", "fair", "fleet", "frank",
    "fresh", "gentle", "glad", "golden", "grand", "hale", "hardy", "honest", "humble", "ideal", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid",
    "plucky", "polite", "prompt", "quiet", "rapid", "rosy", "silver", "sincere", "spry", "steady", "sunny", "tidy",
    "vivid", "warm", "witty",
];

/// People who found something out.
const SURNAMES: [&str; 64] = [
    "abel",
    "agnesi",
    "ampere",
    "anning",
    "banneker",
    "bassi",
    "boole",
    "bose",
    "brahe",
    "braille",
    "carver",
    "cauchy",
    "celsius",
    "chandra",
    "crick",
    "curie",
    "dalton",
    "darwin",
    "dijkstra",
    "dirac",
    "erdos",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "fourier",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goodall",
    "halley",
    "hamilton",
    "herschel",
    "hilbert",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "joule",
    "kepler",
    "khorana",
    "laplace",
    "leavitt",
    "linnaeus",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "nightingale",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "planck",
    "raman",
    "riemann",
    "shannon",
    "tesla",
    "turing",
    "volta",
    "wallace",
    "watt",
];

/// An `adjective_surname`, at random.
pub(crate) fn make_up() -> Result<String> {
    let dice = crate::id::random_bytes(2)?;
    let pick = |words: &[&'static str; 64], n: u8| words[usize::from(n % 64)];
    Ok(format!("{}_{}", pick(&ADJECTIVES, dice[0]), pick(&SURNAMES, dice[1])))
}
