//! Following a path's links inside a root, name by name: in the layer being unpacked, and in the layers below one.

use crate::{Result, StoreError};
use std::collections::VecDeque;

/// Links followed in one path, as the kernel does.
const MAX_LINKS: usize = 40;

/// What stands at a name on the way.
pub(super) enum Step {
    /// Something to go on from.
    Enter,
    /// A link, and where it leads.
    Follow(Vec<u8>),
}

/// The path with all links followed as if the root were `/`; `..` of the root is the root. `look` is given the resolved folder and a name
/// in it. `entry` is who asks, for the error.
pub(super) fn resolve(
    path: &[u8],
    entry: &[u8],
    mut look: impl FnMut(&[u8], &[u8]) -> Result<Step>,
) -> Result<Vec<u8>> {
    let mut todo: VecDeque<Vec<u8>> = path.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
    let mut resolved: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                resolved.pop();
                continue;
            }
            _ => {}
        }
        match look(&resolved.join(&b'/'), &name)? {
            Step::Enter => resolved.push(name),
            Step::Follow(target) => {
                links += 1;
                if links > MAX_LINKS {
                    let entry = String::from_utf8_lossy(entry).into_owned();
                    return Err(StoreError::BadLayer { entry, why: "too many links on the way".to_owned() });
                }
                if target.starts_with(b"/") {
                    resolved.clear();
                }
                for part in target.split(|&b| b == b'/').rev() {
                    todo.push_front(part.to_vec());
                }
            }
        }
    }
    Ok(resolved.join(&b'/'))
}
