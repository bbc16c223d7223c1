//! Proving who we are: what each host wants, and the tokens got so far.
//!
//! A registry answers 401 and names a scheme. With Basic the credential goes to the registry itself,
//! with Bearer to the token service it names (the realm). That service may live on another host –
//! that is the protocol – but never on a less protected one: https does not lead to http.

use crate::challenge::{self, Challenge};
use crate::http::{Call, Failure, Http, Payload, read_bounded};
use crate::url::{self, Origin};
use crate::{Cause, Credential, Credentials};
use base64::Engine as _;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

/// The largest token answer, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// What the token protocol calls a missing or too small `expires_in`.
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// A token this close to its end is fetched anew.
const MARGIN: Duration = Duration::from_secs(10);
/// Names us to token services.
const CLIENT_ID: &str = "ctr";

/// The registry and the repository a request is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// The registry's name, under which credentials are kept: `docker.io`.
    pub(crate) domain: String,
    /// `host[:port]` to connect to: `registry-1.docker.io`.
    pub(crate) host: String,
    /// `library/busybox`; empty for the registry as a whole.
    pub(crate) repository: String,
}

/// A value computed once, by the first who asks; the others wait for it.
struct Once<K, V>(Mutex<HashMap<K, Arc<Mutex<Option<V>>>>>);

impl<K: Hash + Eq, V> Once<K, V> {
    fn slot(&self, key: K) -> Arc<Mutex<Option<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    end: Instant,
}

/// A token is for one host, service and set of scopes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    target: Target,
    realm: String,
    service: String,
    scopes: Vec<String>,
}

/// What is known of hosts and held as tokens.
pub(crate) struct Auth {
    credentials: Arc<dyn Credentials>,
    /// By host.
    challenges: Mutex<HashMap<String, Challenge>>,
    known: Once<Target, Option<Credential>>,
    tokens: Once<TokenKey, Token>,
}

/// Why there is no authorization for a request.
pub(crate) enum Denied {
    /// No usable answer from a token service or credential store.
    Failure(Failure),
    /// The token service said no.
    Status(StatusCode, Vec<u8>),
}

impl<T: Into<Failure>> From<T> for Denied {
    fn from(failure: T) -> Denied {
        Denied::Failure(failure.into())
    }
}

impl Auth {
    pub(crate) fn new(credentials: Arc<dyn Credentials>) -> Auth {
        Auth {
            credentials,
            challenges: Mutex::default(),
            known: Once(Mutex::default()),
            tokens: Once(Mutex::default()),
        }
    }

