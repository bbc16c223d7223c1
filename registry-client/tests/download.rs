//! Files at http addresses: what ADD fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Login, client, client_as};
use registry_client::{Download, RegistryError, Validators};
use std::io::Read;
use test_support::http::{Reply, Server, answer};

fn fetch(server: &Server, path: &str, known: Option<&Validators>) -> Result<Option<Download>, RegistryError> {
    client_as(Login::basic("me", "secret")).download(&format!("http://{}{path}", server.address), known)
}

#[test]
fn a_file_comes_with_its_name_and_time() {
    let server = Server::start(|seen, _| match (seen.target.as_str(), seen.header("if-none-match")) {
        ("/a/b.txt", "") => answer(302, "Location: /c", ""),
        ("/c", "") => answer(
            200,
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\nETag: \"1\"\nContent-Disposition: attachment; filename=\"n.txt\"",
            "hello",
        ),
        (_, "\"1\"") => answer(304, "", ""),
        _ => answer(404, "", ""),
    });
    let mut file = fetch(&server, "/a/b.txt", None).unwrap().unwrap();
    let mut text = String::new();
    file.body.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), file.size), ("hello", Some(5)));
    assert_eq!((file.modified_s, file.file_name.as_deref()), (Some(784_111_777), Some("n.txt")));
    assert!(fetch(&server, "/c", Some(&file.validators)).unwrap().is_none(), "not sent again");
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_empty()), "no login is for this");
    let error = fetch(&server, "/nope", None).unwrap_err();
    assert!(error.to_string().contains("not found (404)"), "{error}");
}

#[test]
fn a_redirect_leads_to_no_file_of_this_machine() {
    for target in ["file:///etc/passwd", "ftp://h/x", "gopher://h/", "unix:/x"] {
        let server = Server::start(move |_, _| answer(302, &format!("Location: {target}"), ""));
        let error = fetch(&server, "/", None).unwrap_err().to_string();
        assert!(error.contains("a redirect (302"), "{target}: {error}");
        assert_eq!(server.seen().len(), 1);
    }
    for address in ["file:///etc/passwd", "/etc/passwd", "http://u:p@h/x", "http:///x", ""] {
        assert!(client().download(address, None).is_err(), "{address:?}");
    }
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    let server = Server::start(|_, _| Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()));
    let mut file = fetch(&server, "/x", None).unwrap().unwrap();
    assert!(file.body.read_to_end(&mut Vec::new()).is_err());
}
