//! In the place of rustls where the feature `tls` is off: nothing that could be used.

use std::io;

use super::{TlsConfig, TlsError, TlsFailure};

/// There is none.
pub(crate) enum Tls {}

/// Never made.
pub(crate) type TlsStream<S> = S;

impl Tls {
    pub(crate) fn load(_config: &TlsConfig) -> Result<Self, TlsError> {
        Err(TlsError::NotBuilt)
    }

    pub(crate) fn accepts(&self) -> bool {
        match *self {}
    }

    pub(crate) async fn connect<S>(&self, _host: &str, _stream: S) -> io::Result<TlsStream<S>> {
        match *self {}
    }

    pub(crate) async fn accept<S>(&self, _stream: S) -> io::Result<TlsStream<S>> {
        match *self {}
    }

    pub(super) fn failure(_error: &io::Error) -> Option<TlsFailure> {
        None
    }
}
