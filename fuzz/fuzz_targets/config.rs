//! config.json → checked spec. Bytes alone would hardly ever be a config: they choose what is changed in the default one – a
//! value anywhere in it, for one of another kind – and the rest is taken as JSON text to put there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::sync::LazyLock;

static DEFAULT: LazyLock<Value> = LazyLock::new(|| {
    let mut spec = serde_json::to_value(runtime::default_spec()).expect("our own spec is JSON");
    // Every field that a check looks at should be there to be changed.
    spec["process"]["rlimits"] = serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]);
    spec["process"]["user"]["additionalGids"] = serde_json::json!([1, 2]);
    spec["linux"]["sysctl"] = serde_json::json!({"net.ipv4.ip_forward": "1"});
    spec["linux"]["rootfsPropagation"] = "rslave".into();
    spec["hooks"] = serde_json::json!({"prestart": [{"path": "/bin/true", "timeout": 1}]});
    spec
});

/// The places of a document, by pointer.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            pointers(value, &format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        // The first few are as good as all: docker's filter alone has hundreds.
        Value::Array(items) => items.iter().take(4).enumerate().for_each(|(at, item)| {
            pointers(item, &format!("{here}/{at}"), found);
        }),
        _ => {}
    }
}

static POINTERS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut found = Vec::new();
    pointers(&DEFAULT, "", &mut found);
    found
});

/// Each line changes one place: two bytes say where, the rest what to.
fn changed(data: &[u8]) -> Value {
    let mut spec = DEFAULT.clone();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        let [low, high, rest @ ..] = line else { continue };
        let at = usize::from(u16::from_le_bytes([*low, *high])) % POINTERS.len();
        let Some(place) = spec.pointer_mut(&POINTERS[at]) else { continue };
        let text = || Value::String(String::from_utf8_lossy(rest).into_owned());
        *place = serde_json::from_slice(rest).unwrap_or_else(|_| text());
    }
    spec
}

fuzz_target!(|data: &[u8]| {
    for json in [serde_json::to_vec(&changed(data)).unwrap_or_default(), data.to_vec()] {
        let Ok(spec) = serde_json::from_slice::<oci_spec::runtime::Spec>(&json) else { continue };
        // That would connect to whatever has this name here.
        let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        if filter.is_some_and(|filter| filter.listener_path().is_some()) {
            continue;
        }
        let Ok(warnings) = runtime::check(&spec) else { continue };
        assert!(warnings.len() <= 4096, "as many warnings as the config pleases");
        // What a checked spec promises.
        let process = spec.process().as_ref().expect("checked");
        assert!(process.cwd().is_absolute());
        assert!(process.user().uid() != u32::MAX && process.user().gid() != u32::MAX);
        assert!(
            process.args().as_ref().is_some_and(|args| !args.is_empty() && args.iter().all(|arg| !arg.contains('\0')))
        );
        for (name, value) in spec.linux().iter().filter_map(|linux| linux.sysctl().as_ref()).flatten() {
            assert!(!name.contains("..") && !name.contains('\n') && !value.contains('\n'), "{name}={value}");
        }
        assert!(spec.mounts().iter().flatten().all(|mount| mount.destination().is_absolute()));
    }
});
