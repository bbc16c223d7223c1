//! A request, worked out: all that can be known to be wrong is found before anything is made.

use crate::cgroup::{Folder, Membership};
use crate::container::{CgroupRequest, CreateRequest, Identity, MountSource, Root, Stdio};
use crate::mount_options::{self, MountOptions};
use crate::process::ProcessPlan;
use crate::{Cgroup, OCI_VERSION, RuntimeError, idmap, net_devices, sysctl};
use linux::process::Namespaces;
use linux::{mount, resolve};
use oci_spec::runtime::{Hook, Linux, LinuxDevice, LinuxNamespaceType, Mount, Spec};
use rustix::fs::OFlags;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A mount of the spec.
pub(crate) struct PlannedMount {
    pub(crate) wanted: Mount,
    pub(crate) options: MountOptions,
    /// Its source, where that had to be prepared.
    pub(crate) source: Option<OwnedFd>,
}

/// What the init carries out.
pub(crate) struct Plan<'a> {
    pub(crate) root: Root,
    pub(crate) root_read_only: bool,
    pub(crate) propagation: (u64, bool),
    pub(crate) stdio: Stdio,
    pub(crate) netns: Option<BorrowedFd<'a>>,
    pub(crate) created: Namespaces,
    pub(crate) new_cgroup_namespace: bool,
    /// A new time namespace with these offsets.
    pub(crate) clocks: Option<String>,
    /// Made or joined.
    pub(crate) own_cgroup_namespace: bool,
    pub(crate) joined: Vec<(Namespaces, PathBuf, OwnedFd)>,
    /// The init was born in its namespaces and groups.
    pub(crate) is_entered: bool,
    pub(crate) in_user_namespace: bool,
    /// The maker is not root of the machine.
    pub(crate) by_ordinary_user: bool,
    pub(crate) mounts: Vec<PlannedMount>,
    pub(crate) mount_sources: Vec<MountSource>,
    pub(crate) devices: &'a [LinuxDevice],
    pub(crate) dev_is_bound: bool,
    pub(crate) masked_paths: &'a [String],
    pub(crate) read_only_paths: &'a [String],
    pub(crate) sysctls: Vec<(&'a str, PathBuf, &'a str)>,
    pub(crate) hostname: Option<&'a str>,
    pub(crate) domainname: Option<&'a str>,
    pub(crate) process: ProcessPlan,
    pub(crate) membership: Membership,
    pub(crate) cgroup_folders: Vec<Folder>,
    /// The group is made around the init: until then its folder is the hierarchy's.
    pub(crate) group_follows: bool,
    pub(crate) die_with_parent: bool,
    pub(crate) reaper: bool,
    pub(crate) extra_fds: Vec<OwnedFd>,
    pub(crate) listener: Option<OwnedFd>,
    /// The session keyring to join.
    pub(crate) keyring: Option<CString>,
    pub(crate) no_pivot: bool,
    pub(crate) identity: Identity<'a>,
    pub(crate) awaits_devices: bool,
    pub(crate) has_runtime_hooks: bool,
    /// In the container's namespaces, with the host's paths.
    pub(crate) container_hooks: &'a [Hook],
    /// In the container, right before the program.
    pub(crate) start_hooks: &'a [Hook],
}

impl Plan<'_> {
    pub(crate) fn joins_user_namespace(&self) -> bool {
        self.joined.iter().any(|(kind, ..)| *kind == Namespaces::USER)
    }
}

pub(crate) fn namespace_of(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NETWORK,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

/// The spec's namespaces, sorted into those made and those joined.
struct WantedNamespaces<'a> {
    created: Namespaces,
    joined: Vec<(Namespaces, &'a Path)>,
}

impl WantedNamespaces<'_> {
    fn own(&self, kind: LinuxNamespaceType) -> bool {
        let kind = namespace_of(kind);
        self.created.contains(kind) || self.joined.iter().any(|(have, ..)| *have == kind)
    }

    fn open(&self) -> Result<Vec<(Namespaces, PathBuf, OwnedFd)>, RuntimeError> {
        let open = |(kind, path): &(Namespaces, &Path)| {
            Ok((*kind, path.to_path_buf(), resolve::open_host(path, OFlags::RDONLY)?))
        };
        self.joined.iter().map(open).collect()
    }
}

