//! The compiler against a BPF interpreter and a plain reading of the rules.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::*;
use crate::seccomp::default_profile;
use oci_spec::runtime::{Capability, LinuxSyscall};
use proptest::prelude::*;
use std::collections::HashSet;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = RETURN_ERRNO | 1;
const ENOSYS: u32 = RETURN_ERRNO | 38;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// What the kernel's interpreter does with a filter.
fn run(program: &[Instruction], number: u32, audit: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => audit,
        _ => {
            let at = (offset - ARGUMENTS) as usize;
            (args[at / 8] >> (if at.is_multiple_of(8) { 0 } else { 32 })) as u32
        }
    };
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let mut branch = |taken: bool| at += usize::from(if taken { i.jump_true } else { i.jump_false });
        match i.code {
            LOAD => a = word(i.k),
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            JUMP_EQUAL => branch(a == i.k),
            JUMP_GREATER => branch(a > i.k),
            JUMP_GREATER_EQUAL => branch(a >= i.k),
            RETURN => return i.k,
            other => unreachable!("{other:#x}"),
        }
    }
}

fn program(profile: &LinuxSeccomp) -> Vec<Instruction> {
    compile(profile, &mut Vec::new()).unwrap().program
}

fn default_program(capabilities: &[Capability]) -> Vec<Instruction> {
    program(&default_profile(&capabilities.iter().copied().collect::<HashSet<_>>()))
}

fn call(program: &[Instruction], name: &str, args: [u64; 6]) -> u32 {
    run(program, number(name, 0).unwrap(), X86_64, args)
}

#[test]
fn the_table_is_sorted_and_agrees_with_libc() {
    assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    if std::env::consts::ARCH == "x86_64" {
        for (name, is) in [("read", 0), ("clone3", 435), ("seccomp", 317), ("mseal", 462), ("openat2", 437)] {
            assert_eq!(number(name, 0), Some(is), "{name}");
        }
    }
    assert_eq!((number("socketcall", 1), number("socketcall", 0)), (Some(102), None));
}

