//! nftables' part of nfnetlink: the messages and the handful of expressions that our rules are made of.
//!
//! Numbers are those of linux/netfilter/nf_tables.h. All of its integers are in network byte order; the data that
//! expressions compare is as it is in the packet or, for the kernel's own values (marks, types), the host's order.

use linux::netlink::{APPEND, CREATE, EXCLUSIVE, Message};

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// NFPROTO_INET: rules for both families.
const INET: u8 = 1;
const IPV4: u8 = 2;

/// The length of `struct nfgenmsg`.
pub(crate) const HEADER: usize = 4;
/// The length of an interface name as a set's key.
pub(crate) const IFNAME_LEN: usize = 16;

/// Register 1, 16 bytes.
pub(crate) const R1: u32 = 1;
/// Register 2: the next 16 bytes.
pub(crate) const R2: u32 = 2;
/// The second 4 bytes of register 1 (NFT_REG32_01).
pub(crate) const R1_1: u32 = 9;
/// The third 4 bytes of register 1 (NFT_REG32_02).
pub(crate) const R1_2: u32 = 10;

fn header(family: u8, resource: u16) -> [u8; HEADER] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn message(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags, &header(INET, 0))
}

/// The start of a transaction.
pub(crate) fn begin() -> Message {
    Message::new(BATCH_BEGIN, 0, &header(0, SUBSYSTEM >> 8))
}

/// Its end.
pub(crate) fn end() -> Message {
    Message::new(BATCH_END, 0, &header(0, SUBSYSTEM >> 8))
}

/// A new table; fails, and with it the transaction, where there is one of that name.
pub(crate) fn new_table(name: &str) -> Message {
    let mut message = message(NEWTABLE, CREATE | EXCLUSIVE);
    message.put_str(1, name).put_be32(2, 0);
    message
}

/// A new table where there is none.
pub(crate) fn any_table(name: &str) -> Message {
    let mut message = message(NEWTABLE, CREATE);
    message.put_str(1, name).put_be32(2, 0);
    message
}

/// Deletes a table with all that is in it.
pub(crate) fn delete_table(name: &str) -> Message {
    let mut message = message(DELTABLE, 0);
    message.put_str(1, name);
    message
}

/// Where and when a base chain is called.
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    /// NF_INET_PRE_ROUTING 0, LOCAL_IN 1, FORWARD 2, LOCAL_OUT 3, POST_ROUTING 4.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// A chain with policy accept: a base chain where there is a hook.
pub(crate) fn new_chain(table: &str, name: &str, hook: Option<&Hook>) -> Message {
    let mut message = message(NEWCHAIN, CREATE);
    message.put_str(1, table).put_str(3, name);
    if let Some(hook) = hook {
        message.put_str(7, hook.kind).put_be32(5, 1);
        message.nest(4, |nest| {
            nest.put_be32(1, hook.number).put(2, &hook.priority.to_be_bytes());
        });
    }
    message
}

/// Lists all chains of all families.
pub(crate) fn list_chains() -> Message {
    Message::new(GETCHAIN, linux::netlink::DUMP, &header(0, 0))
}

/// A set's or map's shape.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// nft's numbers of the key's types, six bits each.
    pub(crate) key_type: u32,
    pub(crate) key_len: u32,
    /// The key is a number or text in the host's byte order, so nft shows it right.
    pub(crate) host_order: bool,
    /// The type and length of a map's data.
    pub(crate) data: Option<(u32, u32)>,
}

/// A new set or map.
pub(crate) fn new_set(table: &str, set: &Set, id: u32) -> Message {
    let mut message = message(NEWSET, CREATE);
    message.put_str(1, table).put_str(2, set.name);
    message.put_be32(3, if set.data.is_some() { 8 } else { 0 });
    message.put_be32(4, set.key_type).put_be32(5, set.key_len);
    if let Some((kind, len)) = set.data {
        message.put_be32(6, kind).put_be32(7, len);
    }
    message.put_be32(10, id);
    if set.host_order {
        // For `nft list ruleset` alone: NFTNL_UDATA_SET_KEYBYTEORDER (type 0, 4 bytes), 1 for the host's.
        message.put(13, &[0, 4, 1, 0, 0, 0]);
    }
    message
}

