//! The AppArmor profile of containers that nobody has named one for. The kernel takes profiles compiled alone, so it comes to it by
//! way of AppArmor's own parser, once after each boot; where there is none, containers are as free as they were before.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What is loaded stays until the next boot: another text takes another name.
const NAME: &str = "ctr-default";

/// There where the kernel enforces profiles.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// All that masked and read-only paths and the missing capabilities hold back, once more: it also holds where one of those is
/// given up (`systempaths=unconfined`, a capability too many). Containers may do anything else.
const PROFILE: &str = r"
profile ctr-default flags=(attach_disconnected, mediate_deleted) {
  file,
  network,
  unix,
  capability,
  umount,
  deny mount,

  # Signals from the host, and all among themselves.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=ctr-default,
  ptrace (read, trace, readby, tracedby) peer=ctr-default,

  # The machine's files and folders in /proc; not the processes' and those of sys.
  deny /proc/* w,
  deny /proc/[^1-9st]*/** w,
  deny /proc/{scsi,tty,sysvipc}/** w,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,

  # Settings, but for those of the container's own namespaces: net, and in kernel the ones of ipc and names.
  deny /proc/sys/[^kn]** w,
  deny /proc/sys/kernel/[^dhms]** w,
  deny /proc/sys/kernel/d[^o]** w,
  deny /proc/sys/kernel/h[^o]** w,
  deny /proc/sys/kernel/hotplug w,
  deny /proc/sys/kernel/m[^s]** w,
  deny /proc/sys/kernel/s[^eh]** w,

  # Devices, drivers and the kernel's own state; control groups have rules of their own.
  deny /sys/[^f]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Whether the kernel enforces profiles.
pub fn is_on() -> bool {
    std::path::Path::new(PROFILES).exists()
}

/// The profile of a container without one by name: None where it is not loaded.
pub(crate) fn default_profile() -> Option<String> {
    (linux::userns::is_initial() && is_loaded()).then(|| NAME.to_owned())
}

fn is_loaded() -> bool {
    let loaded = std::fs::read_to_string(PROFILES).unwrap_or_default();
    loaded.lines().any(|line| line.strip_prefix(NAME).is_some_and(|mode| mode.starts_with(" (")))
}

/// Loads it where the kernel has AppArmor on and lacks it. Without the parser or the right to, nothing is said: nobody asked for it.
pub(crate) fn load_default(search_path: &OsStr) {
    if !is_on() || !linux::userns::is_initial() || is_loaded() {
        return;
    }
    let Some(parser) = crate::rootless::find_program(search_path, "apparmor_parser") else { return };
    let mut command = Command::new(parser);
    command.args(["--replace", "--skip-cache"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    // What it could not do shows in what is loaded.
    let _written = child.stdin.take().map(|mut stdin| stdin.write_all(PROFILE.as_bytes()));
    let _ended = child.wait();
}
