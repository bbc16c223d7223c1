//! The five capability sets of this thread, as bit masks (bit = the capability's number).

use crate::CallError;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::c_int;

/// The sets a process is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// What a later exec can ever gain.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Passed through exec by file capabilities.
    pub inheritable: u64,
    /// Passed through exec by plain files.
    pub ambient: u64,
}

/// The sets of this thread.
pub fn current() -> Result<Sets, CallError> {
    let sets = rustix::thread::capabilities(None).map_err(|e| CallError::new("capget", "", e))?;
    let (mut bounding, mut ambient) = (0, 0);
    for number in 0..64 {
        match prctl(libc::PR_CAPBSET_READ, number, 0) {
            Ok(1) => bounding |= 1 << number,
            Ok(_) => {}
            Err(_) => break,
        }
        if let Ok(1) = prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET.unsigned_abs().into(), number) {
            ambient |= 1 << number;
        }
    }
    Ok(Sets {
        bounding,
        effective: sets.effective.bits(),
        permitted: sets.permitted.bits(),
        inheritable: sets.inheritable.bits(),
        ambient,
    })
}

/// The number of the last capability this kernel knows.
pub fn last() -> u64 {
    (0..64).take_while(|number| prctl(libc::PR_CAPBSET_READ, *number, 0).is_ok()).last().unwrap_or(0)
}

/// Takes everything not in `keep` out of the bounding set.
pub fn limit_bounding(keep: u64) -> Result<(), CallError> {
    for number in 0..64 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, number, 0) {
            Ok(_) => {}
            // Past the last one the kernel knows.
            Err(error) if error.errno == Errno::INVAL => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sets effective, permitted and inheritable in one call, then the ambient set.
pub fn apply(sets: &Sets) -> Result<(), CallError> {
    let wanted = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(sets.effective),
        permitted: CapabilitySet::from_bits_retain(sets.permitted),
        inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
    };
    rustix::thread::set_capabilities(None, wanted).map_err(|e| CallError::new("capset", "", e))?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into(), 0)?;
    for number in (0..64).filter(|number| sets.ambient & (1 << number) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.unsigned_abs().into(), number)?;
    }
    Ok(())
}

/// Whether capabilities survive the change from uid 0 to another.
pub fn keep_over_setuid(keep: bool) -> Result<(), CallError> {
    rustix::thread::set_keep_capabilities(keep).map_err(|e| CallError::new("prctl", "PR_SET_KEEPCAPS", e))
}

fn prctl(option: c_int, first: u64, second: u64) -> Result<c_int, CallError> {
    // SAFETY: the options used here take plain numbers.
    match unsafe { libc::prctl(option, first, second, 0u64, 0u64) } {
        -1 => Err(CallError::last("prctl", format!("option {option}, argument {first}"))),
        answer => Ok(answer),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_within_the_permitted() {
        let sets = current().unwrap();
        assert_eq!(sets.effective & !sets.permitted, 0);
        assert!(last() >= 40);
    }
}