/// An element: a key, and a map's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    pub(crate) data: Option<Vec<u8>>,
}

fn element_message(kind: u16, flags: u16, table: &str, set: &str, element: &Element) -> Message {
    let mut message = message(kind, flags);
    message.put_str(1, table).put_str(2, set);
    message.nest(3, |list| {
        list.nest(1, |item| {
            item.nest(1, |key| {
                key.put(1, &element.key);
            });
            if let Some(data) = &element.data {
                item.nest(2, |value| {
                    value.put(1, data);
                });
            }
        });
    });
    message
}

/// Adds an element; one that is there with the same data is fine.
pub(crate) fn add_element(table: &str, set: &str, element: &Element) -> Message {
    element_message(NEWSETELEM, CREATE, table, set, element)
}

/// Deletes the element of a key.
pub(crate) fn delete_element(table: &str, set: &str, key: &[u8]) -> Message {
    element_message(DELSETELEM, 0, table, set, &Element { key: key.to_vec(), data: None })
}

/// Asks for the element of a key.
pub(crate) fn get_element(table: &str, set: &str, key: &[u8]) -> Message {
    element_message(GETSETELEM, 0, table, set, &Element { key: key.to_vec(), data: None })
}

/// Reads the elements of the answer.
pub(crate) fn elements(payload: &[u8]) -> Vec<Element> {
    use linux::netlink::{attribute, attributes};
    let list = attribute(payload.get(HEADER..).unwrap_or_default(), 3).unwrap_or_default();
    let value = |item, kind| attribute(item, kind).and_then(|nest| attribute(nest, 1)).map(<[u8]>::to_vec);
    attributes(list).filter_map(|(_, item)| Some(Element { key: value(item, 1)?, data: value(item, 2) })).collect()
}

/// What becomes of a packet.
#[derive(Clone, Copy)]
pub(crate) enum Verdict<'a> {
    Drop,
    Accept,
    Return,
    Jump(&'a str),
}

/// A rule under construction, as a list of expressions.
pub(crate) struct Rule(Message);

/// Starts a rule at the end of a chain.
pub(crate) fn new_rule(table: &str, chain: &str, expressions: impl FnOnce(&mut Expressions<'_>)) -> Rule {
    let mut message = message(NEWRULE, CREATE | APPEND);
    message.put_str(1, table).put_str(2, chain);
    message.nest(4, |list| expressions(&mut Expressions(list)));
    Rule(message)
}

impl From<Rule> for Message {
    fn from(rule: Rule) -> Message {
        rule.0
    }
}

/// The expressions of a rule, evaluated in order until one does not match.
pub(crate) struct Expressions<'a>(&'a mut Message);