fn namespaces(linux: Option<&Linux>, netns: bool) -> Result<WantedNamespaces<'_>, RuntimeError> {
    let mut wanted = WantedNamespaces { created: Namespaces::none(), joined: Vec::new() };
    let mut seen = Namespaces::none();
    for namespace in linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default() {
        let kind = namespace_of(namespace.typ());
        if seen.contains(kind) {
            return Err(RuntimeError::Spec(format!("namespace {} is given twice", namespace.typ())));
        }
        seen = seen.with(kind);
        if kind == Namespaces::NETWORK && netns {
            continue;
        }
        match namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
            None => wanted.created = wanted.created.with(kind),
            Some(path) => wanted.joined.push((kind, path)),
        }
    }
    if !seen.contains(Namespaces::MOUNT) {
        return Err(RuntimeError::Spec("a container needs a mount namespace of its own".to_owned()));
    }
    Ok(wanted)
}

/// What a spec says, as far as it can be known to be right without looking at the machine.
struct Checked<'a> {
    namespaces: WantedNamespaces<'a>,
    sysctls: Vec<(&'a str, PathBuf, &'a str)>,
    mounts: Vec<(&'a Mount, MountOptions)>,
    clocks: Option<String>,
    propagation: (u64, bool),
    process: ProcessPlan,
}

/// Whether a container could be made of a spec, as far as the spec itself tells: nothing is made, and nothing opened but the
/// way to the agent of a filter that asks one.
///
/// The warnings are those of [`crate::create`].
pub fn check(spec: &Spec) -> Result<Vec<String>, RuntimeError> {
    let mut warnings = Vec::new();
    checked(spec, false, &mut warnings).map(|_| warnings)
}

fn checked<'a>(spec: &'a Spec, netns: bool, warnings: &mut Vec<String>) -> Result<Checked<'a>, RuntimeError> {
    let linux = spec.linux().as_ref();
    if !spec.version().starts_with("1.") {
        let version = spec.version();
        return Err(RuntimeError::Spec(format!("ociVersion {version:?} is not supported: 1.0.0 to {OCI_VERSION} are")));
    }
    let process = spec.process().as_ref().ok_or_else(|| RuntimeError::Spec("process is missing".to_owned()))?;
    let namespaces = namespaces(linux, netns)?;
    if let Some(linux) = linux {
        check_supported(linux, namespaces.created)?;
    }
    let owns = |kind| namespaces.own(kind) || (kind == LinuxNamespaceType::Network && netns);
    if let Some(devices) = linux.and_then(|linux| linux.net_devices().as_ref()) {
        net_devices::check(devices, owns(LinuxNamespaceType::Network))?;
    }
    let sysctls = linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten();
    let sysctls = sysctls
        .map(|(name, value)| Ok((name.as_str(), sysctl::file(name, value, owns)?, value.as_str())))
        .collect::<Result<Vec<_>, RuntimeError>>()?;
    for (name, what) in [(spec.hostname(), "hostname"), (spec.domainname(), "domainname")] {
        if name.as_deref().is_some_and(|name| !name.is_empty()) && !owns(LinuxNamespaceType::Uts) {
            return Err(RuntimeError::Spec(format!("{what} needs a UTS namespace of the container's own")));
        }
    }
    let filter = linux.and_then(|linux| linux.seccomp().as_ref());
    let process = ProcessPlan::new(process, filter, linux, warnings)?;
    let clocks = clocks(linux, namespaces.created)?;
    Ok(Checked { propagation: root_propagation(linux)?, mounts: mounts(spec)?, namespaces, sysctls, clocks, process })
}

