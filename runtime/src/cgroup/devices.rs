//! Which devices a group may make and open: an eBPF program on v2 (hybrid machines included), the devices controller on
//! plain v1.

use super::{Cgroup, write};
use crate::{RuntimeError, defaults};
use linux::bpf::{self, Instruction};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::os::fd::AsFd;

const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const EVERYTHING: u32 = MAKE | READ | WRITE;
/// Rules accepted; the kernel's limit on a program's length is far above.
const MAX_RULES: usize = 4096;

/// One rule; None matches all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// 1 block, 2 character, as the kernel counts.
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: u32,
}

pub(super) fn limit(
    cgroup: &Cgroup,
    rules: &[LinuxDeviceCgroup],
    warnings: &mut Vec<String>,
) -> Result<(), RuntimeError> {
    if rules.is_empty() {
        return Ok(());
    }
    if rules.len() > MAX_RULES {
        return Err(RuntimeError::Spec(format!("more than {MAX_RULES} device rules")));
    }
    let mut rules = rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    let all_allowed =
        rules.last() == Some(&Rule { allow: true, kind: None, major: None, minor: None, access: EVERYTHING });
    // Engines say "deny all" and count on the runtime's own devices.
    for default in &defaults::device_rules() {
        rules.push(rule(default)?);
    }
    if let Some(folder) = cgroup.v2_folder() {
        // Nothing to forbid, nothing to load.
        if all_allowed {
            return Ok(());
        }
        let group = linux::resolve::open_root(folder)?;
        let program = bpf::load_device_filter(&compile(&rules))?;
        return Ok(bpf::attach_device_filter(group.as_fd(), program.as_fd())?);
    }
    let Some(folder) = cgroup.v1_folder("devices") else {
        warnings.push("devices are not limited: this machine has no control group for it".to_owned());
        return Ok(());
    };
    for rule in rules {
        let file = folder.join(if rule.allow { "devices.allow" } else { "devices.deny" });
        write(&file, &v1_line(&rule)).map_err(|e| RuntimeError::file("set a limit: write", file, e))?;
    }
    Ok(())
}

fn rule(rule: &LinuxDeviceCgroup) -> Result<Rule, RuntimeError> {
    let wrong = |what: &str| RuntimeError::Spec(format!("device rule: {what}"));
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            i32::try_from(number).ok().filter(|n| *n >= 0).map(Some).ok_or_else(|| wrong("a number out of range"))
        }
    };
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(1),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(2),
        Some(LinuxDeviceType::P) => return Err(wrong("a FIFO is not a device")),
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MAKE,
            _ => return Err(wrong("its access is not of r, w and m")),
        };
    }
    Ok(Rule { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
}

fn v1_line(rule: &Rule) -> String {
    let number = |number: Option<i32>| number.map_or("*".to_owned(), |n| n.to_string());
    let kind = match rule.kind {
        None if rule.major.is_none() && rule.minor.is_none() => return "a".to_owned(),
        None | Some(2) => "c",
        Some(_) => "b",
    };
    let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
    let access: String = letters.iter().filter(|(bit, _)| rule.access & bit != 0).map(|(_, letter)| letter).collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

// Registers: r1 context, r2 type, r3 access still to be granted, r4 major, r5 minor, r6 scratch, r0 the answer.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// The rules as a program: of each kind of access the last rule that matches decides, none denies.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(MOVE_REGISTER, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        for (register, wanted) in [(2, rule.kind), (4, rule.major), (5, rule.minor)] {
            if let Some(wanted) = wanted {
                tests.push(op(JUMP_NOT_EQUAL, register, 0, 0, wanted));
            }
        }
        if rule.access != EVERYTHING {
            let access = i32::try_from(rule.access).unwrap_or(0);
            if rule.allow {
                // What it grants needs no other rule; the rest of what is asked for does.
                tests.extend([op(AND, 3, 0, 0, !access), op(JUMP_NOT_EQUAL, 3, 0, 0, 0)]);
            } else {
                // One forbidden part is enough.
                tests.extend([op(MOVE_REGISTER, 6, 3, 0, 0), op(AND, 6, 0, 0, access), op(JUMP_EQUAL, 6, 0, 0, 0)]);
            }
        }
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, JUMP_NOT_EQUAL | JUMP_EQUAL) {
                // Past the tests left and the two instructions that answer.
                test.offset = i16::try_from(length - at - 1 + 2).unwrap_or(0);
            }
        }
        program.extend(tests);
        program.extend([op(MOVE, 0, 0, 0, i32::from(rule.allow)), op(EXIT, 0, 0, 0, 0)]);
        if rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none() && rule.access == EVERYTHING {
            // Nothing behind it can be reached, and the kernel refuses unreachable code.
            return program;
        }
    }
    program.extend([op(MOVE, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DENY_ALL: Rule = Rule { allow: false, kind: None, major: None, minor: None, access: EVERYTHING };
    const NULL: Rule = Rule { allow: true, kind: Some(2), major: Some(1), minor: Some(3), access: READ | WRITE };

    #[test]
    fn v1_lines() {
        assert_eq!(v1_line(&DENY_ALL), "a");
        assert_eq!(v1_line(&NULL), "c 1:3 rw");
        assert_eq!(v1_line(&Rule { kind: Some(1), major: None, minor: None, access: MAKE, ..NULL }), "b *:* m");
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        bpf::load_device_filter(&compile(&[DENY_ALL, NULL])).unwrap();
        bpf::load_device_filter(&compile(&[NULL, Rule { allow: false, access: WRITE, ..NULL }])).unwrap();
    }
}
