//! The option strings of a spec's mount, sorted into what the mount API wants.

use linux::mount::{self, Attributes};

/// A mount's options, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// Attributes of the mount alone.
    pub(crate) attributes: Attributes,
    /// Attributes of the mount and all below it (`rro` …).
    pub(crate) recursive: Attributes,
    /// Propagation, and whether it is for the whole tree.
    pub(crate) propagation: Option<(u64, bool)>,
    /// `bind` or `rbind`; true for `rbind`.
    pub(crate) bind: Option<bool>,
    /// `idmap` or `ridmap`: files belong to those the container's user namespace maps their owners to; true for all below too.
    pub(crate) id_map: Option<bool>,
    /// `tmpcopyup`: a tmpfs begins with what the folder below it holds.
    pub(crate) copy_up: bool,
    /// Everything else goes to the file system.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Option name → attribute, and whether it sets (true) or clears it.
const ATTRIBUTES: &[(&str, u64, bool)] = &[
    ("ro", mount::READ_ONLY, true),
    ("rw", mount::READ_ONLY, false),
    ("nosuid", mount::NO_SUID, true),
    ("suid", mount::NO_SUID, false),
    ("nodev", mount::NO_DEV, true),
    ("dev", mount::NO_DEV, false),
    ("noexec", mount::NO_EXEC, true),
    ("exec", mount::NO_EXEC, false),
    ("nodiratime", mount::NO_DIR_ATIME, true),
    ("diratime", mount::NO_DIR_ATIME, false),
    ("nosymfollow", mount::NO_SYMFOLLOW, true),
    ("symfollow", mount::NO_SYMFOLLOW, false),
];

/// Option name → value of the access-time field.
const ACCESS_TIMES: &[(&str, u64)] = &[
    ("relatime", 0),
    ("norelatime", mount::STRICT_ATIME),
    ("noatime", mount::NO_ATIME),
    ("atime", 0),
    ("strictatime", mount::STRICT_ATIME),
    ("nostrictatime", 0),
];

const PROPAGATIONS: &[(&str, u64)] = &[
    ("private", mount::PRIVATE),
    ("slave", mount::SLAVE),
    ("shared", mount::SHARED),
    ("unbindable", mount::UNBINDABLE),
];

/// Options of mount(8) that say nothing here.
const IGNORED: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "_netdev",
    "nofail",
    "remount",
    "silent",
    "loud",
    "iversion",
    "noiversion",
];

/// The propagation of a name such as `rslave`, and whether it is for the whole tree.
pub(crate) fn propagation(name: &str) -> Option<(u64, bool)> {
    let find = |name: &str| PROPAGATIONS.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    find(name).map(|value| (value, false)).or_else(|| find(name.strip_prefix('r')?).map(|value| (value, true)))
}

impl MountOptions {
    /// Sorts options as the spec lists them; later ones win.
    pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> MountOptions {
        let mut parsed = MountOptions::default();
        for option in options.into_iter().flat_map(|option| option.split(',')).filter(|o| !o.is_empty()) {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        match option {
            "bind" => self.bind = Some(self.bind == Some(true)),
            "rbind" => self.bind = Some(true),
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            "tmpcopyup" => self.copy_up = true,
            _ if IGNORED.contains(&option) => {}
            _ if add_attribute(&mut self.attributes, option) => {}
            _ if option.strip_prefix('r').is_some_and(|rest| add_attribute(&mut self.recursive, rest)) => {}
            _ => match (propagation(option), option.split_once('=')) {
                (Some(found), _) => self.propagation = Some(found),
                (None, Some((key, value))) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                (None, None) => self.data.push((option.to_owned(), None)),
            },
        }
    }
}

fn add_attribute(attributes: &mut Attributes, option: &str) -> bool {
    if let Some((_, bit, set)) = ATTRIBUTES.iter().find(|(name, ..)| *name == option) {
        let (to, from) = if *set {
            (&mut attributes.set, &mut attributes.clear)
        } else {
            (&mut attributes.clear, &mut attributes.set)
        };
        *to |= bit;
        *from &= !bit;
        return true;
    }
    let Some((_, value)) = ACCESS_TIMES.iter().find(|(name, _)| *name == option) else { return false };
    // The kernel wants the whole field cleared before a new value is set.
    attributes.clear |= mount::ATIME_MASK;
    attributes.set = attributes.set & !mount::ATIME_MASK | value;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_are_sorted_and_the_later_wins() {
        let parsed = MountOptions::parse(["rbind", "ro", "rw", "rro", "rslave", "nosuid", "mode=755,size=64k", "foo"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!((parsed.attributes.set, parsed.attributes.clear), (mount::NO_SUID, mount::READ_ONLY));
        assert_eq!(parsed.recursive.set, mount::READ_ONLY);
        assert_eq!(parsed.propagation, Some((mount::SLAVE, true)));
        let data: Vec<_> = parsed.data.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        assert_eq!(data, [("mode", Some("755")), ("size", Some("64k")), ("foo", None)]);
    }

    #[test]
    fn relatime_is_an_access_time_not_a_recursive_elatime() {
        assert_eq!(MountOptions::parse(["ridmap"]).id_map, Some(true));
        let parsed = MountOptions::parse(["relatime"]);
        assert_eq!((parsed.attributes.clear, parsed.recursive), (mount::ATIME_MASK, Attributes::default()));
        assert_eq!(MountOptions::parse(["rnoatime"]).recursive.set, mount::NO_ATIME);
    }
    proptest! {
        #[test]
        fn every_option_ends_in_one_place(options in proptest::collection::vec("[a-z_=,0-9]{0,14}", 0..8)) {
            let parsed = MountOptions::parse(options.iter().map(String::as_str));
            // What is set is not cleared as well, save the access-time field, which is always cleared whole.
            let both = parsed.attributes.set & parsed.attributes.clear & !mount::ATIME_MASK;
            prop_assert_eq!(both, 0);
            prop_assert_eq!(parsed.recursive.set & parsed.recursive.clear & !mount::ATIME_MASK, 0);
            prop_assert!(parsed.data.iter().all(|(key, _)| !key.contains(',') && !IGNORED.contains(&key.as_str())));
        }

        #[test]
        fn the_last_of_two_opposites_wins(order in proptest::collection::vec(any::<bool>(), 1..6), index in 0..ATTRIBUTES.len() / 2) {
            let (on, bit, _) = ATTRIBUTES[2 * index];
            let (off, ..) = ATTRIBUTES[2 * index + 1];
            let parsed = MountOptions::parse(order.iter().map(|set| if *set { on } else { off }));
            let expected = if order.last() == Some(&true) { (bit, 0) } else { (0, bit) };
            prop_assert_eq!((parsed.attributes.set, parsed.attributes.clear), expected);
        }
    }
}
