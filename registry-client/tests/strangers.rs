//! Who hears who we are: tokens, challenges, redirects – and those who would like to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Login, MANIFEST, OCI, blob_of, client, client_as, content, read_all};
use registry_client::Credential;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use test_support::http::{Server, answer};

/// A registry that wants a token from `realm` first.
fn challenging(realm: String) -> Server {
    Server::start(move |seen, _| match seen.header("authorization") {
        "Bearer good" => answer(200, OCI, MANIFEST),
        _ => answer(
            401,
            &format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a:pull\""),
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
        ),
    })
}

#[test]
fn a_token_is_fetched_once_for_all_who_wait() {
    let tokens = Arc::new(Server::start(|_, _| answer(200, "", r#"{"token":"good","expires_in":1}"#)));
    let server = Arc::new(challenging(format!("http://{}/token", tokens.address)));
    let registry = client_as(Login::basic("me", "secret"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| registry.manifest(&server.image("a")).unwrap());
        }
    });
    let seen = tokens.seen();
    assert_eq!(seen.len(), 1, "expires_in below 60 s counts as 60 s");
    assert!(
        seen[0].target.starts_with("/token?service=s&scope=repository%3Aa%3Apull&account=me"),
        "{}",
        seen[0].target
    );
    assert_eq!(seen[0].header("authorization"), "Basic bWU6c2VjcmV0");
}

#[test]
fn access_token_is_a_token_and_anonymous_is_a_login() {
    let tokens = Server::start(|seen, _| {
        assert_eq!(seen.header("authorization"), "");
        answer(200, "", r#"{"access_token":"good"}"#)
    });
    let server = challenging(format!("http://{}/token?x=1", tokens.address));
    client().manifest(&server.image("a")).unwrap();
    assert!(tokens.seen()[0].target.starts_with("/token?x=1&service=s"));
}

#[test]
fn an_identity_token_is_traded_and_goes_nowhere_else() {
    let login = || Login(Credential::IdentityToken("refresh me".to_owned()));
    let tokens = Server::start(|_, _| answer(200, "", r#"{"access_token":"good"}"#));
    let server = challenging(format!("http://{}/token", tokens.address));
    client_as(login()).manifest(&server.image("a")).unwrap();
    let seen = &tokens.seen()[0];
    assert_eq!(seen.method, "POST");
    let form = String::from_utf8_lossy(&seen.body).into_owned();
    assert!(form.contains("grant_type=refresh_token") && form.contains("refresh_token=refresh%20me"), "{form}");

    // A token service that sends it on to another host.
    let thief = Arc::new(Server::start(|_, _| answer(200, "", r#"{"token":"good"}"#)));
    let place = thief.address.clone();
    let tokens = Server::start(move |_, _| answer(307, &format!("Location: http://{place}/"), ""));
    let server = challenging(format!("http://{}/token", tokens.address));
    let error = client_as(login()).manifest(&server.image("a")).unwrap_err();
    assert!(error.to_string().contains("refused to send credentials"), "{error}");
    assert!(thief.seen().is_empty());
}

#[test]
fn a_service_without_oauth2_is_asked_the_older_way() {
    let login = || Login(Credential::IdentityToken("refresh me".to_owned()));
    for status in [400, 401, 404, 405] {
        let tokens = Server::start(move |seen, _| match seen.method.as_str() {
            "POST" => answer(status, "", r#"{"error":"unsupported_grant_type"}"#),
            _ => answer(200, "", r#"{"token":"good"}"#),
        });
        let server = challenging(format!("http://{}/token", tokens.address));
        client_as(login()).manifest(&server.image("a")).unwrap();
        let seen = tokens.seen();
        assert_eq!(seen[1].method, "GET");
        assert!(!seen[1].target.contains("refresh"), "the identity token is no part of a URL: {}", seen[1].target);
    }
    // What the service said of the token is what the user hears.
    let tokens = Server::start(|seen, _| match seen.method.as_str() {
        "POST" => answer(401, "", r#"{"error":"invalid_grant","error_description":"the token has expired"}"#),
        _ => answer(401, "", r#"{"details":"anonymous"}"#),
    });
    let server = challenging(format!("http://{}/token", tokens.address));
    let error = client_as(login()).manifest(&server.image("a")).unwrap_err();
    assert!(error.to_string().contains("the token has expired"), "{error}");
}

#[test]
fn a_token_service_that_sends_us_on_sends_no_password_on() {
    let thief = Arc::new(Server::start(|_, _| answer(200, "", r#"{"token":"good"}"#)));
    let place = thief.address.clone();
    let tokens = Server::start(move |_, _| answer(302, &format!("Location: http://{place}/token"), ""));
    let server = challenging(format!("http://{}/token", tokens.address));
    client_as(Login::basic("me", "secret")).manifest(&server.image("a")).unwrap();
    assert_eq!(tokens.seen()[0].header("authorization"), "Basic bWU6c2VjcmV0");
    assert_eq!(thief.seen()[0].header("authorization"), "");
    // Nor to where only https may be spoken.
    let tokens = Server::start(|_, _| answer(302, "Location: http://evil.example/token", ""));
    let server = challenging(format!("http://{}/token", tokens.address));
    let error = client_as(Login::basic("me", "secret")).manifest(&server.image("a")).unwrap_err();
    assert!(error.to_string().contains("refused to go on to http://evil.example"), "{error}");
}

#[test]
fn a_renewed_token_stays_behind_at_a_redirect_too() {
    let thief = Arc::new(Server::start(|_, _| answer(200, OCI, MANIFEST)));
    let place = thief.address.clone();
    let tokens = Server::start(|_, count| answer(200, "", format!(r#"{{"token":"t{count}"}}"#)));
    let realm = format!("http://{}/token", tokens.address);
    let server = Server::start(move |seen, _| match seen.header("authorization") {
        "Bearer t1" => answer(307, &format!("Location: http://{place}/x"), ""),
        _ => answer(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\",error=\"invalid_token\""), ""),
    });
    client_as(Login::basic("me", "secret")).manifest(&server.image("a")).unwrap();
    assert_eq!(tokens.seen().len(), 2, "renewed");
    assert!(thief.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[test]
fn a_refused_token_is_renewed_but_not_for_ever() {
    let made = AtomicUsize::new(0);
    let tokens = Server::start(move |_, _| {
        let token = if made.fetch_add(1, Ordering::SeqCst) == 0 { "stale" } else { "good" };
        answer(200, "", format!(r#"{{"token":"{token}"}}"#))
    });
    let server = challenging(format!("http://{}/token", tokens.address));
    client().manifest(&server.image("a")).unwrap();
    assert_eq!(tokens.seen().len(), 2);

    let tokens = Server::start(|_, count| answer(200, "", format!(r#"{{"token":"bad{count}"}}"#)));
    let server = challenging(format!("http://{}/token", tokens.address));
    let error = client().manifest(&server.image("a")).unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(error.hint().unwrap().contains("ctr login"), "{error:?}");
    assert!(server.seen().len() <= 5);
}

#[test]
fn a_wider_scope_is_got_when_the_registry_asks_for_it() {
    let tokens = Server::start(|seen, _| {
        let wide = seen.target.contains("repository%3Aa%3Apull%2Cpush");
        answer(200, "", if wide { r#"{"token":"good"}"# } else { r#"{"token":"narrow"}"# })
    });
    let realm = format!("http://{}/t", tokens.address);
    let server = Server::start(move |seen, _| match seen.header("authorization") {
        "Bearer good" => answer(200, OCI, MANIFEST),
        "" => answer(401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\""), ""),
        _ => answer(
            401,
            &format!(
                "WWW-Authenticate: Bearer realm=\"{realm}\",scope=\"repository:a:pull,push\",error=\"insufficient_scope\""
            ),
            "",
        ),
    });
    client().manifest(&server.image("a")).unwrap();
}

#[test]
fn several_challenges_and_basic() {
    let server = Server::start(|seen, _| match seen.header("authorization") {
        "Basic bWU6c2VjcmV0" => answer(200, OCI, MANIFEST),
        _ => answer(401, "WWW-Authenticate: Negotiate\nWWW-Authenticate: Digest realm=x, Basic realm=\"r\"", ""),
    });
    client_as(Login::basic("me", "secret")).manifest(&server.image("a")).unwrap();
    let error = client_as(Login::basic("me", "wrong")).manifest(&server.image("a")).unwrap_err();
    assert!(error.is_denied());
    assert!(error.hint().unwrap().contains("log in as someone who may"), "{error:?}");
    // Anonymous: nothing to try, so one request.
    let before = server.seen().len();
    assert!(client().manifest(&server.image("a")).unwrap_err().is_denied());
    assert_eq!(server.seen().len(), before + 1);
}

#[test]
fn a_hostile_realm_gets_nothing() {
    for realm in ["file:///etc/passwd", "http://evil.example/token", "http://me:pw@127.0.0.1/", "gopher://x", "::", ""]
    {
        let server = challenging(realm.to_owned());
        let error = client_as(Login::basic("me", "secret")).manifest(&server.image("a")).unwrap_err();
        let text = error.to_string();
        let refused = text.contains("token service") || text.contains("refused to go on to") || error.is_denied();
        assert!(refused, "{realm}: {text}");
    }
}

#[test]
fn credentials_stay_behind_when_a_redirect_leaves() {
    let whole = content(2000);
    let blob = blob_of(&whole);
    let served = whole.clone();
    let elsewhere = Arc::new(Server::start(move |seen, _| match seen.target.as_str() {
        "/wants-a-login" => answer(401, "WWW-Authenticate: Basic realm=\"give me\"", ""),
        _ => answer(200, "", &served),
    }));
    for status in [301, 302, 303, 307, 308] {
        let place = elsewhere.address.clone();
        let server = Server::start(move |seen, _| match seen.header("authorization") {
            "" => answer(401, "WWW-Authenticate: Basic realm=\"r\"", ""),
            _ => answer(status, &format!("Location: http://{place}/data?sig=1"), ""),
        });
        assert!(read_all(&client_as(Login::basic("me", "secret")), &server, &blob).unwrap() == whole);
        assert_eq!(server.seen()[1].header("authorization"), "Basic bWU6c2VjcmV0");
    }
    assert!(elsewhere.seen().iter().all(|s| s.header("authorization").is_empty()));

    // The other place asks for them: it does not get them either.
    let place = elsewhere.address.clone();
    let server = Server::start(move |_, _| answer(302, &format!("Location: http://{place}/wants-a-login"), ""));
    let error = client_as(Login::basic("me", "secret")).manifest(&server.image("a")).unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(elsewhere.seen().iter().all(|s| s.header("authorization").is_empty()));
}

#[test]
fn redirects_that_lead_astray_are_refused() {
    for (location, expected) in [
        ("http://evil.example/x", "refused to go on to http://evil.example"),
        ("file:///etc/passwd", "without a usable Location"),
        ("", "no redirect"),
    ] {
        let server = Server::start(move |_, _| answer(302, &format!("Location: {location}"), ""));
        let error = client().manifest(&server.image("a")).unwrap_err().to_string();
        assert!(error.contains(expected) || location.is_empty(), "{error}");
    }
    let round = Server::start(|_, _| answer(302, "Location: /again", ""));
    let error = client().manifest(&round.image("a")).unwrap_err().to_string();
    assert!(error.contains("redirects"), "{error}");
    assert!(round.seen().len() <= 11);
}

#[test]
fn foreign_layers_come_without_credentials() {
    let whole = content(3000);
    let elsewhere = {
        let served = whole.clone();
        Server::start(move |_, _| answer(200, "", &served))
    };
    let server = Server::start(|seen, _| match seen.header("authorization") {
        "" => answer(401, "WWW-Authenticate: Basic realm=\"r\"", ""),
        _ => answer(404, "", ""),
    });
    let mut blob = blob_of(&whole);
    blob.urls = vec!["ftp://x/y".to_owned(), format!("http://{}/layer", elsewhere.address)];
    assert!(read_all(&client_as(Login::basic("me", "secret")), &server, &blob).unwrap() == whole);
    assert_eq!(elsewhere.seen()[0].header("authorization"), "");
}
