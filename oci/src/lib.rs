//! The vocabulary every other crate speaks: digests, image references, platforms, manifests and
//! image configs. Pure types and parsers – nothing here reads a file, a socket or the clock.
//!
//! Specs: [image-spec 1.1](https://github.com/opencontainers/image-spec) and
//! [distribution-spec 1.1](https://github.com/opencontainers/distribution-spec).

mod config;
mod digest;
mod manifest;
mod platform;
mod reference;
mod user;

pub use config::{ContainerDefaults, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{Digest, DigestError, Hasher, MAX_DIGEST_LEN};
pub use manifest::{Descriptor, Document, Index, Manifest, ManifestError, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use user::{NameOrId, UserSpec, UserSpecError};

/// The largest manifest or index accepted from outside, in bytes (distribution-spec, "Pushing Manifests").
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The largest image config accepted from outside, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;
