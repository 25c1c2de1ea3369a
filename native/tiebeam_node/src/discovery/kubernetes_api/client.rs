//! One question to the API server: HTTPS with the authority and the token of a service account.

use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::DiscoveryError;
use crate::tls::{Tls, TlsConfig};

/// How long all of it may take.
const TOTAL_TIME: Duration = Duration::from_secs(20);

/// The longest answer: some 2,000 pods. A list of endpoints has a hundredth of that.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// How much of the server's own words is in an error.
const MAX_MESSAGE: usize = 512;

/// What the server answers to a `GET` of this path. A redirection is an error: it would take the token elsewhere.
pub(super) async fn get(
    server: &Uri,
    path: &str,
    token: &str,
    authorities: PathBuf,
) -> Result<Bytes, DiscoveryError> {
    match timeout(TOTAL_TIME, ask(server, path, token, authorities)).await {
        Ok(answer) => answer.map_err(|error| format!("{server}: {error}").into()),
        Err(_) => Err(format!("{server}: no answer within {} s", TOTAL_TIME.as_secs()).into()),
    }
}

async fn ask(
    server: &Uri,
    path: &str,
    token: &str,
    authorities: PathBuf,
) -> Result<Bytes, DiscoveryError> {
    let (Some(authority), Some(host)) = (server.authority(), server.host()) else {
        return Err("the address has no host".into());
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "the token of the service account has characters that none has")?;
    bearer.set_sensitive(true);
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(AUTHORIZATION, bearer)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, "tiebeam")
        .body(Empty::<Bytes>::new())?;

    let tls = Tls::load(&TlsConfig::new(authorities))?;
    let stream = TcpStream::connect((host, server.port_u16().unwrap_or(443))).await?;
    let stream = tls.connect(host, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BYTES)
            .collect()
            .await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => format!("the answer is longer than {MAX_BYTES} bytes: select less").into(),
            false => error,
        })?;
        let body = body.to_bytes();
        match status {
            StatusCode::OK => Ok(body),
            _ => Err(format!("{status}: {}", message(&body)).into()),
        }
    };
    tokio::select! {
        biased;
        answer = exchange => answer,
        // A connection that ends well has handed on all that it received.
        error = async { match connection.await {
            Ok(()) => pending().await,
            Err(error) => error,
        } } => Err(error.into()),
    }
}

/// A failure is an object of kind `Status`.
#[derive(Deserialize)]
struct Status {
    message: String,
}

fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice(body) {
        Ok(Status { message }) => message,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE)]).into_owned(),
    };
    text.chars().take(MAX_MESSAGE).collect()
}
