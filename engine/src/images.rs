//! Images between registries and the store: pull, push, login, logout.
//!
//! The registry client moves verified bytes, the store keeps and unpacks them; this module joins the two with one
//! thread a layer and says what happens as typed events. What a progress bar looks like is the command line's affair.

mod artifact;
mod copy;
mod download;
mod lists;
mod login;
mod pace;
mod pull;
mod push;
mod referrers;
mod settings;
mod workers;

pub use copy::{Copied, CopyRequest, Place, PlaceError, Platforms};
pub use login::LoginRequest;
pub use referrers::AttachRequest;
pub use settings::RegistrySettings;

use oci::{Digest, Platform, Reference};

/// What to fetch.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Which image; a digest decides over a tag.
    pub reference: Reference,
    /// For which platform; none means this machine's.
    pub platform: Option<Platform>,
    /// False accepts any certificate, and plain http.
    pub tls_verify: bool,
}

impl PullRequest {
    /// An image for this machine, from a registry that proves who it is.
    pub fn new(reference: Reference) -> PullRequest {
        PullRequest { reference, platform: None, tls_verify: true }
    }
}

/// What happens during a pull, in this order: Started, Layers, Layer…, and Warning at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// The registry knows the image: docker's `latest: Pulling from library/busybox`.
    Started {
        /// The tag, or the digest where there is no tag.
        version: String,
        /// The repository inside its registry.
        repository: String,
    },
    /// The layers it has, lowest first.
    Layers(Vec<LayerInfo>),
    /// Something happened to one of them.
    Layer {
        /// [`LayerInfo::id`].
        id: String,
        /// What.
        state: PullState,
    },
    /// The registry has something to say to the user.
    Warning(String),
}

/// A layer, as progress bars name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Twelve hex digits.
    pub id: String,
    /// Compressed size in bytes; 0 while it is not known.
    pub size_bytes: u64,
}

/// Where a layer of a pull stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullState {
    /// It is here: nothing to do.
    AlreadyExists,
    /// Its turn has not come yet.
    Waiting,
    /// It is received and unpacked in one go.
    Downloading {
        /// Compressed bytes so far.
        done_bytes: u64,
    },
    /// It is unpacked and verified: docker's `Pull complete`.
    Complete,
}

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The config's digest.
    pub image_id: Digest,
    /// Of what the reference names at the registry: an index's if it is one.
    pub digest: Digest,
    /// True if the name already stood for just this image.
    pub up_to_date: bool,
}

/// What to send.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// A local image by the name it shall have at the registry.
    pub reference: Reference,
    /// False accepts any certificate, and plain http.
    pub tls_verify: bool,
}

/// What happens during a push, in this order: Started, Layers, Layer…, and Warning at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// docker's `The push refers to repository [docker.io/library/x]`.
    Started {
        /// Registry and repository.
        repository: String,
    },
    /// The layers it has, lowest first.
    Layers(Vec<LayerInfo>),
    /// Something happened to one of them.
    Layer {
        /// [`LayerInfo::id`].
        id: String,
        /// What.
        state: PushState,
    },
    /// The registry has something to say to the user.
    Warning(String),
}

/// Where a layer of a push stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushState {
    /// Its turn has not come yet.
    Waiting,
    /// It is being compressed, which happens once.
    Preparing,
    /// On its way.
    Pushing {
        /// Compressed bytes sent so far.
        done_bytes: u64,
        /// Of how many.
        total_bytes: u64,
    },
    /// The registry has it.
    Pushed,
    /// The registry had it: docker's `Layer already exists`.
    AlreadyExists,
    /// The registry took it over from another repository: docker's `Mounted from library/x`.
    Mounted {
        /// The other repository.
        from: String,
    },
}

/// What happens during a copy, in this order: Blobs, Blob…, and Warning at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyEvent {
    /// What there is to copy.
    Blobs(Vec<LayerInfo>),
    /// Something happened to one of them.
    Blob {
        /// [`LayerInfo::id`].
        id: String,
        /// What.
        state: CopyState,
    },
    /// A registry has something to say to the user.
    Warning(String),
}

/// Where a blob of a copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// On its way.
    Copying {
        /// Bytes so far.
        done_bytes: u64,
    },
    /// It is where it was to go.
    Copied,
    /// It was there.
    AlreadyExists,
    /// The registry took it over from another of its repositories.
    Mounted {
        /// The other repository.
        from: String,
    },
}

/// What a push left at the registry: docker's `latest: digest: sha256:… size: 527`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size_bytes: u64,
}