    /// The credential for a target; looked up once, as helper programs are slow.
    pub(crate) fn credential(&self, target: &Target) -> Result<Option<Credential>, Cause> {
        let slot = self.known.slot(target.clone());
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credential) = &*known {
            return Ok(credential.clone());
        }
        let credential = self.credentials.get(&target.domain, &target.repository)?;
        *known = Some(credential.clone());
        Ok(credential)
    }

    /// Takes note of what a 401 asks for; returns the scopes it names, or none if it asks for nothing we can give.
    pub(crate) fn learn(&self, target: &Target, headers: &HeaderMap) -> Option<Vec<String>> {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let all: Vec<Challenge> = values.flat_map(challenge::parse).collect();
        let by_scheme = |scheme: &str| all.iter().find(|c| c.scheme == scheme);
        let chosen = by_scheme("bearer").filter(|c| c.parameter("realm").is_some()).or_else(|| by_scheme("basic"))?;
        let scopes = chosen.parameter("scope").map(|s| s.split(' ').map(str::to_owned).collect()).unwrap_or_default();
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner).insert(target.host.clone(), chosen.clone());
        Some(scopes)
    }

    /// What to send as `Authorization`, from what is known of the host so far.
    /// `refused`: a token that was just refused, not to be used again.
    pub(crate) fn authorization(
        &self,
        http: &Http,
        target: &Target,
        registry: &Origin,
        scopes: &[String],
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Denied> {
        let challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(challenge) = challenges.get(&target.host).cloned() else { return Ok(None) };
        drop(challenges);
        match (challenge.scheme.as_str(), self.credential(target)?) {
            (_, Some(Credential::RegistryToken(token))) => Ok(Some(secret(&format!("Bearer {token}"))?)),
            ("basic", Some(Credential::Basic { username, password })) => Ok(Some(basic(&username, &password)?)),
            ("bearer", credential) => {
                let request = TokenRequest { http, target, registry, challenge: &challenge, scopes, credential };
                self.token(&request, refused).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn token(&self, request: &TokenRequest<'_>, refused: Option<&HeaderValue>) -> Result<HeaderValue, Denied> {
        let mut scopes = request.scopes.to_vec();
        scopes.sort();
        let slot = self.tokens.slot(TokenKey {
            target: request.target.clone(),
            realm: request.challenge.parameter("realm").unwrap_or("").to_owned(),
            service: request.challenge.parameter("service").unwrap_or("").to_owned(),
            scopes,
        });
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = held.as_ref().filter(|t| t.end > Instant::now() && Some(&t.header) != refused) {
            return Ok(token.header.clone());
        }
        let token = request.fetch()?;
        let header = token.header.clone();
        *held = Some(token);
        Ok(header)
    }
}

/// All that a token is asked with.
struct TokenRequest<'a> {
    http: &'a Http,
    target: &'a Target,
    registry: &'a Origin,
    challenge: &'a Challenge,
    scopes: &'a [String],
    credential: Option<Credential>,
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

impl TokenRequest<'_> {
    fn fetch(&self) -> Result<Token, Denied> {
        let realm = self.realm()?;
        if let Some(Credential::IdentityToken(token)) = &self.credential {
            let (status, body) = self.post(&realm, token)?;
            // Services without OAuth2 say so in many ways; the older GET may still do without a user. Where it does not
            // either, what the first answer said of the identity token is the reason to tell.
            if !matches!(status.as_u16(), 400 | 401 | 404 | 405) {
                return parse_token(status, &body);
            }
            let refused = Denied::Status(status, body);
            let (status, body) = self.get(&realm)?;
            return parse_token(status, &body).map_err(|_| refused);
        }
        let (status, body) = self.get(&realm)?;
        parse_token(status, &body)
    }

    /// The token service's URL, checked: https never leads to http, and http only where that is allowed at all.
    fn realm(&self) -> Result<Uri, Failure> {
        let text = self.challenge.parameter("realm").unwrap_or("");
        let base: Uri = format!("{}://{}/", self.registry.scheme(), self.registry.authority)
            .parse()
            .map_err(|_| Cause::Protocol("an unusable host name".to_owned()))?;
        let realm = url::resolve(&base, text)
            .ok_or_else(|| Cause::Protocol(format!("the registry names an unusable token service: {text:?}")))?;
        self.http.check_downgrade(Some(self.registry), &realm)?;
        Ok(realm)
    }

    fn get(&self, realm: &Uri) -> Result<(StatusCode, Vec<u8>), Denied> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(self.challenge.parameter("service").map(|s| ("service", s)));
        pairs.extend(self.scopes.iter().map(|s| ("scope", s.as_str())));
        let mut authorization = None;
        if let Some(Credential::Basic { username, password }) = &self.credential {
            pairs.push(("account", username));
            pairs.push(("client_id", CLIENT_ID));
            authorization = Some(basic(username, password)?);
        }
        let separator = if realm.query().is_some() { "&" } else { "?" };
        let text = format!("{realm}{separator}{}", url::encode_pairs(pairs));
        let url = text.parse().map_err(|_| Cause::Protocol(format!("an unusable token URL: {text:?}")))?;
        self.send(Call {
            method: Method::GET,
            url,
            headers: Vec::new(),
            payload: Payload::None,
            authorization,
            patient: false,
            may_be_http: false,
        })
    }

    fn post(&self, realm: &Uri, refresh_token: &str) -> Result<(StatusCode, Vec<u8>), Denied> {
        let scopes = self.scopes.join(" ");
        let form = url::encode_pairs([
            ("grant_type", "refresh_token"),
            ("service", self.challenge.parameter("service").unwrap_or("")),
            ("client_id", CLIENT_ID),
            ("scope", &scopes),
            ("refresh_token", refresh_token),
        ]);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        self.send(Call {
            method: Method::POST,
            url: realm.clone(),
            headers: vec![(header::CONTENT_TYPE, form_type)],
            payload: Payload::Secret(form.as_bytes()),
            authorization: None,
            patient: false,
            may_be_http: false,
        })
    }

    fn send(&self, mut call: Call<'_>) -> Result<(StatusCode, Vec<u8>), Denied> {
        let answer = self.http.send(&mut call)?;
        let body = read_bounded(answer.body, MAX_TOKEN_BYTES, self.http.idle_timeout)?;
        Ok((answer.status, body))
    }
}

fn parse_token(status: StatusCode, body: &[u8]) -> Result<Token, Denied> {
    if !status.is_success() {
        return Err(Denied::Status(status, body.to_vec()));
    }
    let unusable = |why: String| Cause::Protocol(format!("the token service's answer is unusable: {why}"));
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|e| unusable(e.to_string()))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(unusable("it holds no token".to_owned()).into());
    }
    let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(0).min(86_400)).max(MIN_LIFETIME);
    Ok(Token { header: secret(&format!("Bearer {token}"))?, end: Instant::now() + lifetime - MARGIN })
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, Cause> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {encoded}"))
}

fn secret(text: &str) -> Result<HeaderValue, Cause> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Cause::Protocol("a token with characters that cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
