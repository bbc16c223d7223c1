//! A container's config as an OCI runtime spec: docker's defaults, edited.

mod limits;
mod privileges;

pub(crate) use limits::{rlimits, unlimited};
pub(crate) use privileges::{apparmor_profile, confine};

use crate::config::{ContainerConfig, MountPoint};
use crate::{EngineError, MountKind, NamespaceMode, NetworkMode, Result};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Mount, Process, Spec, User};
use runtime::ResolvedUser;
use std::path::{Path, PathBuf};

/// Files of the container's folder that are mounted into it, by name.
const FILES: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// What a spec is made from.
#[derive(Debug)]
pub(crate) struct SpecInput<'a> {
    pub(crate) config: &'a ContainerConfig,
    /// Resolved in the container's own files.
    pub(crate) user: ResolvedUser,
    /// `--group-add`, resolved.
    pub(crate) groups: Vec<u32>,
    /// The folder that holds hosts, hostname and resolv.conf.
    pub(crate) files: &'a Path,
    /// Namespaces of other containers to join, by file.
    pub(crate) joined: &'a [(LinuxNamespaceType, PathBuf)],
}

/// Makes the spec. Its warnings tell what could not be granted.
pub(crate) fn build(input: &SpecInput<'_>) -> Result<(Spec, Vec<String>)> {
    let config = input.config;
    let asked = &config.spec;
    let mut warnings = Vec::new();
    let mut spec = runtime::default_spec();
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut process = process(config, &input.user, &input.groups);
    process.set_rlimits(Some(limits::rlimits(&asked.ulimits)?));
    process.set_oom_score_adj(asked.oom_score_adj);
    privileges::apply(asked, &mut process, &mut linux)?;
    limits::resources(asked, &mut linux)?;
    limits::devices(asked, &mut linux)?;
    namespaces(config, input.joined, &mut linux);
    sysctls(config, &mut linux);

    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|mount| !config.mounts.iter().any(|own| Path::new(&own.target) == mount.destination()));
    if asked.privileged {
        writable_system_mounts(&mut mounts);
    }
    shm_size(asked.shm_size_bytes, &mut mounts);
    host_ipc(&asked.ipc, &mut mounts);
    // What is the engine's own holds ids as the container knows them.
    let maps = config.id_map.as_ref().is_some_and(|map| !map.is_identity()) && linux::userns::is_initial();
    mounts.extend(file_mounts(config, input.files).into_iter().map(|mount| if maps { mapped(mount) } else { mount }));
    let mut own: Vec<&MountPoint> = config.mounts.iter().collect();
    own.sort_by_key(|mount| Path::new(&mount.target).components().count());
    let is_own = |mount: &MountPoint| matches!(mount.kind, MountKind::Volume | MountKind::Image);
    mounts.extend(own.into_iter().map(|mount| match user_mount(mount) {
        bind if maps && is_own(mount) => mapped(bind),
        bind => bind,
    }));

    if let Some(root) = spec.root_mut() {
        root.set_readonly(Some(asked.read_only));
    }
    let own_uts = asked.uts == NamespaceMode::Private;
    let hostname = Some(config.hostname.clone()).filter(|name| own_uts && !name.is_empty());
    spec.set_hostname(hostname);
    spec.set_domainname(asked.domainname.clone().filter(|_| own_uts));
    spec.set_process(Some(process)).set_mounts(Some(mounts)).set_linux(Some(linux));
    if !asked.annotations.is_empty() {
        spec.set_annotations(Some(asked.annotations.clone().into_iter().collect()));
    }
    if asked.resources.oom_kill_disable {
        warnings.push("--oom-kill-disable has an effect with cgroup v1 only".to_owned());
    }
    Ok((spec, warnings))
}

/// Everything of a command line that can be wrong in a spec, found before a container is made of it.
pub(crate) fn check(asked: &crate::ContainerSpec) -> Result<()> {
    let mut linux = Linux::default();
    limits::rlimits(&asked.ulimits)?;
    privileges::check(asked)?;
    limits::resources(asked, &mut linux)?;
    limits::devices(asked, &mut linux)
}

fn process(config: &ContainerConfig, user: &ResolvedUser, groups: &[u32]) -> Process {
    let mut process = Process::default();
    process
        .set_terminal(Some(config.spec.tty))
        .set_user(oci_user(user, groups))
        .set_args(Some(config.argv.clone()))
        .set_env(Some(process_env(config, &user.home)))
        .set_cwd(working_dir(&config.workdir));
    process
}

/// Who the process runs as.
pub(crate) fn oci_user(user: &ResolvedUser, groups: &[u32]) -> User {
    let mut oci = User::default();
    let mut all = user.additional_gids.clone();
    all.extend(groups);
    all.sort_unstable();
    all.dedup();
    oci.set_uid(user.uid).set_gid(user.gid).set_additional_gids(Some(all));
    oci
}

