//! `--change`: a Containerfile instruction that only touches the image's config.

use oci::ContainerDefaults;

/// Applies one instruction.
pub(crate) fn apply(config: &mut ContainerDefaults, text: &str) -> Result<(), String> {
    let text = text.trim();
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let wrong = |why: &str| format!("invalid change {text:?}: {why}");
    if rest.is_empty() && !matches!(name.to_ascii_uppercase().as_str(), "CMD" | "ENTRYPOINT") {
        return Err(wrong("its argument is missing"));
    }
    match name.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => config.entrypoint = command(rest),
        "ENV" => {
            for (name, value) in pairs(rest).ok_or_else(|| wrong("expected NAME=VALUE"))? {
                config.env.retain(|line| line.split('=').next() != Some(&name));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(|| wrong("expected NAME=VALUE"))?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let ports = network::parse_expose(port).map_err(|e| wrong(&e.to_string()))?;
                let keys = ports.into_iter().map(|(port, protocol)| format!("{port}/{protocol}"));
                config.exposed_ports.extend(keys.map(|key| (key, serde_json::json!({}))));
            }
        }
        "VOLUME" => {
            let paths = serde_json::from_str::<Vec<String>>(rest)
                .unwrap_or_else(|_| rest.split_whitespace().map(str::to_owned).collect());
            config.volumes.extend(paths.into_iter().map(|path| (path, serde_json::json!({}))));
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = rest.to_owned(),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        _ => return Err(wrong(&format!("{name} is not valid change command"))),
    }
    Ok(())
}

/// JSON is the exec form, anything else goes to the shell.
fn command(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return None;
    }
    let exec = serde_json::from_str::<Vec<String>>(text).ok();
    Some(exec.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]))
}

/// `A=1 B="two words"`, or the old form `A one and more`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| word.split_once('=').filter(|(n, _)| !n.is_empty()).map(|(n, v)| (n.to_owned(), v.to_owned())))
        .collect()
}

/// Words with quotes and backslashes resolved; None where a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() -> Result<(), String> {
        let mut config = ContainerDefaults::default();
        for text in [
            "CMD [\"sh\", \"-c\"]",
            "entrypoint run it",
            "ENV A=1 B=\"two words\"",
            "ENV A 2",
            "USER u",
            "LABEL x=y",
            "VOLUME /a /b",
        ] {
            apply(&mut config, text)?;
        }
        assert_eq!(config.cmd, Some(vec!["sh".to_owned(), "-c".to_owned()]));
        assert_eq!(config.entrypoint.map(|e| e.join(" ")), Some("/bin/sh -c run it".to_owned()));
        assert_eq!(config.env, ["B=two words", "A=2"]);
        assert_eq!(config.volumes.len(), 2);
        for bad in ["RUN x", "ENV", "ENV A=\"1", "", "ENV =1"] {
            assert!(apply(&mut ContainerDefaults::default(), bad).is_err(), "{bad}");
        }
        Ok(())
    }
}
