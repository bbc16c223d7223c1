//! Random numbers of the kernel's: interface names, DNS query ids and ports must not be guessed.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Result, during};

/// 32 random bits.
pub(crate) fn u32() -> Result<u32> {
    let mut bytes = [0; 4];
    // Requests of up to 256 bytes are never cut short.
    rustix::io::retry_on_intr(|| getrandom(&mut bytes[..], GetRandomFlags::empty()))
        .map_err(during(|| "get random numbers".to_owned()))?;
    Ok(u32::from_ne_bytes(bytes))
}
