//! Networks' rows and the addresses in them.

use crate::containers::{nanoseconds, timestamp};
use crate::db::{change, row, rows};
use crate::id::{is_id_prefix, is_name, new_id};
use crate::layout::write_atomically;
use crate::{AddressRow, NetworkRow, Result, Store, StoreError};
use jiff::Timestamp;
use rusqlite::Transaction;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const COLUMNS: &str = "name, id, created, config";

impl Store {
    /// By name, id or unique id prefix.
    pub fn network(&self, name: &str) -> Result<NetworkRow> {
        let found = self.db.read("look up a network", |tx| {
            for condition in ["name = ?", "id = ?"] {
                let found = self.network_rows(tx, &format!("SELECT {COLUMNS} FROM network WHERE {condition}"), name)?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            if !is_id_prefix(name) {
                return Ok(Vec::new());
            }
            self.network_rows(tx, &format!("SELECT {COLUMNS} FROM network WHERE id GLOB ? || '*'"), name)
        })?;
        match <[NetworkRow; 1]>::try_from(found) {
            Ok([only]) => Ok(only),
            Err(none) if none.is_empty() => Err(StoreError::NoSuchNetwork(name.to_owned())),
            Err(many) => Err(StoreError::Ambiguous { kind: "network", prefix: name.to_owned(), count: many.len() }),
        }
    }

    /// The file that describes a network (a [`NetworkRow`]) for whoever does not open the database.
    pub fn network_file(&self, name: &str) -> std::path::PathBuf {
        self.layout.network_file(name)
    }

    /// All networks, oldest first.
    pub fn networks(&self) -> Result<Vec<NetworkRow>> {
        self.db.read("list the networks", |tx| self.all_networks(tx))
    }

    fn all_networks(&self, tx: &Transaction<'_>) -> Result<Vec<NetworkRow>> {
        self.network_rows(tx, &format!("SELECT {COLUMNS} FROM network WHERE '' = ? ORDER BY created"), "")
    }

    fn network_rows(&self, tx: &Transaction<'_>, sql: &str, param: &str) -> Result<Vec<NetworkRow>> {
        rows(tx, sql, [param], |r| {
            Ok(NetworkRow {
                name: r.get(0)?,
                id: r.get(1)?,
                created: timestamp(r.get(2)?),
                config: serde_json::from_str(&r.get::<_, String>(3)?).unwrap_or_default(),
            })
        })
        .map_err(self.db.error("read a network's row"))
    }

    /// Makes a network; the name must be free.
    pub fn create_network(&self, name: &str, config: serde_json::Value) -> Result<NetworkRow> {
        check_name(name)?;
        self.db.write("create a network", |tx| {
            let taken = self.network_rows(tx, &format!("SELECT {COLUMNS} FROM network WHERE name = ?"), name)?;
            if !taken.is_empty() {
                return Err(StoreError::NetworkExists(name.to_owned()));
            }
            self.insert_network(tx, name, config)
        })
    }

    /// The network of that name, made with `config` where there is none: atomic, for the default one.
    /// `config` runs inside the transaction and gets the rows of all networks: it must be quick.
    pub fn network_or_create(
        &self,
        name: &str,
        config: &mut dyn FnMut(&[NetworkRow]) -> serde_json::Value,
    ) -> Result<NetworkRow> {
        check_name(name)?;
        match self.network(name) {
            Err(StoreError::NoSuchNetwork(_)) => {}
            other => return other,
        }
        self.db.write("create a network", |tx| {
            let all = self.all_networks(tx)?;
            match all.iter().find(|network| network.name == name) {
                Some(network) => Ok(network.clone()),
                None => self.insert_network(tx, name, config(&all)),
            }
        })
    }

    fn insert_network(&self, tx: &Transaction<'_>, name: &str, config: serde_json::Value) -> Result<NetworkRow> {
        let network = NetworkRow { id: new_id()?, name: name.to_owned(), created: Timestamp::now(), config };
        change(
            tx,
            "INSERT INTO network (name, id, created, config) VALUES (?,?,?,?)",
            (name, &network.id, nanoseconds(network.created), network.config.to_string()),
        )
        .map_err(self.db.error("create a network"))?;
        let text = serde_json::json!(network).to_string();
        write_atomically(&self.layout, &self.layout.network_file(name), text.as_bytes())?;
        Ok(network)
    }

    /// Removes a network that no container's address is in.
    pub fn remove_network(&self, name: &str) -> Result<NetworkRow> {
        let network = self.network(name)?;
        self.db.write("remove a network", |tx| {
            let users = self.live_addresses(tx, &network.name)?;
            if !users.is_empty() {
                let containers = users.iter().map(|a| &a.container[..12.min(a.container.len())]).collect::<Vec<_>>();
                return Err(StoreError::NetworkInUse { name: name.to_owned(), containers: containers.join(", ") });
            }
            for sql in ["DELETE FROM network WHERE name = ?", "DELETE FROM address WHERE network = ?"] {
                change(tx, sql, [&network.name]).map_err(self.db.error("remove a network"))?;
            }
            crate::layout::remove_tree(&self.layout.network_file(&network.name))
        })?;
        Ok(network)
    }

    /// An address of the subnet for the container: the next free one after the last given out, or `wanted`.
    /// Never the subnet's first and last nor the gateway. Asked again, the container gets the one it has.
    pub fn allocate_address(
        &self,
        network: &str,
        subnet: (Ipv4Addr, u8),
        gateway: Ipv4Addr,
        container: &str,
        wanted: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr> {
        let error = self.db.error("allocate an address");
        let Range { first, last } = range(subnet);
        let gateway = u32::from(gateway);
        let usable = |n: u32| (first..=last).contains(&n) && n != gateway;
        self.db.write("allocate an address", |tx| {
            let taken = self.live_addresses(tx, network)?;
            let mine = taken.iter().find(|a| a.container == container).map(|a| a.address);
            if let Some(mine) = mine.filter(|mine| wanted.is_none_or(|w| w == *mine)) {
                return Ok(mine);
            }
            let taken: BTreeSet<u32> = taken.iter().map(|a| a.address.into()).collect();
            let chosen = match wanted {
                Some(address) => {
                    let refuse = |why| StoreError::AddressTaken {
                        network: network.to_owned(),
                        address: address.to_string(),
                        why,
                    };
                    match u32::from(address) {
                        n if !usable(n) => return Err(refuse("it is not a free address of the subnet")),
                        n if taken.contains(&n) => return Err(refuse("Address already in use")),
                        n => n,
                    }
                }
                None => {
                    let previous: Option<u32> =
                        row(tx, "SELECT last FROM network WHERE name = ?", [network], |r| r.get(0)).map_err(error)?;
                    let previous = previous.filter(|n| (first..=last).contains(n)).unwrap_or(first.saturating_sub(1));
                    let turn = (previous.saturating_add(1)..=last).chain(first..=previous.min(last));
                    let mut free = turn.filter(|n| usable(*n) && !taken.contains(n));
                    free.next().ok_or_else(|| StoreError::NoFreeAddress {
                        network: network.to_owned(),
                        subnet: format!("{}/{}", subnet.0, subnet.1),
                    })?
                }
            };
            change(tx, "DELETE FROM address WHERE network = ? AND container = ?", (network, container))
                .map_err(error)?;
            change(tx, "INSERT OR REPLACE INTO address VALUES (?,?,?)", (network, chosen, container)).map_err(error)?;
            change(tx, "UPDATE network SET last = ? WHERE name = ?", (chosen, network)).map_err(error)?;
            Ok(chosen.into())
        })
    }

    /// Addresses in a network whose containers still are.
    fn live_addresses(&self, tx: &Transaction<'_>, network: &str) -> Result<Vec<AddressRow>> {
        let sql = "SELECT address, container FROM address WHERE network = ? ORDER BY address";
        let mut all = rows(tx, sql, [network], |r| {
            Ok(AddressRow { network: network.to_owned(), address: r.get::<_, u32>(0)?.into(), container: r.get(1)? })
        })
        .map_err(self.db.error("list addresses"))?;
        all.retain(|a| self.layout.container(&a.container).exists());
        Ok(all)
    }

    /// Gives up a container's addresses, in one network or all.
    pub fn release_addresses(&self, container: &str, network: Option<&str>) -> Result<()> {
        self.db.write("release addresses", |tx| {
            change(tx, "DELETE FROM address WHERE container = ? AND coalesce(network = ?, 1)", (container, network))
                .map_err(self.db.error("release addresses"))?;
            Ok(())
        })
    }

    /// The addresses in a network.
    pub fn addresses(&self, network: &str) -> Result<Vec<AddressRow>> {
        self.db.read("list addresses", |tx| self.live_addresses(tx, network))
    }
}

struct Range {
    first: u32,
    last: u32,
}

/// The subnet's host addresses: without its own and the broadcast one.
fn range((address, prefix): (Ipv4Addr, u8)) -> Range {
    let host_bits = 32_u32.saturating_sub(u32::from(prefix));
    let hosts = u32::try_from((1_u64 << host_bits) - 1).unwrap_or(u32::MAX);
    let base = u32::from(address) & !hosts;
    Range { first: base.saturating_add(1), last: base.saturating_add(hosts.saturating_sub(1)) }
}

fn check_name(name: &str) -> Result<()> {
    if is_name(name) { Ok(()) } else { Err(StoreError::InvalidName { kind: "network", name: name.to_owned() }) }
}
