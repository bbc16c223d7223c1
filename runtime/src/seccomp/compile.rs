//! From rules to BPF. For each architecture: number → decision, equal neighbours joined into ranges, a binary tree over
//! the ranges, and the argument tests where a range is one conditional call.

use super::errno;
use super::numbers::SYSCALLS;
use crate::RuntimeError;
use linux::seccomp::{FilterFlags, Instruction, MAX_INSTRUCTIONS};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use std::collections::BTreeMap;
use std::rc::Rc;

// Instructions of classic BPF on `struct seccomp_data`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// Offsets in it.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const KILL_PROCESS: u32 = 0x8000_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
/// x32 calls come under x86_64's name with this bit.
const X32_BIT: u32 = 0x4000_0000;
/// arm's private calls start here, far above the common ones.
const ARM_PRIVATE: u32 = 0xf_0000;
/// What hands a filter's notifications to the agent.
const AGENT_CALL: &str = "sendmsg";
/// The most rules of a profile.
const MAX_RULES: usize = 8192;

/// An architecture: the kernel's audit number, its column in the table, and whether its calls carry the x32 bit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Machine {
    audit: u32,
    column: usize,
    x32: bool,
}

fn machine(arch: Arch) -> Option<Machine> {
    let (audit, column, x32) = match arch {
        Arch::ScmpArchX86_64 => (0xc000_003e, 0, false),
        Arch::ScmpArchX86 => (0x4000_0003, 1, false),
        Arch::ScmpArchX32 => (0xc000_003e, 2, true),
        Arch::ScmpArchAarch64 => (0xc000_00b7, 3, false),
        Arch::ScmpArchArm => (0x4000_0028, 4, false),
        _ => return None,
    };
    Some(Machine { audit, column, x32 })
}

fn native() -> Option<Machine> {
    match std::env::consts::ARCH {
        "x86_64" => machine(Arch::ScmpArchX86_64),
        "aarch64" => machine(Arch::ScmpArchAarch64),
        _ => None,
    }
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    index: u32,
    operator: LinuxSeccompOperator,
    value: u64,
    mask: u64,
}

/// What happens to a call: the first condition that holds decides, else the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    conditions: Vec<(Vec<Test>, u32)>,
    otherwise: Option<u32>,
}

/// The BPF program of a profile and the flags to load it with.
#[derive(Debug)]
pub struct Compiled {
    /// The program.
    pub program: Vec<Instruction>,
    /// The flags.
    pub flags: FilterFlags,
    /// Whether it asks somebody else about a call.
    pub notifies: bool,
}

/// Compiles a profile.
pub fn compile(profile: &LinuxSeccomp, warnings: &mut Vec<String>) -> Result<Compiled, RuntimeError> {
    let notifies = check_notifications(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let machines = machines(profile, warnings);
    let mut sections: BTreeMap<u32, BTreeMap<u32, Rc<Decision>>> = BTreeMap::new();
    let plain = |value| Rc::new(Decision { conditions: Vec::new(), otherwise: Some(value) });
    for machine in &machines {
        let decisions = decisions(profile, *machine, default)?;
        let ranges = sections.entry(machine.audit).or_default();
        let base = if machine.x32 { X32_BIT } else { 0 };
        let newest = decisions.keys().filter(|number| **number < ARM_PRIVATE).max().copied().unwrap_or(0);
        ranges.insert(base, plain(default));
        for (number, decision) in &decisions {
            ranges.insert(base + number, decision.clone());
            // Unless a neighbour says otherwise.
            ranges.entry(base + number + 1).or_insert_with(|| plain(default));
        }
        if denies(default) {
            ranges.insert(base + newest + 1, plain(RETURN_ERRNO | errno::NO_SYSCALL));
            if let Some(private) = decisions.keys().filter(|number| **number >= ARM_PRIVATE).max() {
                ranges.insert(private + 1, plain(RETURN_ERRNO | errno::NO_SYSCALL));
            }
        }
    }
    let program = emit_program(&sections, default);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(RuntimeError::Spec(format!(
            "the seccomp profile compiles to {} instructions, the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(Compiled { program, flags: flags(profile, notifies, warnings), notifies })
}

/// Whether any rule asks an agent. What the process needs to reach that agent can't depend on its answer.
fn check_notifications(profile: &LinuxSeccomp) -> Result<bool, RuntimeError> {
    let refuse = |what: &str| Err(RuntimeError::Spec(format!("seccomp: SCMP_ACT_NOTIFY can't be used for {what}")));
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    if notifies(profile.default_action()) {
        return refuse("the default action");
    }
    let mut rules = profile.syscalls().iter().flatten().filter(|rule| notifies(rule.action())).peekable();
    let any = rules.peek().is_some();
    if rules.any(|rule| rule.names().iter().any(|name| name == AGENT_CALL)) {
        return refuse(&format!("{AGENT_CALL}: the agent is reached by it"));
    }
    Ok(any)
}

fn machines(profile: &LinuxSeccomp, warnings: &mut Vec<String>) -> Vec<Machine> {
    let mut machines: Vec<Machine> = native().into_iter().collect();
    for arch in profile.architectures().iter().flatten() {
        match machine(*arch) {
            Some(machine) if !machines.contains(&machine) => machines.push(machine),
            Some(_) => {}
            None => warnings.push(format!("seccomp: architecture {arch} is not known here; its calls stay forbidden")),
        }
    }
    machines
}

fn flags(profile: &LinuxSeccomp, notifies: bool, warnings: &mut Vec<String>) -> FilterFlags {
    let mut flags = FilterFlags::default();
    for flag in profile.flags().iter().flatten() {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => flags.log = true,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flags.spec_allow = true,
            // One thread has nobody to synchronise with.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {}
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => flags.wait_killable = true,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                warnings.push("seccomp: the flag WAIT_KILLABLE_RECV is of use with notifications only".to_owned());
            }
        }
    }
    flags
}

/// Whether a default action refuses, so that unknown calls should look like missing ones instead.
fn denies(default: u32) -> bool {
    !matches!(default & 0xffff_0000, 0x7fff_0000 | 0x7ffc_0000 | 0x7ff0_0000)
}

fn action(action: LinuxSeccompAction, errno_ret: Option<u32>) -> Result<u32, RuntimeError> {
    let data = errno_ret.unwrap_or(errno::NOT_PERMITTED) & 0xffff;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => RETURN_ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
    })
}

