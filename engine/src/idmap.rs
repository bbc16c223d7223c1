//! `--userns`: which ids outside a container's users have. Worked out when the container is made, and kept in its config: files in
//! its writable layer belong to them.

use crate::config::ContainerConfig;
use crate::{Engine, EngineError, Result, UserNamespaceMode};
use linux::userns::{self, IdRange};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::OwnedFd;

/// How many ids a container has by itself with `auto`: root has plenty, an ordinary user some 65,000 for all his containers.
const AUTO_SIZE: u32 = 65_536;
const AUTO_SIZE_OF_USER: u32 = 1024;
/// Where root's lie: in what systemd sets aside for containers (524288 to 1879048191), above what useradd gives to users.
const AUTO_FIRST: u32 = 0x4000_0000;
const AUTO_END: u32 = 0x7000_0000;

const NOBODY: u32 = 65_534;

/// A container's ids: users and groups, each (inside, outside, count).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMap {
    users: Vec<[u32; 3]>,
    groups: Vec<[u32; 3]>,
}

impl IdMap {
    /// Everybody is who he is: what the namespace takes away is power, not identity.
    fn identity() -> IdMap {
        let all = vec![[0, 0, u32::MAX]];
        IdMap { users: all.clone(), groups: all }
    }

    /// Whether files need no translation.
    pub(crate) fn is_identity(&self) -> bool {
        *self == IdMap::identity()
    }

    /// A container's user and group as they are outside. Who has no place there is somebody whom the container does not know: an
    /// ordinary user has nobody better for that than himself.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let nobody = if userns::is_initial() { NOBODY } else { 0 };
        let find = |map: &[[u32; 3]], id: u32| {
            let holds = |[inside, _, count]: &&[u32; 3]| id.checked_sub(*inside).is_some_and(|at| at < *count);
            map.iter().find(holds).map_or(nobody, |[inside, outside, _]| outside + (id - inside))
        };
        (find(&self.users, uid), find(&self.groups, gid))
    }

    /// As the container sees a file's user and group of outside.
    pub(crate) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let find = |map: &[[u32; 3]], id: u32| {
            let holds = |[_, outside, count]: &&[u32; 3]| id.checked_sub(*outside).is_some_and(|at| at < *count);
            map.iter().find(holds).map_or(NOBODY, |[inside, outside, _]| inside + (id - outside))
        };
        (find(&self.users, uid), find(&self.groups, gid))
    }

    /// A user namespace that has these ids.
    pub(crate) fn namespace(&self) -> Result<OwnedFd> {
        Ok(runtime::user_namespace(&mappings(&self.users)?, &mappings(&self.groups)?)?)
    }

    /// The ids inside of who is root out there.
    pub(crate) fn of_root(&self) -> Option<(u32, u32)> {
        let find = |map: &[[u32; 3]]| map.iter().find(|[_, outside, _]| *outside == 0).map(|[inside, ..]| *inside);
        Some((find(&self.users)?, find(&self.groups)?))
    }

    /// A short name of its own.
    pub(crate) fn name(&self) -> String {
        let text: Vec<String> =
            self.users.iter().chain([&[0; 3]]).chain(&self.groups).flatten().map(u32::to_string).collect();
        oci::Digest::sha256(text.join(" ").as_bytes()).hex().chars().take(16).collect()
    }
}

fn mappings(map: &[[u32; 3]]) -> Result<Vec<LinuxIdMapping>> {
    let mapping = |[inside, outside, count]: &[u32; 3]| {
        LinuxIdMappingBuilder::default().container_id(*inside).host_id(*outside).size(*count).build()
    };
    map.iter().map(mapping).collect::<Result<_, _>>().map_err(|e| EngineError::Invalid(e.to_string()))
}

/// Held from the choice of ids until the container that has them is recorded.
pub(crate) type IdsTaken = Option<File>;

impl Engine {
    /// Gives a container that is being made its ids, and where it keeps its maker's, its user.
    pub(crate) fn map_ids(&self, config: &mut ContainerConfig) -> Result<IdsTaken> {
        let rootless = self.config().rootless.is_some();
        let mut taken = None;
        let map = match config.spec.userns {
            UserNamespaceMode::Host => return Ok(None),
            UserNamespaceMode::KeepId { uid: None, gid: None } if !rootless => IdMap::identity(),
            UserNamespaceMode::KeepId { .. } if !rootless => {
                return Err(EngineError::Invalid(
                    "--userns keep-id:uid=,gid= is for ordinary users: root is 0".to_owned(),
                ));
            }
            UserNamespaceMode::KeepId { .. } if userns::has_single_id() => {
                return Err(EngineError::Invalid(
                    "--userns keep-id: this user has one id only, and it is root's inside (see ctr info)".to_owned(),
                ));
            }
            UserNamespaceMode::KeepId { uid, gid } => {
                let (users, uid) = keep(&userns::user_map(), uid);
                let (groups, gid) = keep(&userns::group_map(), gid);
                if config.spec.user.is_none() {
                    config.user = format!("{uid}:{gid}");
                }
                IdMap { users, groups }
            }
            UserNamespaceMode::Auto { size } => {
                let (first, end, default) = if rootless {
                    let count = |map: Vec<IdRange>| map.iter().fold(0u32, |sum, range| sum.saturating_add(range.count));
                    (1, count(userns::user_map()).min(count(userns::group_map())), AUTO_SIZE_OF_USER)
                } else {
                    (AUTO_FIRST, AUTO_END, AUTO_SIZE)
                };
                taken = Some(self.lock_ids()?);
                let size = size.unwrap_or(default);
                let start =
                    free_range(&self.ids_in_use()?, first, end, size).ok_or_else(|| no_room(size, end, rootless))?;
                let map = vec![[0, start, size]];
                IdMap { users: map.clone(), groups: map }
            }
        };
        config.id_map = Some(map);
        Ok(taken)
    }

