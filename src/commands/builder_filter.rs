//! `--filter` of `ctr builder du` and `prune`: which parts of the build cache are meant.

use crate::error::CliError;
use crate::options::filter::Filters;
use crate::options::units::parse_time;
use builder::{CacheItem, CacheKind};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The keys, as docker has them; `unused-for` is its older name of `until`.
const KEYS: [&str; 9] = ["description", "id", "inuse", "mutable", "private", "shared", "type", "until", "unused-for"];

/// Parsed filters: all keys must match, of one key any value.
pub(super) struct CacheFilter {
    filters: Filters,
    /// Only what was used before.
    pub(super) until: Option<Timestamp>,
}

impl CacheFilter {
    pub(super) fn parse(list: &[String]) -> Result<CacheFilter, CliError> {
        // `inuse` alone is `inuse=true`.
        let list: Vec<String> =
            list.iter().map(|text| if text.contains('=') { text.clone() } else { format!("{text}=true") }).collect();
        let filters = Filters::parse(&list, &KEYS)?;
        for key in ["inuse", "mutable", "private", "shared"] {
            filters.truth(key)?;
        }
        let now = Timestamp::now();
        let mut until = None;
        for text in filters.values("until").iter().chain(filters.values("unused-for")) {
            let time = parse_time(text, now, &TimeZone::UTC)
                .map_err(|e| CliError::flag(format!("invalid filter 'until': {e}")))?;
            until = Some(until.map_or(time, |other: Timestamp| other.min(time)));
        }
        Ok(CacheFilter { filters, until })
    }

    pub(super) fn matches(&self, item: &CacheItem) -> bool {
        let holds = |key: &str, is: bool| self.filters.truth(key).ok().flatten().is_none_or(|wanted| wanted == is);
        let is_type = |text: &str| text == item.kind.name();
        self.filters.any("id", |id| !id.is_empty() && item.id.starts_with(id.get(..item.id.len()).unwrap_or(id)))
            && self.filters.any("type", is_type)
            && self.filters.any("description", |text| item.description == text)
            && holds("inuse", item.in_use)
            && holds("mutable", item.kind == CacheKind::Mount)
            && holds("shared", item.is_shared)
            && holds("private", !item.is_shared)
            && self.until.is_none_or(|until| item.used < until)
    }
}

/// Whether removing it would free its space.
pub(super) fn is_reclaimable(item: &CacheItem) -> bool {
    !item.is_shared && !item.in_use
}