/// Number → decision of one architecture. Calls it lacks, and names nobody knows, are left out.
fn decisions(
    profile: &LinuxSeccomp,
    machine: Machine,
    default: u32,
) -> Result<BTreeMap<u32, Rc<Decision>>, RuntimeError> {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    if rules.len() > MAX_RULES {
        return Err(RuntimeError::Spec(format!("seccomp: more than {MAX_RULES} rules")));
    }
    let mut decisions: BTreeMap<u32, Decision> = BTreeMap::new();
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        let alternatives = alternatives(rule.args().as_deref().unwrap_or_default())?;
        for name in rule.names() {
            let Some(number) = number(name, machine.column) else { continue };
            let decision = decisions.entry(number).or_insert(Decision { conditions: Vec::new(), otherwise: None });
            if alternatives.is_empty() {
                decision.otherwise = decision.otherwise.or(Some(action));
            }
            // Each is an instruction at least.
            if decision.conditions.len() + alternatives.len() > MAX_INSTRUCTIONS {
                return Err(RuntimeError::Spec(format!("seccomp: more than {MAX_INSTRUCTIONS} conditions for {name}")));
            }
            decision.conditions.extend(alternatives.iter().map(|tests| (tests.clone(), action)));
        }
    }
    for decision in decisions.values_mut() {
        let otherwise = *decision.otherwise.get_or_insert(default);
        // A condition that says what holds anyway needs no test, as long as none before it says something else.
        while decision.conditions.last().is_some_and(|(_, action)| *action == otherwise) {
            decision.conditions.pop();
        }
    }
    Ok(decisions.into_iter().map(|(number, decision)| (number, Rc::new(decision))).collect())
}

fn number(name: &str, column: usize) -> Option<u32> {
    let row = SYSCALLS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    Some(SYSCALLS[row].1[column]).filter(|number| *number != u32::MAX)
}

/// A rule's argument tests: all must hold – except, as runc has it, that several on one argument are alternatives.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Test>>, RuntimeError> {
    let mut tests = Vec::new();
    for arg in args {
        let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
        let index =
            index.ok_or_else(|| RuntimeError::Spec(format!("seccomp: argument index {}: 0 to 5", arg.index())))?;
        let (value, mask) = match arg.op() {
            LinuxSeccompOperator::ScmpCmpMaskedEq => (arg.value_two().unwrap_or(0), arg.value()),
            _ => (arg.value(), u64::MAX),
        };
        tests.push(Test { index, operator: arg.op(), value, mask });
    }
    let repeated = (0..6).any(|index| tests.iter().filter(|test| test.index == index).count() > 1);
    Ok(match (tests.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, true) => tests.into_iter().map(|test| vec![test]).collect(),
        (false, false) => vec![tests],
    })
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

fn length(program: &[Instruction]) -> u32 {
    u32::try_from(program.len()).unwrap_or(u32::MAX)
}

