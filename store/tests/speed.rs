//! Timings, printed: `cargo test -p store --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use oci::ImageConfig;
use std::time::Instant;
use store::{NewContainer, Store};

#[test]
#[ignore = "a measurement"]
fn a_containers_rows() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = folder.path().join("root");
    let store = Store::open(&root).unwrap();
    let id = store.put_built_image(&ImageConfig::default(), &["busybox".parse().unwrap()]).unwrap();
    drop(store);
    for _ in 0..5 {
        let start = Instant::now();
        let store = Store::open(&root).unwrap();
        let opened = start.elapsed();
        let image = store.image("busybox").unwrap();
        store.image_layers(&image).unwrap();
        let looked = start.elapsed();
        let cid = store::new_id().unwrap();
        let new = NewContainer { id: &cid, name: None, image: Some(&id), config_json: b"{}", volumes: &[] };
        store.create_container(&new).unwrap();
        let created = start.elapsed();
        store.network_or_create("bridge", &mut |_| serde_json::Value::Null).unwrap();
        let subnet = (std::net::Ipv4Addr::new(10, 0, 0, 0), 16);
        store.allocate_address("bridge", subnet, std::net::Ipv4Addr::new(10, 0, 0, 1), &cid, None).unwrap();
        let addressed = start.elapsed();
        store.remove_container(&cid).unwrap();
        let removed = start.elapsed();
        drop(store);
        println!(
            "open {opened:?} image {looked:?} create {created:?} address {addressed:?} remove {removed:?} closed {:?}",
            start.elapsed()
        );
    }
}