/// The working directory, absolute.
pub(crate) fn working_dir(text: &str) -> PathBuf {
    Path::new("/").join(text)
}

/// The whole environment of the container's program: the config's and what is known only now, none of which overrides what
/// the user or image says.
pub(crate) fn process_env(config: &ContainerConfig, home: &str) -> Vec<String> {
    let mut env = config.env.clone();
    let mut default = |name: &str, value: &str, at: usize| {
        let set = env.iter().any(|line| line.split_once('=').is_some_and(|(known, _)| known == name));
        if !set && !value.is_empty() {
            env.insert(at.min(env.len()), format!("{name}={value}"));
        }
    };
    default("HOME", home, usize::MAX);
    default("TERM", if config.spec.tty { "xterm" } else { "" }, 1);
    default("HOSTNAME", &config.hostname, 1);
    env
}

fn namespaces(config: &ContainerConfig, joined: &[(LinuxNamespaceType, PathBuf)], linux: &mut Linux) {
    let asked = &config.spec;
    let host = |mode: &NamespaceMode| *mode == NamespaceMode::Host;
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| match namespace.typ() {
        LinuxNamespaceType::Network => asked.network != NetworkMode::Host,
        LinuxNamespaceType::Pid => !host(&asked.pid),
        LinuxNamespaceType::Ipc => !host(&asked.ipc),
        LinuxNamespaceType::Uts => !host(&asked.uts),
        LinuxNamespaceType::Cgroup => !host(&asked.cgroupns),
        _ => true,
    });
    for (kind, path) in joined {
        namespaces.retain(|namespace| namespace.typ() != *kind);
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(*kind).set_path(Some(path.clone()));
        namespaces.push(namespace);
    }
    linux.set_namespaces(Some(namespaces));
}

/// The default ones are set when the network namespace is made; here remain those that the user asks for.
fn sysctls(config: &ContainerConfig, linux: &mut Linux) {
    let asked = config.spec.sysctls.clone();
    linux.set_sysctl(Some(asked.into_iter().collect()));
}

fn writable_system_mounts(mounts: &mut [Mount]) {
    for mount in mounts {
        if matches!(mount.typ().as_deref(), Some("sysfs" | "cgroup")) {
            let options = mount.options().iter().flatten().filter(|option| *option != "ro").cloned().collect();
            mount.set_options(Some(options));
        }
    }
}

fn shm_size(size_bytes: Option<u64>, mounts: &mut [Mount]) {
    let Some(size) = size_bytes else { return };
    for mount in mounts.iter_mut().filter(|mount| mount.destination() == Path::new("/dev/shm")) {
        let mut options: Vec<String> =
            mount.options().iter().flatten().filter(|option| !option.starts_with("size=")).cloned().collect();
        options.push(format!("size={size}"));
        mount.set_options(Some(options));
    }
}

/// With the host's IPC namespace come its /dev/shm and message queues.
fn host_ipc(mode: &NamespaceMode, mounts: &mut [Mount]) {
    if *mode != NamespaceMode::Host {
        return;
    }
    for path in ["/dev/shm", "/dev/mqueue"] {
        for mount in mounts.iter_mut().filter(|mount| mount.destination() == Path::new(path)) {
            let options = ["rbind", "nosuid", "noexec", "nodev"].map(str::to_owned).to_vec();
            mount.set_typ(Some("bind".to_owned())).set_source(Some(path.into())).set_options(Some(options));
        }
    }
}

fn file_mounts(config: &ContainerConfig, folder: &Path) -> Vec<Mount> {
    let taken = |target: &str| config.mounts.iter().any(|mount| mount.target == target);
    let files = FILES.iter().filter(|(_, target)| !taken(target));
    files.map(|(name, target)| bind(&folder.join(name), target, config.spec.read_only, "rprivate", true)).collect()
}

