//! Layers: whatever a tar holds is unpacked inside its folder or refused. Header checksums are made right on the way, else hardly anything
//! would be read beyond them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const BLOCK: usize = 512;
/// A header's fields, of which the input says a few bytes: paths that meet each other, kinds, sizes.
const PATHS: [&str; 12] = ["a", "b", "a/b", "b/a", "a/f", "b/d/x", ".wh.a", "a/.wh..wh..opq", "../outside/f", "a/../b", "b/.wh.f", "./"];
const KINDS: &[u8] = b"0001234567xgLKS5";

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("ctr-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("outside/d")).expect("a folder");
    std::fs::write(folder.join("outside/f"), "untouched").expect("a file");
    folder
});

/// An archive out of the input: entries of few names and all kinds, data as it comes; then the rest of the input as it is.
fn archive(mut input: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    while let Some(([kind, path, link, size, mode, wild], rest)) = input.split_first_chunk::<6>() {
        input = rest;
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, PATHS[usize::from(*path) % PATHS.len()].as_bytes());
        let away = FOLDER.join("outside").into_os_string().into_encoded_bytes();
        match usize::from(*link) % (PATHS.len() + 1) {
            n if n < PATHS.len() => put(157, PATHS[n].as_bytes()),
            _ => put(157, &away),
        }
        let size = usize::from(*size).min(input.len());
        put(100, format!("{:07o}", u32::from(*mode) << 4).as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        put(156, &[KINDS[usize::from(*kind) % KINDS.len()]]);
        put(257, b"ustar\x0000");
        // Anywhere in the header, anything.
        if *wild > 127 && input.len() > size {
            block[usize::from(*wild - 128) * 4 % BLOCK] = input[size];
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&block);
        tar.extend_from_slice(&input[..size]);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        input = &input[size..];
    }
    tar
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).expect("it is there");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fuzz_target!(|input: &[u8]| {
    let root = FOLDER.join("root");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root).expect("a folder");
    let _ = store::unpack_for_fuzzing(&archive(input), &root);
    let outside = FOLDER.join("outside");
    assert_eq!(names(&outside), ["d", "f"]);
    assert_eq!(names(&outside.join("d")), [""; 0]);
    assert_eq!(std::fs::read(outside.join("f")).expect("it is there"), b"untouched");
    assert_eq!(names(&FOLDER), ["outside", "root"]);
});
