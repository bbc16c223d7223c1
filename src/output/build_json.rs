//! `build --progress=rawjson`: every event as a line of JSON on standard error, in the shape of BuildKit's status: what of
//! `vertexes` (steps), `statuses` (progress within them), `logs` (output, base64) and `warnings` is news.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use builder::{BuildEvent, OutputStream, StepId};
use jiff::Timestamp;
use oci::Digest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// The stream's state: what each step was announced as.
pub(crate) struct BuildJson {
    steps: Mutex<BTreeMap<StepId, (String, String)>>,
}

impl BuildJson {
    pub(crate) fn new() -> BuildJson {
        BuildJson { steps: Mutex::new(BTreeMap::new()) }
    }

    /// Writes an event's line.
    pub(crate) fn event(&self, event: &BuildEvent) {
        let line = self.line(event, &Timestamp::now().to_string());
        // Who reads no more does not stop the build.
        let _gone = writeln!(std::io::stderr().lock(), "{line}");
    }

    fn line(&self, event: &BuildEvent, now: &str) -> Value {
        match event {
            BuildEvent::StepStarted { step, name } => {
                self.steps.lock().unwrap_or_else(PoisonError::into_inner).insert(*step, (name.clone(), now.to_owned()));
                self.vertex(*step, json!({}))
            }
            BuildEvent::Output { step, stream, bytes } => {
                let stream = if *stream == OutputStream::Stdout { 1 } else { 2 };
                let data = STANDARD.encode(bytes);
                json!({ "logs": [{ "vertex": vertex_id(*step), "stream": stream, "data": data, "timestamp": now }] })
            }
            BuildEvent::Progress { step, what, done_bytes, total_bytes } => json!({ "statuses": [{
                "id": what, "vertex": vertex_id(*step), "current": done_bytes, "total": total_bytes, "timestamp": now,
            }] }),
            BuildEvent::CacheMiss { step, why } => json!({ "statuses": [{
                "id": "not cached", "vertex": vertex_id(*step), "name": why, "timestamp": now,
            }] }),
            BuildEvent::StepDone { step, cached, .. } => {
                self.vertex(*step, json!({ "completed": now, "cached": cached }))
            }
            BuildEvent::StepFailed { step, message, .. } => {
                self.vertex(*step, json!({ "completed": now, "error": message }))
            }
            BuildEvent::Warning(warning) => json!({ "warnings": [{
                "rule": warning.rule, "short": warning.message, "location": warning.location,
            }] }),
        }
    }

    /// A step with what is known of it and what is new.
    fn vertex(&self, step: StepId, news: Value) -> Value {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, started) = steps.get(&step).cloned().unwrap_or_default();
        let mut vertex = json!({ "digest": vertex_id(step), "name": name, "started": started });
        if let (Value::Object(vertex), Value::Object(news)) = (&mut vertex, news) {
            vertex.extend(news);
        }
        json!({ "vertexes": [vertex] })
    }
}

/// Steps are told apart by a digest, as BuildKit's are.
fn vertex_id(step: StepId) -> Digest {
    Digest::sha256(format!("step {}", step.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_by_the_same_digest() {
        let stream = BuildJson::new();
        let step = StepId(3);
        let started = stream.line(&BuildEvent::StepStarted { step, name: "RUN x".to_owned() }, "then");
        let log = BuildEvent::Output { step, stream: OutputStream::Stderr, bytes: b"hi".to_vec() };
        let log = stream.line(&log, "now");
        let done = BuildEvent::StepDone { step, cached: true, duration: std::time::Duration::ZERO };
        let done = stream.line(&done, "later");
        assert_eq!(started["vertexes"][0]["digest"], log["logs"][0]["vertex"]);
        assert_eq!((&log["logs"][0]["data"], &log["logs"][0]["stream"]), (&json!("aGk="), &json!(2)));
        let vertex = &done["vertexes"][0];
        assert_eq!(
            (&vertex["name"], &vertex["started"], &vertex["completed"]),
            (&json!("RUN x"), &json!("then"), &json!("later"))
        );
        assert_eq!(vertex["cached"], true);
    }
}
