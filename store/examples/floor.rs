//! The least that a pull can cost: every layer of an OCI layout hashed, inflated, hashed again and written as plain files, all
//! layers at once, each in two threads. No network, no attributes, no store, no checks. `bench/images.sh` measures pulls by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use oci::Hasher;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

const CHUNK_BYTES: usize = 256 << 10;

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (layout, target) = (args.next().expect("floor LAYOUT TARGET"), args.next().expect("floor LAYOUT TARGET"));
    let blobs = layout.join("blobs/sha256");
    let mut layers: Vec<(u64, PathBuf)> = std::fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.metadata().unwrap().len(), entry.path()))
        .filter(|(_, path)| is_gzip(path))
        .collect();
    layers.sort_by(|a, b| b.cmp(a));
    std::thread::scope(|scope| {
        for (number, (_, path)) in layers.into_iter().enumerate() {
            let target = target.join(number.to_string());
            let (send, receive) = sync_channel::<Vec<u8>>(8);
            scope.spawn(move || write(Chunks { receive, current: Vec::new(), at: 0 }, &target));
            scope.spawn(move || {
                let mut plain = flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(
                    128 << 10,
                    Hashed { inner: File::open(path).unwrap(), hasher: Hasher::sha256() },
                ));
                loop {
                    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                    if plain.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk).unwrap() == 0 {
                        break;
                    }
                    send.send(chunk).unwrap();
                }
            });
        }
    });
}

fn is_gzip(path: &Path) -> bool {
    let mut magic = [0; 2];
    File::open(path).unwrap().read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b]
}

fn write(plain: Chunks, target: &Path) {
    let mut tar = tar::Archive::new(Hashed { inner: plain, hasher: Hasher::sha256() });
    let mut buffer = vec![0; CHUNK_BYTES];
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = target.join(entry.path().unwrap());
        if entry.header().entry_type().is_dir() {
            std::fs::create_dir_all(path).unwrap();
        } else if entry.header().entry_type().is_file() {
            let mut file = File::create(path).unwrap();
            loop {
                let n = entry.read(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                file.write_all(&buffer[..n]).unwrap();
            }
        }
    }
    io::copy(&mut tar.into_inner(), &mut io::sink()).unwrap();
}

struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

struct Chunks {
    receive: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            match self.receive.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