pub(crate) fn plan<'a>(
    request: CreateRequest<'a>,
    cgroup: &Cgroup,
    warnings: &mut Vec<String>,
) -> Result<Plan<'a>, RuntimeError> {
    let spec = request.spec;
    let linux = spec.linux().as_ref();
    let Checked { namespaces, sysctls, mounts, clocks, propagation, process } =
        checked(spec, request.netns.is_some(), warnings)?;
    let group_follows = matches!(request.cgroup, CgroupRequest::Systemd(_));
    let joined = namespaces.open()?;
    let created = namespaces.created;
    let own_users = created.contains(Namespaces::USER) || joined.iter().any(|(kind, ..)| *kind == Namespaces::USER);
    let with_source = |(wanted, options): (&Mount, MountOptions)| {
        let source = idmap::source(wanted, &options, linux)?.or_else(|| {
            // Its init may not be let through to them. Where this fails it tries itself, and says why.
            let recursive = bind_of(wanted, &options).filter(|_| own_users && created.contains(Namespaces::MOUNT))?;
            mount::clone_tree(wanted.source().as_deref()?, recursive).ok()
        });
        Ok(PlannedMount { wanted: wanted.clone(), options, source })
    };
    let mounts = mounts.into_iter().map(with_source).collect::<Result<Vec<_>, RuntimeError>>()?;
    let is_bound_dev = |mount: &PlannedMount| {
        let bind = mount.options.bind.is_some() || mount.wanted.typ().as_deref() == Some("bind");
        mount.wanted.destination() == Path::new("/dev") && bind
    };
    let name = |name: &'a Option<String>| name.as_deref().filter(|name| !name.is_empty());
    Ok(Plan {
        root_read_only: spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)),
        propagation,
        netns: request.netns,
        by_ordinary_user: !linux::userns::is_machines_root(),
        in_user_namespace: !linux::userns::is_initial() || own_users,
        own_cgroup_namespace: namespaces.own(LinuxNamespaceType::Cgroup),
        new_cgroup_namespace: created.contains(Namespaces::CGROUP),
        clocks,
        created: created.without(Namespaces::CGROUP).without(Namespaces::TIME),
        joined,
        is_entered: false,
        dev_is_bound: mounts.iter().any(is_bound_dev),
        mounts,
        devices: linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default(),
        masked_paths: linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default(),
        read_only_paths: linux.and_then(|linux| linux.readonly_paths().as_deref()).unwrap_or_default(),
        sysctls,
        hostname: name(spec.hostname()),
        domainname: name(spec.domainname()),
        process,
        membership: cgroup.membership()?,
        cgroup_folders: if group_follows { vec![Cgroup::hierarchy_of_scopes()?] } else { cgroup.folders().to_vec() },
        group_follows,
        keyring: (!request.no_new_keyring).then(|| keyring_name(request.id)),
        no_pivot: request.no_pivot,
        identity: Identity { id: request.id, bundle: request.bundle, annotations: spec.annotations().as_ref() },
        awaits_devices: linux.and_then(|linux| linux.net_devices().as_ref()).is_some_and(|all| !all.is_empty()),
        has_runtime_hooks: spec.hooks().as_ref().is_some_and(|hooks| {
            #[allow(deprecated)] // Deprecated by the spec, still used by GPU toolkits.
            let prestart = hooks.prestart();
            [prestart, hooks.create_runtime()].iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
        }),
        container_hooks: spec
            .hooks()
            .as_ref()
            .and_then(|hooks| hooks.create_container().as_deref())
            .unwrap_or_default(),
        start_hooks: spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_deref()).unwrap_or_default(),
        root: request.root,
        stdio: request.stdio,
        mount_sources: request.mount_sources,
        die_with_parent: request.die_with_parent,
        reaper: request.init,
        extra_fds: request.extra_fds,
        listener: None,
    })
}

/// Whether a mount is a bind, and then whether with all below it.
pub(crate) fn bind_of(wanted: &Mount, options: &MountOptions) -> Option<bool> {
    let is_bind = wanted.typ().as_deref().unwrap_or("bind") == "bind";
    options.bind.or(is_bind.then_some(true))
}