/// A bind mount.
pub(crate) fn bind(source: &Path, target: &str, read_only: bool, propagation: &str, recursive: bool) -> Mount {
    let mut options = vec![if recursive { "rbind" } else { "bind" }.to_owned(), propagation.to_owned()];
    if read_only {
        options.push("ro".to_owned());
    }
    let mut mount = Mount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

/// A bind mount whose files have the container's ids.
fn mapped(mut bind: Mount) -> Mount {
    let mut options = bind.options().clone().unwrap_or_default();
    options.push("ridmap".to_owned());
    bind.set_options(Some(options));
    bind
}

/// A tmpfs with docker's options and these over them.
pub(crate) fn tmpfs(target: &str, read_only: bool, given: &[String]) -> Mount {
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    for option in given.iter().filter(|option| !option.is_empty()) {
        match option.as_str() {
            "exec" => options.retain(|o| o != "noexec"),
            "suid" => options.retain(|o| o != "nosuid"),
            "dev" => options.retain(|o| o != "nodev"),
            _ if options.contains(option) => {}
            _ => options.push(option.clone()),
        }
    }
    if !options.iter().any(|option| option.starts_with("mode=")) {
        options.push("mode=1777".to_owned());
    }
    if read_only {
        options.push("ro".to_owned());
    }
    let mut mount = Mount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some("tmpfs".to_owned()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(options));
    mount
}

fn user_mount(mount: &MountPoint) -> Mount {
    match mount.kind {
        MountKind::Tmpfs => tmpfs(&mount.target, mount.read_only, &mount.options),
        MountKind::Bind | MountKind::Volume | MountKind::Image => {
            let propagation = mount.propagation.as_deref().unwrap_or("rprivate");
            bind(&mount.source, &mount.target, mount.read_only, propagation, mount.recursive)
        }
    }
}

/// Gives the working directory to a container that lacks it, owned by root.
pub(crate) fn ensure_workdir(root: std::os::fd::BorrowedFd<'_>, workdir: &str) -> Result<()> {
    let path = working_dir(workdir);
    if path == Path::new("/") {
        return Ok(());
    }
    match linux::resolve::create_dir(root, &path, 0o755) {
        Ok(_) => Ok(()),
        Err(error) if error.errno == rustix::io::Errno::ROFS => Ok(()),
        Err(error) => Err(EngineError::Invalid(format!("cannot make the working directory {workdir:?}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{ContainerSpec, Resources};

    fn built(change: impl FnOnce(&mut ContainerConfig)) -> Spec {
        let spec = ContainerSpec::new("x");
        let argv = vec!["true".to_owned()];
        let mut config = ContainerConfig { argv, spec, hostname: "host".into(), ..ContainerConfig::default() };
        config.env = vec!["PATH=/bin".to_owned()];
        change(&mut config);
        let user = ResolvedUser { home: "/root".into(), ..ResolvedUser::default() };
        let files = Path::new("/files");
        build(&SpecInput { config: &config, user, groups: vec![5, 5], files, joined: &[] }).unwrap().0
    }

    fn mount_of(spec: &Spec, target: &str) -> Mount {
        let mounts = spec.mounts().clone().unwrap();
        let mut found = mounts.into_iter().filter(|mount| mount.destination() == Path::new(target));
        let mount = found.next().unwrap();
        assert!(found.next().is_none(), "{target} is mounted twice");
        mount
    }

    fn options(mount: &Mount) -> Vec<&str> {
        mount.options().iter().flatten().map(String::as_str).collect()
    }

    #[test]
    fn a_plain_container_has_dockers_environment_and_files() {
        let spec = built(|config| config.spec.tty = true);
        let process = spec.process().clone().unwrap();
        assert_eq!(process.env().clone().unwrap(), ["PATH=/bin", "HOSTNAME=host", "TERM=xterm", "HOME=/root"]);
        assert_eq!(process.user().additional_gids().clone().unwrap(), [5]);
        assert_eq!(mount_of(&spec, "/etc/hosts").source().as_deref(), Some(Path::new("/files/hosts")));
        assert_eq!(spec.hostname().as_deref(), Some("host"));
        let bounding = process.capabilities().clone().unwrap().bounding().clone().unwrap();
        assert_eq!(bounding.len(), 14);
        assert!(spec.linux().as_ref().unwrap().seccomp().is_some());
    }

    #[test]
    fn what_the_user_mounts_takes_the_place_of_a_default() {
        let spec = built(|config| {
            config.spec.shm_size_bytes = Some(1 << 20);
            config.mounts = vec![
                MountPoint {
                    kind: MountKind::Tmpfs,
                    target: "/a/b".into(),
                    options: vec!["exec".into()],
                    ..Default::default()
                },
                MountPoint {
                    kind: MountKind::Bind,
                    source: "/src".into(),
                    target: "/etc/hosts".into(),
                    read_only: true,
                    recursive: true,
                    ..Default::default()
                },
            ];
        });
        assert_eq!(options(&mount_of(&spec, "/etc/hosts")), ["rbind", "rprivate", "ro"]);
        assert!(options(&mount_of(&spec, "/dev/shm")).contains(&"size=1048576"));
        assert!(!options(&mount_of(&spec, "/a/b")).contains(&"noexec"));
    }

    #[test]
    fn limits_and_privileges() {
        let spec = built(|config| {
            config.spec.privileged = true;
            config.spec.network = NetworkMode::Host;
            config.spec.resources =
                Resources { memory_bytes: Some(64 << 20), nano_cpus: Some(1_500_000_000), ..Resources::default() };
        });
        let linux = spec.linux().clone().unwrap();
        let resources = linux.resources().clone().unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(150_000));
        assert!(linux.seccomp().is_none() && linux.masked_paths().iter().flatten().next().is_none());
        assert!(!linux.namespaces().iter().flatten().any(|n| n.typ() == LinuxNamespaceType::Network));
        assert!(!options(&mount_of(&spec, "/sys")).contains(&"ro"));
    }
}
