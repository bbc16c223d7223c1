//! Servers inside the test's own process: one that answers what it is told to ([`Server`]), a registry that keeps its
//! content in memory and fails on command ([`MemoryRegistry`]), and a token service ([`TokenServer`]).

mod memory;
mod server;
mod token;

pub use memory::{MemoryRegistry, Quirks};
pub use server::{Reply, Seen, Server, answer};
pub use token::TokenServer;
