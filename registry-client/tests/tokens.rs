//! Token authentication against Debian's docker-registry, with a token service of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Login, client, client_as, quick};
use oci::{Descriptor, Digest, Manifest, MediaType, Reference};
use registry_client::{BlobPush, ClientConfig, Credential, Registry, RegistryError, TlsFiles};
use std::io::{Cursor, Read};
use std::sync::Arc;
use test_support::http::TokenServer;
use test_support::{Registry as Server, RegistryKind};

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;

fn image(server: &Server, name: &str) -> Reference {
    format!("{}/{name}", server.address()).parse().unwrap()
}

fn known() -> Registry {
    client_as(Login::basic(Server::USER, Server::PASSWORD))
}

fn push_config(registry: &Registry, to: &Reference, from: &[String]) -> Result<BlobPush, RegistryError> {
    let mut open = |_| Ok(Box::new(Cursor::new(CONFIG)) as Box<dyn Read>);
    registry.push_blob(to, &Descriptor::of(MediaType::OCI_CONFIG, CONFIG), from, &mut open, &|_| {})
}

fn push(registry: &Registry, to: &Reference) -> Result<Digest, RegistryError> {
    push_config(registry, to, &[])?;
    let manifest = Manifest::oci(Descriptor::of(MediaType::OCI_CONFIG, CONFIG), Vec::new());
    registry.push_manifest(to, MediaType::OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap())
}

#[test]
fn who_is_known_pushes_and_anybody_pulls_what_is_public() {
    let tokens = TokenServer::start();
    let server = Server::start_with_tokens(RegistryKind::Plain, &tokens);
    let (public, private) = (image(&server, "public/app"), image(&server, "team/app"));
    let me = known();
    push(&me, &public).unwrap();
    push(&me, &private).unwrap();
    me.manifest(&private).unwrap();
    // One for reading, one for writing, in each of two repositories.
    assert!(tokens.seen().len() <= 4, "{:?}", tokens.seen());

    client().manifest(&public).unwrap();
    let error = push(&client(), &public).unwrap_err();
    assert!(error.is_denied(), "{error}");
    let error = client().manifest(&private).unwrap_err();
    assert!(error.is_denied() && error.hint().unwrap().contains("ctr login"), "{error:?}");
    let error = client_as(Login::basic(Server::USER, "wrong")).manifest(&private).unwrap_err();
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
}

#[test]
fn a_login_is_tried_at_the_token_service() {
    let tokens = TokenServer::start();
    let server = Server::start_with_tokens(RegistryKind::Plain, &tokens);
    let login = |password: &str| Credential::Basic { username: Server::USER.into(), password: password.into() };
    client().verify_login(&server.address(), &login(Server::PASSWORD)).unwrap();
    let error = client().verify_login(&server.address(), &login("wrong")).unwrap_err();
    assert_eq!(error.hint(), Some("check the user name and the password"));
}

#[test]
fn a_token_that_is_out_of_date_is_got_anew() {
    let tokens = TokenServer::start();
    let server = Server::start_with_tokens(RegistryKind::Plain, &tokens);
    let to = image(&server, "team/app");
    push(&known(), &to).unwrap();
    tokens.expire_next(1);
    known().manifest(&to).unwrap();
    // For ever out of date: it ends.
    tokens.expire_next(1000);
    assert!(known().manifest(&to).unwrap_err().is_denied());
}

#[test]
fn an_identity_token_is_traded_for_others() {
    let tokens = TokenServer::start();
    let server = Server::start_with_tokens(RegistryKind::Plain, &tokens);
    let me = client_as(Login(Credential::IdentityToken("opensesame".to_owned())));
    push(&me, &image(&server, "team/app")).unwrap();
    assert!(tokens.seen().iter().all(|seen| seen.method == "POST"));
}

#[test]
fn a_mount_asks_for_both_repositories() {
    let tokens = TokenServer::start();
    let server = Server::start_with_tokens(RegistryKind::Plain, &tokens);
    let me = known();
    push(&me, &image(&server, "team/app")).unwrap();
    let outcome = push_config(&me, &image(&server, "team/copy"), &["team/app".to_owned()]).unwrap();
    assert_eq!(outcome, BlobPush::Mounted("team/app".to_owned()));
    let both = tokens.seen().iter().any(|s| s.target.contains("team%2Fapp%3Apull") && s.target.contains("team%2Fcopy"));
    assert!(both, "one token for two repositories: {:?}", tokens.seen());
}

#[test]
fn https_does_not_lead_to_a_plain_token_service() {
    let tokens = TokenServer::start();
    let server = Server::start_with_tokens(RegistryKind::Tls, &tokens);
    let with = |tls_verify| {
        let credentials = Arc::new(Login::basic(Server::USER, Server::PASSWORD));
        let tls = TlsFiles { cert_file: Some(server.ca()), ..TlsFiles::default() };
        Registry::new(ClientConfig { credentials, tls, tls_verify, ..quick() })
    };
    let error = with(true).manifest(&image(&server, "team/app")).unwrap_err();
    assert!(error.to_string().contains("that would leave https"), "{error}");
    assert!(tokens.seen().is_empty(), "the service was not even asked");
    // Who switches the checks off gets what he asks for.
    push(&with(false), &image(&server, "team/app")).unwrap();
}