    fn lock_ids(&self) -> Result<File> {
        let path = self.config().state.join("ids.lock");
        let error = |e| EngineError::io("lock", &path, e);
        std::fs::create_dir_all(&self.config().state).map_err(error)?;
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(error)?;
        file.lock().map_err(error)?;
        Ok(file)
    }

    /// Start and length of what containers with `auto` have.
    fn ids_in_use(&self) -> Result<Vec<(u32, u32)>> {
        let mut ranges = Vec::new();
        for row in self.store().containers()? {
            // One that goes this moment needs them no more.
            let Ok(config) = ContainerConfig::load(&self.store().container_dir(&row.id)) else { continue };
            if matches!(config.spec.userns, UserNamespaceMode::Auto { .. }) {
                ranges.extend(config.id_map.iter().flat_map(|map| &map.users).map(|[_, start, size]| (*start, *size)));
            }
        }
        Ok(ranges)
    }
}

/// Why a start took longer than others will.
pub(crate) fn announce_copies(copied: usize, image: &str) -> Vec<String> {
    if copied == 0 {
        return Vec::new();
    }
    vec![format!(
        "{copied} layers of {image} were copied for this container's ids (the kernel maps no files for ordinary users); \
             this was once: later containers with the same --userns use the copies"
    )]
}

fn no_room(size: u32, end: u32, rootless: bool) -> EngineError {
    let advice = match (rootless, end) {
        (true, 0..=1) => "this user has one id only (see ctr info): use --userns host",
        (true, _) => {
            "use a smaller size, remove containers that have theirs, or give the user more ids in /etc/subuid and /etc/subgid"
        }
        (false, _) => "use a smaller size, or remove containers that have theirs",
    };
    EngineError::Invalid(format!("--userns auto: no {size} ids in a row are free: {advice}"))
}

/// The lowest start of `size` ids in `first..end` of which none is in use.
fn free_range(used: &[(u32, u32)], first: u32, end: u32, size: u32) -> Option<u32> {
    let mut used = used.to_vec();
    used.sort_unstable();
    let mut start = first;
    for (from, count) in used {
        if from.checked_sub(start).is_some_and(|room| room >= size) {
            break;
        }
        start = start.max(from.saturating_add(count));
    }
    (start.checked_add(size)? <= end).then_some(start)
}

/// A map in which this namespace's root – who is `own` outside of it – has that id, or the wanted one, and all others follow in order.
fn keep(here: &[IdRange], wanted: Option<u32>) -> (Vec<[u32; 3]>, u32) {
    let own = here.iter().find(|range| range.inside == 0).map_or(0, |range| range.outside);
    let id = wanted.unwrap_or(own);
    let all = here.iter().fold(0u32, |sum, range| sum.saturating_add(range.count));
    let below = id.min(all.saturating_sub(1));
    let lines = [[0, 1, below], [id, 0, 1], [id.saturating_add(1), below + 1, all.saturating_sub(below + 1)]];
    (lines.into_iter().filter(|[.., count]| *count > 0).collect(), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_id_is_kept_and_the_others_are_in_order() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let here = [range(0, 1000, 1), range(1, 100_000, 65_536)];
        assert_eq!(keep(&here, None), (vec![[0, 1, 1000], [1000, 0, 1], [1001, 1001, 64_536]], 1000));
        assert_eq!(keep(&here, Some(0)), (vec![[0, 0, 1], [1, 1, 65_536]], 0));
        assert_eq!(keep(&here[..1], None), (vec![[1000, 0, 1]], 1000));
        assert_eq!(keep(&here, Some(200_000)).0, [[0, 1, 65_536], [200_000, 0, 1]]);
        let (users, _) = keep(&here, None);
        let map = IdMap { groups: users.clone(), users };
        assert_eq!(map.outside(0, 1000), (1, 0));
        assert_eq!(map.outside(1001, 70_000), (1001, NOBODY));
    }

    #[test]
    fn ranges_do_not_overlap() {
        assert_eq!(free_range(&[], 1, 11, 10), Some(1));
        assert_eq!(free_range(&[], 1, 10, 10), None);
        assert_eq!(free_range(&[(5, 5), (1, 4)], 1, 30, 10), Some(10));
        assert_eq!(free_range(&[(11, 5)], 1, 30, 10), Some(1));
        assert_eq!(free_range(&[(10, 5), (15, 1)], 1, 30, 10), Some(16));
        assert_eq!(free_range(&[(1, u32::MAX)], 1, u32::MAX, 10), None);
    }
}
