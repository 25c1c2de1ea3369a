//! The status over HTTP. Read-only, and without any secret; who may read it is decided by the address it listens on.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::{Source, metrics};
use crate::failure::Failure;

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// The page runs what this server sends, and nothing that a node's name might smuggle in.
const POLICY: (HeaderName, &str) = (header::CONTENT_SECURITY_POLICY, "default-src 'self'");

const FRESH: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// A server that has its address.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let cannot = |error| Failure::new(format!("cannot serve HTTP at {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves for as long as the future is kept.
    pub(crate) async fn serve(self, source: Source) -> Result<(), Failure> {
        let router = Router::new()
            .route("/", get(|| file("text/html; charset=utf-8", HTML)))
            .route("/page.css", get(|| file("text/css; charset=utf-8", CSS)))
            .route(
                "/page.js",
                get(|| file("text/javascript; charset=utf-8", JS)),
            )
            .route("/status", get(status))
            .route("/metrics", get(text))
            .route("/health", get(health))
            .route("/ready", get(ready))
            .with_state(source);
        Ok(axum::serve(self.listener, router).await?)
    }
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), POLICY, FRESH], text)
}

async fn status(State(source): State<Source>) -> impl IntoResponse {
    ([POLICY, FRESH], axum::Json(source.read()))
}

async fn text(State(source): State<Source>) -> Response {
    match metrics::text(source.read()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// 200 while the node is a good part of its cluster, else 503 and why not. A node without a cluster is well as long as it answers.
async fn health(State(source): State<Source>) -> impl IntoResponse {
    let cluster = source.read().cluster;
    verdict(cluster.and_then(|cluster| cluster.health.trouble))
}

/// The same for who sends it work: it must also be a member, and know of a leader where there is to be one.
async fn ready(State(source): State<Source>) -> impl IntoResponse {
    let status = source.read();
    let why = status.cluster.and_then(|cluster| {
        let mut members = cluster.members.iter();
        let member = members.any(|member| member.node == status.node && member.status == "alive");
        cluster.health.trouble.or(match member {
            false => Some("is no member at present"),
            true if source.led && cluster.leader.is_none() => Some("knows of no leader"),
            true => None,
        })
    });
    verdict(why)
}

fn verdict(why: Option<&'static str>) -> impl IntoResponse {
    match why {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => {
            let why = format!("this node {why}\n");
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}
