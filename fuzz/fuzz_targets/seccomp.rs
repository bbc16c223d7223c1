//! Profiles → BPF. What comes out must be what the kernel's verifier takes, and must answer any call as the rules read.
#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use linux::seccomp::{Instruction, MAX_INSTRUCTIONS};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

const NAMES: &[&str] =
    &["read", "write", "clone", "clone3", "socket", "openat2", "personality", "nosuch", "ioctl", "mseal", "socketcall"];
const ACTIONS: &[&str] = &[
    "SCMP_ACT_KILL",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_NOTIFY",
];
const OPERATORS: &[&str] =
    &["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ"];
const ARCHITECTURES: &[&str] =
    &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS"];

#[derive(Debug)]
struct Profile {
    json: Value,
    calls: Vec<(u32, u32, [u64; 6])>,
}

impl<'a> Arbitrary<'a> for Profile {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Profile> {
        let mut rules = Vec::new();
        for _ in 0..u.int_in_range(0..=12)? {
            let mut args = Vec::new();
            for _ in 0..u.int_in_range(0..=8)? {
                let (value, two): (u64, u64) = u.arbitrary()?;
                args.push(json!({"index": u.int_in_range(0..=7)?, "value": value, "valueTwo": two, "op": u.choose(OPERATORS)?}));
            }
            let mut names = Vec::new();
            for _ in 0..u.int_in_range(0..=4)? {
                names.push(*u.choose(NAMES)?);
            }
            let errno: Option<u32> = u.arbitrary()?;
            rules.push(json!({"names": names, "action": u.choose(ACTIONS)?, "errnoRet": errno, "args": args}));
        }
        let mut architectures = Vec::new();
        for _ in 0..u.int_in_range(0..=4)? {
            architectures.push(*u.choose(ARCHITECTURES)?);
        }
        let json = json!({"defaultAction": u.choose(ACTIONS)?, "architectures": architectures, "syscalls": rules});
        let calls = u.arbitrary::<Vec<_>>()?;
        Ok(Profile { json, calls })
    }
}

// Classic BPF, as seccomp's verifier takes it.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const BRANCHES: [u16; 3] = [0x15, 0x25, 0x35];
const RETURN: u16 = 0x06;

/// The rules of the kernel's bpf_check_classic and seccomp_check_filter.
fn verify(program: &[Instruction]) {
    assert!(!program.is_empty() && program.len() <= MAX_INSTRUCTIONS);
    assert_eq!(program.last().map(|last| last.code), Some(RETURN));
    for (at, i) in program.iter().enumerate() {
        let reaches = |distance: usize| assert!(at + 1 + distance < program.len(), "a jump out of the program at {at}");
        match i.code {
            LOAD => assert!(i.k < 64 && i.k.is_multiple_of(4)),
            JUMP => reaches(usize::try_from(i.k).expect("32 bits")),
            code if BRANCHES.contains(&code) => [i.jump_true, i.jump_false].into_iter().for_each(|d| reaches(d.into())),
            AND | RETURN => {}
            other => panic!("{other:#x} is not taken"),
        }
    }
}

fn run(program: &[Instruction], number: u32, audit: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => audit,
        8 | 12 => 0,
        _ => {
            let at = usize::try_from(offset - 16).expect("32 bits");
            u32::try_from(args[at / 8] >> (if at % 8 == 0 { 0 } else { 32 }) & 0xffff_ffff).expect("masked")
        }
    };
    let (mut at, mut a) = (0, 0);
    loop {
        let i = program[at];
        at += 1;
        let taken = match i.code {
            LOAD => {
                a = word(i.k);
                continue;
            }
            AND => {
                a &= i.k;
                continue;
            }
            JUMP => {
                at += usize::try_from(i.k).expect("32 bits");
                continue;
            }
            0x15 => a == i.k,
            0x25 => a > i.k,
            0x35 => a >= i.k,
            _ => return i.k,
        };
        at += usize::from(if taken { i.jump_true } else { i.jump_false });
    }
}

fuzz_target!(|profile: Profile| {
    let Ok(parsed) = serde_json::from_value::<LinuxSeccomp>(profile.json.clone()) else { return };
    let mut warnings = Vec::new();
    let Ok(runtime::seccomp::Compiled { program, .. }) = runtime::seccomp::compile(&parsed, &mut warnings) else { return };
    verify(&program);
    let known: Vec<u32> = ACTIONS
        .iter()
        .zip([0, 0x5_0000, 0x7fff_0000, 0x7ff0_0000, 0x7ffc_0000, 0x3_0000, 0x8000_0000, 0x7fc0_0000])
        .map(|(_, a)| a)
        .collect();
    for (number, audit, args) in profile.calls.iter().take(32) {
        for (number, audit) in [(*number, *audit), (number % 470, 0xc000_003e), (number % 470, 0x4000_0003)] {
            let answer = run(&program, number, audit, *args);
            assert!(known.contains(&(answer & 0xffff_0000)), "{answer:#x}");
        }
    }
});