#[test]
fn docker_s_profile_answers_as_docker_s() {
    let plain = default_program(&[]);
    assert!(plain.len() < 1500, "{}", plain.len());
    let any = [0; 6];
    for name in ["read", "execve", "openat", "statx", "futex_waitv", "ptrace", "arch_prctl", "modify_ldt"] {
        assert_eq!(call(&plain, name, any), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "bpf",
        "reboot",
        "init_module",
        "keyctl",
        "add_key",
        "unshare",
        "setns",
        "kexec_load",
        "io_uring_setup",
        "userfaultfd",
        "chroot",
        "swapon",
    ] {
        assert_eq!(call(&plain, name, any), EPERM, "{name}");
    }
    assert_eq!(call(&plain, "clone3", any), ENOSYS);
    assert_eq!(call(&plain, "clone", [0x11, 0, 0, 0, 0, 0]), ALLOW);
    for flag in [0x1000_0000u64, 0x0002_0000, 0x4000_0000, 0x0200_0000] {
        assert_eq!(call(&plain, "clone", [flag | 0x11, 0, 0, 0, 0, 0]), EPERM);
    }
    for (persona, answer) in
        [(0, ALLOW), (8, ALLOW), (0x2_0000, ALLOW), (0xffff_ffff, ALLOW), (0x4_0000, EPERM), (1 << 32, EPERM)]
    {
        assert_eq!(call(&plain, "personality", [persona, 0, 0, 0, 0, 0]), answer, "{persona:#x}");
    }
    for (family, answer) in [
        (1, ALLOW),
        (2, ALLOW),
        (10, ALLOW),
        (16, ALLOW),
        (17, ALLOW),
        (38, EPERM),
        (40, EPERM),
        (1 << 32, EPERM),
        ((1 << 32) | 38, EPERM),
    ] {
        assert_eq!(call(&plain, "socket", [family, 0, 0, 0, 0, 0]), answer, "{family}");
    }
    assert_eq!(run(&plain, 460, X86_64, any), EPERM, "known, not allowed: lsm_set_self_attr");
    assert_eq!(run(&plain, 600, X86_64, any), ENOSYS, "younger than the profile");
    assert_eq!(run(&plain, X32_BIT, X86_64, any), ALLOW, "x32's read");
    assert_eq!(run(&plain, X32_BIT | 520, X86_64, any), ALLOW, "x32's own execve");
    assert_eq!(run(&plain, 102, I386, any), ALLOW, "socketcall");
    assert_eq!(run(&plain, 21, I386, any), EPERM, "mount");
    assert_eq!(run(&plain, 0, 0x1234, any), KILL_PROCESS);

    let admin = default_program(&[Capability::SysAdmin, Capability::SysChroot]);
    for name in ["mount", "clone3", "unshare", "chroot"] {
        assert_eq!(call(&admin, name, any), ALLOW, "{name}");
    }
    assert_eq!(call(&admin, "clone", [0x1000_0000, 0, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn every_number_is_answered_as_the_rules_say() {
    let profile = default_profile(&HashSet::new());
    let program = program(&profile);
    let allowed = |column: usize| -> HashSet<u32> {
        let rules =
            profile.syscalls().iter().flatten().filter(|rule| rule.args().is_none() && rule.errno_ret().is_none());
        rules.flat_map(|rule| rule.names()).filter_map(|name| number(name, column)).collect()
    };
    for (column, audit, base) in [(0, X86_64, 0), (1, I386, 0), (2, X86_64, X32_BIT)] {
        let allowed = allowed(column);
        for n in 0..=number("removexattrat", column).unwrap() {
            let special =
                ["clone", "clone3", "personality", "socket"].iter().any(|name| number(name, column) == Some(n));
            if !special {
                let answer = run(&program, base + n, audit, [0; 6]);
                assert_eq!(answer == ALLOW, allowed.contains(&n), "column {column}, number {n}: {answer:#x}");
            }
        }
    }
}

#[test]
fn an_allow_by_default_profile_forbids_what_it_names() {
    let mut rule = LinuxSyscall::default();
    rule.set_names(vec!["mkdir".into(), "no_such_call".into()])
        .set_action(LinuxSeccompAction::ScmpActErrno)
        .set_errno_ret(Some(13));
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActAllow).set_syscalls(Some(vec![rule]));
    let program = program(&profile);
    assert_eq!(call(&program, "mkdir", [0; 6]), RETURN_ERRNO | 13);
    assert_eq!(call(&program, "read", [0; 6]), ALLOW);
    assert_eq!(run(&program, 9999, X86_64, [0; 6]), ALLOW);
}

fn holds(test: &Test, args: &[u64; 6]) -> bool {
    let value = args[test.index as usize];
    match test.operator {
        LinuxSeccompOperator::ScmpCmpEq => value == test.value,
        LinuxSeccompOperator::ScmpCmpNe => value != test.value,
        LinuxSeccompOperator::ScmpCmpLt => value < test.value,
        LinuxSeccompOperator::ScmpCmpLe => value <= test.value,
        LinuxSeccompOperator::ScmpCmpGe => value >= test.value,
        LinuxSeccompOperator::ScmpCmpGt => value > test.value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => value & test.mask == test.value,
    }
}

fn operators() -> impl Strategy<Value = LinuxSeccompOperator> {
    prop::sample::select(vec![
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpNe,
        LinuxSeccompOperator::ScmpCmpLt,
        LinuxSeccompOperator::ScmpCmpLe,
        LinuxSeccompOperator::ScmpCmpGe,
        LinuxSeccompOperator::ScmpCmpGt,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
    ])
}

/// Numbers whose halves often agree, so that every branch is met.
fn values() -> impl Strategy<Value = u64> {
    (0u64..3, 0u64..3).prop_map(|(high, low)| high << 32 | low)
}

proptest! {
    #[test]
    fn conditions_hold_as_in_arithmetic(
        rules in prop::collection::vec((prop::collection::vec((0u32..6, operators(), values(), values()), 1..6), 1u32..9), 0..6),
        args in prop::array::uniform6(values()),
    ) {
        let conditions: Vec<(Vec<Test>, u32)> = rules.into_iter().map(|(tests, action)| {
            (tests.into_iter().map(|(index, operator, value, mask)| Test { index, operator, value, mask }).collect(), action)
        }).collect();
        let expected = conditions.iter().find(|(tests, _)| tests.iter().all(|test| holds(test, &args))).map_or(99, |(_, action)| *action);
        let mut program = Vec::new();
        emit_decision(&Decision { conditions, otherwise: Some(99) }, &mut program);
        prop_assert_eq!(run(&program, 0, 0, args), expected);
    }
}