impl Expressions<'_> {
    fn put(&mut self, name: &str, data: impl FnOnce(&mut Message)) -> &mut Self {
        self.0.nest(1, |item| {
            item.put_str(1, name).nest(2, data);
        });
        self
    }

    fn load(&mut self, name: &str, dreg: (u16, u32), key: (u16, u32)) -> &mut Self {
        self.put(name, |m| {
            m.put_be32(key.0, key.1).put_be32(dreg.0, dreg.1);
        })
    }

    /// A packet's own or the kernel's property.
    pub(crate) fn meta(&mut self, key: Meta, register: u32) -> &mut Self {
        self.load("meta", (1, register), (2, key as u32))
    }

    /// Connection tracking's: 0 state, 2 status.
    pub(crate) fn conntrack(&mut self, key: u32, register: u32) -> &mut Self {
        self.load("ct", (1, register), (2, key))
    }

    /// The socket that the packet would be delivered to: 1 mark, 2 wildcard. Does not match where there is none.
    pub(crate) fn socket(&mut self, key: u32, register: u32) -> &mut Self {
        self.load("socket", (2, register), (1, key))
    }

    /// The type of the destination address by the routing table (RTN_LOCAL is 2).
    pub(crate) fn destination_type(&mut self, register: u32) -> &mut Self {
        self.put("fib", |m| {
            m.put_be32(1, register).put_be32(2, 3).put_be32(3, 2);
        })
    }

    /// Bytes of the packet: base 1 is the network header, 2 the transport header.
    pub(crate) fn payload(&mut self, base: u32, offset: u32, len: u32, register: u32) -> &mut Self {
        self.put("payload", |m| {
            m.put_be32(1, register).put_be32(2, base).put_be32(3, offset).put_be32(4, len);
        })
    }

    fn compare(&mut self, op: u32, register: u32, value: &[u8]) -> &mut Self {
        self.put("cmp", |m| {
            m.put_be32(1, register).put_be32(2, op).nest(3, |data| {
                data.put(1, value);
            });
        })
    }

    /// Goes on only where a register is equal.
    pub(crate) fn equal(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.compare(0, register, value)
    }

    /// Goes on only where a register is not equal.
    pub(crate) fn not_equal(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.compare(1, register, value)
    }

    /// Goes on only where one of the bits (host byte order) is set.
    pub(crate) fn any_bit(&mut self, register: u32, bits: u32) -> &mut Self {
        self.put("bitwise", |m| {
            m.put_be32(1, register).put_be32(2, register).put_be32(3, 4);
            m.nest(4, |mask| {
                mask.put_u32(1, bits);
            });
            m.nest(5, |xor| {
                xor.put_u32(1, 0);
            });
        });
        self.not_equal(register, &[0; 4])
    }

    /// Goes on only where the register's content is in the set, or with `inverted` is not.
    pub(crate) fn lookup(&mut self, set: &str, set_id: u32, register: u32, inverted: bool) -> &mut Self {
        self.put("lookup", |m| {
            m.put_str(1, set).put_be32(2, register).put_be32(4, set_id);
            if inverted {
                m.put_be32(5, 1);
            }
        })
    }

    /// Replaces the register's content by what a map has for it; does not match where it has nothing.
    pub(crate) fn map(&mut self, map: &str, set_id: u32, register: u32) -> &mut Self {
        self.put("lookup", |m| {
            m.put_str(1, map).put_be32(2, register).put_be32(3, register).put_be32(4, set_id);
        })
    }

    /// Rewrites the destination to the IPv4 address and port of two registers.
    pub(crate) fn dnat(&mut self, address: u32, port: u32) -> &mut Self {
        self.put("nat", |m| {
            m.put_be32(1, 1).put_be32(2, u32::from(IPV4)).put_be32(3, address).put_be32(5, port);
        })
    }

    /// Sets a register.
    pub(crate) fn immediate(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.put("immediate", |m| {
            m.put_be32(1, register).nest(2, |data| {
                data.put(1, value);
            });
        })
    }

    /// Rewrites the source to the address of the interface it leaves by.
    pub(crate) fn masquerade(&mut self) -> &mut Self {
        self.put("masq", |_| {})
    }

    /// Ends the rule.
    pub(crate) fn verdict(&mut self, verdict: Verdict<'_>) -> &mut Self {
        let (code, chain): (i32, _) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
        };
        self.put("immediate", |m| {
            m.put_be32(1, 0).nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.put(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.put_str(2, chain);
                    }
                });
            });
        })
    }
}

/// NFT_META_*.
#[derive(Clone, Copy)]
pub(crate) enum Meta {
    InputName = 6,
    OutputName = 7,
    Family = 15,
    Protocol = 16,
}

/// An interface's name as a key.
pub(crate) fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(IFNAME_LEN, 0);
    key
}