fn emit_program(sections: &BTreeMap<u32, BTreeMap<u32, Rc<Decision>>>, default: u32) -> Vec<Instruction> {
    let mut program = vec![op(LOAD, ARCHITECTURE)];
    for (audit, ranges) in sections {
        let mut body = vec![op(LOAD, NUMBER)];
        emit_tree(&joined(ranges), &mut body);
        // Not this architecture: past its section.
        program.extend([jump(JUMP_EQUAL, *audit, 1, 0), op(JUMP, length(&body))]);
        program.extend(body);
    }
    // A call convention the profile does not know is a way around it.
    program.push(op(RETURN, if denies(default) { KILL_PROCESS } else { default }));
    program
}

/// The ranges, neighbours with the same decision made one.
fn joined(ranges: &BTreeMap<u32, Rc<Decision>>) -> Vec<(u32, Rc<Decision>)> {
    let mut joined: Vec<(u32, Rc<Decision>)> = Vec::new();
    for (start, decision) in ranges {
        if joined.last().is_none_or(|(_, last)| last != decision) {
            joined.push((*start, decision.clone()));
        }
    }
    joined
}

fn emit_tree(ranges: &[(u32, Rc<Decision>)], program: &mut Vec<Instruction>) {
    match ranges {
        [] => {}
        [(_, decision)] => emit_decision(decision, program),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let mut body = Vec::new();
            emit_tree(lower, &mut body);
            // A conditional jump reaches 255 instructions, this reaches all.
            program.extend([jump(JUMP_GREATER_EQUAL, upper[0].0, 0, 1), op(JUMP, length(&body))]);
            program.extend(body);
            emit_tree(upper, program);
        }
    }
}

fn emit_decision(decision: &Decision, program: &mut Vec<Instruction>) {
    for (tests, action) in &decision.conditions {
        // Built from the back: each test must know how far the end of the condition is.
        let mut body = vec![op(RETURN, *action)];
        for test in tests.iter().rev() {
            let mut code = emit_test(*test, u8::try_from(body.len()).unwrap_or(u8::MAX));
            code.extend(body);
            body = code;
        }
        program.extend(body);
    }
    program.push(op(RETURN, decision.otherwise.unwrap_or(KILL_PROCESS)));
}

/// One test: goes on behind itself if it holds, else `rest` instructions further (at most six tests of at most seven: a byte).
fn emit_test(test: Test, rest: u8) -> Vec<Instruction> {
    let (high, low) = halves(test.value);
    let (high_mask, low_mask) = halves(test.mask);
    let address = ARGUMENTS + 8 * test.index;
    let (load_low, load_high) = (op(LOAD, address), op(LOAD, address + 4));
    match test.operator {
        LinuxSeccompOperator::ScmpCmpEq => {
            vec![load_high, jump(JUMP_EQUAL, high, 0, 2 + rest), load_low, jump(JUMP_EQUAL, low, 0, rest)]
        }
        LinuxSeccompOperator::ScmpCmpNe => {
            vec![load_high, jump(JUMP_EQUAL, high, 0, 2), load_low, jump(JUMP_EQUAL, low, rest, 0)]
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => vec![
            load_high,
            op(AND, high_mask),
            jump(JUMP_EQUAL, high, 0, 3 + rest),
            load_low,
            op(AND, low_mask),
            jump(JUMP_EQUAL, low, 0, rest),
        ],
        LinuxSeccompOperator::ScmpCmpGe => {
            order(load_high, load_low, high, jump(JUMP_GREATER_EQUAL, low, 0, rest), rest, true)
        }
        LinuxSeccompOperator::ScmpCmpGt => {
            order(load_high, load_low, high, jump(JUMP_GREATER, low, 0, rest), rest, true)
        }
        LinuxSeccompOperator::ScmpCmpLt => {
            order(load_high, load_low, high, jump(JUMP_GREATER_EQUAL, low, rest, 0), rest, false)
        }
        LinuxSeccompOperator::ScmpCmpLe => {
            order(load_high, load_low, high, jump(JUMP_GREATER, low, rest, 0), rest, false)
        }
    }
}

/// An order of 64-bit numbers: the high halves decide unless they are equal.
fn order(
    load_high: Instruction,
    load_low: Instruction,
    high: u32,
    compare_low: Instruction,
    rest: u8,
    above: bool,
) -> Vec<Instruction> {
    let (greater, less) = if above { (3, 2 + rest) } else { (3 + rest, 2) };
    vec![load_high, jump(JUMP_GREATER, high, greater, 0), jump(JUMP_EQUAL, high, 0, less), load_low, compare_low]
}

fn halves(value: u64) -> (u32, u32) {
    (u32::try_from(value >> 32).unwrap_or(0), u32::try_from(value & 0xffff_ffff).unwrap_or(0))
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
