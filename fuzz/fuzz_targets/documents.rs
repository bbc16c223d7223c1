//! Manifests, indexes and image configs as a registry sends them: read or refused, and what is read can be written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{Document, ImageConfig, MediaType, Platform};

const TYPES: [Option<&str>; 4] =
    [None, Some(MediaType::OCI_MANIFEST), Some(MediaType::OCI_INDEX), Some("application/vnd.docker.distribution.manifest.v2+json")];

fuzz_target!(|bytes: &[u8]| {
    for kind in TYPES {
        match Document::parse(bytes, kind) {
            Ok(Document::Manifest(manifest)) => {
                let text = serde_json::to_vec(&manifest).expect("what was read can be written");
                let media_type = manifest.media_type.as_deref().or(kind);
                assert!(Document::parse(&text, media_type).is_ok(), "{}", String::from_utf8_lossy(&text));
            }
            Ok(Document::Index(index)) => {
                let chosen = index.select(&Platform::host());
                assert!(chosen.is_none_or(|chosen| index.manifests.contains(chosen)));
            }
            Err(_) => {}
        }
    }
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(bytes) {
        let text = serde_json::to_vec(&config).expect("what was read can be written");
        let again: ImageConfig = serde_json::from_slice(&text).expect("what was written can be read");
        assert_eq!(serde_json::to_vec(&again).ok(), Some(text));
    }
});