fn mounts(spec: &Spec) -> Result<Vec<(&Mount, MountOptions)>, RuntimeError> {
    let linux = spec.linux().as_ref();
    // Where nobody enforces labels the kernel takes none.
    let label = linux.and_then(|linux| linux.mount_label().as_deref()).filter(|label| !label.is_empty());
    let label = label.filter(|_| Path::new("/sys/fs/selinux/enforce").exists());
    let mut planned = Vec::new();
    for wanted in spec.mounts().iter().flatten() {
        if !wanted.destination().is_absolute() {
            return Err(RuntimeError::Spec(format!("mount destination {:?} must be absolute", wanted.destination())));
        }
        let mut options = MountOptions::parse(wanted.options().iter().flatten().map(String::as_str));
        let kind = wanted.typ().as_deref().unwrap_or_default();
        if let Some(label) = label.filter(|_| matches!(kind, "tmpfs" | "devpts" | "mqueue") && options.bind.is_none()) {
            options.data.push(("context".to_owned(), Some(label.to_owned())));
        }
        if options.copy_up && (kind != "tmpfs" || options.bind.is_some()) {
            let destination = wanted.destination().display();
            return Err(RuntimeError::Spec(format!("mount {destination}: tmpcopyup is for tmpfs only")));
        }
        planned.push((wanted, options));
    }
    Ok(planned)
}

/// What this runtime can't do is refused, not left out.
fn check_supported(linux: &Linux, created: Namespaces) -> Result<(), RuntimeError> {
    if let Some(rdt) = linux.intel_rdt() {
        let plain = |id: &String| !id.is_empty() && id != "." && id != ".." && !id.contains(['/', '\n']);
        if rdt.clos_id().as_ref().is_some_and(|id| !plain(id)) {
            return Err(RuntimeError::Spec("linux.intelRdt: closID must be a plain name".to_owned()));
        }
        let mut schemata = rdt.schemata().iter().flatten().chain(rdt.l3_cache_schema()).chain(rdt.mem_bw_schema());
        if schemata.any(|line| line.contains('\n')) {
            return Err(RuntimeError::Spec("linux.intelRdt: a schema is one line".to_owned()));
        }
        return Err(RuntimeError::Spec("linux.intelRdt is not supported: leave it out".to_owned()));
    }
    if linux.time_offsets().as_ref().is_some_and(|all| !all.is_empty()) && !created.contains(Namespaces::TIME) {
        return Err(RuntimeError::Spec("linux.timeOffsets needs a new time namespace".to_owned()));
    }
    Ok(())
}

/// The lines of /proc/self/timens_offsets, if there is a new time namespace.
fn clocks(linux: Option<&Linux>, created: Namespaces) -> Result<Option<String>, RuntimeError> {
    if !created.contains(Namespaces::TIME) {
        return Ok(None);
    }
    let mut lines = String::new();
    for (clock, offset) in linux.and_then(|linux| linux.time_offsets().as_ref()).into_iter().flatten() {
        let (seconds, ns) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if !matches!(clock.as_str(), "monotonic" | "boottime") || ns >= 1_000_000_000 {
            return Err(RuntimeError::Spec(format!("linux.timeOffsets: {clock} {seconds} s {ns} ns")));
        }
        lines += &format!("{clock} {seconds} {ns}\n");
    }
    Ok(Some(lines))
}

fn root_propagation(linux: Option<&Linux>) -> Result<(u64, bool), RuntimeError> {
    match linux.and_then(|linux| linux.rootfs_propagation().as_deref()).filter(|name| !name.is_empty()) {
        None => Ok((mount::PRIVATE, true)),
        Some(name) => mount_options::propagation(name)
            .ok_or_else(|| RuntimeError::Spec(format!("rootfsPropagation {name:?} is not a propagation"))),
    }
}

/// The name of a container's session keyring, runc's.
pub(crate) fn keyring_name(id: &str) -> CString {
    CString::new(format!("_ses.{id}")).unwrap_or_default()
}
